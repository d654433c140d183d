"""Endpoints through the engine's console API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from stoker.errors import EndpointNotFound, Invalid, MalformedAnswer
from stoker.management.console_api import ConsoleApi, endpoint_candidates, read_rows, rows_of
from stoker.management.records import EndpointRecord, Logs, WorkerRecord
from stoker_wire.control import Advise, WorkerAction
from stoker_wire.endpoint import EndpointConfig, EndpointPatch
from stoker_wire.errors.problem import describe

# aliases, because the class below has a method called `list`
WorkerRows = list[WorkerRecord]
DecisionRows = list[dict[str, Any]]
MachineIds = list[int]

ENDPOINTS = "/api/v0/endptjobs/"


class Endpoints(ConsoleApi):
    """`client.endpoints`: an endpoint is given by its name (a text) or its id (a number).

    The text `id:4090` is an id; no name contains a colon. Digits are an id only if no endpoint has that name.
    """

    async def list(self) -> list[EndpointRecord]:
        """All endpoints of this account."""
        answer = await self._call("GET", ENDPOINTS, client_id="me")
        return read_rows(EndpointRecord, answer, "results", ENDPOINTS)

    async def get(self, endpoint: str | int) -> EndpointRecord:
        """One endpoint.

        Raises:
            EndpointNotFound: no endpoint of this name or id.
        """
        records = await self.list()
        for wanted in endpoint_candidates(endpoint):
            for record in records:
                if wanted == (record.endpoint_name if isinstance(wanted, str) else record.id):
                    return record
        names = ", ".join(sorted(record.endpoint_name for record in records)[:20]) or "none"
        raise EndpointNotFound(f"no endpoint {endpoint!r} on {self._engine.url}; there are: {names}")

    async def create(
        self, endpoint_name: str, config: EndpointConfig | None = None, **parameters: Any
    ) -> EndpointRecord:
        """Create an endpoint; the other parameters take the documented defaults.

        Raises:
            Invalid: a parameter is unknown or out of bounds; nothing was sent.
            Refused: e.g. the name is taken.
        """
        given = {} if config is None else config.model_dump(exclude_unset=True)
        body = {"endpoint_name": endpoint_name, **_parameters(given | parameters)}
        # repeatable: the engine answers an identical create within a minute with the same endpoint
        answer = await self._call("POST", ENDPOINTS, body)
        number = answer.get("result") if isinstance(answer, dict) else None
        if not isinstance(number, int):
            raise MalformedAnswer(f"{ENDPOINTS} created {endpoint_name!r} but did not return its id")
        try:
            return await self.get(number)
        except EndpointNotFound:  # another engine behind the same address sees it within a second
            return EndpointRecord.model_validate({"id": number, **body})

    async def update(self, endpoint: str | int, **parameters: Any) -> None:
        """Change parameters of a live endpoint at once; the others stay as they are."""
        changes = _parameters(parameters)
        if not changes:
            raise Invalid("nothing to change: give at least one parameter, e.g. max_workers=4")
        number = await self._id(endpoint)
        await self._call(
            "PUT", f"{ENDPOINTS}{number}/", {"endptjob_id": number, **changes}, what=str(endpoint)
        )

    async def delete(self, endpoint: str | int, *, force: bool = False) -> dict[str, Any]:
        """Delete an endpoint with its workergroups; every worker is destroyed. Returns the engine's answer.

        `force` terminates its workflow and destroys every instance with its label without draining. It is meant for a
        workflow that makes no progress. `begun` in the answer is false if a plain delete has not begun.
        """
        number = await self._id(endpoint)
        body = {"force": True} if force else None
        answer = await self._call("DELETE", f"{ENDPOINTS}{number}/", body, what=str(endpoint))
        return answer if isinstance(answer, dict) else {}

    async def rotate_key(self, endpoint: str | int, *, overlap_seconds: float = 0.0) -> str:
        """A new routing key. The old key becomes invalid at once, or after `overlap_seconds` (a day at most).

        Clients with an account's key fetch the new key by themselves.
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
        return await self._post_for_rows(
            "/get_endpoint_workers/", WorkerRecord, {"id": number}, key="workers"
        )

    async def logs(self, endpoint: str | int, *, tail: int | None = None) -> Logs:
        """The log of an endpoint; `tail`: only the last lines of each level."""
        return await self._post_for_logs("/get_endpoint_logs/", await self._id(endpoint), tail)

    async def worker_log(self, endpoint: str | int, worker: str | int, *, tail: int = 200) -> dict[str, Any]:
        """The last lines of a worker's machine: `log`, `live`, `at`. After its end, the saved lines.

        Args:
            worker: the id of its instance, or its launch id.

        Raises:
            NotFound: no log of this worker exists.
        """
        body = {"id": await self._id(endpoint), "worker": worker, "tail": tail}
        answer = await self._call("POST", "/get_worker_logs/", body, what=str(worker))
        return answer if isinstance(answer, dict) else {}

    async def worker(self, endpoint: str | int, worker: str | int) -> WorkerRecord:
        """One worker with its whole error, the phases of its last boot, and what an operator asked of it.

        Raises:
            NotFound: the endpoint has no such worker.
        """
        body = {"id": await self._id(endpoint), "worker": worker}
        answer = await self._call("POST", "/get_worker/", body, what=str(worker))
        row = answer.get("worker") if isinstance(answer, dict) else None
        return read_rows(WorkerRecord, [row], "worker", "/get_worker/")[0]

    async def change_worker(
        self, endpoint: str | int, worker: str | int, action: WorkerAction | str
    ) -> dict[str, Any]:
        """Drain, resume, reboot or destroy one worker; a ready one is drained first, so no request is lost.

        A drained worker stays out of service until it is resumed.

        Args:
            worker: the id of its instance, or its launch id.

        Raises:
            NotFound: the endpoint has no such worker.
            Invalid: the action is not possible in the worker's state.
        """
        body = {"id": await self._id(endpoint), "worker": worker, "action": str(action)}
        answer = await self._call("POST", "/change_worker/", body, what=str(worker))
        return answer if isinstance(answer, dict) else {}

    async def status(self, endpoint: str | int) -> dict[str, Any]:
        """Load against capacity, the queue, the workers, and why requests wait."""
        return await self._get_page(endpoint, "status")

    async def decisions(self, endpoint: str | int, *, tail: int = 20) -> DecisionRows:
        """The last decisions, oldest first, each with its reason."""
        path = f"{ENDPOINTS}{await self._id(endpoint)}/decisions/"
        answer = await self._call("GET", path, what=str(endpoint), tail=str(tail))
        return [row for row in rows_of(answer, "decisions", path) if isinstance(row, dict)]

    async def overview(self) -> dict[str, Any]:
        """Live figures of all endpoints of this account: `endpoints`, each with health, load, capacity and queue.

        Queues and counters are those of the engine that answers.
        """
        answer = await self._call("GET", "/api/v0/overview/")
        rows_of(answer, "endpoints", "/api/v0/overview/")
        return answer if isinstance(answer, dict) else {"endpoints": answer}

    async def requests(self, endpoint: str | int) -> dict[str, Any]:
        """The last, slowest and failed requests at the engine that answers: `recent`, `slow`, `failed`."""
        return await self._get_page(endpoint, "requests")

    async def costs(self, endpoint: str | int) -> dict[str, Any]:
        """Dollars by worker state."""
        return await self._get_page(endpoint, "costs")

    async def advise(self, endpoint: str | int, **parameters: Any) -> None:
        """Start a what-if analysis: a second config is planned beside the live one and not carried out.

        Parameters that are not given follow the live config.

        Raises:
            Invalid: a parameter is unknown or out of bounds, or nothing differs from the live config; nothing was sent.
        """
        config = _advised(parameters)
        path = f"{ENDPOINTS}{await self._id(endpoint)}/advice/"
        await self._call("PUT", path, config, what=str(endpoint))

    async def advice(self, endpoint: str | int) -> dict[str, Any]:
        """The what-if comparison: `live`, `live_imagined`, `advised`, `summary`."""
        return await self._get_page(endpoint, "advice")

    async def stop_advice(self, endpoint: str | int) -> None:
        """Stop the what-if analysis."""
        path = f"{ENDPOINTS}{await self._id(endpoint)}/advice/"
        await self._call("DELETE", path, what=str(endpoint))

    async def hosts(self, endpoint: str | int) -> dict[str, Any]:
        """Hosts that are temporarily not rented: `blocked`, `not_to_blame`, `paused`, each with its reason."""
        return await self._get_page(endpoint, "hosts")

    async def unblock_hosts(self, endpoint: str | int, machine_ids: Sequence[int] = ()) -> MachineIds:
        """Allow blocked hosts again; without ids all of them. Returns the machine ids that were blocked."""
        path = f"{ENDPOINTS}{await self._id(endpoint)}/hosts/unblock/"
        answer = await self._call("POST", path, {"machine_ids": [*machine_ids]}, what=str(endpoint))
        return [number for number in rows_of(answer, "unblocked", path) if isinstance(number, int)]

    async def _get_page(self, endpoint: str | int, page: str) -> dict[str, Any]:
        path = f"{ENDPOINTS}{await self._id(endpoint)}/{page}/"
        answer = await self._call("GET", path, what=str(endpoint))
        if not isinstance(answer, dict):
            raise MalformedAnswer(f"{path} answered a JSON {type(answer).__name__}, expected an object")
        inner = answer.get(page)
        return inner if isinstance(inner, dict) else answer

    async def _id(self, endpoint: str | int) -> int:
        asked = endpoint_candidates(endpoint)
        only = asked[0]
        return only if isinstance(only, int) else (await self.get(endpoint)).id


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Checked parameters, by the names of the API."""
    try:
        checked = EndpointPatch.model_validate(dict(given))
    except ValidationError as fault:
        raise Invalid(describe(fault)) from None
    given_values = {
        name: value for name, value in checked.model_dump(mode="json").items() if value is not None
    }
    if "min_workers" in given_values:
        given_values["cold_workers"] = given_values.pop("min_workers")
    return given_values


def _advised(given: Mapping[str, Any]) -> dict[str, Any]:
    """A checked what-if config, as the API takes it."""
    try:
        asked = Advise.model_validate({"config": dict(given)})
    except ValidationError as fault:
        raise Invalid(describe(fault)) from None
    return asked.config.model_dump(mode="json", exclude_none=True)
