"""A Temporal server and its worker in one process and in virtual time, around the SDK's real workflow instance.

This module does the work of the Temporal service and core for a workflow. Events are collected while a workflow task
runs. A task becomes an activation, and its commands become timers and activities. Local activities run inside the
task. A closing command is refused if new events arrived. A lost instance is rebuilt by replay, which must give the
same commands. The tests in `tests/workflows` use the real server's order of events.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import temporalio.activity
import temporalio.bridge.proto.workflow_activation as wa
import temporalio.converter
import temporalio.workflow
from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.bridge.proto.activity_result import ActivityResolution
from temporalio.bridge.proto.workflow_commands import WorkflowCommand
from temporalio.client import WorkflowExecutionStatus, WorkflowUpdateFailedError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import UnsandboxedWorkflowRunner
from temporalio.worker._workflow_instance import WorkflowInstance, WorkflowInstanceDetails

from tests.seeded.activity_runner import ActivityRunner
from tests.seeded.temporal.client import Client
from tests.seeded.temporal.executions import (
    FAILURES,
    PAYLOADS,
    Execution,
    NotReplayed,
    Run,
    Step,
    TaskFailed,
    Weather,
    activate,
    commands_of,
    difference,
)
from tests.seeded.temporal.virtual_time import BEGINNING
from workflows.temporal_worker.converter import data_converter

TASK_TIMEOUT_SECONDS = 10.0
"""A workflow task whose worker died is dispatched again after this time, seconds."""
SUGGEST_EVENTS = 4096
_CLOSING = (
    "complete_workflow_execution",
    "continue_as_new_workflow_execution",
    "fail_workflow_execution",
    "cancel_workflow_execution",
)


class Server:
    """The part of Temporal that engines, operators and workers of this deployment use."""

    def __init__(
        self, chance: random.Random, weather: Weather, *, history_suggested: int = SUGGEST_EVENTS
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.weather = weather
        self.executions: dict[str, Execution] = {}
        self.on_fault: Callable[[BaseException], None] = lambda fault: None
        self.counts: Counter[str] = Counter()
        self.billed: Counter[str] = Counter()
        """Temporal actions, as `benchmarks.temporal_actions` counts them."""
        self.handed_over: list[int] = []
        """Bytes of each input that continue-as-new carried."""
        self.keeps_history = True
        """If False, histories of closed runs are dropped, so that a month fits into memory."""
        self._suggested = history_suggested
        self._chance = chance
        self._epoch = 0
        self._workflows: dict[str, Any] = {}
        self.hands = ActivityRunner(chance, weather, self.counts, now=self.now, resolve=self._resolve)

    # set-up

    def register(self, workflows: list[type], activities: list[Callable[..., Any]]) -> None:
        """Registers what the worker can run."""
        for workflow in workflows:
            defn = temporalio.workflow._Definition.must_from_class(workflow)
            assert defn.name is not None
            self._workflows[defn.name] = defn
        self.hands.register(activities)

    def start(self, workflow_type: str, workflow_id: str, arg: Any) -> Execution:
        """Starts a workflow."""
        init = wa.InitializeWorkflow(
            workflow_type=workflow_type,
            workflow_id=workflow_id,
            arguments=PAYLOADS.to_payloads([arg]),
            randomness_seed=self._chance.getrandbits(63),
            attempt=1,
        )
        execution = Execution(workflow_id, [])
        self.executions[workflow_id] = execution
        self._begin(execution, init, {})
        self.billed["start or continue-as-new"] += 1
        return execution

    @property
    def client(self) -> Client:
        """The client for an engine."""
        return Client(self)

    def now(self) -> float:
        return BEGINNING + self._loop.time()

    # faults

    def crash(self, seconds: float) -> None:
        """`kill -9` of the worker process: its memory and running work are lost; another starts later."""
        self._epoch += 1
        self.counts["worker crashes"] += 1
        self.hands.die()
        for execution in self.executions.values():
            self._evict(execution.run)
        asyncio.get_running_loop().call_later(seconds, self.hands.up.set)

    def _evict(self, run: Run) -> None:
        instance, run.instance = run.instance, None
        if instance is not None:
            job = wa.WorkflowActivationJob(remove_from_cache=wa.RemoveFromCache())
            activate(instance, self._activation(run, [job], replaying=False))

    # workflow tasks

    def _begin(self, execution: Execution, init: wa.InitializeWorkflow, attributes: dict[str, Any]) -> None:
        run = Run(
            id=f"run-{len(execution.runs) + 1}-{self._chance.getrandbits(32):08x}",
            workflow_id=execution.id,
            workflow_type=init.workflow_type,
            init=init,
            started_at=self.now(),
            attributes=attributes,
        )
        execution.runs.append(run)
        self._show(execution)
        run.inbox.append(wa.WorkflowActivationJob(initialize_workflow=init))
        run.stirred.set()
        run.driver = asyncio.get_running_loop().create_task(self._drive(run), name=f"tasks of {run.id}")

    def _post(self, run: Run, job: wa.WorkflowActivationJob) -> None:
        run.inbox.append(job)
        run.stirred.set()

    async def _drive(self, run: Run) -> None:
        try:
            while not run.closed:
                await run.stirred.wait()
                await asyncio.sleep(self._chance.uniform(0.5, 1.5) * self.weather.task_seconds)
                await self.hands.up.wait()
                run.stirred.clear()
                if run.inbox:
                    await self._task(run)
        except Exception as fault:  # noqa: BLE001 - as above: it ends the life
            self.on_fault(fault)

    async def _task(self, run: Run) -> None:
        """One workflow task, from its events to its commands."""
        epoch = self._epoch
        instance = run.instance or self.replay(run)
        jobs, run.inbox = run.inbox, []
        steps = [self._activate(run, instance, jobs)]
        while local := [
            c.schedule_local_activity for c in steps[-1].commands if c.HasField("schedule_local_activity")
        ]:
            resolutions = []
            for command in local:
                await asyncio.sleep(self._chance.uniform(0.2, 2.0) * self.weather.local_seconds)
                if epoch != self._epoch:
                    break
                resolutions.append(await self.hands.local(command))
            if epoch != self._epoch:
                return self._lost(run, jobs, TASK_TIMEOUT_SECONDS)
            steps.append(self._activate(run, instance, resolutions))
        commands = [command for step in steps for command in step.commands]
        if run.inbox and any(command.HasField(name) for command in commands for name in _CLOSING):
            self.counts["closing refused: news came"] += 1
            return self._lost(run, jobs, 0.0)
        self.billed["planner (local activity)"] += len(steps) > 1
        run.history += steps
        run.events += 3 + sum(len(step.activation.jobs) for step in steps)
        for command in commands:
            self._carry_out(run, command)
        if self._chance.random() < self.weather.evicted and not run.closed:
            self.counts["evicted"] += 1
            self._evict(run)
        return None

    def _lost(self, run: Run, jobs: list[wa.WorkflowActivationJob], seconds: float) -> None:
        """The task failed: its decisions are dropped, and its events are delivered again."""
        self._evict(run)
        run.inbox = jobs + run.inbox
        asyncio.get_running_loop().call_later(seconds, run.stirred.set)

    def _activate(self, run: Run, instance: WorkflowInstance, jobs: list[wa.WorkflowActivationJob]) -> Step:
        activation = self._activation(run, jobs, replaying=False)
        return Step(activation, commands_of(instance, activation))

    def _activation(
        self, run: Run, jobs: list[wa.WorkflowActivationJob], *, replaying: bool
    ) -> wa.WorkflowActivation:
        moment = Timestamp()
        moment.FromNanoseconds(round(self.now() * 1e9))
        return wa.WorkflowActivation(
            run_id=run.id,
            timestamp=moment,
            is_replaying=replaying,
            history_length=run.events,
            continue_as_new_suggested=run.events >= self._suggested,
            jobs=jobs,
        )

    def replay(self, run: Run) -> WorkflowInstance:
        """Replays the workflow from its history; other commands than before are an error."""
        instance = self._instance(run)
        for step in run.history:
            again = wa.WorkflowActivation()
            again.CopyFrom(step.activation)
            again.is_replaying = True
            for command in step.commands:
                if command.HasField("set_patch_marker"):
                    mark = wa.NotifyHasPatch(patch_id=command.set_patch_marker.patch_id)
                    again.jobs.append(wa.WorkflowActivationJob(notify_has_patch=mark))
            given = commands_of(instance, again)
            if given != step.commands:
                raise NotReplayed(difference(run, step.commands, given))
        run.instance = instance
        self.counts["replays"] += 1
        return instance

    def _instance(self, run: Run) -> WorkflowInstance:
        began = datetime.fromtimestamp(run.started_at, UTC)
        info = temporalio.workflow.Info(
            attempt=1,
            continued_run_id=run.init.continued_from_execution_run_id or None,
            cron_schedule=None,
            execution_timeout=None,
            first_execution_run_id=run.id,
            headers={},
            namespace="default",
            original_execution_run_id=run.id,
            parent=None,
            root=None,
            raw_memo=dict(run.init.memo.fields),
            retry_policy=None,
            run_id=run.id,
            run_timeout=None,
            search_attributes={},
            start_time=began,
            workflow_start_time=began,
            task_queue="stoker",
            task_timeout=timedelta(seconds=TASK_TIMEOUT_SECONDS),
            typed_search_attributes=temporalio.converter.decode_typed_search_attributes(
                run.init.search_attributes
            ),
            workflow_id=run.workflow_id,
            workflow_type=run.workflow_type,
            priority=temporalio.common.Priority.default,
        )
        details = WorkflowInstanceDetails(
            payload_converter_factory=data_converter._new_payload_converter,
            failure_converter_class=data_converter.failure_converter_class,
            interceptor_classes=[],
            defn=self._workflows[run.workflow_type],
            info=info,
            randomness_seed=run.init.randomness_seed,
            extern_functions={"__temporal_assert_local_activity_valid": self.hands.known},
            disable_eager_activity_execution=True,
            worker_level_failure_exception_types=[],
            patch_activation_callback=None,
            last_completion_result=temporalio.api.common.v1.Payloads(),
            last_failure=None,
        )
        instance = UnsandboxedWorkflowRunner().create_instance(details)
        run.instance = instance
        return instance

    # commands

    def _carry_out(self, run: Run, command: WorkflowCommand) -> None:
        execution = self.executions[run.workflow_id]
        kind = command.WhichOneof("variant")
        self.counts[str(kind)] += 1
        match kind:
            case "start_timer":
                run.events += 1
                self.billed["timer"] += 1
                timer = command.start_timer
                seconds = timer.start_to_fire_timeout.ToNanoseconds() / 1e9
                run.timers[timer.seq] = asyncio.get_running_loop().call_later(
                    seconds, self._ring, run, timer.seq
                )
            case "cancel_timer":
                run.events += 1
                handle = run.timers.pop(command.cancel_timer.seq, None)
                if handle is not None:
                    handle.cancel()
            case "schedule_activity":
                run.events += 3
                self.billed["activity"] += 1
                self._spawn(self.hands.perform(run, command.schedule_activity), f"activity of {run.id}")
            case "schedule_local_activity":
                run.events += 1
            case "upsert_workflow_search_attributes":
                run.events += 1
                self.billed["search attributes"] += 1
                self._show(execution)
            case "modify_workflow_properties":
                run.events += 1
                fields = command.modify_workflow_properties.upserted_memo.fields
                execution.memo |= {key: PAYLOADS.from_payload(value) for key, value in fields.items()}
                self._show(execution)
            case "update_response":
                self._respond(run, command.update_response)
            case "set_patch_marker":
                run.events += 2
            case _:
                self._end(execution, run, command, str(kind))

    def _end(self, execution: Execution, run: Run, command: WorkflowCommand, kind: str) -> None:
        if kind == "continue_as_new_workflow_execution":
            self._continue(execution, run, command.continue_as_new_workflow_execution)
            return
        if kind == "complete_workflow_execution":
            execution.result = PAYLOADS.from_payload(command.complete_workflow_execution.result)
            execution.status = WorkflowExecutionStatus.COMPLETED
        elif kind == "fail_workflow_execution":
            execution.status = WorkflowExecutionStatus.FAILED
            said = command.fail_workflow_execution.failure.message
            self.on_fault(TaskFailed(f"the workflow failed: {said}"))
        else:
            raise NotImplementedError(f"the command {kind} is not known here: teach server.py what it does")
        self._close(run, kind)
        self._show(execution)

    def _close(self, run: Run, how: str) -> None:
        run.closed = how
        for timer in run.timers.values():
            timer.cancel()
        run.timers.clear()
        self._evict(run)
        if not self.keeps_history:
            run.history.clear()

    def _continue(self, execution: Execution, run: Run, command: Any) -> None:
        self._close(run, "continued as new")
        self.counts["runs handed over"] += 1
        self.billed["start or continue-as-new"] += 1
        self.handed_over.append(sum(len(payload.data) for payload in command.arguments))
        init = wa.InitializeWorkflow(
            workflow_type=run.workflow_type,
            workflow_id=execution.id,
            arguments=command.arguments,
            randomness_seed=self._chance.getrandbits(63),
            attempt=1,
            continued_from_execution_run_id=run.id,
        )
        for key, value in command.memo.items():
            init.memo.fields[key].CopyFrom(value)
        if command.HasField("search_attributes"):
            init.search_attributes.CopyFrom(command.search_attributes)
        execution.memo = {key: PAYLOADS.from_payload(value) for key, value in command.memo.items()}
        self._begin(execution, init, {})

    def _ring(self, run: Run, seq: int) -> None:
        if run.timers.pop(seq, None) is not None and not run.closed:
            self._post(run, wa.WorkflowActivationJob(fire_timer=wa.FireTimer(seq=seq)))

    def _respond(self, run: Run, response: Any) -> None:
        if response.HasField("accepted"):
            self.billed["update"] += 1
            return
        future = run.updates.pop(response.protocol_instance_id, None)
        if future is None or future.done():
            return
        if response.HasField("rejected"):
            future.set_exception(
                WorkflowUpdateFailedError(FAILURES.from_failure(response.rejected, PAYLOADS))
            )
        else:
            future.set_result(PAYLOADS.from_payload(response.completed))

    def _show(self, execution: Execution) -> None:
        execution.shown.append((self.now(), dict(execution.memo), execution.status))
        del execution.shown[:-64]

    # activities

    def _spawn(self, work: Any, name: str) -> "asyncio.Task[Any]":
        async def guarded() -> None:
            try:
                await work
            except Exception as fault:  # noqa: BLE001 - a mistake of this server must not pass for a slow activity
                self.on_fault(fault)

        return asyncio.get_running_loop().create_task(guarded(), name=name)

    def _resolve(self, run: Run, seq: int, resolution: ActivityResolution) -> None:
        if not run.closed:
            self._post(
                run, wa.WorkflowActivationJob(resolve_activity=wa.ResolveActivity(seq=seq, result=resolution))
            )

    # calls from outside

    async def rpc(self) -> Callable[[], None]:
        """The network of a call: raises if the call is lost; the returned function raises if the answer is lost."""
        await asyncio.sleep(self._chance.uniform(0.3, 2.0) * self.weather.rpc_seconds)
        lost = self._chance.random() < self.weather.rpc_lost
        if lost and self._chance.random() < 0.5:
            raise RPCError("connection reset", RPCStatusCode.UNAVAILABLE, b"")

        def answer() -> None:
            if lost:
                self.counts["rpc answers lost"] += 1
                raise RPCError("deadline exceeded", RPCStatusCode.DEADLINE_EXCEEDED, b"")

        return answer

    def found(self, workflow_id: str) -> Execution:
        execution = self.executions.get(workflow_id)
        if execution is None:
            raise RPCError("workflow not found", RPCStatusCode.NOT_FOUND, b"")
        return execution

    def live(self, workflow_id: str) -> Run:
        execution = self.found(workflow_id)
        if execution.status is not WorkflowExecutionStatus.RUNNING:
            raise RPCError("workflow execution already completed", RPCStatusCode.NOT_FOUND, b"")
        return execution.run

    def signal(self, workflow_id: str, name: str, args: list[Any]) -> None:
        """Delivers a signal to the current run."""
        run = self.live(workflow_id)
        run.events += 1
        self.billed["signal"] += 1
        job = wa.SignalWorkflow(
            signal_name=name, input=PAYLOADS.to_payloads(args), originating_event_id=run.events
        )
        self._post(run, wa.WorkflowActivationJob(signal_workflow=job))

    def update(self, workflow_id: str, name: str, args: list[Any]) -> "asyncio.Future[Any]":
        """Sends an update."""
        run = self.live(workflow_id)
        key = f"update-{self._chance.getrandbits(48):012x}"
        future = run.updates[key] = asyncio.get_running_loop().create_future()
        job = wa.DoUpdate(
            id=key, protocol_instance_id=key, name=name, input=PAYLOADS.to_payloads(args), run_validator=True
        )
        self._post(run, wa.WorkflowActivationJob(do_update=job))
        return future

    def query(self, workflow_id: str, name: str, args: list[Any]) -> Any:
        """Queries the workflow."""
        run = self.found(workflow_id).run
        instance = run.instance or self.replay(run)
        job = wa.QueryWorkflow(query_id="q", query_type=name, arguments=PAYLOADS.to_payloads(args))
        activation = self._activation(run, [wa.WorkflowActivationJob(query_workflow=job)], replaying=False)
        [command] = commands_of(instance, activation)
        if command.respond_to_query.HasField("failed"):
            raise RuntimeError(command.respond_to_query.failed.message)
        return PAYLOADS.from_payload(command.respond_to_query.succeeded.response)
