"""Money: what the endpoint's workers have cost, by the state that they were in."""

from collections.abc import Iterable
from dataclasses import dataclass

from policy.fleet import Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Dollars since `since`, as far as prices and states were known."""

    by_state: tuple[tuple[str, float], ...] = ()
    """(state as the API says it, dollars), sorted by state."""
    since: float | None = None
    until: float | None = None

    @property
    def dollars(self) -> float:
        """All of it."""
        return sum(amount for _, amount in self.by_state)

    def of(self, state: str) -> float:
        """What workers in this state have cost."""
        return dict(self.by_state).get(state, 0.0)


def accrue(ledger: Ledger, workers: Iterable[Worker], now: float) -> Ledger:
    """The ledger up to `now`, the workers having been in these states since it was last brought up to date.

    Call it before a state changes. Going back in time changes nothing.
    """
    since = ledger.until if ledger.until is not None else now
    hours = (now - since) / 3600.0
    if hours < 0:
        return ledger
    amounts = dict(ledger.by_state)
    for worker in workers:
        if burn := worker.burn_dollars_per_hour:
            amounts[worker.state.value] = amounts.get(worker.state.value, 0.0) + burn * hours
    return Ledger(
        by_state=tuple(sorted((state, amount) for state, amount in amounts.items() if amount > 0)),
        since=ledger.since if ledger.since is not None else now,
        until=now,
    )
