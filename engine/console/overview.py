"""`/api/v0/overview/`: live figures of every endpoint, from this engine's memory, and an endpoint's last requests."""

import time
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from aiohttp import web

from engine import endpoint_stats
from engine.api.parsing import answer, path_id, read_object
from engine.engine import Engine
from engine.openapi import live_shapes
from engine.openapi.declarations import ACCOUNT, BODY, ID, ok
from engine.request_stats import NATIVE_SCHEMA, NATIVE_ZERO_SECONDS, EndedRequest, Histogram
from engine.routing.endpoint import Endpoint
from stoker_wire.http.openapi import handles

_FIRST, _LAST = -40, 37
BUCKET_SECONDS = tuple(2.0 ** (place / 4) for place in range(_FIRST, _LAST + 1))
"""Upper bounds of the buckets, four per doubling from 1 ms to 10 minutes: percentiles within a fifth."""
_NATIVE_EACH = 2**NATIVE_SCHEMA // 4
"""Native buckets in one of these."""
assert BUCKET_SECONDS[0] == NATIVE_ZERO_SECONDS


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
                "endpoints": [figures_of(endpoint, now) for endpoint in found],
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


def figures_of(endpoint: Endpoint, now: float) -> dict[str, Any]:
    """One endpoint's figures."""
    queue, stats, memo = endpoint.request_queue, endpoint.stats, endpoint.memo
    requests_per_second, load_per_second = stats.rates(now)
    return {
        "id": endpoint.id,
        "name": endpoint.name,
        "state": "deleting" if endpoint.deleting else endpoint.config.endpoint_state.value,
        "health": endpoint_stats.health(endpoint),
        "fault": endpoint.fault,
        "wait_code": memo.wait_code,
        "wait_reason": memo.wait_reason,
        "wait_until": memo.wait_until,
        "changed_at": memo.changed_at,
        "workers": endpoint_stats.workers_by_state(endpoint),
        "stages": endpoint_stats.workers_by_stage(endpoint),
        "routable": len(endpoint.candidates),
        "draining": sum(worker.listing.draining for worker in endpoint_stats.listed_workers(endpoint)),
        "capacity": endpoint_stats.capacity(endpoint),
        "outstanding_load": endpoint.load,
        "queue_requests": len(queue),
        "queue_load": queue.load,
        "queue_oldest_s": endpoint_stats.oldest_wait_seconds(endpoint, now),
        "queue_expected_s": endpoint.queue_seconds if endpoint.perf > 0 else None,
        "dollars_per_hour": endpoint_stats.gpu_dollars_per_hour(endpoint),
        "requests_per_second": requests_per_second,
        "load_per_second": load_per_second,
        "arrived_requests": stats.arrived_requests,
        "arrived_load": stats.arrived_load,
        "outcomes": stats.outcomes,
        "waited": histogram_counts(stats.waited),
        "took": histogram_counts(stats.took),
    }


def histogram_counts(histogram: Histogram) -> dict[str, Any]:
    """The counts by `BUCKET_SECONDS`."""
    counts = [0] * (len(BUCKET_SECONDS) + 1)
    counts[0] = histogram.native_zero
    for native, count in histogram.native.items():
        counts[min(-(-native // _NATIVE_EACH), _LAST + 1) - _FIRST] += count
    return {"counts": counts, "seconds": histogram.seconds}


def _rows(requests: Iterable[EndedRequest]) -> list[dict[str, Any]]:
    return [asdict(request) for request in requests]
