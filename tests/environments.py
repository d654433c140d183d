"""Virtual environments of packages that must not mix with ours, each with exactly what its lock pins."""

import fcntl
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def python_of(lock: str) -> Path:
    """The interpreter of `.venv-<lock>`, which holds what `requirements/<lock>.txt` pins; made if it does not."""
    folder, pins = ROOT / f".venv-{lock}", ROOT / "requirements" / f"{lock}.txt"
    python, mark = folder / "bin" / "python", folder / ".pins"
    wanted = hashlib.sha256(pins.read_bytes()).hexdigest()
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    with (Path(tempfile.gettempdir()) / f"stoker-environment-{name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not mark.exists() or mark.read_text() != wanted:
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
            install = [str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(pins)]
            subprocess.run(install, check=True, timeout=500)
            mark.write_text(wanted)
    return python
