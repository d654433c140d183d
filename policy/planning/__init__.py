"""From an observation to a plan: scale up and down, drain, repair, update, and validate."""
