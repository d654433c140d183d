"""The engine's console API: endpoints, workergroups, workers, logs."""
