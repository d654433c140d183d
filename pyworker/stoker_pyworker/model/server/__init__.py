"""The model server that the worker runs itself: its process, output, causes of failure and metrics."""
