"""The invariants, checked with every market operation, every plan, and every few seconds."""

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

from activities.messages import label_prefix, read_label
from policy.tuning import DEFAULT_TUNING
from stoker_wire.control import workflow_id
from tests.seeded.engines import SECRETS
from tests.seeded.machine import Machine
from tests.seeded.worker_processes import WorkerProcess

if TYPE_CHECKING:
    from tests.seeded.world import World

LOOK_SECONDS = 5.0
GRACE_SECONDS = 330.0
"""A lowered bound applies to later decisions: a create in progress may take this long to end, seconds."""
RECONCILIATION_SECONDS = DEFAULT_TUNING.listing_seconds_idle + 240.0
"""The longest interval between two listings, plus the retry time of a failed one, seconds."""
ORDERS_PER_MINUTE_MAX = 10
"""Operations of one kind to one machine per minute: one with lost answers is tried six times in its first minute."""
_OPS = {
    "create": "recruit",
    "start": "activate",
    "stop": "stop",
    "reboot": "reboot",
    "destroy": "destroy",
    "update": "update",
}
_WAITED_LONG_ENOUGH = (
    "deadline",
    "not answer",
    "silent",
    "error",
    "exited",
    "hangs",
    "not ready",
    "given up",
)
CENT = 0.01
STATE_BYTES_MAX = 100_000
NEWS_SECONDS = 5.0
"""An engine routes to a worker after its first report; the workflow gets the report later, seconds."""
RUNS_REPLAYED = 2
"""Histories replayed per run, besides the replays after worker crashes."""


class Invariants:
    """Watches one world."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.reasons: dict[str, dict[str, tuple[float, str]]] = {}
        """By launch and operation: the time and reason of the last plan."""
        self._bounds: list[tuple[float, int, float]] = []
        self._unknown: dict[int, float] = {}
        self._leaving: dict[int, float] = {}
        self._labels: Counter[str] = Counter()
        self._orders: dict[tuple[str, int], list[float]] = {}
        self._known: set[int] = set()
        self._pending: set[str] = set()
        self._destroying: set[int] = set()
        self._judged: dict[int, frozenset[int]] = {}
        """By instance: the tickets and requests that it held when its first destroy was carried out."""

    # plans

    def planned(self, asked: Any, answered: Any) -> None:
        """Every plan is valid, and each operation has a reason; records the bounds in force."""
        world = self.world
        now = world.now()
        config = asked.config
        self._bounds.append((now, config.max_workers, config.dollars_per_hour_max or float("inf")))
        for fault in answered.refused:
            world.violated(f"the planner's own check refused: {fault}")
        for operation in answered.plan.operations:
            if not operation.reason.strip():
                world.violated(f"a decision without a reason: {operation!r}")
            launch_id = getattr(operation, "launch_id", None)
            if launch_id is not None:
                self.reasons.setdefault(launch_id, {})[operation.op] = (now, operation.reason)
        self._read_record()

    def _read_record(self) -> None:
        instance = self.world.server.found(workflow_id("llm")).run.instance
        live = getattr(instance, "_object", None)
        if live is None:
            return
        record = live._controller.state.record
        self._known = {
            worker.instance_id for worker in record.workers.values() if worker.instance_id is not None
        }
        self._pending = {worker.launch_id for worker in record.workers.values() if worker.instance_id is None}
        self._destroying = {
            worker.instance_id
            for worker in record.workers.values()
            if worker.state == "destroying" and worker.instance_id
        }

    # operations

    def asked(self, what: str, machine: Machine) -> None:
        """The market carries out an operation."""
        self._not_in_a_loop(what, machine)
        label = read_label(machine.label)
        if label is None or label[0] != "llm" or label[1] == "feedfeedfeed":
            return
        if what == "create":
            self._created(machine, label[1])
        names = (label[1], f"{label[1]}-{machine.id}")
        ops = {_OPS[what], "update"} if what == "reboot" else {_OPS[what]}
        why = [self.reasons.get(name, {}).get(op) for name in names for op in ops]
        said = max((each for each in why if each is not None), default=None)
        if said is None:
            self.world.violated(f"{what} of instance {machine.id} ({label[1]}) although no plan said so")
        elif what in {"stop", "destroy", "reboot"}:
            self._held_nothing(what, machine, said[1])

    def _not_in_a_loop(self, what: str, machine: Machine) -> None:
        """A repeated operation waits between attempts, because accounts have a call limit."""
        now = self.world.now()
        given = self._orders.setdefault((what, machine.id), [])
        given[:] = [at for at in (*given, now) if at > now - 60.0]
        if len(given) > ORDERS_PER_MINUTE_MAX:
            self.world.violated(f"{what} of instance {machine.id} {len(given)} times within a minute")

    def _created(self, machine: Machine, launch_id: str) -> None:
        world = self.world
        self._labels[machine.label] += 1
        late = machine.label in world.market.rented_late
        if self._labels[machine.label] > 1 and not late:
            world.violated(f"launch {launch_id} was rented {self._labels[machine.label]} times")
        there = [
            m for m in world.ours() if m.label not in world.market.rented_late and "feedfeed" not in m.label
        ]
        most = self._bound(1, GRACE_SECONDS)
        if len(there) > most:
            world.violated(f"{len(there)} instances and max_workers is {most:g}")

    def _bound(self, which: int, grace: float) -> float:
        """The widest bound that was recently in force."""
        since = self.world.now() - grace
        before = [bound for bound in self._bounds if bound[0] < since][-1:]
        lately = [bound for bound in self._bounds if bound[0] >= since]
        return max(bound[which] for bound in (*before, *lately))

    def money(self) -> None:
        """Checks dollars per hour whenever they change."""
        world = self.world
        if not self._bounds:
            return
        excused = {"touched", "crash_loops", "offline"}
        spent = sum(
            m.burn_dollars_per_hour
            for m in world.ours()
            if m.label not in world.market.rented_late
            and m.trouble not in excused
            and "feedfeed" not in m.label
        )
        most = self._bound(2, GRACE_SECONDS + world.scenario.config.drain_seconds_max)
        if spent > most + 1e-6:
            world.violated(f"${spent:.3f}/h is spent and the budget is ${most:.3f}/h")

    def _held_nothing(self, what: str, machine: Machine, reason: str) -> None:
        """A stopped worker holds no request and no ticket, unless it is broken or past its deadline.

        The marketplace cannot take back a destroy that it has carried out. A repetition, for example after a lost
        answer, is therefore judged only by the tickets and requests that the worker got since the first destroy.
        """
        world = self.world
        now = world.now()
        box = world.boxes.get(machine.id)
        jobs = frozenset(box.jobs if box else ())
        open_tickets = world.tickets.get(box.launch_id, {}) if box else {}
        tickets = frozenset(number for number, expires_at in open_tickets.items() if expires_at > now)
        if what == "destroy":
            judged = self._judged.get(machine.id, frozenset())
            self._judged.setdefault(machine.id, jobs | tickets)
            jobs, tickets = jobs - judged, tickets - judged
        if (
            box is None
            or not box.ready
            or box.mute
            or box.ready_seconds < NEWS_SECONDS
            or any(word in reason for word in _WAITED_LONG_ENOUGH)
        ):
            return
        if jobs or tickets:
            held = f"{len(jobs)} requests and {len(tickets)} tickets"
            world.violated(
                f"{what} of instance {machine.id} ({box.launch_id}) while it held {held}: {reason}"
            )

    def stopped(self, box: WorkerProcess) -> None:
        """A worker process ended."""

    # every few seconds

    async def watch(self) -> None:
        """Checks for instances without an endpoint, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._read_record()
            self._orphans()

    def _orphans(self) -> None:
        world = self.world
        fair = not world.market.down and world.server.hands.up.is_set()
        living = world.market.living()
        for machine in living:
            label = read_label(machine.label)
            if label is None:
                continue
            ours = label[0] == "llm"
            known = ours and (machine.id in self._known or label[1] in self._pending)
            if known:
                self._unknown.pop(machine.id, None)
            elif fair:
                self._unknown[machine.id] = self._unknown.get(machine.id, 0.0) + LOOK_SECONDS
            if machine.id in self._destroying and fair:
                self._leaving[machine.id] = self._leaving.get(machine.id, 0.0) + LOOK_SECONDS
        bound = RECONCILIATION_SECONDS + 900.0  # the sweep spares instances younger than ten minutes
        for machine in living:
            ours = machine.label.startswith(label_prefix("llm"))
            if self._unknown.get(machine.id, 0.0) > (RECONCILIATION_SECONDS if ours else bound):
                world.violated(
                    f"nobody knows instance {machine.id} ({machine.label}), for {self._unknown[machine.id]:.0f} s"
                )
            if self._leaving.get(machine.id, 0.0) > RECONCILIATION_SECONDS:
                world.violated(
                    f"instance {machine.id} is being released for {self._leaving[machine.id]:.0f} s"
                )

    # milestones

    def settled(self) -> None:
        """After the calm every request was served, or refused because several workers broke while they had it."""
        world = self.world
        waiting = world.waiting()
        if waiting:
            oldest = world.now() - waiting[0].born_at
            world.violated(
                f"{len(waiting)} requests are not answered after the calm, the oldest is {oldest:.0f} s old"
            )

    def ended(self, result: Any) -> None:
        """After the deletion nothing is left, no secret leaked, and every history replays."""
        world = self.world
        left = [machine for machine in world.ours() if machine.label not in world.market.rented_late]
        if left:
            world.violated(f"{len(left)} instances are left after the endpoint was deleted: {left[0].label}")
        paid = sum(
            m.dollars(world.now())
            for m in world.market.machines.values()
            if m.label.startswith(label_prefix("llm"))
        )
        if abs(result["dollars"] - paid) > CENT:
            world.violated(f"the ledger says ${result['dollars']:.4f}, the market charged ${paid:.4f}")
        biggest = max(world.server.handed_over, default=0)
        if biggest > STATE_BYTES_MAX:
            world.violated(f"continue-as-new carried {biggest} bytes")
        self._no_secrets()
        runs = world.server.found(workflow_id("llm")).runs
        for run in world.chance.sample(runs, min(len(runs), RUNS_REPLAYED)):
            world.server.replay(run)
            world.server._evict(run)

    def _no_secrets(self) -> None:
        world = self.world
        secrets = [SECRETS.hmac_secret, *(value.encode() for value in SECRETS.named.values()), b"sealedkey"]
        secrets += [token.encode() for token in world._tokens.values()]
        for execution in world.server.executions.values():
            for run in execution.runs:
                for step in run.history:
                    said = step.activation.SerializeToString() + b"".join(
                        c.SerializeToString() for c in step.commands
                    )
                    for secret in secrets:
                        if secret in said:
                            world.violated(
                                f"a secret stands in the history of {execution.id}: {secret[:8]!r}…"
                            )
