"""The worker limit of an endpoint: the workflow's state bounds it, whatever `max_workers` allows."""

from policy.capacity.limits import WORKERS_MAX
from policy.state.plan import Destroy, Recruit, StartDrain
from tests.policy.builders import decide, endpoint, see, steady, worker


def fleet(count):
    return [worker(f"w{number}", perf=1.0, load=1.0) for number in range(count)]


def crowded(count, **config):
    wishes = endpoint(max_workers=10_000, **config)
    return see(*fleet(count), config=wishes, load=steady(50_000))


def test_growth_ends_at_the_worker_limit_with_a_reason():
    plan = decide(crowded(WORKERS_MAX - 2))
    assert len([each for each in plan.operations if isinstance(each, Recruit)]) == 2
    reasons = " ".join(wait.reason for wait in plan.waits)
    assert f"{WORKERS_MAX} workers is the limit of one endpoint" in reasons
    assert "two endpoints" in reasons


def test_a_floor_above_the_limit_does_not_exceed_it():
    plan = decide(crowded(WORKERS_MAX, min_workers=WORKERS_MAX + 10))
    assert not [each for each in plan.operations if isinstance(each, Recruit)]


def test_existing_workers_beyond_the_limit_are_kept():
    plan = decide(crowded(WORKERS_MAX + 5))
    assert not [each for each in plan.operations if isinstance(each, Recruit | Destroy | StartDrain)]
