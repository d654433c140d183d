"""The arguments of `stoker up`, and the template and search that follow from them."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stoker.errors import Invalid
from stoker.preflight.memory import BATCHING_SERVER, LLAMA_CPP, ServerMemory
from stoker_wire.endpoint import ENDPOINT_NAME_CHARS_MAX, ENDPOINT_NAME_PATTERN
from stoker_wire.presets import PRESETS, PresetSummary
from stoker_wire.security.redaction import REFERENCE

WORKER_PORT = 3000
IMAGE_GB = 20.0
"""Disk for the container image and the worker's environment."""
SPARE_GB = 5.0
CUDA_MIN = "12.8"
"""CUDA version that the driver of a rented machine must support, for the images of the presets."""
MOUNT_PATH = "/models"
"""Where a volume is mounted unless its path is given."""
INET_DOWN_MIN = 200
"""Mbit/s of a rented machine."""

_LLAMA_CPP_PRESETS = frozenset({"llama-server", "llama-cpp-python", "ollama"})
_VOLUME = re.compile(r"([0-9]{1,15})(?::(/[A-Za-z0-9_./-]+))?")
_VOLUME_NAME = re.compile(r"(?:shared/)?[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_GPUS_TERM = re.compile(r"\bnum_gpus\s*(?:==|=|>=|eq|gte)\s*([0-9]{1,3})\b")


_RAM_TERM = re.compile(r"\bgpu_ram\s*>=\s*([0-9]+(?:\.[0-9]+)?)(?![^\s])")


@dataclass(frozen=True, slots=True, kw_only=True)
class UpRequest:
    """The arguments of `stoker up`, checked."""

    preset: PresetSummary
    endpoint: str
    model: str = ""
    context: int | None = None
    parallel: int | None = None
    gpus: int | None = None
    cpu_only: bool = False
    gpu_ram_gb: float | None = None
    """VRAM per GPU that the user states; then the model is not read."""
    search: str = ""
    command: str = ""
    image: str = ""
    """Container image of a rented machine; "": the preset's."""
    server_args: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    disk_gb: float | None = None
    cache: str = ""
    """Where the weights stay for later workers: a name on the host marketplace, `ID[:path]` of a volume on Vast.ai."""

    @property
    def server(self) -> ServerMemory:
        """The memory profile of the preset's server."""
        return LLAMA_CPP if self.preset.name in _LLAMA_CPP_PRESETS else BATCHING_SERVER

    @property
    def gpus_wanted(self) -> int | None:
        """The number of GPUs, from the option or the search; None: the cheapest that fits."""
        if self.gpus is not None:
            return self.gpus
        found = _GPUS_TERM.search(self.search)
        return int(found[1]) if found else None

    @property
    def is_gguf(self) -> bool:
        """Whether the model is a GGUF file."""
        return self.preset.model == "gguf"

    @property
    def served_model(self) -> str:
        """The name under which the model server knows the model. Ollama has no aliases."""
        if self.preset.model == "ollama":
            return self.model
        return self.variables.get("MODEL_ALIAS") or self.model

    @property
    def added_routes(self) -> list[str]:
        """The paths in MODEL_ROUTES; an invalid value has none, and the worker says why."""
        text = self.variables.get("MODEL_ROUTES", "").strip()
        if not text.startswith("["):
            return [path.strip() for path in text.split(",") if path.strip()]
        try:
            given = [each["path"] if isinstance(each, dict) else each for each in json.loads(text)]
        except (ValueError, TypeError, KeyError):
            return []
        return [each for each in given if isinstance(each, str)]

    @property
    def template_name(self) -> str:
        """The name by which a later run finds the template and the workergroup."""
        return f"stoker up {self.endpoint}"

    def template(self, *, gpus: int, context: int | None, disk_gb: float, local: bool) -> dict[str, Any]:
        """The template's fields. `local`: for the host marketplace, whose instances have the worker already."""
        return {
            "name": self.template_name,
            "image": self.image or self.preset.image or "host",
            "env": shlex.join(self._flags(gpus=gpus, context=context, local=local)),
            "onstart": ON_START_LOCAL if local else "\n".join(filter(None, [self._setup, ON_START])),
            "runtype": "args" if local else "ssh_direct",
            "recommended_disk_space": disk_gb,
        }

    @property
    def _setup(self) -> str:
        """The command that completes the preset's own image."""
        return self.preset.setup if not self.image else ""

    def volume_args(self, *, local: bool) -> str:
        """The launch arguments that attach the volume. Raises Invalid."""
        if not self.cache:
            return ""
        if local:
            if not _VOLUME_NAME.fullmatch(self.cache):
                raise Invalid(
                    f"--cache: expected a name such as weights, or shared/weights, got {self.cache!r:.60}"
                )
            return ""
        found = _VOLUME.fullmatch(self.cache)
        if found is None:
            raise Invalid(
                f"--cache: expected the number of a volume of the account, such as 1234 or 1234:/models, got {self.cache!r:.60}"
            )
        return f"--link-volume {found[1]} --mount-path {found[2] or MOUNT_PATH}"

    def _cache_folder(self, *, local: bool) -> str:
        if not self.cache:
            return ""
        return f"volume:{self.cache}" if local else self.cache.partition(":")[2] or MOUNT_PATH

    def _flags(self, *, gpus: int, context: int | None, local: bool) -> list[str]:
        variables = {
            "STOKER_PRESET": self.preset.name,
            "MODEL_NAME": self.model,
            "MODEL_CONTEXT": str(context or ""),
            "MODEL_PARALLEL": str(self.parallel or ""),
            "MODEL_GPUS": str(gpus) if gpus > 1 else "",
            "MODEL_CACHE": self._cache_folder(local=local),
            "MODEL_COMMAND": self.command,
            "MODEL_ARGS": shlex.join(self.server_args),
            **self.variables,
            **{name: f"{REFERENCE}{name}" for name in self.secrets},
        }
        flags = ["-p", f"{WORKER_PORT}:{WORKER_PORT}"]
        for name, value in variables.items():
            if value:
                flags += ["-e", f"{name}={value}"]
        return flags


ON_START = (
    "command -v curl >/dev/null || { apt-get update && apt-get install -y curl ca-certificates; } >/dev/null 2>&1\n"
    'curl --fail --silent --show-error --location --retry 8 --retry-all-errors "${REPORT_ADDR%%,*}/worker/bootstrap.sh"'
    ' | bash -s -- "$STOKER_PRESET"'
)
"""The start command on a rented machine: install the engine's own worker, and run the preset. Some images lack curl."""
ON_START_LOCAL = 'exec python -m stoker_pyworker.presets "$STOKER_PRESET"'


def find_preset(name: str) -> PresetSummary:
    """The preset. Raises Invalid."""
    if (found := PRESETS.get(name)) is None:
        raise Invalid(f"unknown preset {name!r:.60}; there are: {', '.join(sorted(PRESETS))}")
    return found


def check_request(request: UpRequest) -> None:
    """Refuse what could only be found out after a template is made or a machine is rented. Raises Invalid."""
    name = request.endpoint
    if len(name) > ENDPOINT_NAME_CHARS_MAX or re.fullmatch(ENDPOINT_NAME_PATTERN, name) is None:
        raise Invalid(
            f"--name: expected letters, digits, `_`, `-` and single spaces inside, at most {ENDPOINT_NAME_CHARS_MAX}, "
            f"got {name!r:.80}"
        )
    if request.preset.name != "http":
        return
    if not request.command:
        raise Invalid(
            "--command is required for this preset: the program that serves HTTP, such as 'python3 app.py'"
        )
    if not request.added_routes:
        raise Invalid(
            "--env MODEL_ROUTES=… is required for this preset: the server's paths, such as /predict"
        )


def read_variables(given: list[str]) -> dict[str, str]:
    """`NAME=value` arguments. Raises Invalid."""
    found = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not _VARIABLE.fullmatch(name):
            raise Invalid(f"--env takes NAME=value, got {each!r:.60}")
        found[name] = value
    return found


def disk_gb(download_bytes: float, given: float | None) -> float:
    """The disk of an instance: image, weights with a tenth to spare, logs."""
    return given if given is not None else math.ceil(IMAGE_GB + 1.1 * download_bytes / 1e9 + SPARE_GB)


def raise_gpu_ram(search: str, gigabytes: float) -> str:
    """The search with its lower bound on `gpu_ram` raised to what the model needs."""
    return _RAM_TERM.sub(lambda found: f"gpu_ram>={max(float(found[1]), gigabytes):g}", search)


def add_terms(search: str, terms: Mapping[str, str]) -> str:
    """The search with these terms, except for fields that it has already."""
    missing = [term for name, term in terms.items() if not re.search(rf"\b{name}\b", search)]
    return " ".join([*([search] if search else []), *missing])
