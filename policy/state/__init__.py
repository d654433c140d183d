"""Recorded values: workers and their lifecycle, what the planner observes, and the plan that it returns."""
