"""An exchange whose answer a hook of the user's makes: a `response_generator`, or a `remote_function` without a model."""

import asyncio
import time
from typing import TYPE_CHECKING, Any

import structlog

from stoker_pyworker.http.connection import ClientConnection
from stoker_pyworker.http.messages import header_fields
from stoker_pyworker.http.outgoing import OriginFault
from stoker_pyworker.http.request import Request
from stoker_pyworker.proxy.exchange import Exchange
from stoker_pyworker.proxy.hooks import ClientRequest, ModelResponse, is_streamed, json_response, whole
from stoker_pyworker.proxy.request_envelope import Asked
from stoker_pyworker.proxy.routes import PreparedRoute
from stoker_pyworker.reporting.request_counts import Outcome, Work
from stoker_wire.problem import Problem

if TYPE_CHECKING:
    from stoker_pyworker.proxy.admission import RequestProxy
    from stoker_pyworker.proxy.sessions import Session

log = structlog.get_logger(room="hooks")


class HookExchange(Exchange):
    """Runs the hook in a task; the client's leaving cancels it."""

    __slots__ = ("_model", "_payload", "_task", "_view")

    def __init__(
        self,
        proxy: "RequestProxy",
        client: ClientConnection,
        request: Request,
        route: PreparedRoute,
        asked: Asked,
        work: Work,
        session: "Session | None",
        payload: dict[str, Any] | None,
    ) -> None:
        super().__init__(proxy, client, request, route, asked, work, session)
        self._payload = payload
        self._view = ClientRequest(request, client)
        self._model: ModelResponse | None = None
        self._task: asyncio.Task[None] | None = None

    def turn(self) -> None:
        """Our turn: the hook starts."""
        self.sent()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def client_gone(self) -> None:
        """Nobody reads the answer: hook and model can stop at once."""
        if not self._ended:
            self._stop()
            self._end(Outcome.CANCELLED)

    def client_full(self) -> None:
        """The hook's writes wait."""
        self._view.room.clear()

    def client_drained(self) -> None:
        """The hook may write again."""
        self._view.room.set()

    def cut(self, outcome: Outcome, problem: Problem) -> None:
        """End it from our side."""
        if not self._ended:
            self._stop()
            self._head_sent = self.client.answering
            super().cut(outcome, problem)

    def _end(self, outcome: Outcome) -> None:
        self._view.over = True
        super()._end(outcome)

    def _stop(self) -> None:
        self._view.room.set()
        if self._task is not None:
            self._task.cancel()
        if self._model is not None:
            self._proxy.pool.cancel(self._model)

    async def _run(self) -> None:
        try:
            answer = await self._answer()
            if self._ended:
                return
            if self._model is not None:
                self._proxy.pool.cancel(self._model)
            self._send(answer)
        except OriginFault as fault:
            self._head_sent = self.client.answering
            self.fault(fault)
        except asyncio.CancelledError:
            if self._ended:
                raise
            self._hook_failed("it was cancelled by itself")
        except Problem as problem:
            self._refused(problem)
        except Exception as fault:  # noqa: BLE001 - the user's code; its fault is this request's, not the worker's
            self._hook_failed(repr(fault))

    async def _answer(self) -> Any:
        config = self.route.config
        if config.remote_function is not None:
            return json_response({"result": await config.remote_function(**(self._payload or {}))})
        model = self._model = ModelResponse()
        self._proxy.pool.submit(model, self.route.to_model(self.request, self.asked))
        await model.started()
        assert config.response_generator is not None
        return await config.response_generator(self._view, model)

    def _send(self, answer: Any) -> None:
        timing = b"queue;dur=%.2f, model;dur=%.2f" % (
            (self._turn_at - self.entered) * 1e3,
            (time.perf_counter() - self._turn_at) * 1e3,
        )
        if is_streamed(answer):
            self._end(Outcome.SUCCESS if answer.status < 500 else Outcome.ERROR)
            self.client.finish()
        elif (answer := whole(given := answer)) is not None:
            # Whatever cannot be sent raises before the books are closed.
            status, body = _status(answer.status), bytes(answer.body)
            fields = {name.lower(): value for name, value in answer.headers.items()}
            for name in ("content-type", "content-length", "transfer-encoding", "connection"):
                fields.pop(name, None)
            headers = header_fields(fields)
            ((_, kind),) = header_fields({"content-type": answer.content_type}, "utf-8")
            self._end(Outcome.SUCCESS if status < 500 else Outcome.ERROR)
            mine = ((b"server-timing", timing), (b"x-stoker-worker", self._proxy.worker_id))
            self.client.answer(status, body, content_type=kind, headers=headers + mine)
        else:
            log.error("hook_returned_no_response", route=self.route.config.route, kind=type(given).__name__)
            self._fail()

    def _refused(self, problem: Problem) -> None:
        """The request is not what the hook takes: the client's fault, not the hook's."""
        if self._ended or self.client.answering:
            self._hook_failed(repr(problem))
            return
        self._end(Outcome.ERROR)
        if self._model is not None:
            self._proxy.pool.cancel(self._model)
        self.client.refuse(problem)

    def _hook_failed(self, error: str) -> None:
        log.error("hook_failed", route=self.route.config.route, error=error[:300])
        self._fail()

    def _fail(self) -> None:
        if self._ended:
            return
        self._end(Outcome.ERROR)
        if self._model is not None:
            self._proxy.pool.cancel(self._model)
        if self.client.answering:
            self.client.abort()
        else:
            message = "the worker's own code failed on this request; see its log"
            self.client.refuse(Problem(500, "hook_failed", message))


def _status(status: object) -> int:
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise ValueError(f"a status from 200 to 599 was expected, {status!r} came")
    return status
