"""A marketplace of ten thousand machines that speaks the Vast REST API, and records the time of each call.

It rents every offer, starts and stops instances at once, and lists in pages of 25 like the hosted marketplace. The
measured system is the deployment that calls it.
"""

import base64
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from market.ownership import owner_of

PAGE_MAX = 25
KIND = "RTX 4090"
TEMPLATE_HASH = "scale"
DOLLARS_PER_HOUR = 0.35
_OFFERS_SHOWN = 64
_TEMPLATE = {"id": 1, "hash_id": TEMPLATE_HASH, "name": "scale", "image": "scale", "env": "-p 3000:3000"}


@dataclass(slots=True)
class Rented:
    """One instance."""

    id: int
    label: str
    machine_id: int
    intended: str = "running"
    env: dict[str, str] = field(default_factory=dict)
    row: bytes = b""

    @property
    def endpoint(self) -> str:
        """The endpoint's name in its label."""
        owner = owner_of(self.label)
        return owner.endpoint if owner else ""


@dataclass(frozen=True, slots=True)
class Called:
    """One call that changes an instance."""

    at: float
    what: str
    endpoint: str
    instance_id: int


class Marketplace:
    """Instances in memory. `runs` and `stops` are called when an instance starts or stops."""

    def __init__(self, key: str) -> None:
        self._key = f"Bearer {key}"
        self._next_id = 1_000_000
        self._next_offer = 1
        self.instances: dict[int, Rented] = {}
        self._ids: list[int] = []
        self._by_label: dict[str, list[Rented]] = {}
        self.counts: Counter[str] = Counter()
        self.called: list[Called] = []
        self.labels_rented: Counter[str] = Counter()
        self.runs: Callable[[Rented], None] = lambda _: None
        self.stops: Callable[[Rented], None] = lambda _: None
        self.heard: Callable[[Called], None] = lambda _: None

    def put(self, label: str, *, running: bool) -> Rented:
        """Adds an instance that was rented before the measurement."""
        self._next_id += 1
        one = Rented(self._next_id, label, self._next_id, "running" if running else "stopped")
        self._keep(one)
        return one

    def app(self) -> web.Application:
        """The HTTP application."""
        app = web.Application(middlewares=[self._authorised])
        number = r"{id:\d+}"
        app.add_routes(
            [
                web.post("/api/v0/bundles/", self._search),
                web.put(f"/api/v0/asks/{number}/", self._create),
                web.get("/api/v1/instances/", self._page),
                web.get(f"/api/v0/instances/{number}/", self._show),
                web.put(f"/api/v0/instances/{number}/", self._change),
                web.delete(f"/api/v0/instances/{number}/", self._destroy),
                web.put(f"/api/v0/instances/reboot/{number}/", self._reboot),
                web.get("/api/v0/template/", self._template),
                web.get("/api/v0/charges/", self._charges),
            ]
        )
        return app

    @web.middleware
    async def _authorised(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.headers.get("Authorization") != self._key:
            return _json({"success": False, "error": "invalid_api_key", "msg": "no such key"}, 401)
        return await handler(request)  # type: ignore[no-any-return]

    async def _search(self, _: web.Request) -> web.Response:
        self.counts["search"] += 1
        first, self._next_offer = self._next_offer, self._next_offer + _OFFERS_SHOWN
        return _json({"offers": [_offer(number) for number in range(first, first + _OFFERS_SHOWN)]})

    async def _create(self, request: web.Request) -> web.Response:
        body = msgspec.json.decode(await request.read())
        self._next_id += 1
        one = Rented(self._next_id, body["label"], int(request.match_info["id"]), env=body["env"])
        self._keep(one)
        self.labels_rented[one.label] += 1
        self._note("create", one)
        self.runs(one)
        return _json({"success": True, "new_contract": one.id})

    async def _change(self, request: web.Request) -> web.Response:
        one = self._named(request)
        if one is None:
            return _gone()
        one.intended = msgspec.json.decode(await request.read())["state"]
        one.row = b""
        self._note("start" if one.intended == "running" else "stop", one)
        (self.runs if one.intended == "running" else self.stops)(one)
        return _json({"success": True})

    async def _reboot(self, request: web.Request) -> web.Response:
        one = self._named(request)
        if one is None:
            return _gone()
        self._note("reboot", one)
        self.stops(one)
        self.runs(one)
        return _json({"success": True})

    async def _destroy(self, request: web.Request) -> web.Response:
        one = self._named(request)
        if one is None:
            return _gone()
        self._note("destroy", one)
        self.stops(one)
        del self.instances[one.id]
        self._by_label[one.label].remove(one)
        self._ids.remove(one.id)
        return _json({"success": True})

    async def _show(self, request: web.Request) -> web.Response:
        self.counts["show"] += 1
        one = self._named(request)
        return _json({"instances": msgspec.Raw(_row(one)) if one is not None else None})

    async def _page(self, request: web.Request) -> web.Response:
        if asked := request.query.get("select_filters"):
            return self._labelled(msgspec.json.decode(asked)["label"]["in"])
        token = request.query.get("after_token")
        self.counts["page of a list"] += 1
        self.counts["list"] += token is None
        after = int(base64.urlsafe_b64decode(token)) if token else 0
        begin = bisect_right(self._ids, after)
        ids = self._ids[begin : begin + PAGE_MAX]
        more = begin + PAGE_MAX < len(self._ids)
        rows = [msgspec.Raw(_row(self.instances[each])) for each in ids]
        return _json(
            {
                "success": True,
                "instances": rows,
                "next_token": base64.urlsafe_b64encode(b"%d" % ids[-1]).decode() if more else None,
                "total_instances": len(self._ids),
            }
        )

    def _labelled(self, labels: list[str]) -> web.Response:
        self.counts["look at labels"] += 1
        rows = [msgspec.Raw(_row(one)) for label in labels for one in self._by_label.get(label, ())]
        return _json({"success": True, "instances": rows, "next_token": None, "total_instances": len(rows)})

    async def _template(self, _: web.Request) -> web.Response:
        self.counts["template"] += 1
        return _json({"templates": [_TEMPLATE]})

    async def _charges(self, _: web.Request) -> web.Response:
        self.counts["charges"] += 1
        return _json({"success": True, "results": [], "next_token": None})

    def _named(self, request: web.Request) -> Rented | None:
        return self.instances.get(int(request.match_info["id"]))

    def _keep(self, one: Rented) -> None:
        self.instances[one.id] = one
        self._by_label.setdefault(one.label, []).append(one)
        self._ids.append(one.id)

    def _note(self, what: str, one: Rented) -> None:
        call = Called(time.time(), what, one.endpoint, one.id)
        self.counts[what] += 1
        self.called.append(call)
        self.heard(call)


def _offer(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "machine_id": 5_000_000 + number,
        "host_id": 70_000 + number,
        "gpu_name": KIND,
        "num_gpus": 1,
        "gpu_ram": 24_564,
        "dph_total": DOLLARS_PER_HOUR,
        "dph_base": DOLLARS_PER_HOUR,
        "storage_cost": 0.15,
        "dlperf": 90.0,
        "reliability2": 0.995,
        "geolocation": "Sweden, SE",
        "duration": 1_000_000.0,
        "cpu_name": "AMD EPYC 7402P",
        "inet_down": 900.0,
        "inet_up": 800.0,
        "cuda_max_good": 12.8,
        "verification": "verified",
    }


def _row(one: Rented) -> bytes:
    """A row about as long as one of the hosted marketplace; encoded after a change."""
    if not one.row:
        running = one.intended == "running"
        one.row = msgspec.json.encode(
            {
                **_offer(one.machine_id % 1_000_000),
                "id": one.id,
                "machine_id": one.machine_id,
                "label": one.label,
                "actual_status": "running" if running else "stopped",
                "intended_status": one.intended,
                "cur_state": one.intended,
                "next_state": one.intended,
                "status_msg": "success, running scale_latest/ssh" if running else "stopped",
                "start_date": 1_760_000_000.0,
                "public_ipaddr": address_of(one.id),
                "ports": {"3000/tcp": [{"HostIp": "0.0.0.0", "HostPort": "3000"}]},
                "dph_total": DOLLARS_PER_HOUR,
                "storage_total_cost": 0.0033,
                "disk_space": 16.0,
                "template_hash_id": TEMPLATE_HASH,
                "image_uuid": "scale:latest",
                "image_runtype": "ssh",
                "extra_env": [["-p 3000:3000", "1"]],
                "onstart": "entrypoint.sh",
                "gpu_util": 0.0,
                "gpu_temp": 41.0,
                "cpu_util": 0.02,
                "mem_usage": 0.7,
                "inet_down_billed": 0,
                "inet_up_billed": 0,
            }
        )
    return one.row


def address_of(instance_id: int) -> str:
    """A separate address for every instance."""
    return f"10.{instance_id >> 16 & 255}.{instance_id >> 8 & 255}.{instance_id & 255}"


def _gone() -> web.Response:
    return _json({"success": False, "error": "no_such_instance", "msg": "no such instance"}, 404)


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")
