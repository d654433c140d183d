"""The certificate authority for workers."""
