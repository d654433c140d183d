"""Forwards requests of the OpenAI API to workers, and their answers to clients."""
