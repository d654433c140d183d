"""Tokens, tickets, redaction of secrets, and checks against web pages."""
