"""Metrics that an endpoint's workflow must get at once, not with the next batch."""

from collections.abc import Callable

from engine.routing.endpoint import Endpoint

CAUSE_SUSPECT = "a worker does not answer its clients"
CAUSE_DRAINED = "a draining worker holds nothing"


class UrgentSignals:
    """Marks an endpoint's metrics as urgent, with the cause, and has them sent."""

    def __init__(self, on_urgent: Callable[[Endpoint], None]) -> None:
        self._on_urgent = on_urgent

    def signal_backlog(self, endpoint: Endpoint, now: float) -> None:
        """Signal when requests begin to wait without any routable worker, and each time their load doubles."""
        if endpoint.candidates:
            endpoint.escalation.reset_backlog()
            self.signal_queue_time(endpoint, now)
        elif not endpoint.stopped:
            # The count is added because a cost of 0 is a request too.
            backlog = endpoint.request_queue.load + len(endpoint.request_queue)
            self.signal(endpoint, endpoint.escalation.on_backlog(backlog), now)

    def signal_queue_time(self, endpoint: Endpoint, now: float) -> None:
        """Signal when the expected queue time exceeds its target, and each time it has grown by half."""
        target = endpoint.config.target_queue_time
        self.signal(endpoint, endpoint.escalation.on_queue_time(endpoint.queue_seconds, target), now)

    def signal(self, endpoint: Endpoint, cause: str | None, now: float) -> None:
        """Signal with this cause; None: not now."""
        if cause is not None:
            endpoint.metrics_batcher.request_urgent(cause, now)
            self._on_urgent(endpoint)
