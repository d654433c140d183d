"""`/api/v0/overview/`: live figures of every endpoint, from this engine's memory, and an endpoint's last requests."""

import time
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from aiohttp import web

from engine.api.parsing import answer, path_id, read_object
from engine.engine import Engine
from engine.openapi import live_shapes
from engine.openapi.declarations import ACCOUNT, BODY, ID, ok
from engine.request_stats import BUCKET_SECONDS, EndedRequest, Histogram
from engine.routing.endpoint import Endpoint
from engine.routing.worker import KnownWorker
from stoker_wire.http.openapi import handles
from stoker_wire.states import GPU_BILLED, WorkerState

BOOTING = GPU_BILLED - {WorkerState.READY} | {WorkerState.PENDING, WorkerState.CREATING, WorkerState.CREATED}
"""States on the way to ready."""
_COLD = WorkerState.INACTIVE
_FAILED = frozenset({WorkerState.ERROR})


class OverviewApi:
    """Figures for dashboards and `stoker status`. No call here asks Temporal, so they can be made every second."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @handles(
        "GET /api/v0/overview/",
        tag="endpoints",
        security=ACCOUNT,
        replies=ok(live_shapes.Overview),
        refuses=(*BODY, 503),
    )
    async def overview(self, request: web.Request) -> web.Response:
        """Live figures of the account's endpoints. Queues and counters are those of this engine."""
        owner = self._engine.accounts.authenticate(request, await read_object(request))
        now = time.time()
        found = self._engine.directory.owned_by(owner)
        return answer(
            {
                "at": now,
                "engine_id": self._engine.engine_id,
                "started_at": self._engine.started_at,
                "version": version("stoker-wire"),
                "dashboard_url": self._engine.settings.dashboard_url,
                "not_ready": self._engine.readiness(),
                "bucket_seconds": BUCKET_SECONDS,
                "endpoints": [figures(endpoint, now) for endpoint in found],
            }
        )

    @handles(
        "GET /api/v0/endptjobs/{id}/requests/",
        tag="endpoints",
        security=ACCOUNT,
        parameters=(ID,),
        replies=ok(live_shapes.Requests),
        refuses=(400, 401, 404, 503),
    )
    async def requests(self, request: web.Request) -> web.Response:
        """The last, slowest and failed requests that this engine routed, newest or slowest first."""
        owner = self._engine.accounts.authenticate(request)
        stats = self._engine.directory.of_owner(path_id(request), owner).stats
        return answer(
            {
                "recent": _rows(reversed(stats.recent)),
                "slow": _rows(stats.slow),
                "failed": _rows(reversed(stats.failed)),
            }
        )


def figures(endpoint: Endpoint, now: float) -> dict[str, Any]:
    """One endpoint's figures."""
    listed = [worker for worker in endpoint.workers.values() if worker.listed]
    queue, stats, memo = endpoint.request_queue, endpoint.stats, endpoint.memo
    states: dict[str, int] = {}
    for worker in listed:
        states[worker.listing.state.value] = states.get(worker.listing.state.value, 0) + 1
    oldest = queue.oldest
    requests_per_second, load_per_second = stats.rates(now)
    return {
        "id": endpoint.id,
        "name": endpoint.name,
        "state": "deleting" if endpoint.deleting else endpoint.config.endpoint_state.value,
        "health": health(endpoint, listed),
        "fault": endpoint.fault,
        "wait_code": memo.wait_code,
        "wait_reason": memo.wait_reason,
        "wait_until": memo.wait_until,
        "changed_at": memo.changed_at,
        "workers": states,
        "routable": len(endpoint.candidates),
        "draining": sum(worker.listing.draining for worker in listed),
        "capacity": _capacity(endpoint, listed),
        "outstanding_load": endpoint.load,
        "queue_requests": len(queue),
        "queue_load": queue.load,
        "queue_oldest_s": now - oldest.arrived_at if oldest else 0.0,
        "queue_expected_s": endpoint.queue_seconds if endpoint.perf > 0 else None,
        "dollars_per_hour": _dollars(listed),
        "requests_per_second": requests_per_second,
        "load_per_second": load_per_second,
        "arrived_requests": stats.arrived_requests,
        "arrived_load": stats.arrived_load,
        "outcomes": stats.outcomes,
        "waited": _histogram(stats.waited),
        "took": _histogram(stats.took),
    }


def health(endpoint: Endpoint, listed: list[KnownWorker]) -> str:
    """The endpoint's condition in a word, for operators."""
    failed = any(w.listing.state in _FAILED or w.report.error or w.suspicion.since for w in listed)
    if endpoint.fault:
        return "stuck"
    if endpoint.deleting:
        return "deleting"
    if endpoint.stopped:
        return "stopped"
    if endpoint.request_queue and not endpoint.candidates:
        return "waiting"
    if endpoint.perf > 0 and endpoint.queue_seconds > endpoint.config.target_queue_time:
        return "late"
    if failed:
        return "degraded"
    return "ok" if endpoint.candidates else "idle"


def _capacity(endpoint: Endpoint, listed: list[KnownWorker]) -> dict[str, float]:
    """Load per second by stage. A worker without a measured perf counts with the mean of the others."""
    known = [worker.trusted_perf for worker in listed if worker.trusted_perf > 0]
    mean = sum(known) / len(known) if known else 0.0

    def total(workers: Iterable[KnownWorker]) -> float:
        return sum(worker.trusted_perf or mean for worker in workers)

    return {
        "hot": endpoint.perf,
        "booting": total(worker for worker in listed if worker.listing.state in BOOTING),
        "cold": total(worker for worker in listed if worker.listing.state is _COLD),
    }


def _dollars(listed: list[KnownWorker]) -> dict[str, float]:
    """$/h of the workers whose GPU is billed, by stage; storage of stopped workers is in `costs`."""
    dollars = {"hot": 0.0, "booting": 0.0}
    for worker in listed:
        if worker.listing.state in GPU_BILLED:
            dollars["hot" if worker.listing.state is WorkerState.READY else "booting"] += worker.listing.price
    return dollars


def _histogram(histogram: Histogram) -> dict[str, Any]:
    return {"counts": histogram.counts, "seconds": histogram.seconds}


def _rows(requests: Iterable[EndedRequest]) -> list[dict[str, Any]]:
    return [asdict(request) for request in requests]
