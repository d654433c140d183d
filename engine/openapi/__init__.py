"""The engine's OpenAPI document: reply and body types, shared declarations, and the document itself."""
