"""Where a folder is: what a copy of it, or a clone of its machine, cannot take along."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

_NET = Path("/sys/class/net")
_MACHINE_ID = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


@dataclass(frozen=True, slots=True)
class FolderLocation:
    """A folder on a machine. What cannot be read is empty, and then decides nothing."""

    machine: str
    """The operating system's id of this machine, hashed."""
    inode: int
    """Of the folder: a copy has another one, a folder that was renamed keeps it."""
    cards: tuple[str, ...] = ()
    """Permanent addresses of network cards: a clone of a virtual machine keeps the rest and has other cards."""

    def differs_from(self, here: "FolderLocation") -> str:
        """The difference, in words; empty if both are the same place."""
        if self.machine and here.machine and self.machine != here.machine:
            return "on another machine"
        if self.inode != here.inode:
            return "in another folder"
        if self.cards and here.cards and not set(self.cards) & set(here.cards):
            return "on another machine, of which this is a clone"
        return ""

    @property
    def folder(self) -> str:
        """A name of the folder on this machine, the same at every start."""
        return sha256(f"{self.machine}:{self.inode}".encode()).hexdigest()


def locate_folder(folder: Path) -> FolderLocation:
    """The place of an existing folder.

    Raises:
        OSError: there is no such folder.
    """
    return FolderLocation(_machine(), folder.stat().st_ino, _cards())


def boot_id() -> str:
    """Names this boot of the machine, which start times of processes count from; empty where it is not told."""
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
    # Bridges and other virtual devices come and go, and have random addresses.
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
