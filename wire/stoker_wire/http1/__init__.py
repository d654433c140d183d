"""HTTP/1.1 on asyncio, server and client, for the engine and the worker; needs the extra `http1`."""
