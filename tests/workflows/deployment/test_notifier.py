"""The notifier reports every incident once, in order, over failures of receivers, restarts and continue-as-new."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from temporalio.client import Client, WorkflowHandle
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Replayer

from activities.notices.deliver import Channel, NoticeActivities
from activities.notices.mail import MailBox
from activities.notices.reporting import AlertReporter, NoticePlan, end_notifier
from activities.notices.webhook import Webhook
from policy.alerting.incidents import AlertBook, Process, Tracked
from stoker_wire.alerts import (
    NOTIFIER_ID,
    NOTIFIER_TASK_QUEUE,
    REPORT_ALERTS,
    ActiveAlert,
    AlertReport,
    NoticeChannel,
)
from tests.activities.notices.receivers import HttpReceiver, SmtpReceiver
from tests.workflows.world import histories_of
from workflows.notifier import NotifierState, NotifierWorkflow
from workflows.temporal_worker.converter import data_converter
from workflows.temporal_worker.runner import workflow_runner
from workflows.temporal_worker.worker import build_notifier_worker

SECRET = b"a signing key of 32 bytes ......"
ALERT = ActiveAlert(name="StokerNoCapacity", subject="llm", text="2 requests wait")
OPS = NoticeChannel(name="ops")
HELD = Tracked(alert=ALERT, seconds=300)
"""It fires at the next check."""


def book(*tracked: Tracked) -> AlertBook:
    return AlertBook(
        processes=(Process(role="engine", place="one:8080", alerts=(ALERT,)),),
        tracked=tracked,
        checked_at=1.0,
    )


def outboxes(*channels: NoticeChannel) -> Any:
    from policy.alerting.outbox import with_channels

    return with_channels((), channels)


@asynccontextmanager
async def carried(client: Client, **channels: Channel) -> AsyncIterator[None]:
    activities = NoticeActivities(channels)
    async with build_notifier_worker(client, activities, graceful_shutdown_seconds=0.1):
        yield


async def start(client: Client, state: NotifierState) -> WorkflowHandle[Any, Any]:
    return await client.start_workflow(
        NotifierWorkflow.run, state, id=NOTIFIER_ID, task_queue=NOTIFIER_TASK_QUEUE
    )


async def until(true: Any, seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not await true():
            await asyncio.sleep(0.05)


async def replay(client: Client) -> None:
    replayer = Replayer(
        workflows=[NotifierWorkflow], data_converter=data_converter, workflow_runner=workflow_runner()
    )
    for history in await histories_of(client, NOTIFIER_ID):
        await replayer.replay_workflow(history)
        assert b"very-secret" not in history.to_json().encode()
        assert base64.b64encode(SECRET) not in history.to_json().encode()


@pytest.fixture
async def receiver() -> AsyncIterator[HttpReceiver]:
    async with HttpReceiver() as started:
        yield started


def webhook(receiver: HttpReceiver, **changes: Any) -> Webhook:
    return Webhook(url=receiver.url, key=SECRET, **changes)


async def test_an_incident_is_sent_by_webhook_and_mail_and_so_is_its_end(
    skipping: WorkflowEnvironment, receiver: HttpReceiver
):
    client = skipping.client
    channels = (OPS, NoticeChannel(name="mail", batch_max=20))
    async with SmtpReceiver() as smtp:
        box = MailBox(
            host="127.0.0.1",
            port=smtp.port,
            tls="none",
            sender="a@example.org",
            recipients=("b@example.org",),
        )
        async with carried(client, ops=webhook(receiver), mail=box):
            handle = await start(client, NotifierState())

            async def live(seconds: int, *alerts: ActiveAlert) -> None:
                report = AlertReport(
                    role="engine", place="one:8080", alerts=alerts, channels=channels, deployment="test"
                )
                for _ in range(0, seconds, 30):
                    await handle.signal(REPORT_ALERTS, report)
                    await skipping.sleep(timedelta(seconds=30))

            await live(240, ALERT)
            assert receiver.requests == []
            await live(240, ALERT)
            assert await handle.query(NotifierWorkflow.firing) == [ALERT]
            await live(240)
            assert await handle.query(NotifierWorkflow.firing) == []
            await until(lambda: _true(len(receiver.requests) == 2 and len(smtp.accepted) == 2))
    states = [request.headers["webhook-id"].split(".") for request in receiver.requests]
    assert [state for _, state in states] == ["firing", "resolved"]
    assert len({incident for incident, _ in states}) == 1
    assert [mail.message["Subject"] for mail in smtp.accepted] == [
        "[test] firing: StokerNoCapacity llm",
        "[test] resolved: StokerNoCapacity llm",
    ]
    await replay(client)


async def _true(value: bool) -> bool:
    return value


async def test_a_worker_that_restarts_during_retries_loses_nothing_and_changes_no_id(
    server: WorkflowEnvironment, receiver: HttpReceiver
):
    client, hangs = server.client, asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        hangs.set()
        await asyncio.sleep(60)
        return web.Response()

    receiver.answers = [503, hang, 500, 204]
    async with carried(client, ops=webhook(receiver)):
        handle = await start(
            client, NotifierState(book=book(HELD), outboxes=outboxes(OPS), first_retry_seconds=0.2)
        )
        await asyncio.wait_for(hangs.wait(), 60)
    # The process ended in the middle of a try; another one goes on.
    async with carried(client, ops=webhook(receiver)):
        requests = await receiver.wait_for(4)

        async def is_delivered() -> bool:
            return "channel ops: 0 wait, 1 delivered, 0 dropped" in await _details(handle)

        await until(is_delivered)
    assert len({request.headers["webhook-id"] for request in requests}) == 1
    assert len({request.body for request in requests}) == 1
    assert len(requests) == 4
    await replay(client)


async def test_a_continue_as_new_during_retries_repeats_the_same_notice(
    server: WorkflowEnvironment, receiver: HttpReceiver
):
    client = server.client
    receiver.answers = [503]
    state = NotifierState(book=book(HELD), outboxes=outboxes(OPS), history_events_max=20)
    async with carried(client, ops=webhook(receiver)):
        handle = await start(client, state)
        await receiver.wait_for(1)
        first_run = (await handle.describe()).run_id
        for _ in range(10):  # a retry waits for five seconds; these signals lengthen the history meanwhile
            await handle.signal(REPORT_ALERTS, AlertReport(role="engine", place="one:8080", channels=(OPS,)))
        requests = await receiver.wait_for(2)
        assert (await client.get_workflow_handle(NOTIFIER_ID).describe()).run_id != first_run
    assert len({request.headers["webhook-id"] for request in requests}) == 1
    assert len({request.body for request in requests}) == 1
    await replay(client)


async def test_a_receiver_that_hangs_delays_no_other_and_a_refused_notice_is_not_repeated(
    server: WorkflowEnvironment, receiver: HttpReceiver
):
    client = server.client
    resolved = Tracked(alert=ActiveAlert(name="StokerRequestsFailing", subject="llm"), active=False, seconds=120, firing_since=5.0)  # fmt: skip

    async def hang(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    async with HttpReceiver() as slow:
        slow.answers = [hang] * 10
        receiver.answers = [400]
        state = NotifierState(book=book(HELD, resolved), outboxes=outboxes(NoticeChannel(name="slow"), OPS))
        async with carried(client, ops=webhook(receiver), slow=webhook(slow, try_seconds_max=5.0)):
            await start(client, state)
            requests = await receiver.wait_for(2)
            assert len(slow.requests) == 1
    assert [request.headers["webhook-id"].partition(".")[2] for request in requests] == ["firing", "resolved"]


async def test_a_report_starts_the_notifier_and_settings_without_channels_end_it(server: WorkflowEnvironment):
    client = server.client
    plan = NoticePlan(deployment="test", channels=(OPS,))
    async with carried(client):
        reporter = AlertReporter(client, plan, role="engine", place="one:8080")
        await reporter.report([ALERT])
        await reporter.report([ALERT])  # nothing is new

        async def knows_one() -> bool:
            return "1 processes report" in await _details(client.get_workflow_handle(NOTIFIER_ID))

        await until(knows_one)
        await reporter.stop()
        await end_notifier(client)
        await end_notifier(client)
    (history,) = await histories_of(client, NOTIFIER_ID)
    signals = [
        event for event in history.events if event.HasField("workflow_execution_signaled_event_attributes")
    ]
    assert len(signals) == 2


async def _details(handle: WorkflowHandle[Any, Any]) -> str:
    return str(await handle.query("__temporal_workflow_metadata"))
