"""Shared by all pages: sessions, forms, rendering, live updates, and the answer to an action."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

import stoker
from dashboard.pages.forms import read_form
from dashboard.pages.sessions import Session, Sessions, accepts_token
from dashboard.rendering import environment
from dashboard.sampler import Account, Details, Sampler
from stoker_wire.errors.problem import Problem

COOKIE = "stoker_session"
_SESSION: web.RequestKey[Session] = web.RequestKey("session", Session)
STREAMS_MAX = 200
"""Open pages of one account, so that one account cannot end the updates of another one's pages."""
_DETAILS_SECONDS = 1.5
_KEEPALIVE = b": \n\n"

Page = Callable[[web.Request, Session, Account], Awaitable[web.StreamResponse]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Shell:
    """The frame of every page."""

    def __init__(self, sampler: Sampler, sessions: Sessions) -> None:
        self._sampler = sampler
        self.sessions = sessions
        self._templates = environment()
        self._streams: Counter[str] = Counter()
        """Pages with live updates by account."""
        self._ending = asyncio.Event()

    def end_streams(self) -> None:
        """End the live updates of all open pages; their browsers connect again later."""
        self._ending.set()

    # -- sessions

    def signed_in(self, page: Page) -> Handler:
        """The handler of a page that needs a session."""

        async def handle(request: web.Request) -> web.StreamResponse:
            session = self.sessions.get(request.cookies.get(COOKIE), time.time())
            if session is None:
                if request.method != "GET" or request.path.endswith("events"):
                    raise Problem(401, "signed_out", "sign in again: the session has ended")
                raise web.HTTPSeeOther("/sign-in")
            request[_SESSION] = session
            return await page(request, session, self._sampler.accounts[session.account])

        return handle

    def changing(self, page: Page) -> Handler:
        """The handler of a form that changes something: it carries the session's token."""

        async def checked(request: web.Request, session: Session, account: Account) -> web.StreamResponse:
            given = await form(request)
            if not accepts_token(session, given.get("csrf")):
                raise Problem(403, "stale_form", "this form is not from this session; go back and reload it")
            return await page(request, session, account)

        return self.signed_in(checked)

    # -- rendering

    def part(self, template: str, **values: Any) -> str:
        """A part of a page that is sent again while the page is open."""
        return self._templates.get_template(f"parts/{template}").render(values)

    def render(
        self, template: str, session: Session | None = None, *, status: int = 200, **values: Any
    ) -> web.Response:
        """A whole page, with the message of the last action."""
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
        session = request.get(_SESSION)
        response = self.render("fault.html", session, status=status, message=message, code=status)
        response.headers.update(kept)
        return response

    async def details(self, account: Account, number: int) -> Details:
        """The content of an endpoint's pages besides its samples.

        Raises:
            Problem: 404; 503, the engine could not be read.
        """
        try:
            return await account.details(number, seconds_max=_DETAILS_SECONDS)
        except stoker.NotFound as fault:
            raise Problem(404, "no_such_endpoint", str(fault)) from None
        except stoker.StokerError as fault:
            raise Problem(503, "engine_not_read", f"the engine could not be read: {fault}") from None

    # -- actions

    async def act(
        self,
        account: Account,
        number: int,
        session: Session,
        work: Awaitable[Any],
        message: str,
        *,
        to: str = "",
        back: str = "",
    ) -> web.Response:
        """Carry an action out, and show the page `to` with the message, or the page `back` with the fault."""
        here = f"/endpoints/{number}"
        try:
            await work
        except stoker.StokerError as fault:
            session.flash = ("fault", str(fault))
            return web.Response(status=303, headers={"Location": back or here})
        return self.done(account, number, session, to or here, message)

    def done(self, account: Account, number: int, session: Session, to: str, message: str) -> web.Response:
        """Show the page with the message, and read the endpoint again."""
        account.forget_details(number)
        session.flash = ("done", message)
        return web.Response(status=303, headers={"Location": to})

    # -- live updates

    async def stream(
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
            while not self._ending.is_set() and self.sessions.get(cookie, time.time()) is not None:
                try:
                    now = await parts()
                except Problem as problem:
                    now = {"notice": self.part("notice.html", fault=problem.message, details=None)}
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


def endpoint_number(request: web.Request, account: Account) -> int:
    """The endpoint's id in the path.

    Raises:
        Problem: 404, the account has no such endpoint.
    """
    text = request.match_info["id"]
    number = int(text) if len(text) < 20 else 0
    if number not in account.overview:
        raise Problem(404, "no_such_endpoint", f"this account has no endpoint {text[:20]}; see the list")
    return number


async def form(request: web.Request) -> dict[str, str]:
    """The fields of a submitted form."""
    return read_form(request.content_type, await request.read())
