"""One golden plan per sentence of the parameter page, with numbers that do not depend on the policy's constants.

The load is constant for five minutes without counted requests, so forecast and spare do not change the numbers, and
no hold is active. Each golden file is named after its sentence and quotes it.
"""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from policy.routing.worker_selection import Candidate, Choice, Full, choose
from policy.state.observation import Observation
from policy.state.plan import Plan, Recruit
from policy.state.worker import KindRecord, MachineStats
from stoker_wire.endpoint import EndpointConfig, EndpointPatch
from stoker_wire.states import WorkerState as S
from tests.policy.builders import (
    COLD,
    NOW,
    brief,
    decide,
    draining,
    endpoint,
    group,
    held_before,
    offer,
    offers,
    plenty,
    see,
    steady,
    worker,
)
from tests.policy.conftest import GOLDENS, compare

FOLDER = "parameters"


def calm(*workers, load=0.0, last=None, **given) -> Observation:
    """A history of five minutes with this load."""
    given["config"] = endpoint(**given.pop("config", {}))
    return held_before(see(*workers, load=steady(load, last=last), **given), predicted=load)


def hot(count, *, load=0.0, **given):
    """This number of ready workers of 100 load/s."""
    return [worker(f"hot{number}", load=load, **given) for number in range(1, count + 1)]


def cold(count):
    return [worker(f"cold{number}", COLD) for number in range(1, count + 1)]


BOOTS = worker("boots", S.MODEL_LOADING, since=NOW - 20)
KNOWN = tuple(
    KindRecord(workergroup_id=1, kind=f"1x {gpu}", perf=perf, dollars_per_hour=price, samples=3, boots=3)
    for gpu, perf, price in (("RTX 3090", 100.0, 0.20), ("RTX 4090", 200.0, 0.30), ("H100", 600.0, 1.90))
)
MARKET = offers(
    *(offer(number, gpu=gpu, price=price) for number, (gpu, price) in enumerate(
        [("RTX 3090", 0.20), ("RTX 3090", 0.20), ("RTX 4090", 0.30), ("RTX 4090", 0.30), ("H100", 1.90), ("H100", 1.90)], start=1
    ))
)  # fmt: skip
TWO = (group(1), group(2))
BOTH = (plenty(), offers(*(offer(100 + number, price=0.5) for number in range(9)), group=2))

EXAMPLES: dict[str, tuple[str, Observation]] = {
    "max_workers_counts_hot_cold_and_being_created": (
        "max_workers caps all workers that exist or are being created, hot and cold together",
        calm(*hot(1), *cold(1), worker("new", S.PENDING, operation="create"), config={"max_workers": 5, "min_workers": 9}),
    ),
    "min_workers_counts_hot_and_cold": (
        "min_workers is a floor on workers with the model loaded at least once, hot and cold",
        calm(*hot(1), *cold(1), load=90, config={"min_workers": 4}),
    ),
    "min_load_above_zero_keeps_one_worker_hot": (
        "any min_load above 0 keeps at least one worker hot",
        calm(*cold(2), config={"min_load": 1, "min_workers": 2}),
    ),
    "min_load_is_a_floor_under_the_hot_capacity": (
        "hot capacity is at least min_load, whatever target_util is",
        calm(*hot(1), config={"min_load": 250, "target_util": 0.5}),
    ),
    "target_util_900_at_0.9_is_1000": (
        "hot capacity = predicted load / target_util: 900 load/s at 0.9 are 1000",
        calm(*hot(8), load=900, config={"target_util": 0.9}),
    ),
    "target_util_0.9_is_11_percent_spare": ("0.9 is 11.1 % spare", calm(*hot(9), load=900, config={"target_util": 0.9})),
    "target_util_0.8_is_25_percent_spare": ("0.8 is 25 % spare", calm(*hot(9), load=900, config={"target_util": 0.8})),
    "target_util_0.5_is_100_percent_spare": (
        "0.5 is 100 % spare",
        calm(*hot(9), load=900, config={"target_util": 0.5, "max_workers": 40}),
    ),
    "target_util_0.4_is_150_percent_spare": (
        "0.4 is 150 % spare",
        calm(*hot(9), load=900, config={"target_util": 0.4, "max_workers": 40}),
    ),
    "cold_mult_2_at_hot_100_is_100_cold": (
        "total capacity = hot capacity x cold_mult: hot 100 x 2 = 200 in all, so 100 cold",
        calm(*hot(1), load=100, config={"cold_mult": 2}),
    ),
    "cold_mult_2_at_hot_150_is_150_cold": (
        "at hot 150, 150 cold",
        calm(worker("hot1", perf=150.0), load=150, config={"cold_mult": 2}, learned=MachineStats()),
    ),
    "min_cold_load_300_at_hot_100_is_200_cold": (
        "min_cold_load is the total capacity, set directly: hot 100, 300 in all, 200 cold",
        calm(*hot(1), load=100, config={"min_cold_load": 300}),
    ),
    "min_cold_load_300_at_hot_150_is_150_cold": (
        "hot 150, 150 cold",
        calm(worker("hot1", perf=150.0), load=150, config={"min_cold_load": 300}, learned=MachineStats()),
    ),
    "the_largest_cold_floor_wins_min_workers": (
        "the three cold controls are floors, the largest wins: five workers",
        calm(*hot(1), load=100, config={"min_workers": 5, "cold_mult": 2, "min_cold_load": 300}),
    ),
    "the_largest_cold_floor_wins_min_cold_load": (
        "the three cold controls are floors, the largest wins: 700 load/s",
        calm(*hot(1), load=100, config={"min_workers": 2, "cold_mult": 2, "min_cold_load": 700}),
    ),
    "max_workers_caps_the_cold_floors": (
        "max_workers caps the result",
        calm(*hot(1), load=100, config={"min_workers": 9, "cold_mult": 9, "min_cold_load": 5000, "max_workers": 3}),
    ),
    "inactivity_timeout_unset_is_no_gate": (
        "inactivity_timeout unset: nothing gates scaling to zero",
        calm(*hot(2), last=NOW - 1, config={"min_workers": 2}),
    ),
    "inactivity_timeout_0_is_no_gate": (
        "inactivity_timeout 0: nothing gates scaling to zero",
        calm(*hot(2), last=NOW - 1, config={"min_workers": 2, "inactivity_timeout": 0}),
    ),
    "inactivity_timeout_negative_never_scales_to_zero": (
        "a negative inactivity_timeout never scales to zero",
        calm(*hot(2), last=NOW - 1e6, config={"min_workers": 2, "inactivity_timeout": -1}),
    ),
    "inactivity_timeout_100_after_99_s_keeps_one_hot": (
        "a positive one scales to zero only after that long idle",
        calm(*hot(2), last=NOW - 99, config={"min_workers": 2, "inactivity_timeout": 100}),
    ),
    "inactivity_timeout_100_after_100_s_lets_go": (
        "only after that long idle",
        calm(*hot(2), last=NOW - 100, config={"min_workers": 2, "inactivity_timeout": 100}),
    ),
    "inactivity_timeout_past_min_load_still_keeps_one_hot": (
        "min_load above 0 still keeps a hot worker",
        calm(*hot(2), last=NOW - 1000, config={"min_workers": 2, "inactivity_timeout": 100, "min_load": 1}),
    ),
    "inactivity_timeout_past_min_workers_keeps_them_cold": (
        "min_workers above 0 still keeps that many workers, cold",
        calm(*cold(3), last=NOW - 20_000, config={"min_workers": 2, "inactivity_timeout": 100}),
    ),
    "inactivity_timeout_past_both_zero_keeps_nothing": (
        "both 0: no workers at all",
        calm(*cold(2), last=NOW - 20_000, config={"inactivity_timeout": 100}),
    ),
    "target_queue_time_adds_until_the_backlog_clears_within_it": (
        "over target_queue_time capacity is added until the backlog clears within it: 3000 over 100 load/s is 30 s",
        see(*hot(1), config=endpoint(target_queue_time=10), load=steady(100, waiting=3000, requests=30)),
    ),
    "target_queue_time_not_passed_adds_nothing": (
        "a queue within its target adds nothing",
        see(*hot(1), config=endpoint(target_queue_time=10), load=steady(90, waiting=900, requests=9)),
    ),
    "cost_equal_to_perf_queued_requests_count_as_demand": (
        "with cost == perf a busy worker sits at exactly 100 %: queued requests must count as demand",
        see(
            worker("hot1", load=100.0, in_flight=1),
            worker("hot2", load=100.0, in_flight=1),
            config=endpoint(target_queue_time=1),
            load=steady(200, waiting=300, requests=3),
        ),
    ),
    "a_session_occupies_its_worker": (
        "a session occupies its worker with its cost for as long as it is open: a drain waits for it",
        held_before(see(draining("holds-a-session", load=100.0), *hot(1), load=steady(50)), predicted=50),
    ),
    "endpoint_state_active_is_scaled": (
        "active: routed and scaled",
        calm(*hot(1), *cold(1), load=180, config={"endpoint_state": "active"}),
    ),
    "endpoint_state_suspended_leaves_workers_as_they_are": (
        "suspended: routed, not scaled; workers stay as they are, those loading are finished",
        calm(*hot(2), *cold(1), BOOTS, load=900, config={"endpoint_state": "suspended", "min_workers": 9}),
    ),
    "endpoint_state_stopped_stops_every_worker": (
        "stopped: not scaled, every worker is stopped (cold)",
        calm(*hot(2), *cold(1), BOOTS, load=900, config={"endpoint_state": "stopped", "min_workers": 9}),
    ),
    "a_deleted_endpoint_destroys_every_worker": (
        "deleting the endpoint destroys every worker",
        calm(*hot(1), *cold(1), BOOTS, load=900, deleting=True),
    ),
    "workergroups_several_serve_one_endpoint": (
        "an endpoint may have several workergroups: the cheaper capacity is rented, whosever it is",
        calm(load=250, config={}, workergroups=TWO, offers=BOTH),
    ),
    "workergroup_max_workers_bounds_it_alone": (
        "max_workers on a workergroup bounds this workergroup only",
        calm(config={"min_workers": 4}, workergroups=(group(1, max_workers=1), group(2)), offers=BOTH),
    ),
    "workergroup_cold_workers_are_kept_in_it": (
        "cold_workers on a workergroup bounds this workergroup only",
        calm(workergroups=(group(1), group(2, cold_workers=2)), offers=BOTH),
    ),
    "workergroup_min_load_keeps_it_hot": (
        "min_load on a workergroup bounds this workergroup only",
        calm(*cold(2), workergroups=(group(1), group(2, min_load=150)), offers=BOTH, config={"min_workers": 2}),
    ),
    "workergroup_target_util_and_cold_mult_hold_for_it": (
        "target_util and cold_mult on a workergroup take the place of the endpoint's",
        calm(load=100, workergroups=(group(target_util=0.5, cold_mult=2),)),
    ),
    "test_workers_is_how_many_kinds_are_tried": (
        "a new workergroup recruits a variety of machine kinds: test_workers of them",
        calm(config={"min_workers": 5}, workergroups=(group(test_workers=3),), offers=(MARKET,), learned=MachineStats()),
    ),
    "scaling_up_takes_the_best_price_performance_first": (
        "scaling up takes the best perf / price first",
        calm(load=350, offers=(MARKET,), learned=MachineStats(kinds=KNOWN)),
    ),
    "scaling_down_releases_the_worst_first": (
        "scaling down releases the worst price-performance first",
        calm(worker("fair", price=0.3), worker("dear", price=0.9), worker("good", price=0.2), load=150, config={"min_workers": 3}),
    ),
    "a_rolling_update_takes_inactive_workers_first": (
        "inactive workers are updated first; active ones stop getting requests, finish what they have, update, rejoin",
        calm(
            worker("hot1", in_flight=2, load=20.0), worker("hot2"), *cold(1),
            load=90, workergroups=(group(revision=2),), config={"min_workers": 3},
        ),
    ),
}  # fmt: skip


def printed(sentence: str, seen: Observation, made: Plan) -> str:
    """The parts of a plan that define a parameter: numbers, operations and waits. Reasons are left out, because they depend
    on windows and hold times."""
    config = seen.config.model_dump(mode="json", exclude_defaults=True)
    said = ", ".join(f"{name} {value}" for name, value in config.items())
    fleet = [
        f"{each.launch_id} {each.state.printed}{' draining' if each.drain else ''} {each.perf:g} load/s"
        for each in seen.workers
    ]
    wanted = made.targets
    done = _done(made)
    return "\n".join(
        [
            sentence,
            "",
            f"config: {said}",
            f"fleet: {'; '.join(fleet) or 'none'}",
            f"wanted: hot {wanted.hot_wanted:.4g}, total {wanted.total_wanted:.4g}, at least {wanted.workers_wanted_min} workers",
            f"there: hot {wanted.hot_ready:.4g}, booting {wanted.hot_booting:.4g}, total {wanted.total_have:.4g}",
            f"done: {'; '.join(done) or 'nothing'}",
            f"waits: {', '.join(sorted({each.code for each in made.waits})) or 'none'}",
            "",
        ]
    )


def _done(made: Plan) -> list[str]:
    """Recruits by number, kind and workergroup; the offer does not matter."""
    words = [
        f"recruit {each.offer.kind} in workergroup {each.workergroup_id}"
        if isinstance(each, Recruit)
        else said
        for each, said in zip(made.operations, brief(made), strict=True)
    ]
    runs = [(word, len(list(same))) for word, same in itertools.groupby(words)]
    return [f"{count} times {word}" if count > 1 else word for word, count in runs]


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_documented_example(name):
    sentence, seen = EXAMPLES[name]
    compare(printed(sentence, seen, decide(seen)), f"{FOLDER}/{name}")


def test_every_parameter_takes_effect_at_once_on_a_live_endpoint():
    """Changing a parameter of a live endpoint changes the next plan."""
    changes = {
        "max_workers": 1, "min_workers": 6, "min_load": 450, "target_util": 0.4, "cold_mult": 4, "min_cold_load": 900,
        "endpoint_state": "stopped", "target_queue_time": 0.5, "dollars_per_hour_max": 0.4,
    }  # fmt: skip
    seen = see(*hot(2, load=90.0), config=endpoint(), load=steady(180, waiting=30, requests=1))
    before = decide(seen)
    lines = [
        f"as it is: wanted hot {before.targets.hot_wanted:.4g}, done: {'; '.join(_done(before)) or 'nothing'}"
    ]
    for name, value in changes.items():
        made = decide(replace(seen, config=seen.config.patched(EndpointPatch(**{name: value}))))
        assert (made.targets, brief(made)) != (before.targets, brief(before)), name
        lines.append(
            f"{name} = {value}: wanted hot {made.targets.hot_wanted:.4g}, total {made.targets.total_wanted:.4g},"
            f" done: {'; '.join(_done(made)) or 'nothing'}"
        )
    compare("\n".join(lines) + "\n", f"{FOLDER}/every_parameter_takes_effect_at_once")


def test_max_queue_time_is_routings_limit():
    """A worker at this expected queue time gets no more requests; if all are, requests wait in the queue."""
    lines = []
    for held in ((2999.0, 3000.0), (3000.0, 3000.0)):
        workers = [Candidate(f"w{n}", perf=100.0, outstanding=load) for n, load in enumerate(held, start=1)]
        found = choose(workers, 100.0, max_queue_time=30)
        said = f"to {found.candidate.launch_id}" if isinstance(found, Choice) else f"waits: {found.reason}"
        queues = " and ".join(f"{load / 100:g} s" for load in held)
        lines.append(f"queues of {queues} at max_queue_time 30: {said}")
        assert isinstance(found, Full) == (min(held) >= 3000)
    compare("\n".join(lines) + "\n", f"{FOLDER}/max_queue_time_is_routings_limit")


def test_a_200_perf_worker_does_a_100_load_request_in_half_a_second():
    found = choose([Candidate("w1", perf=200.0)], 100.0, max_queue_time=30)
    assert isinstance(found, Choice)
    compare(
        f"{found.finish_seconds:g} s\n",
        f"{FOLDER}/a_200_perf_worker_does_a_100_load_request_in_half_a_second",
    )


def test_min_workers_wins_over_cold_workers():
    """The REST API and CLI also accept `cold_workers`; `min_workers` wins if both are given."""
    given = [
        {"cold_workers": 3},
        {"min_workers": 2, "cold_workers": 3},
        {"min_workers": None, "cold_workers": 3},
    ]
    lines = [f"{each}: {EndpointConfig.model_validate(each).min_workers}" for each in given]
    compare("\n".join(lines) + "\n", f"{FOLDER}/min_workers_wins_over_cold_workers")


def test_the_defaults_are_those_of_the_create_dialog():
    config = EndpointConfig()
    shown = {
        name: value for name, value in config.model_dump(mode="json").items() if name != "drain_seconds_max"
    }
    compare("\n".join(f"{name} {value}" for name, value in shown.items()) + "\n", f"{FOLDER}/the_defaults")


def test_every_golden_belongs_to_an_example():
    """A golden file is named after its example; a file without one is stale."""
    here = Path(__file__).read_text()
    stale = [
        path.stem
        for path in (GOLDENS / FOLDER).iterdir()
        if path.stem not in EXAMPLES and f"{{FOLDER}}/{path.stem}" not in here
    ]
    assert stale == []
