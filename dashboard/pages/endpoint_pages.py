"""Signing in, the list of endpoints, and the pages of an endpoint with their actions."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aiohttp import web

import stoker
from dashboard import prometheus, text
from dashboard.charts import figure, gap_seconds, picture
from dashboard.history import History
from dashboard.pages.forms import ADVISABLE, FIELDS, read_fields
from dashboard.pages.sessions import Session
from dashboard.pages.shell import COOKIE, Shell, endpoint_number, form
from dashboard.pages.sign_in_limit import SignInLimit, client_address
from dashboard.prometheus import Prometheus, Window
from dashboard.rendering import RANGES, advice_sentence, charts, numbered, request_lists, rows, worker_rows
from dashboard.sampler import Account, Details
from dashboard.samples import gpu_dollars
from dashboard.settings import DashboardSettings
from stoker_wire.errors.problem import Problem

STYLE = (Path(__file__).parents[1] / "static" / "style.css").read_text()
PATIENCE_SECONDS = 0.7
"""How long a page waits for Prometheus before it is shown without the charts, which follow."""


class EndpointPages:
    """The handlers. Every one but signing in needs a session."""

    def __init__(
        self, settings: DashboardSettings, shell: Shell, history: History, long_ranges: Prometheus | None
    ) -> None:
        self._settings = settings
        self._history = history
        self._long_ranges = long_ranges
        self._ranges = RANGES | (prometheus.RANGES if long_ranges else {})
        self._shell = shell
        self._sign_in_limit = SignInLimit()

    def routes(self) -> list[web.RouteDef]:
        """All paths."""
        signed_in, changing = self._shell.signed_in, self._shell.changing
        return [
            web.get("/healthz", self._healthz),
            web.get("/sign-in", self._sign_in_page),
            web.post("/sign-in", self._sign_in),
            web.post("/sign-out", changing(self._sign_out)),
            web.get("/", signed_in(self._list_page)),
            web.get("/events", signed_in(self._list_events)),
            web.get(r"/endpoints/{id:\d+}", signed_in(self._endpoint_page)),
            web.get(r"/endpoints/{id:\d+}/events", signed_in(self._endpoint_events)),
            web.get(r"/endpoints/{id:\d+}/charts.svg", signed_in(self._picture)),
            web.get(r"/endpoints/{id:\d+}/config", signed_in(self._config_page)),
            web.get(r"/endpoints/{id:\d+}/config/events", signed_in(self._config_events)),
            web.post(r"/endpoints/{id:\d+}/config", changing(self._change_config)),
            web.post(r"/endpoints/{id:\d+}/state", changing(self._change_state)),
            web.post(r"/endpoints/{id:\d+}/delete", changing(self._delete)),
            web.post(r"/endpoints/{id:\d+}/update-workers", changing(self._update_workers)),
        ]

    # -- sessions

    async def _sign_in_page(self, request: web.Request) -> web.Response:
        if self._shell.sessions.get(request.cookies.get(COOKIE), time.time()) is not None:
            raise web.HTTPSeeOther("/")
        return self._shell.render("sign_in.html", fault="")

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
        key = (await form(request)).get("key")
        cookie = self._shell.sessions.open(key.strip(), now) if key else None
        if cookie is None:
            self._sign_in_limit.note_wrong(address, now)
            fault = (
                "No account has this key. `stokerd key` prints the account key of a development deployment."
            )
            return self._shell.render("sign_in.html", status=403, fault=fault)
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
        self._shell.sessions.close(request.cookies.get(COOKIE))
        response = web.Response(status=303, headers={"Location": "/sign-in"})
        response.del_cookie(COOKIE, path="/")
        return response

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    # -- the list

    async def _list_page(self, request: web.Request, session: Session, account: Account) -> web.Response:
        return self._shell.render(
            "endpoints.html", session, parts=self._list_parts(account), live="/events", title="Endpoints"
        )

    async def _list_events(
        self, request: web.Request, session: Session, account: Account
    ) -> web.StreamResponse:
        async def parts() -> dict[str, str]:
            return self._list_parts(account)

        return await self._shell.stream(request, parts)

    def _list_parts(self, account: Account) -> dict[str, str]:
        now = time.time()
        windows = {
            number: self._history.window((account.name, number), 3600.0, now) for number in account.overview
        }
        found = rows(account.overview, windows, now)
        return {
            "notice": self._shell.part("notice.html", fault=account.fault, details=None),
            "endpoints": self._shell.part("endpoint_rows.html", rows=found),
        }

    # -- one endpoint

    async def _endpoint_page(self, request: web.Request, session: Session, account: Account) -> web.Response:
        number = endpoint_number(request, account)
        details = await self._shell.details(account, number)
        chosen, everything = self._range(request), request.query.get("workers") == "all"
        return self._shell.render(
            "endpoint.html",
            session,
            parts=await self._endpoint_parts(account, number, details, chosen, everything),
            live=f"/endpoints/{number}/events?range={chosen}" + ("&workers=all" if everything else ""),
            title=details.record.endpoint_name,
            figures=account.overview[number],
            details=details,
            ranges=self._ranges,
            chosen=chosen,
            temporal_ui=self._settings.temporal_ui_url,
        )

    async def _endpoint_events(
        self, request: web.Request, session: Session, account: Account
    ) -> web.StreamResponse:
        number = endpoint_number(request, account)
        chosen, everything = self._range(request), request.query.get("workers") == "all"

        async def parts() -> dict[str, str]:
            details = await self._shell.details(account, number)
            return await self._endpoint_parts(account, number, details, chosen, everything)

        return await self._shell.stream(request, parts)

    async def _endpoint_parts(
        self, account: Account, number: int, details: Details, chosen: str, everything: bool
    ) -> dict[str, str]:
        now = time.time()
        window = await self._window(account, details, chosen, now)
        decisions = numbered(details.decisions)
        shared: dict[str, Any] = {
            "figures": account.overview.get(number, {}),
            "sample": self._history.latest((account.name, number)),
            "details": details,
            "now": now,
            "number": number,
        }
        drawn = charts(window.samples, decisions, start=window.start, end=window.end)
        spent = gpu_dollars(window.samples, gap_seconds(window.end - window.start))
        return {
            "notice": self._shell.part("notice.html", fault=account.fault, details=details),
            "figures": self._shell.part("figures.html", **shared),
            "charts": self._shell.part("charts.html", charts=[*map(figure, drawn)], notice=window.notice),
            "workers": self._shell.part("workers.html", workers=worker_rows(details, everything), **shared),
            "decisions": self._shell.part("decisions.html", decisions=decisions, **shared),
            "requests": self._shell.part("requests.html", requests=request_lists(details.requests), **shared),
            "costs": self._shell.part("costs.html", costs=details.costs, spent=spent, chosen=chosen),
        }

    async def _window(self, account: Account, details: Details, chosen: str, now: float) -> Window:
        number, name = details.record.id, details.record.endpoint_name
        if self._long_ranges is not None and chosen in prometheus.RANGES:
            return await self._long_ranges.window(name, chosen, now, patience_seconds=PATIENCE_SECONDS)
        samples = self._history.window((account.name, number), RANGES[chosen], now)
        return Window(samples=samples, start=now - RANGES[chosen], end=now)

    async def _picture(self, request: web.Request, session: Session, account: Account) -> web.Response:
        """The charts as a file, from the first sample or decision of the range."""
        number, chosen = endpoint_number(request, account), self._range(request)
        details = await self._shell.details(account, number)
        window = await self._window(account, details, chosen, time.time())
        decisions = numbered(details.decisions)
        times = [sample.at for sample in window.samples[:1]] + [line["at"] for line in decisions]
        start = min((at for at in times if at >= window.start), default=window.start)
        drawn = charts(window.samples, decisions, start=start, end=window.end)
        name = details.record.endpoint_name
        title = f"{name}, {text.clock(start)} to {text.clock(window.end)}"
        headers = {"Content-Disposition": f'attachment; filename="{quote(name)}-{chosen}.svg"'}
        return web.Response(text=picture(title, drawn, STYLE), content_type="image/svg+xml", headers=headers)

    def _range(self, request: web.Request) -> str:
        chosen = request.query.get("range", "1h")
        return chosen if chosen in self._ranges else "1h"

    # -- config

    async def _config_page(self, request: web.Request, session: Session, account: Account) -> web.Response:
        number = endpoint_number(request, account)
        details = await self._shell.details(account, number)
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
        return self._shell.render(
            "config.html",
            session,
            status=status,
            title=f"{details.record.endpoint_name}: config",
            figures=account.overview[number],
            fields=FIELDS,
            values=values,
            fault=fault,
            advised=details.advice.get("active"),
            live=f"/endpoints/{number}/config/events",
            parts=self._config_parts(details),
        )

    def _config_parts(self, details: Details) -> dict[str, str]:
        advice = details.advice
        return {"advice": self._shell.part("advice.html", advice=advice, sentence=advice_sentence(advice))}

    async def _config_events(
        self, request: web.Request, session: Session, account: Account
    ) -> web.StreamResponse:
        number = endpoint_number(request, account)

        async def parts() -> dict[str, str]:
            return self._config_parts(await self._shell.details(account, number))

        return await self._shell.stream(request, parts)

    async def _change_config(self, request: web.Request, session: Session, account: Account) -> web.Response:
        number = endpoint_number(request, account)
        given_form = await form(request)
        details = await self._shell.details(account, number)
        given = {name: given_form[name] for name in FIELDS if name in given_form}
        action, here = given_form.get("action"), f"/endpoints/{number}"
        try:
            changes = read_fields(given, details.record.model_dump())
            endpoints = account.client.endpoints
            if action == "stop-advice":
                await endpoints.stop_advice(number)
                return self._shell.done(
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
                return self._shell.done(account, number, session, f"{here}/config", message)
            await endpoints.update(number, **changes)
        except stoker.StokerError as fault:
            return self._show_config(
                session, account, number, details, given=given, fault=str(fault), status=400
            )
        return self._shell.done(account, number, session, here, f"Changed {', '.join(changes)}.")

    # -- actions

    async def _change_state(self, request: web.Request, session: Session, account: Account) -> web.Response:
        number = endpoint_number(request, account)
        state = (await form(request)).get("state", "")
        return await self._shell.act(
            account,
            number,
            session,
            account.client.endpoints.update(number, endpoint_state=state),
            f"The endpoint is {state}.",
        )

    async def _delete(self, request: web.Request, session: Session, account: Account) -> web.Response:
        number = endpoint_number(request, account)
        name = account.overview[number]["name"]
        if (await form(request)).get("name") != name:
            raise Problem(400, "not_confirmed", f"type the endpoint's name ({name}) to confirm its deletion")
        return await self._shell.act(
            account,
            number,
            session,
            account.client.endpoints.delete(number),
            f"{name} is being deleted: its workers are released.",
            to="/",
        )

    async def _update_workers(self, request: web.Request, session: Session, account: Account) -> web.Response:
        number = endpoint_number(request, account)
        given_form = await form(request)
        details = await self._shell.details(account, number)
        groups = {str(group.id): group.id for group in details.groups}
        group = groups.get(given_form.get("group", ""))
        if group is None:
            raise Problem(400, "invalid_args", "group: is not a workergroup of this endpoint")
        cancel = given_form.get("cancel") == "1"
        message = (
            f"The rolling update of workergroup {group} is cancelled."
            if cancel
            else f"The rolling update of workergroup {group} has begun; no request is dropped."
        )
        work = account.client.workergroups.update_workers(group, cancel=cancel)
        return await self._shell.act(account, number, session, work, message)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}" if abs(value) < 1e6 else repr(value)
    return "" if value is None else str(value)
