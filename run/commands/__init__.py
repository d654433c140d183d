"""The commands of `stokerd`."""
