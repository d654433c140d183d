"""An engine tells by itself that Temporal does not answer: no workflow can do so."""

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest_asyncio

from activities.notices.reporting import NoticePlan
from activities.notices.webhook import Webhook
from engine.settings import Timing
from engine.temporal.endpoint_watcher import EndpointWatcher
from engine.temporal.silence import TemporalSilence
from stoker_wire.alerts import NoticeChannel
from tests.activities.notices.receivers import HttpReceiver

NAMES = ("ops", "others")


@dataclass
class Told:
    """The engine's watch with a real receiver, and a clock that the test moves."""

    receiver: HttpReceiver
    watch: TemporalSilence
    silent: list[float]
    start: float = field(default_factory=time.time)

    def look(self, at: float, silent: float) -> None:
        """Look `at` seconds after the start, when Temporal has been silent for this long."""
        self.silent[0] = silent
        self.watch.look(self.start + at)

    async def bodies(self, count: int) -> list[dict[str, Any]]:
        return [json.loads(each.body) for each in await self.receiver.wait_for(count)]


@pytest_asyncio.fixture(loop_scope="session")
async def told() -> AsyncIterator[Told]:
    silent = [0.0]
    channels = (
        NoticeChannel(name="ops"),
        NoticeChannel(name="others", alerts=("StokerNoCapacity",)),
    )
    async with HttpReceiver() as receiver:
        webhook = Webhook(url=receiver.url, key=b"k" * 32)
        watch = TemporalSilence(
            dict.fromkeys(NAMES, webhook),
            NoticePlan(deployment="test", channels=channels),
            place="host:8080",
            silent_seconds=lambda: silent[0],
            first_retry_seconds=0.01,
        )
        yield Told(receiver, watch, silent)


async def test_a_silence_is_told_once_and_its_end_too(told: Told) -> None:
    told.look(0, silent=0)
    told.look(60, silent=60)
    told.look(65, silent=65)  # active from here; it has to hold for a minute
    told.look(120, silent=120)
    assert not told.receiver.requests
    for at in (125, 130, 200):
        told.look(at, silent=at)
    (firing,) = await told.bodies(1)
    assert firing["type"] == "StokerTemporalSilent.firing"
    assert firing["data"]["summary"] == (
        "host:8080: Temporal has not answered for 2 min: requests are routed, nothing is scaled"
    )
    told.look(205, silent=1)
    for at in (265, 324, 326, 386):  # absent for the 120 s of clear_seconds
        told.look(at, silent=1)
    _, over = await told.bodies(2)
    assert (over["type"], over["data"]["incident"]) == (
        "StokerTemporalSilent.resolved",
        firing["data"]["incident"],
    )
    told.look(400, silent=1)
    assert len(told.receiver.requests) == 2


async def test_a_try_that_fails_is_repeated_with_the_same_id_and_a_refused_notice_is_dropped(
    told: Told,
) -> None:
    told.receiver.answers = [503, 500, 204, 400]
    for at in (0, 60, 120):
        told.look(at, silent=61)
    await told.bodies(3)
    assert len({each.headers["webhook-id"] for each in told.receiver.requests}) == 1
    for at in (130, 190, 250):
        told.look(at, silent=0)
    await told.bodies(4)  # refused with 400: no further try
    for at in (260, 320, 380):
        told.look(at, silent=61)
    *_, again = await told.bodies(5)
    assert again["type"] == "StokerTemporalSilent.firing"


def test_the_silence_counts_from_the_last_answer_or_from_the_start() -> None:
    now = [100.0]
    watcher = EndpointWatcher(None, None, timing=Timing(), now=lambda: now[0])  # type: ignore[arg-type]
    now[0] = 170.0
    assert watcher.silent_seconds() == 70
    watcher.polled_at = 160.0
    assert watcher.silent_seconds() == 10
