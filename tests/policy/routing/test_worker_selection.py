from hypothesis import given
from hypothesis import strategies as st

from policy.routing.worker_selection import Candidate, Choice, Full, choose


def candidate(name, perf=100.0, outstanding=0.0):
    return Candidate(name, perf=perf, outstanding=outstanding)


def pick(*candidates, cost=100.0, limit=30.0, **more):
    chosen = choose(candidates, cost, max_queue_time=limit, **more)
    return chosen.candidate.launch_id if isinstance(chosen, Choice) else chosen


def test_a_request_goes_to_the_worker_that_finishes_it_first():
    # both idle: 10 s on the slow one, 2.5 s on the fast one
    assert pick(candidate("slow", 100), candidate("fast", 400), cost=1000) == "fast"
    # 400 waiting on the fast one: 1000 / 100 = 10 s against 1400 / 400 = 3.5 s
    assert pick(candidate("slow", 100), candidate("fast", 400, 400), cost=1000) == "fast"
    # a small request does not queue for the fast one: 0.1 s against 1.025 s
    assert pick(candidate("slow", 100), candidate("fast", 400, 400), cost=10) == "slow"


def test_a_worker_at_max_queue_time_gets_no_request():
    assert pick(candidate("w", 100, 2999)) == "w"
    full = pick(candidate("w", 100, 3000))
    assert full == Full(1, 30.0)
    assert full.reason == "all 1 ready worker(s) are at max_queue_time (shortest: 30.0 s)"


def test_a_worker_with_a_full_kv_cache_gets_no_request():
    full = candidate("full", 1000)
    full.set_parallel(full=True)
    assert pick(full, candidate("slow", 10)) == "slow"
    waits = pick(full, candidate("late", 100, 3000))
    assert waits == Full(2, 0.0, 1)
    assert waits.reason == "1 of 2 ready worker(s) have a full KV cache, the rest a full queue"


def test_a_worker_without_perf_or_health_is_never_chosen():
    assert pick(candidate("new", 0), candidate("ill", 0)) == Full(0, None)
    assert Full(0, None).reason == "no worker is ready"
    assert choose([], 1.0, max_queue_time=1.0) == Full(0, None)


def test_a_worker_that_just_failed_the_request_is_avoided():
    assert pick(candidate("bad"), candidate("good", outstanding=500), avoid={"bad"}) == "good"


def test_an_avoided_worker_is_not_used_while_another_is_full():
    assert isinstance(pick(candidate("bad"), candidate("full", outstanding=9000), avoid={"bad"}), Full)


def test_an_avoided_worker_is_used_if_it_is_the_only_one():
    assert pick(candidate("bad"), candidate("ill", 0), avoid={"bad"}) == "bad"


def test_the_first_of_equal_idle_workers_is_chosen_at_first():
    assert pick(candidate("a"), candidate("b"), candidate("c")) == "a"


def test_equal_idle_workers_take_turns():
    workers = [candidate(name) for name in "abc"]
    assert [pick(*workers, sequence=number) for number in range(4)] == ["a", "b", "c", "a"]


def test_a_choice_has_the_expected_queue_and_finish():
    # 150 wait at 100 load/s; with 75 more it takes 2.25 s
    chosen = choose([candidate("w", 100, 150)], 75.0, max_queue_time=30.0)
    assert isinstance(chosen, Choice)
    assert (chosen.queue_seconds, chosen.finish_seconds) == (1.5, 2.25)


def test_the_fastest_worker_is_found_before_the_one_whose_turn_it_is():
    assert pick(candidate("fast", 400), candidate("slow", 100), sequence=1) == "fast"


candidates = st.lists(
    st.tuples(st.sampled_from([0.0, 50.0, 100.0, 800.0]), st.floats(0.0, 5000.0)), max_size=12
)


@given(candidates, st.floats(0.0, 1000.0), st.integers(0, 50), st.sets(st.integers(0, 11)))
def test_the_choice_finishes_first_among_the_allowed_workers(drawn, cost, sequence, avoided):
    workers = [Candidate(str(n), perf=p, outstanding=o) for n, (p, o) in enumerate(drawn)]
    avoid = {str(each) for each in avoided}
    chosen = choose(workers, cost, max_queue_time=10.0, avoid=avoid, sequence=sequence)
    usable = [each for each in workers if each.perf > 0]
    preferred = [each for each in usable if each.launch_id not in avoid] or usable
    open_ones = [each for each in preferred if each.outstanding / each.perf < 10.0]
    if isinstance(chosen, Full):
        assert open_ones == []
    else:
        assert chosen.candidate in open_ones
        assert chosen.finish_seconds == min((each.outstanding + cost) / each.perf for each in open_ones)


def test_load_that_a_worker_serves_at_its_full_speed_is_no_queue():
    busy = candidate("a", outstanding=6000.0)
    assert choose([busy], 10.0, max_queue_time=30.0) == Full(1, 60.0)
    busy.set_parallel(full=False, served=4000.0)
    chosen = choose([busy], 10.0, max_queue_time=30.0)
    assert isinstance(chosen, Choice)
    assert chosen.queue_seconds == 20.0
    busy.set_parallel(full=False, served=3000.0)
    assert choose([busy], 10.0, max_queue_time=30.0) == Full(1, 30.0)
