"""Every endpoint that this engine knows, by name and by id."""

from collections.abc import Iterator

from engine.routing.dispatcher import Dispatcher
from engine.routing.endpoint import Endpoint
from engine.settings import Limits, Timing
from stoker_wire.messages import EndpointMemo
from stoker_wire.problem import Problem


class Directory:
    """Filled by the watch; read by everything. A memo older than the one known changes nothing."""

    def __init__(
        self, *, secrets: tuple[bytes, ...], timing: Timing, limits: Limits, router: Dispatcher
    ) -> None:
        self._secrets = secrets
        self._timing = timing
        self._limits = limits
        self._router = router
        self._by_name: dict[str, Endpoint] = {}
        self._by_id: dict[int, Endpoint] = {}
        self.version = 0
        """Counts up with every memo taken over."""
        self.unread = "no answer from Temporal yet"
        """Why this may not be all that there is, as the watch says; empty: the last look succeeded."""
        self.complete = False
        """Whether all endpoints have been read once."""

    def __repr__(self) -> str:
        return f"<Directory of {len(self._by_name)} endpoints>"

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(list(self._by_name.values()))

    def __len__(self) -> int:
        return len(self._by_name)

    def named(self, name: str) -> Endpoint | None:
        """The live endpoint of this name."""
        return self._by_name.get(name)

    def with_id(self, endpoint_id: int) -> Endpoint | None:
        """The live endpoint of this id."""
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
        """The account's endpoints that this engine has read so far."""
        return sorted(
            (e for e in self._by_name.values() if e.memo.owner == owner), key=lambda e: e.memo.created_at
        )

    def require_read(self) -> None:
        """What is not known does not exist, if the last look at Temporal succeeded.

        Raises:
            Problem: 503, it did not.
        """
        if self.unread:
            said = f"the engine cannot read the endpoints from Temporal now ({self.unread}); try again"
            raise Problem(503, "endpoints_not_read", said, headers={"Retry-After": "2"})

    def of_owner(self, endpoint_id: int, owner: str) -> Endpoint:
        """An account's endpoint.

        Raises:
            Problem: 404, whether it is another's or nobody's: which of the two is not told. 503, it is not known.
        """
        endpoint = self._by_id.get(endpoint_id)
        if endpoint is None:
            self.require_read()
        if endpoint is None or endpoint.memo.owner != owner:
            raise Problem(
                404,
                "no_such_endpoint",
                f"there is no endpoint {endpoint_id}; list yours with `show endpoints`",
            )
        return endpoint

    def of_group(self, workergroup_id: int, owner: str) -> Endpoint:
        """The account's endpoint that has this workergroup.

        Raises:
            Problem: 404. 503, it is not known.
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
        """Take over a memo, unless a newer one of the same endpoint is known."""
        endpoint = self._by_name.get(memo.name)
        if endpoint is not None and endpoint.id == memo.id:
            if memo.changed_at < endpoint.memo.changed_at or memo == endpoint.memo:
                return endpoint
            endpoint.apply(memo, now)
        else:
            if endpoint is not None:
                if endpoint.memo.created_at > memo.created_at:
                    return endpoint  # a late word about an endpoint of the same name that is gone
                self.drop(endpoint)
            endpoint = Endpoint(
                memo, secrets=self._secrets, timing=self._timing, limits=self._limits, now=now
            )
            self._by_name[memo.name] = endpoint
            self._by_id[memo.id] = endpoint
        self.version += 1
        if endpoint.deleting:
            release(endpoint)
        self._router.refresh(endpoint, now)
        if endpoint.batcher.urgent_due_at() is not None:
            self._router.urgent(endpoint)
        return endpoint

    def drop(self, endpoint: Endpoint) -> None:
        """The endpoint's workflow is closed: whoever waits is told so."""
        endpoint.gone = True
        if self._by_name.get(endpoint.name) is endpoint:
            del self._by_name[endpoint.name]
        if self._by_id.get(endpoint.id) is endpoint:
            del self._by_id[endpoint.id]
        self.version += 1
        release(endpoint)
        self._router.close_books(endpoint)


def release(endpoint: Endpoint) -> None:
    """End every held call of the endpoint: its client is answered Waiting, or that it is gone."""
    for place in endpoint.line.held():
        wake = place.wake
        endpoint.line.let_go(place)
        if wake is not None:
            wake(False)
