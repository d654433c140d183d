"""The settings of a preset, from options and environment variables."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from stoker_pyworker.config import ConfigError
from stoker_pyworker.server_config import STARTUP_SECONDS_MAX
from stoker_wire.parsing.ids import read_id
from stoker_wire.parsing.numbers import read_number
from stoker_wire.workload import WorkloadRule

_RULE: TypeAdapter[WorkloadRule] = TypeAdapter(WorkloadRule)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSetting:
    """A route that the user adds, or changes: what is not given is the preset's."""

    path: str
    rule: WorkloadRule | None = None
    parallel: bool | None = None
    benchmark: tuple[dict[str, Any], ...] = ()
    """JSON payloads; the first route that has some is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PresetSettings:
    """Everything that a user may choose; a preset fills in the rest."""

    model: str = ""
    alias: str = ""
    context: int = 0
    """Tokens; 0: the server's own."""
    parallel: int = 0
    """Requests at the same time; 0: the server's own."""
    gpus: int = 1
    port: int = 8000
    args: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    cache: str = ""
    perf: float | None = None
    """Workload per second to report first; None: the preset's."""
    startup_seconds_max: float = STARTUP_SECONDS_MAX
    log_file: str = "model.log"
    health_path: str = ""
    routes: tuple[RouteSetting, ...] = ()

    @property
    def served_name(self) -> str:
        """The name under which clients ask for the model."""
        return self.alias or self.model

    @classmethod
    def read(cls, variables: Mapping[str, str], *, vllm_names: bool = False) -> "PresetSettings":
        """Parse the variables. `vllm_names`: VLLM_MODEL and VLLM_ARGS are read too.

        Raises:
            ConfigError: with every invalid variable.
        """
        faults: list[str] = []
        read = _Reader(variables, faults)
        model = variables.get("MODEL_NAME", "").strip()
        args = read.words("MODEL_ARGS")
        if vllm_names:
            model = model or variables.get("VLLM_MODEL", "").strip()
            args = args or read.words("VLLM_ARGS")
        settings = cls(
            model=model,
            alias=variables.get("MODEL_ALIAS", "").strip(),
            context=read.count("MODEL_CONTEXT", 0),
            parallel=read.count("MODEL_PARALLEL", 0),
            gpus=read.count("MODEL_GPUS", read.count("GPU_COUNT", 1)) or 1,
            port=read.port("MODEL_PORT", 8000),
            args=args,
            command=read.words("MODEL_COMMAND"),
            cache=variables.get("MODEL_CACHE", "").strip(),
            perf=read.number("MODEL_PERF") if variables.get("MODEL_PERF") else read.number("STOKER_PERF"),
            startup_seconds_max=read.number("MODEL_STARTUP_SECONDS") or STARTUP_SECONDS_MAX,
            log_file=variables.get("MODEL_LOG", "").strip() or "model.log",
            health_path=variables.get("MODEL_HEALTH_ENDPOINT", "").strip(),
            routes=read.routes("MODEL_ROUTES"),
        )
        if faults:
            raise ConfigError("; ".join(faults))
        return settings


class _Reader:
    """Reads variables and collects faults. An empty variable counts as absent, as templates often leave them so."""

    def __init__(self, variables: Mapping[str, str], faults: list[str]) -> None:
        self._variables = variables
        self._faults = faults

    def _text(self, name: str) -> str:
        return self._variables.get(name, "").strip()

    def words(self, name: str) -> tuple[str, ...]:
        """Words in shell quoting."""
        try:
            return tuple(shlex.split(self._text(name)))
        except ValueError as fault:
            self._faults.append(
                f"{name}: expected words in shell quoting, received {self._text(name)!r:.100}: {fault}"
            )
            return ()

    def count(self, name: str, default: int) -> int:
        """A whole number of 0 or more."""
        text = self._text(name)
        number = read_id(text) if text else default
        if number is None or number < 0:
            self._faults.append(f"{name}: expected a whole number, received {text!r}")
            return default
        return number

    def port(self, name: str, default: int) -> int:
        """A port number."""
        number = self.count(name, default)
        if not 0 < number < 65536:
            self._faults.append(f"{name}: expected a port from 1 to 65535, received {number}")
        return number

    def number(self, name: str) -> float | None:
        """A number of 0 or more."""
        text = self._text(name)
        number = read_number(text) if text else None
        if text and (number is None or number < 0):
            self._faults.append(f"{name}: expected a number of 0 or more, received {text!r}")
        return number

    def routes(self, name: str) -> tuple[RouteSetting, ...]:
        """Paths separated by commas, or a JSON list."""
        text = self._text(name)
        if not text.startswith("["):
            return tuple(RouteSetting(path=path.strip()) for path in text.split(",") if path.strip())
        try:
            return tuple(_route(each) for each in json.loads(text))
        except (ValueError, TypeError, AttributeError, ValidationError) as fault:
            example = '[{"path": "/predict", "rule": {"kind": "constant", "load": 1}, "parallel": true}]'
            reason = str(fault).splitlines()[0]
            self._faults.append(f"{name}: expected paths or a JSON list like {example}: {reason}")
            return ()


def _route(given: Any) -> RouteSetting:
    if isinstance(given, str):
        return RouteSetting(path=given)
    unknown = set(given) - {"path", "rule", "parallel", "benchmark"}
    if unknown or not isinstance(given.get("path"), str):
        raise ValueError(f"expected path, rule, parallel, benchmark; received {', '.join(sorted(given))}")
    options: dict[str, Any] = {"path": given["path"]}
    if "rule" in given:
        options["rule"] = _RULE.validate_python(given["rule"])
    if "parallel" in given:
        options["parallel"] = given["parallel"] is True
    benchmark: Sequence[dict[str, Any]] = given.get("benchmark") or ()
    return RouteSetting(**options, benchmark=tuple(benchmark))
