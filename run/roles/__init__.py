"""The processes of a deployment: engine, Temporal worker, marketplace of this machine."""
