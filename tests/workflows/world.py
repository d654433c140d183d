"""A simulated world around one endpoint: a marketplace in memory, workers that load and report, an engine that signals.

The time is that of the test server: `World.live` advances it and runs all parts.
"""

import contextlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle, WorkflowHistory
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Replayer, Worker

from activities.instances import MarketActivities
from activities.messages import read_label
from activities.secrets import DeploymentSecrets
from market.fake import FakeInstance, FakeMarket
from market.interface import Market
from stoker_wire.control import TASK_QUEUE, EndpointSpec, workflow_id
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.market import Offer, Template
from stoker_wire.messages import MEMO_KEY, Condition, EndpointMemo, MetricsBatch, WorkerMetrics
from stoker_wire.workergroup import Workergroup
from workflows.endpoint import EndpointWorkflow
from workflows.sweep.release import ReleaseWorkflow
from workflows.sweep.sweep import SweepWorkflow
from workflows.temporal_worker.converter import data_converter
from workflows.temporal_worker.metrics import TemporalWorkerMetrics
from workflows.temporal_worker.runner import workflow_runner
from workflows.temporal_worker.worker import WorkerSettings, build_workers

PERF = {"RTX 3090": 60.0, "RTX 4090": 100.0, "H100": 300.0}
SECRETS = DeploymentSecrets(
    hmac_secret=b"an hmac secret for tests",
    named={"HF_TOKEN": "hf_very_secret"},
    report_address="http://engine:8080",
)
TEMPLATE = Template(
    id=7,
    hash_id="tmpl",
    name="echo",
    image="img",
    env="-e MODEL=small -e HF_TOKEN=secret:HF_TOKEN",
    extra_filters='{"num_gpus": {"eq": 1}}',
)


def offers(count: int = 30) -> list[Offer]:
    """Machines of three kinds, each on its own host; the price rises a little within a kind."""
    kinds = [("RTX 3090", 0.20, 30.0), ("RTX 4090", 0.30, 60.0), ("H100", 1.80, 200.0)]
    made = []
    for number in range(count):
        name, price, dlperf = kinds[number % 3]
        made.append(
            Offer(
                id=100 + number,
                machine_id=500 + number,
                gpu_name=name,
                num_gpus=1,
                gpu_ram=24_000,
                dph_total=round(price * (1 + 0.01 * (number // 3)), 4),
                storage_cost=0.1,
                dlperf=dlperf,
                reliability=0.99,
            )
        )
    return made


def group(**changes: Any) -> Workergroup:
    """A workergroup over every offer."""
    return Workergroup.model_validate({"id": 1, "template_hash": "tmpl", **changes})


@dataclass
class Box:
    """A worker's process: loads, reports, holds load."""

    instance: FakeInstance
    load: float = 0.0
    in_flight: int = 0
    broken: str = ""


@dataclass
class World:
    """One endpoint's surroundings."""

    env: WorkflowEnvironment
    client: Client
    market: FakeMarket
    name: str = "llm"
    model_seconds: float = 10.0
    """From running to loaded."""
    now: float = 0.0
    boxes: dict[int, Box] = field(default_factory=dict)
    failing_machines: set[int] = field(default_factory=set)
    """Machines whose model never loads."""
    engine_id: str = "engine-1"
    queued_load: float = 0.0
    _sequence: Any = field(default_factory=lambda: itertools.count(1))
    _last_request_at: float | None = None
    _reported: tuple[Any, ...] = ()
    _reported_at: float = 0.0
    handle: WorkflowHandle[Any, Any] | None = None

    def clock(self) -> float:
        """The test server's time, as an activity sees it."""
        if activity.in_activity():
            self.now = max(self.now, activity.info().started_time.timestamp())
        return self.now

    async def start(self, config: EndpointConfig, groups: Sequence[Workergroup] = (), **spec: Any) -> None:
        """Starts the endpoint's workflow."""
        self.now = (await self.env.get_current_time()).timestamp()
        self.handle = await self.client.start_workflow(
            EndpointWorkflow.run,
            EndpointSpec(
                endpoint_name=self.name,
                endpoint_id=1,
                config=config,
                workergroups=tuple(groups),
                created_at=self.now,
                **spec,
            ),
            id=workflow_id(self.name),
            task_queue=TASK_QUEUE,
        )

    async def memo(self) -> EndpointMemo:
        """The memo as engines read it."""
        assert self.handle is not None
        described = await self.client.get_workflow_handle(self.handle.id).describe()
        memo = await described.memo()
        return (
            EndpointMemo.model_validate(memo[MEMO_KEY])
            if MEMO_KEY in memo
            else EndpointMemo(id=1, name=self.name)
        )

    async def live(
        self,
        seconds: float,
        *,
        load: float = 0.0,
        step: float = 5.0,
        until: Callable[[EndpointMemo], bool] | None = None,
        heartbeat: float = 60.0,
    ) -> bool:
        """Lets time pass with `load` arriving per second; answers whether `until` came true (True without one)."""
        end = self.now + seconds
        while self.now < end - 1e-6:
            await self.pass_time(min(step, end - self.now))
            memo = await self.memo()
            if until is not None and until(memo):
                return True
            await self.report(memo, load, heartbeat)
        return until is None

    async def live_on_until_gone(self, seconds: float = 1800, *, step: float = 10.0) -> None:
        """Lives on, workers emptied as they drain, until the workflow has ended."""
        assert self.handle is not None
        handle = self.client.get_workflow_handle(self.handle.id)
        end = self.now + seconds
        while (await handle.describe()).status is WorkflowExecutionStatus.RUNNING:
            assert self.now < end, "still not gone"
            memo = await self.memo()
            with contextlib.suppress(RPCError):  # it ended just now
                await self.report(memo, 0.0)
            await self.pass_time(step)

    async def histories(self) -> list[WorkflowHistory]:
        """The histories of all runs, oldest first."""
        assert self.handle is not None
        return await histories_of(self.client, self.handle.id)

    def next_sequence(self) -> int:
        """The number of the engine's next batch."""
        return int(next(self._sequence))

    async def pass_time(self, seconds: float) -> None:
        """Moves the test server's time on; a real server's passes by itself."""
        await self.env.sleep(timedelta(seconds=seconds))
        self.now = (await self.env.get_current_time()).timestamp()

    async def report(
        self, memo: EndpointMemo, load: float, heartbeat: float = 0.0, *, urgent: str = ""
    ) -> None:
        """The engine's batch, if it has news or its heartbeat is due."""
        workers = self.reports(memo, load)
        if load > 0 or self.queued_load > 0:
            self._last_request_at = self.now
        reported = (round(load, 3), self.queued_load, tuple(self._gist(worker) for worker in workers))
        if reported == self._reported and self.now - self._reported_at < heartbeat and not urgent:
            return
        window = self.now - self._reported_at if self._reported_at else 5.0
        self._reported, self._reported_at = reported, self.now
        await self.signal_metrics(
            MetricsBatch(
                engine_id=self.engine_id,
                sequence=self.next_sequence(),
                sent_at=self.now,
                window_s=window,
                arrived_load=load * window,
                arrived_requests=round(load * window / 10),
                queued_load=self.queued_load,
                queued_requests=round(self.queued_load / 10),
                last_request_at=self._last_request_at,
                urgent=urgent,
                workers=tuple(workers),
            )
        )

    async def signal_metrics(self, batch: MetricsBatch) -> None:
        """Sends a batch."""
        assert self.handle is not None
        await self.client.get_workflow_handle(self.handle.id).signal("report_metrics", batch)

    def reports(self, memo: EndpointMemo, load: float) -> list[WorkerMetrics]:
        """The engine's report of each running worker. The load is divided among ready workers by perf."""
        draining = {member.l for member in memo.members if member.d}
        reported, hot = [], []
        for instance in self.market.instances.values():
            box = self.boxes.get(instance.id)
            if box is None or box.instance is not instance:
                box = self.boxes[instance.id] = Box(instance)
            label = read_label(instance.launch.label)
            if label is None or instance.actual(self.now) != "running":
                continue
            reported.append((label[1], box))
            if self._condition(box) is Condition.READY and label[1] not in draining:
                hot.append(box)
        for _, box in reported:
            perf = PERF[box.instance.offer.gpu_name]
            total = sum(PERF[other.instance.offer.gpu_name] for other in hot) or 1.0
            box.load = min(load * perf / total, perf) if box in hot else 0.0
            box.in_flight = 1 if box.load > 0 else 0
        return [self._metrics(launch_id, box, launch_id in draining) for launch_id, box in reported]

    def _condition(self, box: Box) -> Condition:
        if box.broken:
            return Condition.ERROR
        if box.instance.offer.machine_id in self.failing_machines:
            return Condition.LOADING
        loaded = self.now >= box.instance.running_at + self.model_seconds
        return Condition.READY if loaded else Condition.LOADING

    def _metrics(self, launch_id: str, box: Box, draining: bool) -> WorkerMetrics:
        condition = self._condition(box)
        ready = condition is Condition.READY
        return WorkerMetrics(
            launch_id=launch_id,
            instance_id=box.instance.id,
            condition=condition,
            perf=PERF[box.instance.offer.gpu_name] if ready else 0.0,
            load=box.load,
            in_flight=box.in_flight,
            reported_at=self.now,
            loadtime_s=self.model_seconds if ready else 0.0,
            url=f"http://10.0.0.{box.instance.id % 250}:3000",
            error=box.broken,
            drain_seen=draining,
        )

    @staticmethod
    def _gist(worker: WorkerMetrics) -> tuple[Any, ...]:
        return (
            worker.launch_id,
            worker.condition,
            worker.in_flight,
            worker.drain_seen,
            round(worker.load, 1),
        )


async def histories_of(client: Client, workflow_id: str) -> list[WorkflowHistory]:
    """The histories of all runs of a workflow, oldest first."""
    found: list[WorkflowHistory] = []
    run_id: str | None = (await client.get_workflow_handle(workflow_id).describe()).run_id
    while run_id:
        history = await client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
        found.insert(0, history)
        first = history.events[0].workflow_execution_started_event_attributes
        run_id = first.continued_execution_run_id or None
    return found


def make_market(world_clock: Callable[[], float], **how: Any) -> FakeMarket:
    """A marketplace with thirty machines and one template."""
    return FakeMarket(how.pop("offers", offers()), clock=world_clock, templates=[TEMPLATE], **how)


def make_workers(
    client: Client, market: Market, metrics: TemporalWorkerMetrics | None = None
) -> list[Worker]:
    """The deployment's Temporal workers over this marketplace, in a hurry."""
    settings = WorkerSettings(market_calls_per_second=10_000, graceful_shutdown_seconds=1)
    hands = MarketActivities(
        market, SECRETS, starts_per_second=0.01
    )  # of real time: one start does not queue
    return build_workers(client, hands, settings, metrics)


def replayer() -> Replayer:
    """Plays recorded histories again, over the code as it stands."""
    return Replayer(
        workflows=[EndpointWorkflow, SweepWorkflow, ReleaseWorkflow],
        data_converter=data_converter,
        workflow_runner=workflow_runner(),
    )
