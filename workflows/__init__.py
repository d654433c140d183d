"""Temporal workflows: the endpoint, the sweep, the notifier."""
