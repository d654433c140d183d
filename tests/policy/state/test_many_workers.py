"""An endpoint has no more workers than its workflow can hand on, whatever its parameters allow."""

from policy.capacity.limits import WORKERS_MAX
from policy.state.plan import Destroy, Recruit, StartDrain
from tests.policy.builders import decide, endpoint, see, steady, worker


def fleet(count):
    return [worker(f"w{number}", perf=1.0, load=1.0) for number in range(count)]


def crowded(count, **config):
    wishes = endpoint(max_workers=10_000, **config)
    return see(*fleet(count), config=wishes, load=steady(50_000))


def test_growth_ends_at_what_one_endpoint_can_have_and_says_so():
    plan = decide(crowded(WORKERS_MAX - 2))
    assert len([each for each in plan.operations if isinstance(each, Recruit)]) == 2
    said = " ".join(wait.reason for wait in plan.waits)
    assert f"{WORKERS_MAX} workers exist, the most that one endpoint can have" in said
    assert "a second endpoint" in said


def test_a_floor_above_it_grows_no_further():
    plan = decide(crowded(WORKERS_MAX, min_workers=WORKERS_MAX + 10))
    assert not [each for each in plan.operations if isinstance(each, Recruit)]


def test_those_beyond_it_that_exist_are_let_be():
    plan = decide(crowded(WORKERS_MAX + 5))
    assert not [each for each in plan.operations if isinstance(each, Recruit | Destroy | StartDrain)]
