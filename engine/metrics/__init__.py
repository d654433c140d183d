"""The engine's metrics for Prometheus: what they are, and their text."""
