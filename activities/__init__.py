"""Temporal activities: idempotent calls of the marketplace, with classified errors, and the planner."""
