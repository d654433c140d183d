"""The named keys of an endpoint in the engine: the caller of a request, and the rest of its limits.

Limits are checked and counted at once in one thread, so requests cannot pass together. Several engines share a rate
limit equally. Each knows what the others spent from the endpoint's memo, some seconds late.
"""

import math
from collections.abc import Iterable, Iterator

from policy.routing.rate_limit import RateLimit
from stoker_wire.errors.problem import Problem
from stoker_wire.messages import KeyUse, MemoKey
from stoker_wire.security.client_key import Priority
from stoker_wire.security.token import client_key_digest, client_key_endpoint

DAY_SECONDS = 86_400.0
_REPORT_SHARE = 0.02
"""Spending is reported with the next regular batch when it is this share of the limit."""
CLASSES = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}
"""Class numbers of `policy.routing.priority_queue`."""
NORMAL_CLASS = CLASSES[Priority.NORMAL]


class ClientKeyAccount:
    """One named key: its limits, and its use by this engine and, as far as known, by the others."""

    __slots__ = (
        "_day",
        "_known_before",
        "_rate",
        "_spent_here",
        "_unreported",
        "_unreported_load",
        "key",
        "revoked",
    )

    def __init__(self, key: MemoKey, share: float, now: float) -> None:
        self.key = key
        self.revoked = False
        self._rate = None if key.r is None else RateLimit(key.r * share, now)
        self._day = _day(now)
        self._spent_here = 0.0
        """Dollars of today's requests through this engine."""
        self._known_before = key.s if key.d == self._day else 0.0
        """Today's amount in the memo before this engine spent anything."""
        self._unreported = 0.0
        self._unreported_load = 0.0

    def __repr__(self) -> str:
        limits = f"{self.key.r or math.inf:g} load/s, ${self.key.b or math.inf:g} a day"
        return f"<ClientKeyAccount {self.key.n} {'revoked' if self.revoked else limits}>"

    @property
    def priority_class(self) -> int:
        """The class of its requests in the queue."""
        return CLASSES[self.key.p]

    def apply(self, key: MemoKey, share: float, now: float) -> None:
        """Apply the memo's entry. `share` is this engine's part of the rate limit."""
        self.key = key
        if key.r is None:
            self._rate = None
        elif self._rate is None:
            self._rate = RateLimit(key.r * share, now)
        else:
            self._rate.set_rate(key.r * share, now)

    def dollars_today(self, now: float) -> float:
        """Dollars that it spent today through all engines, as far as this engine knows."""
        self._turn_day(now)
        known = self.key.s if self.key.d == self._day else 0.0
        # Unreported amounts may be of yesterday.
        unreported = min(self._unreported, self._spent_here)
        return max(known + unreported, self._known_before + self._spent_here)

    def admit(self, load: float, now: float) -> None:
        """Count a request of this load.

        Raises:
            Problem: 429, a limit is reached; the message names it, and `Retry-After` says when to try again.
        """
        limit = self.key.b
        if limit is not None and self.dollars_today(now) >= limit:
            # From 00:00 UTC on it has a new budget.
            seconds = DAY_SECONDS - now % DAY_SECONDS
            message = (
                f"the key {self.key.n!r} has used its {limit:g} dollars of today; it may be used again at 00:00 UTC, "
                "or raise its dollars_per_day"
            )
            raise _limited("key_dollars_per_day", message, seconds, retry=False)
        if self._rate is not None:
            seconds = self._rate.wait_seconds(load, now)
            if seconds > 0.0:
                message = (
                    f"the key {self.key.n!r} is limited to {self.key.r:g} load/s, and this request has {load:g}; "
                    f"try again in {seconds:.1f} s"
                )
                raise _limited("key_load_per_second", message, seconds, retry=True)
        self.count(load, now)

    def count(self, load: float, now: float) -> None:
        """Count load without a check."""
        self._unreported_load += load
        if self._rate is not None:
            self._rate.take(load, now)

    def give_back(self, load: float) -> None:
        """The request never got a worker."""
        self._unreported_load = max(0.0, self._unreported_load - load)
        if self._rate is not None:
            self._rate.give_back(load)

    def spend(self, dollars: float, now: float) -> bool:
        """A worker gets its request; negative: the ticket was not delivered. Returns whether a report is due."""
        self._turn_day(now)
        self._spent_here = max(0.0, self._spent_here + dollars)
        self._unreported = max(0.0, self._unreported + dollars)
        limit = self.key.b
        return limit is not None and (
            self._unreported >= limit * _REPORT_SHARE or self.dollars_today(now) >= limit
        )

    def take_use(self) -> KeyUse | None:
        """The use since the last call, for the workflow; None: nothing."""
        dollars, load = self._unreported, self._unreported_load
        if dollars <= 0.0 and load <= 0.0:
            return None
        self._unreported = self._unreported_load = 0.0
        return KeyUse(key=self.key.h, dollars=min(dollars, 1e12), load=min(load, 1e18))

    def _turn_day(self, now: float) -> None:
        """A new day begins with a new budget. A clock that goes back to yesterday grants nothing."""
        today = max(_day(now), self.key.d if self.key.d - _day(now) == 1 else 0)
        if today > self._day:
            self._spent_here = self._known_before = 0.0
        self._day = today


class ClientKeys:
    """The named keys of one endpoint, by digest."""

    def __init__(self) -> None:
        self._accounts: dict[str, ClientKeyAccount] = {}

    def __repr__(self) -> str:
        return f"<ClientKeys {len(self._accounts)} keys>"

    def __len__(self) -> int:
        return len(self._accounts)

    def apply(self, keys: Iterable[MemoKey], engines: int, now: float) -> bool:
        """Apply the memo; returns whether a key was revoked."""
        before, self._accounts = self._accounts, {}
        share = 1.0 / max(1, engines)
        for key in keys:
            account = before.pop(key.h, None)
            if account is None:
                account = ClientKeyAccount(key, share, now)
            else:
                account.apply(key, share, now)
            self._accounts[key.h] = account
        for account in before.values():
            account.revoked = True
        return bool(before)

    def find(self, text: str) -> ClientKeyAccount | None:
        """The account of this key."""
        if not self._accounts or client_key_endpoint(text) is None:
            return None
        return self._accounts.get(client_key_digest(text))

    def named(self, name: str) -> ClientKeyAccount | None:
        """The account of the key of this name."""
        return next((account for account in self if account.key.n == name), None)

    def __iter__(self) -> Iterator[ClientKeyAccount]:
        return iter(self._accounts.values())

    def take_uses(self) -> tuple[KeyUse, ...]:
        """The use of all keys since the last call."""
        return tuple(use for account in self if (use := account.take_use()) is not None)


def _limited(code: str, message: str, seconds: float, *, retry: bool) -> Problem:
    headers = {"Retry-After": str(max(1, math.ceil(seconds)))}
    if not retry:
        headers["X-Should-Retry"] = "false"  # clients of OpenAI and Anthropic obey it
    return Problem(429, code, message, headers=headers)


def _day(now: float) -> int:
    return int(now // DAY_SECONDS)
