"""The HTTP calls of clients and workers: routing, worker reports, the OpenAI door, health and metrics."""
