"""`make demo`: the main job on this machine, from nothing to a burst and back to zero."""
