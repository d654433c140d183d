"""A seeded world in which the production policy runs over traces: what it costs and how long requests wait."""
