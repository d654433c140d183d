"""`/get_endpoint_logs/` and related calls: the decision log as text, in four levels of detail."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from activities.messages import read_label
from activities.saved_logs import LINES_MAX, SavedLog, SavedLogs
from engine.api.parsing import answer, read_object
from engine.console.endpoint_workflows import EndpointWorkflows
from engine.console.endpoints import read_tail
from engine.console.workers import endpoint_of, find_worker, positive_int
from engine.engine import Engine
from engine.openapi import common, endpoint_shapes, workergroup_shapes
from engine.openapi.declarations import ACCOUNT, BODY, TEMPORAL, ok
from engine.routing.endpoint import Endpoint
from market.interface import MarketError
from market.vast.client import VastMarket
from stoker_wire.control import QUERY_DECISIONS
from stoker_wire.errors.problem import Problem
from stoker_wire.http.openapi import handles
from stoker_wire.messages import DecisionLine
from stoker_wire.parsing.numbers import read_whole

LEVELS = ("info0", "info1", "trace", "debug")
"""By `DecisionLine.level`; each level includes the less detailed ones."""
_ID_LIMIT = 2**63
_LAUNCH_ID = re.compile(r"[0-9a-f]{12}")


class LogsApi:
    """Decision logs of endpoints and workergroups."""

    def __init__(self, engine: Engine, workflows: EndpointWorkflows) -> None:
        self._engine = engine
        self._workflows = workflows
        self._market: VastMarket | None = None

    async def open_market(self, _: web.Application) -> AsyncIterator[None]:
        """Keep the connection to the marketplace open while the application runs."""
        settings = self._engine.settings
        if settings.market_url:
            self._market = VastMarket(settings.market_url, settings.market_key)
        yield
        if self._market is not None:
            await self._market.close()

    @handles(
        "POST /get_endpoint_logs/",
        tag="fleet",
        security=ACCOUNT,
        body=common.NamedEndpoint,
        replies=ok(endpoint_shapes.Logs),
        refuses=(*BODY, *TEMPORAL),
    )
    async def of_endpoint(self, request: web.Request) -> web.Response:
        """The decision log of an endpoint."""
        body = await read_object(request)
        owner = self._engine.accounts.authenticate(request, body)
        endpoint = await endpoint_of(self._engine, body, owner)
        lines = await self._workflows.query(endpoint, QUERY_DECISIONS, read_tail(body.get("tail")))
        return answer(render_levels(_parse(lines)))

    @handles(
        "POST /get_autogroup_logs/",
        "POST /get_workergroup_logs/",
        tag="fleet",
        security=ACCOUNT,
        body=workergroup_shapes.NamedWorkergroup,
        replies=ok(endpoint_shapes.Logs),
        refuses=(*BODY, *TEMPORAL),
    )
    async def of_group(self, request: web.Request) -> web.Response:
        """The decision log of a workergroup."""
        body = await read_object(request)
        owner = self._engine.accounts.authenticate(request, body)
        group_id = positive_int(body, "id")
        endpoint = self._engine.directory.of_group(group_id, owner)
        lines = await self._workflows.query(endpoint, QUERY_DECISIONS, read_tail(body.get("tail")))
        return answer(render_levels([line for line in _parse(lines) if line.workergroup_id == group_id]))

    @handles(
        "POST /get_worker_logs/",
        tag="fleet",
        security=ACCOUNT,
        body=workergroup_shapes.NamedWorker,
        replies=ok(workergroup_shapes.WorkerLog),
        refuses=(*BODY, *TEMPORAL),
    )
    async def of_worker(self, request: web.Request) -> web.Response:
        """The last lines of a worker's machine: start script and model server. After its end, the saved lines."""
        body = await read_object(request)
        owner = self._engine.accounts.authenticate(request, body)
        endpoint = await endpoint_of(self._engine, body, owner)
        instance_id, launch_id = _named(endpoint, body.get("worker"))
        tail = min(read_tail(body.get("tail")), LINES_MAX)
        fault = ""
        if self._market is not None and any(w.instance_id == instance_id for w in endpoint.workers.values()):
            try:
                text = await self._market.logs(instance_id, tail=tail)
                return answer({"success": True, "live": True, "at": time.time(), "log": text})
            except MarketError as caught:
                fault = str(caught)
        saved = await asyncio.to_thread(self._saved, endpoint, instance_id, launch_id)
        if saved is not None:
            lines = "\n".join(saved.text.splitlines()[-tail:])
            return answer({"success": True, "live": False, "at": saved.at, "log": lines})
        raise Problem(
            404,
            "no_such_log",
            f"there is no log of {f'instance {instance_id}' if instance_id else f'launch {launch_id}'}"
            + (f": {fault}" if fault else "; logs of released instances are saved by the Temporal worker"),
        )

    def _saved(self, endpoint: Endpoint, instance_id: int, launch_id: str) -> SavedLog | None:
        """The saved log, if the instance belonged to this endpoint, and not to a deleted one of the same name."""
        folder = self._engine.settings.saved_logs_dir
        if folder is None:
            return None
        logs = SavedLogs(folder)
        saved = (logs.read(instance_id) if instance_id else None) or logs.find(launch_id)
        named = read_label(saved.label) if saved is not None else None
        if saved is None or named is None or named[0] != endpoint.name:
            return None
        return saved if saved.at >= endpoint.memo.created_at else None


def _named(endpoint: Endpoint, worker: object) -> tuple[int, str]:
    """The instance id and the launch id of a worker, which is given by one of them or the beginning of the latter.

    Of a worker that is gone, the other one is 0 or empty.

    Raises:
        Problem: 400, neither, or several launches begin so.
    """
    known = find_worker(endpoint, worker)
    if known is not None:
        return known.instance_id, known.launch_id
    text = worker if isinstance(worker, str) else ""
    number = worker if type(worker) is int else read_whole(text)
    launch_id = text if _LAUNCH_ID.fullmatch(text) else ""
    if (number and 0 < number < _ID_LIMIT) or launch_id:
        return number or 0, launch_id
    raise Problem(
        400,
        "invalid_args",
        f"worker: should be an instance id, or a launch id of this endpoint (got {worker!r:.40})",
    )


def render_levels(lines: list[DecisionLine]) -> dict[str, str]:
    """The text of each level, oldest line first."""
    return {
        name: "".join(f"{render_line(line)}\n" for line in lines if line.level <= level)
        for level, name in enumerate(LEVELS)
    }


def render_line(line: DecisionLine) -> str:
    """One line of text. The reason contains its numbers."""
    at = datetime.fromtimestamp(line.at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    subject = f" {line.subject}" if line.subject else ""
    message = line.reason.replace("\n", " ")
    return f"{at}Z {line.kind}{subject}: {message}"


def _parse(lines: list[dict[str, Any]]) -> list[DecisionLine]:
    return [DecisionLine.model_validate(line) for line in lines]
