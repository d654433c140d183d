"""Readiness and metrics of the engine."""
