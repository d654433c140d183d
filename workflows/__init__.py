"""The durable story of an endpoint."""
