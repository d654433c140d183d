"""How the worker stands: loading, ready, broken, draining; and who must hear of it at once."""

import asyncio
import secrets
import time
from collections.abc import Callable

import structlog

from stoker_pyworker.http.outgoing import OriginFault
from stoker_wire.problem import Problem
from stoker_wire.security.redaction import redact

log = structlog.get_logger(room="standing")

_LOADING = Problem(
    503,
    "worker_loading",
    "the model is still loading on this worker; route again",
    headers={"Retry-After": "1"},
)
_DRAINING = Problem(
    503, "worker_draining", "this worker takes no new requests; route again", headers={"Retry-After": "1"}
)


class HealthState:
    """The worker's condition. Every change calls `changed`, which makes a report at once."""

    def __init__(self, *, started_at: float | None = None, hidden: tuple[str, ...] = ()) -> None:
        self._hidden = hidden
        """Values that no fault may repeat: a model server's last words often hold the token that it was refused with."""
        self.started_at = time.monotonic() if started_at is None else started_at
        self.incarnation = secrets.token_hex(8)
        """Names this process in its reports, so that a late one is not read as the next process's."""
        self.perf = 0.0
        """Workload per second, measured; 0 until then."""
        self.load_seconds = 0.0
        """From process start to ready; 0 until then."""
        self.draining = False
        self.drain_began = asyncio.Event()
        self.refusal: Problem | None = _LOADING
        """Why new work is refused now."""
        self.changed: Callable[[], None] = lambda: None
        self.quiet: Callable[[], None] = lambda: None
        """Called when the last running request has ended."""
        self.doubted: Callable[[], None] = lambda: None
        """Called when a request found the model server not answering."""
        self._faults: dict[str, str] = {}

    @property
    def ready(self) -> bool:
        """Loaded and benchmarked; it may be broken all the same."""
        return self.load_seconds > 0

    @property
    def error(self) -> str:
        """What is wrong, or an empty string."""
        return "; ".join(self._faults.values())

    def loaded(self, perf: float) -> None:
        """The model is loaded and its perf known."""
        self.perf = perf
        if not self.ready:
            self.load_seconds = max(time.monotonic() - self.started_at, 1e-3)
            log.info("ready", perf=round(perf, 3), load_seconds=round(self.load_seconds, 3))
        if not self.draining:
            self.refusal = None
        self.changed()

    def failed(self, source: str, message: str) -> None:
        """Something is wrong, as told by `source` (log, probe, connection, benchmark)."""
        message = redact(message, self._hidden)
        if self._faults.get(source) == message:
            return
        self._faults[source] = message
        log.error("model_fault", source=source, error=message)
        self.changed()

    def recovered(self, source: str) -> None:
        """What `source` told of is over."""
        if self._faults.pop(source, None) is not None:
            log.info("model_recovered", source=source)
            self.changed()

    def model_failed(self, fault: OriginFault) -> None:
        """A request found the model server not answering."""
        if fault.kind == "connect":
            self.failed("connection", str(fault))
        self.doubted()

    def drain(self, reason: str) -> None:
        """Take nothing new from now on."""
        if self.draining:
            return
        self.draining = True
        self.drain_began.set()
        self.refusal = _DRAINING
        log.info("draining", reason=reason)
        self.changed()
        self.quiet()
