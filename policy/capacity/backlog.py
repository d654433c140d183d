"""Backlog: queued work, and the extra capacity that clears it within `target_queue_time`."""

import math
from dataclasses import dataclass

from policy.capacity.boot_time import boot_seconds, expected_seconds, ready_at
from policy.capacity.performance import LOAD_EPSILON, PerfEstimates
from policy.capacity.supply import measure_supply, takes_requests
from policy.load.forecast import Forecast
from policy.state.lifecycle import is_booting, is_cold, is_hot
from policy.state.observation import Observation
from policy.state.worker import Worker
from policy.tuning import Tuning


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """Work that is waiting, in the engines' queues and on the workers."""

    load: float
    queued_requests: int
    """Requests in the engines' queues."""
    requests: int
    """Waiting and running requests. They bound the useful number of workers: a request runs on one worker."""
    ready: float
    """Perf of the workers that will process it, load/s."""

    @classmethod
    def of(cls, observation: Observation, perfs: PerfEstimates) -> "Backlog":
        """The engines' queues, and the requests on ready workers that wait behind running ones.

        Requests on draining workers do not count: those workers finish them.
        """
        hot = [worker for worker in observation.workers if takes_requests(worker)]
        running = sum(
            worker.in_flight
            for worker in observation.workers
            if is_hot(worker) and worker.suspect_since is None
        )
        queued = observation.load.backlog_requests
        return cls(
            load=observation.load.backlog_load + sum(map(_waiting_load, hot)),
            queued_requests=queued,
            requests=queued + running,
            ready=sum(perfs.worker(worker) for worker in hot),
        )

    @property
    def seconds(self) -> float:
        """Time for the ready workers to clear the backlog; infinite if there is work and no ready worker."""
        if self.load <= LOAD_EPSILON and (self.ready > 0 or self.queued_requests == 0):
            return 0.0
        return self.load / self.ready if self.ready > 0 else math.inf


def _waiting_load(worker: Worker) -> float:
    """The load of the requests that wait on a worker behind running ones; all of it if none was received yet."""
    if not worker.in_flight:
        return worker.load
    waiting = worker.in_flight - 1 if worker.waiting is None else worker.waiting
    return worker.load * waiting / worker.in_flight


def clears_before_boot(
    observation: Observation, backlog: Backlog, expected: Forecast, perfs: PerfEstimates, tuning: Tuning
) -> bool:
    """Whether the existing workers clear the backlog before a newly rented machine could help."""
    existing = measure_supply(observation.workers, perfs).total
    lead = _lead_seconds(observation, tuning, rent=True)
    return backlog.load <= (existing - expected.load) * lead


def surge_capacity(
    observation: Observation,
    backlog: Backlog,
    expected: Forecast,
    calm: float,
    perfs: PerfEstimates,
    tuning: Tuning,
    *,
    rent: bool,
) -> float:
    """Capacity, load/s, that clears the backlog within its target and serves the arrivals.

    Until new capacity is ready, the queue grows by the arrivals beyond the ready workers. Example: arrivals worth 9
    workers, 1 ready worker, a start takes 25 s, target 10 s. Then 8 x 25 = 200 worker-seconds will be queued, and
    9 + 200 / 10 = 29 workers are started.

    With `rent`, the capacity comes from new machines. They cost more and arrive minutes later, so only the present
    backlog counts. `calm` is the demand without a backlog, load/s.
    """
    rising = expected.rising
    lead = _lead_seconds(observation, tuning, rent=rent)
    target = observation.config.target_queue_time
    clear = lead if lead > tuning.backlog_slow_lead_targets * target else target
    growth = 0.0 if rent else max(0.0, rising - backlog.ready) * lead
    asked = rising + backlog.load / target + growth / clear
    # Requests of cost 0 need a worker too.
    asked = max(asked, LOAD_EPSILON)
    if perfs.mean > 0:
        # Beyond the boost limit, add only capacity that stays busy for as long as it took to start.
        worth = rising + backlog.load / max(lead, target)
        asked = min(asked, max(max(calm, rising, perfs.mean) * tuning.backlog_boost_max, worth))
        cost = observation.load.mean_cost
        arriving = rising * lead / cost if cost > 0 else 0.0
        if cost > 0 or backlog.requests > 0:
            # A request runs on one worker, so more workers than requests do not help.
            asked = min(asked, (backlog.requests + arriving) * perfs.mean)
    return asked


def _lead_seconds(observation: Observation, tuning: Tuning, *, rent: bool) -> float:
    """Seconds until the next capacity can be ready: a booting worker, else a cold one, else a new one."""
    workers, learned, now = observation.workers, observation.learned, observation.now
    coming = [
        ready_at(worker, learned, tuning) - now
        for worker in workers
        if is_booting(worker) and (rent or worker.loaded_once)
    ]
    if coming and not rent:
        return max(0.0, min(coming))
    starts = [expected_seconds(worker, learned, tuning) for worker in workers if is_cold(worker)]
    if starts and not rent:
        return min(starts)
    return boot_seconds(learned, tuning)
