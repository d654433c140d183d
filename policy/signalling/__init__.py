"""When an engine reports an endpoint's metrics to its workflow: batching, significance, escalation."""
