"""Checks after the measurement: every request that was sent is accounted for."""

import asyncio
import re
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.service import RPCError

from benchmarks.scale.gauges import Gauges
from benchmarks.scale.phases import EventPhases, slowest
from benchmarks.scale.seed import Part
from benchmarks.scale.stage import Stage
from market.ownership import owner_of
from policy.tuning import DEFAULT_TUNING
from stoker_wire.control import QUERY_DECISIONS, QUERY_LOAD, WORKFLOW_TYPE, workflow_id
from stoker_wire.messages import MEMO_KEY, EndpointMemo

_COUNTED = {
    "stoker_routes_total": "routes answered",
    "stoker_signals_total": "signals",
    "stoker_worker_reports_total": "worker reports",
    "stoker_tickets_expired_total": "tickets that ran out",
    "stoker_reroutes_total": "reroutes",
    "stoker_engine_watch_failures_total": "looks at Temporal that failed",
}
_LINE = re.compile(r"^(\w+)(?:\{.*\})? ([0-9.e+]+)$", re.MULTILINE)
_LOAD_SLACK = 1e-3


@dataclass
class Findings:
    """Everything that is reported."""

    endpoints: int
    workers: int
    gauges: Gauges | None = None
    engine: dict[str, float] = field(default_factory=dict)
    history_events: int = 0
    market: dict[str, int] = field(default_factory=dict)
    latencies: dict[str, list[float]] = field(default_factory=dict)
    route_seconds: list[float] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    slowest: list[EventPhases] = field(default_factory=list)


async def engine_counts(stage: Stage) -> dict[str, float]:
    """The engine's counters, summed over endpoints."""
    headers = {"Authorization": f"Bearer {stage.account_key}"}
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        began = time.perf_counter()
        try:
            text = (await http.get(f"{stage.settings.engine.url}/metrics", headers=headers)).text
        except httpx.HTTPError as fault:
            stage.scrape_faults.append(type(fault).__name__)
            return {}
        stage.scrape_seconds = time.perf_counter() - began
    sums: Counter[str] = Counter()
    for name, value in _LINE.findall(text):
        if name in _COUNTED:
            sums[_COUNTED[name]] += float(value)
        elif name == "stoker_engine_endpoints":
            sums["endpoints"] += float(value)
    stage.known = int(sums.pop("endpoints", 0))
    return dict(sums)


async def until_known(stage: Stage, client: Client, endpoints: int, *, seconds_max: float = 300.0) -> None:
    """Return once the engine knows every endpoint.

    Raises:
        TimeoutError: the engine does not know all of them; the text has the status of their workflows.
    """
    deadline = time.monotonic() + seconds_max
    while True:
        await engine_counts(stage)
        if stage.known >= endpoints:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"the engine knows {stage.known} of {endpoints} endpoints after {seconds_max:g} s;"
                f" {await what_became_of_them(client)}"
            )
        await asyncio.sleep(1.0)


async def what_became_of_them(client: Client) -> str:
    """The number of workflows by status, and the cause of the first that ended."""
    counted: Counter[str] = Counter()
    ended: list[WorkflowExecution] = []
    async for execution in client.list_workflows(f"WorkflowType = '{WORKFLOW_TYPE}'"):
        counted[execution.status.name if execution.status else "unknown"] += 1
        if execution.close_time is not None:
            ended.append(execution)
    said = "workflows: " + (", ".join(f"{n} {status}" for status, n in counted.most_common()) or "none")
    if not ended:
        return said
    first = min(ended, key=lambda one: one.close_time or one.start_time)
    try:
        await client.get_workflow_handle(first.id, run_id=first.run_id).result(follow_runs=False)
        why = "it completed"
    except WorkflowFailureError as fault:
        why = str(fault.cause)
    return f"{said}; the first that ended is {first.id}: {why}"


async def events_written(stage: Stage, client: Client) -> int:
    """History events of all endpoints so far, estimated from every tenth endpoint of each kind to limit the load."""
    asked = [one for part in Part for one in [e for e in stage.endpoints if e.part is part][::10]]
    total = 0.0
    for one in asked:
        described = await client.get_workflow_handle(workflow_id(one.name)).describe()
        alike = [e for e in stage.endpoints if e.part is one.part]
        total += described.history_length * len(alike) / len(alike[::10])
    return round(total)


async def check(findings: Findings, stage: Stage, client: Client) -> None:
    """Fills in the results and the losses."""
    findings.latencies = stage.events.seconds()
    findings.slowest = await slowest(client, stage.events.all)
    findings.route_seconds = sorted(stage.clients.route_seconds)
    asked, fake_workers, lost = stage.clients.asked, stage.fake_workers, findings.lost
    findings.lines.append(
        f"{asked.sent} requests sent, {asked.given} given to a worker, {fake_workers.finished} finished, {fake_workers.acknowledged} told to the"
        f" engine, {asked.rerouted} routed again; {fake_workers.reports} reports; {len(stage.events.all)} urgent events;"
        f" a scrape of /metrics took {stage.scrape_seconds * 1000:.0f} ms"
    )
    for said, count in (
        ("requests without a worker", asked.sent - asked.given),
        ("requests given and not finished", asked.given - fake_workers.finished),
        (
            "finished requests that the engine does not know of",
            fake_workers.finished - fake_workers.acknowledged,
        ),
        (f"calls of clients that failed ({asked.last_fault})", asked.faults),
        (f"reports refused ({fake_workers.last_refusal})", fake_workers.refused),
        (f"urgent events without a decision ({stage.events.open[:3]})", len(stage.events.open)),
        ("processes that had to be started again", stage.restarts()),
        (f"scrapes of /metrics that failed ({stage.scrape_faults[:3]})", len(stage.scrape_faults)),
        ("launches rented twice", sum(count > 1 for count in stage.market.labels_rented.values())),
    ):
        if count:
            lost.append(f"{count} {said}")
    await _workflows(findings, stage, client)


async def _workflows(findings: Findings, stage: Stage, client: Client) -> None:
    members: dict[str, set[str]] = {}
    async for execution in client.list_workflows(f"WorkflowType = '{WORKFLOW_TYPE}'"):
        if execution.status is not WorkflowExecutionStatus.RUNNING:
            findings.lost.append(
                f"{execution.id} is {execution.status.name if execution.status else 'unknown'}"
            )
            continue
        memo = EndpointMemo.model_validate(await execution.memo_value(MEMO_KEY))
        members[memo.name] = {member.l for member in memo.members}
    rented: dict[str, set[str]] = {name: set() for name in members}
    for one in stage.market.instances.values():
        owner = owner_of(one.label)
        if owner is not None:
            rented.setdefault(owner.endpoint, set()).add(owner.launch_id)
    wrong = [name for name, launches in rented.items() if launches != members.get(name)]
    if wrong or len(members) != findings.endpoints:
        findings.lost.append(
            f"{len(members)} endpoints of {findings.endpoints} run; the machines of {len(wrong)} differ from their memos ({wrong[:3]})"
        )
    names = [seeded.name for seeded in stage.endpoints]
    counted, faults = await _counted_load(client, names)
    if missing := _differing(stage, counted):
        # a last interval within random variation is reported with the next heartbeat
        await asyncio.sleep(DEFAULT_TUNING.metrics_heartbeat_seconds)
        counted |= (await _counted_load(client, missing))[0]
        findings.lines.append(f"{len(missing)} endpoints were told of their last requests by a heartbeat")
    findings.lost += [
        f"{name}: {stage.clients.load_of.get(name, 0.0):.1f} load was sent and its workflow counted {counted[name]:.1f}"
        for name in _differing(stage, counted)
    ]
    in_books, sent = sum(counted.values()), stage.clients.asked.load
    findings.lines.append(f"{in_books:.0f} load in the workflows' books of {sent:.0f} sent")
    if faults:
        findings.lines.append(
            "failures in the decision logs: " + "; ".join(f"{n}x {what}" for what, n in faults.most_common(5))
        )


async def _counted_load(client: Client, names: list[str]) -> tuple[dict[str, float], Counter[str]]:
    """The load in each workflow's state, and the failures in their decision logs."""
    counted, faults = dict[str, float](), Counter[str]()
    for start in range(0, len(names), 20):
        some = names[start : start + 20]
        for name, (load, failed) in zip(
            some, await asyncio.gather(*(_asked(client, name) for name in some)), strict=True
        ):
            counted[name] = load
            faults.update(failed)
    return counted, faults


def _differing(stage: Stage, counted: dict[str, float]) -> list[str]:
    sent = stage.clients.load_of
    return [
        name
        for name, load in counted.items()
        if abs(load - sent.get(name, 0.0)) > max(_LOAD_SLACK * sent.get(name, 0.0), 0.5)
    ]


async def _asked(client: Client, name: str) -> tuple[float, list[str]]:
    handle = client.get_workflow_handle(workflow_id(name))
    try:
        load = await handle.query(QUERY_LOAD)
        decisions = await handle.query(QUERY_DECISIONS, 150)
    except RPCError:  # a workflow that is not in memory is replayed first; the second query finds it there
        await asyncio.sleep(5)
        load = await handle.query(QUERY_LOAD)
        decisions = await handle.query(QUERY_DECISIONS, 150)
    failed = [
        re.sub(r"[0-9a-f]{6,}|\d+", "#", line["reason"])[:120] for line in decisions if line["kind"] == "fail"
    ]
    return sum(amount for _, amount in load["quarters"]), failed
