"""The client of the Vast REST API."""
