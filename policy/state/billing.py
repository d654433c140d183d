"""Money: what the endpoint's workers have cost, by the state that they were in, settled against the marketplace's bill.

Between two bills the ledger goes by what is recorded. That is never exact: a machine is billed from its create call on and
until it is destroyed, while its states reach the record with the next listing or report. A bill replaces the estimate of
its instance; what the two differ by is kept apart, so that the figures by state stay what was recorded.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from policy.state.worker import Worker
from policy.tuning import DEFAULT_TUNING
from stoker_wire.market import Charge
from stoker_wire.states import WorkerState

DOLLARS_MAX = 1e9
"""Of one instance: what is beyond is a mistake, and sums of it would end in no number at all."""
CLOSED_KEPT = 256
"""Instances whose last bill was taken over, by id: they stand in later bills too, and must not be counted again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One instance's cost: estimated, and as billed."""

    instance_id: int
    since: float
    estimated: float = 0.0
    """Dollars by recorded states, since `since`."""
    billed: float | None = None
    """Dollars that the marketplace has charged; None: not told yet."""
    estimated_then: float = 0.0
    """The estimate up to the moment that the bill reaches: what came after it, is not in the bill."""
    gone_at: float | None = None
    """Since when no worker is on record for it."""

    @property
    def dollars(self) -> float:
        """The bill, and the estimate of what came after it."""
        if self.billed is None:
            return self.estimated
        return self.billed + max(0.0, self.estimated - self.estimated_then)


@dataclass(frozen=True, slots=True, kw_only=True)
class CostLedger:
    """Dollars since `since`, as far as prices, states and bills were known."""

    by_state: tuple[tuple[str, float], ...] = ()
    """(state as the API says it, dollars by what was recorded), sorted by state."""
    since: float | None = None
    until: float | None = None
    accounts: tuple[Account, ...] = ()
    """Of instances whose last bill has not come."""
    closed_difference: float = 0.0
    """What the others were billed beyond their estimates."""
    closed: tuple[int, ...] = ()
    """The last instances whose accounts were closed."""
    settled_at: float | None = None
    """When the marketplace was last asked for its bills, and answered."""
    unknown: bool = False
    """A launch is released by its label since then: whether it was ever rented, and what it cost, only a bill says."""

    @property
    def dollars(self) -> float:
        """All of it."""
        return sum(amount for _, amount in self.by_state) + self.difference

    @property
    def difference(self) -> float:
        """What the marketplace billed beyond what the recorded states say; below zero: what it did not bill."""
        return self.closed_difference + sum(each.dollars - each.estimated for each in self.accounts)

    def of(self, state: str) -> float:
        """What workers in this state have cost."""
        return dict(self.by_state).get(state, 0.0)

    @property
    def bills_since(self) -> float | None:
        """From when on bills are wanted: that of an instance is one sum, from its beginning, and one that came and went since
        the last bill may have no account. None: nothing was ever counted."""
        last = self.settled_at if self.settled_at is not None else self.since
        return None if last is None else min((last, *(each.since for each in self.accounts)))


def accrue(ledger: CostLedger, workers: Iterable[Worker], now: float) -> CostLedger:
    """The ledger up to `now`, the workers having been in these states since it was last brought up to date.

    Call it before a state changes. Going back in time changes nothing.
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
            # listed once more after its last bill: its account stays closed, and nothing is added to it
            difference -= cost
            continue
        account = accounts.get(number) or Account(instance_id=number, since=min(worker.launched_at, now))
        if cost or number not in accounts:
            accounts[number] = replace(account, estimated=account.estimated + cost)
    closed = list(ledger.closed)
    for account in list(accounts.values()):
        if account.gone_at is not None and now - account.gone_at >= DEFAULT_TUNING.bill_missing_seconds:
            difference += _unbilled(account)
            del accounts[account.instance_id]
            closed.append(account.instance_id)
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
    """The ledger with the marketplace's bills of the endpoint's instances taken over.

    `asked_at`: when the bills were asked for; the ledger has been brought up to date (`accrue`). An instance that no worker was
    ever recorded for (a create call whose answer was lost, and that was released by its label) is known by its bill alone.
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
            difference += _unbilled(account)
            del accounts[account.instance_id]
            closed.append(account.instance_id)
    return replace(
        ledger,
        accounts=tuple(accounts.values()),
        closed_difference=difference,
        closed=tuple(closed[-CLOSED_KEPT:]),
        settled_at=asked_at,
        unknown=any(map(_is_unknown, workers)),
    )


def _unbilled(account: Account) -> float:
    """What the last bill differs by from the estimate: what was estimated after it was of an instance that was gone already."""
    return 0.0 if account.billed is None else account.billed - account.estimated


def bills_due(ledger: CostLedger, now: float, every_seconds: float) -> bool:
    """Whether the marketplace is to be asked for its bills: now and then, and once an instance is gone."""
    if not ledger.accounts and not ledger.unknown:
        return False
    if ledger.unknown or ledger.settled_at is None or now - ledger.settled_at >= every_seconds:
        return True
    return any(each.gone_at is not None and each.gone_at >= ledger.settled_at for each in ledger.accounts)


def _is_unknown(worker: Worker) -> bool:
    """Whether it may have been rented without anybody knowing its instance."""
    return worker.instance_id is None and worker.state is WorkerState.DESTROYING


def _is_new(ledger: CostLedger, charge: Charge) -> bool:
    """Whether it began after the last settlement, and in this endpoint's life: an older one was closed, or is another's."""
    begun = max(ledger.since or 0.0, (ledger.settled_at or 0.0) - DEFAULT_TUNING.bill_delay_seconds)
    return charge.since >= begun - 1.0
