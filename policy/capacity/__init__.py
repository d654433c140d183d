"""Capacity: performance, supply, demand, boot time and budget."""
