"""Concurrent lookups of labels share calls, one at a time."""

import asyncio
from collections.abc import Sequence

import pytest

from market.interface import Unavailable
from market.shared_lookup import SharedLookup
from stoker_wire.market import Instance


class Account:
    """A marketplace with one instance for every label that does not begin with `no`."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.faults: list[Exception | None] = []
        self.under_way = self.at_once = 0

    async def find(self, labels: Sequence[str]) -> list[Instance]:
        self.calls.append(list(labels))
        self.under_way += 1
        self.at_once = max(self.at_once, self.under_way)
        await asyncio.sleep(0.001)
        self.under_way -= 1
        if self.faults and (fault := self.faults.pop(0)) is not None:
            raise fault
        return [
            Instance(id=len(label), label=label) for label in reversed(labels) if not label.startswith("no")
        ]


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.fixture
def lookup(account) -> SharedLookup:
    return SharedLookup(account.find, at_once_max=4)


def labels(found: list[Instance]) -> set[str | None]:
    return {each.label for each in found}


async def test_one_caller_is_answered_in_one_call(account, lookup):
    assert labels(await lookup.labelled(["a", "no", "b"])) == {"a", "b"}
    assert account.calls == [["a", "no", "b"]]


async def test_a_lookup_of_no_labels_makes_no_call(account, lookup):
    assert await lookup.labelled([]) == []
    assert account.calls == []


async def test_callers_share_calls_and_each_gets_its_own(account, lookup):
    found = await asyncio.gather(*(lookup.labelled([f"{name}1", f"{name}2"]) for name in "abcdef"))
    assert [labels(each) for each in found] == [{f"{name}1", f"{name}2"} for name in "abcdef"]
    assert [len(call) for call in account.calls] == [4, 4, 4]
    assert account.at_once == 1


async def test_a_large_fleet_is_asked_for_in_parts(account, lookup):
    asked = [f"w{number}" for number in range(10)]
    assert labels(await lookup.labelled(asked)) == set(asked)
    assert [len(call) for call in account.calls] == [4, 4, 2]


async def test_an_error_reaches_only_the_callers_of_that_call(account, lookup):
    account.faults = [None, Unavailable("503")]
    calls = [lookup.labelled([f"{name}{n}" for n in range(4)]) for name in "abc"]
    first, second, third = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(second, Unavailable)
    assert len(first) == len(third) == 4
    assert labels(await lookup.labelled(["b"])) == {"b"}, "and not to whoever asks later"


async def test_closing_cancels_all_lookups(account, lookup):
    calls = [asyncio.create_task(lookup.labelled([f"{name}{n}" for n in range(4)])) for name in "ab"]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    lookup.close()
    async with asyncio.timeout(5):
        ended = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(each) for each in ended] == [asyncio.CancelledError] * 2


async def test_labels_of_cancelled_callers_are_not_looked_up(account, lookup):
    first = asyncio.create_task(lookup.labelled(["a", "b", "c", "d"]))
    gone = asyncio.create_task(lookup.labelled(["x"]))
    stays = asyncio.create_task(lookup.labelled(["y"]))
    await asyncio.sleep(0)
    gone.cancel()
    assert len(await first) == 4
    assert labels(await stays) == {"y"}
    assert account.calls == [["a", "b", "c", "d"], ["y"]]
