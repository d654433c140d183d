"""Each instance gets its machine's share of a CPU and never more."""

from pathlib import Path
from typing import Literal

import structlog

from market.host import cgroup
from market.host.governor import Governor

log = structlog.get_logger(__name__)


class CpuShares:
    """Enforces shares with the best means that this machine allows; says which in the log."""

    def __init__(self, uid: str, wish: Literal["auto", "governor", "off"]) -> None:
        self._prefix = f"stoker-{uid}-"
        self._cgroup = cgroup.find() if wish == "auto" else None
        self._governor = Governor() if wish != "off" and self._cgroup is None else None
        self.kind = self._cgroup.kind if self._cgroup else (self._governor.kind if self._governor else "off")
        log.info("cpu_shares_enforced_by", kind=self.kind)

    def _path(self, instance_id: int) -> Path | None:
        return self._cgroup.root / f"{self._prefix}{instance_id}" if self._cgroup else None

    def prepare(self, instance_id: int, cpu_percent: float | None) -> Path | None:
        """Before a start: the file into which the new process writes its pid, or None."""
        path = self._path(instance_id)
        if path is None or cpu_percent is None or self._cgroup is None:
            return None
        path.mkdir(exist_ok=True)
        self._cgroup.write_limit(path, cpu_percent)
        return path / "cgroup.procs"

    def started(self, mark: str, session: int, cpu_percent: float | None) -> None:
        """After a start or an adoption."""
        if self._governor is not None and cpu_percent is not None:
            self._governor.govern(mark, session, cpu_percent)

    def ending(self, mark: str) -> None:
        """Before an instance is asked to end."""
        if self._governor is not None:
            self._governor.release(mark)

    def ended(self, instance_id: int) -> None:
        """After its last process is gone."""
        path = self._path(instance_id)
        if path is not None and path.exists():
            cgroup.remove(path)

    def sweep(self, alive: set[int]) -> None:
        """Remove what a marketplace that was killed left behind."""
        if self._cgroup is None:
            return
        for path in self._cgroup.root.glob(f"{self._prefix}*"):
            number = path.name.removeprefix(self._prefix)
            if not number.isdigit() or int(number) not in alive:
                cgroup.remove(path, patience_seconds=0.2)

    def close(self) -> None:
        """Let governed instances run freely."""
        if self._governor is not None:
            self._governor.close()
