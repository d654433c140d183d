"""Effects that the controller requests, and their results. The host carries each out once and reports its result."""

from dataclasses import dataclass

from controller.whatif.advice import Advice
from policy.state.plan import Plan
from policy.state.worker import Worker
from stoker_wire.market import Charge, Instance, Offer
from stoker_wire.workergroup import Workergroup

LIST = "list"
_SEARCH = "search:"


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOffers:
    """Find offers for a workergroup. Answered by `FoundOffers` or `Failed`."""

    workergroup: Workergroup

    @property
    def key(self) -> str:
        """Names the effect among those in flight."""
        return f"{_SEARCH}{self.workergroup.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListInstances:
    """List the endpoint's instances. Answered by `ListedInstances` or `Failed`."""

    reason: str
    asked_at: float
    """Unix s."""
    launch_ids: tuple[str, ...] = ()
    """Only the instances of these launches; empty: all that carry the endpoint's label."""
    known_ids: tuple[int, ...] = ()
    """Instances that should be on the list; the host looks up each missing one by its id."""
    bills_since: float | None = None
    """Fetch the bills since then, Unix s; None: no bills."""

    @property
    def key(self) -> str:
        """Names the effect among those in flight."""
        return LIST


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnWorker:
    worker: Worker
    """As recorded when the operation was ordered."""
    resumed: bool = False
    """An earlier run asked already, and its attempt may still be under way."""

    @property
    def key(self) -> str:
        """Names the effect among those in flight."""
        return self.worker.launch_id


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateInstance(_OnWorker):
    """Rent an offer for a launch. Answered by `CreatedInstance` or `Failed`."""

    workergroup: Workergroup
    offer: Offer


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeInstance(_OnWorker):
    """Carry out `worker.operation` (start, stop, reboot, update or destroy). Answered by `Done` or `Failed`."""

    workergroup: Workergroup | None
    """None: it was removed meanwhile; then an update has nothing to do."""
    may_get_requests: bool = False
    """It is booting, and engines route to it as soon as it is ready, before its controller knows. The host carries the
    stop or release out once every engine knows of it and no request is left."""


Effect = SearchOffers | ListInstances | CreateInstance | ChangeInstance


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundOffers:
    """The offers, trimmed, best price-performance first within each machine kind."""

    offers: tuple[Offer, ...] = ()
    matched: int = 0
    """Number of offers before trimming."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedInstances:
    """The instances as the marketplace lists them."""

    instances: tuple[Instance, ...] = ()
    """Listed instances, and known instances that were found by id only."""
    shown: tuple[int, ...] = ()
    """Known instances that exist but were not listed: their label was edited, or the list is incomplete."""
    gone: tuple[int, ...] = ()
    """Known instances that do not exist, confirmed by a lookup of the id."""
    charges: tuple[Charge, ...] | None = None
    """Bills, including those of destroyed instances; None: not requested or not available."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedInstance:
    """The rented machine and its price."""

    instance_id: int
    machine_id: int = 0
    dollars_per_hour: float = 0.0
    """Price while it runs, with storage."""
    storage_dollars_per_hour: float = 0.0
    adopted: bool = False
    """The instance existed: the answer of an earlier attempt was lost."""
    warnings: tuple[str, ...] = ()
    """Parts of its template that may not take effect as intended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The marketplace accepted the operation."""

    confirmed: bool = False
    """The instance has reached the end state: a destroyed one is gone, a stopped one is stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The operation failed for good."""

    kind: str
    """The marketplace error's class name, e.g. `OfferGone`; empty: none of them."""
    text: str


Result = FoundOffers | ListedInstances | CreatedInstance | Done | Failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A plan that has passed its checks."""

    plan: Plan
    refused: tuple[str, ...] = ()
    """Why operations were taken out, one sentence each: a fault of the planner."""
    advice: Advice | None = None
    """The second config's analysis, if it has news."""
    fault: str = ""
    """The planner's error, if a plan could be made regardless."""
