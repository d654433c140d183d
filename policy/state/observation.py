"""What the planner is given: everything that a decision may depend on, and nothing else."""

from dataclasses import dataclass

from policy.keepalive.evaluation import KeepaliveState
from policy.load.history import LoadHistory
from policy.state.worker import MachineStats, Worker
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.market import Offer
from stoker_wire.workergroup import Workergroup

LAUNCH_IDS_PER_PLAN = 64
"""Fresh ids in an observation: a plan recruits at most as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offers:
    """The result of one search for one workergroup."""

    workergroup_id: int
    searched_at: float
    offers: tuple[Offer, ...] = ()
    error: str = ""
    """Why the search could not be made, for people; then `offers` is empty."""
    revision: int = 1
    """The workergroup's revision that the search was made for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A gathered, consistent view of one endpoint at `now` (Unix seconds)."""

    now: float
    config: EndpointConfig
    workergroups: tuple[Workergroup, ...] = ()
    workers: tuple[Worker, ...] = ()
    load: LoadHistory = LoadHistory()
    offers: tuple[Offers, ...] = ()
    learned: MachineStats = MachineStats()
    listed_at: float = 0.0
    """When the marketplace was last asked for the endpoint's instances; 0: never."""
    listed_whole_at: float = 0.0
    """The same, for all that carry its name, and not only for its known workers."""
    listening_since: float = 0.0
    """When an engine last began to listen, at its start or after a pause: no silence of a worker counts from before."""
    deleting: bool = False
    launch_ids: tuple[str, ...] = ()
    """Fresh ids for recruits, in order."""
    memory: "Memory | None" = None
    listing_in_progress: bool = False
    """A listing of the instances is under way."""
    searching: tuple[int, ...] = ()
    """Workergroups whose search is under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What the planner asks to be reminded of at its next look: hysteresis lives here, not in globals.

    Part of the plan (`Plan.memory`), kept by the workflow, given back in the next observation.
    """

    above_since: float | None = None
    """Since when more hot capacity than now is wanted."""
    below_since: float | None = None
    """Since when less hot capacity than now is wanted."""
    cold_below_since: float | None = None
    """Since when less total capacity than now is wanted."""
    grew_at: float | None = None
    """When hot capacity was last added: what was just woken is not drained in the same breath."""
    hot_peaks: tuple[tuple[float, float], ...] = ()
    """(until when it was predicted, load/s), falling: what must stay hot until the hold has passed."""
    total_peaks: tuple[tuple[float, float], ...] = ()
    """The same for hot and cold together: what the cold pool is kept for (load/s, before target_util)."""
    keepalive: KeepaliveState = KeepaliveState()
    """The evaluation of keep-alive candidates on the traffic of the last hours."""
