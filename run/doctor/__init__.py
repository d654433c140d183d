"""Checks of `stokerd doctor`: the deployment as its operator sees it."""
