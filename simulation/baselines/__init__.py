"""Peers' scaling rules from their own sources, at the same controls as the production policy."""
