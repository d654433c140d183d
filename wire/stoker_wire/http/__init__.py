"""HTTP helpers that engine, worker and marketplace share: path patterns, WebSocket frames, OpenAPI documents."""
