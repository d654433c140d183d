"""Composition roots: the only place that reads settings and opens sockets."""
