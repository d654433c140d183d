"""The marketplace's hands: each call idempotent, classified, and with secrets resolved at the last moment."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from activities.failures import classified
from activities.launch import build_launch, priced, search_query, storage_dollars_per_hour, template_warnings
from activities.messages import (
    CreatedInstance,
    CreateInstance,
    DestroyInstance,
    FoundOffers,
    ListedInstances,
    ListInstances,
    OnInstance,
    SearchOffers,
    UpdateInstance,
    launch_label,
)
from activities.offers import trimmed
from activities.secrets import DeploymentSecrets
from activities.signing import report_address, sealed_signing_key
from market.ownership import LABEL_PREFIX, Account, DeploymentMarket
from market.port import InstanceGone, Launch, Market, MarketError
from stoker_wire.market import Charge, Instance, Offer, Template
from stoker_wire.workergroup import Workergroup

_log = structlog.get_logger(__name__)

_STATUS_MESSAGE_CHARS_MAX = 200
_PORTS_MAX = 32
SHOWS_MAX = 32
"""Instances looked up by id after one list. Doubled: a list that lost a large fleet is checked faster, with more calls."""
_BEAT_SECONDS = 5.0
"""Most lists have answered before the first: a heartbeat that reaches Temporal is a billed action."""


class MarketActivities:
    """Everything that a deployment does on its marketplace. Every failure is an ApplicationError whose `type` is
    the name of the MarketError."""

    def __init__(self, market: Market, secrets: DeploymentSecrets) -> None:
        self._market = market
        self._secrets = secrets
        self._looks = itertools.count()

    @activity.defn
    async def search_offers(self, asked: SearchOffers) -> FoundOffers:
        """Offers that the workergroup's search params and its template's extra filters let through."""
        with classified(self._secrets):
            group = asked.workergroup
            template = await self._template(group)
            found = priced(await self._market.search(search_query(group, template)), group)
        return FoundOffers(offers=trimmed(found, asked.limit), matched=len(found))

    @activity.defn
    async def create_instance(self, asked: CreateInstance) -> CreatedInstance:
        """Rents the offer, once: a try that may have a forerunner looks the launch's label up first."""
        label = launch_label(asked.endpoint_name, asked.launch_id)
        with classified(self._secrets):
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
    async def start_instance(self, asked: OnInstance) -> None:
        """Wants it running."""
        with classified(self._secrets):
            await self._market.start(asked.instance_id)

    @activity.defn
    async def stop_instance(self, asked: OnInstance) -> None:
        """Wants it stopped; its disk stays."""
        with classified(self._secrets):
            await self._market.stop(asked.instance_id)

    @activity.defn
    async def reboot_instance(self, asked: OnInstance) -> None:
        """Restarts its container."""
        with classified(self._secrets):
            await self._market.reboot(asked.instance_id)

    @activity.defn
    async def destroy_instance(self, asked: DestroyInstance) -> None:
        """Releases it, and fails (to be tried again) until the marketplace says that it is gone.

        Without an id the launch's outcome is not known: everything that carries exactly its label is released.
        """
        with classified(self._secrets):
            ids = [asked.instance_id] if asked.instance_id is not None else await self._labelled(asked.label)
            for instance_id in ids:
                await self._market.destroy(instance_id)
            left = [instance_id for instance_id in ids if await self._exists(instance_id)]
        if left:
            raise ApplicationError(
                f"instance {left[0]} is still there after it was destroyed",
                type="StillThere",
                category=ApplicationErrorCategory.BENIGN,
            )

    @activity.defn
    async def update_instance(self, asked: UpdateInstance) -> None:
        """Gives it its workergroup's current template; what runs, is restarted with it."""
        with classified(self._secrets):
            launch = await self._launch(asked, await self._template(asked.workergroup))
            await self._market.update_template(asked.instance_id, launch)
            if asked.restart:
                await self._market.reboot(asked.instance_id)

    @activity.defn
    async def list_instances(self, asked: ListInstances) -> ListedInstances:
        """The labelled instances, without what no decision needs."""
        async with _beating():
            with classified(self._secrets):
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
        """Which of these instances exist, and which do not. An id in neither answer could not be looked up this time.

        The number of calls is bounded. Each look begins at another id, so every id has its turn.
        """
        begin = next(self._looks) * SHOWS_MAX % len(missing) if len(missing) > SHOWS_MAX else 0
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
        """The instances of the whole marketplace account that carry a label of stoker, by owner; not an activity."""
        async with _beating():
            with classified(self._secrets):
                if isinstance(self._market, DeploymentMarket):
                    return await self._market.account()
                return Account(tuple(await self._market.list(label_prefix=LABEL_PREFIX)))

    async def existing(self, instance_ids: Sequence[int]) -> list[Instance]:
        """Those of the instances that the marketplace shows by their ids."""
        shown, _ = await self._by_id(instance_ids)
        return shown

    async def _bills(self, asked: ListInstances) -> tuple[Charge, ...] | None:
        """A bill that is not to be had must not hold up the listing: without it the ledger goes by its estimate."""
        if asked.bills_since is None:
            return None
        try:
            return tuple(await self._market.charges(label_prefix=asked.prefix, since=asked.bills_since))
        except MarketError as error:
            _log.warning("bills_not_read", prefix=asked.prefix, reason=self._secrets.redact(str(error)))
            return None

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
            report_address=report_address(self._secrets.report_address, asked.launch_id, sealed),
        )


@contextlib.asynccontextmanager
async def _beating() -> AsyncIterator[None]:
    """A heartbeat now and then: the list of a large account takes minutes, and its worker's death is noticed in seconds."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(_BEAT_SECONDS)
            activity.heartbeat()

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()


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
    said = {"ports": None, "status_msg": message, "public_ipaddr": None, "address": address_of(instance)}
    return instance.model_copy(update=said)


def address_of(instance: Instance) -> str:
    """Where the instance can be reached, `host:port,port…`; empty while the marketplace does not say."""
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
