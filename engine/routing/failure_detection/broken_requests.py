"""Requests that were on workers when those broke. Each is retried once on another worker, then refused."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from engine.routing.requests.request_queue import QueuedRequest
from engine.routing.worker import KnownWorker
from policy.tuning import DEFAULT_TUNING
from stoker_wire.messages import REQUEST_BREAKS_MAX, RequestBreak

_REMEMBERED_MAX = 10_000
REFUSED_IN_TICKET_MAX = 16
"""A ticket is part of a header or body, so it names the newest only."""


class Break(NamedTuple):
    """One break of one worker."""

    launch_id: str
    at: float
    """Unix seconds."""


@dataclass(slots=True)
class BrokenRequest:
    """A request that was on a worker when the worker broke."""

    breaks: dict[Break, str] = field(default_factory=dict)
    """The cause of each break."""
    retry: QueuedRequest | None = None
    """The copy that is being retried. No other copy is sent before it has ended."""

    @property
    def last_at(self) -> float:
        """When the last worker broke with it, Unix seconds."""
        return max(each.at for each in self.breaks)

    @property
    def is_refused(self) -> bool:
        """Whether it is no longer sent to any worker."""
        return len(self.breaks) >= DEFAULT_TUNING.request_breaks_max

    @property
    def launch_ids(self) -> frozenset[str]:
        """The workers that broke with it."""
        return frozenset(each.launch_id for each in self.breaks)

    @property
    def sentence(self) -> str:
        """Why it is refused, for its client."""
        workers = "; ".join(f"{each.launch_id[:6]}: {cause}" for each, cause in self.breaks.items())
        until = datetime.fromtimestamp(self.last_at + DEFAULT_TUNING.request_refused_seconds, UTC).strftime(
            "%H:%M:%S"
        )
        return (
            f"workers broke {len(self.breaks)} times while they had this request ({workers}), so it is sent to no other;"
            f" change the request, or find the fault with the endpoint's logs; it is refused until {until} UTC"
        )


class BrokenRequests:
    """The broken requests of one endpoint, bounded in number and time. No I/O; times are arguments, Unix seconds."""

    def __init__(self) -> None:
        self._by_key: OrderedDict[str, BrokenRequest] = OrderedDict()
        self._served_at: OrderedDict[str, float] = OrderedDict()
        """When a worker last served a request that had been broken: earlier breaks had another cause."""

    def __repr__(self) -> str:
        return f"<BrokenRequests {len(self._by_key)} requests>"

    def __len__(self) -> int:
        return len(self._by_key)

    def add(self, key: str, worker: KnownWorker, now: float) -> BrokenRequest:
        """Record that the request was on this worker when it broke, at `worker.breaks.at`."""
        record = self.get(key, now)
        if record is None:
            record = self._by_key[key] = BrokenRequest()
        cause = (worker.breaks.cause or "it stopped reporting")[:120]
        _add(record, Break(worker.launch_id, worker.breaks.at), cause)
        self._by_key.move_to_end(key)
        while len(self._by_key) > _REMEMBERED_MAX:
            self._by_key.popitem(last=False)
        return record

    def identify(self, before: str, key: str) -> None:
        """A worker has named the content of a request that was known by its index only."""
        record = self._by_key.pop(before, None)
        if record is not None:
            known = self._by_key.setdefault(key, record)
            for each, cause in record.breaks.items():
                _add(known, each, cause)

    # -- other engines

    def apply_shared(self, shared: Iterable[RequestBreak], now: float) -> None:
        """Add the breaks that other engines have seen."""
        for each in shared:
            if now - each.t < DEFAULT_TUNING.request_refused_seconds and each.t > self._served_at.get(
                each.f, 0.0
            ):
                record = self._by_key.setdefault(each.f, BrokenRequest())
                _add(record, Break(each.l, each.t), each.c)

    def unshared(self, shared: Iterable[RequestBreak]) -> tuple[RequestBreak, ...]:
        """The newest breaks that the memo does not contain. Requests without a fingerprint cannot come again."""
        if not self._by_key:
            return ()
        known = {(each.f, each.l, each.t) for each in shared}
        found = [
            RequestBreak(f=key, l=each.launch_id, t=each.at, c=cause)
            for key, record in self._by_key.items()
            if not key.startswith("#")
            for each, cause in record.breaks.items()
            if (key, each.launch_id, each.at) not in known
        ]
        return tuple(sorted(found, key=lambda each: each.t)[-REQUEST_BREAKS_MAX:])

    def refused(self, now: float) -> tuple[str, ...]:
        """The fingerprints of the newest refused requests, for workers to compare with."""
        if not self._by_key:
            return ()
        keys = [key for key in reversed(self._by_key) if not key.startswith("#")]
        found = [key for key in keys if (record := self.get(key, now)) is not None and record.is_refused]
        return tuple(found[:REFUSED_IN_TICKET_MAX])

    def get(self, key: str, now: float) -> BrokenRequest | None:
        """The record of this request, unless it is older than `Tuning.request_refused_seconds`."""
        record = self._by_key.get(key)
        if record is not None and now - record.last_at >= DEFAULT_TUNING.request_refused_seconds:
            del self._by_key[key]
            return None
        return record

    def remove_served(self, key: str) -> None:
        """A worker served the request, so an earlier break had another cause. A refused request stays refused."""
        record = self._by_key.get(key)
        if record is not None and not record.is_refused:
            self._served_at[key] = record.last_at
            while len(self._served_at) > _REMEMBERED_MAX:
                self._served_at.popitem(last=False)
            del self._by_key[key]


def _add(record: BrokenRequest, new: Break, cause: str) -> None:
    """Add a break. Engines may date one break differently, so breaks of a worker within seconds are one."""
    if not any(
        each.launch_id == new.launch_id and abs(each.at - new.at) < DEFAULT_TUNING.request_blame_seconds
        for each in record.breaks
    ):
        record.breaks[new] = cause
