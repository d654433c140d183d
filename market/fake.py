"""A stateful, scriptable marketplace in memory for tests, simulations and benchmarks.

It passes the contract tests (`tests/activities/test_market_contract.py`), and its clock is an argument. `fail_next`
scripts errors, and `calls` records every call.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from market.interface import InstanceGone, Launch, MarketError, OfferGone, OfferQuery, Refused, Unavailable
from stoker_wire.market import Charge, Instance, Offer, Template

HOURS_PER_MONTH = 730.0
_BILLED_STATUSES = frozenset({"loading", "running", "rebooting"})


@dataclass(slots=True)
class FakeInstance:
    """One rented instance and its history."""

    id: int
    offer: Offer
    launch: Launch
    created_at: float
    intended: str = "running"
    running_at: float = 0.0
    """When the image is pulled and the container runs."""
    starts: int = 1
    status: str | None = None
    """A scripted status such as `exited` or `offline`; None: the status follows from the time."""
    starts_launches: list[Launch] = field(default_factory=list)
    billed: float = 0.0
    """Dollars billed up to `metered_at`."""
    metered_at: float = 0.0
    gone_at: float | None = None

    def actual(self, now: float) -> str:
        """The `actual_status` at this time."""
        if self.status is not None:
            return self.status
        if self.intended == "stopped":
            return "stopped"
        return "running" if now >= self.running_at else "loading"


@dataclass(frozen=True, slots=True)
class Call:
    """One recorded call."""

    at: float
    name: str
    subject: int | str = ""


@dataclass(slots=True)
class _Fault:
    call: str
    error: MarketError
    after: bool
    """The call succeeds and only its answer is lost."""


class FakeMarket:
    """`Market` over offers in memory. `clock` returns Unix seconds."""

    def __init__(
        self,
        offers: Iterable[Offer],
        *,
        clock: Callable[[], float],
        templates: Iterable[Template] = (),
        pull_seconds: float = 20.0,
        start_seconds: float = 3.0,
        list_lag_seconds: float = 0.0,
    ) -> None:
        self.offers = {offer.id: offer for offer in offers}
        self.templates = {template.hash_id: template for template in templates}
        self.instances: dict[int, FakeInstance] = {}
        self.gone: list[FakeInstance] = []
        """Instances that were destroyed or that vanished."""
        self.calls: list[Call] = []
        self.launches: list[Launch] = []
        """The launch of every create call, in order."""
        self.pull_seconds = pull_seconds
        self.start_seconds = start_seconds
        self.list_lag_seconds = list_lag_seconds
        """How long a new instance is missing from listings."""
        self.omits: Callable[[FakeInstance], bool] = lambda _: False
        """Selects instances that listings leave out although they exist."""
        self.edited_labels: dict[int, str] = {}
        """Labels that replace those of the launches, by instance id."""
        self._clock = clock
        self._faults: list[_Fault] = []
        self._next_id = 1000

    # scripting

    def fail_next(self, call: str, error: MarketError, *, times: int = 1, after: bool = False) -> None:
        """Make the next `times` calls of this name raise the error; with `after`, after they took effect."""
        self._faults.extend(_Fault(call, error, after) for _ in range(times))

    def lose_next_answer(self, call: str) -> None:
        """Make the next call of this name take effect and then raise Unavailable."""
        self.fail_next(call, Unavailable("no answer within 30 s"), after=True)

    def vanish(self, instance_id: int) -> None:
        """Remove an instance, as a host that goes away does."""
        self._release(instance_id)

    def edit_label(self, instance_id: int, label: str) -> None:
        """Change the label, as an edit in the marketplace's console does."""
        self.edited_labels[instance_id] = label

    def outbid(self, instance_id: int) -> None:
        """Stop an instance, as a higher bid does; its disk is kept."""
        self._meter(self.instances[instance_id])
        self.instances[instance_id].status = "exited"

    def count(self, call: str) -> int:
        """The number of recorded calls of this name."""
        return sum(made.name == call for made in self.calls)

    def labels(self) -> list[str]:
        """The labels of all existing instances, oldest first."""
        return [instance.launch.label for instance in self.instances.values()]

    def dollars_per_hour(self) -> float:
        """The current price of all billed instances, without the disks of stopped ones."""
        now = self._clock()
        return sum(i.offer.dph_total for i in self.instances.values() if i.actual(now) in _BILLED_STATUSES)

    # the port

    async def search(self, query: OfferQuery) -> list[Offer]:
        """Free offers that match, best price-performance first."""
        fault = self._enter("search")
        rented = {instance.offer.id for instance in self.instances.values()}
        free = (offer for offer in self.offers.values() if offer.id not in rented)
        found = [offer for offer in free if _matches(offer, query.filters)]
        found.sort(key=lambda offer: (-(offer.dlperf or 0.0) / max(offer.dph_total, 1e-9), offer.id))
        self._leave(fault)
        return found[: query.limit]

    async def create(self, offer_id: int, launch: Launch) -> int:
        """Rent an offer."""
        fault = self._enter("create", offer_id)
        offer = self.offers.get(offer_id)
        if offer is None or any(i.offer.id == offer_id for i in self.instances.values()):
            raise OfferGone(f"offer {offer_id} is not available any more: choose another")
        self._check_template(launch)
        self._next_id += 1
        now = self._clock()
        self.instances[self._next_id] = FakeInstance(
            self._next_id,
            offer,
            launch,
            now,
            running_at=now + self.pull_seconds,
            starts_launches=[launch],
            metered_at=now,
        )
        self.launches.append(launch)
        self._leave(fault)
        return self._next_id

    async def start(self, instance_id: int) -> None:
        """Request the state `running`."""
        fault = self._enter("start", instance_id)
        self._run(self._instance(instance_id))
        self._leave(fault)

    async def stop(self, instance_id: int) -> None:
        """Request the state `stopped`."""
        fault = self._enter("stop", instance_id)
        instance = self._instance(instance_id)
        self._meter(instance)
        instance.intended, instance.status = "stopped", None
        self._leave(fault)

    async def reboot(self, instance_id: int) -> None:
        """Restart the container."""
        fault = self._enter("reboot", instance_id)
        self._run(self._instance(instance_id))
        self._leave(fault)

    async def destroy(self, instance_id: int) -> None:
        """Destroy the instance."""
        fault = self._enter("destroy", instance_id)
        self._release(instance_id)
        self._leave(fault)

    async def update_template(self, instance_id: int, launch: Launch) -> None:
        """Change the code that the instance runs from its next start on."""
        fault = self._enter("update_template", instance_id)
        self._check_template(launch)
        self._instance(instance_id).launch = launch
        self._leave(fault)

    async def relabel(self, instance_id: int, label: str) -> None:
        """Change the instance's label."""
        fault = self._enter("relabel", instance_id)
        one = self._instance(instance_id)
        one.launch = replace(one.launch, label=label)
        self._leave(fault)

    async def show(self, instance_id: int) -> Instance:
        """The instance's current state."""
        fault = self._enter("show", instance_id)
        seen = self._seen(self._instance(instance_id))
        self._leave(fault)
        return seen

    async def list(self, *, label_prefix: str = "") -> list[Instance]:
        """Instances by label prefix, without those hidden by `list_lag_seconds` or `omits`."""
        fault = self._enter("list", label_prefix)
        now = self._clock()
        listed = [
            self._seen(instance)
            for instance in self.instances.values()
            if self._label(instance).startswith(label_prefix)
            and now - instance.created_at >= self.list_lag_seconds
            and not self.omits(instance)
        ]
        self._leave(fault)
        return listed

    async def labelled(self, labels: Sequence[str]) -> Sequence[Instance]:
        """Listed instances with one of these labels."""
        wanted = set(labels)
        return [one for one in await self.list() if one.label in wanted]

    async def charges(self, *, label_prefix: str = "", since: float = 0.0) -> Sequence[Charge]:
        """The bill of each instance."""
        fault = self._enter("charges", label_prefix)
        now = self._clock()
        for instance in self.instances.values():
            self._meter(instance)
        bill = [
            Charge(
                instance_id=instance.id,
                label=instance.launch.label,
                dollars=instance.billed,
                since=instance.created_at,
                until=now if instance.gone_at is None else instance.gone_at,
                final=instance.gone_at is not None,
            )
            for instance in (*self.gone, *self.instances.values())
            if instance.launch.label.startswith(label_prefix) and (instance.gone_at or now) >= since
        ]
        self._leave(fault)
        return bill

    async def template(self, *, hash_id: str | None = None, id: int | None = None) -> Template:  # noqa: A002
        """The template by hash or by id."""
        fault = self._enter("template", hash_id or id or "")
        found = self._template(hash_id, id)
        self._leave(fault)
        return found

    async def logs(self, instance_id: int, *, tail: int = 200) -> str:
        """A log with one line per start."""
        fault = self._enter("logs", instance_id)
        instance = self._instance(instance_id)
        self._leave(fault)
        return "\n".join([f"start {number + 1}" for number in range(instance.starts)][-tail:])

    async def close(self) -> None:
        """Do nothing."""

    # internal

    def _enter(self, name: str, subject: int | str = "") -> _Fault | None:
        self.calls.append(Call(self._clock(), name, subject))
        for position, fault in enumerate(self._faults):
            if fault.call == name:
                del self._faults[position]
                if not fault.after:
                    raise fault.error
                return fault
        return None

    @staticmethod
    def _leave(fault: _Fault | None) -> None:
        if fault is not None:
            raise fault.error

    def _instance(self, instance_id: int) -> FakeInstance:
        if instance_id not in self.instances:
            raise InstanceGone(f"there is no instance {instance_id}")
        return self.instances[instance_id]

    def _release(self, instance_id: int) -> None:
        instance = self.instances.pop(instance_id, None)
        if instance is not None:
            self._meter(instance)
            instance.gone_at = self._clock()
            self.gone.append(instance)

    def _meter(self, instance: FakeInstance) -> None:
        """Bill the instance up to now, at the price of its current status."""
        now = self._clock()
        storage = _storage_dollars_per_hour(instance)
        runs = instance.actual(now) in _BILLED_STATUSES
        price = max(instance.offer.dph_total, storage) if runs else storage
        instance.billed += price * (now - instance.metered_at) / 3600.0
        instance.metered_at = now

    def _label(self, instance: FakeInstance) -> str:
        return self.edited_labels.get(instance.id, instance.launch.label)

    def _run(self, instance: FakeInstance) -> None:
        self._meter(instance)
        instance.intended, instance.status = "running", None
        instance.running_at = self._clock() + self.start_seconds
        instance.starts += 1
        instance.starts_launches.append(instance.launch)

    def _template(self, hash_id: str | None, template_id: int | None) -> Template:
        for template in self.templates.values():
            if template.hash_id == hash_id or template.id == template_id:
                return template
        raise Refused(f"there is no template {hash_id or template_id}", code="no_such_template")

    def _check_template(self, launch: Launch) -> None:
        if launch.template_hash is not None or launch.template_id is not None:
            self._template(launch.template_hash, launch.template_id)

    def _seen(self, instance: FakeInstance) -> Instance:
        offer = instance.offer
        return Instance(
            id=instance.id,
            actual_status=instance.actual(self._clock()),
            intended_status=instance.intended,
            cur_state=instance.intended,
            label=self._label(instance),
            machine_id=offer.machine_id,
            host_id=offer.host_id,
            gpu_name=offer.gpu_name,
            num_gpus=offer.num_gpus,
            dph_total=offer.dph_total,
            dph_base=offer.dph_base,
            storage_total_cost=_storage_dollars_per_hour(instance),
            start_date=instance.created_at,
            is_bid=offer.is_bid,
        )


def _storage_dollars_per_hour(instance: FakeInstance) -> float:
    return instance.offer.storage_cost * instance.launch.disk_gb / HOURS_PER_MONTH


_TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda have, want: str(have).lower() == str(want).lower() or _number(have) == _number(want),
    "neq": lambda have, want: str(have).lower() != str(want).lower() and _number(have) != _number(want),
    "gt": lambda have, want: _number(have) > _number(want),
    "gte": lambda have, want: _number(have) >= _number(want),
    "lt": lambda have, want: _number(have) < _number(want),
    "lte": lambda have, want: _number(have) <= _number(want),
    "in": lambda have, want: str(have) in [str(value) for value in want],
    "notin": lambda have, want: str(have) not in [str(value) for value in want],
}


def _number(value: Any) -> float:
    """The value as a number; NaN, which compares false, if it is not a number."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _matches(offer: Offer, filters: Mapping[str, Any]) -> bool:
    """Whether the offer passes the filters. Filters on fields that `Offer` does not have are ignored."""
    known = offer.model_dump()
    return all(
        _TESTS[operator](known[name], value)
        for name, tests in filters.items()
        if name in known
        for operator, value in tests.items()
    )
