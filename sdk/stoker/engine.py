"""Calls of the engine's HTTP API, and the errors that its answers stand for."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any, NoReturn

import httpx
from pydantic import ValidationError

from stoker.errors import (
    CertificateNotTrusted,
    EndpointNotFound,
    EngineUnavailable,
    Invalid,
    MalformedAnswer,
    NotFound,
    Refused,
    StokerError,
    Unauthorised,
)
from stoker.requests.retry.backoff import RetryPolicy, retry_after
from stoker.requests.tracing import NO_FIELDS
from stoker.settings import CA_VARIABLE
from stoker.transport import ConnectionPool
from stoker_wire.errors.picklable import PicklableError
from stoker_wire.errors.problem import describe
from stoker_wire.parsing.strict_json import NotJson, parse_answer
from stoker_wire.route import Route, RouteAnswer, RouteRequest, Waiting, is_route
from stoker_wire.security.certificate_faults import certificate_fault

WORKER_AUTHORITY_PATH = "/static/jvastai_root.cer"
"""The path that official clients use."""

ROUTE_SECONDS_MAX = 20.0
"""The engine holds a route call for 8 s at most; a longer call is lost."""

CALL_SECONDS_MAX = 60.0

_TRANSIENT_STATUSES = frozenset({429, 500, 502, 503, 504})
RATE_LIMIT_CODE = "key_load_per_second"
"""Problem code of a named key whose rate is used up for some seconds."""
_USED_UP_CODE = "key_dollars_per_day"
_NOT_BEGUN_CODES = frozenset({"endpoints_not_read", "endpoint_deleting", "starting"})
"""Problem codes of an engine that has not begun the call."""


class TransientEngineError(PicklableError, Exception):
    """The engine did not answer, or answered that it cannot serve the call now."""

    def __init__(
        self,
        sentence: str,
        *,
        may_have_arrived: bool,
        retry_after_s: float | None = None,
        refusal: Refused | None = None,
        message: str = "",
        code: str = "",
    ) -> None:
        self.sentence = sentence
        self.may_have_arrived = may_have_arrived
        """Whether the engine may have carried out the call."""
        self.retry_after_s = retry_after_s
        """The engine's `Retry-After`, s."""
        self.refusal = refusal
        """Set when the engine named the fault: a repetition would get the same answer."""
        self.message = message
        """The message of the engine's error answer; "" without an answer."""
        self.code = code
        """Its problem code."""
        super().__init__(sentence)


class Outage:
    """The length of an outage, without the time in which this process was suspended."""

    def __init__(self, began_at: float, *, step_seconds_max: float = ROUTE_SECONDS_MAX + 10) -> None:
        """`began_at`: when the first call that failed began, monotonic clock."""
        self.seconds = 0.0
        self._step_seconds_max = step_seconds_max
        self._counted_to = began_at

    def failed(self) -> float:
        """Another call has failed. Returns the seconds so far."""
        now = time.monotonic()
        # A call and the pause before it take no longer, unless the process was suspended.
        self.seconds += min(now - self._counted_to, self._step_seconds_max)
        self._counted_to = now
        return self.seconds


class Engine:
    """One engine (or several behind one address)."""

    def __init__(self, url: str, pool: ConnectionPool, policy: RetryPolicy) -> None:
        self.url = url
        self._pool = pool
        self._policy = policy

    async def route(
        self, request: RouteRequest, *, key: str, trace: Mapping[str, str] = NO_FIELDS
    ) -> tuple[RouteAnswer, dict[str, Any]]:
        """Ask once for a worker. Returns the parsed answer, and its JSON, which the worker must receive.

        `trace` are the header fields of the request's trace.

        Raises:
            TransientEngineError: no answer, or a server error; repeat the call.
            Unauthorised, EndpointNotFound, Refused, MalformedAnswer, CertificateNotTrusted: a repetition would not help.
        """
        body = request.model_dump(exclude={"api_key"})
        for name in ("failed_url", "unread", "fingerprint", "affinity"):
            if not body[name]:
                del body[name]
        response = await self._send(
            "POST", "/route/", key=key, body=body, read_seconds_max=ROUTE_SECONDS_MAX, trace=trace
        )
        if not response.is_success:
            self._refuse(response, request.endpoint)
        answer = self._object(response)
        try:
            if is_route(answer):
                return Route.model_validate(answer), answer
            return Waiting.model_validate({"status": "waiting", **answer}), answer
        except ValidationError as fault:
            raise MalformedAnswer(
                f"{self.url}/route/ answered neither a route nor a wait: {describe(fault)}; "
                "is this address a stoker engine of this version?"
            ) from None

    async def worker_authority(self) -> str | None:
        """The root certificate of this deployment's workers, in PEM; None: workers need no root certificate, or the engine does not answer."""
        try:
            response = await self._send(
                "GET", WORKER_AUTHORITY_PATH, key="", body=None, read_seconds_max=CALL_SECONDS_MAX
            )
        except (TransientEngineError, StokerError):
            return None
        return response.text if response.is_success else None

    async def call(
        self,
        method: str,
        path: str,
        *,
        key: str,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
        what: str = "",
        repeatable: bool = True,
    ) -> Any:
        """A management call, retried during an outage of the engine.

        A call that is not repeatable is retried only if it certainly did not arrive. Otherwise the engine may have
        carried it out and lost the answer.

        Raises:
            EngineUnavailable: the outage was longer than tolerated.
            Unauthorised, NotFound, Refused, MalformedAnswer: by the engine's answer.
        """
        outage = Outage(time.monotonic(), step_seconds_max=CALL_SECONDS_MAX + 10)
        tries = 0
        while True:
            try:
                response = await self._send(
                    method, path, key=key, body=body, params=params, read_seconds_max=CALL_SECONDS_MAX
                )
            except TransientEngineError as error:
                outage_s = outage.failed()
                if error.refusal is not None:
                    raise error.refusal from None
                if error.may_have_arrived and not repeatable:
                    raise EngineUnavailable(
                        f"the engine at {self.url} may or may not have done it ({error.sentence}); "
                        "look before you repeat it"
                    ) from None
                if outage_s >= self._policy.engine_outage_seconds_max:
                    raise self.unavailable(error, outage_s) from None
                if self._policy.on_outage is not None:
                    self._policy.on_outage(outage_s, error.message or error.sentence)
                tries += 1
                await asyncio.sleep(error.retry_after_s or self._policy.pause(tries))
                continue
            if not response.is_success:
                self._refuse(response, what)
            answer = self._json(response)
            if isinstance(answer, dict) and answer.get("success") is False:
                code, message = problem_of(response)
                if code.startswith("no_such_"):
                    raise (EndpointNotFound if "endpoint" in code else NotFound)(message)
                raise Refused(message or "the engine refused without a reason", status=200, code=code)
            return answer

    def unavailable(self, error: TransientEngineError, outage_s: float) -> EngineUnavailable:
        """The error for an outage of `outage_s` seconds, or for a call that failed as long."""
        lasting = f" for {outage_s:.0f} s" if outage_s >= 1 else ""
        if error.message:
            return EngineUnavailable(f"the engine at {self.url} could not do it{lasting}: {error.message}")
        return EngineUnavailable(
            f"the engine at {self.url} has not answered{lasting} ({error.sentence}); "
            "check the address and that the engine runs"
        )

    async def _send(
        self,
        method: str,
        path: str,
        *,
        key: str,
        body: Mapping[str, Any] | None,
        read_seconds_max: float,
        params: Mapping[str, str] | None = None,
        trace: Mapping[str, str] = NO_FIELDS,
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        headers.update(trace)
        content = None
        if body is not None:
            try:
                content = json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
            except (TypeError, ValueError) as fault:
                raise Invalid(f"cannot send this as JSON: {fault}") from None
            headers["Content-Type"] = "application/json"
        try:
            response = await self._pool.fetch(
                method,
                self.url + path,
                content=content,
                headers=headers,
                params=params,
                read_seconds_max=read_seconds_max,
            )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as fault:
            if (reason := certificate_fault(fault)) is not None:
                raise CertificateNotTrusted(
                    f"the certificate of the engine at {self.url} is not trusted: {reason}; use the host name that the "
                    f"certificate is for, or name the issuer's certificate in {CA_VARIABLE}"
                ) from None
            raise TransientEngineError(
                f"connection failed: {fault or type(fault).__name__}", may_have_arrived=False
            ) from None
        except httpx.TransportError as fault:
            raise TransientEngineError(
                f"connection lost: {fault or type(fault).__name__}", may_have_arrived=True
            ) from None
        except httpx.DecodingError as fault:
            raise MalformedAnswer(
                f"{self.url} answered with bytes that do not match their content encoding: {fault}; "
                "is this address a stoker engine?"
            ) from None
        except httpx.InvalidURL as fault:
            raise Invalid(f"cannot call {self.url}: {fault}") from None
        if response.status_code in _TRANSIENT_STATUSES:
            code, message = problem_of(response)
            status = response.status_code
            named = bool(code) and status in {500, 502}
            if code == _USED_UP_CODE:
                raise Refused(message, status=status, code=code)
            raise TransientEngineError(
                f"it answered {status}{': ' + message if message else ''}",
                may_have_arrived=status != 429 and code not in _NOT_BEGUN_CODES,
                retry_after_s=retry_after(response.headers.get("Retry-After"), seconds_max=30.0),
                refusal=Refused(message, status=status, code=code) if named else None,
                message=message if code else "",
                code=code,
            )
        return response

    def _refuse(self, response: httpx.Response, what: str) -> NoReturn:
        code, message = problem_of(response)
        status = response.status_code
        if status in {401, 403}:
            raise Unauthorised(
                message
                or f"the engine at {self.url} refused the key ({status}); check STOKER_API_KEY or api_key=…"
            )
        if status == 404 and (code or message):
            if "endpoint" in code or response.request.url.path.endswith("/route/"):
                raise EndpointNotFound(
                    message or f"{self.url} knows no endpoint {what!r}; see `stoker endpoints list`"
                )
            raise NotFound(message)
        if status == 404:
            raise MalformedAnswer(
                f"{response.request.url.copy_with(query=None)} does not exist (404 without a reason); "
                "is this address a stoker engine?"
            )
        if 300 <= status < 400:
            raise MalformedAnswer(
                f"{self.url} redirects to {response.headers.get('Location', '?')!r:.200}; give that address as url=…"
            )
        raise Refused(
            message or f"the engine at {self.url} answered {status} without a reason",
            status=status,
            code=code,
        )

    def _json(self, response: httpx.Response) -> Any:
        try:
            return parse_answer(response.content)
        except NotJson:
            kind = response.headers.get("Content-Type", "no content type")
            raise MalformedAnswer(
                f"{response.request.url.copy_with(query=None)} answered {response.status_code} with {kind} that is no "
                "JSON; is this address a stoker engine?"
            ) from None

    def _object(self, response: httpx.Response) -> dict[str, Any]:
        answer = self._json(response)
        if not isinstance(answer, dict):
            raise MalformedAnswer(
                f"{response.request.url.copy_with(query=None)} answered a JSON {type(answer).__name__}, "
                "expected an object"
            )
        return answer


def problem_of(response: httpx.Response) -> tuple[str, str]:
    """Code and message of an error answer, "" where it has none."""
    try:
        body = parse_answer(response.content)
    except NotJson:
        return "", ""
    if not isinstance(body, dict):
        return "", ""
    code = body.get("code") or body.get("error")
    message = body.get("msg") or body.get("error_msg") or body.get("detail") or code
    return str(code or "")[:200], str(message or "")[:2000]
