"""Marketplace activities: idempotent, with classified errors. Secrets are resolved just before the call."""

import asyncio
import contextlib
import itertools
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from activities.failures import converted_errors
from activities.launch import build_launch, priced, search_query, storage_dollars_per_hour, template_warnings
from activities.messages import (
    CreateInstance,
    DestroyInstance,
    ListInstances,
    OnInstance,
    SearchOffers,
    UpdateInstance,
    launch_label,
)
from activities.offers import trimmed
from activities.saved_logs import LINES_MAX, SavedLogs
from activities.secrets import DeploymentSecrets
from activities.signing import report_address, sealed_signing_key
from controller.effects import CreatedInstance, FoundOffers, ListedInstances
from market.interface import InstanceGone, Launch, Market, MarketError
from market.ownership import LABEL_PREFIX, Account, DeploymentMarket
from stoker_wire.market import Charge, Instance, Offer, Template
from stoker_wire.workergroup import Workergroup

_log = structlog.get_logger(__name__)

_STATUS_MESSAGE_CHARS_MAX = 200
_PORTS_MAX = 32
SHOWS_MAX = 32
"""Instances looked up by id after one listing. Doubled: missing instances are checked faster, with more calls."""
_LOG_SECONDS_MAX = 10.0
_HEARTBEAT_SECONDS = 5.0
"""Most listings finish before the first heartbeat, which Temporal Cloud would bill as an action."""


class MarketActivities:
    """Operations of a deployment on its marketplace. They fail with ApplicationError; `type` names the MarketError."""

    def __init__(
        self,
        market: Market,
        secrets: DeploymentSecrets,
        saved_logs: SavedLogs | None = None,
        *,
        starts_per_second: float = 2.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            saved_logs: where the last lines of an instance go before it is rebooted or destroyed; None: nowhere.
            starts_per_second: of starts that do not wait in the market task queue.
        """
        self._market = market
        self._secrets = secrets
        self._saved_logs = saved_logs
        self._lookups = itertools.count()
        self._start_gap_seconds = 1.0 / starts_per_second
        self._start_at = -math.inf
        """The earliest time of the next start that does not queue."""
        self._now = now

    @activity.defn
    async def search_offers(self, asked: SearchOffers) -> FoundOffers:
        """Find offers that match the workergroup's search params and its template's extra filters."""
        with converted_errors(self._secrets):
            group = asked.workergroup
            template = await self._template(group)
            found = priced(await self._market.search(search_query(group, template)), group)
        return FoundOffers(offers=trimmed(found, asked.limit), matched=len(found))

    @activity.defn
    async def create_instance(self, asked: CreateInstance) -> CreatedInstance:
        """Rent the offer once. An attempt that may not be the first looks up the launch's label before it rents."""
        label = launch_label(asked.endpoint_name, asked.launch_id)
        with converted_errors(self._secrets):
            if asked.asked_before or activity.info().attempt > 1:
                found = await self._market.labelled([label])
                if found:
                    _log.info("instance_adopted", label=label, instance_id=found[0].id)
                    return _adopted(found[0])
            template = await self._template(asked.workergroup)
            warnings = template_warnings(template)
            launch = await self._launch(asked, template)
            instance_id = await self._market.create(asked.offer.id, launch)
        for warning in warnings:
            _log.warning("template_not_readable", template=template.hash_id or template.id, reason=warning)
        _log.info("instance_created", label=label, instance_id=instance_id, offer_id=asked.offer.id)
        return _created(instance_id, asked.offer, launch, warnings)

    @activity.defn
    async def start_instance(self, asked: OnInstance) -> bool:
        """Start the instance. False: it was to start at once, and another start came too short a time before."""
        if asked.at_once:
            now = self._now()
            if now < self._start_at:
                return False
            self._start_at = now + self._start_gap_seconds
        with converted_errors(self._secrets):
            await self._market.start(asked.instance_id)
        return True

    @activity.defn
    async def stop_instance(self, asked: OnInstance) -> None:
        """Stop the instance; its disk is kept."""
        with converted_errors(self._secrets):
            await self._market.stop(asked.instance_id)

    @activity.defn
    async def reboot_instance(self, asked: OnInstance) -> None:
        """Restart the instance's container."""
        await self._save_log(asked.instance_id)
        with converted_errors(self._secrets):
            await self._market.reboot(asked.instance_id)

    @activity.defn
    async def destroy_instance(self, asked: DestroyInstance) -> None:
        """Destroy the instance; fails, so that Temporal retries, until the marketplace confirms that it does not exist.

        Without an id the launch's outcome is unknown: all instances with exactly its label are destroyed.
        """
        with converted_errors(self._secrets):
            ids = [asked.instance_id] if asked.instance_id is not None else await self._labelled(asked.label)
            for instance_id in ids:
                await self._save_log(instance_id)
                await self._market.destroy(instance_id)
            left = [instance_id for instance_id in ids if await self._exists(instance_id)]
        if left:
            raise ApplicationError(
                f"instance {left[0]} still exists after it was destroyed",
                type="StillThere",
                category=ApplicationErrorCategory.BENIGN,
            )

    @activity.defn
    async def update_instance(self, asked: UpdateInstance) -> None:
        """Apply the workergroup's current template; a running instance is restarted with it."""
        with converted_errors(self._secrets):
            launch = await self._launch(asked, await self._template(asked.workergroup))
            await self._market.update_template(asked.instance_id, launch)
            if asked.restart:
                await self._market.reboot(asked.instance_id)

    @activity.defn
    async def list_instances(self, asked: ListInstances) -> ListedInstances:
        """List the labelled instances, without fields that no decision needs."""
        async with _heartbeats():
            with converted_errors(self._secrets):
                found: Sequence[Instance] = (
                    await self._market.labelled([asked.prefix + each for each in asked.launch_ids])
                    if asked.launch_ids
                    else await self._market.list(label_prefix=asked.prefix)
                )
                charges = await self._bills(asked)
                listed = {instance.id for instance in found}
                missing = [each for each in asked.known_ids if each not in listed]
                shown, gone = await self._by_id(missing)
        return ListedInstances(
            instances=tuple(_brief(instance) for instance in (*found, *shown)),
            shown=tuple(instance.id for instance in shown),
            gone=gone,
            charges=charges,
        )

    async def _by_id(self, missing: Sequence[int]) -> tuple[list[Instance], tuple[int, ...]]:
        """The existing ones of these instances and the ids that do not exist; other ids were not looked up this time.

        The number of calls is bounded. Each lookup starts at another id, so that every id is looked up eventually.
        """
        begin = next(self._lookups) * SHOWS_MAX % len(missing) if len(missing) > SHOWS_MAX else 0
        shown, gone = [], []
        for instance_id in [*missing[begin:], *missing[:begin]][:SHOWS_MAX]:
            try:
                shown.append(await self._market.show(instance_id))
            except InstanceGone:
                gone.append(instance_id)
            except MarketError as error:
                reason = self._secrets.redact(str(error))
                _log.warning("missing_instances_not_looked_up", missing=len(missing), reason=reason)
                break
        if shown:
            _log.warning("instances_not_listed", existing=len(shown), missing=len(missing))
        return shown, tuple(gone)

    async def account(self) -> Account:
        """All instances of the marketplace account with a stoker label, by owner; not an activity."""
        async with _heartbeats():
            with converted_errors(self._secrets):
                if isinstance(self._market, DeploymentMarket):
                    return await self._market.account()
                return Account(tuple(await self._market.list(label_prefix=LABEL_PREFIX)))

    async def existing(self, instance_ids: Sequence[int]) -> list[Instance]:
        """The instances that exist by their ids."""
        shown, _ = await self._by_id(instance_ids)
        return shown

    async def _bills(self, asked: ListInstances) -> tuple[Charge, ...] | None:
        """The bills; None if they cannot be read, so that billing uses its estimate and the listing succeeds."""
        if asked.bills_since is None:
            return None
        try:
            return tuple(await self._market.charges(label_prefix=asked.prefix, since=asked.bills_since))
        except MarketError as error:
            _log.warning("bills_not_read", prefix=asked.prefix, reason=self._secrets.redact(str(error)))
            return None

    async def _save_log(self, instance_id: int) -> None:
        """Save the last lines before they are lost. No fault and no slow marketplace delays the operation for long."""
        if self._saved_logs is None:
            return
        try:
            async with asyncio.timeout(_LOG_SECONDS_MAX):
                instance = await self._market.show(instance_id)
                text = await self._market.logs(instance_id, tail=LINES_MAX)
            await asyncio.to_thread(
                self._saved_logs.save, instance_id, instance.label or "", self._secrets.redact(text)
            )
        except (MarketError, TimeoutError, OSError) as fault:
            _log.info(
                "log_not_saved", instance_id=instance_id, error=str(fault)[:200] or type(fault).__name__
            )

    async def _labelled(self, label: str) -> list[int]:
        return [i.id for i in await self._market.labelled([label])] if label else []

    async def _exists(self, instance_id: int) -> bool:
        try:
            await self._market.show(instance_id)
        except InstanceGone:
            return False
        return True

    async def _template(self, group: Workergroup) -> Template:
        return await self._market.template(hash_id=group.template_hash, id=group.template_id)

    async def _launch(self, asked: CreateInstance | UpdateInstance, template: Template) -> Launch:
        group = asked.workergroup
        secret = self._secrets.hmac_secret
        sealed = await asyncio.to_thread(sealed_signing_key, secret, asked.launch_id)
        return build_launch(
            template=template,
            workergroup=group,
            label=launch_label(asked.endpoint_name, asked.launch_id),
            endpoint_name=asked.endpoint_name,
            worker_token=self._secrets.worker_token(asked.endpoint_id, asked.launch_id),
            secrets=self._secrets,
            offer=asked.offer if isinstance(asked, CreateInstance) else None,
            perf_estimate=asked.perf_estimate if isinstance(asked, CreateInstance) else 0.0,
            report_address=report_address(self._secrets.report_address, asked.launch_id, sealed),
        )


@contextlib.asynccontextmanager
async def _heartbeats() -> AsyncIterator[None]:
    """Send heartbeats: a large listing takes minutes, and Temporal has to detect a dead worker in seconds."""

    async def send() -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            activity.heartbeat()

    sending = asyncio.create_task(send())
    try:
        yield
    finally:
        sending.cancel()


def _adopted(instance: Instance) -> CreatedInstance:
    return CreatedInstance(
        instance_id=instance.id,
        machine_id=instance.machine_id,
        dollars_per_hour=instance.dph_total,
        storage_dollars_per_hour=instance.storage_total_cost,
        adopted=True,
    )


def _created(instance_id: int, offer: Offer, launch: Launch, warnings: tuple[str, ...]) -> CreatedInstance:
    bid = launch.bid_dollars_per_hour
    return CreatedInstance(
        instance_id=instance_id,
        machine_id=offer.machine_id,
        dollars_per_hour=offer.dph_total if bid is None else bid,
        storage_dollars_per_hour=storage_dollars_per_hour(offer, launch.disk_gb),
        warnings=warnings,
    )


def _brief(instance: Instance) -> Instance:
    message = (instance.status_msg or "")[:_STATUS_MESSAGE_CHARS_MAX] or None
    changes = {"ports": None, "status_msg": message, "public_ipaddr": None, "address": address_of(instance)}
    return instance.model_copy(update=changes)


def address_of(instance: Instance) -> str:
    """The instance's address, `host:port,port…`; empty: the marketplace does not list it yet."""
    host = (instance.public_ipaddr or "").strip()
    if not host:
        return ""
    ports = {
        str(bound.get("HostPort"))
        for bindings in (instance.ports or {}).values()
        for bound in bindings or ()
        if isinstance(bound, dict) and str(bound.get("HostPort", "")).isdigit()
    }
    shown = ",".join(sorted(ports, key=int)[:_PORTS_MAX])
    return f"[{host}]:{shown}" if ":" in host and not host.startswith("[") else f"{host}:{shown}"
