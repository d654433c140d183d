"""Which worker a request goes to, and in which order queued requests are served."""
