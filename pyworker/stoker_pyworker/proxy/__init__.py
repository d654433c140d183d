"""Requests on their way to the model server: tickets, admission, queue, exchange, hooks, sessions."""
