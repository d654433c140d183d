"""HTTP/1.1 on asyncio: the server for clients, and the client for the model server and the engine."""
