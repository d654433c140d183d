"""How much capacity is wanted, how much there is, and what the caps leave room for."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from policy.chance import spare
from policy.fleet import Goal, Learned, Worker
from policy.forecast import Forecast
from policy.lifecycle import is_booting, is_cold, is_hot, runs_or_will
from policy.observation import Observation
from policy.tuning import Tuning
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.states import WorkerState
from stoker_wire.workergroup import Workergroup

LOAD_DUST = 1e-3
"""Below this a sum of loads is rounding, not a request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Perfs:
    """What workers can be expected to do, from what was measured anywhere in the endpoint."""

    learned: Learned
    mean: float
    """Mean of all that is known, load/s; 0: nothing is."""

    @classmethod
    def of(cls, workers: Iterable[Worker], learned: Learned) -> "Perfs":
        """Measured perfs of the kinds, else of the workers themselves."""
        known = [record.perf for record in learned.kinds if record.perf > 0]
        known = known or [worker.perf for worker in workers if worker.perf > 0]
        return cls(learned=learned, mean=sum(known) / len(known) if known else 0.0)

    def kind(self, workergroup_id: int, kind: str) -> float:
        """What this kind does, load/s; 0: it was never measured."""
        record = self.learned.kind(workergroup_id, kind)
        return record.perf if record is not None else 0.0

    def worker(self, worker: Worker) -> float:
        """Measured, else what its kind does, else what it was recruited for, else the mean; 0: nothing is known."""
        return (
            worker.perf or self.kind(worker.workergroup_id, worker.kind) or worker.perf_estimate or self.mean
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The endpoint's parameters with those of its workergroups folded in."""

    target_util: float
    cold_mult: float
    config: EndpointConfig

    @classmethod
    def of(cls, config: EndpointConfig, groups: Iterable[Workergroup]) -> "Rules":
        """Requests are not told apart by workergroup, so where they disagree the one with more capacity holds."""
        groups = tuple(groups)
        utils = [config.target_util if each.target_util is None else each.target_util for each in groups]
        mults = [config.cold_mult if each.cold_mult is None else each.cold_mult for each in groups]
        return cls(
            target_util=min(utils, default=config.target_util),
            cold_mult=max(mults, default=config.cold_mult),
            config=config,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """What is wanted now, before hysteresis. Capacities are load/s."""

    predicted: float
    """Arrivals, or what clears the queue, whichever is more."""
    sustained: float
    hot_floor: float
    """min_load, and the least that keeps one worker hot while the inactivity gate is shut."""
    hot: float
    total: float
    queue_seconds: float
    pressed: bool
    """The queue is over its target: act at once."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Have:
    """What there is. Capacities are load/s."""

    ready: float
    booting: float
    cold: float
    late: float = 0.0
    """Of what boots, that which a start of a cold worker would overtake."""
    leaving_hot: float
    """Of ready workers that drain and stay cold afterwards."""
    unknown_booting: int
    """Booting workers of which nothing is known: one of them is taken to suffice."""
    workers: int
    """All that exist."""
    keepable: int
    """Loaded once or on the way to it, and not being released."""

    @property
    def hot(self) -> float:
        """Ready and booting."""
        return self.ready + self.booting

    @property
    def total(self) -> float:
        """Hot and cold together."""
        return self.ready + self.booting + self.leaving_hot + self.cold


def takes_requests(worker: Worker) -> bool:
    """Whether it is capacity now: ready, not draining, and nobody says that it does not answer."""
    return is_hot(worker) and worker.drain is None and worker.suspect_since is None


def holds_requests(worker: Worker) -> bool:
    """Whether a request would be lost with it: in flight, in a session, or on its way with a ticket."""
    return worker.in_flight > 0 or worker.tickets_open > 0 or worker.load > LOAD_DUST


def returns(worker: Worker) -> bool:
    """Whether it stays with the endpoint after its drain, if it drains."""
    return worker.drain is None or worker.drain.goal is not Goal.DESTROY


def have(
    workers: Iterable[Worker],
    perfs: Perfs,
    *,
    late: Callable[[Worker], bool] = lambda _: False,
    overdue: Callable[[Worker], bool] = lambda _: False,
) -> Have:
    """The capacity of these workers.

    `late` says of a booting one that a start would overtake it, `overdue` that it is not relied on any more.
    """
    ready = booting = cold = leaving = overtaken = 0.0
    unknown = count = keepable = 0
    for worker in workers:
        count += 1
        perf = worker.perf or perfs.worker(worker)
        stays = returns(worker)
        if is_hot(worker):
            if worker.drain is None and worker.suspect_since is None:
                ready += perf
            elif worker.drain is not None and worker.drain.goal is Goal.UPDATE:
                booting += perf
            else:
                leaving += perf if stays else 0.0
            keepable += stays
        elif is_booting(worker):
            if not overdue(worker):
                booting += perf
                overtaken += perf if late(worker) else 0.0
                unknown += perf <= 0
            keepable += stays
        elif is_cold(worker):
            cold += perf
            keepable += stays
        elif worker.state is WorkerState.CREATED:
            keepable += stays
    return Have(
        ready=ready,
        booting=booting,
        late=overtaken,
        cold=cold,
        leaving_hot=leaving,
        unknown_booting=unknown,
        workers=count,
        keepable=keepable,
    )


def want(observation: Observation, expected: Forecast, rules: Rules, perfs: Perfs, tuning: Tuning) -> Want:
    """What the parameters ask for under this load, with no memory of what was wanted before."""
    config = rules.config
    over = is_over(observation, expected)
    arrivals = 0.0 if over else expected.load
    arrivals += spare(
        arrivals,
        mean_cost=observation.load.mean_cost,
        perf=perfs.mean,
        scatter=expected.dispersion,
        queue_seconds=config.target_queue_time,
        tuning=tuning,
    )
    calm = max(arrivals / rules.target_util, config.min_load)
    queue_seconds = expected_queue_seconds(observation, perfs)
    pressed = queue_seconds > config.target_queue_time
    pressure = _pressure(observation, calm, perfs, tuning)
    predicted = max(arrivals, pressure * rules.target_util)
    floor = hot_floor(observation)
    hot = max(predicted / rules.target_util, floor)
    sustained = min(expected.sustained, predicted)
    slow = max(sustained / rules.target_util, floor)
    reason = expected.reason
    if over:
        reason = f"no request for {config.inactivity_timeout:g} s, the inactivity timeout"
    if pressed:
        wait = "no worker to clear it" if math.isinf(queue_seconds) else f"{queue_seconds:.0f} s to clear"
        reason += (
            f"; {observation.load.backlog_requests} waiting with {observation.load.backlog_load:.4g} load,"
            f" {wait}, target {config.target_queue_time:g} s"
        )
    elif arrivals / rules.target_util < floor:
        reason += f"; floor {floor:.4g} load/s"
    return Want(
        predicted=predicted,
        sustained=sustained,
        hot_floor=floor,
        hot=hot,
        total=max(hot, slow * rules.cold_mult, config.min_cold_load),
        queue_seconds=queue_seconds,
        pressed=pressed,
        reason=reason,
    )


def expected_queue_seconds(observation: Observation, perfs: Perfs) -> float:
    """How long the work that is here takes the workers that are ready: global queue and what they hold, over perf."""
    waiting = observation.load.backlog_load
    hot = [worker for worker in observation.workers if takes_requests(worker)]
    waiting += sum([worker.load for worker in hot])
    perf = sum([worker.perf or perfs.worker(worker) for worker in hot])
    if waiting <= LOAD_DUST and observation.load.backlog_requests == 0:
        return 0.0
    return waiting / perf if perf > 0 else math.inf


def _pressure(observation: Observation, calm: float, perfs: Perfs, tuning: Tuning) -> float:
    """Capacity that holds the expected queue time at its target, load/s.

    By Little's law an endpoint whose requests take the target time T at arrival rate r holds r x T; what it holds beyond
    must clear within T as well: r + (held - r x T) / T = held / T. So a worker that is exactly busy (cost == perf) and
    a queue before it ask for a second and a third worker, although utilisation never passes 100 %. It exceeds what is
    ready exactly when the queue time exceeds its target. What a draining worker holds it finishes itself.
    """
    config = observation.config
    hot = [worker for worker in observation.workers if is_hot(worker) and worker.suspect_since is None]
    held = observation.load.backlog_load + sum([worker.load for worker in hot if worker.drain is None])
    asked = held / config.target_queue_time
    if observation.load.backlog_requests > 0:
        # even a queue of free requests needs somebody to answer it
        asked = max(asked, LOAD_DUST)
    if perfs.mean > 0:
        asked = min(asked, max(calm, perfs.mean) * tuning.backlog_boost_max)
    requests = observation.load.backlog_requests + sum([worker.in_flight for worker in hot])
    if requests > 0 and perfs.mean > 0:
        # a request keeps one worker busy: one request of 100,000 tokens does not go faster on fifty
        asked = min(asked, requests * perfs.mean)
    return asked


def hot_floor(observation: Observation) -> float:
    """The least hot capacity, load/s: min_load of endpoint and workergroups, and the inactivity gate's one worker."""
    config = observation.config
    floor = max(config.min_load, sum(group.min_load or 0.0 for group in observation.workergroups))
    return max(floor, LOAD_DUST) if gate_shut(observation) else floor


def gate_shut(observation: Observation) -> bool:
    """Whether inactivity_timeout forbids zero hot workers now: negative always, else so long after a request."""
    timeout = observation.config.inactivity_timeout
    if not timeout:
        return False
    if timeout < 0:
        return True
    last = observation.load.last_request_at
    return last is not None and observation.now - last < timeout


def is_over(observation: Observation, expected: Forecast) -> bool:
    """Whether the endpoint has been idle for as long as the user calls the end of the work.

    The user's word goes before the forecast: with a timeout of 12 s nobody waits for the last minute's mean to reach zero.
    """
    timeout, last = observation.config.inactivity_timeout, observation.load.last_request_at
    return (
        timeout is not None
        and timeout > 0
        and expected.known
        and last is not None
        and observation.now - last >= timeout
        and observation.load.backlog_requests == 0
    )


def is_known_asleep(observation: Observation, tuning: Tuning) -> bool:
    """Whether only cold workers are left, and engines spoke recently enough for that: of a sleeping endpoint they speak
    seldom, and its load was nothing when they last did."""
    history = observation.load
    return (
        history.is_known(observation.now, tuning.metrics_stale_idle_seconds)
        and history.covered_seconds >= tuning.medium_seconds
        and not any(is_hot(worker) or is_booting(worker) for worker in observation.workers)
    )


def workers_min(observation: Observation) -> int:
    """How many workers, loaded at least once, are kept, hot or cold: min_workers and the workergroups' cold_workers."""
    config = observation.config
    groups = sum(
        min(group.cold_workers or 0, config.max_workers if group.max_workers is None else group.max_workers)
        for group in observation.workergroups
    )
    return min(max(config.min_workers, groups), config.max_workers)


def committed_dollars_per_hour(workers: Iterable[Worker]) -> float:
    """What they cost once all that boots is running: the figure that the budget caps."""
    return sum(
        worker.dollars_per_hour if runs_or_will(worker) else worker.burn_dollars_per_hour
        for worker in workers
    )
