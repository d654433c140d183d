"""Each instance gets its machine's share of a CPU and never more, and a control group that holds all its processes."""

from pathlib import Path
from typing import Literal

import structlog

from hosts.agent import cgroup
from hosts.agent.governor import Governor
from hosts.agent.process import ProcessesLeft

log = structlog.get_logger(__name__)


class CpuShares:
    """Enforces shares with the best means that this machine allows; says which in the log."""

    def __init__(self, uid: str, wish: Literal["auto", "governor", "off"]) -> None:
        self._prefix = f"stoker-{uid}-"
        self._cgroup = cgroup.find() if wish == "auto" else None
        self._governor = Governor() if wish != "off" and self._cgroup is None else None
        self._root = self._cgroup.root if self._cgroup else cgroup.find_group()
        self.kind = self._cgroup.kind if self._cgroup else (self._governor.kind if self._governor else "off")
        log.info("cpu_shares_enforced_by", kind=self.kind)
        log.info("instances_contained_by", kind="cgroup" if self._root else "child subreaper")

    def group(self, instance_id: int) -> Path | None:
        """The instance's control group, whether it exists now or not; None if none can be made here."""
        return self._root / f"{self._prefix}{instance_id}" if self._root else None

    def prepare(self, instance_id: int, cpu_percent: float | None) -> Path | None:
        """Before a start: make the control group. None if none can be made here."""
        path = self.group(instance_id)
        if path is None:
            return None
        path.mkdir(exist_ok=True)
        if self._cgroup is not None and cpu_percent is not None:
            self._cgroup.write_limit(path, cpu_percent)
        return path

    def started(self, mark: str, session: int, cpu_percent: float | None) -> None:
        """After a start or an adoption."""
        if self._governor is not None and cpu_percent is not None:
            self._governor.govern(mark, session, cpu_percent)

    def ending(self, mark: str) -> None:
        """Before an instance is asked to end."""
        if self._governor is not None:
            self._governor.release(mark)

    def ended(self, instance_id: int) -> None:
        """After its last process is gone.

        Raises:
            ProcessesLeft: its group holds processes that do not end.
        """
        path = self.group(instance_id)
        if path is not None and path.exists():
            if not cgroup.empty(path):
                raise ProcessesLeft(f"processes do not end: {cgroup.members(path)}")
            cgroup.remove(path)

    def sweep(self, alive: set[int]) -> None:
        """Kill and remove what a marketplace that was killed left behind."""
        if self._root is None:
            return
        for path in self._root.glob(f"{self._prefix}*"):
            number = path.name.removeprefix(self._prefix)
            if not number.isdigit() or int(number) not in alive:
                if not cgroup.empty(path):
                    log.error("strays_do_not_die", group=str(path), pids=cgroup.members(path))
                cgroup.remove(path, patience_seconds=0.2)

    def close(self) -> None:
        """Let governed instances run freely."""
        if self._governor is not None:
            self._governor.close()
