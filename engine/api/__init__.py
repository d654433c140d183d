"""The HTTP calls of clients and workers: routing, worker reports, OpenAI proxy, health and metrics."""
