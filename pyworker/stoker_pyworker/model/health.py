"""The worker's health: loading, ready, failing or draining."""

import asyncio
import secrets
import time
from collections.abc import Callable
from enum import StrEnum

import structlog

from stoker_wire.errors.problem import Problem
from stoker_wire.security.redaction import redact

log = structlog.get_logger(component="health")

_LOADING = Problem(
    503,
    "worker_loading",
    "the model is still loading on this worker; route again",
    headers={"Retry-After": "1"},
)
_DRAINING = Problem(
    503, "worker_draining", "this worker takes no new requests; route again", headers={"Retry-After": "1"}
)


_CONSEQUENCES = frozenset({"probe", "connection"})


class Phase(StrEnum):
    """What the worker does until it is ready."""

    LOAD = "load"
    DOWNLOAD = "download"
    BENCHMARK = "benchmark"


class HealthState:
    """The worker's state. Every change calls `on_change`, which triggers a report."""

    def __init__(
        self,
        *,
        started_at: float | None = None,
        secrets_to_hide: tuple[str, ...] = (),
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """`started_at` on the monotonic clock. `secrets_to_hide` are replaced in error texts: logs often contain tokens."""
        self._secrets = secrets_to_hide
        self._on_change = on_change
        self.started_at = time.monotonic() if started_at is None else started_at
        self.incarnation = secrets.token_hex(8)
        """Identifies this process in its reports, so that a late report is not counted for its successor."""
        self.perf = 0.0
        """Measured workload per second; 0 until then."""
        self.provisional = False
        """The perf is an estimate that the benchmark will replace."""
        self.load_seconds = 0.0
        """From process start to ready; 0 until then."""
        self.download_seconds = 0.0
        """How long the model server downloaded the weights, part of `load_seconds`."""
        self.draining = False
        self.drain_began = asyncio.Event()
        self.refusal: Problem | None = _LOADING
        """The reason why new work is refused."""
        self._errors: dict[str, str] = {}
        self._everywhere: set[str] = set()
        """Sources whose error would occur on every machine."""
        self.phase = Phase.LOAD

    @property
    def ready(self) -> bool:
        """Loaded and benchmarked. The worker may have an error nevertheless."""
        return self.load_seconds > 0

    @property
    def error(self) -> str:
        """All current errors, or an empty string. The exit of the model server explains that it does not answer."""
        hidden = _CONSEQUENCES if "model process" in self._errors else frozenset()
        return "; ".join(message for source, message in self._errors.items() if source not in hidden)

    def downloaded(self, seconds: float) -> None:
        """The weights are downloaded. Later downloads, by restarts of the model server, are no part of the boot."""
        if not self.ready and seconds > self.download_seconds:
            self.download_seconds = seconds
            log.info("weights_downloaded", seconds=round(seconds, 3))
            self._on_change()

    @property
    def error_everywhere(self) -> bool:
        """Whether an error would occur on every machine."""
        return any(source in self._errors for source in self._everywhere)

    def enter(self, phase: Phase) -> None:
        """The boot is in this phase now."""
        if not self.ready and phase is not self.phase:
            self.phase = phase
            self._on_change()

    def loaded(self, perf: float, *, provisional: bool = False) -> None:
        """The model is loaded, and its perf is measured or, if provisional, estimated."""
        self.perf, self.provisional = perf, provisional
        if not self.ready:
            self.load_seconds = max(time.monotonic() - self.started_at, 1e-3)
            log.info("ready", perf=round(perf, 3), load_seconds=round(self.load_seconds, 3))
        if not self.draining:
            self.refusal = None
        self._on_change()

    def failed(self, source: str, message: str, *, everywhere: bool = False) -> None:
        """Set the error of `source` (log, probe, connection, benchmark …); `everywhere`: no other machine can help."""
        message = redact(message, self._secrets)
        (self._everywhere.add if everywhere else self._everywhere.discard)(source)
        if self._errors.get(source) == message:
            return
        self._errors[source] = message
        log.error("model_error", source=source, error=message)
        self._on_change()

    def recovered(self, source: str) -> None:
        """Clear the error of `source`."""
        if self._errors.pop(source, None) is not None:
            log.info("model_recovered", source=source)
            self._on_change()

    def drain(self, reason: str) -> None:
        """Refuse new work from now on."""
        if self.draining:
            return
        self.draining = True
        self.drain_began.set()
        self.refusal = _DRAINING
        log.info("draining", reason=reason)
        self._on_change()
