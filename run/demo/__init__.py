"""`make demo`: scales from zero workers to a burst and back to zero on this machine."""
