"""Endpoints directly on Temporal, without an engine: start, change and query an endpoint's workflow.

Needs `pip install "stoker[temporal]"`; `import stoker` alone does not.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import secrets
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Self

try:
    import temporalio  # noqa: F401 - checked first, so that the error names the extra to install
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        'stoker.control needs temporalio; install it with: pip install "stoker[temporal]"', name="temporalio"
    ) from None

from pydantic import ValidationError
from temporalio.client import (
    Client,
    WorkflowFailureError,
    WorkflowHandle,
)
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
)
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.envconfig import ClientConfig
from temporalio.exceptions import CancelledError
from temporalio.service import RPCError

from stoker.control_errors import NAME_TAKEN, temporal_errors
from stoker.errors import EndpointNotFound, Invalid, Refused, RequestTimedOut, TemporalUnavailable
from stoker_wire import control as wire
from stoker_wire.endpoint import EndpointConfig, EndpointPatch
from stoker_wire.errors.problem import describe
from stoker_wire.security.client_key import KeyEdit
from stoker_wire.security.token import CLIENT_KEY_BYTES, client_key_digest, mint_client_key
from stoker_wire.workergroup import Workergroup

ENDPOINT_ID_LIMIT = 2**31
CALL_SECONDS_MAX = 10.0

EXIT_SECONDS = 0.25
"""Pause before the interpreter exits. Threads of Temporal's core may still use the interpreter then and abort the
process (sdk-python#300). Without the pause about one of fifteen short scripts was aborted, with it none of fifty."""

DELETION_SECONDS_MAX = 60.0
"""How long `create_endpoint` waits for the end of an earlier endpoint's deletion. A deletion ends about 30 s after the
marketplace has confirmed that the last worker is gone."""

STATE_SECONDS_MAX = 2.0
"""For the query whether a live endpoint is being deleted; without a Temporal worker it gets no answer."""

atexit.register(time.sleep, EXIT_SECONDS)

_NAME = SearchAttributeKey.for_keyword("EndpointName")
_ID = SearchAttributeKey.for_int("EndpointId")
_STATE = SearchAttributeKey.for_keyword("EndpointState")


class Control:
    """A connection to the Temporal namespace that endpoints live in.

    It has full access to every endpoint of the namespace; Temporal's own authorisation is the only check.
    """

    def __init__(
        self,
        client: Client,
        *,
        task_queue: str = wire.TASK_QUEUE,
        call_seconds_max: float = CALL_SECONDS_MAX,
    ) -> None:
        self.client = client
        self._task_queue = task_queue
        self._call = timedelta(seconds=call_seconds_max)

    @classmethod
    async def connect(
        cls,
        *,
        address: str | None = None,
        namespace: str | None = None,
        profile: str | None = None,
        config_file: str | None = None,
        task_queue: str = wire.TASK_QUEUE,
        **options: Any,
    ) -> Self:
        """Connect with Temporal's own settings: `TEMPORAL_*` variables and its config file, by profile.

        `address` and `namespace` override both. `options` are passed to `temporalio.client.Client.connect` (tls,
        api_key, …).

        Raises:
            Invalid: the profile does not exist or cannot be read.
            TemporalUnavailable: no server answers at the address.
        """
        try:
            settings: dict[str, Any] = dict(
                ClientConfig.load_client_connect_config(profile=profile, config_file=config_file)
            )
        except (RuntimeError, ValueError, OSError) as fault:
            raise Invalid(f"cannot read Temporal's settings: {fault}") from None
        settings |= {"target_host": address} if address else {}
        settings |= {"namespace": namespace} if namespace else {}
        settings.setdefault("target_host", "localhost:7233")
        try:
            client = await Client.connect(
                **(settings | {"data_converter": pydantic_data_converter} | options)
            )
        except (RuntimeError, RPCError) as fault:
            raise TemporalUnavailable(
                f"no Temporal server answers at {settings['target_host']} ({fault}); "
                "give address=…, or set TEMPORAL_ADDRESS"
            ) from None
        return cls(client, task_queue=task_queue)

    async def create_endpoint(
        self,
        spec: wire.EndpointSpec | str,
        config: EndpointConfig | None = None,
        *,
        workergroups: Sequence[Workergroup] = (),
        owner: str = "default",
        deletion_seconds_max: float = DELETION_SECONDS_MAX,
    ) -> wire.EndpointSpec:
        """Start an endpoint's workflow from a spec, or from a name, a config and workergroups. Returns the spec.

        If an endpoint of this name is being deleted, wait for its end for up to `deletion_seconds_max` seconds.

        Raises:
            Invalid: the name or the owner is not valid.
            Refused: `name_taken`, a live endpoint has this name; `endpoint_deleting`, its deletion has not ended.
            TemporalUnavailable: Temporal does not answer.
        """
        if isinstance(spec, str):
            try:
                spec = wire.EndpointSpec(
                    endpoint_name=spec,
                    endpoint_id=1 + secrets.randbelow(ENDPOINT_ID_LIMIT - 1),
                    config=config or EndpointConfig(),
                    workergroups=tuple(workergroups),
                    created_at=time.time(),
                    owner=owner,
                )
            except ValidationError as fault:
                raise Invalid(describe(fault)) from None
        try:
            await self._start(spec)
        except Refused as fault:
            if fault.code != NAME_TAKEN or not await self._is_being_deleted(spec.endpoint_name):
                raise
            await self._wait_for_deletion(spec.endpoint_name, deletion_seconds_max)
            await self._start(spec)
        return spec

    async def _start(self, spec: wire.EndpointSpec) -> None:
        attributes = TypedSearchAttributes(
            [
                SearchAttributePair(_NAME, spec.endpoint_name),
                SearchAttributePair(_ID, spec.endpoint_id),
                SearchAttributePair(_STATE, spec.config.endpoint_state.value),
            ]
        )
        with temporal_errors(spec.endpoint_name):
            await self.client.start_workflow(
                wire.WORKFLOW_TYPE,
                spec,
                id=wire.workflow_id(spec.endpoint_name),
                task_queue=self._task_queue,
                search_attributes=attributes,
                static_summary=f"endpoint {spec.endpoint_name}",
                rpc_timeout=self._call,
            )

    async def _is_being_deleted(self, endpoint_name: str) -> bool:
        """Whether the live endpoint of this name is being deleted.

        The search attribute needs no Temporal worker. The query also sees a delete signal that was just sent.
        """
        with temporal_errors(endpoint_name):
            described = await self._handle(endpoint_name).describe(rpc_timeout=self._call)
        if described.typed_search_attributes.get(_STATE) == "deleting":
            return True
        timeout = min(self._call, timedelta(seconds=STATE_SECONDS_MAX))
        try:
            with temporal_errors(endpoint_name):
                status = await self._handle(endpoint_name).query(wire.QUERY_STATUS, rpc_timeout=timeout)
        except EndpointNotFound:
            return True
        except (TemporalUnavailable, Refused):
            return False
        return bool(status["state"] == "deleting")

    async def _wait_for_deletion(self, endpoint_name: str, seconds_max: float) -> None:
        try:
            async with asyncio.timeout(seconds_max):
                with temporal_errors(endpoint_name), contextlib.suppress(EndpointNotFound):
                    await self._deletion_result(endpoint_name)
        except TimeoutError:
            raise Refused(
                f"endpoint {endpoint_name!r} is still being deleted after {seconds_max:g} s. The deletion ends about "
                "30 s after the marketplace confirms that its last worker is gone; create the endpoint again then, or "
                "choose another name",
                status=409,
                code="endpoint_deleting",
            ) from None

    async def update_config(self, endpoint_name: str, **parameters: Any) -> dict[str, Any]:
        """Change parameters and wait until the workflow has applied them. Returns the whole config.

        Raises:
            Invalid: a parameter is unknown or out of bounds.
            Refused: by the workflow, e.g. because it is being deleted.
        """
        changed: dict[str, Any] = await self._update(endpoint_name, wire.UPDATE_CONFIG, _patch(parameters))
        return changed

    async def set_workergroup(self, endpoint_name: str, workergroup: Workergroup) -> dict[str, Any]:
        """Add or change a workergroup and wait until it is applied. Returns it with its revision."""
        stored: dict[str, Any] = await self._update(
            endpoint_name, wire.SET_WORKERGROUP, _workergroup_json(workergroup)
        )
        return stored

    async def remove_workergroup(self, endpoint_name: str, workergroup_id: int) -> None:
        """Remove a workergroup and wait until the workflow has accepted it.

        Raises:
            Refused: no workergroup with this id.
        """
        await self._update(endpoint_name, wire.REMOVE_WORKERGROUP, workergroup_id)

    async def update_workers(self, endpoint_name: str, workergroup_id: int) -> None:
        """Update a workergroup's workers to its present template without dropping a request.

        Raises:
            Refused: no workergroup with this id.
        """
        await self._update(endpoint_name, wire.UPDATE_WORKERS, workergroup_id)

    async def cancel_update(self, endpoint_name: str, workergroup_id: int) -> None:
        """Stop a rolling update. Workers whose update has begun finish it.

        Raises:
            Refused: no workergroup with this id.
        """
        await self._update(endpoint_name, wire.CANCEL_UPDATE, workergroup_id)

    async def rotate_key(self, endpoint_name: str) -> int:
        """Replace the endpoint's routing key. Returns the version of the new key."""
        return int(await self._update(endpoint_name, wire.ROTATE_KEY))

    async def create_key(self, endpoint_name: str, name: str, **limits: Any) -> str:
        """Create a named key and return its text. Temporal receives only its hash.

        Args:
            limits: `load_per_second`, `dollars_per_day`, and `priority` (high, normal or low).

        Raises:
            Invalid: a limit is unknown or out of bounds.
            Refused: the name is taken.
        """
        with temporal_errors(endpoint_name):
            described = await self._handle(endpoint_name).describe(rpc_timeout=self._call)
        endpoint_id = described.typed_search_attributes[_ID]
        text = mint_client_key(endpoint_id, secrets.token_bytes(CLIENT_KEY_BYTES))
        await self._edit_key(
            endpoint_name, op="create", name=name, digest=client_key_digest(text), limits=limits
        )
        return text

    async def update_key(self, endpoint_name: str, name: str, **limits: Any) -> None:
        """Change limits of a named key; None removes one."""
        await self._edit_key(endpoint_name, op="change", name=name, limits=limits)

    async def revoke_key(self, endpoint_name: str, name: str) -> None:
        """Make a named key invalid."""
        await self._edit_key(endpoint_name, op="revoke", name=name)

    async def _edit_key(self, endpoint_name: str, **fields: Any) -> None:
        try:
            edit = KeyEdit.model_validate(fields)
        except ValidationError as fault:
            raise Invalid(describe(fault).replace("limits.", "")) from None
        await self._update(endpoint_name, wire.EDIT_KEYS, edit.message())

    async def advise(self, endpoint_name: str, **parameters: Any) -> None:
        """Start a what-if analysis: a second config is planned beside the live one and not carried out.

        Parameters that are not given follow the live config.

        Raises:
            Invalid: a parameter is unknown or out of bounds, or nothing differs from the live config.
            Refused: by the workflow.
        """
        try:
            asked = wire.Advise.model_validate({"config": dict(parameters)})
        except ValidationError as fault:
            raise Invalid(describe(fault)) from None
        await self._update(endpoint_name, wire.ADVISE, asked.model_dump(mode="json", exclude_none=True))

    async def stop_advice(self, endpoint_name: str) -> None:
        """Stop the what-if analysis."""
        await self._update(endpoint_name, wire.ADVISE, None)

    async def advice(self, endpoint_name: str) -> dict[str, Any]:
        """The what-if comparison: `live`, `live_imagined`, `advised`, `summary`."""
        answer: dict[str, Any] = await self._query(endpoint_name, wire.QUERY_ADVICE)
        return answer

    async def hosts(self, endpoint_name: str) -> dict[str, Any]:
        """Hosts that are temporarily not rented: `blocked`, `not_to_blame`, `paused`, each with its reason."""
        answer: dict[str, Any] = await self._query(endpoint_name, wire.QUERY_HOSTS)
        return answer

    async def unblock_hosts(self, endpoint_name: str, machine_ids: Sequence[int] = ()) -> list[int]:
        """Allow blocked hosts again; without ids all of them. Returns the machine ids that were blocked."""
        freed: list[int] = await self._update(endpoint_name, wire.UNBLOCK_HOSTS, [*machine_ids])
        return freed

    async def change_worker(
        self, endpoint_name: str, launch_id: str, action: wire.WorkerAction | str
    ) -> None:
        """Drain, resume, reboot or destroy one worker; a ready one is drained first."""
        change = {"launch_id": launch_id, "action": str(action)}
        await self._update(endpoint_name, wire.CHANGE_WORKER, change)

    async def delete(self, endpoint_name: str, *, wait_seconds: float | None = None) -> dict[str, Any] | None:
        """Delete an endpoint: every worker is destroyed.

        With `wait_seconds`, wait until the marketplace has confirmed the last one. Returns the endpoint's totals
        (workers rented, dollars spent).

        Raises:
            RequestTimedOut: the deletion did not end within `wait_seconds`; it continues.
        """
        await self._signal(endpoint_name, wire.DELETE)
        if wait_seconds is None:
            return None
        try:
            async with asyncio.timeout(wait_seconds):
                with temporal_errors(endpoint_name):
                    return await self._deletion_result(endpoint_name)
        except TimeoutError:
            raise RequestTimedOut(
                f"endpoint {endpoint_name} was not gone within {wait_seconds:g} s; "
                "its workers are still being destroyed. The Temporal UI shows which",
                reason="deleting",
                waited_s=wait_seconds,
            ) from None

    async def _deletion_result(self, endpoint_name: str) -> dict[str, Any]:
        try:
            totals: dict[str, Any] = await self._handle(endpoint_name).result()
        except WorkflowFailureError as fault:
            if isinstance(fault.cause, CancelledError):
                return {}  # the workflow was also cancelled; it deletes the endpoint and ends as cancelled
            raise
        return totals

    async def status(self, endpoint_name: str) -> dict[str, Any]:
        """The endpoint's workers, targets and reasons to wait."""
        answer: dict[str, Any] = await self._query(endpoint_name, wire.QUERY_STATUS)
        return answer

    async def workers(self, endpoint_name: str) -> list[dict[str, Any]]:
        """The record of every worker."""
        answer: list[dict[str, Any]] = await self._query(endpoint_name, wire.QUERY_WORKERS)
        return answer

    async def workergroups(self, endpoint_name: str) -> list[dict[str, Any]]:
        """The workergroups."""
        answer: list[dict[str, Any]] = await self._query(endpoint_name, wire.QUERY_WORKERGROUPS)
        return answer

    async def decisions(self, endpoint_name: str, *, tail: int = 20) -> list[dict[str, Any]]:
        """The last decisions with their reasons, oldest first."""
        answer: list[dict[str, Any]] = await self._query(endpoint_name, wire.QUERY_DECISIONS, tail)
        return answer

    async def costs(self, endpoint_name: str) -> dict[str, Any]:
        """Dollars spent, and dollars per hour now."""
        answer: dict[str, Any] = await self._query(endpoint_name, wire.QUERY_COSTS)
        return answer

    async def list_endpoints(self) -> list[str]:
        """The names of the live endpoints."""
        query = f'WorkflowType="{wire.WORKFLOW_TYPE}" AND ExecutionStatus="Running"'
        with temporal_errors("*"):
            found = [each.id async for each in self.client.list_workflows(query, rpc_timeout=self._call)]
        return sorted(each.removeprefix(wire.workflow_id("")) for each in found)

    async def release(self, endpoint_name: str, *, wait_seconds: float | None = None) -> wire.Released | None:
        """Delete an endpoint by force: terminate its workflow, destroy every instance with its label, without draining.

        For an endpoint whose workflow makes no progress. A Temporal worker must run. With `wait_seconds`, wait for the
        result: the instances that were destroyed and those that are left, which the sweep destroys later.

        Raises:
            RequestTimedOut: it did not end within `wait_seconds`; it continues.
        """
        with temporal_errors(endpoint_name):
            handle = await self.client.start_workflow(
                wire.RELEASE_WORKFLOW_TYPE,
                wire.Release(endpoint_name=endpoint_name),
                id=wire.release_id(endpoint_name),
                task_queue=self._task_queue,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                result_type=wire.Released,
                rpc_timeout=self._call,
            )
        if wait_seconds is None:
            return None
        try:
            async with asyncio.timeout(wait_seconds):
                with temporal_errors(endpoint_name):
                    released: wire.Released = await handle.result()
                    return released
        except TimeoutError:
            raise RequestTimedOut(
                f"the forced delete of {endpoint_name} did not end within {wait_seconds:g} s; it continues",
                reason="deleting",
                waited_s=wait_seconds,
            ) from None

    def _handle(self, endpoint_name: str) -> WorkflowHandle[Any, Any]:
        return self.client.get_workflow_handle(wire.workflow_id(endpoint_name))

    async def _signal(self, endpoint_name: str, signal: str, *arguments: Any) -> None:
        with temporal_errors(endpoint_name):
            await self._handle(endpoint_name).signal(signal, args=arguments, rpc_timeout=self._call)

    async def _update(self, endpoint_name: str, update: str, *arguments: Any) -> Any:
        # with an id, a retry of the RPC layer is the same update, not a second one
        with temporal_errors(endpoint_name):
            return await self._handle(endpoint_name).execute_update(
                update, args=arguments, id=uuid.uuid4().hex, rpc_timeout=self._call
            )

    async def _query(self, endpoint_name: str, query: str, *arguments: Any) -> Any:
        with temporal_errors(endpoint_name):
            return await self._handle(endpoint_name).query(query, args=arguments, rpc_timeout=self._call)


def _patch(parameters: Mapping[str, Any]) -> dict[str, Any]:
    try:
        patch = EndpointPatch.model_validate(dict(parameters))
    except ValidationError as fault:
        raise Invalid(describe(fault)) from None
    given = {name: value for name, value in patch.model_dump(mode="json").items() if value is not None}
    if not given:
        raise Invalid("nothing to change: give at least one parameter, e.g. max_workers=4")
    return given


def _workergroup_json(workergroup: Workergroup) -> dict[str, Any]:
    return workergroup.model_dump(mode="json", exclude_none=True)
