"""The requests of an endpoint: as they arrive, in the queue, and at their end."""
