"""The state of an endpoint in one record, which continue-as-new passes to the next run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from controller.decision_log import DecisionLog
from controller.previous_run import read_or_forget
from controller.whatif.advice import Advice
from policy.capacity.performance import LOAD_EPSILON
from policy.load.history import LoadHistory
from policy.state.billing import CostLedger, accrue
from policy.state.machine_stats import remember_hosts
from policy.state.observation import Memory, Observation, Offers
from policy.state.plan import Plan, Targets, Wait
from policy.state.worker import MachineStats, Worker
from policy.tuning import DEFAULT_TUNING, Tuning
from policy.wording import load
from stoker_wire.control import EndpointSpec
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.market import Offer
from stoker_wire.messages import DecisionLine, RequestBreak
from stoker_wire.parsing.limits import STATE_BYTES_MAX, json_bytes, shortened
from stoker_wire.security.client_key import ClientKey
from stoker_wire.workergroup import Workergroup

ENGINE_LIVE_SECONDS = 30.0
"""An engine that reported within this time takes part in the handshakes; otherwise it counts as dead."""

ENGINES_KEPT = 32
"""Engine processes come and go with every deploy; a dozen is a large deployment."""

ENGINE_ENTRIES_KEPT = 12_000
"""Open tickets and confirmed drains of all engines together, 300 KB: a dozen engines with 1,000 workers each."""

LAUNCH_ID_CHARS = 12
KEEP_LINE_SECONDS = 300.0
"""Shortest time between two log lines about the cause of kept capacity: it changes with every burst."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRecord:
    """The last batch of one engine process."""

    engine_id: str
    sequence: int
    heard_at: float
    tickets: dict[str, int] = field(default_factory=dict)
    """Open tickets by launch id, without zeros."""
    drains_seen: tuple[str, ...] = ()
    """Launch ids of draining workers to which it assigns no more requests."""
    left: bool = False
    """It has stopped: only its tickets still count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """A named key, and what all engines reported of its use on one day."""

    key: ClientKey
    day: int = 0
    """Days since 1970, UTC."""
    dollars: float = 0.0
    load: float = 0.0


@dataclass(slots=True, kw_only=True)
class Record:
    """The part of the state that outlives a run. Times are Unix seconds."""

    config: EndpointConfig
    key_version: int = 1
    key_overlap_until: float = 0.0
    keys: dict[str, KeyRecord] = field(default_factory=dict)
    """Named keys by name, in the order of their creation."""
    workergroups: list[Workergroup] = field(default_factory=list)
    workers: dict[str, Worker] = field(default_factory=dict)
    """By launch id, in the order of their launches."""
    load: LoadHistory = LoadHistory()
    learned: MachineStats = MachineStats()
    memory: Memory = Memory()
    ledger: CostLedger = CostLedger()
    workers_rented: int = 0
    workers_gone: int = 0
    """Instances that were released, or taken from us."""
    engines: dict[str, EngineRecord] = field(default_factory=dict)
    pending_offers: dict[str, Offer] = field(default_factory=dict)
    """Launch id → the offer that is being rented. A new run requests these creates again."""
    decisions: list[DecisionLine] = field(default_factory=list)
    listening_since: float = 0.0
    """When an engine last began to listen, at its start or after a pause. Missing reports count only from then."""
    listed_at: float = 0.0
    listed_whole_at: float = 0.0
    look_asked_at: float = 0.0
    """When the marketplace last told of a change."""
    deleting: bool = False
    emptied_at: float | None = None
    """Since when a deleted endpoint has no worker; a listing made well after it must be empty, too."""
    request_breaks: tuple[RequestBreak, ...] = ()
    """The newest breaks of workers by requests, for all engines."""
    replan_at: float | None = None
    targets: Targets = Targets()
    kept_for: str = ""
    """Cause of the kept capacity in the last `keep` line of the log."""
    kept_said_at: float = 0.0
    waits: tuple[Wait, ...] = ()
    load_at_plan: float = 0.0
    """Arrivals, load/s, when the last plan was made."""
    advice: Advice | None = None
    """A second config that is planned beside the live one."""
    changed_at: float = 0.0
    moved_at: float = 0.0
    """When it last moved to another build of the workers."""
    left_out: tuple[str, ...] = ()
    """Fields that the previous run dropped because its state was too large."""
    memo: dict[str, Any] | None = None
    """The memo as last published, so that a new run knows whether it changed."""


ERROR_BYTES_LEFT = 60
REASON_BYTES_LEFT = 20
LINES_LEFT = 20
"""Of errors, drain reasons and decisions, in a state that would be too large with them."""

_RECORD: TypeAdapter[Record] = TypeAdapter(Record)

_MEMORIES = frozenset(
    {"load", "learned", "memory", "targets", "waits", "load_at_plan", "replan_at", "advice"}
)
"""Fields that a new run can learn or plan again, e.g. if one holds an infinite number, which JSON cannot express."""


class EndpointStateBook:
    """The record in use and the recently found offers. Offers are not passed on; a new run searches again."""

    def __init__(
        self, spec: EndpointSpec, *, tuning: Tuning | None = None, counts_dollars: bool = True
    ) -> None:
        self.name = spec.endpoint_name
        self.id = spec.endpoint_id
        self.owner = spec.owner
        self.created_at = spec.created_at
        self.unknown: tuple[str, ...] = ()
        """Fields of the state that this build does not know."""
        self.forgotten: tuple[str, ...] = ()
        """Fields that could not be read and are reset."""
        if spec.carried is None:
            self.record = Record(
                config=spec.config, key_version=spec.key_version, workergroups=list(spec.workergroups)
            )
        else:
            read = read_or_forget(_RECORD.validate_python, spec.carried, _MEMORIES)
            self.record, self.unknown, self.forgotten = read
        self.log = DecisionLog(self.record.decisions)
        self.offers: dict[int, Offers] = {}
        self.tuning = tuning or DEFAULT_TUNING
        self._counts_dollars = counts_dollars

    def note_what_is_missing(self, unknown: tuple[str, ...], now: float) -> None:
        """Log the fields of the carried state that could not be read; `unknown` are fields of its spec."""
        missing = {
            "left out, for this build does not know it": (*unknown, *self.unknown),
            f"left out of a state over {STATE_BYTES_MAX} bytes": self.record.left_out,
            "could not be read, and begins anew": self.forgotten,
        }
        for words, names in missing.items():
            if names:
                self.log.note(now, "config", f"{words}: {', '.join(names)}", subject="state")
        self.record.left_out = ()

    def carried(self) -> dict[str, Any]:
        """The record for continue-as-new: JSON values, without fields that equal their defaults."""
        self.record.decisions = list(self.log.lines)
        dumped = _RECORD.dump_python(self.record, mode="json", exclude_defaults=True)
        return within_bounds({str(key): value for key, value in dumped.items()})

    def spec(self, history_events_max: int | None = None) -> EndpointSpec:
        """The input of the next run."""
        return EndpointSpec(
            endpoint_name=self.name,
            endpoint_id=self.id,
            config=self.record.config,
            created_at=self.created_at,
            owner=self.owner,
            key_version=self.record.key_version,
            history_events_max=history_events_max,
            carried=self.carried(),
        )

    def observation(
        self,
        now: float,
        *,
        launch_ids: tuple[str, ...] = (),
        listing_in_progress: bool = False,
        searching: tuple[int, ...] = (),
    ) -> Observation:
        """The planner's input."""
        record = self.record
        known = {group.id for group in record.workergroups}
        return Observation(
            now=now,
            config=record.config,
            workergroups=tuple(record.workergroups),
            workers=tuple(record.workers.values()),
            load=record.load,
            offers=tuple(found for group_id, found in self.offers.items() if group_id in known),
            learned=record.learned,
            listed_at=record.listed_at,
            listed_whole_at=record.listed_whole_at,
            look_asked_at=record.look_asked_at,
            listening_since=record.listening_since,
            deleting=record.deleting,
            launch_ids=launch_ids,
            memory=record.memory,
            listing_in_progress=listing_in_progress,
            searching=searching,
        )

    def adopt(self, plan: Plan, now: float) -> None:
        """Store the plan's memory, targets and waits. Its operations are applied by the controller."""
        record = self.record
        record.memory = plan.memory
        record.learned = remember_hosts(record.learned, plan.failed_hosts, now)
        before = {(wait.subject, wait.code) for wait in record.waits}
        for wait in plan.waits:
            if (wait.subject, wait.code) not in before:
                self.log.note(now, "wait", wait.reason, subject=wait.subject, level=1)
        record.targets, record.waits = plan.targets, plan.waits
        self._note_kept(now)
        record.replan_at = plan.replan_at

    def _note_kept(self, now: float) -> None:
        """Logs for what capacity is kept hot when that changes: a plan that drains nothing has no line of its own."""
        record, targets = self.record, self.record.targets
        if targets.kept_for == record.kept_for or (
            record.kept_for and targets.kept_for and now - record.kept_said_at < KEEP_LINE_SECONDS
        ):
            return
        record.kept_for, record.kept_said_at = targets.kept_for, now
        if targets.kept_for:
            level = load(targets.hot_kept) if targets.hot_kept > LOAD_EPSILON else "one worker"
            self.log.note(
                now,
                "keep",
                f"{level} stays hot for {targets.kept_for}; scaling rule {targets.kept_rule}, {targets.kept_by}",
                subject="endpoint",
                numbers={
                    "hot_kept": targets.hot_kept,
                    "hot_ready": targets.hot_ready,
                    "rule": targets.kept_rule,
                },
                level=1,
            )

    def burn_dollars_per_hour(self) -> float:
        """Cost of all workers now, $/h."""
        return sum(worker.burn_dollars_per_hour for worker in self.record.workers.values())

    def count_dollars(self, now: float) -> None:
        """Add the cost of the workers since the last call. Call it before a worker's state changes.

        No-op if the host keeps its own accounts, as the simulator does.
        """
        if not self._counts_dollars:
            return
        self.record.ledger = accrue(self.record.ledger, self.record.workers.values(), now)

    def note_worker(
        self,
        worker: Worker,
        now: float,
        kind: str,
        reason: str,
        *,
        level: int = 0,
        numbers: Mapping[str, float] | None = None,
    ) -> None:
        """Log a line about a worker."""
        subject, group_id = worker.launch_id, worker.workergroup_id
        self.log.note(
            now, kind, reason, subject=subject, numbers=numbers, level=level, workergroup_id=group_id
        )

    def workergroup(self, workergroup_id: int) -> Workergroup | None:
        """The workergroup of this id, if the endpoint has it."""
        return next((group for group in self.record.workergroups if group.id == workergroup_id), None)


def within_bounds(dumped: dict[str, Any]) -> dict[str, Any]:
    """Reduce the state to `STATE_BYTES_MAX` bytes: drop fields in the order of `_SHED` until it fits.

    The fields that are always kept (config, workergroups, workers, ledger) have limits of their own.
    """
    left_out: list[str] = []
    for name, shed in _SHED:
        if json_bytes(dumped) <= STATE_BYTES_MAX:
            break
        smaller = shed(dumped)
        if json_bytes(smaller) < json_bytes(dumped):
            left_out.append(name)
            dumped = smaller | {"left_out": left_out}
    return dumped


def _without(*names: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda dumped: {name: value for name, value in dumped.items() if name not in names}


def _short_workers(dumped: dict[str, Any]) -> dict[str, Any]:
    workers = dumped.get("workers", {})
    return dumped | {"workers": {launch_id: _short_worker(worker) for launch_id, worker in workers.items()}}


def _short_worker(worker: dict[str, Any]) -> dict[str, Any]:
    short = {name: value for name, value in worker.items() if name != "boot"}
    if error := worker.get("error"):
        short["error"] = shortened(str(error), ERROR_BYTES_LEFT)
    if drain := worker.get("drain"):
        short["drain"] = drain | {"reason": shortened(str(drain["reason"]), REASON_BYTES_LEFT)}
    return short


_SHED: tuple[tuple[str, Callable[[dict[str, Any]], dict[str, Any]]], ...] = (
    ("the published memo", _without("memo")),
    ("the advice", _without("advice")),
    ("older decisions", lambda dumped: dumped | {"decisions": dumped.get("decisions", [])[-LINES_LEFT:]}),
    ("workers' boots, and the end of their errors and drain reasons", _short_workers),
    ("what was planned", _without("targets", "waits", "load_at_plan")),
    ("what was learned", _without("learned", "memory")),
    ("the load history", _without("load")),
    ("what engines reported", _without("engines")),
)
"""Fields that a too large state drops, the least important first."""
