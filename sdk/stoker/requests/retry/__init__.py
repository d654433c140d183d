"""Whether and when a failed attempt is repeated."""
