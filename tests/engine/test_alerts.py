"""An engine reports its active alerts to the notifier's workflow, and that it stops."""

import json

from activities.notices.reporting import NoticePlan, end_notifier
from engine.alerts import AlertWatch
from engine.endpoint_stats import health
from stoker_wire.alerts import NOTIFIER_ID, REPORT_ALERTS, NoticeChannel
from stoker_wire.states import WorkerState
from tests.engine.conftest import Stage
from tests.engine.fake_endpoint_workflow import until

PLAN = NoticePlan(deployment="test", channels=(NoticeChannel(name="ops"),))


async def reports(stage: Stage) -> list[dict]:
    """What the engines reported to the notifier, which no process carries here."""
    history = await stage.env.client.get_workflow_handle(NOTIFIER_ID).fetch_history()
    signals = [event.workflow_execution_signaled_event_attributes for event in history.events]
    return [json.loads(each.input.payloads[0].data) for each in signals if each.signal_name == REPORT_ALERTS]


async def test_an_engine_reports_that_requests_wait_without_a_worker_and_that_it_stops(stage: Stage) -> None:
    server = await stage.start_engine(notices=PLAN)
    endpoint = await stage.endpoint(max_workers=1)
    await endpoint.script(wait_reason="no offer matches the search")
    call = endpoint.begin(server)

    async def is_reported() -> bool:
        return any(
            alert["subject"] == endpoint.name for each in await reports(stage) for alert in each["alerts"]
        )

    await until(is_reported, "the alert is reported", seconds=30)
    await stage.stop_engine(server)
    reported = await reports(stage)
    await end_notifier(stage.env.client)
    await call
    (alert,) = [each for each in reported[-2]["alerts"] if each["name"] == "StokerNoCapacity"]
    assert alert["text"] == "no worker can take 1 waiting request: no offer matches the search"
    assert reported[-1]["stopping"]
    assert {(each["role"], each["place"]) for each in reported} == {("engine", reported[0]["place"])}


async def test_a_failing_worker_s_error_is_in_the_alert(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await endpoint.script(groups=[1], members=[worker.member(WorkerState.ERROR, e="CUDA out of memory")])
    watch = AlertWatch(stage.server.engine, None)  # type: ignore[arg-type]
    found = [each for each in await watch.active(0.0) if each.subject == endpoint.name]
    assert [(each.name, each.text) for each in found] == [
        ("StokerWorkersFailing", "a worker keeps failing: CUDA out of memory")
    ]


async def test_an_endpoint_that_rents_nothing_because_boots_fail_is_degraded_and_an_alert(
    stage: Stage,
) -> None:
    endpoint = await stage.endpoint()
    why = "no machine can run workergroup 1 before its template, model or secrets change: gated"
    await endpoint.script(groups=[1], wait_code="worker_failed", wait_reason=why)
    engine = stage.server.engine
    assert health(engine.directory.named(endpoint.name)) == "degraded"
    found = [each for each in await AlertWatch(engine, None).active(0.0) if each.subject == endpoint.name]  # type: ignore[arg-type]
    assert [(each.name, each.text) for each in found] == [
        ("StokerWorkersFailing", f"a worker keeps failing: {why}")
    ]
