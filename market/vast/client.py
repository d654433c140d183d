"""A client of the Vast REST API, for the hosted marketplace and the host marketplace."""

import asyncio
import builtins
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import httpx
import structlog

from market.interface import InstanceGone, Launch, Market, MarketError, OfferQuery, Refused, Unavailable
from market.shared_listing import SharedListing
from market.shared_lookup import SharedLookup
from market.vast.bodies import (
    create_body,
    merge_charges,
    origin,
    read_charge,
    read_row,
    read_rows,
    update_body,
)
from market.vast.errors import About, failure, no_answer
from stoker_wire.market import Charge, Instance, Offer, Template
from stoker_wire.parsing.numbers import finite
from stoker_wire.parsing.strict_json import NotJson, parse_answer
from stoker_wire.security.loopback import is_loopback
from stoker_wire.security.redaction import redact, secret_values

log = structlog.get_logger(__name__)

PAGE = 25
PAGES_MAX = 1000
PAGE_PAUSE_SECONDS = 0.02
"""Pause between two pages, so that long lists do not block other calls and other work on the event loop's core."""
_NOTHING: Mapping[str, str] = MappingProxyType({})
IDLE_SECONDS_MAX = 50.0
"""A connection without a call is closed after this time, before the 60 s after which load balancers close it. A new one
to the hosted marketplace delays the call by three round trips."""
CHARGES_PAGE = 100
_DAY_SECONDS = 86_400
LOG_BYTES_MAX = 2_000_000
LOG_TRIES = 30
LOG_PAUSE_SECONDS = 0.3
HOSTED_LOG_ORIGINS = ("https://s3.amazonaws.com",)
"""Origins of the hosted marketplace's logs. Other result addresses are refused: they could point into this network."""


def _environment(row: Mapping[str, Any]) -> dict[str, str]:
    """The environment in an instance's row, `extra_env`: a list of pairs."""
    pairs = row.get("extra_env")
    found = pairs if isinstance(pairs, list) else []
    return {str(pair[0]): str(pair[1]) for pair in found if isinstance(pair, list | tuple) and len(pair) == 2}


def _client(*, trust_env: bool, **options: Any) -> httpx.AsyncClient:
    """An HTTP client that uses the environment's proxy if `trust_env` is set.

    Raises:
        ValueError: the environment's proxy cannot be used. The message omits its address, which may contain a password.
    """
    try:
        limits = httpx.Limits(
            max_connections=100, max_keepalive_connections=20, keepalive_expiry=IDLE_SECONDS_MAX
        )
        return httpx.AsyncClient(trust_env=trust_env, limits=limits, **options)
    except (ImportError, ValueError, httpx.InvalidURL) as fault:
        raise ValueError(
            "the proxy in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY cannot be used for the marketplace "
            f"({type(fault).__name__}); use an http:// proxy, or add the marketplace's host to NO_PROXY"
        ) from None


class VastMarket(Market):
    """`market.interface.Market` over HTTP. Calls are not retried."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        timeout_s: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
        log_origins: tuple[str, ...] = HOSTED_LOG_ORIGINS,
        now: Callable[[], float] = time.time,
        on_call: Callable[[str, str, float], None] = lambda _, __, ___: None,
    ) -> None:
        """`on_call` gets every ended call: its kind, "done" or the name of its MarketError, and its seconds."""
        self._now = now
        self._on_call = on_call
        self._base_url = base_url.rstrip("/")
        own = origin(self._base_url)
        if own is None:
            raise ValueError(f"the market's address must be http(s)://host[:port], not {base_url!r}")
        self._api_key = api_key
        # The environment's proxy cannot reach a marketplace on this machine.
        trust_env = not is_loopback(own.host)
        self._client = _client(
            trust_env=trust_env,
            base_url=self._base_url,
            headers={"Authorization": f"Bearer {api_key}", "Accept": "application/json"},
            timeout=timeout_s,
            transport=transport,
            follow_redirects=False,
        )
        # Logs are fetched without the key.
        self._log_client = _client(
            trust_env=trust_env, timeout=timeout_s, transport=transport, follow_redirects=False
        )
        self._listing = SharedListing[Instance](self._every_instance)
        self._lookup = SharedLookup(self._with_labels, at_once_max=PAGE)
        self._filters_labels: bool | None = None
        """Whether the marketplace supports filters by label; None: unknown until a filter has found an instance."""
        self._bills = SharedListing[Charge](self._every_charge)
        self._log_origins = {own, *(origin(one) for one in log_origins)} - {None}

    def __repr__(self) -> str:
        return f"<VastMarket {self._base_url}>"

    async def search(self, query: OfferQuery) -> list[Offer]:
        """Available offers that match, in the query's order."""
        body = {
            **query.filters,
            "order": [list(pair) for pair in query.order],
            "limit": query.limit,
            "type": query.type,
            "allocated_storage": query.disk_gb,
        }
        answer = await self._call("POST", "/api/v0/bundles/", about="account", doing="search", body=body)
        offers = []
        for row in read_rows(answer, "offers", "search"):
            try:
                offers.append(read_row(Offer, row, "search"))
            except Unavailable:
                # One invalid offer must not hide the others.
                log.warning("offer_not_readable", offer_id=row.get("id"))
        return offers

    async def create(self, offer_id: int, launch: Launch) -> int:
        """Rent the offer and return the new instance's id. Not idempotent: look the label up before a retry."""
        doing = f"create on offer {offer_id}"
        answer = await self._call(
            "PUT",
            f"/api/v0/asks/{offer_id}/",
            about="offer",
            doing=doing,
            body=create_body(launch),
            secrets=launch.env.values(),
        )
        number = answer.get("new_contract")
        if isinstance(number, bool) or not isinstance(number, int):
            raise Unavailable(f"{doing}: the market's answer names no instance; look its label up")
        return number

    async def start(self, instance_id: int) -> None:
        """Request the state `running`."""
        await self._change(instance_id, "start", {"state": "running"})

    async def stop(self, instance_id: int) -> None:
        """Request the state `stopped`; the disk is kept."""
        await self._change(instance_id, "stop", {"state": "stopped"})

    async def reboot(self, instance_id: int) -> None:
        """Restart the container."""
        await self._call(
            "PUT",
            f"/api/v0/instances/reboot/{instance_id}/",
            about="instance",
            doing=f"reboot of instance {instance_id}",
            body={},
        )

    async def destroy(self, instance_id: int) -> None:
        """Destroy the instance and its disk. Succeeds if the instance does not exist."""
        try:
            await self._call(
                "DELETE",
                f"/api/v0/instances/{instance_id}/",
                about="instance",
                doing=f"destroy of instance {instance_id}",
                body={},
            )
        except InstanceGone:
            log.info("instance_gone_already", instance_id=instance_id)

    async def update_template(self, instance_id: int, launch: Launch) -> None:
        """Change the code that the instance runs from its next start on; machine and disk are kept."""
        await self._call(
            "PUT",
            f"/api/v0/instances/update_template/{instance_id}/",
            about="instance",
            doing=f"update of instance {instance_id}",
            body=update_body(instance_id, launch),
            secrets=launch.env.values(),
        )

    async def relabel(self, instance_id: int, label: str) -> None:
        """Change the instance's label."""
        await self._change(instance_id, "relabel", {"label": label})

    async def show(self, instance_id: int) -> Instance:
        """The instance's current state."""
        doing = f"show of instance {instance_id}"
        return read_row(Instance, await self._row(instance_id, doing), doing)

    async def _row(self, instance_id: int, doing: str) -> Mapping[str, Any]:
        answer = await self._call(
            "GET",
            f"/api/v0/instances/{instance_id}/",
            about="instance",
            doing=doing,
            params={"owner": "me"},
        )
        row = answer.get("instances")
        if row is None and "instances" in answer:
            raise InstanceGone(f"{doing}: there is no such instance")
        if not isinstance(row, Mapping):
            raise Unavailable(f"{doing}: the answer has no instance")
        return row

    async def list(self, *, label_prefix: str = "") -> "list[Instance]":
        """All instances of the account whose label starts with the prefix. Concurrent calls share a listing."""
        return await self._listing.starting_with(label_prefix)

    async def labelled(self, labels: Sequence[str]) -> Sequence[Instance]:
        """The instances whose label is one of these, by a filter with up to 25 labels per call.

        Callers treat a missing instance as destroyed, or rent again. So an empty result counts only after the filter
        has found an instance once; otherwise, and if the marketplace ignores the filter, the whole account is listed.
        """
        if self._filters_labels is not False:
            found = await self._lookup.labelled(labels)
            if found or not labels or self._filters_labels is not None:
                return found
        wanted = set(labels)
        found = [one for one in await self._listing.starting_with("") if one.label in wanted]
        if found and self._filters_labels is None:
            log.warning("market_label_filter_unsupported", listed=len(found), found=0)
            self._filters_labels = False
        return found

    async def _with_labels(self, labels: Sequence[str]) -> "builtins.list[Instance]":
        filters = {"label": {"in": builtins.list(labels)}}
        found = await self._instances("lookup of labels", {"select_filters": json.dumps(filters)})
        wanted = set(labels)
        ours = [one for one in found if one.label in wanted]
        if len(ours) < len(found):
            log.warning("market_label_filter_unsupported", listed=len(found), found=len(ours))
            self._filters_labels = False
        elif ours and self._filters_labels is None:
            self._filters_labels = True
        return ours

    async def _every_instance(self, _since: float) -> "builtins.list[Instance]":
        return await self._instances("list")

    async def _instances(self, doing: str, params: Mapping[str, str] = _NOTHING) -> "builtins.list[Instance]":
        """The instances of all pages."""
        found: dict[int, Instance] = {}
        query = {"limit": str(PAGE), "order_by": json.dumps([{"col": "id", "dir": "asc"}]), **params}
        async for row in self._pages("/api/v1/instances/", query, "instances", doing):
            # An invalid row fails the whole list: without it, the instance would seem to have vanished.
            instance = read_row(Instance, row, doing)
            found[instance.id] = instance
        return list(found.values())

    async def charges(self, *, label_prefix: str = "", since: float = 0.0) -> Sequence[Charge]:
        """The total bill of each instance whose label starts with the prefix, destroyed ones included.

        Instances destroyed before `since` (Unix seconds) may be left out. Concurrent calls share a listing.
        """
        return await self._bills.starting_with(label_prefix, since=since)

    async def _every_charge(self, since: float) -> "builtins.list[Charge]":
        """All bills of the account since the day of `since`.

        The API bills by UTC days and cannot filter by instance. Only the host marketplace sets a row's `final`.
        """
        now = self._now()
        days = {"gte": int(since // _DAY_SECONDS) * _DAY_SECONDS, "lte": int(now)}
        filters = {"day": days, "type": {"in": ["instance"]}}
        params = {"select_filters": json.dumps(filters), "limit": str(CHARGES_PAGE)}
        found: dict[int, Charge] = {}
        async for row in self._pages("/api/v0/charges/", params, "results", "charges"):
            charge = read_charge(row, now)
            if charge is None:
                continue
            before = found.get(charge.instance_id)
            found[charge.instance_id] = charge if before is None else merge_charges(before, charge)
        return list(found.values())

    async def template(self, *, hash_id: str | None = None, id: int | None = None) -> Template:  # noqa: A002
        """The template. Raises Refused with code `no_such_template` if it does not exist."""
        named = f"hash {hash_id}" if hash_id is not None else f"id {id}"
        select = {"hash_id": {"eq": hash_id}} if hash_id is not None else {"id": {"eq": id}}
        answer = await self._call(
            "GET",
            "/api/v0/template/",
            about="template",
            doing=f"template of {named}",
            params={"select_filters": json.dumps(select)},
        )
        for row in read_rows(answer, "templates", "template"):
            template = read_row(Template, row, "template")
            if template.hash_id == hash_id if hash_id is not None else template.id == id:
                return template
        raise Refused(f"there is no template with {named}", code="no_such_template")

    async def logs(self, instance_id: int, *, tail: int = 200) -> str:
        """The last `tail` lines of the instance's log, without the values of secrets in its environment."""
        doing = f"logs of instance {instance_id}"
        answer = await self._call(
            "PUT",
            f"/api/v0/instances/request_logs/{instance_id}/",
            about="instance",
            doing=doing,
            body={"tail": str(tail)},
        )
        address = answer.get("result_url")
        if not isinstance(address, str) or origin(address) not in self._log_origins:
            raise Unavailable(f"{doing}: the result's address is not one of the allowed origins")
        for attempt in range(LOG_TRIES):
            if attempt:
                # The hosted marketplace writes the file shortly after it returned the address.
                await asyncio.sleep(LOG_PAUSE_SECONDS)
            text = await self._fetch(address, doing)
            if text is not None:
                secrets = secret_values(_environment(await self._row(instance_id, doing)))
                return redact("\n".join(text.splitlines()[-tail:]), secrets)
        raise Unavailable(f"{doing}: the log did not appear in {LOG_TRIES * LOG_PAUSE_SECONDS:.0f} s")

    async def credit(self) -> float:
        """The prepaid dollars that are left on the account."""
        doing = "read the account"
        answer = await self._call("GET", "/api/v0/users/current/", about="account", doing=doing)
        for name in ("credit", "balance"):
            dollars = finite(answer.get(name))
            if dollars is not None:
                return dollars
        raise Unavailable(f"{doing}: the answer names no credit")

    async def close(self) -> None:
        """Close connections."""
        self._listing.close()
        self._lookup.close()
        self._bills.close()
        await self._client.aclose()
        await self._log_client.aclose()

    async def _change(self, instance_id: int, verb: str, body: dict[str, Any]) -> None:
        await self._call(
            "PUT",
            f"/api/v0/instances/{instance_id}/",
            about="instance",
            doing=f"{verb} of instance {instance_id}",
            body=body,
        )

    async def _pages(
        self, path: str, params: dict[str, str], key: str, doing: str
    ) -> AsyncIterator[Mapping[str, Any]]:
        """The rows of all pages."""
        seen: set[str] = set()
        for number in range(PAGES_MAX):
            if number:
                await asyncio.sleep(PAGE_PAUSE_SECONDS)
            answer = await self._call("GET", path, about="account", doing=doing, params=params)
            for row in read_rows(answer, key, doing):
                yield row
            token = answer.get("next_token")
            if not token:
                return
            if not isinstance(token, str) or token in seen:
                break
            seen.add(token)
            params = {**params, "after_token": token}
        raise Unavailable(f"{doing}: the market's pages do not end")

    async def _call(
        self,
        method: str,
        path: str,
        *,
        about: About,
        doing: str,
        body: dict[str, Any] | None = None,
        params: dict[str, str] | None = None,
        secrets: Iterable[str] = (),
    ) -> dict[str, Any]:
        """Send one request and return the JSON object of a successful answer. Raises MarketError.

        The first word of `doing` is the kind of the call.
        """
        outcome, began = "cancelled", time.perf_counter()
        try:
            answer = await self._send(
                method, path, about=about, doing=doing, body=body, params=params, secrets=secrets
            )
            outcome = "done"
            return answer
        except MarketError as fault:
            outcome = type(fault).__name__
            raise
        finally:
            self._on_call(doing.partition(" ")[0], outcome, time.perf_counter() - began)

    async def _send(
        self,
        method: str,
        path: str,
        *,
        about: About,
        doing: str,
        body: dict[str, Any] | None,
        params: dict[str, str] | None,
        secrets: Iterable[str],
    ) -> dict[str, Any]:
        try:
            response = await self._client.request(method, path, json=body, params=params)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise no_answer(error, doing) from None
        try:
            answer = parse_answer(response.content)
        except NotJson:
            answer = None
        refused = isinstance(answer, dict) and answer.get("success") is False
        if response.is_success and isinstance(answer, dict) and not refused:
            return answer
        fault = failure(
            400 if response.is_success and refused else response.status_code,
            answer,
            response.headers,
            about=about,
            doing=doing,
            secrets=(self._api_key, *secrets),
        )
        if isinstance(answer, dict) and about == "offer":
            await self._destroy_after_failed_create(answer.get("new_contract"))
        raise fault

    async def _destroy_after_failed_create(self, number: Any) -> None:
        """Destroy the stopped instance that a bid under the price creates besides its error; its disk is billed."""
        if isinstance(number, bool) or not isinstance(number, int):
            return
        try:
            await self.destroy(number)
        except (Unavailable, Refused):
            # The next reconciliation finds the instance by its label.
            log.warning("instance_of_failed_create_left", instance_id=number)

    async def _fetch(self, address: str, doing: str) -> str | None:
        """The text at an allowed address; None if it does not exist yet."""
        try:
            async with self._log_client.stream("GET", address) as response:
                if response.status_code != 200:
                    return None
                data = bytearray()
                async for piece in response.aiter_bytes():
                    data += piece
                    del data[:-LOG_BYTES_MAX]
                return data.decode(errors="replace")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise no_answer(error, doing) from None
