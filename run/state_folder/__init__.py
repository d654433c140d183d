"""The state folder: identity, keys, lock, and files that only the owner can read."""
