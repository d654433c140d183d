"""The pages, their live updates, and the actions that they offer. Actions are calls of the engine's console API."""

import asyncio
import json
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

import stoker
from dashboard.forms import ADVISABLE, FIELDS, read_fields, read_form
from dashboard.history import History
from dashboard.rendering import (
    DECISIONS_SHOWN,
    RANGES,
    charts,
    environment,
    numbered,
    rows,
    worker_rows,
)
from dashboard.sampler import Account, Details, Sampler
from dashboard.sessions import Session, Sessions, accepts_token
from dashboard.settings import DashboardSettings
from dashboard.sign_in_limit import SignInLimit, client_address
from stoker_wire.problem import Problem

COOKIE = "stoker_session"
_SESSION: web.RequestKey[Session] = web.RequestKey("session", Session)
STREAMS_MAX = 200
"""Open pages of one account, so that one account cannot end the updates of another one's pages."""
_DETAILS_SECONDS = 1.5
_KEEPALIVE = b": \n\n"

_Page = Callable[[web.Request, Session, Account], Awaitable[web.StreamResponse]]


class Pages:
    """The handlers. Every one but signing in needs a session."""

    def __init__(
        self, settings: DashboardSettings, sampler: Sampler, history: History, sessions: Sessions
    ) -> None:
        self._settings = settings
        self._sampler = sampler
        self._history = history
        self._sessions = sessions
        self._sign_in_limit = SignInLimit()
        self._templates = environment()
        self._streams: Counter[str] = Counter()
        """Pages with live updates by account."""
        self._ending = asyncio.Event()

    def routes(self) -> list[web.RouteDef]:
        """All paths."""
        signed_in, changing = self._signed_in, self._changing
        return [
            web.get("/healthz", self._healthz),
            web.get("/sign-in", self._sign_in_page),
            web.post("/sign-in", self._sign_in),
            web.post("/sign-out", changing(self._sign_out)),
            web.get("/", signed_in(self._list_page)),
            web.get("/events", signed_in(self._list_events)),
            web.get(r"/endpoints/{id:\d+}", signed_in(self._endpoint_page)),
            web.get(r"/endpoints/{id:\d+}/events", signed_in(self._endpoint_events)),
            web.get(r"/endpoints/{id:\d+}/config", signed_in(self._config_page)),
            web.post(r"/endpoints/{id:\d+}/config", changing(self._change_config)),
            web.post(r"/endpoints/{id:\d+}/state", changing(self._change_state)),
            web.post(r"/endpoints/{id:\d+}/delete", changing(self._delete)),
            web.post(r"/endpoints/{id:\d+}/update-workers", changing(self._update_workers)),
        ]

    def end_streams(self) -> None:
        """End the live updates of all open pages; their browsers connect again later."""
        self._ending.set()

    # -- sessions

    def _signed_in(self, page: _Page) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            session = self._sessions.get(request.cookies.get(COOKIE), time.time())
            if session is None:
                if request.method != "GET" or request.path.endswith("events"):
                    raise Problem(401, "signed_out", "sign in again: the session has ended")
                raise web.HTTPSeeOther("/sign-in")
            request[_SESSION] = session
            return await page(request, session, self._sampler.accounts[session.account])

        return handle

    def _changing(self, page: _Page) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def checked(request: web.Request, session: Session, account: Account) -> web.StreamResponse:
            form = await _form(request)
            if not accepts_token(session, form.get("csrf")):
                raise Problem(403, "stale_form", "this form is not from this session; go back and reload it")
            return await page(request, session, account)

        return self._signed_in(checked)

    async def _sign_in_page(self, request: web.Request) -> web.Response:
        if self._sessions.get(request.cookies.get(COOKIE), time.time()) is not None:
            raise web.HTTPSeeOther("/")
        return self._render("sign_in.html", fault="")

    async def _sign_in(self, request: web.Request) -> web.Response:
        now = time.time()
        address = client_address(
            request.remote,
            request.headers.get("X-Forwarded-For", ""),
            behind_proxy=bool(self._settings.public_url),
        )
        if wait := self._sign_in_limit.wait_seconds(address, now):
            message = "too many wrong keys were tried from this address; wait a minute"
            headers = {"Retry-After": str(math.ceil(wait))}
            raise Problem(429, "too_many_keys", message, headers=headers)
        key = (await _form(request)).get("key")
        cookie = self._sessions.open(key.strip(), now) if key else None
        if cookie is None:
            self._sign_in_limit.note_wrong(address, now)
            fault = (
                "No account has this key. `stokerd key` prints the account key of a development deployment."
            )
            return self._render("sign_in.html", status=403, fault=fault)
        response = web.Response(status=303, headers={"Location": "/"})
        response.set_cookie(
            COOKIE,
            cookie,
            httponly=True,
            samesite="Lax",
            secure=self._settings.public_url.startswith("https://"),
            path="/",
        )
        return response

    async def _sign_out(self, request: web.Request, session: Session, account: Account) -> web.Response:
        self._sessions.close(request.cookies.get(COOKIE))
        response = web.Response(status=303, headers={"Location": "/sign-in"})
        response.del_cookie(COOKIE, path="/")
        return response

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    # -- the list

    async def _list_page(self, request: web.Request, session: Session, account: Account) -> web.Response:
        return self._render(
            "endpoints.html", session, parts=self._list_parts(account), live="/events", title="Endpoints"
        )

    async def _list_events(
        self, request: web.Request, session: Session, account: Account
    ) -> web.StreamResponse:
        async def parts() -> dict[str, str]:
            return self._list_parts(account)

        return await self._stream(request, parts)

    def _list_parts(self, account: Account) -> dict[str, str]:
        now = time.time()
        windows = {
            number: self._history.window((account.name, number), 3600.0, now) for number in account.overview
        }
        found = rows(account.overview, windows, now)
        return {
            "notice": self._part("notice.html", fault=account.fault, details=None),
            "endpoints": self._part("endpoint_rows.html", rows=found, settings=self._settings),
        }

    # -- one endpoint

    async def _endpoint_page(self, request: web.Request, session: Session, account: Account) -> web.Response:
        number = _number(request, account)
        details = await self._details(account, number)
        chosen, everything = _range(request), request.query.get("workers") == "all"
        return self._render(
            "endpoint.html",
            session,
            parts=self._endpoint_parts(account, number, details, chosen, everything),
            live=f"/endpoints/{number}/events?range={chosen}" + ("&workers=all" if everything else ""),
            title=details.record.endpoint_name,
            figures=account.overview[number],
            details=details,
            ranges=RANGES,
            chosen=chosen,
            temporal_ui=self._settings.temporal_ui_url,
        )

    async def _endpoint_events(
        self, request: web.Request, session: Session, account: Account
    ) -> web.StreamResponse:
        number = _number(request, account)
        chosen, everything = _range(request), request.query.get("workers") == "all"

        async def parts() -> dict[str, str]:
            details = await self._details(account, number)
            return self._endpoint_parts(account, number, details, chosen, everything)

        return await self._stream(request, parts)

    def _endpoint_parts(
        self, account: Account, number: int, details: Details, chosen: str, everything: bool
    ) -> dict[str, str]:
        now = time.time()
        samples = self._history.window((account.name, number), RANGES[chosen], now)
        decisions = numbered(details.decisions)
        shared: dict[str, Any] = {
            "figures": account.overview.get(number, {}),
            "sample": samples[-1] if samples else None,
            "details": details,
            "now": now,
        }
        drawn = charts(samples, decisions, start=now - RANGES[chosen], end=now)
        workers = worker_rows(details, everything)
        return {
            "notice": self._part("notice.html", fault=account.fault, details=details),
            "figures": self._part("figures.html", **shared),
            "charts": self._part("charts.html", charts=drawn),
            "workers": self._part("workers.html", workers=workers, **shared),
            "decisions": self._part("decisions.html", decisions=decisions[:DECISIONS_SHOWN]),
            "requests": self._part(
                "requests.html", requests=details.requests, engine_url=self._clients_url()
            ),
            "costs": self._part("costs.html", costs=details.costs),
        }

    def _clients_url(self) -> str:
        return self._settings.clients_url or self._settings.engine_url

    # -- config

    async def _config_page(self, request: web.Request, session: Session, account: Account) -> web.Response:
        number = _number(request, account)
        details = await self._details(account, number)
        return self._show_config(session, account, number, details, given=None, fault="")

    def _show_config(
        self,
        session: Session,
        account: Account,
        number: int,
        details: Details,
        *,
        given: Mapping[str, str] | None,
        fault: str,
        status: int = 200,
    ) -> web.Response:
        known = details.record.model_dump()
        values = {name: _text(known.get(name)) for name in FIELDS} | dict(given or {})
        return self._render(
            "config.html",
            session,
            status=status,
            title=f"{details.record.endpoint_name}: config",
            figures=account.overview[number],
            fields=FIELDS,
            values=values,
            fault=fault,
            advice=details.advice,
            live="",
            parts={},
        )

    async def _change_config(self, request: web.Request, session: Session, account: Account) -> web.Response:
        number = _number(request, account)
        form = await _form(request)
        details = await self._details(account, number)
        given = {name: form[name] for name in FIELDS if name in form}
        action, here = form.get("action"), f"/endpoints/{number}"
        try:
            changes = read_fields(given, details.record.model_dump())
            endpoints = account.client.endpoints
            if action == "stop-advice":
                await endpoints.stop_advice(number)
                return self._done(
                    account, number, session, f"{here}/config", "The what-if analysis has ended."
                )
            if action not in {"advise", "apply"}:
                raise stoker.Invalid(f"action: should be advise, apply or stop-advice (got {action!r:.40})")
            if not changes:
                raise stoker.Invalid("nothing was changed: every field has its present value")
            if action == "advise":
                advised = {name: value for name, value in changes.items() if name in ADVISABLE}
                await endpoints.advise(number, **advised)
                message = "The what-if analysis runs: the page compares both configs while requests arrive."
                return self._done(account, number, session, f"{here}/config", message)
            await endpoints.update(number, **changes)
        except stoker.StokerError as fault:
            return self._show_config(
                session, account, number, details, given=given, fault=str(fault), status=400
            )
        return self._done(account, number, session, here, f"Changed {', '.join(changes)}.")

    # -- actions

    async def _change_state(self, request: web.Request, session: Session, account: Account) -> web.Response:
        number = _number(request, account)
        state = (await _form(request)).get("state", "")
        return await self._act(
            account,
            number,
            session,
            account.client.endpoints.update(number, endpoint_state=state),
            f"The endpoint is {state}.",
        )

    async def _delete(self, request: web.Request, session: Session, account: Account) -> web.Response:
        number = _number(request, account)
        name = account.overview[number]["name"]
        if (await _form(request)).get("name") != name:
            raise Problem(400, "not_confirmed", f"type the endpoint's name ({name}) to confirm its deletion")
        return await self._act(
            account,
            number,
            session,
            account.client.endpoints.delete(number),
            f"{name} is being deleted: its workers are released.",
            to="/",
        )

    async def _update_workers(self, request: web.Request, session: Session, account: Account) -> web.Response:
        number = _number(request, account)
        form = await _form(request)
        details = await self._details(account, number)
        groups = {str(group.id): group.id for group in details.groups}
        group = groups.get(form.get("group", ""))
        if group is None:
            raise Problem(400, "invalid_args", "group: is not a workergroup of this endpoint")
        cancel = form.get("cancel") == "1"
        message = (
            f"The rolling update of workergroup {group} is cancelled."
            if cancel
            else f"The rolling update of workergroup {group} has begun; no request is dropped."
        )
        work = account.client.workergroups.update_workers(group, cancel=cancel)
        return await self._act(account, number, session, work, message)

    async def _act(
        self,
        account: Account,
        number: int,
        session: Session,
        work: Awaitable[Any],
        message: str,
        *,
        to: str = "",
    ) -> web.Response:
        target = to or f"/endpoints/{number}"
        try:
            await work
        except stoker.StokerError as fault:
            session.flash = ("fault", str(fault))
            return web.Response(status=303, headers={"Location": f"/endpoints/{number}"})
        return self._done(account, number, session, target, message)

    def _done(self, account: Account, number: int, session: Session, to: str, message: str) -> web.Response:
        account.forget_details(number)
        session.flash = ("done", message)
        return web.Response(status=303, headers={"Location": to})

    # -- rendering

    async def _details(self, account: Account, number: int) -> Details:
        try:
            return await account.details(number, seconds_max=_DETAILS_SECONDS)
        except stoker.NotFound as fault:
            raise Problem(404, "no_such_endpoint", str(fault)) from None
        except stoker.StokerError as fault:
            raise Problem(503, "engine_not_read", f"the engine could not be read: {fault}") from None

    def _part(self, template: str, **values: Any) -> str:
        return self._templates.get_template(f"parts/{template}").render(values)

    def _render(
        self, template: str, session: Session | None = None, *, status: int = 200, **values: Any
    ) -> web.Response:
        flash = session.flash if session else None
        if session:
            session.flash = None
        defaults: dict[str, Any] = {"title": "stoker", "live": "", "parts": {}}
        text = self._templates.get_template(template).render(
            defaults | {"session": session, "flash": flash} | values
        )
        return web.Response(text=text, content_type="text/html", status=status)

    def fault(
        self, request: web.Request, status: int, message: str, headers: Mapping[str, str]
    ) -> web.Response:
        """A page for a refused request."""
        kept = {
            name: value for name, value in headers.items() if name in {"Retry-After", "Allow", "Connection"}
        }
        response = self._render(
            "fault.html", request.get(_SESSION), status=status, message=message, code=status
        )
        response.headers.update(kept)
        return response

    async def _stream(
        self, request: web.Request, parts: Callable[[], Awaitable[dict[str, str]]]
    ) -> web.StreamResponse:
        """Server-sent events: after each round of samples, the parts of the page that changed."""
        account = request[_SESSION].account
        if self._streams[account] >= STREAMS_MAX:
            raise Problem(503, "too_many_pages", "too many pages are open", headers={"Retry-After": "30"})
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "X-Accel-Buffering": "no",
                "Cache-Control": "no-store",
            }
        )
        await response.prepare(request)
        cookie = request.cookies.get(COOKIE)
        sent: dict[str, str] = {}
        self._streams[account] += 1
        try:
            while not self._ending.is_set() and self._sessions.get(cookie, time.time()) is not None:
                try:
                    now = await parts()
                except Problem as problem:
                    now = {"notice": self._part("notice.html", fault=problem.message, details=None)}
                changed = {name: html for name, html in now.items() if sent.get(name) != html}
                sent.update(changed)
                await response.write(
                    b"data: " + json.dumps(changed).encode() + b"\n\n" if changed else _KEEPALIVE
                )
                await self._next_round()
        except ConnectionError:  # the page was closed
            pass
        finally:
            self._streams[account] -= 1
        return response

    async def _next_round(self) -> None:
        waits = [
            asyncio.create_task(self._sampler.wait_round()),
            asyncio.create_task(self._ending.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


def _number(request: web.Request, account: Account) -> int:
    """The endpoint's id in the path.

    Raises:
        Problem: 404, the account has no such endpoint.
    """
    text = request.match_info["id"]
    number = int(text) if len(text) < 20 else 0
    if number not in account.overview:
        raise Problem(404, "no_such_endpoint", f"this account has no endpoint {text[:20]}; see the list")
    return number


async def _form(request: web.Request) -> dict[str, str]:
    return read_form(request.content_type, await request.read())


def _range(request: web.Request) -> str:
    chosen = request.query.get("range", "1h")
    return chosen if chosen in RANGES else "1h"


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}" if abs(value) < 1e6 else repr(value)
    return "" if value is None else str(value)
