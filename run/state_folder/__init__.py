"""The state folder: identity, keys, lock and owner-only files."""
