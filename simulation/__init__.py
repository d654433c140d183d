"""A seeded world that runs the production policy over traces, and reports cost and waits."""
