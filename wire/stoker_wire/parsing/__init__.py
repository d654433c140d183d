"""Strict readers of values from outside, and the limits of everything that enters a state."""
