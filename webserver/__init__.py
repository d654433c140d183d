"""Shared by every aiohttp server of the controller: connection limits and listening sockets."""
