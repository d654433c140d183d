"""Routing state: endpoints, workers, outstanding load, the request queue, the dispatcher and tickets."""
