"""Request counts, and the reports to the engine."""
