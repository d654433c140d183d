"""Endpoints, workergroups and workers through the engine's console API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from stoker.engine import Engine
from stoker.errors import EndpointNotFound, Invalid, MalformedAnswer, NotFound, Refused
from stoker.management.records import EndpointRecord, Logs, WorkergroupRecord, WorkerRecord
from stoker_wire.control import Advise
from stoker_wire.endpoint import EndpointConfig, EndpointPatch
from stoker_wire.parsing.ids import read_id
from stoker_wire.problem import describe
from stoker_wire.workergroup import Workergroup

M = TypeVar("M", bound=BaseModel)
# by these names, because the classes below have a method called `list`
WorkerRows = list[WorkerRecord]
DecisionRows = list[dict[str, Any]]
MachineIds = list[int]

ENDPOINTS = "/api/v0/endptjobs/"
WORKERGROUPS = "/api/v0/workergroups/"
ID_PREFIX = "id:"
"""Before an id that is given as a text."""


class _Caller:
    def __init__(self, engine: Engine, key: str) -> None:
        self._engine = engine
        self._key = key

    async def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        what: str = "",
        repeatable: bool = True,
        **params: str,
    ) -> Any:
        return await self._engine.call(
            method, path, key=self._key, body=body, params=params or None, what=what, repeatable=repeatable
        )

    async def _rows(self, path: str, model: type[M], body: Mapping[str, Any], *, key: str) -> list[M]:
        answer = await self._call("POST", path, body)
        if isinstance(answer, dict) and answer.get("error"):
            raise Refused(
                str(answer.get("error_msg") or answer["error"]), status=200, code=str(answer["error"])
            )
        return _read_all(model, answer, key, path)

    async def _logs(self, path: str, number: int, tail: int | None) -> Logs:
        if tail is not None and tail < 1:
            raise Invalid(f"tail is {tail}; expected at least 1")
        answer = await self._call("POST", path, {"id": number} | ({} if tail is None else {"tail": tail}))
        return _read(Logs, answer, path)


class Endpoints(_Caller):
    """`client.endpoints`: a text is an endpoint's name, a number its id.

    The text `id:4090` is an id, too: no name has a colon. Digits are an id only if no endpoint has that name.
    """

    async def list(self) -> list[EndpointRecord]:
        """All endpoints of this account."""
        answer = await self._call("GET", ENDPOINTS, client_id="me")
        return _read_all(EndpointRecord, answer, "results", ENDPOINTS)

    async def get(self, endpoint: str | int) -> EndpointRecord:
        """One endpoint.

        Raises:
            EndpointNotFound: there is none of this name or id.
        """
        records = await self.list()
        for wanted in _meanings(endpoint):
            for record in records:
                if wanted == (record.endpoint_name if isinstance(wanted, str) else record.id):
                    return record
        names = ", ".join(sorted(record.endpoint_name for record in records)[:20]) or "none"
        raise EndpointNotFound(f"no endpoint {endpoint!r} on {self._engine.url}; there are: {names}")

    async def create(
        self, endpoint_name: str, config: EndpointConfig | None = None, **parameters: Any
    ) -> EndpointRecord:
        """Create an endpoint; parameters that are not given take the documented defaults.

        Raises:
            Invalid: a parameter is unknown or out of bounds; nothing was sent.
            Refused: e.g. the name is taken.
        """
        given = {} if config is None else config.model_dump(exclude_unset=True)
        body = {"endpoint_name": endpoint_name, **_parameters(given | parameters)}
        # repeatable: the engine answers the same create within a minute with the same endpoint
        answer = await self._call("POST", ENDPOINTS, body)
        number = answer.get("result") if isinstance(answer, dict) else None
        if not isinstance(number, int):
            raise MalformedAnswer(f"{ENDPOINTS} created {endpoint_name!r} but did not say its id")
        try:
            return await self.get(number)
        except EndpointNotFound:  # another engine behind the same address hears of it within a second
            return EndpointRecord.model_validate({"id": number, **body})

    async def update(self, endpoint: str | int, **parameters: Any) -> None:
        """Change parameters of a live endpoint; they take effect at once, what is not given stays."""
        changes = _parameters(parameters)
        if not changes:
            raise Invalid("nothing to change: give at least one parameter, e.g. max_workers=4")
        number = await self._id(endpoint)
        await self._call(
            "PUT", f"{ENDPOINTS}{number}/", {"endptjob_id": number, **changes}, what=str(endpoint)
        )

    async def delete(self, endpoint: str | int, *, force: bool = False) -> dict[str, Any]:
        """Delete an endpoint with its workergroups; every worker is destroyed. Answers what the engine says was done.

        `force`: its workflow is not asked, but terminated, and every instance with its label is destroyed without
        draining. For an endpoint whose workflow makes no progress. `begun` is false where a plain delete has not begun.
        """
        number = await self._id(endpoint)
        body = {"force": True} if force else None
        answer = await self._call("DELETE", f"{ENDPOINTS}{number}/", body, what=str(endpoint))
        return answer if isinstance(answer, dict) else {}

    async def rotate_key(self, endpoint: str | int, *, overlap_seconds: float = 0.0) -> str:
        """A new routing key for the endpoint: the old one is invalid at once, or after `overlap_seconds` (a day at most).

        Clients with an account's key fetch the new one by themselves.
        """
        path = f"{ENDPOINTS}{await self._id(endpoint)}/rotate_key/"
        body = {"overlap_seconds": overlap_seconds} if overlap_seconds else {}
        answer = await self._call("POST", path, body, what=str(endpoint), repeatable=False)
        key = answer.get("api_key") if isinstance(answer, dict) else None
        if not isinstance(key, str) or not key:
            raise MalformedAnswer(f"{path} answered without the new api_key")
        return key

    async def workers(self, endpoint: str | int) -> WorkerRows:
        """The workers of an endpoint."""
        number = await self._id(endpoint)
        return await self._rows("/get_endpoint_workers/", WorkerRecord, {"id": number}, key="workers")

    async def logs(self, endpoint: str | int, *, tail: int | None = None) -> Logs:
        """The log of an endpoint; `tail`: the last so many lines of each level."""
        return await self._logs("/get_endpoint_logs/", await self._id(endpoint), tail)

    async def status(self, endpoint: str | int) -> dict[str, Any]:
        """Load against capacity, the queue, the fleet, and why requests wait."""
        return await self._look(endpoint, "status")

    async def decisions(self, endpoint: str | int, *, tail: int = 20) -> DecisionRows:
        """The last decisions, oldest first, each with its reason."""
        path = f"{ENDPOINTS}{await self._id(endpoint)}/decisions/"
        answer = await self._call("GET", path, what=str(endpoint), tail=str(tail))
        return [row for row in _list(answer, "decisions", path) if isinstance(row, dict)]

    async def costs(self, endpoint: str | int) -> dict[str, Any]:
        """Dollars by worker state."""
        return await self._look(endpoint, "costs")

    async def advise(self, endpoint: str | int, *, tuning: str = "default", **parameters: Any) -> None:
        """Plan a second config beside the live one; nothing of it is carried out. What is not given follows the live config.

        Raises:
            Invalid: a parameter is unknown or out of bounds, or nothing differs from the live config; nothing was sent.
        """
        said = _advised(tuning, parameters)
        path = f"{ENDPOINTS}{await self._id(endpoint)}/advice/"
        await self._call("PUT", path, said, what=str(endpoint))

    async def advice(self, endpoint: str | int) -> dict[str, Any]:
        """What a second config does beside the live one: `live`, `live_imagined`, `advised`, `differences`, `summary`."""
        return await self._look(endpoint, "advice")

    async def stop_advice(self, endpoint: str | int) -> None:
        """Plan no second config any more."""
        path = f"{ENDPOINTS}{await self._id(endpoint)}/advice/"
        await self._call("DELETE", path, what=str(endpoint))

    async def hosts(self, endpoint: str | int) -> dict[str, Any]:
        """Hosts that are not rented for a while: `blocked`, `not_to_blame`, `paused`, each with its reason."""
        return await self._look(endpoint, "hosts")

    async def unblock_hosts(self, endpoint: str | int, machine_ids: Sequence[int] = ()) -> MachineIds:
        """Let hosts be rented again, all of them if none is named: the machine ids that were blocked."""
        path = f"{ENDPOINTS}{await self._id(endpoint)}/hosts/unblock/"
        answer = await self._call("POST", path, {"machine_ids": [*machine_ids]}, what=str(endpoint))
        return [number for number in _list(answer, "unblocked", path) if isinstance(number, int)]

    async def _look(self, endpoint: str | int, page: str) -> dict[str, Any]:
        path = f"{ENDPOINTS}{await self._id(endpoint)}/{page}/"
        answer = await self._call("GET", path, what=str(endpoint))
        if not isinstance(answer, dict):
            raise MalformedAnswer(f"{path} answered a JSON {type(answer).__name__}, expected an object")
        inner = answer.get(page)
        return inner if isinstance(inner, dict) else answer

    async def _id(self, endpoint: str | int) -> int:
        asked = _meanings(endpoint)
        only = asked[0]
        return only if isinstance(only, int) else (await self.get(endpoint)).id


class Workergroups(_Caller):
    """`client.workergroups`: a workergroup is named by its id."""

    async def list(self, *, endpoint: str | int | None = None) -> list[WorkergroupRecord]:
        """All workergroups, or those of one endpoint."""
        answer = await self._call("GET", WORKERGROUPS, client_id="me")
        records = _read_all(WorkergroupRecord, answer, "results", WORKERGROUPS)
        if endpoint is None:
            return records
        for wanted in _meanings(endpoint):
            found = [
                record
                for record in records
                if wanted == (record.endpoint_name if isinstance(wanted, str) else record.endpoint_id)
            ]
            if found:
                return found
        return []

    async def get(self, workergroup_id: int) -> WorkergroupRecord:
        """One workergroup.

        Raises:
            NotFound: there is none with this id.
        """
        for record in await self.list():
            if record.id == workergroup_id:
                return record
        raise NotFound(
            f"no workergroup {workergroup_id} on {self._engine.url}; see `stoker workergroups list`"
        )

    async def create(self, endpoint: str | int, **parameters: Any) -> WorkergroupRecord:
        """Create a workergroup: `template_hash` or `template_id`, `search_params`, `launch_args`, `gpu_ram`, bounds.

        Raises:
            Invalid: a parameter is unknown or out of bounds, or no template is named; nothing was sent.
        """
        given = _workergroup(parameters)
        where = await self._where(endpoint)
        answer = await self._call(
            "POST", WORKERGROUPS, {"search_params": "", **where, **given}, repeatable=False
        )
        number = answer.get("id") if isinstance(answer, dict) else None
        if not isinstance(number, int):
            raise MalformedAnswer(f"{WORKERGROUPS} created a workergroup but did not say its id")
        try:
            return await self.get(number)
        except NotFound:  # as for endpoints
            return WorkergroupRecord.model_validate({"id": number, **where, **given})

    async def _where(self, endpoint: str | int) -> dict[str, Any]:
        """How the API is told of the endpoint. Only digits need a look: they may be a name or an id."""
        asked = _meanings(endpoint)
        if len(asked) > 1:
            asked = ((await Endpoints(self._engine, self._key).get(endpoint)).id,)
        only = asked[0]
        return {"endpoint_id": only} if isinstance(only, int) else {"endpoint_name": only}

    async def update(self, workergroup_id: int, **parameters: Any) -> None:
        """Change a workergroup; a new template or filter starts a rolling update."""
        if not parameters:
            raise Invalid("nothing to change: give at least one parameter, e.g. search_params='…'")
        _workergroup({"template_hash": "unchanged", **parameters})
        await self._call("PUT", f"{WORKERGROUPS}{workergroup_id}/", parameters, what=str(workergroup_id))

    async def delete(self, workergroup_id: int) -> None:
        """Delete a workergroup; its workers are drained and destroyed."""
        await self._call("DELETE", f"{WORKERGROUPS}{workergroup_id}/", what=str(workergroup_id))

    async def workers(self, workergroup_id: int) -> WorkerRows:
        """The workers of a workergroup."""
        return await self._rows(
            "/get_autogroup_workers/", WorkerRecord, {"id": workergroup_id}, key="workers"
        )

    async def logs(self, workergroup_id: int, *, tail: int | None = None) -> Logs:
        """The log of a workergroup."""
        return await self._logs("/get_autogroup_logs/", workergroup_id, tail)

    async def update_workers(self, workergroup_id: int, *, cancel: bool = False) -> int:
        """Update every worker to the workergroup's present template without dropping a request: how many there are to update."""
        body: dict[str, Any] = {"workergroup_id": workergroup_id}
        if cancel:
            body["cancel_update"] = True
        answer = await self._call(
            "POST", "/update_workers/", body, what=str(workergroup_id), repeatable=False
        )
        count = answer.get("workers_to_update", 0) if isinstance(answer, dict) else 0
        return count if isinstance(count, int) else 0


def _meanings(endpoint: str | int) -> tuple[str | int, ...]:
    """What a caller may mean by this, the first that exists: a text is a name, a number an id.

    Raises:
        Invalid: neither.
    """
    if isinstance(endpoint, bool) or not isinstance(endpoint, str | int):
        raise Invalid(f"an endpoint is given by its name (a text) or its id (a number), got {endpoint!r:.80}")
    if isinstance(endpoint, int):
        return (endpoint,)
    if endpoint.startswith(ID_PREFIX):
        number = read_id(endpoint.removeprefix(ID_PREFIX))
        if number is None:
            raise Invalid(f"{ID_PREFIX} is followed by digits, got {endpoint!r:.80}")
        return (number,)
    number = read_id(endpoint)
    return (endpoint,) if number is None else (endpoint, number)


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Checked parameters by the names of the API."""
    try:
        checked = EndpointPatch.model_validate(dict(given))
    except ValidationError as fault:
        raise Invalid(describe(fault)) from None
    said = {name: value for name, value in checked.model_dump(mode="json").items() if value is not None}
    if "min_workers" in said:
        said["cold_workers"] = said.pop("min_workers")
    return said


def _advised(tuning: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """A checked second config as the API takes it."""
    try:
        asked = Advise.model_validate({"config": dict(given), "tuning": tuning})
    except ValidationError as fault:
        raise Invalid(describe(fault)) from None
    return asked.config.model_dump(mode="json", exclude_none=True) | {"tuning": asked.tuning}


def _workergroup(given: Mapping[str, Any]) -> dict[str, Any]:
    try:
        checked = Workergroup.model_validate({"id": 1, **given})
    except ValidationError as fault:
        raise Invalid(describe(fault)) from None
    return {name: value for name, value in checked.model_dump(mode="json").items() if name in given}


def _list(answer: Any, key: str, path: str) -> list[Any]:
    rows = answer.get(key) if isinstance(answer, dict) else answer
    if not isinstance(rows, list):
        raise MalformedAnswer(f"{path} answered without a list of {key}; is this address a stoker engine?")
    return rows


def _read_all(model: type[M], answer: Any, key: str, path: str) -> list[M]:
    """Every row of a list. One that cannot be read does not hide the others: its record says what is wrong."""
    records: list[M] = []
    strange = ""
    for row in _list(answer, key, path):
        try:
            records.append(model.model_validate(row))
        except ValidationError as fault:
            given = row if isinstance(row, dict) else {}
            strange = strange or describe(fault)
            if isinstance(given.get("id"), int):
                records.append(_broken(model, given, describe(fault)))
    if strange and not records:
        raise MalformedAnswer(f"{path} answered a {model.__name__} that cannot be read: {strange}")
    return records


def _broken(model: type[M], given: Mapping[str, Any], fault: str) -> M:
    """As much of a row as every list needs, and what is wrong with it."""
    name = (
        {"endpoint_name": str(given.get("endpoint_name", "?"))}
        if "endpoint_name" in model.model_fields
        else {}
    )
    return model.model_validate({"id": given["id"], "broken": f"cannot be read: {fault}"} | name)


def _read(model: type[M], row: Any, path: str) -> M:
    try:
        return model.model_validate(row)
    except ValidationError as fault:
        raise MalformedAnswer(
            f"{path} answered a {model.__name__} that cannot be read: {describe(fault)}"
        ) from None
