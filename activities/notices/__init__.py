"""Delivery of notices: signed webhooks and e-mail. Addresses and secrets exist only here, never in a history."""
