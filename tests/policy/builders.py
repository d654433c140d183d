"""Builders with defaults that tests override: perf 100 at $0.30/h, no load, every floor at zero."""

from dataclasses import replace

from policy.capacity.budget import counted_dollars_per_hour
from policy.load.history import LoadHistory, fold
from policy.planning.plan_validation import drop_faulty
from policy.planning.planner import plan
from policy.state.apply_operation import apply_operation, launched_worker
from policy.state.machine_stats import remember_hosts
from policy.state.observation import Memory, Observation, Offers
from policy.state.plan import Plan, PollInstances, Recruit, Search, StartDrain
from policy.state.worker import Drain, Goal, KindRecord, MachineStats, Worker
from policy.tuning import DEFAULT_TUNING, Tuning
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.market import Offer
from stoker_wire.messages import WorkerMetrics
from stoker_wire.states import WorkerState as S
from stoker_wire.workergroup import Workergroup

NOW = 1_000_000.0
IDS = tuple(f"{number:012x}" for number in range(0xA00, 0xA40))

READY, COLD, BOOTING = S.READY, S.INACTIVE, S.MODEL_LOADING


def endpoint(**given) -> EndpointConfig:
    """A config with every floor at zero. Tests set the parameter that they are about."""
    quiet = {"max_workers": 16, "min_workers": 0, "min_load": 0, "cold_mult": 1, "target_util": 1.0}
    return EndpointConfig(**quiet | given)


def committed_dollars_per_hour(workers) -> float:
    """The $/h that the budget limits: the cost once all booting workers run."""
    return sum(map(counted_dollars_per_hour, workers))


def group(number=1, **given) -> Workergroup:
    return Workergroup(**{"id": number, "template_hash": "t", "test_workers": 0} | given)


def worker(name: str, state=READY, *, perf=100.0, price=0.3, since=NOW - 1000, **given) -> Worker:
    loaded = state in (S.READY, S.INACTIVE, S.STARTING, S.REBOOTING, S.STOPPING, S.UPDATE_READY)
    return Worker(
        **{
            "launch_id": name,
            "workergroup_id": 1,
            "revision": 1,
            "kind": "1x RTX 4090",
            "state": state,
            "since": since,
            "launched_at": NOW - 5000 if loaded else since,
            "instance_id": 0 if state is S.PENDING else abs(hash(name)) % 10_000 + 1,
            "dollars_per_hour": price,
            "storage_dollars_per_hour": 0.01,
            "perf": perf if loaded else 0.0,
            "reported_at": NOW - 1 if state is S.READY else None,
            "loaded_once": loaded,
            "ran_at_release": state is S.STOPPING,
            "machine_id": sum(map(ord, name)),
        }
        | given
    )


def report(**given) -> WorkerMetrics:
    """A ready worker as an engine reports it. Tests set the field that they are about."""
    usual = {"launch_id": "w", "instance_id": 77, "condition": "ready", "perf": 120.0, "reported_at": NOW}
    return WorkerMetrics(**usual | {"url": "http://w"} | given)


def draining(
    name: str, goal=Goal.STOP, *, began=NOW - 30, seen=NOW - 28, deadline=NOW + 570, **given
) -> Worker:
    drain = Drain(since=began, deadline=deadline, goal=goal, reason="not needed", seen_at=seen)
    return worker(name, drain=drain, **given)


def offer(number: int, gpu="RTX 4090", price=0.3, **given) -> Offer:
    return Offer(**{"id": number, "machine_id": 1000 + number, "gpu_name": gpu, "dph_total": price} | given)


def offers(*listed: Offer, group=1, at=NOW - 5, **given) -> Offers:
    return Offers(workergroup_id=group, searched_at=at, offers=listed, **given)


def plenty(count=64, price=0.3, at=NOW - 5) -> Offers:
    return offers(*(offer(number, price=price) for number in range(1, count + 1)), at=at)


def steady(rate: float, *, until=NOW, seconds=300.0, waiting=0.0, requests=0, last=None) -> LoadHistory:
    """`rate` load/s for five minutes, with a queue at the end."""
    last = until if last is None and rate > 0 else last
    return fold(
        LoadHistory(),
        engine_id="e1",
        sequence=1,
        at=until,
        window_s=seconds,
        load=rate * seconds,
        queued_load=waiting,
        queued_requests=requests,
        last_request_at=last,
    )


def knows(perf=100.0, *, kind="1x RTX 4090", boot=120.0, start=20.0, group=1) -> MachineStats:
    """Statistics of one machine kind with many samples."""
    record = KindRecord(
        workergroup_id=group,
        kind=kind,
        perf=perf,
        dollars_per_hour=0.3,
        samples=3,
        boot_seconds=boot,
        start_seconds=start,
        boots=3,
        starts=3,
    )
    return MachineStats(kinds=(record,))


def see(*workers: Worker, config: EndpointConfig | None = None, **given) -> Observation:
    """An observation of one endpoint: one workergroup, a recent listing, known kinds and many offers."""
    return Observation(
        **{
            "now": NOW,
            "config": config or endpoint(),
            "workergroups": (group(),),
            "workers": workers,
            "load": steady(0),
            "offers": (plenty(),),
            "learned": knows(),
            "listed_at": NOW - 1,
            "launch_ids": IDS,
        }
        | given
    )


def find_faults(observation: Observation, decided: Plan) -> tuple[str, ...]:
    """The faults that the validation finds in a plan, one sentence each."""
    return drop_faulty(observation, decided)[1]


def after(observation: Observation, decided: Plan) -> Observation:
    """The observation at the same time with the plan's operations begun. Planning on it changes nothing."""
    now, workers = observation.now, {worker.launch_id: worker for worker in observation.workers}
    searching = set(observation.searching)
    for operation in decided.operations:
        if isinstance(operation, Search):
            searching.add(operation.workergroup_id)
        elif isinstance(operation, Recruit):
            workers[operation.launch_id] = launched_worker(operation, now)
        elif not isinstance(operation, PollInstances) and operation.launch_id in workers:
            workers[operation.launch_id] = apply_operation(workers[operation.launch_id], operation, now)
    recruited = {each.launch_id for each in decided.operations if isinstance(each, Recruit)}
    return replace(
        observation,
        workers=tuple(workers.values()),
        learned=remember_hosts(observation.learned, decided.failed_hosts, now),
        memory=decided.memory,
        listing_in_progress=observation.listing_in_progress
        or any(isinstance(each, PollInstances) for each in decided.operations),
        searching=tuple(sorted(searching)),
        launch_ids=tuple(each for each in observation.launch_ids if each not in recruited),
    )


def decide(observation: Observation, tuning: Tuning = DEFAULT_TUNING) -> Plan:
    """The plan, validated. Planning again on its result must change nothing."""
    decided = plan(observation, tuning)
    assert find_faults(observation, decided) == ()
    again = plan(after(observation, decided), tuning)
    assert again.operations == (), [each.reason for each in again.operations]
    return decided


def brief(decided: Plan) -> list[str]:
    """The operations in short form: `activate w1`, `recruit 1x RTX 4090`, `drain w1 → stop`."""
    return [_brief(each) for each in decided.operations]


def _brief(operation) -> str:
    match operation:
        case Recruit():
            return f"recruit {operation.offer.kind} {operation.offer.id}"
        case StartDrain():
            return f"drain {operation.launch_id} to {operation.drain.goal}"
        case Search():
            return f"search {operation.workergroup_id}"
        case _:
            return f"{operation.op} {getattr(operation, 'launch_id', '')}".strip()


def held_before(observation: Observation, *, predicted=0.0, seconds=36_000.0) -> Observation:
    """The observation with a low demand for longer than any hold time."""
    peaks = ((observation.now - seconds, predicted),)
    return replace(observation, memory=Memory(hot_peaks=peaks, total_peaks=peaks))


def printed(decided: Plan, at: float = NOW) -> str:
    """The plan as text."""
    wanted = decided.targets
    capacity = (
        f"predicted {wanted.predicted_load:.4g}, hot {wanted.hot_ready:.4g} + {wanted.hot_booting:.4g} booting"
        f" of {wanted.hot_wanted:.4g}, total {wanted.total_have:.4g} of {wanted.total_wanted:.4g},"
        f" at least {wanted.workers_wanted_min} workers, queue {wanted.queue_seconds:.4g} s"
    )
    lines = [capacity, f"  because {wanted.reason}"]
    lines += [_line(each) for each in decided.operations]
    lines += [f"{'wait':<12} {each.reason} ({each.code})" for each in decided.waits]
    look = decided.replan_at
    lines.append("plan again on news" if look is None else f"plan again in {look - at:.0f} s")
    return "\n".join(lines) + "\n"


def _line(operation) -> str:
    subject = getattr(operation, "launch_id", "")
    return (
        f"{operation.op:<12} {subject}: {operation.reason}"
        if subject
        else f"{operation.op:<12} {operation.reason}"
    )
