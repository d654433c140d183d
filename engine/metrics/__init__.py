"""The engine's metrics for Prometheus: their declarations, and the text."""
