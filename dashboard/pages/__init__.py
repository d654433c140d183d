"""The pages, their live updates, and the actions that they offer. Actions are calls of the engine's console API."""
