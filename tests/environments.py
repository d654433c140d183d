"""Environments of packages that must not mix with ours, each with exactly what its lock pins."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
NODE_LOCK = ROOT / "tests/engine/clients/node"


def python_of(lock: str) -> Path:
    """The interpreter of `.venv-<lock>`, which holds what `requirements/<lock>.txt` pins; made if it does not."""
    folder, pins = ROOT / f".venv-{lock}", ROOT / "requirements" / f"{lock}.txt"
    python = folder / "bin" / "python"

    def install() -> None:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(pins)]
        subprocess.run(command, check=True, timeout=900)

    _made(folder, pins, install)
    return python


def node_folder() -> Path:
    """A folder with the `node_modules` that the lock of `tests/engine/clients/node` pins; made if it does not exist."""
    folder, lock = ROOT / ".venv-node", NODE_LOCK / "package-lock.json"

    def install() -> None:
        shutil.copytree(NODE_LOCK, folder, dirs_exist_ok=True)
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, check=True, timeout=300)

    _made(folder, lock, install)
    return folder


def _made(folder: Path, pins: Path, install: Callable[[], None]) -> None:
    mark = folder / ".pins"
    wanted = hashlib.sha256(pins.read_bytes()).hexdigest()
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    with (Path(tempfile.gettempdir()) / f"stoker-environment-{name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not mark.exists() or mark.read_text() != wanted:
            install()
            mark.write_text(wanted)
