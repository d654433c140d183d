from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from policy.routing.priority_queue import PriorityQueue
from policy.routing.queue_discipline import DeadlineQueue

HIGH, NORMAL, LOW = 0, 1, 2


class Item:
    def __init__(self, number, *, priority=NORMAL, cost=1.0, at=None, retried=False):
        self.number, self.priority, self.cost = number, priority, cost
        self.order = (not retried, float(number if at is None else at), number)

    def __repr__(self):
        return f"{self.number}/{self.priority}"


def queue_of(items=()):
    queue = PriorityQueue(
        lambda item: item.order, class_of=lambda item: item.priority, cost_of=lambda item: item.cost
    )
    for item in items:
        queue.add(item)
    return queue


def serve_next(queue, cutoff=-1.0):
    item = next(queue.in_service_order(cutoff), None)
    if item is not None:
        queue.serve(item, cutoff)
    return item


operations = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "serve", "remove"]),
        st.floats(0, 100),
        st.booleans(),
        st.floats(0, 1e12),
    ),
    max_size=60,
)


@given(operations, st.floats(0, 100), st.sampled_from([HIGH, NORMAL, LOW]))
def test_one_class_is_served_exactly_as_without_classes(steps, cutoff, priority):
    plain, classed, items = DeadlineQueue(lambda item: item.order), queue_of(), []
    for number, (what, at, retried, cost) in enumerate(steps):
        if what == "add":
            item = Item(number, priority=priority, at=at, retried=retried, cost=cost)
            items.append(item)
            plain.add(item)
            classed.add(item)
        elif items:
            item = next(plain.in_service_order(cutoff)) if what == "serve" else items[number % len(items)]
            items.remove(item)
            for queue in (plain, classed):
                if what == "serve":
                    queue.serve(item, cutoff)
                else:
                    queue.remove(item)
        assert list(classed.in_service_order(cutoff)) == list(plain.in_service_order(cutoff))
        assert list(classed) == list(plain)
        assert classed.oldest is plain.oldest
        assert [classed.position(item, cutoff) for item in items] == [
            plain.position(item, cutoff) for item in items
        ]


def test_classes_share_by_their_weights_while_all_queue():
    queue = queue_of(Item(number, priority=number % 3) for number in range(300))
    served = Counter(serve_next(queue).priority for _ in range(84))
    # 16 : 4 : 1
    assert served == {HIGH: 64, NORMAL: 16, LOW: 4}


def test_a_class_alone_has_all_and_saves_nothing_up():
    queue = queue_of(Item(number, priority=HIGH) for number in range(100))
    for _ in range(50):
        serve_next(queue)
    queue.add(Item(200, priority=LOW))
    queue.add(Item(201, priority=LOW))
    first = [serve_next(queue).priority for _ in range(20)]
    assert first.count(LOW) == 2, "one soon, the next after 16 of the high class"


@given(
    st.lists(
        st.tuples(st.sampled_from([HIGH, NORMAL, LOW]), st.sampled_from([0.0, 1e-9, 1.0, 50.0, 1e12])),
        max_size=300,
    ),
    st.sampled_from([HIGH, NORMAL, LOW]),
)
def test_no_class_starves_whatever_the_others_cost(others, waiting):
    """A request is served although new ones of other classes never end, at most a bounded number of services later."""
    history = [Item(number, priority=each, cost=cost) for number, (each, cost) in enumerate(others)]
    queue = queue_of(history)
    for _ in history[::2]:
        serve_next(queue)
    for item in list(queue):
        queue.remove(item)
    mine = Item(10_000, priority=waiting)
    queue.add(mine)
    rest = [each for each in (HIGH, NORMAL, LOW) if each != waiting]
    for extra in range(2000):
        for each in rest:
            queue.add(Item(20_000 + 2 * extra + rest.index(each), priority=each, cost=0.0))
        if serve_next(queue) is mine:
            return
    raise AssertionError(f"class {waiting} was not served")


@given(st.lists(st.floats(0.5, 2.0), min_size=300, max_size=300))
def test_each_class_gets_its_share_of_the_load(costs):
    queue = queue_of(Item(number, priority=number % 3, cost=cost) for number, cost in enumerate(costs))
    load = Counter()
    for _ in range(90):
        item = serve_next(queue)
        load[item.priority] += item.cost
    # each class is at most one request off its share
    assert abs(load[HIGH] / 16 - load[NORMAL] / 4) <= 2.0 / 16 + 2.0 / 4
    assert abs(load[NORMAL] / 4 - load[LOW]) <= 2.0 / 4 + 2.0


def test_a_full_queue_loses_the_newest_request_of_the_class_that_fills_it():
    queue = queue_of(Item(number, priority=LOW) for number in range(10))
    high = Item(100, priority=HIGH)
    queue.add(high)
    assert queue.displaced_by(high).number == 9
    another = Item(101, priority=LOW)
    queue.add(another)
    assert queue.displaced_by(another) is another


def test_a_retried_request_of_a_low_class_does_not_pass_a_high_class():
    queue = queue_of([Item(1, priority=LOW, retried=True), Item(2, priority=HIGH)])
    assert serve_next(queue).priority == HIGH


def test_the_position_counts_the_share_of_the_other_classes():
    low = Item(500, priority=LOW)
    queue = queue_of([*(Item(number, priority=HIGH) for number in range(40)), low])
    assert queue.position(low, -1.0) == 16
    assert queue.position(Item(600, priority=HIGH, at=600), -1.0) == 41


def test_a_full_queue_counts_the_requests_of_a_class_over_its_weight():
    few = [Item(number, priority=LOW) for number in range(3)]  # 3 x 16 = 48
    assert (
        queue_of([*few, *(Item(100 + n, priority=HIGH) for n in range(47))]).displaced_by(few[0]).number == 0
    )
    queue = queue_of([*few, *(Item(100 + n, priority=HIGH) for n in range(49))])
    assert queue.displaced_by(few[0]).number == 148


def test_a_request_of_a_class_that_has_none_waits_for_nobody():
    assert queue_of().position(Item(1), -1.0) == 0


def test_a_service_counts_within_a_hundredth_and_a_hundred_times_of_the_mean_cost():
    queue = queue_of(Item(number, cost=cost) for number, cost in enumerate([0.5, 0.0, 1.0, 1e6]))
    for expected in [0.5, (0.5 + 0.005) / 2, (0.5 + 0.005 + 1.0) / 3]:
        serve_next(queue)
        assert abs(queue._mean_cost - expected) < 1e-12
    mean = queue._mean_cost
    serve_next(queue)
    assert abs(queue._mean_cost - (mean * 3 + mean * 100) / 4) < 1e-12
