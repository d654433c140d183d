"""One worker's entry in the endpoint's memo."""

from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Self

from stoker_wire.messages import Member
from stoker_wire.states import WorkerState


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One worker as its workflow lists it. The defaults describe a worker that no memo has listed yet."""

    workergroup_id: int = 0
    state: WorkerState = WorkerState.PENDING
    since: float = 0.0
    """When the workflow entered this state, Unix seconds."""
    draining: bool = False
    perf: float = 0.0
    """Load per second that the workflow accepts; rounded to three digits."""
    url: str = ""
    address: str = ""
    """Where the marketplace locates the instance, `host:port,port…`; empty: not known yet."""
    error: str = ""
    official: bool = False
    """It runs the official package's worker."""
    price: float = 0.0
    """Dollars per hour."""
    kind: str = ""
    """Machine kind, for example `2x RTX 4090`."""
    update_pending: bool = False
    held: bool = False
    """An operator drained it."""

    @classmethod
    def of(cls, member: Member) -> Self:
        """Expand the memo's short field names."""
        return cls(
            workergroup_id=member.g,
            state=member.s,
            since=member.t,
            draining=member.d,
            perf=member.p,
            url=member.u,
            address=member.a,
            error=member.e,
            official=bool(member.o),
            price=member.c,
            kind=member.k,
            update_pending=bool(member.n),
            held=bool(member.h),
        )

    @property
    def host(self) -> str:
        """Host part of `address`; IPv6 addresses keep their brackets. Empty: not known yet."""
        return self.address.rpartition(":")[0]

    def allows(self, url: str) -> bool:
        """Whether the url is at the instance's address. Every url is allowed while the address is not known."""
        if not self.address or not url:
            return True
        host, _, ports = self.address.rpartition(":")
        given, colon, port = url.partition("://")[2].rpartition(":")
        if not colon or not port.isdigit():
            given, port = url.partition("://")[2], "443" if url.startswith("https:") else "80"
        return _is_same_host(given, host) and (not ports or port in ports.split(","))


def _is_same_host(one: str, other: str) -> bool:
    """Whether two hosts are equal. An IPv6 address, in brackets, has several spellings."""
    if one.lower() == other.lower():
        return True
    try:
        return IPv6Address(one.strip("[]")) == IPv6Address(other.strip("[]"))
    except ValueError:
        return False
