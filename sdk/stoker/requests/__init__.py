"""One request: its options, body, attempts, answer, stream, session, progress and retry bounds."""
