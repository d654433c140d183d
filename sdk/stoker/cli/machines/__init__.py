"""`stoker up`, `stoker offers`, `stoker templates` and `stoker hosts`."""
