"""Strict parsers for external values, and size limits."""
