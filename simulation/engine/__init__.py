"""The engine of the simulated world: dispatches requests with the production policy, and sends metrics."""
