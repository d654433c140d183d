"""Separates deployments that share a marketplace account: the label of an instance names its deployment.

On the marketplace a label is `stoker:<deployment>:<endpoint>:<launch id>`. Inside a deployment it is
`stoker:<endpoint>:<launch id>`. `DeploymentMarket` adds and removes the identity, so callers never handle it.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import structlog

from market.interface import InstanceGone, Launch, Market, OfferQuery
from stoker_wire.market import Charge, Instance, Offer, Template

log = structlog.get_logger(__name__)

LABEL_PREFIX = "stoker:"
LABEL_CHARS_MAX = 256
"""Maximum length of a label on every marketplace. Labels of stoker have at most 233: a name of 200, and 33 others."""
DEPLOYMENT_PATTERN = r"[a-z0-9]{12}"
_PARTS = re.compile(rf"stoker:(?:({DEPLOYMENT_PATTERN}):)?([^:]+):([^:]+)")
_KNOWN_MAX = 100_000

T = TypeVar("T", Instance, Charge)


@dataclass(frozen=True, slots=True)
class Owner:
    """The parts of a label on the marketplace."""

    deployment: str | None
    """None: the label names no deployment."""
    endpoint: str
    launch_id: str

    @property
    def label(self) -> str:
        """The label on the marketplace."""
        return f"{deployment_prefix(self.deployment)}{self.endpoint}:{self.launch_id}"


def deployment_prefix(deployment: str | None) -> str:
    """The common prefix of a deployment's labels."""
    return LABEL_PREFIX if deployment is None else f"{LABEL_PREFIX}{deployment}:"


def owner_of(label: str | None) -> Owner | None:
    """The owner that a label on the marketplace names; None if it is not a label of stoker."""
    found = _PARTS.fullmatch(label or "")
    return Owner(found[1], found[2], found[3]) if found else None


@dataclass(frozen=True, slots=True)
class Account:
    """The instances of a marketplace account with a label of stoker, by owner."""

    own: tuple[Instance, ...]
    """Instances of this deployment, with labels as inside the deployment."""
    foreign: tuple[Instance, ...] = ()
    """Instances of other deployments, with labels as on the marketplace."""
    unowned: tuple[Instance, ...] = ()
    """Instances whose labels name no deployment. `stokerd adopt` assigns them to a deployment."""


class DeploymentMarket:
    """A marketplace restricted to the instances of one deployment.

    Operations on an instance whose label names another deployment raise InstanceGone. An instance with an edited label
    remains accessible by its id.
    """

    def __init__(self, market: Market, deployment: str) -> None:
        if not re.fullmatch(DEPLOYMENT_PATTERN, deployment):
            raise ValueError(f"a deployment's identity is {DEPLOYMENT_PATTERN} (got {deployment!r:.80})")
        self.deployment = deployment
        self._market = market
        self._prefix = deployment_prefix(deployment)
        self._known: set[int] = set()
        """Ids that are known to belong to the deployment."""

    def __repr__(self) -> str:
        return f"<DeploymentMarket {self.deployment} on {self._market!r}>"

    async def search(self, query: OfferQuery) -> list[Offer]:
        """Available offers that match."""
        return await self._market.search(query)

    async def create(self, offer_id: int, launch: Launch) -> int:
        """Rent the offer, with the deployment's identity in the label."""
        number = await self._market.create(offer_id, self._labelled_launch(launch))
        self._remember([number])
        return number

    async def start(self, instance_id: int) -> None:
        """Request the state `running`."""
        await self._require_own(instance_id)
        await self._market.start(instance_id)

    async def stop(self, instance_id: int) -> None:
        """Request the state `stopped`; the disk is kept."""
        await self._require_own(instance_id)
        await self._market.stop(instance_id)

    async def reboot(self, instance_id: int) -> None:
        """Restart the container."""
        await self._require_own(instance_id)
        await self._market.reboot(instance_id)

    async def destroy(self, instance_id: int) -> None:
        """Destroy the instance. Succeeds if it does not exist or belongs to another deployment."""
        try:
            await self._require_own(instance_id)
        except InstanceGone:
            return
        await self._market.destroy(instance_id)

    async def update_template(self, instance_id: int, launch: Launch) -> None:
        """Change the code that the instance runs from its next start on; machine and disk are kept."""
        await self._require_own(instance_id)
        await self._market.update_template(instance_id, self._labelled_launch(launch))

    async def relabel(self, instance_id: int, label: str) -> None:
        """Change the label of an instance; `label` has the form used inside the deployment."""
        await self._require_own(instance_id)
        await self._market.relabel(instance_id, self._outside(label))

    async def show(self, instance_id: int) -> Instance:
        """The instance's current state. Raises InstanceGone if it belongs to another deployment."""
        found = await self._market.show(instance_id)
        owner = owner_of(found.label)
        if owner is not None and owner.deployment not in {None, self.deployment}:
            log.warning(
                "instance_of_another_deployment", instance_id=instance_id, deployment=owner.deployment
            )
            raise InstanceGone(
                f"instance {instance_id} belongs to the deployment {owner.deployment}, this is {self.deployment}"
            )
        self._remember([instance_id])
        return self._inside(found)

    async def list(self, *, label_prefix: str = "") -> "list[Instance]":
        """The deployment's instances whose label starts with the prefix."""
        found = await self._market.list(label_prefix=self._outside(label_prefix or LABEL_PREFIX))
        self._remember([one.id for one in found])
        return [self._inside(one) for one in found]

    async def account(self) -> Account:
        """All instances of the account with a label of stoker."""
        own: list[Instance] = []
        foreign: list[Instance] = []
        unowned: list[Instance] = []
        for one in await self._market.list(label_prefix=LABEL_PREFIX):
            owner = owner_of(one.label)
            if owner is None:
                continue
            if owner.deployment == self.deployment:
                own.append(self._inside(one))
            else:
                (unowned if owner.deployment is None else foreign).append(one)
        self._remember([one.id for one in own])
        return Account(tuple(own), tuple(foreign), tuple(unowned))

    async def adopt(self, instance: Instance) -> None:
        """Assign an unowned or foreign instance from `account` to this deployment.

        Raises:
            InstanceGone: it does not exist, or its owner has changed.
        """
        seen = owner_of(instance.label)
        now = owner_of((await self._market.show(instance.id)).label)
        if seen is None or now != seen:
            raise InstanceGone(f"instance {instance.id} is gone, or has another label since it was listed")
        await self._market.relabel(instance.id, replace(seen, deployment=self.deployment).label)
        log.info("instance_adopted_from", instance_id=instance.id, label=instance.label)
        self._remember([instance.id])

    async def labelled(self, labels: Sequence[str]) -> Sequence[Instance]:
        """The deployment's instances whose label is one of these."""
        found = await self._market.labelled([self._outside(label) for label in labels])
        self._remember([one.id for one in found])
        return [self._inside(one) for one in found]

    async def charges(self, *, label_prefix: str = "", since: float = 0.0) -> Sequence[Charge]:
        """The bills of the deployment's instances whose label starts with the prefix."""
        prefix = self._outside(label_prefix or LABEL_PREFIX)
        found = await self._market.charges(label_prefix=prefix, since=since)
        return [self._inside(one) for one in found]

    async def template(self, *, hash_id: str | None = None, id: int | None = None) -> Template:  # noqa: A002
        """The template."""
        return await self._market.template(hash_id=hash_id, id=id)

    async def logs(self, instance_id: int, *, tail: int = 200) -> str:
        """The last `tail` lines of the instance's log."""
        await self._require_own(instance_id)
        return await self._market.logs(instance_id, tail=tail)

    async def close(self) -> None:
        """Close connections."""
        await self._market.close()

    async def _require_own(self, instance_id: int) -> None:
        if instance_id not in self._known:
            await self.show(instance_id)

    def _remember(self, ids: Sequence[int]) -> None:
        if len(self._known) + len(ids) > _KNOWN_MAX:
            self._known.clear()  # each id is looked up again when it is used
        self._known.update(ids)

    def _outside(self, label: str) -> str:
        if not label.startswith(LABEL_PREFIX):
            raise ValueError(f"a label inside a deployment starts with {LABEL_PREFIX} (got {label!r:.80})")
        return self._prefix + label.removeprefix(LABEL_PREFIX)

    def _inside(self, found: T) -> T:
        label = found.label or ""
        if not label.startswith(self._prefix):
            return found
        return found.model_copy(update={"label": LABEL_PREFIX + label.removeprefix(self._prefix)})

    def _labelled_launch(self, launch: Launch) -> Launch:
        return replace(launch, label=self._outside(launch.label))


def count_by_deployment(instances: Sequence[Instance]) -> dict[str, int]:
    """The number of instances of each deployment."""
    owners = [owner_of(one.label) for one in instances]
    return dict(Counter(owner.deployment or "" for owner in owners if owner is not None))
