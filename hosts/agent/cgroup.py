"""Control groups, version 1 or 2: CPU shares that the kernel enforces, and which processes an instance has."""

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
"""Short, so that a worker with a small share answers evenly instead of in bursts."""
QUOTA_US_MIN = 1_000
"""The kernel takes no less."""

log = structlog.get_logger(__name__)


def quota(cpu_percent: float) -> tuple[int, int]:
    """`(quota, period)` in microseconds; a tiny share gets a longer period, so that its quota stays legal."""
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
        """Put the share into force."""
        share, period = quota(cpu_percent)
        (path / "cpu.cfs_period_us").write_text(str(period))
        (path / "cpu.cfs_quota_us").write_text(str(share))


class CgroupV2:
    """`cpu.max` of cgroup v2."""

    kind = "cgroup v2"

    def __init__(self, root: Path) -> None:
        self.root = root

    def write_limit(self, path: Path, cpu_percent: float) -> None:
        """Put the share into force."""
        share, period = quota(cpu_percent)
        (path / "cpu.max").write_text(f"{share} {period}")


def find() -> CgroupV1 | CgroupV2 | None:
    """A controller in which this process may make groups, proved by making one; None if there is none."""
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


def find_group() -> Path | None:
    """A place in any hierarchy where this process may make groups and put processes into them, proved by doing so."""
    own = _own_paths()
    for line in _read("/proc/mounts").splitlines():
        parts = line.split()
        if len(parts) < 4 or parts[2] not in ("cgroup", "cgroup2"):
            continue
        mount, options = Path(parts[1].replace("\\040", " ")), parts[3].split(",")
        named = next((own[name] for name in options if name in own), "/")
        for place in _places(mount, own.get("", "/") if parts[2] == "cgroup2" else named):
            if _admits(place):
                return place
    return None


def _admits(place: Path) -> bool:
    probe = place / f"stoker-probe-{secrets.token_hex(4)}"
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
    """The processes of the group and of the groups inside it."""
    found = []
    for folder, _, _ in os.walk(path):
        found += [int(line) for line in _read(f"{folder}/cgroup.procs").split() if line.isdigit()]
    return found


def kill(path: Path) -> None:
    """Send SIGKILL to the whole group at once, where the kernel can; else nothing happens."""
    with contextlib.suppress(OSError):
        (path / "cgroup.kill").write_text("1")


def empty(path: Path, patience_seconds: float = 5.0) -> bool:
    """Kill every process of the group; True if none is left."""
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
            found += [CgroupV1(path) for path in _places(mount, own.get("cpu", "/"))]
        elif kind == "cgroup2":
            for path in _places(mount, own.get("", "/")):
                # A group may hand the controller down only while it holds no process itself (but for the root).
                with contextlib.suppress(OSError):
                    (path / "cgroup.subtree_control").write_text("+cpu")
                found.append(CgroupV2(path))
    return found


def _places(mount: Path, own: str) -> list[Path]:
    """This process's own group as seen from here, then the mount itself (in a container they are the same place)."""
    inside = mount / own.lstrip("/")
    return [path for path in dict.fromkeys((inside, mount)) if path.is_dir()]


def _own_paths() -> dict[str, str]:
    """Controller → this process's group; the key of version 2 is empty."""
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
    """Remove an empty group; the kernel may need a moment after its last process died."""
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            for folder, _, _ in os.walk(
                path, topdown=False
            ):  # an instance may have made groups of its own inside
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
