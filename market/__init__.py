"""The marketplace port, its fake, and the client of the Vast REST API."""
