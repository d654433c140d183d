"""One request: body, attempts, answer, stream, session, progress, retry policy."""
