"""Tokens, tickets, named keys, redaction of secrets, and checks against web pages."""
