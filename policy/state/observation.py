"""The planner's input: everything that a decision may depend on."""

from dataclasses import dataclass

from policy.keepalive.evaluation import KeepaliveState
from policy.load.history import LoadHistory
from policy.state.worker import MachineStats, Worker
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.market import Offer
from stoker_wire.workergroup import Workergroup

LAUNCH_IDS_PER_PLAN = 64
"""Launch ids in an observation, and so the largest number of recruits per plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offers:
    """The result of one search for one workergroup."""

    workergroup_id: int
    searched_at: float
    offers: tuple[Offer, ...] = ()
    error: str = ""
    """Why the search failed, for display; `offers` is then empty."""
    revision: int = 1
    """The workergroup's revision at the search."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A consistent view of one endpoint at `now` (Unix seconds)."""

    now: float
    config: EndpointConfig
    workergroups: tuple[Workergroup, ...] = ()
    workers: tuple[Worker, ...] = ()
    load: LoadHistory = LoadHistory()
    offers: tuple[Offers, ...] = ()
    learned: MachineStats = MachineStats()
    listed_at: float = 0.0
    """When the endpoint's instances were last listed; 0: never."""
    listed_whole_at: float = 0.0
    """The same for a listing by label, which also finds orphans."""
    look_asked_at: float = 0.0
    """When the marketplace last told of a change; 0: never."""
    listening_since: float = 0.0
    """When an engine last began to receive reports, at its start or after a pause.

    Earlier gaps in reports do not count.
    """
    deleting: bool = False
    launch_ids: tuple[str, ...] = ()
    """Unused launch ids for recruits, in order."""
    memory: "Memory | None" = None
    listing_in_progress: bool = False
    """A listing of the instances is running."""
    searching: tuple[int, ...] = ()
    """Workergroups with a running search for offers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The planner's state between plans: hysteresis and the keep-alive evaluation.

    Returned in `Plan.memory`, kept by the workflow, and passed in with the next observation.
    """

    above_since: float | None = None
    """Since when the demand has exceeded the hot capacity."""
    grew_at: float | None = None
    """When hot capacity was last added; it is not removed for `Tuning.scale_up_hold_seconds`."""
    hot_peaks: tuple[tuple[float, float], ...] = ()
    """Peaks of the hot demand, load/s (`policy.load.peaks`): what stays hot until its hold time has passed."""
    total_peaks: tuple[tuple[float, float], ...] = ()
    """The same for the total demand, load/s before target_util (`policy.load.peaks`)."""
    keepalive: KeepaliveState = KeepaliveState()
    """The evaluation of keep-alive candidates on the traffic of the last hours."""
