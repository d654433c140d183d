"""Alerts: which conditions hold, when they become incidents, and what waits for delivery."""
