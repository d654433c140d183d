"""Child processes of `stokerd dev`: supervision, the Temporal dev server and its UI, listening ports."""
