"""Peers' scaling rules from their sources, with the same operations as the production policy."""
