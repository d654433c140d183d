"""Requests that break workers, and the evidence against workers."""
