"""Runs activities with attempts, timeouts and backoff, and local activities inside a workflow task."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import temporalio.activity
import temporalio.bridge.proto.workflow_activation as wa
from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import RetryState, TimeoutType
from temporalio.api.failure.v1 import Failure
from temporalio.bridge.proto.activity_result import ActivityResolution
from temporalio.testing import ActivityEnvironment

from stoker_wire.control import MARKET_TASK_QUEUE
from tests.seeded.temporal.executions import FAILURES, PAYLOADS, Run, TaskFailed, Weather


class ActivityRunner:
    """Runs the activities that workflows schedule, while a worker is up."""

    def __init__(
        self,
        chance: random.Random,
        weather: Weather,
        counts: Counter[str],
        *,
        now: Callable[[], float],
        resolve: Callable[[Run, int, ActivityResolution], None],
    ) -> None:
        self.up = asyncio.Event()
        self.up.set()
        self.on_local: Callable[[Any, Any], None] = lambda asked, answered: None
        """Called with each local activity's input and result."""
        self._chance = chance
        self._weather = weather
        self._counts = counts
        self._now = now
        self._resolve = resolve
        self._activities: dict[str, Any] = {}
        self._running: dict[int, asyncio.Task[Any]] = {}
        self._call = 0
        self._free_at = 0.0

    def register(self, activities: list[Callable[..., Any]]) -> None:
        """Registers what the worker can run."""
        for activity in activities:
            described = temporalio.activity._Definition.must_from_callable(activity)
            assert described.name is not None
            self._activities[described.name] = described

    def known(self, activity: str) -> None:
        """Raises for an activity that is not registered."""
        if activity not in self._activities:
            raise ValueError(f"activity {activity} is not registered")

    def die(self) -> None:
        """The worker is killed: its running activities are lost."""
        self.up.clear()
        for task in self._running.values():
            task.cancel()
        self._running.clear()

    async def local(self, command: Any) -> wa.WorkflowActivationJob:
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
        result.completed.result.CopyFrom(PAYLOADS.to_payload(answered))
        return wa.WorkflowActivationJob(
            resolve_activity=wa.ResolveActivity(seq=command.seq, result=result, is_local=True)
        )

    async def perform(self, run: Run, command: Any) -> None:
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
                return  # no caller waits for it any more; only a running attempt continues
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
            self._counts["activity retries"] += 1
            await asyncio.sleep(pause)
        whole = Failure(message="Activity task failed", cause=failure)
        whole.activity_failure_info.activity_id = command.activity_id
        whole.activity_failure_info.activity_type.name = command.activity_type
        whole.activity_failure_info.retry_state = RetryState.RETRY_STATE_NON_RETRYABLE_FAILURE
        resolution = ActivityResolution()
        resolution.failed.failure.CopyFrom(whole)
        self._resolve(run, command.seq, resolution)

    async def _attempt(self, run: Run, command: Any, attempt: int, seconds: float) -> Failure | None:
        """Returns None on success. An attempt beyond its timeout continues beside the next one, as on a real worker."""
        defn = self._activities[command.activity_type]
        asked = _arguments(defn, command.arguments)
        environment = ActivityEnvironment()
        environment.info = replace(
            environment.info,
            attempt=attempt,
            activity_type=command.activity_type,
            started_time=datetime.fromtimestamp(self._now(), UTC),
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
            else:  # the worker died: the server notices it at the timeout
                await asyncio.sleep(max(0.0, seconds - 0.0))
            return _timed_out("activity StartToClose timeout", TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE)
        self._running.pop(call, None)
        error, answered = task.result()
        if error is not None:
            failure = Failure()
            FAILURES.to_failure(error, PAYLOADS, failure)
            return failure
        resolution = ActivityResolution()
        resolution.completed.SetInParent()
        resolution.completed.result.CopyFrom(PAYLOADS.to_payload(answered))
        self._resolve(run, command.seq, resolution)
        return None

    async def _slot(self, command: Any) -> None:
        """Waits for the task queue's rate and for a running worker."""
        loop = asyncio.get_running_loop()
        await self.up.wait()
        at = loop.time()
        if command.task_queue == MARKET_TASK_QUEUE:
            at = max(at, self._free_at)
            self._free_at = at + 1.0 / self._weather.calls_per_second
        await asyncio.sleep(at - loop.time() + self._chance.uniform(0.5, 1.5) * self._weather.task_seconds)
        await self.up.wait()


def _arguments(defn: Any, payloads: Any) -> list[Any]:
    return PAYLOADS.from_payloads(list(payloads), defn.arg_types)


async def _quietly(work: Any) -> tuple[BaseException | None, Any]:
    """The outcome as a value: an error without a waiting caller is not an error of the run."""
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
