"""Control groups, version 1 and 2: CPU limits enforced by the kernel, and the processes of an instance."""

import contextlib
import errno
import os
import secrets
import signal
import subprocess
import time
from pathlib import Path

import structlog

PERIOD_US = 20_000
"""Short, so that a worker with a small limit responds evenly instead of in bursts."""
QUOTA_US_MIN = 1_000
"""The kernel's minimum."""

log = structlog.get_logger(__name__)


def quota(cpu_percent: float) -> tuple[int, int]:
    """`(quota, period)` in microseconds. A small limit gets a longer period, to keep its quota over the minimum."""
    period = PERIOD_US
    while period * cpu_percent / 100 < QUOTA_US_MIN and period < 1_000_000:
        period *= 2
    period = min(period, 1_000_000)
    return max(QUOTA_US_MIN, round(period * cpu_percent / 100)), period


class CgroupV1:
    """The `cpu` controller of cgroup v1."""

    kind = "cgroup v1"

    def __init__(self, root: Path) -> None:
        self.root = root

    def write_limit(self, path: Path, cpu_percent: float) -> None:
        """Set the limit of the group."""
        share, period = quota(cpu_percent)
        (path / "cpu.cfs_period_us").write_text(str(period))
        (path / "cpu.cfs_quota_us").write_text(str(share))


class CgroupV2:
    """`cpu.max` of cgroup v2."""

    kind = "cgroup v2"

    def __init__(self, root: Path) -> None:
        self.root = root

    def write_limit(self, path: Path, cpu_percent: float) -> None:
        """Set the limit of the group."""
        share, period = quota(cpu_percent)
        (path / "cpu.max").write_text(f"{share} {period}")


def find_controller() -> CgroupV1 | CgroupV2 | None:
    """A CPU controller in which this process can make groups, tested by making one; None if none allows it."""
    for controller in _candidates():
        probe = controller.root / f"stoker-probe-{secrets.token_hex(4)}"
        try:
            probe.mkdir()
        except OSError:
            continue
        try:
            controller.write_limit(probe, 50.0)
            return controller
        except OSError:
            continue
        finally:
            with contextlib.suppress(OSError):
                probe.rmdir()
    return None


def find_hierarchy() -> Path | None:
    """A path in any hierarchy where this process can make groups and move processes into them, tested by doing so."""
    own = _own_paths()
    for line in _read("/proc/mounts").splitlines():
        parts = line.split()
        if len(parts) < 4 or parts[2] not in ("cgroup", "cgroup2"):
            continue
        mount, options = Path(parts[1].replace("\\040", " ")), parts[3].split(",")
        named = next((own[name] for name in options if name in own), "/")
        for path in _paths(mount, own.get("", "/") if parts[2] == "cgroup2" else named):
            if _accepts_processes(path):
                return path
    return None


def _accepts_processes(path: Path) -> bool:
    probe = path / f"stoker-probe-{secrets.token_hex(4)}"
    try:
        probe.mkdir()
    except OSError:
        return False
    try:
        enter = ["/bin/sh", "-c", 'echo $$ > "$0"', str(probe / "cgroup.procs")]
        return subprocess.run(enter, stderr=subprocess.DEVNULL, check=False).returncode == 0
    except OSError:
        return False
    finally:
        remove(probe)


def members(path: Path) -> list[int]:
    """The processes of the group and its subgroups."""
    found = []
    for folder, _, _ in os.walk(path):
        found += [int(line) for line in _read(f"{folder}/cgroup.procs").split() if line.isdigit()]
    return found


def kill(path: Path) -> None:
    """Send SIGKILL to the whole group if the kernel supports it; else do nothing."""
    with contextlib.suppress(OSError):
        (path / "cgroup.kill").write_text("1")


def kill_all(path: Path, patience_seconds: float = 5.0) -> bool:
    """Kill every process of the group. Return True if none is left."""
    deadline = time.monotonic() + patience_seconds
    while members(path):
        kill(path)
        for pid in members(path):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def _candidates() -> list[CgroupV1 | CgroupV2]:
    own = _own_paths()
    found: list[CgroupV1 | CgroupV2] = []
    for line in _read("/proc/mounts").splitlines():
        parts = line.split()
        if len(parts) < 4:
            continue
        mount, kind, options = Path(parts[1].replace("\\040", " ")), parts[2], parts[3].split(",")
        if kind == "cgroup" and "cpu" in options:
            found += [CgroupV1(path) for path in _paths(mount, own.get("cpu", "/"))]
        elif kind == "cgroup2":
            for path in _paths(mount, own.get("", "/")):
                # Except for the root, a group can delegate a controller only while it has no processes.
                with contextlib.suppress(OSError):
                    (path / "cgroup.subtree_control").write_text("+cpu")
                found.append(CgroupV2(path))
    return found


def _paths(mount: Path, own: str) -> list[Path]:
    """This process's group below the mount, then the mount itself; in a container both may be the same."""
    inside = mount / own.lstrip("/")
    return [path for path in dict.fromkeys((inside, mount)) if path.is_dir()]


def _own_paths() -> dict[str, str]:
    """Maps each controller to this process's group; the key of version 2 is empty."""
    paths: dict[str, str] = {}
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            paths[controller] = path
    return paths


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def remove(path: Path, patience_seconds: float = 1.0) -> bool:
    """Remove an empty group, retrying while the kernel cleans up its last process."""
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            # An instance may have made subgroups.
            for folder, _, _ in os.walk(path, topdown=False):
                Path(folder).rmdir()
            return True
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                log.warning("cgroup_not_removed", path=str(path), reason=error.strerror)
                return False
            os.sched_yield()
            time.sleep(0.005)
