"""Cost accounting: estimated cost by worker state, corrected by the marketplace's bills.

Between two bills the cost is estimated from the recorded states and prices. The estimate is not exact: states are
recorded with a delay. A bill replaces the estimate of its instance. The difference is kept apart, so that the amounts
by state remain the recorded ones.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from policy.state.worker import Worker
from policy.tuning import DEFAULT_TUNING
from stoker_wire.market import Charge
from stoker_wire.states import WorkerState

DOLLARS_MAX = 1e9
"""Bound for the bill of one instance: larger amounts are errors and would make sums overflow."""
NOTABLE_DOLLARS = 1.0
NOTABLE_SHARE = 0.1
"""Bills that differ from the estimate by more than both are an alert. Doubled: a wrong price is noticed later."""
CLOSED_KEPT = 256
"""Number of closed instance ids to remember. Later bills contain them too, and must not count twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The cost of one instance: estimated and billed."""

    instance_id: int
    since: float
    estimated: float = 0.0
    """Dollars since `since`, estimated from the recorded states."""
    billed: float | None = None
    """Dollars charged by the marketplace; None: no bill yet."""
    estimated_then: float = 0.0
    """The estimate up to the end of the billed time. Later estimates are added to the bill."""
    gone_at: float | None = None
    """Since when no worker has this instance."""

    @property
    def dollars(self) -> float:
        """The bill plus the estimate for the time after it."""
        if self.billed is None:
            return self.estimated
        return self.billed + max(0.0, self.estimated - self.estimated_then)


@dataclass(frozen=True, slots=True, kw_only=True)
class CostLedger:
    """The endpoint's cost in dollars since `since`."""

    by_state: tuple[tuple[str, float], ...] = ()
    """(state as in the API, estimated dollars), sorted by state."""
    since: float | None = None
    until: float | None = None
    accounts: tuple[Account, ...] = ()
    """Instances without a final bill."""
    closed_difference: float = 0.0
    """Sum over closed instances of bill minus estimate."""
    closed: tuple[int, ...] = ()
    """The most recently closed instances."""
    settled_at: float | None = None
    """When bills were last received."""
    unknown: bool = False
    """A launch without a known instance is being released by its label. Only a bill shows whether it was rented."""

    @property
    def dollars(self) -> float:
        """The total."""
        return sum(amount for _, amount in self.by_state) + self.difference

    @property
    def difference(self) -> float:
        """Billed minus estimated dollars."""
        return self.closed_difference + sum(each.dollars - each.estimated for each in self.accounts)

    @property
    def notable_difference(self) -> float:
        """The difference in dollars, if it is large enough for an alert; else 0."""
        estimated = sum(amount for _, amount in self.by_state)
        return (
            self.difference if abs(self.difference) > max(NOTABLE_DOLLARS, NOTABLE_SHARE * estimated) else 0.0
        )

    @property
    def bills_since(self) -> float | None:
        """The start of the time for which bills are needed; None: nothing was recorded.

        The bill of an instance covers its whole life. Instances that existed only between two bills have no account.
        """
        last = self.settled_at if self.settled_at is not None else self.since
        return None if last is None else min((last, *(each.since for each in self.accounts)))


def accrue(ledger: CostLedger, workers: Iterable[Worker], now: float) -> CostLedger:
    """The ledger up to `now`, where the workers have been in their present states since the last call.

    Call it before a state changes. An earlier `now` changes nothing.
    """
    since = ledger.until if ledger.until is not None else now
    hours = (now - since) / 3600.0
    if hours < 0:
        return ledger
    amounts = dict(ledger.by_state)
    accounts = {each.instance_id: each for each in ledger.accounts}
    present = set()
    unknown = ledger.unknown
    difference = ledger.closed_difference
    for worker in workers:
        unknown = unknown or _is_unknown(worker)
        cost = worker.burn_dollars_per_hour * hours
        if cost:
            amounts[worker.state.value] = amounts.get(worker.state.value, 0.0) + cost
        number = worker.instance_id
        if number is None:
            continue
        present.add(number)
        if number not in accounts and number in ledger.closed:
            # Listed again after its final bill: the account stays closed, so the estimate is cancelled.
            difference -= cost
            continue
        account = accounts.get(number) or Account(instance_id=number, since=min(worker.launched_at, now))
        if cost or number not in accounts:
            accounts[number] = replace(account, estimated=account.estimated + cost)
    closed = list(ledger.closed)
    for account in list(accounts.values()):
        if account.gone_at is not None and now - account.gone_at >= DEFAULT_TUNING.bill_missing_seconds:
            difference += _close(accounts, account, closed)
    return replace(
        ledger,
        closed=tuple(closed[-CLOSED_KEPT:]),
        by_state=tuple(sorted((state, amount) for state, amount in amounts.items() if amount > 0)),
        since=ledger.since if ledger.since is not None else now,
        until=now,
        unknown=unknown,
        closed_difference=difference,
        accounts=tuple(
            each if each.gone_at is not None or each.instance_id in present else replace(each, gone_at=now)
            for each in accounts.values()
        ),
    )


def settle(
    ledger: CostLedger, charges: Iterable[Charge], workers: Iterable[Worker], *, asked_at: float
) -> CostLedger:
    """The ledger with the marketplace's bills of the endpoint's instances applied.

    `asked_at` is when the bills were requested. Call `accrue` before. An instance without a recorded worker (its
    create call's answer was lost, and it was released by label) appears only in the bills.
    """
    workers = tuple(workers)
    burn = {worker.instance_id: worker.burn_dollars_per_hour for worker in workers}
    accounts = {each.instance_id: each for each in ledger.accounts}
    closed = list(ledger.closed)
    difference = ledger.closed_difference
    for charge in charges:
        account = accounts.get(charge.instance_id)
        if account is None:
            if charge.instance_id in closed or not _is_new(ledger, charge):
                continue
            account = Account(instance_id=charge.instance_id, since=charge.since, gone_at=asked_at)
        after = max(0.0, (ledger.until or asked_at) - charge.until) / 3600.0
        settled = replace(
            account,
            billed=min(max(charge.dollars, -DOLLARS_MAX), DOLLARS_MAX),
            estimated_then=max(0.0, account.estimated - burn.get(charge.instance_id, 0.0) * after),
        )
        accounts[charge.instance_id] = settled
    for account in list(accounts.values()):
        if account.gone_at is None:
            continue
        final = any(each.final and each.instance_id == account.instance_id for each in charges)
        if final or asked_at - account.gone_at >= DEFAULT_TUNING.bill_delay_seconds:
            difference += _close(accounts, account, closed)
    return replace(
        ledger,
        accounts=tuple(accounts.values()),
        closed_difference=difference,
        closed=tuple(closed[-CLOSED_KEPT:]),
        settled_at=asked_at,
        unknown=any(map(_is_unknown, workers)),
    )


def _close(accounts: dict[int, Account], account: Account, closed: list[int]) -> float:
    """Move the account to the closed ones. Returns the final bill minus the whole estimate; 0 without a bill."""
    del accounts[account.instance_id]
    closed.append(account.instance_id)
    return 0.0 if account.billed is None else account.billed - account.estimated


def bills_due(ledger: CostLedger, now: float, every_seconds: float) -> bool:
    """Whether bills should be requested: every `every_seconds`, and after an instance is gone."""
    if not ledger.accounts and not ledger.unknown:
        return False
    if ledger.unknown or ledger.settled_at is None or now - ledger.settled_at >= every_seconds:
        return True
    return any(each.gone_at is not None and each.gone_at >= ledger.settled_at for each in ledger.accounts)


def _is_unknown(worker: Worker) -> bool:
    """Whether it may have been rented although its instance id is unknown."""
    return worker.instance_id is None and worker.state is WorkerState.DESTROYING


def _is_new(ledger: CostLedger, charge: Charge) -> bool:
    """Whether the charge began after the last settlement. Older ones are closed, or belong to an earlier endpoint."""
    begun = max(ledger.since or 0.0, (ledger.settled_at or 0.0) - DEFAULT_TUNING.bill_delay_seconds)
    return charge.since >= begun - 1.0
