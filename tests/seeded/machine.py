"""One rented instance: its history and its real cost."""

from dataclasses import dataclass, field

from market.interface import Launch
from stoker_wire.market import Offer

GPU_BILLED = frozenset({"loading", "running", "rebooting"})


@dataclass(slots=True)
class Meter:
    """The market's prices."""

    gpu_dollars: float = 0.0
    gpu_since: float | None = None
    storage_since: float = 0.0
    storage_until: float | None = None

    def switch(self, billed: bool, now: float, dollars_per_hour: float) -> None:
        if self.gpu_since is not None:
            self.gpu_dollars += (now - self.gpu_since) / 3600 * dollars_per_hour
        self.gpu_since = now if billed else None

    def dollars(self, now: float, gpu: float, storage: float) -> float:
        running = (now - self.gpu_since) / 3600 * gpu if self.gpu_since is not None else 0.0
        until = self.storage_until if self.storage_until is not None else now
        return self.gpu_dollars + running + (until - self.storage_since) / 3600 * storage


@dataclass(slots=True, eq=False)
class Machine:
    """One rented instance and its whole history."""

    id: int
    offer: Offer
    launch: Launch
    created_at: float
    storage_dollars_per_hour: float
    intended: str = "running"
    actual: str | None = None
    story: list[tuple[float, str | None, str]] = field(default_factory=list)
    gone_at: float | None = None
    why_gone: str = ""
    meter: Meter = field(default_factory=Meter)
    turn: int = 0
    """Increases with every operation, so that the effects of an older one are dropped."""
    trouble: str = ""
    running_since: float | None = None
    relabelled: bool = False
    edited_label: str | None = None
    """The edited label, if `relabelled`."""

    @property
    def label(self) -> str:
        return self.launch.label

    @property
    def shown_label(self) -> str | None:
        """The label that the marketplace shows: the launch's, until it was edited."""
        return self.edited_label if self.relabelled else self.label

    @property
    def gpu_dollars_per_hour(self) -> float:
        return self.offer.dph_total - self.storage_dollars_per_hour

    @property
    def burn_dollars_per_hour(self) -> float:
        """Its price per hour now."""
        return self.offer.dph_total if self.actual in GPU_BILLED else self.storage_dollars_per_hour

    def dollars(self, now: float) -> float:
        return self.meter.dollars(now, self.gpu_dollars_per_hour, self.storage_dollars_per_hour)

    def at(self, moment: float) -> tuple[str | None, str] | None:
        """Its state at that time; None if it did not exist."""
        if self.created_at > moment or (self.gone_at is not None and self.gone_at <= moment):
            return None
        known = [(actual, intended) for since, actual, intended in self.story if since <= moment]
        return known[-1] if known else (None, "running")
