"""Watches the model server: readiness, benchmark, health, log and GPUs."""
