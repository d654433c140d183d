"""Workergroups through the engine's console API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from stoker.errors import Invalid, MalformedAnswer, NotFound
from stoker.management.console_api import ConsoleApi, endpoint_candidates, read_rows
from stoker.management.endpoints import Endpoints
from stoker.management.records import Logs, WorkergroupRecord, WorkerRecord
from stoker_wire.errors.problem import describe
from stoker_wire.workergroup import Workergroup

WorkerRows = list[WorkerRecord]  # an alias, because the class below has a method called `list`

WORKERGROUPS = "/api/v0/workergroups/"


class Workergroups(ConsoleApi):
    """`client.workergroups`: a workergroup is given by its id."""

    async def list(self, *, endpoint: str | int | None = None) -> list[WorkergroupRecord]:
        """All workergroups, or those of one endpoint."""
        answer = await self._call("GET", WORKERGROUPS, client_id="me")
        records = read_rows(WorkergroupRecord, answer, "results", WORKERGROUPS)
        if endpoint is None:
            return records
        for wanted in endpoint_candidates(endpoint):
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
            NotFound: no workergroup with this id.
        """
        for record in await self.list():
            if record.id == workergroup_id:
                return record
        raise NotFound(
            f"no workergroup {workergroup_id} on {self._engine.url}; see `stoker workergroups list`"
        )

    async def create(self, endpoint: str | int, **parameters: Any) -> WorkergroupRecord:
        """Create a workergroup: `template_hash` or `template_id`, and `search_params`, `launch_args`, `gpu_ram`, bounds.

        Raises:
            Invalid: a parameter is unknown or out of bounds, or the template is missing; nothing was sent.
        """
        given = _workergroup(parameters)
        where = await self._endpoint_reference(endpoint)
        answer = await self._call(
            "POST", WORKERGROUPS, {"search_params": "", **where, **given}, repeatable=False
        )
        number = answer.get("id") if isinstance(answer, dict) else None
        if not isinstance(number, int):
            raise MalformedAnswer(f"{WORKERGROUPS} created a workergroup but did not return its id")
        warning = str(answer.get("warning") or "")
        try:
            return (await self.get(number)).model_copy(update={"warning": warning})
        except NotFound:  # another engine behind the same address sees it within a second
            return WorkergroupRecord.model_validate({"id": number, **where, **given, "warning": warning})

    async def _endpoint_reference(self, endpoint: str | int) -> dict[str, Any]:
        """The fields that name the endpoint. Digits are looked up, because they may be a name or an id."""
        asked = endpoint_candidates(endpoint)
        if len(asked) > 1:
            asked = ((await Endpoints(self._engine, self._key).get(endpoint)).id,)
        only = asked[0]
        return {"endpoint_id": only} if isinstance(only, int) else {"endpoint_name": only}

    async def update(self, workergroup_id: int, **parameters: Any) -> None:
        """Change a workergroup; a new template or search filter starts a rolling update."""
        if not parameters:
            raise Invalid("nothing to change: give at least one parameter, e.g. search_params='…'")
        _workergroup({"template_hash": "unchanged", **parameters})
        await self._call("PUT", f"{WORKERGROUPS}{workergroup_id}/", parameters, what=str(workergroup_id))

    async def delete(self, workergroup_id: int) -> None:
        """Delete a workergroup; its workers are drained and destroyed."""
        await self._call("DELETE", f"{WORKERGROUPS}{workergroup_id}/", what=str(workergroup_id))

    async def workers(self, workergroup_id: int) -> WorkerRows:
        """The workers of a workergroup."""
        return await self._post_for_rows(
            "/get_autogroup_workers/", WorkerRecord, {"id": workergroup_id}, key="workers"
        )

    async def logs(self, workergroup_id: int, *, tail: int | None = None) -> Logs:
        """The log of a workergroup."""
        return await self._post_for_logs("/get_autogroup_logs/", workergroup_id, tail)

    async def update_workers(self, workergroup_id: int, *, cancel: bool = False) -> int:
        """Update every worker to the present template without dropping a request. Returns how many workers are due."""
        body: dict[str, Any] = {"workergroup_id": workergroup_id}
        if cancel:
            body["cancel_update"] = True
        answer = await self._call(
            "POST", "/update_workers/", body, what=str(workergroup_id), repeatable=False
        )
        count = answer.get("workers_to_update", 0) if isinstance(answer, dict) else 0
        return count if isinstance(count, int) else 0


def _workergroup(given: Mapping[str, Any]) -> dict[str, Any]:
    try:
        checked = Workergroup.model_validate({"id": 1, **given})
    except ValidationError as fault:
        raise Invalid(describe(fault)) from None
    return {name: value for name, value in checked.model_dump(mode="json").items() if name in given}
