"""`/get_endpoint_workers/` and related calls: worker rows without null numbers, and rolling updates."""

import re
import time
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from engine.api.parsing import answer, read_object
from engine.console.endpoint_workflows import EndpointWorkflows
from engine.engine import Engine
from engine.openapi import common, workergroup_shapes
from engine.openapi.declarations import ACCOUNT, BODY, TEMPORAL, ok
from engine.routing.endpoint import Endpoint
from engine.routing.worker import KnownWorker
from stoker_wire.control import (
    CANCEL_UPDATE,
    CHANGE_WORKER,
    QUERY_WORKERS,
    UPDATE_WORKERS,
    WorkerAction,
    WorkerChange,
)
from stoker_wire.errors.problem import Problem
from stoker_wire.http.openapi import handles
from stoker_wire.parsing.numbers import read_whole
from stoker_wire.states import WorkerState

_COUNT = re.compile(r"^\d+x ")
_WORKERS = ok(
    list[workergroup_shapes.WorkerRow] | workergroup_shapes.NoWorkers,
    "A bare list, as official clients expect it; an object with the reason if the subject does not exist",
)


class WorkersApi:
    """Workers of endpoints and workergroups, and rolling updates."""

    def __init__(self, engine: Engine, workflows: EndpointWorkflows) -> None:
        self._engine = engine
        self._workflows = workflows

    @handles(
        "POST /get_endpoint_workers/",
        tag="fleet",
        security=ACCOUNT,
        body=common.NamedEndpoint,
        replies=_WORKERS,
        refuses=(*BODY, *TEMPORAL),
    )
    async def of_endpoint(self, request: web.Request) -> web.Response:
        """The endpoint's workers, a bare list."""
        body = await read_object(request)
        owner = self._engine.accounts.authenticate(request, body)
        try:
            endpoint = await endpoint_of(self._engine, body, owner)
        except Problem as problem:
            return _unknown(problem)
        return answer(rows(endpoint))

    @handles(
        "POST /get_autogroup_workers/",
        "POST /get_workergroup_workers/",
        tag="fleet",
        security=ACCOUNT,
        body=workergroup_shapes.NamedWorkergroup,
        replies=_WORKERS,
        refuses=(*BODY, *TEMPORAL),
    )
    async def of_group(self, request: web.Request) -> web.Response:
        """The workergroup's workers, a bare list."""
        body = await read_object(request)
        owner = self._engine.accounts.authenticate(request, body)
        group_id = positive_int(body, "id")
        try:
            endpoint = self._engine.directory.of_group(group_id, owner)
        except Problem as problem:
            return _unknown(problem)
        return answer(rows(endpoint, group_id))

    @handles(
        "POST /get_worker/",
        tag="fleet",
        security=ACCOUNT,
        body=workergroup_shapes.NamedWorker,
        replies=ok(workergroup_shapes.WorkerShown),
        refuses=(*BODY, *TEMPORAL),
    )
    async def show(self, request: web.Request) -> web.Response:
        """One worker with its whole error, what an operator asked of it, and the phases of its last boot."""
        body = await read_object(request)
        owner = self._engine.accounts.authenticate(request, body)
        endpoint = await endpoint_of(self._engine, body, owner)
        worker = _listed_worker(endpoint, body.get("worker"))
        recorded = await self._workflows.query(endpoint, QUERY_WORKERS)
        known: dict[str, Any] = next((each for each in recorded if each["launch_id"] == worker.launch_id), {})
        now = time.time()
        shown = row(endpoint, worker, now) | {
            "machine_id": known.get("machine_id") or 0,
            "reboots": known.get("reboots") or 0,
            "asked": known.get("asked") or "",
            "boot": boot_phases(known.get("boot") or (), now),
        }
        shown["error_msg"] = worker.report.error or known.get("error") or shown["error_msg"]
        return answer({"success": True, "worker": shown})

    @handles(
        "POST /update_workers/",
        tag="fleet",
        security=ACCOUNT,
        body=workergroup_shapes.RollingUpdate,
        replies=ok(workergroup_shapes.UpdateBegun | workergroup_shapes.UpdateCancelled),
        refuses=(*BODY, *TEMPORAL),
    )
    async def update(self, request: web.Request) -> web.Response:
        """Start or cancel a rolling update of a workergroup's workers; no request is dropped."""
        body = await read_object(request)
        owner = self._engine.accounts.authenticate(request, body)
        group_id = positive_int(body, "workergroup_id")
        endpoint = self._engine.directory.of_group(group_id, owner)
        if body.get("cancel_update"):
            await self._workflows.update(endpoint, CANCEL_UPDATE, group_id)
            return answer({"success": True, "cancelled": True})
        due = sum(1 for member in endpoint.memo.members if member.g == group_id)
        await self._workflows.update(endpoint, UPDATE_WORKERS, group_id)
        return answer({"success": True, "workers_to_update": due})

    @handles(
        "POST /change_worker/",
        tag="fleet",
        security=ACCOUNT,
        body=workergroup_shapes.WorkerChange,
        replies=ok(workergroup_shapes.WorkerChanged),
        refuses=(*BODY, *TEMPORAL),
    )
    async def change(self, request: web.Request) -> web.Response:
        """Drain, resume, reboot or destroy one worker. A ready worker is drained first; no request is dropped."""
        body = await read_object(request)
        owner = self._engine.accounts.authenticate(request, body)
        endpoint = await endpoint_of(self._engine, body, owner)
        action = _action(body.get("action"))
        worker = _listed_worker(endpoint, body.get("worker"))
        change = WorkerChange(launch_id=worker.launch_id, action=action)
        await self._workflows.update(endpoint, CHANGE_WORKER, change.model_dump(mode="json"))
        return answer({"success": True, "launch_id": worker.launch_id, "action": action})


def _action(given: object) -> WorkerAction:
    try:
        return WorkerAction(str(given))
    except ValueError:
        names = ", ".join(WorkerAction)
        raise Problem(400, "invalid_args", f"action: should be one of {names} (got {given!r:.40})") from None


def boot_phases(boot: Sequence[Sequence[Any]], now: float) -> list[dict[str, Any]]:
    """The phases of a boot with their seconds; the last one lasts until now, or is the end of the boot with 0 s."""
    ends = [float(at) for _, at in boot[1:]] + [now]
    phases = []
    for (name, began), end in zip(boot, ends, strict=True):
        is_end = name in {WorkerState.READY, WorkerState.ERROR}
        phases.append(
            {"phase": name, "at": began, "seconds": 0.0 if is_end else round(max(0.0, end - began), 3)}
        )
    return phases


def _listed_worker(endpoint: Endpoint, given: object) -> KnownWorker:
    worker = find_worker(endpoint, given)
    if worker is None or not worker.listed:
        raise Problem(
            404, "no_such_worker", f"worker: the endpoint has no worker {given!r:.40}; list its workers"
        )
    return worker


def find_worker(endpoint: Endpoint, given: object) -> KnownWorker | None:
    """The worker of an instance id, or of a launch id or its beginning; None: the endpoint knows none.

    Raises:
        Problem: 400, several launches begin so.
    """
    text = given if isinstance(given, str) else ""
    number = given if type(given) is int else read_whole(text)
    for known in endpoint.workers.values():
        if number and known.instance_id == number:
            return known
    if text in endpoint.workers:
        return endpoint.workers[text]
    found = [known for known in endpoint.workers.values() if text and known.launch_id.startswith(text)]
    if len(found) > 1:
        message = f"worker: {len(found)} launches of this endpoint begin with {text!r:.40}; give the whole launch id"
        raise Problem(400, "invalid_args", message)
    return found[0] if found else None


def _unknown(problem: Problem) -> web.Response:
    """The official reply for a missing endpoint or workergroup: 200, which the official client reads as no workers.

    Raises:
        Problem: any other fault.
    """
    if problem.status != 404:
        raise problem
    message = {"error": problem.message, "error_msg": problem.message, "msg": problem.message}
    return answer({"success": False, "code": problem.code, **message})


async def endpoint_of(engine: Engine, body: dict[str, Any], owner: str) -> Endpoint:
    """The endpoint that a body gives by `id` or by `endpoint`, its name."""
    name = body.get("endpoint")
    if body.get("id") is None and isinstance(name, str):
        return await engine.find_owned(name, owner)
    return engine.directory.of_owner(positive_int(body, "id"), owner)


def positive_int(body: dict[str, Any], field: str) -> int:
    """A positive integer from a body.

    Raises:
        Problem: 400.
    """
    value = body.get(field)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise Problem(400, "invalid_args", f"{field}: must be a whole number from 1 up (got {value!r:.40})")
    return value


def rows(endpoint: Endpoint, group_id: int | None = None) -> list[dict[str, Any]]:
    """The workers in the official format."""
    now = time.time()
    return [
        row(endpoint, worker, now)
        for worker in endpoint.workers.values()
        if worker.listed and group_id in {None, worker.listing.workergroup_id}
    ]


def row(endpoint: Endpoint, worker: KnownWorker, now: float) -> dict[str, Any]:
    """One worker in the official format. Unknown values are 0, because the official client cannot read null."""
    status = worker.report.status
    return {
        "id": worker.instance_id,
        "status": worker.listing.state.value,
        "cur_load": status.cur_load if status else 0.0,
        "new_load": status.new_load if status else 0.0,
        "cur_load_rolling_avg": worker.outstanding.load,
        "cur_perf": status.cur_perf if status else 0.0,
        "perf": worker.route_perf,
        "measured_perf": worker.route_perf,
        "dlperf": 0.0,
        "reliability": 1.0,
        "reqs_working": worker.report.in_flight,
        "disk_usage": status.disk_usage if status else 0.0,
        "loaded_at": worker.listing.since if worker.report.loadtime_s > 0 else 0.0,
        "started_at": worker.listing.since,
        "gpu_name": _COUNT.sub("", worker.listing.kind),
        "kind": worker.listing.kind,
        "dph_total": worker.listing.price,
        "url": worker.route_url,
        "address": worker.listing.address,
        "official": worker.is_official,
        "version": status.version if status else "",
        "workergroup_id": worker.listing.workergroup_id,
        "endpoint_id": endpoint.id,
        "launch_id": worker.launch_id,
        "draining": worker.listing.draining,
        "held": worker.listing.held,
        "suspect": worker.suspicion.since is not None,
        "update_pending": worker.listing.update_pending,
        "queued": worker.report.queued,
        "tickets_open": worker.outstanding.tickets_open,
        "last_report_s": round(now - worker.report.reported_at, 3) if worker.report.reported_at > 0 else -1.0,
        "error_msg": worker.report.error or worker.listing.error,
        "phase": worker.report.phase,
        "gpus": [] if status is None else [gpu.model_dump() for gpu in status.gpus],
    }
