"""What the presets share: their declaration, settings, benchmarks and causes of failure."""
