from dataclasses import replace

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from policy.load.history import LoadHistory, fold
from policy.planning.planner import plan
from policy.state.observation import Observation
from policy.state.operator_actions import GOALS
from policy.state.plan import Destroy, StartDrain, Stop
from policy.state.worker import Drain, Goal, HostFailure, KindRecord, MachineStats
from policy.tuning import DEFAULT_TUNING
from stoker_wire.endpoint import EndpointConfig, EndpointState
from stoker_wire.states import WorkerState as S
from tests.policy.builders import (
    IDS,
    NOW,
    after,
    committed_dollars_per_hour,
    find_faults,
    group,
    offer,
    offers,
    worker,
)

KINDS = ("RTX 3090", "RTX 4090", "H100", "A100")
some = settings(
    max_examples=200,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow],
)
ages = st.sampled_from([0.0, 1.0, 10.0, 50.0, 130.0, 400.0, 4000.0])


@st.composite
def fleets(draw):
    states = draw(st.lists(st.sampled_from(list(S)), max_size=12))
    return tuple(draw(workers(f"w{number:02}", state)) for number, state in enumerate(states))


@st.composite
def workers(draw, name, state):
    made = worker(
        name,
        state,
        perf=draw(st.sampled_from([50.0, 100.0, 400.0])),
        price=draw(st.sampled_from([0.1, 0.3, 2.0])),
        since=NOW - draw(ages),
        kind=f"1x {draw(st.sampled_from(KINDS))}",
        workergroup_id=draw(st.sampled_from([1, 1, 1, 2, 9])),
        revision=draw(st.sampled_from([1, 1, 2])),
        in_flight=draw(st.sampled_from([0, 0, 3])) if state is S.READY else 0,
        offer_id=draw(st.integers(0, 10)),
        market_status=draw(st.sampled_from(["", "running", "stopped", "loading"])),
        retry_at=NOW + draw(st.sampled_from([-5.0, -5.0, 20.0])),
        reboots=draw(st.integers(0, 1)),
        starts_given_up=draw(st.integers(0, 1)),
        error="boom" if state is S.ERROR else "",
        asked=draw(st.sampled_from([None, None, None, *GOALS])),
    )
    if state is S.ERROR and draw(st.booleans()):
        return made.replace(loaded_once=True, market_status="running")
    if state is S.PENDING:
        return made.replace(operation="create", instance_id=None)
    if state in (S.STOPPING, S.DESTROYING):
        return made.replace(ran_at_release=draw(st.booleans()))
    if state in (S.REBOOTING, S.STARTING) and draw(st.booleans()):
        return made.replace(operation="start" if state is S.STARTING else "reboot")
    if state is not S.READY:
        return made
    made = made.replace(
        reported_at=NOW - draw(ages), suspect_since=draw(st.sampled_from([None, None, NOW - 5, NOW - 60]))
    )
    if draw(st.booleans()):
        began = NOW - draw(ages)
        drain = Drain(
            since=began,
            deadline=began + 600,
            goal=draw(st.sampled_from(list(Goal))),
            reason="drawn",
            seen_at=draw(st.sampled_from([None, began + 1])),
        )
        made = made.replace(drain=drain)
    return made


@st.composite
def histories(draw):
    history = LoadHistory()
    if draw(st.integers(0, 9)) == 0:
        return history
    end = NOW - draw(st.sampled_from([0.0, 0.0, 3.0, 100.0, 1000.0]))
    arrived = draw(st.lists(st.sampled_from([0.0, 0.0, 50.0, 500.0, 5000.0]), min_size=1, max_size=30))
    start = end - 10 * len(arrived)
    requests = draw(st.sampled_from([0, 0, 1, 10, 200]))
    for number, load in enumerate(arrived, 1):
        history = fold(
            history,
            engine_id="e",
            sequence=number,
            at=start + 10 * number,
            window_s=10,
            load=load,
            queued_load=requests * 100.0,
            queued_requests=requests,
            last_request_at=start + 10 * number if load else None,
        )
    return history


configs = st.builds(
    EndpointConfig,
    max_workers=st.integers(0, 14),
    min_workers=st.integers(0, 8),
    min_load=st.sampled_from([0.0, 1.0, 300.0]),
    target_util=st.sampled_from([0.5, 0.9, 1.0]),
    cold_mult=st.sampled_from([1.0, 3.0]),
    min_cold_load=st.sampled_from([0.0, 700.0]),
    inactivity_timeout=st.sampled_from([None, 0, -1, 30, 600]),
    target_queue_time=st.sampled_from([1.0, 10.0]),
    endpoint_state=st.sampled_from([*EndpointState, EndpointState.ACTIVE, EndpointState.ACTIVE]),
    dollars_per_hour_max=st.sampled_from([None, None, 0.5, 3.0]),
)


@st.composite
def calm_observations(draw):
    """Observations without failures: only the capacity is to be decided."""
    states = st.sampled_from(
        [S.READY, S.READY, S.INACTIVE, S.INACTIVE, S.STARTING, S.MODEL_LOADING, S.PENDING]
    )
    fleet = []
    for number, state in enumerate(draw(st.lists(states, max_size=10))):
        made = worker(
            f"w{number:02}",
            state,
            perf=draw(st.sampled_from([50.0, 100.0, 400.0])),
            price=draw(st.sampled_from([0.1, 0.3, 2.0])),
            since=NOW - draw(st.sampled_from([1.0, 20.0, 200.0])),
            kind=f"1x {draw(st.sampled_from(KINDS))}",
            market_status="running",
            in_flight=draw(st.sampled_from([0, 2])) if state is S.READY else 0,
        )
        if state is S.READY and draw(st.integers(0, 3)) == 0:
            drain = Drain(since=NOW - 9, deadline=NOW + 90, goal=Goal.STOP, reason="drawn", seen_at=None)
            made = made.replace(drain=drain)
        fleet.append(made)
    prices = draw(st.lists(st.sampled_from([0.1, 0.4, 3.0]), min_size=4, max_size=4))
    dlperf = draw(st.sampled_from([None, 20.0, 90.0]))
    listed = [
        offer(number, gpu=KINDS[number % 4], price=prices[number % 4], dlperf=dlperf and dlperf + number % 4)
        for number in range(1, 40)
    ]
    kinds = draw(st.lists(st.sampled_from(KINDS), unique=True))
    records = [
        KindRecord(workergroup_id=1, kind=f"1x {kind}", perf=draw(st.sampled_from([80.0, 300.0])), samples=1)
        for kind in kinds
    ]
    return Observation(
        now=NOW,
        config=draw(configs).model_copy(
            update={"max_workers": draw(st.sampled_from([5, 16, 40])), "endpoint_state": EndpointState.ACTIVE}
        ),
        workergroups=(group(test_workers=draw(st.sampled_from([0, 3]))),),
        workers=tuple(fleet),
        load=draw(histories()),
        offers=(offers(*listed),),
        learned=MachineStats(kinds=tuple(records)),
        listed_at=NOW - 1,
        launch_ids=IDS[: draw(st.sampled_from([3, 60]))],
    )


@st.composite
def wild_observations(draw):
    """Arbitrary observations."""
    records = [
        KindRecord(
            workergroup_id=1,
            kind=f"1x {kind}",
            perf=draw(st.sampled_from([0.0, 80.0, 300.0])),
            samples=1,
            boots=1,
            boot_seconds=draw(st.sampled_from([20.0, 200.0])),
            failures=draw(st.integers(0, 2)),
        )
        for kind in draw(st.lists(st.sampled_from(KINDS), unique=True))
    ]
    listed = [
        offer(
            number,
            gpu=draw(st.sampled_from(KINDS)),
            price=draw(st.sampled_from([0.1, 0.4, 3.0])),
            dlperf=draw(st.sampled_from([None, 20.0, 90.0])),
        )
        for number in range(draw(st.integers(0, 20)))
    ]
    hosts = tuple(
        HostFailure(machine_id=1000 + each, until=NOW + 100, reason="x", workergroup_id=1, failed_at=NOW - 50)
        for each in draw(st.lists(st.integers(0, 8), unique=True, max_size=6))
    )
    age = draw(st.sampled_from([1.0, 59.0, 90.0]))
    found = (
        offers(*listed[::2], at=NOW - age, revision=2),
        offers(*listed[1::2], group=2, at=NOW - 1, error=draw(st.sampled_from(["", "market down"]))),
    )
    groups = (
        group(1, revision=2, test_workers=2, min_load=draw(st.sampled_from([None, 50.0]))),
        group(2, max_workers=draw(st.sampled_from([None, 2])), cold_workers=draw(st.sampled_from([None, 1]))),
    )
    return Observation(
        now=NOW,
        config=draw(configs),
        workergroups=groups[: draw(st.integers(1, 2))],
        workers=draw(fleets()),
        load=draw(histories()),
        offers=found[: draw(st.integers(0, 2))],
        learned=MachineStats(kinds=tuple(records), failed_hosts=hosts),
        listed_at=draw(st.sampled_from([0.0, NOW - 2, NOW - 700])),
        deleting=draw(st.sampled_from([False, False, False, True])),
        launch_ids=IDS[: draw(st.sampled_from([0, 2, 30]))],
    )


observations = st.one_of(calm_observations(), wild_observations())


@some
@given(observations)
def test_planning_twice_changes_nothing(observation):
    first = plan(observation)
    second = plan(after(observation, first))
    assert [each.reason for each in second.operations] == []


@some
@given(observations)
def test_every_plan_is_valid(observation):
    assert find_faults(observation, plan(observation)) == ()


@some
@given(observations)
def test_a_plan_never_goes_beyond_max_workers_or_the_budget(observation):
    result = after(observation, plan(observation)).workers
    cap = max(observation.config.max_workers, len(observation.workers))
    assert len(result) <= cap
    budget = observation.config.dollars_per_hour_max
    if budget is not None:
        assert committed_dollars_per_hour(result) <= max(
            budget + 1e-9, committed_dollars_per_hour(observation.workers) + 1e-9
        )


@some
@given(observations, st.sampled_from([1.1, 2.0, 10.0]), st.sampled_from([0, 1, 50]))
def test_more_load_never_reduces_the_demand(observation, factor, requests):
    less = plan(observation).targets
    history = observation.load
    more = plan(
        replace(
            observation,
            load=replace(
                history,
                seconds=tuple((at, load * factor) for at, load in history.seconds),
                backlog_load=history.backlog_load + requests * 100.0,
                backlog_requests=history.backlog_requests + requests,
            ),
        )
    ).targets
    assert more.predicted_load >= less.predicted_load * (1 - 1e-9)
    assert more.hot_wanted >= less.hot_wanted * (1 - 1e-9)
    assert more.total_wanted >= less.total_wanted * (1 - 1e-9)


@some
@given(observations, st.floats(0.0, 5000.0), st.integers(0, 59))
def test_one_more_request_never_reduces_the_demand(observation, load, second):
    history = observation.load
    if history.known_until is None:
        return
    less = plan(observation).targets
    bucket = (history.known_until - second) // 5 * 5
    buckets = dict(history.seconds)
    buckets[bucket] = buckets.get(bucket, 0.0) + load
    more = plan(replace(observation, load=replace(history, seconds=tuple(sorted(buckets.items()))))).targets
    assert more.hot_wanted >= less.hot_wanted * (1 - 1e-9)


@some
@given(observations)
def test_missing_engine_reports_never_reduce_capacity(observation):
    config = observation.config.model_copy(
        update={"endpoint_state": EndpointState.ACTIVE, "max_workers": 50, "dollars_per_hour_max": None}
    )
    silent = replace(
        observation,
        config=config,
        deleting=False,
        workergroups=tuple(
            each.model_copy(update={"max_workers": None}) for each in observation.workergroups
        ),
        load=replace(observation.load, known_until=NOW - 901, known_since=NOW - 2000),
    )
    groups = {each.id: each.revision for each in silent.workergroups}
    serving = {
        each.launch_id: each
        for each in silent.workers
        if each.state in (S.READY, S.INACTIVE)
        and each.workergroup_id in groups
        and each.drain is None
        and each.asked is None
        and each.revision >= groups[each.workergroup_id]
    }
    for operation in plan(silent).operations:
        if isinstance(operation, Stop | Destroy | StartDrain):
            assert operation.launch_id not in serving, operation.reason


@some
@given(observations)
def test_a_ready_worker_is_never_stopped_without_a_drain_unless_it_is_broken(observation):
    healthy = {
        each.launch_id
        for each in observation.workers
        if each.state is S.READY
        and each.drain is None
        and each.suspect_since is None
        and (each.reported_at or 0) > NOW - 100
    }
    for operation in plan(observation).operations:
        if isinstance(operation, Stop | Destroy):
            assert operation.launch_id not in healthy, operation.reason


@some
@given(observations)
def test_every_operation_and_every_wait_gives_a_reason(observation):
    decided = plan(observation)
    for each in (*decided.operations, *decided.waits):
        assert len(each.reason) > 15


@some
@given(observations, st.booleans())
def test_every_plan_schedules_the_next_listing(observation, listing_in_progress):
    """Also during a listing: if it finds no change, no event triggers the next plan."""
    decided = plan(replace(observation, listing_in_progress=listing_in_progress))
    ordered = [each for each in observation.workers if not each.operation]
    moving = any(each.state in (S.STOPPING, S.DESTROYING) for each in ordered)
    seconds_max = DEFAULT_TUNING.listing_seconds_max if moving else DEFAULT_TUNING.listing_seconds_idle
    assert decided.replan_at is not None
    assert NOW < decided.replan_at <= NOW + seconds_max
