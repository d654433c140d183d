"""CPU limits of instances, and the control groups that contain their processes."""

from pathlib import Path
from typing import Literal

import structlog

from hosts.agent import cgroup
from hosts.agent.governor import Governor
from hosts.agent.process import ProcessesLeft

log = structlog.get_logger(__name__)


class CpuShares:
    """Enforces CPU limits by control group, else by the governor; the log names the mechanism."""

    def __init__(self, uid: str, mode: Literal["auto", "governor", "off"]) -> None:
        self._prefix = f"stoker-{uid}-"
        self._cgroup = cgroup.find_controller() if mode == "auto" else None
        self._governor = Governor() if mode != "off" and self._cgroup is None else None
        self._root = self._cgroup.root if self._cgroup else cgroup.find_hierarchy()
        self.kind = self._cgroup.kind if self._cgroup else (self._governor.kind if self._governor else "off")
        log.info("cpu_shares_enforced_by", kind=self.kind)
        log.info("instances_contained_by", kind="cgroup" if self._root else "child subreaper")

    def group(self, instance_id: int) -> Path | None:
        """The path of the instance's control group; None if groups cannot be made on this system."""
        return self._root / f"{self._prefix}{instance_id}" if self._root else None

    def prepare(self, instance_id: int, cpu_percent: float | None) -> Path | None:
        """Make the control group before a start; None if groups cannot be made on this system."""
        path = self.group(instance_id)
        if path is None:
            return None
        path.mkdir(exist_ok=True)
        if self._cgroup is not None and cpu_percent is not None:
            self._cgroup.write_limit(path, cpu_percent)
        return path

    def started(self, tag: str, session: int, cpu_percent: float | None) -> None:
        """Begin to enforce the limit after a start or an adoption."""
        if self._governor is not None and cpu_percent is not None:
            self._governor.govern(tag, session, cpu_percent)

    def ending(self, tag: str) -> None:
        """Stop enforcing the limit, before the instance is asked to exit."""
        if self._governor is not None:
            self._governor.release(tag)

    def ended(self, instance_id: int) -> None:
        """Remove the control group after the last process has exited.

        Raises:
            ProcessesLeft: processes in the group survive SIGKILL.
        """
        path = self.group(instance_id)
        if path is not None and path.exists():
            if not cgroup.kill_all(path):
                raise ProcessesLeft(f"processes survive SIGKILL: {cgroup.members(path)}")
            cgroup.remove(path)

    def sweep(self, alive: set[int]) -> None:
        """Kill and remove control groups that a killed marketplace left behind."""
        if self._root is None:
            return
        for path in self._root.glob(f"{self._prefix}*"):
            number = path.name.removeprefix(self._prefix)
            if not number.isdigit() or int(number) not in alive:
                if not cgroup.kill_all(path):
                    log.error("orphan_processes_survive_sigkill", group=str(path), pids=cgroup.members(path))
                cgroup.remove(path, patience_seconds=0.2)

    def close(self) -> None:
        """Stop enforcing limits by the governor."""
        if self._governor is not None:
            self._governor.close()
