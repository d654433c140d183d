from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from policy.routing.affinity import affinity_point, owners
from policy.routing.worker_selection import AllBusy, Candidate, Choice, PrefetchLimits, choose
from tests.policy.routing.test_worker_selection import candidate


def owner_of(workers, key):
    return owners(workers, affinity_point(key))[0].launch_id


def pick(workers, key, *, cost=100.0, **more):
    kept = owners(workers, affinity_point(key), more.get("avoid", ()))
    chosen = choose(workers, cost, max_queue_time=30.0, owners=kept, **more)
    return chosen.candidate.launch_id if isinstance(chosen, Choice) else chosen


def test_engines_agree_on_the_owner_whatever_the_order_of_their_workers():
    workers = [candidate(f"w{number}") for number in range(20)]
    for key in ("a conversation", "another", "\udcff"):
        assert owner_of(workers, key) == owner_of(workers[::-1], key)


def test_only_the_keys_of_a_worker_that_leaves_move():
    workers = [candidate(f"w{number}") for number in range(10)]
    keys = [f"key {number}" for number in range(500)]
    before = {key: owner_of(workers, key) for key in keys}
    after = {key: owner_of(workers[1:], key) for key in keys}
    assert {key for key in keys if before[key] != after[key]} == {key for key in keys if before[key] == "w0"}


def test_a_worker_of_twice_the_perf_owns_twice_as_many_keys():
    workers = [candidate("slow", 100.0), candidate("fast", 200.0)]
    owned = Counter(owner_of(workers, f"key {number}") for number in range(3000))
    assert 1.8 < owned["fast"] / owned["slow"] < 2.2


def test_a_request_follows_its_key_until_the_queue_costs_more_than_the_saved_prefill():
    workers = [candidate(f"w{number}") for number in range(4)]
    home, second, *_ = owners(workers, affinity_point("key"))
    assert pick(workers, "key") == home.launch_id
    # cost 100 at 100 load/s takes 1 s, and 0.5 s where the prefix is in the cache
    home.outstanding = 49.0
    assert pick(workers, "key") == home.launch_id
    home.outstanding = 51.0
    assert pick(workers, "key") == second.launch_id, "the next owner takes what the first has no time for"


def test_forged_keys_of_one_worker_cannot_overload_it():
    workers = [candidate(f"w{number}") for number in range(4)]
    keys = [key for key in map(str, range(400)) if owner_of(workers, key) == "w0"]
    for key in keys:
        chosen = choose(
            workers, 100.0, max_queue_time=30.0, owners=owners(workers, affinity_point(key))
        ).candidate
        chosen.outstanding += 100.0
    # the owner is at most half a request longer than the others
    assert max(w.outstanding for w in workers) - min(w.outstanding for w in workers) <= 100.0


def test_an_owner_that_failed_the_request_is_avoided():
    workers = [candidate(f"w{number}") for number in range(4)]
    home = owner_of(workers, "key")
    assert pick(workers, "key", avoid={home}) != home


def test_no_key_changes_nothing():
    workers = [candidate(f"w{number}") for number in range(4)]
    assert affinity_point("") == 0
    assert [pick(workers, "key", sequence=n) for n in range(2)] == [owner_of(workers, "key")] * 2
    assert [choose(workers, 1.0, max_queue_time=1.0, sequence=n).candidate.launch_id for n in range(2)] == [
        "w0",
        "w1",
    ]


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 50.0, 400.0]), st.floats(0, 5000), st.floats(0, 1), st.booleans()),
        max_size=8,
    ),
    st.floats(0, 1000),
    st.text(max_size=8),
)
def test_affinity_never_picks_a_worker_that_is_full_or_not_ready(rows, cost, key):
    workers = []
    for number, (perf, load, served, full) in enumerate(rows):
        workers.append(candidate(f"w{number}", perf, load))
        workers[-1].set_parallel(full=full, served=load * served)
    kept = owners(workers, affinity_point(key))
    chosen = choose(workers, cost, max_queue_time=10.0, owners=kept)
    without = choose(workers, cost, max_queue_time=10.0)
    assert isinstance(chosen, Choice) == isinstance(without, Choice)
    if isinstance(chosen, Choice):
        assert chosen.candidate.perf > 0
        assert not chosen.candidate.full
        assert chosen.queue_seconds < 10.0
        # at most the saved half of the request's own duration is lost
        assert chosen.finish_seconds <= without.finish_seconds


def test_a_busy_owner_holds_the_request_only_while_no_other_worker_is_idle():
    limits = PrefetchLimits(queue_seconds=0.1, finish_seconds=0.2)
    workers = [Candidate(name, perf=100.0, outstanding=4000.0) for name in "ab"]
    for worker in workers:
        worker.serial = True
        worker.free_at = worker.expected_end_at = 40.0
    kept = owners(workers, affinity_point("key"))
    assert isinstance(choose(workers, 100.0, max_queue_time=60.0, owners=kept, prefetch=limits), AllBusy)
