"""Shared by the presets: their declaration, settings, benchmarks and causes of failure."""
