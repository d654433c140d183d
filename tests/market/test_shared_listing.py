"""A listing of the account answers every caller that called before it started, and no later one."""

import asyncio
import itertools
from collections.abc import Coroutine
from typing import TypeVar

import pytest

from market.interface import Unavailable
from market.shared_listing import SharedListing
from stoker_wire.market import Instance
from tests.seeded.temporal.virtual_time import JumpingLoop

T = TypeVar("T")


def instance(number: int, label: str | None) -> Instance:
    return Instance(id=number, label=label)


class Account:
    """A marketplace whose listings are answered by the test."""

    def __init__(self) -> None:
        self.instances = [instance(1, "stoker:a:1"), instance(2, "stoker:b:1"), instance(3, "stoker:a:2")]
        self.begun = 0
        self.since: list[float] = []
        """The `since` of each listing."""
        self.answers: asyncio.Queue[Exception | None] = asyncio.Queue()

    async def everything(self, since: float) -> list[Instance]:
        self.begun += 1
        self.since.append(since)
        seen = list(self.instances)  # instances rented from now on are not in the listing
        fault = await self.answers.get()
        if fault is not None:
            raise fault
        return seen

    async def begins(self, count: int) -> None:
        async with asyncio.timeout(5):
            while self.begun < count:
                await asyncio.sleep(0.001)


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.fixture
def listing(account) -> SharedListing:
    return SharedListing(account.everything)


def ids(found: list[Instance]) -> list[int]:
    return [each.id for each in found]


async def test_each_caller_gets_its_own_in_the_markets_order(account, listing):
    account.instances += [instance(9, "stoker:ab:1"), instance(8, None), instance(7, "stoker:a:0")]
    for _ in range(4):
        account.answers.put_nowait(None)
    assert ids(await listing.starting_with("stoker:a:")) == [1, 3, 7], "not those of ab"
    assert ids(await listing.starting_with("stoker:b:1")) == [2]
    assert ids(await listing.starting_with("stoker:c:")) == []
    assert ids(await listing.starting_with("")) == [1, 2, 3, 9, 8, 7], "and those without a label"


async def test_a_thousand_callers_share_two_lists(account, listing):
    first = asyncio.create_task(listing.starting_with("stoker:a:"))
    await account.begins(1)
    later = [asyncio.create_task(listing.starting_with("stoker:b:")) for _ in range(1000)]
    await asyncio.sleep(0)
    account.answers.put_nowait(None)
    account.answers.put_nowait(None)
    assert ids(await first) == [1, 3]
    assert all(ids(found) == [2] for found in await asyncio.gather(*later))
    assert account.begun == 2


async def test_a_caller_is_not_answered_by_a_listing_that_started_before(account, listing):
    early = asyncio.create_task(listing.starting_with("stoker:a:"))
    await account.begins(1)
    account.instances.append(instance(4, "stoker:a:3"))
    late = asyncio.create_task(listing.starting_with("stoker:a:"))
    await asyncio.sleep(0)
    account.answers.put_nowait(None)
    assert ids(await early) == [1, 3]
    account.answers.put_nowait(None)
    assert ids(await late) == [1, 3, 4]


async def test_a_cancelled_caller_does_not_cancel_the_listing_of_others(account, listing):
    impatient = asyncio.create_task(listing.starting_with("stoker:a:"))
    patient = asyncio.create_task(listing.starting_with("stoker:a:"))
    await account.begins(1)
    impatient.cancel()
    account.answers.put_nowait(None)
    assert ids(await patient) == [1, 3]
    assert account.begun == 1


async def test_an_error_reaches_all_waiting_callers_and_no_later_one(account, listing):
    waiting = [asyncio.create_task(listing.starting_with("")) for _ in range(3)]
    await account.begins(1)
    account.answers.put_nowait(Unavailable("list: the market answered 503"))
    said = await asyncio.gather(*waiting, return_exceptions=True)
    assert [str(each) for each in said] == ["list: the market answered 503"] * 3
    account.answers.put_nowait(None)
    assert ids(await listing.starting_with("stoker:b:")) == [2]


async def test_a_shared_listing_uses_the_earliest_since(account, listing):
    first = asyncio.create_task(listing.starting_with("stoker:a:", since=500.0))
    await account.begins(1)
    later = [
        asyncio.create_task(listing.starting_with("stoker:b:", since=at)) for at in (400.0, 300.0, 450.0)
    ]
    for _ in range(2):
        account.answers.put_nowait(None)
    await asyncio.gather(first, *later)
    assert account.since == [500.0, 300.0]
    account.answers.put_nowait(None)
    await listing.starting_with("stoker:b:", since=600.0)
    assert account.since[-1] == 600.0, "what was asked before is no matter any more"


async def test_a_long_list_is_followed_by_a_pause(account, listing):
    times = []
    loop = asyncio.get_running_loop()

    async def slow(_since: float) -> list[Instance]:
        times.append(loop.time())
        await asyncio.sleep(0.05)
        times.append(loop.time())
        return []

    listing = SharedListing(slow)
    await listing.starting_with("")
    await listing.starting_with("")
    (_, ended, began, _) = times
    assert began - ended >= 0.44, "nine times as long as the list before it took"


def run_in_virtual_time(life: Coroutine[None, None, T]) -> T:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(life)


class Clocked:
    """An account whose listings take a second."""

    def __init__(self) -> None:
        self.began: list[float] = []
        self.listing = SharedListing(self.everything)

    async def everything(self, _since: float) -> list[Instance]:
        self.began.append(asyncio.get_running_loop().time())
        await asyncio.sleep(1)
        return [instance(1, "stoker:a:1")]

    async def ask(self) -> float:
        await self.listing.starting_with("stoker:a:")
        return asyncio.get_running_loop().time()


def test_a_tenth_of_the_time_is_spent_on_lists():
    async def life() -> list[float]:
        clocked = Clocked()
        await clocked.ask()
        await clocked.ask()
        return clocked.began

    first, second = run_in_virtual_time(life())
    assert second - first == pytest.approx(1 + 9, abs=0.1)


def test_callers_of_a_shared_listing_are_answered_one_by_one():
    async def life() -> list[float]:
        clocked = Clocked()
        return await asyncio.gather(*(clocked.ask() for _ in range(100)))

    answered = run_in_virtual_time(life())
    gaps = [later - earlier for earlier, later in itertools.pairwise(sorted(answered))]
    assert gaps == pytest.approx([9 / 100] * 99), "spread over the pause after the list"


def test_a_single_caller_is_answered_at_once():
    async def life() -> float:
        return await Clocked().ask()

    assert run_in_virtual_time(life()) == pytest.approx(1.0, abs=0.001)
