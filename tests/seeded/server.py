"""A Temporal server and its worker in one process and in virtual time, around the SDK's real workflow instance.

What the service and the core do for a workflow is done here: events are gathered while a workflow task is out, a task becomes
an activation, its commands become timers and activities, local activities run inside the task, a closing command is refused
when news came meanwhile, and an instance that was lost is rebuilt by replay, which has to give the same commands. The real
server's order of events is what `tests/workflows` runs on.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import temporalio.activity
import temporalio.bridge.proto.workflow_activation as wa
import temporalio.converter
import temporalio.workflow
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.enums.v1 import RetryState, TimeoutType
from temporalio.api.failure.v1 import Failure
from temporalio.bridge.proto.activity_result import ActivityResolution
from temporalio.bridge.proto.workflow_commands import WorkflowCommand
from temporalio.client import WorkflowExecutionStatus, WorkflowUpdateFailedError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import ActivityEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner
from temporalio.worker._workflow_instance import WorkflowInstance, WorkflowInstanceDetails

from stoker_wire.control import MARKET_TASK_QUEUE
from tests.seeded.sealed import BEGINNING
from workflows.converter import data_converter
from workflows.messages import MEMO_KEY

TASK_TIMEOUT_SECONDS = 10.0
"""A workflow task whose worker died is given out again after this."""
SUGGEST_EVENTS = 4096
_CLOSING = (
    "complete_workflow_execution",
    "continue_as_new_workflow_execution",
    "fail_workflow_execution",
    "cancel_workflow_execution",
)
_PAYLOADS = data_converter.payload_converter
_FAILURES = data_converter.failure_converter


class NotReplayed(AssertionError):
    """A workflow gave other commands when it was replayed."""


class TaskFailed(AssertionError):
    """Workflow code raised: on a real server the workflow would hang until a deploy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """How quick and how reliable Temporal is in this world."""

    rpc_seconds: float = 0.01
    task_seconds: float = 0.01
    local_seconds: float = 0.02
    visibility_seconds: float = 0.1
    """How far lists are behind."""
    rpc_lost: float = 0.0
    """Share of calls that fail; half of them have done their work."""
    evicted: float = 0.0
    """Share of workflow tasks after which the worker has forgotten the workflow."""
    calls_per_second: float = 2.0
    """Of the marketplace's task queue."""


@dataclass(slots=True)
class Step:
    """One activation and what came of it."""

    activation: wa.WorkflowActivation
    commands: list[WorkflowCommand]


@dataclass(slots=True)
class Run:
    """One run of a workflow."""

    id: str
    workflow_id: str
    workflow_type: str
    init: wa.InitializeWorkflow
    started_at: float
    attributes: dict[str, Any] = field(default_factory=dict)
    instance: WorkflowInstance | None = None
    inbox: list[wa.WorkflowActivationJob] = field(default_factory=list)
    history: list[Step] = field(default_factory=list)
    events: int = 1
    timers: dict[int, asyncio.TimerHandle] = field(default_factory=dict)
    stirred: asyncio.Event = field(default_factory=asyncio.Event)
    closed: str = ""
    updates: dict[str, "asyncio.Future[Any]"] = field(default_factory=dict)
    driver: "asyncio.Task[None] | None" = None
    under_way: bool = False


@dataclass(slots=True)
class Execution:
    """A workflow id and its runs; what lists show of it comes late."""

    id: str
    runs: list[Run]
    memo: dict[str, Any] = field(default_factory=dict)
    status: WorkflowExecutionStatus = WorkflowExecutionStatus.RUNNING
    result: Any = None
    shown: list[tuple[float, dict[str, Any], WorkflowExecutionStatus]] = field(default_factory=list)

    @property
    def run(self) -> Run:
        return self.runs[-1]


class Server:
    """Everything of Temporal that an engine, a person and a worker of this deployment use."""

    def __init__(
        self, chance: random.Random, weather: Weather, *, history_suggested: int = SUGGEST_EVENTS
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.weather = weather
        self.executions: dict[str, Execution] = {}
        self.on_local: Callable[[Any, Any], None] = lambda asked, answered: None
        """Sees each local activity's input and result."""
        self.on_fault: Callable[[BaseException], None] = lambda fault: None
        self.counts: Counter[str] = Counter()
        self.billed: Counter[str] = Counter()
        """Temporal actions, as `benchmarks.temporal_actions` counts them."""
        self.handed_over: list[int] = []
        """Bytes of each input that continue-as-new carried."""
        self.worker_up = asyncio.Event()
        self.worker_up.set()
        self.keeps_history = True
        """Off, nothing can be replayed, and a month fits into memory."""
        self._suggested = history_suggested
        self._chance = chance
        self._epoch = 0
        self._workflows: dict[str, Any] = {}
        self._activities: dict[str, Any] = {}
        self._running: dict[int, asyncio.Task[Any]] = {}
        self._call = 0
        self._free_at = 0.0
        self._queue = asyncio.PriorityQueue[tuple[int, int, "asyncio.Future[None]"]]()

    # set-up

    def register(self, workflows: list[type], activities: list[Callable[..., Any]]) -> None:
        """What the worker can run."""
        for workflow in workflows:
            defn = temporalio.workflow._Definition.must_from_class(workflow)
            assert defn.name is not None
            self._workflows[defn.name] = defn
        for activity in activities:
            described = temporalio.activity._Definition.must_from_callable(activity)
            assert described.name is not None
            self._activities[described.name] = described

    def start(self, workflow_type: str, workflow_id: str, arg: Any) -> Execution:
        """Starts a workflow."""
        init = wa.InitializeWorkflow(
            workflow_type=workflow_type,
            workflow_id=workflow_id,
            arguments=_PAYLOADS.to_payloads([arg]),
            randomness_seed=self._chance.getrandbits(63),
            attempt=1,
        )
        execution = Execution(workflow_id, [])
        self.executions[workflow_id] = execution
        self._begin(execution, init, {})
        self.billed["start or continue-as-new"] += 1
        return execution

    @property
    def client(self) -> "Client":
        """What an engine is given."""
        return Client(self)

    def now(self) -> float:
        return BEGINNING + self._loop.time()

    # misfortune

    def crash(self, seconds: float) -> None:
        """`kill -9` of the worker process: what it held in memory and had under way is lost; another comes later."""
        self._epoch += 1
        self.counts["worker crashes"] += 1
        self.worker_up.clear()
        for task in self._running.values():
            task.cancel()
        self._running.clear()
        for execution in self.executions.values():
            self._evict(execution.run)
        asyncio.get_running_loop().call_later(seconds, self.worker_up.set)

    def _evict(self, run: Run) -> None:
        instance, run.instance = run.instance, None
        if instance is not None:
            job = wa.WorkflowActivationJob(remove_from_cache=wa.RemoveFromCache())
            _activate(instance, self._activation(run, [job], replaying=False))

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
                await self.worker_up.wait()
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
                resolutions.append(await self._local(command))
            if epoch != self._epoch:
                return self._lost(run, jobs, TASK_TIMEOUT_SECONDS)
            steps.append(self._activate(run, instance, resolutions))
        commands = [command for step in steps for command in step.commands]
        if run.inbox and any(command.HasField(name) for command in commands for name in _CLOSING):
            self.counts["closing refused: news came"] += 1
            return self._lost(run, jobs, 0.0)
        self.billed["planner (local activity)"] += len(steps) > 1
        if self.keeps_history:
            run.history += steps
        run.events += 3 + sum(len(step.activation.jobs) for step in steps)
        for command in commands:
            self._carry_out(run, command)
        if self._chance.random() < self.weather.evicted and not run.closed:
            self.counts["evicted"] += 1
            self._evict(run)
        return None

    def _lost(self, run: Run, jobs: list[wa.WorkflowActivationJob], seconds: float) -> None:
        """The task came to nothing: what it decided is forgotten, and its events come again."""
        self._evict(run)
        run.inbox = jobs + run.inbox
        asyncio.get_running_loop().call_later(seconds, run.stirred.set)

    def _activate(self, run: Run, instance: WorkflowInstance, jobs: list[wa.WorkflowActivationJob]) -> Step:
        activation = self._activation(run, jobs, replaying=False)
        return Step(activation, _commands(instance, activation))

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
        """The workflow as its history makes it; other commands than before are a fault."""
        instance = self._instance(run)
        for step in run.history:
            again = wa.WorkflowActivation()
            again.CopyFrom(step.activation)
            again.is_replaying = True
            for command in step.commands:
                if command.HasField("set_patch_marker"):
                    mark = wa.NotifyHasPatch(patch_id=command.set_patch_marker.patch_id)
                    again.jobs.append(wa.WorkflowActivationJob(notify_has_patch=mark))
            commands = _commands(instance, again)
            if commands != step.commands:
                raise NotReplayed(_difference(run, step.commands, commands))
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
            extern_functions={"__temporal_assert_local_activity_valid": self._known},
            disable_eager_activity_execution=True,
            worker_level_failure_exception_types=[],
            patch_activation_callback=None,
            last_completion_result=temporalio.api.common.v1.Payloads(),
            last_failure=None,
        )
        instance = UnsandboxedWorkflowRunner().create_instance(details)
        run.instance = instance
        return instance

    def _known(self, activity: str) -> None:
        if activity not in self._activities:
            raise ValueError(f"activity {activity} is not registered")

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
                self._spawn(self._perform(run, command.schedule_activity), f"activity of {run.id}")
            case "schedule_local_activity":
                run.events += 1
            case "upsert_workflow_search_attributes":
                run.events += 1
                self.billed["search attributes"] += 1
                self._show(execution)
            case "modify_workflow_properties":
                run.events += 1
                fields = command.modify_workflow_properties.upserted_memo.fields
                execution.memo |= {key: _PAYLOADS.from_payload(value) for key, value in fields.items()}
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
            execution.result = _PAYLOADS.from_payload(command.complete_workflow_execution.result)
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
        execution.memo = {key: _PAYLOADS.from_payload(value) for key, value in command.memo.items()}
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
                WorkflowUpdateFailedError(_FAILURES.from_failure(response.rejected, _PAYLOADS))
            )
        else:
            future.set_result(_PAYLOADS.from_payload(response.completed))

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

    async def _local(self, command: Any) -> wa.WorkflowActivationJob:
        defn = self._activities[command.activity_type]
        asked = _arguments(defn, command.arguments)
        environment = ActivityEnvironment()
        try:
            answered = await environment.run(defn.fn, *asked)
        except Exception as error:
            raise TaskFailed(
                f"the local activity {command.activity_type} raised {type(error).__name__}: {error}"
            ) from error
        self.on_local(asked[0], answered)
        result = ActivityResolution()
        result.completed.result.CopyFrom(_PAYLOADS.to_payload(answered))
        return wa.WorkflowActivationJob(
            resolve_activity=wa.ResolveActivity(seq=command.seq, result=result, is_local=True)
        )

    async def _perform(self, run: Run, command: Any) -> None:
        """An activity with its attempts, until one succeeds, one fails for good, or time is up."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        policy, most = command.retry_policy, _seconds(command.schedule_to_close_timeout)
        expires = began + most if most else float("inf")
        per_try = _seconds(command.start_to_close_timeout) or most
        attempt, interval = 1, _seconds(policy.initial_interval) or 1.0
        while True:
            await self._slot(command)
            if run.closed:
                return  # nobody asks for it any more; only an attempt that is under way goes on
            if loop.time() >= expires:
                failure = _timed_out(
                    "activity ScheduleToStart timeout", TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_START
                )
                break
            failure = await self._attempt(run, command, attempt, min(per_try, expires - loop.time()))
            if failure is None:
                return
            info = failure.application_failure_info
            said = info.next_retry_delay
            pause = _seconds(said) if info.HasField("next_retry_delay") else interval
            interval = min(
                interval * (policy.backoff_coefficient or 2.0), _seconds(policy.maximum_interval) or 100.0
            )
            final = failure.HasField("application_failure_info") and info.non_retryable
            if final or loop.time() + pause >= expires:
                break
            attempt += 1
            self.counts["activity retries"] += 1
            await asyncio.sleep(pause)
        whole = Failure(message="Activity task failed", cause=failure)
        whole.activity_failure_info.activity_id = command.activity_id
        whole.activity_failure_info.activity_type.name = command.activity_type
        whole.activity_failure_info.retry_state = RetryState.RETRY_STATE_NON_RETRYABLE_FAILURE
        resolution = ActivityResolution()
        resolution.failed.failure.CopyFrom(whole)
        self._resolve(run, command.seq, resolution)

    async def _attempt(self, run: Run, command: Any, attempt: int, seconds: float) -> Failure | None:
        """None: it succeeded. An attempt that outlives its time goes on beside the next one, as on a real worker."""
        defn = self._activities[command.activity_type]
        asked = _arguments(defn, command.arguments)
        environment = ActivityEnvironment()
        environment.info = replace(
            environment.info,
            attempt=attempt,
            activity_type=command.activity_type,
            started_time=datetime.fromtimestamp(self.now(), UTC),
        )
        self._call += 1
        call = self._call
        task = asyncio.get_running_loop().create_task(
            _quietly(environment.run(defn.fn, *asked)), name=command.activity_type
        )
        self._running[call] = task
        done, _ = await asyncio.wait([task], timeout=seconds)
        if task.cancelled() or (not done):
            if not task.cancelled() and call in self._running:
                task.add_done_callback(lambda _: self._running.pop(call, None))
            else:  # the worker died: the service learns it when the time is up
                await asyncio.sleep(max(0.0, seconds - 0.0))
            return _timed_out("activity StartToClose timeout", TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE)
        self._running.pop(call, None)
        error, answered = task.result()
        if error is not None:
            failure = Failure()
            _FAILURES.to_failure(error, _PAYLOADS, failure)
            return failure
        resolution = ActivityResolution()
        resolution.completed.SetInParent()
        resolution.completed.result.CopyFrom(_PAYLOADS.to_payload(answered))
        self._resolve(run, command.seq, resolution)
        return None

    def _resolve(self, run: Run, seq: int, resolution: ActivityResolution) -> None:
        if not run.closed:
            self._post(
                run, wa.WorkflowActivationJob(resolve_activity=wa.ResolveActivity(seq=seq, result=resolution))
            )

    async def _slot(self, command: Any) -> None:
        """The task queue's rate, and a worker that is there."""
        loop = asyncio.get_running_loop()
        await self.worker_up.wait()
        at = loop.time()
        if command.task_queue == MARKET_TASK_QUEUE:
            at = max(at, self._free_at)
            self._free_at = at + 1.0 / self.weather.calls_per_second
        await asyncio.sleep(at - loop.time() + self._chance.uniform(0.5, 1.5) * self.weather.task_seconds)
        await self.worker_up.wait()

    # calls from outside

    async def rpc(self) -> Callable[[], None]:
        """The way of a call: raises if it is lost on the way there; what it answers raises if the answer is lost."""
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
        """Delivers a signal to the run that is live now."""
        run = self.live(workflow_id)
        run.events += 1
        self.billed["signal"] += 1
        job = wa.SignalWorkflow(
            signal_name=name, input=_PAYLOADS.to_payloads(args), originating_event_id=run.events
        )
        self._post(run, wa.WorkflowActivationJob(signal_workflow=job))

    def update(self, workflow_id: str, name: str, args: list[Any]) -> "asyncio.Future[Any]":
        """Asks for an update."""
        run = self.live(workflow_id)
        key = f"update-{self._chance.getrandbits(48):012x}"
        future = run.updates[key] = asyncio.get_running_loop().create_future()
        job = wa.DoUpdate(
            id=key, protocol_instance_id=key, name=name, input=_PAYLOADS.to_payloads(args), run_validator=True
        )
        self._post(run, wa.WorkflowActivationJob(do_update=job))
        return future

    def query(self, workflow_id: str, name: str, args: list[Any]) -> Any:
        """Asks the workflow as it is now."""
        run = self.found(workflow_id).run
        instance = run.instance or self.replay(run)
        job = wa.QueryWorkflow(query_id="q", query_type=name, arguments=_PAYLOADS.to_payloads(args))
        activation = self._activation(run, [wa.WorkflowActivationJob(query_workflow=job)], replaying=False)
        [command] = _commands(instance, activation)
        if command.respond_to_query.HasField("failed"):
            raise RuntimeError(command.respond_to_query.failed.message)
        return _PAYLOADS.from_payload(command.respond_to_query.succeeded.response)


@dataclass(frozen=True, slots=True)
class Seen:
    """An execution as a list or a description shows it."""

    id: str
    status: WorkflowExecutionStatus
    run_id: str
    _memo: dict[str, Any]

    async def memo_value(self, key: str, default: Any = None) -> Any:
        return self._memo.get(key, default)

    async def memo(self) -> dict[str, Any]:
        return self._memo


@dataclass(frozen=True, slots=True)
class Handle:
    """`WorkflowHandle`, as far as it is used."""

    server: Server
    id: str

    async def signal(
        self, name: str, arg: Any = temporalio.common._arg_unset, *, args: Any = (), rpc_timeout: Any = None
    ) -> None:
        answer = await self.server.rpc()
        sent = list(args) if arg is temporalio.common._arg_unset else [arg]
        self.server.signal(self.id, name, sent)
        answer()

    async def describe(self, *, rpc_timeout: Any = None) -> Seen:
        answer = await self.server.rpc()
        execution = self.server.found(self.id)
        answer()
        return Seen(execution.id, execution.status, execution.run.id, dict(execution.memo))

    async def execute_update(self, name: str, arg: Any = temporalio.common._arg_unset, **_: Any) -> Any:
        await self.server.rpc()
        return await self.server.update(self.id, name, [] if arg is temporalio.common._arg_unset else [arg])

    async def query(self, name: str, *args: Any, **_: Any) -> Any:
        await self.server.rpc()
        return self.server.query(self.id, name, list(args))


@dataclass(frozen=True, slots=True)
class Client:
    """`temporalio.client.Client`, as far as it is used."""

    server: Server

    def get_workflow_handle(self, workflow_id: str, **_: Any) -> Handle:
        return Handle(self.server, workflow_id)

    async def start_workflow(self, run: Any, arg: Any, *, id: str, **_: Any) -> Handle:  # noqa: A002
        defn = temporalio.workflow._Definition.must_from_run_fn(run)
        self.server.start(str(defn.name), id, arg)
        return Handle(self.server, id)

    async def list_workflows(self, query: str, **_: Any) -> AsyncIterator[Seen]:
        answer = await self.server.rpc()
        seen_at = self.server.now() - self.server.weather.visibility_seconds
        since = None
        if "FleetChangedAt >" in query:
            since = datetime.fromisoformat(
                query.split("FleetChangedAt > '")[1].split("'", maxsplit=1)[0]
            ).timestamp()
        for execution in list(self.server.executions.values()):
            shown = [each for each in execution.shown if each[0] <= seen_at]
            if not shown:
                continue
            _, memo, status = shown[-1]
            if since is None and status is not WorkflowExecutionStatus.RUNNING:
                continue
            if MEMO_KEY not in memo or (since is not None and memo[MEMO_KEY].get("changed_at", 0.0) <= since):
                continue
            yield Seen(execution.id, status, execution.run.id, memo)
        answer()


def _activate(instance: WorkflowInstance, activation: wa.WorkflowActivation) -> Any:
    """A workflow is a loop of its own, and leaves none running behind it: a real worker gives it a thread."""
    loop = asyncio.get_running_loop()
    try:
        return instance.activate(activation)
    finally:
        asyncio._set_running_loop(loop)


def _commands(instance: WorkflowInstance, activation: wa.WorkflowActivation) -> list[WorkflowCommand]:
    completion = _activate(instance, activation)
    if completion.HasField("failed"):
        failure = completion.failed.failure
        raise TaskFailed(
            f"workflow code raised {failure.application_failure_info.type}: {failure.message}\n{failure.stack_trace}"
        )
    return list(completion.successful.commands)


def _arguments(defn: Any, payloads: Any) -> list[Any]:
    return _PAYLOADS.from_payloads(list(payloads), defn.arg_types)


async def _quietly(work: Any) -> tuple[BaseException | None, Any]:
    """The outcome as a value: an error that nobody collects any more is no error of the run."""
    try:
        return None, await work
    except Exception as error:  # noqa: BLE001 - that is what activities do here
        return error, None


def _seconds(duration: Duration) -> float:
    return duration.ToNanoseconds() / 1e9


def _timed_out(said: str, kind: Any) -> Failure:
    failure = Failure(message=said)
    failure.timeout_failure_info.timeout_type = kind
    return failure


def _difference(run: Run, before: list[WorkflowCommand], after: list[WorkflowCommand]) -> str:
    kinds = [[str(command.WhichOneof("variant")) for command in commands] for commands in (before, after)]
    if kinds[0] != kinds[1]:
        return f"{run.id}: the replay gave the commands {kinds[1]}, first it gave {kinds[0]}"
    pairs = next((b, a) for b, a in zip(before, after, strict=True) if a != b)
    return f"{run.id}: the replay gave\n{str(pairs[1])[:1500]}\nfirst it gave\n{str(pairs[0])[:1500]}"
