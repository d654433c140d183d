"""Forwards requests to the model server: tickets, admission, queue, exchange, hooks and sessions."""
