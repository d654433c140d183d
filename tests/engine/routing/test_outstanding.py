"""What a worker holds: pure."""

from hypothesis import given
from hypothesis import strategies as st

from engine.routing.outstanding import SHOWN_SECONDS, OutstandingLoad


def issue(ledger: OutstandingLoad, request_idx: int, cost: float = 100.0, now: float = 0.0) -> None:
    ledger.issue(request_idx, cost, now=now, expires_at=now + 60)


def test_a_routed_request_counts_until_the_worker_shows_it_in_its_load() -> None:
    ledger = OutstandingLoad()
    issue(ledger, 1)
    assert (ledger.outstanding, ledger.tickets_open) == (100, 1)
    ledger.report(120.0, [1], now=1.0)
    assert (ledger.outstanding, ledger.tickets_open) == (120, 0)


def test_a_request_that_ends_between_two_reports_is_taken_off_the_reported_load() -> None:
    ledger = OutstandingLoad()
    issue(ledger, 1)
    ledger.report(100.0, [1], now=1.0)
    assert ledger.finish(1)
    assert ledger.outstanding == 0
    assert not ledger.finish(1)


def test_requests_that_this_engine_never_gave_are_no_business_of_its_ledger() -> None:
    ledger = OutstandingLoad()
    issue(ledger, 1)
    ledger.report(70.0, [2, 3], now=1.0)
    assert not ledger.finish(2)
    assert (ledger.outstanding, ledger.tickets_open) == (170, 1)


def test_a_ticket_that_nobody_shows_runs_out() -> None:
    ledger = OutstandingLoad()
    issue(ledger, 1, now=0.0)
    issue(ledger, 2, now=10.0)
    assert ledger.expire(60.0) == 1
    assert ledger.outstanding == 100
    assert ledger.expire(69.9) == 0
    assert ledger.expire(70.0) == 1
    assert ledger.outstanding == 0


def test_a_withdrawn_request_is_expected_no_more() -> None:
    ledger = OutstandingLoad()
    issue(ledger, 1)
    ledger.withdraw(1)
    ledger.withdraw(2)
    assert ledger.outstanding == 0


def test_an_idle_worker_that_has_not_shown_a_ticket_in_time_has_no_work_from_it() -> None:
    ledger = OutstandingLoad()
    ledger.report(0.0, [], now=0.0)
    issue(ledger, 1, now=1.0)
    ledger.expire(1.0 + SHOWN_SECONDS - 0.001)
    assert ledger.outstanding == 100
    ledger.expire(1.0 + SHOWN_SECONDS)
    # The client may still come with it, so a drain goes on waiting for the ticket.
    assert (ledger.outstanding, ledger.tickets_open, ledger.first_open) == (0, 1, None)
    ledger.report(100.0, [1], now=9.0)
    assert (ledger.outstanding, ledger.tickets_open) == (100, 0)
    assert ledger.finish(1)
    assert ledger.outstanding == 0


def test_a_busy_worker_is_believed_when_it_reports_and_not_while_it_is_silent() -> None:
    ledger = OutstandingLoad()
    ledger.report(70.0, [9], now=0.0)
    issue(ledger, 1, now=0.0)
    ledger.expire(SHOWN_SECONDS + 5)
    assert ledger.outstanding == 170
    ledger.report(70.0, [9], now=SHOWN_SECONDS - 0.001)
    assert ledger.outstanding == 170
    ledger.report(70.0, [9], now=SHOWN_SECONDS)
    assert ledger.outstanding == 70


def test_the_silence_of_a_worker_that_reports_to_another_engine_says_nothing() -> None:
    ledger = OutstandingLoad()
    issue(ledger, 1, now=0.0)
    ledger.expire(SHOWN_SECONDS + 5)
    assert ledger.outstanding == 100
    ledger.report(0.0, [], now=10.0)
    ledger.clear_report()  # its process restarts
    issue(ledger, 2, now=10.0)
    ledger.expire(10.0 + SHOWN_SECONDS)
    assert ledger.outstanding == 100


def test_a_ticket_that_is_expected_no_more_is_not_taken_off_twice() -> None:
    ledger = OutstandingLoad()
    ledger.report(0.0, [], now=0.0)
    issue(ledger, 1, 30.0, now=0.0)
    issue(ledger, 2, 70.0, now=2.0)
    ledger.expire(SHOWN_SECONDS)
    assert ledger.open_load == 70
    ledger.withdraw(1)
    assert (ledger.open_load, ledger.tickets_open) == (70, 1)
    issue(ledger, 2, 50.0, now=4.0)
    assert (ledger.open_load, ledger.tickets_open) == (50, 1)
    assert ledger.expire(64.0) == 1
    assert ledger.outstanding == 0


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
def test_open_load_is_the_sum_of_open_tickets_whatever_happens(events: list[tuple[str, int, float]]) -> None:
    ledger, now, expected, late = OutstandingLoad(), 0.0, {}, set()
    heard, working = False, set()
    for name, request_idx, number in events:
        now += 2
        if name == "issue":
            issue(ledger, request_idx, number, now)
            late.discard(request_idx)
            expected.pop(request_idx, None)
            expected[request_idx] = (number, now + 60)
        elif name == "finish":
            ledger.finish(request_idx)
            working.discard(request_idx)
            expected.pop(request_idx, None)
        elif name == "withdraw":
            ledger.withdraw(request_idx)
            expected.pop(request_idx, None)
        elif name == "report":
            known = request_idx in expected or request_idx in working
            ledger.report(number, [request_idx], now)
            heard, working = True, {request_idx} if known else set()
            expected.pop(request_idx, None)
        else:
            ledger.expire(now)
            expected = {idx: entry for idx, entry in expected.items() if entry[1] > now}
        if name == "report" or (name == "expire" and heard and ledger.reported_load <= 0 and not working):
            late.update(idx for idx, (_, until) in expected.items() if until - 60 + SHOWN_SECONDS <= now)
        late &= expected.keys()
        assert ledger.tickets_open == len(expected)
        counted = sum(cost for idx, (cost, _) in expected.items() if idx not in late)
        assert abs(ledger.open_load - counted) < 1e-3
        assert ledger.outstanding >= -1e-3
