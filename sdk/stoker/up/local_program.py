"""Finds a model server's program on this machine, for workers that run here too and do not have this shell's PATH."""

from __future__ import annotations

import shlex
import shutil
import subprocess

from stoker.errors import Invalid
from stoker_wire.presets import PresetSummary

_HAS_MODULE = (
    "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1].partition('.')[0]) is None)"
)
_SECONDS_MAX = 60.0


def local_program(preset: PresetSummary) -> str:
    """The preset's program with its full path, quoted as in a shell; "" for a preset without a fixed program.

    Raises:
        Invalid: it is not installed here.
    """
    if not preset.program:
        return ""
    name, *words = preset.program
    path = shutil.which(name)
    if path is None:
        raise Invalid(
            f"nothing was rented: {name} is not installed on this machine, where the workers run; install it, or give "
            "--command with its path"
        )
    if words[:1] == ["-m"] and not _has_module(path, words[1]):
        raise Invalid(
            f"nothing was rented: {path} has no module {words[1]}; install it there, or give --command with another "
            f"Python: --command '/path/to/python {shlex.join(words)}'"
        )
    return shlex.join([path, *words])


def _has_module(python: str, module: str) -> bool:
    try:
        done = subprocess.run(
            [python, "-c", _HAS_MODULE, module], capture_output=True, timeout=_SECONDS_MAX, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
