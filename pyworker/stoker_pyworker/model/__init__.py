"""The model server: readiness, benchmark, health, log and GPU."""
