"""The web server on the GPU instance: watches, benchmarks, proxies and reports a model server."""
