"""The HTTP engine: routes requests, takes reports, speaks the console API. Holds no durable state."""
