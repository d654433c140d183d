"""A deployment-wide look for instances that no endpoint looks after: its workflow is gone, or makes no progress."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

import structlog
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.exceptions import ActivityError
from temporalio.service import RPCError, RPCStatusCode

from activities.instances import MarketActivities
from activities.messages import DestroyInstance, ListInstances, label_prefix, read_label
from activities.progress import Progress, progress_of
from activities.sweep_watchdog import SIGNAL_CONFIGURE, StalledEndpoint, SweepSpec, ensure_sweep
from market.ownership import Account, count_by_deployment
from stoker_wire.control import SWEEP_ID, SWEEP_WORKFLOW_TYPE, workflow_id
from stoker_wire.market import Instance
from stoker_wire.messages import FOREIGN_KEY, ForeignInstances
from workflows import continue_as_new, options
from workflows.markdown import literal
from workflows.sweep.known_instances import (
    KnownInstances,
    instances_of_workflow,
    known_instances,
)

__all__ = ["SWEEP_ID", "SweepActivities", "SweepSpec", "SweepWorkflow", "ensure_sweep"]

STALLED_MAX = 500
"""Endpoints without progress that one sweep follows. The list of all of them would be too long for a history."""
COUNTS = ("rounds", "destroyed", "destroyed_at", "stalled", "looked_at")
"""Fields of a `SweepSpec` that are no settings."""
DESTROYED_PER_SWEEP_MAX = 1000
"""Instances released by one sweep, for the same reason; the next one goes on."""
_QUESTIONS_AT_ONCE = 8
_NAMED_MAX = 20

log = structlog.get_logger(__name__)
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class FindOrphans:
    """Which instances does no endpoint look after?"""

    now: float
    young_seconds: float
    stuck_seconds: float
    stalled: tuple[StalledEndpoint, ...] = ()
    """Endpoints without progress at the look before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphans:
    """What to release. The whole list of a large deployment would be too long for a history."""

    instance_ids: tuple[int, ...] = ()
    """Of endpoints whose workflow does not run."""
    of_stuck: tuple[int, ...] = ()
    """Of endpoints whose workflow runs, but has made no progress for `stuck_seconds`."""
    stalled: tuple[StalledEndpoint, ...] = ()
    """Every endpoint without progress at this look."""
    foreign: ForeignInstances = ForeignInstances()


@dataclass(frozen=True, slots=True, kw_only=True)
class EndEndpoint:
    """Terminate an endpoint's workflow; with a run id, only if this run is the current one."""

    name: str
    reason: str
    run_id: str = ""


class SweepActivities:
    """Activities of the sweep and of a forced delete: calls to Temporal and the marketplace."""

    def __init__(self, client: Client, market: MarketActivities) -> None:
        self._client = client
        self._market = market

    @activity.defn
    async def find_orphans(self, asked: FindOrphans) -> Orphans:
        """Labelled instances that are not young and whose endpoint has no running workflow; and those of endpoints that
        make no progress."""
        account = await self._market.account()
        by_name = _by_endpoint(account.own)
        before = {each.name: each for each in asked.stalled}
        looked = await self._looked_at(dict.fromkeys([*by_name, *before]))
        stalled = [
            _since(name, found, before.get(name), asked.now)
            for name, found in looked.items()
            if found.running and found.fault
        ][:STALLED_MAX]
        stuck = [each.name for each in stalled if asked.now - each.since >= asked.stuck_seconds]
        known = await self._known(asked.now)
        gone = [name for name, found in looked.items() if not found.running]
        old = [
            one.id
            for name in gone
            for one in by_name.get(name, ())
            if (one.start_date or 0.0) < asked.now - asked.young_seconds
        ]
        return Orphans(
            instance_ids=tuple((old + await self._unlisted(account, known))[:DESTROYED_PER_SWEEP_MAX]),
            of_stuck=_of_stuck(stuck, by_name, known)[:DESTROYED_PER_SWEEP_MAX],
            stalled=tuple(stalled),
            foreign=_reported(account),
        )

    @activity.defn
    async def end_endpoint(self, asked: EndEndpoint) -> bool:
        """Terminates the endpoint's workflow. Answers whether it ran. Its instances are left to the caller."""
        handle = self._client.get_workflow_handle(workflow_id(asked.name), run_id=asked.run_id or None)
        try:
            await handle.terminate(reason=asked.reason)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return False
            raise
        log.warning("endpoint_terminated", endpoint=asked.name, reason=asked.reason)
        return True

    @activity.defn
    async def instances_of(self, name: str) -> tuple[int, ...]:
        """The ids of the instances that carry the endpoint's label, or that its workflow knows."""
        known = await instances_of_workflow(self._client, workflow_id(name))
        listed = await self._market.list_instances(
            ListInstances(prefix=label_prefix(name), known_ids=tuple(sorted(known)))
        )
        return tuple(one.id for one in listed.instances)

    async def _known(self, now: float) -> KnownInstances:
        """Instances by id; none if Temporal's list cannot be read, then this sweep goes by labels alone."""
        try:
            return await known_instances(self._client, now)
        except RPCError as error:
            log.warning("known_instances_not_read", reason=error.message[:200])
            return KnownInstances({}, {})

    async def _unlisted(self, account: Account, known: KnownInstances) -> list[int]:
        """Instances of endpoints that ended without releasing them, and that do not carry their label any more."""
        listed = {one.id for one in account.own}
        missing = frozenset[int]().union(*known.ended.values()) - listed
        found = await self._market.existing(sorted(missing))
        if found:
            in_use = await self._in_use(name for name, ids in known.ended.items() if ids & missing)
            found = [] if in_use is None else [one for one in found if one.id not in in_use]
        # A marketplace that lost its state may have given the id to a running endpoint.
        return [one.id for one in found if (read_label(one.label) or ("",))[0] not in known.running]

    async def _in_use(self, names: Iterable[str]) -> frozenset[int] | None:
        """Instances of these endpoints' running workflows; None: unknown, Temporal does not answer.

        After a reset, the list of workflows may show the terminated run before the run that replaces it.
        """

        async def ask(name: str) -> frozenset[int]:
            return await instances_of_workflow(self._client, workflow_id(name), if_running=True)

        try:
            return frozenset[int]().union(*await _of_each(ask, names))
        except RPCError as error:
            log.warning("instances_in_use_not_read", reason=error.message[:200])
            return None

    async def _looked_at(self, names: Iterable[str]) -> dict[str, Progress]:
        """Each endpoint's progress, from single lookups, which do not lag as a list does.

        An endpoint whose lookup fails is left out, so its instances are kept.
        """

        async def look(name: str) -> tuple[str, Progress | None]:
            try:
                return name, await progress_of(self._client, workflow_id(name))
            except RPCError as error:
                log.warning("endpoint_not_looked_at", endpoint=name, reason=error.message[:200])
                return name, None

        return {name: found for name, found in await _of_each(look, names) if found is not None}


async def _of_each(ask: Callable[[str], Awaitable[Answer]], names: Iterable[str]) -> list[Answer]:
    """The answers about these endpoints, asked for a few at a time."""
    turn = asyncio.Semaphore(_QUESTIONS_AT_ONCE)

    async def one(name: str) -> Answer:
        async with turn:
            return await ask(name)

    return await asyncio.gather(*map(one, names))


@workflow.defn(name=SWEEP_WORKFLOW_TYPE)
class SweepWorkflow:
    """Looks, releases what no endpoint looks after, and waits. One per deployment, without an end."""

    @workflow.init
    def __init__(self, spec: SweepSpec) -> None:
        self._spec = spec
        self._due = True

    @workflow.run
    async def run(self, spec: SweepSpec) -> None:
        """Continues as new when its history is long."""
        while not continue_as_new.is_long(None) and not continue_as_new.has_other_build():
            self._due = False
            try:
                await self._sweep()
            except ActivityError as error:
                if workflow.cancellation_reason() is not None:
                    raise  # it ends, and whatever lives starts another one
                workflow.logger.warning("sweep_failed", extra={"reason": str(error.cause or error)})
            self._spec = replace(self._spec, rounds=self._spec.rounds + 1)
            workflow.set_current_details(self._details())
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda: self._due or continue_as_new.has_other_build(),
                    timeout=self._spec.every_seconds,
                    timeout_summary="until the next sweep",
                )
        workflow.continue_as_new(self._spec, initial_versioning_behavior=continue_as_new.next_build())

    @workflow.signal(description="look whether the workers have another build")
    def wake(self) -> None:
        """It does on every signal."""

    @workflow.signal(name=SIGNAL_CONFIGURE, description="sweep by these settings from now on")
    def configure(self, spec: SweepSpec) -> None:
        """Its counts are ignored; a change is applied by a sweep at once."""
        changed = replace(spec, **{name: getattr(self._spec, name) for name in COUNTS})
        self._due = self._due or changed != self._spec
        self._spec = changed

    @workflow.query
    def destroyed(self) -> int:
        """How many instances it has destroyed."""
        return self._spec.destroyed

    @workflow.query
    def stalled(self) -> list[StalledEndpoint]:
        """Endpoints whose workflow made no progress at the last look."""
        return list(self._spec.stalled)

    def _details(self) -> str:
        spec = self._spec
        lines = [f"{spec.rounds} sweeps, {spec.destroyed} instances destroyed that no endpoint looked after"]
        lines += [
            f"- {literal(each.name)} makes no progress for {workflow.time() - each.since:.0f} s: {literal(each.fault)}"
            for each in spec.stalled[:20]
        ]
        return "\n".join(lines)

    async def _sweep(self) -> None:
        now, stalled = workflow.time(), without_absence(self._spec, workflow.time())
        self._spec = spec = replace(self._spec, stalled=stalled, looked_at=now)
        found = await workflow.execute_activity_method(
            SweepActivities.find_orphans,
            FindOrphans(
                now=now,
                young_seconds=spec.young_seconds,
                stuck_seconds=spec.stuck_seconds,
                stalled=stalled,
            ),
            **options.sweep_options(),
        )
        self._spec = replace(self._spec, stalled=found.stalled)
        await asyncio.gather(
            *(self._destroy(each, "its endpoint is gone") for each in found.instance_ids),
            *(self._destroy(each, "its endpoint makes no progress") for each in found.of_stuck),
        )
        for each in found.stalled:
            if workflow.time() - each.since >= spec.stuck_end_seconds:
                await self._end(each)
        self._publish(found.foreign)

    def _publish(self, found: ForeignInstances) -> None:
        destroyed = {"destroyed": self._spec.destroyed, "destroyed_at": self._spec.destroyed_at}
        foreign = found.model_copy(update=destroyed).model_dump()
        if workflow.memo_value(FOREIGN_KEY, ForeignInstances().model_dump()) != foreign:
            workflow.upsert_memo({FOREIGN_KEY: foreign})

    async def _end(self, stalled: StalledEndpoint) -> None:
        why = f"no progress for {workflow.time() - stalled.since:.0f} s: {stalled.fault}"
        fault = await end_endpoint(EndEndpoint(name=stalled.name, run_id=stalled.run_id, reason=why))
        if fault:
            extra = {"endpoint": stalled.name, "reason": fault}
            workflow.logger.warning("endpoint_not_ended", extra=extra)

    async def _destroy(self, instance_id: int, why: str) -> None:
        fault = await destroy_instance(instance_id, why)
        if not fault:
            destroyed = self._spec.destroyed + 1
            self._spec = replace(self._spec, destroyed=destroyed, destroyed_at=workflow.time())
        else:
            extra = {"instance_id": instance_id, "reason": fault}
            workflow.logger.warning("orphan_not_destroyed", extra=extra)


async def end_endpoint(asked: EndEndpoint) -> str:
    """Terminates an endpoint's workflow. Returns the fault; empty: it is done."""
    how = options.ask_options(f"terminate {asked.name}")
    return await _fault_of(workflow.execute_activity_method(SweepActivities.end_endpoint, asked, **how))


async def destroy_instance(instance_id: int, why: str) -> str:
    """Destroys an instance by its id. Returns the fault; empty: it is done."""
    asked = DestroyInstance(instance_id=instance_id)
    how = options.destroy_options(f"instance {instance_id}, {why}")
    return await _fault_of(workflow.execute_activity_method(MarketActivities.destroy_instance, asked, **how))


async def _fault_of(call: Awaitable[object]) -> str:
    try:
        await call
    except ActivityError as error:
        return str(error.cause or error)
    return ""


def _reported(account: Account) -> ForeignInstances:
    """The instances that are left alone, counted and logged."""
    foreign = ForeignInstances(other_deployments=len(account.foreign), unowned=len(account.unowned))
    if account.foreign:
        by_deployment = count_by_deployment(account.foreign)
        log.warning(
            "instances_of_other_deployments", count=foreign.other_deployments, by_deployment=by_deployment
        )
    if account.unowned:
        log.warning(
            "instances_without_deployment",
            count=foreign.unowned,
            instance_ids=[one.id for one in account.unowned[:_NAMED_MAX]],
            advice="stokerd adopt gives them to a deployment; until then nothing stops them",
        )
    return foreign


def without_absence(spec: SweepSpec, now: float) -> tuple[StalledEndpoint, ...]:
    """The stalled endpoints, without the time in which no sweep ran: then no worker ran to make progress either."""
    absent = now - spec.looked_at - 2 * spec.every_seconds
    if absent <= 0 or not spec.looked_at:
        return spec.stalled
    return tuple(replace(each, since=min(now, each.since + absent)) for each in spec.stalled)


def _of_stuck(
    stuck: Iterable[str], by_name: dict[str, list[Instance]], known: KnownInstances
) -> tuple[int, ...]:
    """By label and by id: a destroy of what is gone is a success."""
    ids = [{one.id for one in by_name.get(name, ())} | known.running.get(name, frozenset()) for name in stuck]
    return tuple(each for some in ids for each in sorted(some))


def _by_endpoint(instances: Iterable[Instance]) -> dict[str, list[Instance]]:
    """Ours, by the endpoint's name in their labels."""
    by_name: dict[str, list[Instance]] = {}
    for instance in instances:
        label = read_label(instance.label)
        if label is not None:
            by_name.setdefault(label[0], []).append(instance)
    return by_name


def _since(name: str, found: Progress, before: StalledEndpoint | None, now: float) -> StalledEndpoint:
    """Without progress since the first look at which it was so. A task that it completed since begins a new count."""
    same = before is not None and before.run_id == found.run_id and found.completed_at <= before.since
    since = before.since if before is not None and same else now
    return StalledEndpoint(name=name, run_id=found.run_id, since=since, fault=found.fault)
