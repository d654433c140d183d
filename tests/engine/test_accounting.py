"""What a worker holds: pure."""

from hypothesis import given
from hypothesis import strategies as st

from engine.accounting import Ledger


def issue(ledger: Ledger, request_idx: int, cost: float = 100.0, now: float = 0.0) -> None:
    ledger.issue(request_idx, cost, now=now, expires_at=now + 60)


def test_a_routed_request_counts_until_the_worker_shows_it_in_its_load() -> None:
    ledger = Ledger()
    issue(ledger, 1)
    assert (ledger.outstanding, ledger.tickets_open) == (100, 1)
    ledger.report(120.0, [1])
    assert (ledger.outstanding, ledger.tickets_open) == (120, 0)


def test_a_request_that_ends_between_two_reports_is_taken_off_the_reported_load() -> None:
    ledger = Ledger()
    issue(ledger, 1)
    ledger.report(100.0, [1])
    assert ledger.finish(1)
    assert ledger.outstanding == 0
    assert not ledger.finish(1)


def test_requests_that_this_engine_never_gave_are_no_business_of_its_ledger() -> None:
    ledger = Ledger()
    issue(ledger, 1)
    ledger.report(70.0, [2, 3])
    assert not ledger.finish(2)
    assert (ledger.outstanding, ledger.tickets_open) == (170, 1)


def test_a_ticket_that_nobody_shows_runs_out() -> None:
    ledger = Ledger()
    issue(ledger, 1, now=0.0)
    issue(ledger, 2, now=10.0)
    assert ledger.expire(60.0) == 1
    assert ledger.outstanding == 100
    assert ledger.expire(69.9) == 0
    assert ledger.expire(70.0) == 1
    assert ledger.outstanding == 0


def test_a_withdrawn_request_is_expected_no_more() -> None:
    ledger = Ledger()
    issue(ledger, 1)
    ledger.withdraw(1)
    ledger.withdraw(2)
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
    ledger, now, expected = Ledger(), 0.0, {}
    for name, request_idx, number in events:
        now += 7
        if name == "issue":
            issue(ledger, request_idx, number, now)
            expected.pop(request_idx, None)
            expected[request_idx] = (number, now + 60)
        elif name == "finish":
            ledger.finish(request_idx)
            expected.pop(request_idx, None)
        elif name == "withdraw":
            ledger.withdraw(request_idx)
            expected.pop(request_idx, None)
        elif name == "report":
            ledger.report(number, [request_idx])
            expected.pop(request_idx, None)
        else:
            ledger.expire(now)
            expected = {idx: entry for idx, entry in expected.items() if entry[1] > now}
        assert ledger.tickets_open == len(expected)
        assert abs(ledger.open_load - sum(cost for cost, _ in expected.values())) < 1e-3
        assert ledger.outstanding >= -1e-3
