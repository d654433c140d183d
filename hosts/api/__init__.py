"""The Vast REST API over this machine's instances."""
