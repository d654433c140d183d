"""A small closed loop of planning, applying and time steps. Boot times are fixed, requests are a fluid."""

from dataclasses import dataclass, field, replace

from policy.load.history import LoadHistory, fold
from policy.planning.planner import plan
from policy.state.lifecycle import advance, is_booting
from policy.state.machine_stats import Boot, learn_boot, learn_perf, learn_start, remember_hosts
from policy.state.observation import Memory, Observation, Offers
from policy.state.plan import PollInstances, Search
from policy.state.worker import MachineStats, Worker
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.states import WorkerState as S
from tests.policy.builders import (
    NOW,
    after,
    find_faults,
    group,
    offer,
)

TICK = 5.0


@dataclass
class World:
    """One endpoint on a market with unlimited equal machines."""

    config: EndpointConfig
    perf: float = 100.0
    boot_seconds: float = 120.0
    start_seconds: float = 20.0
    now: float = NOW
    workers: tuple[Worker, ...] = ()
    load: LoadHistory = LoadHistory()
    learned: MachineStats = MachineStats()
    memory: Memory | None = None
    offers: tuple[Offers, ...] = ()
    listed_at: float = 0.0
    waiting: float = 0.0
    """Queued load."""
    ticks: int = 0
    served: float = 0.0
    log: list[tuple[float, str, str]] = field(default_factory=list)
    """(seconds since the start, operation, reason)."""
    last_request_at: float | None = None

    def run(self, seconds: float, arrivals) -> None:
        """Advance the time; `arrivals(tick)` is in load/s."""
        for _ in range(int(seconds / TICK)):
            self._pass(arrivals(self.ticks))
            self._plan()

    def count(self, *operations: str, since: float = 0.0) -> int:
        return sum(operation in operations and at >= since for at, operation, _ in self.log)

    @property
    def hot(self) -> int:
        return sum(worker.state is S.READY and worker.drain is None for worker in self.workers)

    @property
    def elapsed(self) -> float:
        return self.now - NOW

    def _pass(self, rate: float) -> None:
        self.now += TICK
        self.ticks += 1
        able = sum(worker.perf for worker in self.workers if worker.state is S.READY) * TICK
        self.waiting += rate * TICK
        done = min(self.waiting, able)
        self.waiting -= done
        self.served += done
        if rate > 0:
            self.last_request_at = self.now
        self.load = fold(
            self.load,
            engine_id="e",
            sequence=self.ticks,
            at=self.now,
            window_s=TICK,
            load=rate * TICK,
            queued_load=self.waiting,
            queued_requests=round(self.waiting / 10),
            last_request_at=self.last_request_at,
        )
        self.workers = tuple(self._live(worker) for worker in self.workers)

    def _live(self, worker: Worker) -> Worker:
        if worker.operation == "destroy":
            return worker
        worker = worker.replace(operation="", market_status="running")
        if worker.state is S.STOPPING:
            return advance(worker, S.INACTIVE, self.now)
        if worker.state is S.PENDING:
            return advance(worker, S.LOADING, self.now)
        if worker.state is S.READY:
            drain = worker.drain and replace(worker.drain, seen_at=worker.drain.seen_at or self.now)
            return worker.replace(reported_at=self.now, drain=drain)
        if not is_booting(worker):
            return worker
        first = not worker.loaded_once
        took = self.now - (worker.launched_at if first else worker.since)
        if took < (self.boot_seconds if first else self.start_seconds):
            return worker
        if first:
            self.learned = learn_boot(self.learned, worker, Boot(seconds=took))
        else:
            self.learned = learn_start(self.learned, worker, took)
        self.learned = learn_perf(self.learned, worker, self.perf)
        return advance(worker, S.READY, self.now, perf=self.perf, loaded_once=True, reported_at=self.now)

    def _plan(self) -> None:
        seen = Observation(
            now=self.now,
            config=self.config,
            workergroups=(group(),),
            workers=self.workers,
            load=self.load,
            offers=self.offers,
            learned=self.learned,
            listed_at=self.listed_at,
            launch_ids=tuple(f"{self.ticks:06x}{number:06x}" for number in range(20)),
            memory=self.memory,
        )
        decided = plan(seen)
        assert find_faults(seen, decided) == ()
        again = plan(after(seen, decided))
        assert again.operations == (), [each.reason for each in again.operations]
        result = after(seen, decided)
        self.workers = tuple(each for each in result.workers if each.operation != "destroy")
        self.learned = remember_hosts(self.learned, decided.failed_hosts, self.now)
        self.memory = decided.memory
        for operation in decided.operations:
            if isinstance(operation, PollInstances):
                self.listed_at = self.now
            elif isinstance(operation, Search):
                listed = tuple(offer(self.ticks * 100 + number, price=0.3) for number in range(20))
                self.offers = (Offers(workergroup_id=1, searched_at=self.now, offers=listed),)
            else:
                self.log.append((self.elapsed, operation.op, operation.reason))
