"""Outstanding load of a worker. Pure."""

from hypothesis import given
from hypothesis import strategies as st

from engine.routing.outstanding import OutstandingLoad
from policy.tuning import DEFAULT_TUNING


def issue(outstanding: OutstandingLoad, request_idx: int, cost: float = 100.0, now: float = 0.0) -> None:
    outstanding.issue(request_idx, cost, now=now, expires_at=now + 60)


def test_an_assigned_request_counts_until_a_report_contains_it() -> None:
    outstanding = OutstandingLoad()
    issue(outstanding, 1)
    assert (outstanding.load, outstanding.tickets_open) == (100, 1)
    outstanding.report(120.0, [1], now=1.0)
    assert (outstanding.load, outstanding.tickets_open) == (120, 0)


def test_a_request_that_ends_between_two_reports_is_subtracted() -> None:
    outstanding = OutstandingLoad()
    issue(outstanding, 1)
    outstanding.report(100.0, [1], now=1.0)
    assert outstanding.finish(1)
    assert outstanding.load == 0
    assert not outstanding.finish(1)


def test_requests_of_other_engines_are_ignored() -> None:
    outstanding = OutstandingLoad()
    issue(outstanding, 1)
    outstanding.report(70.0, [2, 3], now=1.0)
    assert not outstanding.finish(2)
    assert (outstanding.load, outstanding.tickets_open) == (170, 1)


def test_an_unused_ticket_expires() -> None:
    outstanding = OutstandingLoad()
    issue(outstanding, 1, now=0.0)
    issue(outstanding, 2, now=10.0)
    assert outstanding.expire(60.0) == 1
    assert outstanding.load == 100
    assert outstanding.expire(69.9) == 0
    assert outstanding.expire(70.0) == 1
    assert outstanding.load == 0


def test_tickets_that_expired_a_while_ago_are_dropped() -> None:
    outstanding = OutstandingLoad()
    issue(outstanding, 1, now=0.0)
    assert outstanding.expire(75.0) == 1
    assert outstanding.tickets_open == 0


def test_assigned_requests_are_listed_until_they_end() -> None:
    outstanding = OutstandingLoad()
    issue(outstanding, 1)
    issue(outstanding, 2)
    outstanding.report(100.0, [1], now=1.0)
    assert outstanding.requests == {1, 2}
    assert [outstanding.knows(request_idx) for request_idx in (1, 2, 3)] == [True, True, False]
    assert outstanding.finish(2), "it ended before a report showed it"
    assert outstanding.finish(1)
    assert outstanding.requests == set()


def test_the_load_after_an_end_is_what_was_reported_without_the_request_and_not_below_zero() -> None:
    outstanding = OutstandingLoad()
    issue(outstanding, 1)
    issue(outstanding, 2)
    outstanding.report(250.0, [1, 2], now=1.0)
    outstanding.finish(1)
    assert outstanding.load == 150  # 250 - 100
    outstanding.report(30.0, [2], now=2.0)
    outstanding.finish(2)
    assert outstanding.load == 0  # the worker had done 70 of the 100


def test_without_open_tickets_the_open_load_is_exactly_zero() -> None:
    outstanding = OutstandingLoad()
    for request_idx, cost in enumerate([0.1, 0.2, 0.3]):
        issue(outstanding, request_idx, cost)
    for request_idx in range(3):
        outstanding.withdraw(request_idx)
    assert outstanding.open_load == 0.0  # 0.1 + 0.2 + 0.3 - 0.1 - 0.2 - 0.3 is 5.6e-17


def test_a_withdrawn_request_is_no_longer_expected() -> None:
    outstanding = OutstandingLoad()
    issue(outstanding, 1)
    outstanding.withdraw(1)
    outstanding.withdraw(2)
    assert outstanding.load == 0


def test_an_idle_worker_that_does_not_report_a_ticket_in_time_has_no_load_from_it() -> None:
    outstanding = OutstandingLoad()
    outstanding.report(0.0, [], now=0.0)
    issue(outstanding, 1, now=1.0)
    outstanding.expire(1.0 + DEFAULT_TUNING.ticket_shown_seconds - 0.001)
    assert outstanding.load == 100
    outstanding.expire(1.0 + DEFAULT_TUNING.ticket_shown_seconds)
    # The client may still use the ticket, so a drain waits for it.
    assert (outstanding.load, outstanding.tickets_open, outstanding.first_open) == (0, 1, None)
    outstanding.report(100.0, [1], now=9.0)
    assert (outstanding.load, outstanding.tickets_open) == (100, 0)
    assert outstanding.finish(1)
    assert outstanding.load == 0


def test_expectations_of_a_busy_worker_end_with_a_report_only() -> None:
    outstanding = OutstandingLoad()
    outstanding.report(70.0, [9], now=0.0)
    issue(outstanding, 1, now=0.0)
    outstanding.expire(DEFAULT_TUNING.ticket_shown_seconds + 5)
    assert outstanding.load == 170
    outstanding.report(70.0, [9], now=DEFAULT_TUNING.ticket_shown_seconds - 0.001)
    assert outstanding.load == 170
    outstanding.report(70.0, [9], now=DEFAULT_TUNING.ticket_shown_seconds)
    assert outstanding.load == 70


def test_missing_reports_of_a_worker_of_another_engine_are_no_evidence() -> None:
    outstanding = OutstandingLoad()
    issue(outstanding, 1, now=0.0)
    outstanding.expire(DEFAULT_TUNING.ticket_shown_seconds + 5)
    assert outstanding.load == 100
    outstanding.report(0.0, [], now=10.0)
    outstanding.clear_report()  # its process restarts
    issue(outstanding, 2, now=10.0)
    outstanding.expire(10.0 + DEFAULT_TUNING.ticket_shown_seconds)
    assert outstanding.load == 100


def test_an_unexpected_ticket_is_not_subtracted_twice() -> None:
    outstanding = OutstandingLoad()
    outstanding.report(0.0, [], now=0.0)
    issue(outstanding, 1, 30.0, now=0.0)
    issue(outstanding, 2, 70.0, now=2.0)
    outstanding.expire(DEFAULT_TUNING.ticket_shown_seconds)
    assert outstanding.open_load == 70
    outstanding.withdraw(1)
    assert (outstanding.open_load, outstanding.tickets_open) == (70, 1)
    issue(outstanding, 2, 50.0, now=4.0)
    assert (outstanding.open_load, outstanding.tickets_open) == (50, 1)
    assert outstanding.expire(64.0) == 1
    assert outstanding.load == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["issue", "finish", "withdraw", "report", "expire"]),
            st.integers(1, 8),
            st.floats(0, 1e6),
        ),
        max_size=60,
    )
)
def test_open_load_is_always_the_sum_of_expected_tickets(events: list[tuple[str, int, float]]) -> None:
    outstanding, now, expected, late = OutstandingLoad(), 0.0, {}, set()
    heard, working = False, set()
    for name, request_idx, number in events:
        now += 2
        if name == "issue":
            issue(outstanding, request_idx, number, now)
            late.discard(request_idx)
            expected.pop(request_idx, None)
            expected[request_idx] = (number, now + 60)
        elif name == "finish":
            outstanding.finish(request_idx)
            working.discard(request_idx)
            expected.pop(request_idx, None)
        elif name == "withdraw":
            outstanding.withdraw(request_idx)
            expected.pop(request_idx, None)
        elif name == "report":
            known = request_idx in expected or request_idx in working
            outstanding.report(number, [request_idx], now)
            heard, working = True, {request_idx} if known else set()
            expected.pop(request_idx, None)
        else:
            outstanding.expire(now)
            expected = {idx: entry for idx, entry in expected.items() if entry[1] > now}
        if name == "report" or (
            name == "expire" and heard and outstanding.reported_load <= 0 and not working
        ):
            late.update(
                idx
                for idx, (_, until) in expected.items()
                if until - 60 + DEFAULT_TUNING.ticket_shown_seconds <= now
            )
        late &= expected.keys()
        assert outstanding.tickets_open == len(expected)
        counted = sum(cost for idx, (cost, _) in expected.items() if idx not in late)
        assert abs(outstanding.open_load - counted) < 1e-3
        assert outstanding.load >= -1e-3
