"""The last log lines of instances that were rebooted or destroyed, as files in a folder.

They never enter a Temporal history: a model's log may contain what only its owner may read.
"""

import contextlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

LINES_MAX = 200
TEXT_CHARS_MAX = 65_536
FILES_MAX = 500
"""The oldest files are deleted beyond this number: at most about 32 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedLog:
    """The last lines of one instance."""

    label: str
    """Of the instance: `stoker:<endpoint>:<launch id>`."""
    at: float
    """When it was saved, Unix seconds."""
    text: str


class SavedLogs:
    """One file per instance, readable by this user only. Blocking; call it in a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __repr__(self) -> str:
        return f"<SavedLogs {self._folder}>"

    def save(self, instance_id: int, label: str, text: str) -> None:
        """Store the last lines; an earlier log of the instance is replaced.

        Raises:
            OSError: the folder cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        saved = SavedLog(label=label, at=time.time(), text=text[-TEXT_CHARS_MAX:])
        temporary = self._folder / f"{instance_id}.{os.getpid()}.new"
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            json.dump(asdict(saved), file)
        temporary.replace(self._path(instance_id))
        self._forget_oldest()

    def read(self, instance_id: int) -> SavedLog | None:
        """The saved log of an instance; None: no log was saved."""
        try:
            return SavedLog(**json.loads(self._path(instance_id).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def find(self, launch_id: str) -> SavedLog | None:
        """The saved log of a launch; None: no log was saved."""
        for file in self._folder.glob("*.json") if launch_id else ():
            with contextlib.suppress(OSError, ValueError, TypeError):
                saved = SavedLog(**json.loads(file.read_text()))
                if saved.label.endswith(f":{launch_id}"):
                    return saved
        return None

    def _path(self, instance_id: int) -> Path:
        return self._folder / f"{int(instance_id)}.json"

    def _forget_oldest(self) -> None:
        """Includes temporary files of a process that was killed while it wrote."""
        ages = []
        for file in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process deleted or renamed it
                ages.append((file.stat().st_mtime, file))
        for _, file in sorted(ages)[:-FILES_MAX]:
            file.unlink(missing_ok=True)
