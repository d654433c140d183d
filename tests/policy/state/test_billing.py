"""Cost accounting: estimated by state, corrected by bills."""

import math

import pytest

from policy.state.billing import CostLedger, accrue, bills_due, settle
from policy.state.worker import Worker
from policy.tuning import DEFAULT_TUNING
from stoker_wire.market import Charge
from stoker_wire.states import WorkerState as S

HOUR = 3600.0
HOURLY = 3600.0


def machine(number: int, state: S = S.READY, **more: object) -> Worker:
    known = {
        "launch_id": f"l{number}",
        "workergroup_id": 1,
        "revision": 1,
        "kind": "1x RTX 4090",
        "state": state,
        "since": 0.0,
        "launched_at": 0.0,
        "instance_id": number,
        "dollars_per_hour": 0.36,
        "storage_dollars_per_hour": 0.036,
    }
    return Worker(**(known | more))  # type: ignore[arg-type]


def bill(number: int, dollars: float, until: float, **more: object) -> Charge:
    return Charge(instance_id=number, label=f"stoker:llm:l{number}", dollars=dollars, until=until, **more)  # type: ignore[arg-type]


def test_without_a_bill_the_cost_is_estimated_from_recorded_states() -> None:
    crowd = [machine(1), machine(2, S.INACTIVE)]
    ledger = accrue(accrue(CostLedger(), crowd, 0.0), crowd, HOUR)
    assert ledger.dollars == pytest.approx(0.396)
    assert ledger.difference == 0.0


@pytest.mark.parametrize(
    ("hours", "billed", "notable"),
    [
        (100, 36.0, 0.0),  # as estimated: 100 h at $0.36
        (100, 39.0, 0.0),  # 8 % more
        (100, 41.0, 5.0),
        (100, 30.0, -6.0),
        (1, 0.90, 0.0),  # more than double, and only 54 cents
    ],
)
def test_bills_differ_notably_by_more_than_a_dollar_and_a_tenth(
    hours: int, billed: float, notable: float
) -> None:
    crowd = [machine(1)]
    ledger = accrue(accrue(CostLedger(), crowd, 0.0), crowd, hours * HOUR)
    settled = settle(ledger, [bill(1, billed, hours * HOUR)], crowd, asked_at=hours * HOUR)
    assert settled.notable_difference == pytest.approx(notable)


def test_a_bill_replaces_the_estimate_of_the_time_it_covers() -> None:
    crowd = [machine(1)]
    ledger = accrue(accrue(CostLedger(), crowd, 0.0), crowd, HOUR)
    # Billed up to half an hour ago: $0.20, where the states give $0.18.
    ledger = settle(ledger, [bill(1, 0.20, until=HOUR / 2)], crowd, asked_at=HOUR)
    assert ledger.dollars == pytest.approx(0.20 + 0.18)
    ledger = accrue(ledger, crowd, 2 * HOUR)
    assert ledger.dollars == pytest.approx(0.20 + 0.18 + 0.36)
    assert dict(ledger.by_state)["idle"] == pytest.approx(0.72), "the figures by state stay what was recorded"


def test_the_final_bill_of_a_gone_instance_closes_its_account() -> None:
    crowd = [machine(1)]
    ledger = accrue(accrue(CostLedger(), crowd, 0.0), crowd, HOUR)
    ledger = accrue(ledger, [], HOUR)
    last = [bill(1, 0.41, until=HOUR, final=True)]
    for asked_at in (HOUR, HOUR + 60, 2 * HOUR):
        ledger = settle(accrue(ledger, [], asked_at), last, [], asked_at=asked_at)
        assert ledger.dollars == pytest.approx(0.41), "it stands in the next bills too"
    assert ledger.accounts == ()
    assert not bills_due(ledger, 9 * HOUR, HOURLY)


def test_an_instance_listed_again_after_its_final_bill_adds_no_cost() -> None:
    crowd = [machine(1)]
    ledger = accrue(accrue(CostLedger(), crowd, 0.0), crowd, HOUR)
    last = [bill(1, 0.41, until=HOUR, final=True)]
    ledger = settle(accrue(ledger, [], HOUR), last, [], asked_at=HOUR)
    orphan = [machine(1, S.DESTROYING)]
    ledger = settle(accrue(ledger, orphan, HOUR + 5), last, orphan, asked_at=HOUR + 5)
    ledger = settle(accrue(ledger, [], HOUR + 9), last, [], asked_at=HOUR + 9)
    assert ledger.dollars == pytest.approx(0.41)
    assert ledger.accounts == ()


def test_a_bill_is_final_two_hours_after_the_instance_is_gone() -> None:
    crowd = [machine(1)]
    ledger = accrue(accrue(accrue(CostLedger(), crowd, 0.0), crowd, HOUR), [], HOUR)
    ledger = settle(ledger, [bill(1, 0.30, until=HOUR)], [], asked_at=HOUR + 10)
    assert ledger.accounts, "the bill may still grow"
    ledger = settle(
        ledger, [bill(1, 0.37, until=HOUR)], [], asked_at=HOUR + DEFAULT_TUNING.bill_delay_seconds
    )
    assert ledger.accounts == ()
    assert ledger.dollars == pytest.approx(0.37)


def test_an_instance_without_a_recorded_worker_counts_by_its_bill() -> None:
    lost = machine(7, S.DESTROYING, instance_id=None)
    ledger = accrue(accrue(CostLedger(), [lost], 0.0), [lost], 60.0)
    assert bills_due(ledger, 60.0, HOURLY)
    assert ledger.bills_since == 0.0
    bills = [bill(7, 0.05, until=50.0, since=10.0, final=True)]
    ledger = settle(accrue(ledger, [], 61.0), bills, [], asked_at=61.0)
    assert ledger.dollars == pytest.approx(0.05)
    assert settle(ledger, bills, [], asked_at=70.0).dollars == pytest.approx(0.05)


def test_a_bill_of_an_earlier_endpoint_with_the_same_name_is_ignored() -> None:
    now = 10 * HOUR
    ledger = accrue(accrue(CostLedger(), [machine(1)], now), [machine(1)], now + 60)
    earlier = bill(9, 5.0, until=2 * HOUR, since=HOUR, final=True)
    settled = settle(ledger, [earlier], [machine(1)], asked_at=now + 60)
    assert settled.dollars == pytest.approx(ledger.dollars)


def test_bills_are_due_once_an_hour_and_after_an_instance_is_gone() -> None:
    crowd = [machine(1)]
    ledger = accrue(CostLedger(), crowd, 0.0)
    assert bills_due(ledger, 0.0, HOURLY)
    ledger = settle(ledger, [bill(1, 0.0, until=0.0)], crowd, asked_at=0.0)
    assert not bills_due(accrue(ledger, crowd, 100.0), 100.0, HOURLY)
    assert bills_due(accrue(ledger, crowd, HOURLY), HOURLY, HOURLY)
    assert bills_due(accrue(ledger, [], 100.0), 100.0, HOURLY)


def test_accounts_without_bills_are_closed_after_a_day():
    ledger, now = CostLedger(), 0.0
    for number in range(1000):
        once = machine(number + 1, launched_at=now)
        ledger = accrue(ledger, [once], now)
        now += 300.0
        ledger = accrue(accrue(ledger, [once], now), [], now)
    assert len(ledger.accounts) <= 86_400 / 300 + 1
    assert ledger.dollars == pytest.approx(sum(amount for _, amount in ledger.by_state)), (
        "they count as they were estimated"
    )


def test_an_absurd_bill_is_clipped_so_that_the_ledger_stays_serialisable():
    ledger = accrue(CostLedger(), [machine(1), machine(2)], 10_000.0)
    ledger = accrue(ledger, [], 10_010.0)
    bills = [Charge(instance_id=n, dollars=1e308, since=5_000.0, until=10_020.0, final=True) for n in (1, 2)]
    settled = settle(ledger, bills, [], asked_at=10_030.0)
    assert math.isfinite(settled.dollars)


def test_a_bill_from_before_the_estimate_began_leaves_the_whole_estimate() -> None:
    # An hour cold at $0.036. At its price when hot, $0.36, the estimate after the bill would be more than all of it.
    ledger = accrue(accrue(CostLedger(), [machine(1, S.INACTIVE)], 0.0), [machine(1, S.INACTIVE)], HOUR)
    settled = settle(ledger, [bill(1, 0.5, 0.0)], [machine(1)], asked_at=HOUR)
    assert settled.dollars == pytest.approx(0.5 + 0.036)
