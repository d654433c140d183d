"""Endpoints, workergroups and workers through the console API."""
