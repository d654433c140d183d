"""One endpoint's world in virtual time: real workflows, activities, policy and engine; everything else is seeded."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from temporalio.client import WorkflowExecutionStatus, WorkflowUpdateFailedError
from temporalio.service import RPCError

from activities.instances import MarketActivities
from activities.messages import label_prefix
from activities.planner import plan
from engine.api.parsing import FastRouteRequest
from stoker_wire.control import SWEEP_ID, EndpointSpec, workflow_id
from stoker_wire.errors.problem import Problem
from stoker_wire.security.ticket import TICKET_SECONDS
from tests.seeded import scenario as scenarios
from tests.seeded.engines import SECRETS, EngineHost
from tests.seeded.invariants import Invariants
from tests.seeded.machine import Machine
from tests.seeded.market import SeededMarket
from tests.seeded.scenario import TEMPLATES, Event, Scenario
from tests.seeded.temporal.server import Server
from tests.seeded.temporal.virtual_time import BEGINNING, sealed
from tests.seeded.worker_processes import ConnectionLost, WorkerProcess
from workflows.endpoint import EndpointWorkflow
from workflows.sweep.sweep import SweepActivities, SweepSpec, SweepWorkflow

NAME = "llm"
ENDPOINT_ID = 1
CALM_SECONDS_MAX = 1500.0
END_SECONDS_MAX = 7200.0


class Violation(AssertionError):
    """An invariant was violated."""


@dataclass(slots=True, eq=False)
class Asked:
    """One client's request."""

    number: int
    born_at: float
    answered_at: float | None = None
    refused: str = ""
    failures: int = 0


class World:
    """Everything around one endpoint."""

    def __init__(self, scenario: Scenario) -> None:
        self._loop = asyncio.get_running_loop()
        self.scenario = scenario
        self.weather = scenario.lines
        self.chance = random.Random(f"world {scenario.seed}")
        self.server = Server(random.Random(f"temporal {scenario.seed}"), scenario.weather)
        self.market = SeededMarket(
            random.Random(f"market {scenario.seed}"),
            list(scenario.offers),
            TEMPLATES,
            pace=scenario.pace,
            troubles=scenario.troubles,
        )
        activities = MarketActivities(self.market, SECRETS, now=lambda: asyncio.get_running_loop().time())
        sweep = SweepActivities(self.server.client, activities)  # type: ignore[arg-type]
        self.server.register(
            [EndpointWorkflow, SweepWorkflow],
            [
                plan,
                sweep.find_orphans,
                sweep.end_endpoint,
                activities.search_offers,
                activities.create_instance,
                activities.start_instance,
                activities.stop_instance,
                activities.reboot_instance,
                activities.destroy_instance,
                activities.update_instance,
                activities.list_instances,
            ],
        )
        self.boxes: dict[int, WorkerProcess] = {}
        self.engines: list[EngineHost] = []
        self.requests: list[Asked] = []
        self.tickets: dict[str, dict[int, float]] = {}
        """By launch: tickets that a client has not used yet, with their expiry."""
        self.counts: Counter[str] = Counter()
        self.asked_of_market: list[str] = []
        self.deleted = False
        self._tokens: dict[str, str] = {}
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._clients: set[asyncio.Task[None]] = set()
        self._background: list[asyncio.Task[None]] = []
        self.invariants = Invariants(self)
        self.market.on_status = self._status
        self.market.on_asked = self._asked
        self.server.hands.on_local = self.invariants.planned
        self.server.on_fault = self.fail

    # reading

    def now(self) -> float:
        return BEGINNING + self._loop.time()

    @property
    def handle(self) -> Any:
        return self.server.client.get_workflow_handle(workflow_id(NAME))

    def ours(self) -> list[Machine]:
        """Instances with the endpoint's label that cost money now."""
        return [machine for machine in self.market.living() if machine.label.startswith(label_prefix(NAME))]

    def worker_token(self, launch_id: str) -> str:
        if launch_id not in self._tokens:
            self._tokens[launch_id] = SECRETS.worker_token(ENDPOINT_ID, launch_id)
        return self._tokens[launch_id]

    def some_engine(self) -> EngineHost | None:
        alive = [engine for engine in self.engines if engine.alive]
        return self.chance.choice(alive) if alive else None

    def fail(self, fault: BaseException) -> None:
        """Ends the run with a violation."""
        if not self._failed.done():
            self._failed.set_exception(fault)

    def violated(self, what: str) -> None:
        self.fail(Violation(f"at {self.now() - BEGINNING:.1f} s: {what}"))

    # run

    async def live(self) -> None:
        """Runs from the endpoint's creation to its end; raises the first violation."""
        life = asyncio.get_running_loop().create_task(self._life(), name="life")
        await asyncio.wait([life, self._failed], return_when=asyncio.FIRST_COMPLETED)
        if self._failed.done():
            life.cancel()
            self._failed.result()
        life.result()

    async def _life(self) -> None:
        scenario = self.scenario
        self._run(self.market.rivals(), self.invariants.watch())
        self.server.start(
            "EndpointWorkflow",
            workflow_id(NAME),
            EndpointSpec(
                endpoint_name=NAME,
                endpoint_id=ENDPOINT_ID,
                config=scenario.config,
                workergroups=scenario.groups,
                created_at=self.now(),
                history_events_max=scenario.history_events_max,
            ),
        )
        self.server.start("SweepWorkflow", SWEEP_ID, SweepSpec())
        for _ in range(scenario.engines):
            await self._start_engine()
        self._run(*(self._event(event) for event in scenario.events))
        await self._storm()
        await self._calm()
        await self._end()

    async def _storm(self) -> None:
        for phase in self.scenario.phases:
            until = self.now() + phase.seconds
            while True:
                rate = phase.requests_per_second
                pause = self.chance.expovariate(rate) if rate else phase.seconds
                if self.now() + pause >= until:
                    break
                await asyncio.sleep(pause)
                self._client()
            await asyncio.sleep(max(0.0, until - self.now()))

    async def _calm(self) -> None:
        """No new faults: everything must recover, and every request must be served."""
        self.market.troubles, self.weather = scenarios.CALM_MARKET, scenarios.CALM_LINES
        self.market.down = False
        self.server.weather = scenarios.calmed(self.server.weather)
        await asyncio.sleep(120)
        for machine in self.market.living():
            if machine.trouble in {"stays_stopped", "touched"}:
                machine.trouble = ""
        while not any(engine.alive for engine in self.engines):
            await self._start_engine()
        sane = {"endpoint_state": "active", "max_workers": 10, "dollars_per_hour_max": 50.0, "min_load": 1.0}
        await self.handle.execute_update("update_config", sane)
        await self.handle.execute_update(
            "set_workergroup", {"id": 1, "template_hash": "first", "test_workers": 0}
        )
        until = self.now() + CALM_SECONDS_MAX
        await asyncio.sleep(self.scenario.calm_seconds)
        # an endpoint without workers and with an hour's queue boots machines twice before the queue is empty
        while self.now() < until and self.waiting():
            await asyncio.sleep(20)
        self.invariants.settled()

    async def _end(self) -> None:
        self.deleted = True
        self.server.signal(workflow_id(NAME), "delete", [])
        execution = self.server.found(workflow_id(NAME))
        began = self.now()
        while execution.status is WorkflowExecutionStatus.RUNNING:
            if self.now() - began > END_SECONDS_MAX:
                self.violated(f"a deleted endpoint is not gone after {END_SECONDS_MAX:.0f} s")
            await asyncio.sleep(5)
        await asyncio.sleep(30)
        self.invariants.ended(execution.result)

    def _run(self, *work: Any) -> None:
        async def guarded(one: Any) -> None:
            try:
                await one
            except Exception as fault:  # noqa: BLE001 - a fault of the world itself must not pass unseen
                self.fail(fault)

        self._background += [asyncio.get_running_loop().create_task(guarded(one)) for one in work]

    # engines and worker processes

    async def _start_engine(self) -> None:
        host = EngineHost(self.server.client)
        await host.start()
        self.engines.append(host)

    def _status(self, machine: Machine) -> None:
        box = self.boxes.get(machine.id)
        runs = machine.actual == "running" and machine.gone_at is None
        if box is not None and not runs:
            self.boxes.pop(machine.id).die()
            self.invariants.stopped(box)
        elif runs and box is None:
            box = WorkerProcess(
                self,
                machine,
                self.now(),
                self.scenario.model_seconds * self.chance.uniform(0.5, 2.0),
                random.Random(f"box {machine.id} {machine.turn} {self.scenario.seed}"),
                incarnation=f"{machine.id}-{machine.turn}-{self.now():.3f}" if self.scenario.seed % 3 else "",
            )
            self.boxes[machine.id] = box
            box.begin()
        self.invariants.money()

    def _asked(self, what: str, machine: Machine) -> None:
        self.asked_of_market.append(f"{self.now() - BEGINNING:.2f} {what} {machine.id}")
        self.invariants.asked(what, machine)

    # clients

    def waiting(self) -> list[Asked]:
        """The requests without an answer, oldest first."""
        return [asked for asked in self.requests if asked.answered_at is None and not asked.refused]

    def _client(self) -> None:
        asked = Asked(len(self.requests), self.now())
        self.requests.append(asked)
        cost = self.scenario.cost * self.chance.uniform(0.3, 2.0)
        task = asyncio.get_running_loop().create_task(self._ask(asked, cost), name=f"client {asked.number}")
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _ask(self, asked: Asked, cost: float) -> None:
        request_idx, failed_url = 0, ""
        while asked.answered_at is None:
            host = self.some_engine()
            if host is None:
                await asyncio.sleep(1.0)
                continue
            try:
                answer = await host.route(
                    FastRouteRequest(endpoint=NAME, cost=cost, request_idx=request_idx, failed_url=failed_url)
                )
            except ConnectionLost:
                await asyncio.sleep(self.chance.uniform(0.2, 2.0))
                continue
            except Problem as problem:
                breaks_workers = problem.code == "request_breaks_workers" and asked.failures > 1
                if self.deleted or breaks_workers:
                    asked.refused = problem.code
                    return
                await asyncio.sleep(1.0)
                continue
            request_idx, failed_url = answer["request_idx"], ""
            if "url" not in answer:
                await asyncio.sleep(self.chance.uniform(0.1, 1.0))
                continue
            try:
                await self._use(answer)
                asked.answered_at = self.now()
            except ConnectionLost as lost:
                self.counts[f"failed: {str(lost).split(' instance')[0][:30]}"] += 1
                asked.failures += 1
                failed_url = answer["url"]

    async def _use(self, answer: dict[str, Any]) -> None:
        box = self.boxes.get(answer["worker_id"])
        launch_id = box.launch_id if box else ""
        held = self.tickets.setdefault(launch_id, {})
        held[answer["reqnum"]] = self.now() + TICKET_SECONDS
        late = self.chance.random() < self.weather.client_late
        try:
            await asyncio.sleep(self.chance.uniform(2, 50) if late else self.chance.uniform(0.01, 0.3))
        finally:
            held.pop(answer["reqnum"], None)
        box = self.boxes.get(answer["worker_id"])
        if box is None:
            raise ConnectionLost("nobody there")
        await box.work(answer)

    # events

    async def _event(self, event: Event) -> None:
        await asyncio.sleep(event.at)
        self.counts[event.what] += 1
        try:
            await getattr(self, "_on_" + event.what.replace(" ", "_"))(**event.how)
        except RPCError:
            self.counts["somebody's call to Temporal failed"] += 1

    async def _on_worker_crash(self, seconds: float) -> None:
        self.server.crash(seconds)

    async def _on_engine_killed(self, seconds: float) -> None:
        alive = [engine for engine in self.engines if engine.alive]
        if alive:
            alive[0].kill()
            await asyncio.sleep(seconds)
            await self._start_engine()

    async def _on_engine_restarted(self, seconds: float) -> None:
        alive = [engine for engine in self.engines if engine.alive]
        if alive:
            await alive[0].stop()
            await asyncio.sleep(seconds)
            await self._start_engine()

    async def _on_market_outage(self, seconds: float) -> None:
        self.market.down = True
        await asyncio.sleep(seconds)
        self.market.down = False

    async def _on_config(self, **patch: Any) -> None:
        await self.handle.signal("update_config", patch)

    async def _on_state(self, endpoint_state: str, seconds: float) -> None:
        await self.handle.signal("update_config", {"endpoint_state": endpoint_state})
        await asyncio.sleep(seconds)
        await self.handle.signal("update_config", {"endpoint_state": "active"})

    async def _on_new_template(self) -> None:
        await self.handle.signal("set_workergroup", {"id": 1, "template_hash": "second", "test_workers": 0})

    async def _on_update_workers(self, cancel_after: float | None) -> None:
        await self.handle.signal("update_workers", 1)
        if cancel_after is not None:
            await asyncio.sleep(cancel_after)
            with contextlib.suppress(WorkflowUpdateFailedError):  # the workergroup may have been removed
                await self.handle.execute_update("cancel_update", 1)

    async def _on_burst_of_signals(self, count: int) -> None:
        for number in range(count):
            await self.handle.signal("update_config", {"max_queue_time": 10.0 + number % 7})

    async def _on_metrics_from_the_past(self) -> None:
        """Delivers a batch that is an hour old, from an engine that is gone."""
        batch = {
            "engine_id": "engine-of-the-past",
            "sequence": 7,
            "sent_at": self.now() - 3600,
            "window_s": 60.0,
            "arrived_load": 500.0,
            "arrived_requests": 5,
            "workers": [
                {
                    "launch_id": box.launch_id,
                    "instance_id": box.machine.id,
                    "condition": "error",
                    "error": "an error of an hour ago",
                    "reported_at": self.now() - 3600,
                }
                for box in self.boxes.values()
            ],
        }
        await self.handle.signal("report_metrics", batch)
        await self.handle.signal("report_metrics", batch)

    async def _on_nonsense(self) -> None:
        for name, arg in (
            ("report_metrics", {"engine_id": 5}),
            ("report_metrics", None),
            ("update_config", {"max_workers": -1}),
            ("set_workergroup", "gpu"),
            ("remove_workergroup", 99),
            ("update_workers", "all"),
        ):
            await self.handle.signal(name, arg)

    async def _on_strange_instance(self) -> None:
        """An operator rents by hand under our label, for an endpoint that does not exist."""
        rented = {machine.offer.id for machine in self.market.living()}
        free = [offer for offer in self.market.offers.values() if offer.id not in rented]
        for offer, label in zip(
            free, [f"{label_prefix(NAME)}feedfeedfeed", "stoker:gone:abcdefabcdef"], strict=False
        ):
            self.market.plant(offer, label)

    async def _on_rotate_key(self) -> None:
        await self.handle.execute_update("rotate_key")

    async def _on_remove_workergroup(self) -> None:
        await self.handle.signal("remove_workergroup", 1)
        await asyncio.sleep(200)
        await self.handle.signal("set_workergroup", {"id": 1, "template_hash": "first", "test_workers": 0})


def live(seed: int, changed: Callable[[Scenario], Scenario] = lambda scenario: scenario) -> World:
    """Runs a seed; raises the first violation. `changed` modifies the run."""
    with sealed(seed) as loop:

        async def whole() -> World:
            world = World(changed(scenarios.scenario(seed)))
            await world.live()
            return world

        return loop.run_until_complete(whole())
