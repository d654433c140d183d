"""`/get_endpoint_logs/` and related calls: the decision log as text, in four levels of detail."""

from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from engine.api.parsing import answer, read_object
from engine.console.endpoint_workflows import EndpointWorkflows
from engine.console.endpoints import read_tail
from engine.console.workers import endpoint_of, positive_int
from engine.engine import Engine
from engine.openapi import shapes
from engine.openapi.declarations import ACCOUNT, BODY, TEMPORAL, ok
from stoker_wire.control import QUERY_DECISIONS
from stoker_wire.messages import DecisionLine
from stoker_wire.openapi import handles

LEVELS = ("info0", "info1", "trace", "debug")
"""By `DecisionLine.level`; each level includes the less detailed ones."""


class LogsApi:
    """Decision logs of endpoints and workergroups."""

    def __init__(self, engine: Engine, workflows: EndpointWorkflows) -> None:
        self._engine = engine
        self._workflows = workflows

    @handles(
        "POST /get_endpoint_logs/",
        tag="fleet",
        security=ACCOUNT,
        body=shapes.NamedEndpoint,
        replies=ok(shapes.Logs),
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
        body=shapes.NamedWorkergroup,
        replies=ok(shapes.Logs),
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
