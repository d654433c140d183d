"""One rented machine: its lifecycle on the market, its bill, and its service of requests."""

import heapq
from collections import deque
from enum import StrEnum

SECONDS_PER_HOUR = 3600.0


class Stage(StrEnum):
    """The stage of a machine. `dud` never becomes ready, `stuck` waits for a GPU that another customer rents."""

    CREATING = "creating"
    LOADING = "loading"
    DUD = "dud"
    STARTING = "starting"
    STUCK = "stuck"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"
    GONE = "gone"


BILLED: dict[Stage, str | None] = {
    Stage.CREATING: None,
    Stage.LOADING: "loading",
    Stage.DUD: "loading",
    Stage.STARTING: "starting",
    Stage.STUCK: None,
    Stage.READY: "ready",
    Stage.STOPPING: None,
    Stage.STOPPED: None,
    Stage.GONE: None,
}
"""The account of the GPU bill; None: only the disk is billed."""


class Bill:
    """Dollars and GPU-hours by state, over all machines."""

    __slots__ = ("dollars", "gpu_hours")

    def __init__(self) -> None:
        self.dollars = {"loading": 0.0, "starting": 0.0, "ready": 0.0, "storage": 0.0}
        self.gpu_hours = {"loading": 0.0, "starting": 0.0, "ready": 0.0}


class Machine:
    """A rented machine. Perf is load/s, prices are dollars per hour, storage included while the GPU is billed."""

    __slots__ = (
        "account",
        "billed_until",
        "busy_seconds",
        "created_at",
        "epoch",
        "held",
        "id",
        "kind",
        "launch_id",
        "line",
        "loaded_once",
        "machine_id",
        "offer_id",
        "perf",
        "price",
        "ready_since",
        "running",
        "slots",
        "stage",
        "storage_price",
        "virtual",
        "virtual_at",
    )

    def __init__(
        self,
        *,
        id: int,  # noqa: A002 - the marketplace's word
        launch_id: str,
        offer_id: int,
        machine_id: int,
        kind: str,
        perf: float,
        price: float,
        storage_price: float,
        slots: int,
        bill: Bill,
        now: float,
    ) -> None:
        self.id = id
        self.launch_id = launch_id
        self.offer_id = offer_id
        self.machine_id = machine_id
        self.kind = kind
        self.perf = perf
        self.price = price
        self.storage_price = storage_price
        self.slots = slots
        self.stage = Stage.CREATING
        self.created_at = now
        self.loaded_once = False
        self.ready_since = -1.0
        self.epoch = 0
        """Increases with each change that makes scheduled events obsolete."""
        self.line: deque[tuple[int, float]] = deque()
        self.running: list[tuple[float, int]] = []
        """Heap of (virtual finish, request)."""
        self.held: dict[int, float] = {}
        """Work of every request on this machine, by request."""
        self.virtual = 0.0
        """Work done for each running request since the machine became busy."""
        self.virtual_at = now
        self.busy_seconds = 0.0
        self.account = bill
        self.billed_until = now

    def __repr__(self) -> str:
        return f"<Machine {self.id} {self.stage} {self.kind} ${self.price:.2f}/h, {len(self.held)} requests>"

    # -- money

    def bill(self, now: float) -> None:
        """Accounts for the cost since the last call."""
        hours = (now - self.billed_until) / SECONDS_PER_HOUR
        self.billed_until = now
        if hours <= 0 or self.stage is Stage.GONE:
            return
        heading = BILLED[self.stage]
        if heading is None:
            self.account.dollars["storage"] += hours * self.storage_price
        else:
            self.account.dollars[heading] += hours * self.price
            self.account.gpu_hours[heading] += hours

    def become(self, stage: Stage, now: float) -> None:
        """Changes the stage; events scheduled for the old one become obsolete."""
        self.bill(now)
        self.stage = stage
        self.epoch += 1

    # -- service

    def admit(self, request: int, work: float, now: float) -> bool:
        """Adds a request; returns whether it starts at once."""
        self.held[request] = work
        if len(self.running) >= self.slots:
            self.line.append((request, work))
            return False
        self._begin(request, work, now)
        return True

    def next_finish(self) -> float | None:
        """End of the first running request, if no other arrives."""
        if not self.running:
            return None
        left = max(0.0, self.running[0][0] - self.virtual)
        return self.virtual_at + left * len(self.running) / self.perf

    def finish(self, now: float) -> tuple[int, int | None]:
        """Ends the first running request; returns it, and the request that starts in its place, if any."""
        self._serve_until(now)
        _, request = heapq.heappop(self.running)
        self.held.pop(request, None)
        started = None
        if self.line:
            started, work = self.line.popleft()
            self._begin(started, work, now)
        return request, started

    def drop_all(self, now: float) -> list[int]:
        """Ends the machine with all of its requests."""
        self._serve_until(now)
        lost = list(self.held)
        self.held.clear()
        self.line.clear()
        self.running.clear()
        return lost

    def _begin(self, request: int, work: float, now: float) -> None:
        self._serve_until(now)
        self.epoch += 1
        heapq.heappush(self.running, (self.virtual + work, request))

    def _serve_until(self, now: float) -> None:
        if self.running:
            self.virtual += (now - self.virtual_at) * self.perf / len(self.running)
            self.busy_seconds += now - self.virtual_at
        else:
            self.virtual = 0.0
        self.virtual_at = now
