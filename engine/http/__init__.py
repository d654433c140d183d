"""The engine's HTTP server: checks of request heads, calls on the hot path, and aiohttp's handlers for the rest."""
