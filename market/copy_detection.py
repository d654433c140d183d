"""Detects whether a folder is a copy, or its machine a clone, by properties that copying does not preserve."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

_NET = Path("/sys/class/net")
_MACHINE_ID = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


@dataclass(frozen=True, slots=True)
class FolderLocation:
    """A folder on a machine. A property that cannot be read is empty and is not compared."""

    machine: str
    """The operating system's id of this machine, hashed."""
    inode: int
    """Inode of the folder: a copy gets a new one, a renamed folder keeps its own."""
    cards: tuple[str, ...] = ()
    """Permanent addresses of network cards: in a cloned virtual machine only these differ."""

    def differs_from(self, here: "FolderLocation") -> str:
        """A description of the difference; empty if both are the same location."""
        if self.machine and here.machine and self.machine != here.machine:
            return "on another machine"
        if self.inode != here.inode:
            return "in another folder"
        if self.cards and here.cards and not set(self.cards) & set(here.cards):
            return "on another machine, of which this is a clone"
        return ""

    @property
    def folder(self) -> str:
        """A hash that identifies the folder, the same at every start."""
        return sha256(f"{self.machine}:{self.inode}".encode()).hexdigest()


def locate_folder(folder: Path) -> FolderLocation:
    """The location of an existing folder.

    Raises:
        OSError: the folder does not exist.
    """
    return FolderLocation(_machine(), folder.stat().st_ino, _cards())


def boot_id() -> str:
    """The id of this boot of the machine; empty if it cannot be read."""
    return _text(Path("/proc/sys/kernel/random/boot_id"))


def _machine() -> str:
    for path in _MACHINE_ID:
        if found := _text(path):
            return sha256(f"stoker:{found}".encode()).hexdigest()[:16]
    return ""


def _cards() -> tuple[str, ...]:
    try:
        cards = sorted(_NET.iterdir())
    except OSError:
        return ()
    # Bridges and other virtual devices are temporary and have random addresses.
    permanent = (
        _text(card / "address")
        for card in cards
        if (card / "device").exists() and _text(card / "addr_assign_type") == "0"
    )
    return tuple(sha256(f"stoker:{one}".encode()).hexdigest()[:16] for one in permanent if one)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""
