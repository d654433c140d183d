"""The web page: endpoints, workers, requests, decisions and costs, read through the engine's console API."""
