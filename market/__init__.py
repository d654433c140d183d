"""The marketplace: one port, one client of the Vast REST API, one marketplace of this machine that speaks it."""
