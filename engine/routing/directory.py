"""The endpoints that this engine knows, by name and by id."""

from collections.abc import Iterator

from engine.routing.dispatcher import Dispatcher
from engine.routing.endpoint import Endpoint
from engine.settings import Limits, Timing
from policy.state.host_failures import LAST_FAILURE
from stoker_wire.errors.problem import Problem
from stoker_wire.messages import EndpointMemo

WAIT_FAILED = "worker_failed"
"""The wait code of an endpoint that has stopped recruiting because its workers fail."""


def _failure_level(memo: EndpointMemo) -> int:
    """0: no launch failed; 1: the last one failed; 2: recruiting has stopped after failures."""
    return 2 if memo.wait_code == WAIT_FAILED else int(LAST_FAILURE in memo.wait_reason)


class Directory:
    """Filled by the endpoint watcher. A memo that is older than the known one is ignored."""

    def __init__(
        self, *, secrets: tuple[bytes, ...], timing: Timing, limits: Limits, dispatcher: Dispatcher
    ) -> None:
        self._secrets = secrets
        self._timing = timing
        self._limits = limits
        self._dispatcher = dispatcher
        self._by_name: dict[str, Endpoint] = {}
        self._by_id: dict[int, Endpoint] = {}
        self.version = 0
        """Incremented with every applied or dropped memo."""
        self.read_error = "no answer from Temporal yet"
        """Why the directory may be incomplete; empty: the last poll succeeded."""
        self.complete = False
        """Whether all endpoints have been read once."""

    def __repr__(self) -> str:
        return f"<Directory of {len(self._by_name)} endpoints>"

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(list(self._by_name.values()))

    def __len__(self) -> int:
        return len(self._by_name)

    def named(self, name: str) -> Endpoint | None:
        """The live endpoint with this name."""
        return self._by_name.get(name)

    def with_id(self, endpoint_id: int) -> Endpoint | None:
        """The live endpoint with this id."""
        return self._by_id.get(endpoint_id)

    def owned_by(self, owner: str) -> list[Endpoint]:
        """An account's endpoints, oldest first.

        Raises:
            Problem: 503, the engine could not read them.
        """
        found = self.known_of(owner)
        if not self.complete or not found:
            self.require_read()
        return found

    def known_of(self, owner: str) -> list[Endpoint]:
        """The account's endpoints that this engine has read so far, oldest first."""
        return sorted(
            (e for e in self._by_name.values() if e.memo.owner == owner), key=lambda e: e.memo.created_at
        )

    def require_read(self) -> None:
        """Ensure that an unknown endpoint does not exist: the last poll of Temporal has to have succeeded.

        Raises:
            Problem: 503, the last poll failed.
        """
        if self.read_error:
            message = f"the engine cannot read the endpoints from Temporal now ({self.read_error}); try again"
            raise Problem(503, "endpoints_not_read", message, headers={"Retry-After": "2"})

    def of_owner(self, endpoint_id: int, owner: str) -> Endpoint:
        """An account's endpoint.

        Raises:
            Problem: 404, the same for another account's endpoint and for none. 503, Temporal did not answer.
        """
        endpoint = self._by_id.get(endpoint_id)
        if endpoint is None:
            self.require_read()
        if endpoint is None or endpoint.memo.owner != owner:
            raise Problem(
                404,
                "no_such_endpoint",
                f"there is no endpoint {endpoint_id}; see the list of endpoints",
            )
        return endpoint

    def of_group(self, workergroup_id: int, owner: str) -> Endpoint:
        """The account's endpoint that has this workergroup.

        Raises:
            Problem: 404, no endpoint has it. 503, Temporal did not answer.
        """
        for endpoint in self._by_name.values():
            if endpoint.memo.owner == owner and workergroup_id in endpoint.memo.groups:
                return endpoint
        self.require_read()
        raise Problem(
            404,
            "no_such_workergroup",
            f"there is no workergroup {workergroup_id}; list yours with `show workergroups`",
        )

    def apply(self, memo: EndpointMemo, now: float) -> Endpoint:
        """Apply a memo unless a newer one of the same endpoint is known; returns the endpoint of that name."""
        endpoint = self._by_name.get(memo.name)
        known = 0 if endpoint is None else _failure_level(endpoint.memo)
        if endpoint is not None and endpoint.id == memo.id:
            if memo.changed_at < endpoint.memo.changed_at or memo == endpoint.memo:
                return endpoint
            endpoint.apply(memo, now)
        else:
            if endpoint is not None:
                if endpoint.memo.created_at > memo.created_at:
                    return endpoint  # an old memo of a deleted endpoint with the same name
                self.drop(endpoint)
            endpoint = Endpoint(
                memo, secrets=self._secrets, timing=self._timing, limits=self._limits, now=now
            )
            self._by_name[memo.name] = endpoint
            self._by_id[memo.id] = endpoint
        self.version += 1
        if endpoint.deleting or _failure_level(memo) > known:
            end_held_calls(endpoint)  # its clients learn the reason now
        self._dispatcher.refresh(endpoint, now)
        if endpoint.metrics_batcher.urgent_due_at() is not None:
            self._dispatcher.on_urgent(endpoint)
        return endpoint

    def drop(self, endpoint: Endpoint) -> None:
        """The endpoint's workflow is closed: end its held calls and forget it."""
        endpoint.gone = True
        if self._by_name.get(endpoint.name) is endpoint:
            del self._by_name[endpoint.name]
        if self._by_id.get(endpoint.id) is endpoint:
            del self._by_id[endpoint.id]
        self.version += 1
        end_held_calls(endpoint)
        self._dispatcher.log_unfinished(endpoint)


def end_held_calls(endpoint: Endpoint) -> None:
    """End every held call of the endpoint. Its client gets `Waiting`, or a problem if the endpoint is gone."""
    for request in endpoint.request_queue.held():
        wake = request.wake
        endpoint.request_queue.end_hold(request)
        if wake is not None:
            wake(False)
