"""Commands over all endpoints: `stoker status`, `top`, `open` and `doctor`."""
