"""One rented machine: its lifecycle on the market, its bill, and its service of requests."""

import heapq
from collections import deque
from dataclasses import InitVar, dataclass, field
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


BILLED: dict[Stage, str] = {
    Stage.LOADING: "loading",
    Stage.DUD: "loading",
    Stage.STARTING: "starting",
    Stage.READY: "ready",
}
"""The account of the GPU bill; in other stages only the disk is billed."""


@dataclass(slots=True)
class Bill:
    """Dollars and GPU-hours by state, over all machines."""

    dollars: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("loading", "starting", "ready", "storage"), 0.0)
    )
    gpu_hours: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("loading", "starting", "ready"), 0.0)
    )


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class Machine:
    """A rented machine. Perf is load/s, prices are dollars per hour, storage included while the GPU is billed."""

    id: int
    launch_id: str
    offer_id: int
    machine_id: int
    kind: str
    perf: float
    price: float
    storage_price: float
    speeds: tuple[float, ...]
    """Throughput as a share of perf, by the number of running requests; the last index is how many may run."""
    account: Bill
    now: InitVar[float]
    stage: Stage = Stage.CREATING
    loaded_once: bool = False
    ready_since: float = -1.0
    epoch: int = 0
    """Increases with each change that makes scheduled events obsolete."""
    line: deque[tuple[int, float]] = field(default_factory=deque)
    running: list[tuple[float, int]] = field(default_factory=list)
    """Heap of (virtual finish, request)."""
    held: dict[int, float] = field(default_factory=dict)
    """Work of every request on this machine, by request."""
    virtual: float = 0.0
    """Work done for each running request since the machine became busy."""
    virtual_at: float = field(init=False)
    busy_seconds: float = 0.0
    billed_until: float = field(init=False)

    def __post_init__(self, now: float) -> None:
        self.virtual_at = self.billed_until = now

    def __repr__(self) -> str:
        return f"<Machine {self.id} {self.stage} {self.kind} ${self.price:.2f}/h, {len(self.held)} requests>"

    @property
    def slots(self) -> int:
        """Requests that may run at a time."""
        return len(self.speeds) - 1

    def _pace(self) -> float:
        """Load/s for each running request."""
        running = len(self.running)
        return self.perf * self.speeds[running] / running

    # -- money

    def bill(self, now: float) -> None:
        """Accounts for the cost since the last call."""
        hours = (now - self.billed_until) / SECONDS_PER_HOUR
        self.billed_until = now
        if hours <= 0 or self.stage is Stage.GONE:
            return
        heading = BILLED.get(self.stage)
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
        return self.virtual_at + left / self._pace()

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
            self.virtual += (now - self.virtual_at) * self._pace()
            self.busy_seconds += now - self.virtual_at
        else:
            self.virtual = 0.0
        self.virtual_at = now
