"""The Temporal worker process: data converter, workflow runner, registration."""
