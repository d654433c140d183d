"""Errors: of HTTP calls, and their base class."""
