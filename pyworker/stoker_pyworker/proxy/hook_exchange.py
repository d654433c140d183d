"""An exchange whose response comes from user code: a `response_generator`, or a `remote_function` without a model."""

import asyncio
import time
from typing import Any

import structlog

from stoker_pyworker.proxy.exchange import CallHolder, Exchange, ExchangeOwner
from stoker_pyworker.proxy.hooks import ClientRequest, ModelResponse, as_response, is_streamed, json_response
from stoker_pyworker.proxy.request_envelope import ParsedRequest
from stoker_pyworker.proxy.routes import PreparedRoute
from stoker_pyworker.reporting.request_counts import Outcome, Work
from stoker_wire.errors.problem import Problem
from stoker_wire.http1.messages import header_fields
from stoker_wire.http1.response_cycle import ResponseCycle
from stoker_wire.http1.upstream_connection import UpstreamError

log = structlog.get_logger(component="hooks")


class HookExchange(Exchange):
    """Runs the hook in a task, which is cancelled when the client disconnects."""

    __slots__ = ("_model", "_payload", "_task", "_view")

    def __init__(
        self,
        owner: ExchangeOwner,
        cycle: ResponseCycle,
        route: PreparedRoute,
        parsed: ParsedRequest,
        work: Work,
        holder: CallHolder | None,
        payload: dict[str, Any] | None,
    ) -> None:
        super().__init__(owner, cycle, route, parsed, work, holder)
        self._payload = payload
        self._view = ClientRequest(cycle)
        self._model: ModelResponse | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the hook."""
        self.sent()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def client_disconnected(self) -> None:
        """Cancel the hook and the model's work."""
        if not self._ended:
            self._stop()
            self._end(Outcome.CANCELLED)

    def pause_writing(self) -> None:
        """Block the hook's writes."""
        self._view.writable.clear()

    def resume_writing(self) -> None:
        """Unblock the hook's writes."""
        self._view.writable.set()

    def cancel(self, outcome: Outcome, problem: Problem) -> None:
        """End the exchange because its session has ended or the worker stops."""
        if not self._ended:
            self._stop()
            self._head_sent = self.cycle.started
            super().cancel(outcome, problem)

    def _end(self, outcome: Outcome) -> None:
        self._view.ended = True
        super()._end(outcome)

    def _stop(self) -> None:
        self._view.writable.set()
        if self._task is not None:
            self._task.cancel()
        self._cancel_model()

    def _cancel_model(self) -> None:
        if self._model is not None:
            self._owner.pool.cancel(self._model)

    async def _run(self) -> None:
        try:
            answer = await self._call_hook()
            if self._ended:
                return
            self._cancel_model()
            self._send(answer)
        except UpstreamError as fault:
            self._head_sent = self.cycle.started
            self.fault(fault)
        except asyncio.CancelledError:
            if self._ended:
                raise
            self._hook_failed("it raised CancelledError")
        except Problem as problem:
            self._refused(problem)
        except Exception as fault:  # noqa: BLE001 - user code; its error fails this request, not the worker
            self._hook_failed(repr(fault))

    async def _call_hook(self) -> Any:
        config = self.route.config
        if config.remote_function is not None:
            return json_response({"result": await config.remote_function(**(self._payload or {}))})
        model = self._model = ModelResponse()
        self._owner.pool.submit(model, self.route.upstream_request(self.cycle.request, self.parsed))
        await model.started()
        assert config.response_generator is not None
        return await config.response_generator(self._view, model)

    def _send(self, answer: Any) -> None:
        timing = b"queue;dur=%.2f, model;dur=%.2f" % (
            (self.started_at - self.entered_at) * 1e3,
            (time.perf_counter() - self.started_at) * 1e3,
        )
        if is_streamed(answer):
            self._end(Outcome.SUCCESS if answer.status < 500 else Outcome.ERROR)
            self.cycle.finish()
        elif (response := as_response(answer)) is not None:
            # Values that cannot be sent raise here, before the request is counted as ended.
            status, body = _checked_status(response.status), bytes(response.body)
            fields = {name.lower(): value for name, value in response.headers.items()}
            for name in ("content-type", "content-length", "transfer-encoding", "connection"):
                fields.pop(name, None)
            headers = header_fields(fields)
            ((_, kind),) = header_fields({"content-type": response.content_type}, "utf-8")
            self._end(Outcome.SUCCESS if status < 500 else Outcome.ERROR)
            own = ((b"server-timing", timing), (b"x-stoker-worker", self._owner.worker_id))
            self.cycle.respond(status, body, content_type=kind, headers=headers + own)
        else:
            log.error("hook_returned_no_response", route=self.route.config.route, kind=type(answer).__name__)
            self._fail()

    def _refused(self, problem: Problem) -> None:
        """Answer with the problem: the request is invalid, so the hook did not fail."""
        if self._ended or self.cycle.started:
            self._hook_failed(repr(problem))
            return
        self._end(Outcome.ERROR)
        self._cancel_model()
        self.cycle.respond_problem(problem)

    def _hook_failed(self, error: str) -> None:
        log.error("hook_failed", route=self.route.config.route, error=error[:300])
        self._fail()

    def _fail(self) -> None:
        if self._ended:
            return
        self._end(Outcome.ERROR)
        self._cancel_model()
        if self.cycle.started:
            self.cycle.abort()
        else:
            message = "the worker's own code failed on this request; see its log"
            self.cycle.respond_problem(Problem(500, "hook_failed", message))


def _checked_status(status: object) -> int:
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise ValueError(f"expected a status from 200 to 599, received {status!r}")
    return status
