"""The Vast REST API of this machine's instances."""
