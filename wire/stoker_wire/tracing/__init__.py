"""Traces with OpenTelemetry, off unless the `OTEL_…` variables ask for them."""
