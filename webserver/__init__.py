"""Shared by every aiohttp server of the controller: connection limits, request checks and listening sockets."""
