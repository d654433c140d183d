"""An engine tells by itself that Temporal does not answer: no workflow can do so."""

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest_asyncio
from aiohttp import web

from activities.notices.reporting import NoticePlan
from activities.notices.webhook import Webhook
from engine.settings import Timing
from engine.temporal.endpoint_watcher import EndpointWatcher
from engine.temporal.outage_notices import OutageNotices
from policy.alerting.outbox import EXPIRE_SECONDS
from stoker_wire.alerts import NoticeChannel
from tests.activities.notices.receivers import HttpReceiver

NAMES = ("ops", "others")


@dataclass
class Stage:
    """The engine's watch with a real receiver, and a clock that the test moves."""

    receiver: HttpReceiver
    watch: OutageNotices
    silent: list[float]
    clock: list[float]
    start: float = field(default_factory=time.time)

    def look(self, at: float, silent: float) -> None:
        """Look `at` seconds after the start, when Temporal has been silent for this long."""
        self.silent[0], self.clock[0] = silent, self.start + at
        self.watch.look()

    async def bodies(self, count: int) -> list[dict[str, Any]]:
        return [json.loads(each.body) for each in await self.receiver.wait_for(count)]


@pytest_asyncio.fixture(loop_scope="session")
async def stage() -> AsyncIterator[Stage]:
    silent, clock = [0.0], [0.0]
    channels = (
        NoticeChannel(name="ops"),
        NoticeChannel(name="others", alerts=("StokerNoCapacity",)),
    )
    async with HttpReceiver() as receiver:
        webhook = Webhook(url=receiver.url, key=b"k" * 32)
        watch = OutageNotices(
            dict.fromkeys(NAMES, webhook),
            NoticePlan(deployment="test", channels=channels),
            place="host:8080",
            silent_seconds=lambda: silent[0],
            first_retry_seconds=0.01,
            now=lambda: clock[0],
        )
        yield Stage(receiver, watch, silent, clock)


async def test_an_outage_is_notified_once_and_its_end_too(stage: Stage) -> None:
    stage.look(0, silent=0)
    stage.look(60, silent=60)
    stage.look(65, silent=65)  # active from here; it has to hold for a minute
    stage.look(120, silent=120)
    assert not stage.receiver.requests
    for at in (125, 130, 200):
        stage.look(at, silent=at)
    (firing,) = await stage.bodies(1)
    assert firing["type"] == "StokerTemporalSilent.firing"
    assert firing["data"]["summary"] == (
        "host:8080: Temporal has not answered for 2 min: requests are routed, nothing is scaled"
    )
    stage.look(205, silent=1)
    for at in (265, 324, 326, 386):  # absent for the 120 s of clear_seconds
        stage.look(at, silent=1)
    _, over = await stage.bodies(2)
    assert (over["type"], over["data"]["incident"]) == (
        "StokerTemporalSilent.resolved",
        firing["data"]["incident"],
    )
    stage.look(400, silent=1)
    assert len(stage.receiver.requests) == 2


async def test_a_try_that_fails_is_repeated_with_the_same_id_and_a_refused_notice_is_dropped(
    stage: Stage,
) -> None:
    stage.receiver.answers = [503, 500, 204, 400]
    for at in (0, 60, 120):
        stage.look(at, silent=61)
    await stage.bodies(3)
    assert len({each.headers["webhook-id"] for each in stage.receiver.requests}) == 1
    for at in (130, 190, 250):
        stage.look(at, silent=0)
    await stage.bodies(4)  # refused with 400: no further try
    for at in (260, 320, 380):
        stage.look(at, silent=61)
    *_, again = await stage.bodies(5)
    assert again["type"] == "StokerTemporalSilent.firing"


async def test_a_notice_that_could_not_be_delivered_for_a_day_is_dropped(stage: Stage) -> None:
    async def fail_a_day_later(_: web.Request) -> web.Response:
        stage.clock[0] += EXPIRE_SECONDS
        return web.Response(status=503)

    stage.receiver.answers = [fail_a_day_later]
    for at in (0, 60, 120):
        stage.look(at, silent=61)
    await stage.bodies(1)
    for at in (130, 190, 250):
        stage.look(EXPIRE_SECONDS + at, silent=0)
    _, next_one = await stage.bodies(2)
    assert next_one["type"] == "StokerTemporalSilent.resolved"


def test_the_outage_counts_from_the_last_answer_or_from_the_start() -> None:
    now = [100.0]
    watcher = EndpointWatcher(None, None, timing=Timing(), now=lambda: now[0])  # type: ignore[arg-type]
    now[0] = 170.0
    assert watcher.silent_seconds() == 70
    watcher.polled_at = 160.0
    assert watcher.silent_seconds() == 10
