"""Durable hands: what touches the marketplace, idempotent and classified."""
