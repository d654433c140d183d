"""Folders that outlive instances, for weights: kept for one deployment, and bounded together."""

import asyncio
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import structlog

from hosts.catalog.record import InstanceRecord
from market.ownership import owner_of
from stoker_wire.errors.problem import Problem

log = structlog.get_logger(__name__)

REFERENCE = "volume:"
"""A variable with the value `volume:NAME` receives the path of the deployment's folder of that name."""
SHARED = "shared"
"""`volume:shared/NAME` is one folder for all deployments on this machine."""
_NAME = re.compile(r"(?:shared/)?[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_UNOWNED = "unlabelled"
_DROPPED = ".dropped-"
"""Begins the name of a folder that is being removed; no volume's name begins with a dot."""


def check_references(env: Mapping[str, str]) -> None:
    """Raises Problem 400 if a variable refers to a volume by an invalid name."""
    for name, value in _references(env):
        if not _NAME.fullmatch(value):
            raise Problem(
                400,
                "invalid_args",
                f"{name}: expected {REFERENCE}NAME or {REFERENCE}{SHARED}/NAME with letters, digits, _ . - in the name",
            )


def _references(env: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    return [
        (name, value.removeprefix(REFERENCE)) for name, value in env.items() if value.startswith(REFERENCE)
    ]


class Volumes:
    """The volumes below one folder: `<deployment>/<name>` and `shared/<name>`.

    Together they hold at most `bytes_max`: the one unused for longest is dropped first. A volume that a running instance
    uses is never dropped, so the bound can be exceeded by those.
    """

    def __init__(self, root: Path, *, bytes_max: float) -> None:
        self._root = root
        self._bytes_max = bytes_max
        self._users: dict[int, tuple[Path, ...]] = {}
        self._trimming = asyncio.Lock()

    def claim(self, record: InstanceRecord) -> None:
        """Create the volumes of an instance that already runs, and keep them until `release`."""
        folders = tuple(self.variables(record).values())
        for folder in folders:
            Path(folder).mkdir(parents=True, exist_ok=True, mode=0o700)
            os.utime(folder)
        if folders:
            self._users[record.id] = tuple(map(Path, folders))

    def release(self, instance_id: int) -> None:
        """The instance's processes have ended. Its volumes stay until their space is needed."""
        for folder in self._users.pop(instance_id, ()):
            if folder.exists():
                os.utime(folder)

    def variables(self, record: InstanceRecord) -> dict[str, str]:
        """The variables that refer to a volume, with its path."""
        owner = owner_of(record.label)
        deployment = (owner.deployment if owner is not None else None) or _UNOWNED
        return {
            name: str(self._root / (value if value.startswith(f"{SHARED}/") else f"{deployment}/{value}"))
            for name, value in _references(record.env)
        }

    async def prepare(self, record: InstanceRecord) -> None:
        """Claim the volumes of an instance that starts, and drop those unused for longest until the bound holds."""
        # Claimed under the lock: a removal that runs does not know the claim, and would take the folder away.
        async with self._trimming:
            self.claim(record)
            used = {folder for folders in self._users.values() for folder in folders}
            await asyncio.to_thread(self._trim, used)

    def _trim(self, used: set[Path]) -> None:
        for left in self._root.glob(f"*/{_DROPPED}*"):
            shutil.rmtree(left, ignore_errors=True)
        sizes = {folder: _bytes_in(folder) for folder in self._root.glob("*/[!.]*") if folder.is_dir()}
        total = sum(sizes.values())
        for folder in sorted(sizes.keys() - used, key=lambda each: each.stat().st_mtime):
            if total <= self._bytes_max:
                return
            # Renamed first: a removal that is cut short leaves no volume with half of its files.
            dropped = folder.with_name(f"{_DROPPED}{folder.name}")
            try:
                folder.rename(dropped)
            except OSError as error:
                log.warning("volume_not_dropped", volume=folder.name, error=str(error))
                continue
            shutil.rmtree(dropped, ignore_errors=True)
            total -= sizes[folder]
            log.info("volume_dropped", volume=folder.name, bytes=sizes[folder])
        if total > self._bytes_max:
            log.warning("volumes_over_limit", bytes=total, bytes_max=round(self._bytes_max))


def _bytes_in(folder: Path) -> int:
    """Bytes on the disk. Links are not followed; a file that vanishes meanwhile does not count."""
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.lstat().st_blocks * 512
        except OSError:
            continue
    return total
