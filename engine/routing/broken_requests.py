"""Which requests were on workers that broke: each is retried once, elsewhere, and refused after its second."""

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime

from engine.routing.request_queue import QueuedRequest
from engine.routing.worker import KnownWorker

BREAKS_MAX = 2
"""Workers that may break with a request on them before the request is refused."""
REFUSED_SECONDS = 3600.0
"""How long a request is remembered after the last worker broke with it."""
NEAR_SECONDS = 10.0
"""A request that left a worker so shortly before or after it broke was on it when it broke."""
VERDICT_SECONDS = 2.0
"""A worker that reports well so long after it failed a request is not broken: its probe would have found it by then."""
_REMEMBERED_MAX = 10_000


@dataclass(slots=True)
class Record:
    """One request that was on a worker when it broke."""

    breaks: dict[tuple[str, float], str] = field(default_factory=dict)
    """Launch id and time of each break, with what the worker said of it."""
    retry: QueuedRequest | None = None
    """The copy of the request that is tried again now: no other copy is sent before it has ended."""

    @property
    def last_at(self) -> float:
        """When the last worker broke with it, Unix seconds."""
        return max(at for _, at in self.breaks)

    @property
    def is_refused(self) -> bool:
        """Whether it is sent to no worker any more."""
        return len(self.breaks) >= BREAKS_MAX

    @property
    def launch_ids(self) -> frozenset[str]:
        """The workers that broke with it."""
        return frozenset(launch_id for launch_id, _ in self.breaks)

    @property
    def sentence(self) -> str:
        """Why it is refused, for its client."""
        workers = "; ".join(f"{launch_id[:6]}: {said}" for (launch_id, _), said in self.breaks.items())
        until = datetime.fromtimestamp(self.last_at + REFUSED_SECONDS, UTC).strftime("%H:%M:%S")
        return (
            f"this request was on {len(self.breaks)} workers when they broke ({workers}), so it is sent to no other;"
            f" change the request, or find the fault with the endpoint's logs; it is refused until {until} UTC"
        )


class Breakages:
    """The records of one endpoint, bounded in number and time. No I/O; times are arguments."""

    def __init__(self) -> None:
        self._records: OrderedDict[str, Record] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Breakages {len(self._records)} requests>"

    def __len__(self) -> int:
        return len(self._records)

    def broke(self, key: str, worker: KnownWorker, now: float) -> Record:
        """The request was on this worker when it broke, at `worker.broke_at`."""
        record = self.of(key, now)
        if record is None:
            record = self._records[key] = Record()
        said = (worker.broke_by or "it fell silent")[:120]
        record.breaks.setdefault((worker.launch_id, worker.broke_at), said)
        self._records.move_to_end(key)
        while len(self._records) > _REMEMBERED_MAX:
            self._records.popitem(last=False)
        return record

    def of(self, key: str, now: float) -> Record | None:
        """The record of this request, if there is one and it is not too old."""
        record = self._records.get(key)
        if record is not None and now - record.last_at >= REFUSED_SECONDS:
            del self._records[key]
            return None
        return record

    def served(self, key: str) -> None:
        """A worker has served the request: the one that broke with it broke of something else."""
        record = self._records.get(key)
        if record is not None and not record.is_refused:
            del self._records[key]
