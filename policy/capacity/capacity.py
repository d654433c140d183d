"""How much capacity is wanted, how much there is, and what the caps leave room for."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from policy.capacity.boot_time import boot_seconds, expected_seconds, ready_at
from policy.keepalive.evaluation import Keep
from policy.load.forecast import Forecast
from policy.state.lifecycle import counts_in_full, is_booting, is_cold, is_hot
from policy.state.observation import Observation
from policy.state.worker import Goal, Learned, Worker
from policy.tuning import Tuning
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.workergroup import Workergroup

LOAD_DUST = 1e-3
"""Below this a sum of loads is rounding, not a request."""
WORKERS_MAX = 1000
"""Of one endpoint, whatever its max_workers. Its state takes 1.2 KB for each, 1.5 KB where all are broken; a workflow whose
state is over the 2 MiB that Temporal hands on stands still for good."""


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
    arrivals: float
    """Without the queue."""
    sustained: float
    hot_floor: float
    """min_load, and the least that keeps one worker hot while the inactivity gate is shut."""
    hot: float
    rented: float
    """Of `hot`, what is worth renting new machines for: they come minutes later, and cost more than a start."""
    clearing: float
    """The least that clears within target_queue_time what waits now: nothing is drained below it."""
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
        elif is_cold(worker):  # one that was stopped before it ever loaded is not: it has to be started first
            cold += perf
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


def want(
    observation: Observation,
    expected: Forecast,
    rules: Rules,
    perfs: Perfs,
    tuning: Tuning,
    keep: Keep,
) -> Want:
    """What the parameters ask for under this load, with no memory of what was wanted before, and what experience keeps beyond
    the spare of target_util.
    """
    config = rules.config
    over = is_over(observation, expected)
    if over:
        expected = replace(expected, load=0.0, rising=0.0)
    arrivals = expected.load
    queue = Queue.of(observation, perfs)
    pressed = queue.seconds > config.target_queue_time
    calm = max(arrivals * (1.0 + keep.spare) / rules.target_util, config.min_load)
    surge = rented = 0.0
    floor = hot_floor(observation)
    if pressed:
        surge = _surge(observation, queue, expected, calm, perfs, tuning, boot=False)
        if not _clears_in_time(observation, queue, expected, perfs, tuning):
            rented = _surge(observation, queue, expected, calm, perfs, tuning, boot=True)
    hot = max(calm, surge, floor)
    sustained = expected.sustained if rules.cold_mult > 1 else min(expected.sustained, arrivals)
    slow = max(sustained / rules.target_util, floor)
    reason = "; ".join(filter(None, (expected.reason, keep.words)))
    if over:
        reason = f"no request for {config.inactivity_timeout:g} s, the inactivity timeout"
    if pressed:
        wait = "no worker to clear it" if math.isinf(queue.seconds) else f"{queue.seconds:.0f} s to clear"
        reason += (
            f"; {observation.load.backlog_requests} waiting with {observation.load.backlog_load:.4g} load,"
            f" {wait}, target {config.target_queue_time:g} s"
        )
    elif arrivals / rules.target_util < floor:
        reason += f"; floor {floor:.4g} load/s"
    return Want(
        predicted=max(arrivals, surge * rules.target_util),
        arrivals=arrivals,
        sustained=sustained,
        hot_floor=floor,
        hot=hot,
        rented=max(calm, rented, floor),
        clearing=queue.load / config.target_queue_time,
        total=max(hot if rented else max(calm, floor), slow * rules.cold_mult, config.min_cold_load),
        queue_seconds=queue.seconds,
        pressed=pressed,
        reason=reason,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """The work that nobody works on yet, wherever it waits."""

    load: float
    line: int
    """Requests in the engines' queues."""
    requests: int
    """Waiting or running: a request keeps one worker busy, however many there are."""
    ready: float
    """Perf of the workers that will work it off, load/s."""

    @classmethod
    def of(cls, observation: Observation, perfs: Perfs) -> "Queue":
        """The engines' queues, and what waits on workers behind the request that they work on.

        What a draining worker holds it finishes itself.
        """
        hot = [worker for worker in observation.workers if takes_requests(worker)]
        behind = sum(
            worker.load * (1.0 - 1.0 / worker.in_flight) if worker.in_flight else worker.load
            for worker in hot
        )
        return cls(
            load=observation.load.backlog_load + behind,
            line=observation.load.backlog_requests,
            requests=observation.load.backlog_requests
            + sum(
                worker.in_flight
                for worker in observation.workers
                if is_hot(worker) and worker.suspect_since is None
            ),
            ready=sum(perfs.worker(worker) for worker in hot),
        )

    @property
    def seconds(self) -> float:
        """How long the waiting work takes the ready workers; infinite with work and nobody to do it."""
        if self.load <= LOAD_DUST and (self.ready > 0 or self.line == 0):
            return 0.0
        return self.load / self.ready if self.ready > 0 else math.inf


def _clears_in_time(
    observation: Observation, queue: Queue, expected: Forecast, perfs: Perfs, tuning: Tuning
) -> bool:
    """Whether all that there are work the queue off before another machine that is rented for it could help."""
    there = have(observation.workers, perfs).total
    look = _help_seconds(observation, tuning, boot=True)
    return queue.load <= (there - expected.load) * look


def _surge(
    observation: Observation,
    queue: Queue,
    expected: Forecast,
    calm: float,
    perfs: Perfs,
    tuning: Tuning,
    *,
    boot: bool,
) -> float:
    """Capacity that works off the queue within its target once help has come, beside what goes on arriving, load/s.

    Until then the queue grows by what arrives beyond the ready workers. 9 workers' load on one worker, help in 25 s:
    8 x 25 = 200 worker-seconds will wait, so 9 + 200 / 10 = 29 are started. The twenty are not a waste: they do work
    that has to be done anyway, and only their starts are paid on top. Where help has to be rented (`boot`) it costs ten
    times that and comes minutes later: only the queue that is there is rented for.
    """
    rising = expected.rising
    look = _help_seconds(observation, tuning, boot=boot)
    target = observation.config.target_queue_time
    clear = look if look > 3.0 * target else target
    coming = 0.0 if boot else max(0.0, rising - queue.ready) * look
    asked = rising + queue.load / target + coming / clear
    # even a queue of free requests needs somebody to answer it
    asked = max(asked, LOAD_DUST)
    if perfs.mean > 0:
        # beyond that only what is then busy for as long as it took to come
        worth = rising + queue.load / max(look, target)
        asked = min(asked, max(max(calm, rising, perfs.mean) * tuning.backlog_boost_max, worth))
        cost = observation.load.mean_cost
        more = rising * look / cost if cost > 0 else 0.0
        if cost > 0 or queue.requests > 0:
            # one request of 100,000 tokens does not go faster on fifty workers
            asked = min(asked, (queue.requests + more) * perfs.mean)
    return asked


def _help_seconds(observation: Observation, tuning: Tuning, *, boot: bool) -> float:
    """When the next capacity can be there: what boots, else a cold worker, else a new one."""
    workers, learned, now = observation.workers, observation.learned, observation.now
    coming = [
        ready_at(worker, learned, tuning) - now
        for worker in workers
        if is_booting(worker) and (boot or worker.loaded_once)
    ]
    if coming and not boot:
        return max(0.0, min(coming))
    starts = [expected_seconds(worker, learned, tuning) for worker in workers if is_cold(worker)]
    if starts and not boot:
        return min(starts)
    return boot_seconds(learned, tuning)


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
    return works(observation) or (last is not None and observation.now - last < timeout)


def works(observation: Observation) -> bool:
    """Whether any ready worker that answers holds a request: then the endpoint is not idle, however long it runs."""
    return any(
        is_hot(worker) and worker.suspect_since is None and holds_requests(worker)
        for worker in observation.workers
    )


def is_over(observation: Observation, expected: Forecast) -> bool:
    """Whether the endpoint has been idle, since its last request ended, for the inactivity timeout.

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
        and not works(observation)
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


def workers_max(config: EndpointConfig) -> int:
    """How many workers may exist: max_workers, but no more than one endpoint's workflow can hand on."""
    return min(config.max_workers, WORKERS_MAX)


def workers_min(observation: Observation) -> int:
    """How many workers, loaded at least once, are kept, hot or cold: min_workers and the workergroups' cold_workers."""
    config = observation.config
    groups = sum(
        min(group.cold_workers or 0, config.max_workers if group.max_workers is None else group.max_workers)
        for group in observation.workergroups
    )
    return min(max(config.min_workers, groups), config.max_workers)


def counted_dollars_per_hour(worker: Worker) -> float:
    """What one worker takes of the budget; a broken one its full price for as long as its machine runs."""
    return worker.dollars_per_hour if counts_in_full(worker) else worker.burn_dollars_per_hour
