"""Files beside the code: the default settings, the example model, and the worker's pinned dependencies.

A wheel carries them in `run/packaged/`; a checkout has them at its root.
"""

from pathlib import Path

_PACKAGED = Path(__file__).with_name("packaged")

HOME = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[1]
"""The folder of these files, which instances of the host marketplace get as `STOKER_HOME`."""

DEFAULT_SETTINGS = HOME / "temporal-dev.yaml"
WORKER_REQUIREMENTS = HOME / "requirements" / "pyworker.txt"
TRACED_WORKER_REQUIREMENTS = HOME / "requirements" / "pyworker-otel.txt"
