"""The roles of a deployment's processes: engine, Temporal worker, host marketplace."""
