"""Generates pages of `docs/reference/` from the code: `python -m run.commands.reference`. A test compares them."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from pydantic import BaseModel

import policy.tuning
from policy.state.lifecycle import LIFECYCLE
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.security.client_key import KeyLimits
from stoker_wire.states import GPU_BILLED, STORAGE_UNBILLED, WorkerState
from stoker_wire.workergroup import Workergroup

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def lifecycle_page() -> str:
    """The worker states, as the one table in `policy/state/lifecycle.py` has them."""
    return (
        "# The worker lifecycle\n\n"
        "Generated from `policy/state/lifecycle.py` by `python -m run.commands.reference`.\n\n"
        f"{lifecycle_table()}\n\n```mermaid\n{lifecycle_diagram()}\n```\n"
    )


def lifecycle_table() -> str:
    """The lifecycle as a Markdown table."""
    lines = ["| state | readiness | GPU billed | storage billed | next states |", "|---|---|---|---|---|"]
    for state, row in LIFECYCLE.items():
        moves = "; ".join(f"{to.printed}: {event}" for to, event in row.moves.items()) or "gone"
        billed = "yes" if state in GPU_BILLED else "no"
        storage = "no" if state in STORAGE_UNBILLED else "yes"
        lines.append(f"| {state.printed} | {row.readiness} | {billed} | {storage} | {moves} |")
    return "\n".join(lines) + "\n"


def lifecycle_diagram() -> str:
    """The lifecycle as a Mermaid state diagram, without the transitions to DESTROYING, which every state has."""
    lines = ["stateDiagram-v2", "    [*] --> PENDING: an offer was chosen"]
    for state, row in LIFECYCLE.items():
        for to, event in row.moves.items():
            if to is not WorkerState.DESTROYING:
                lines.append(f"    {state.printed} --> {to.printed}: {event}")
    lines.append("    DESTROYING --> [*]: no longer listed")
    return "\n".join(lines) + "\n"


def parameters_page() -> str:
    """Every parameter of endpoints, workergroups and named keys with its default and bounds."""
    return (
        "# Parameters\n\nGenerated from `stoker_wire` by `python -m run.commands.reference`. "
        "Load is the summed cost of requests, in units that the\napplication chooses; perf is the load that a worker completes per second.\n\n## Endpoint\n\n"
        f"{_rows(EndpointConfig)}\n## Workergroup\n\n{_rows(Workergroup)}\n"
        "## Named key\n\n"
        "Limits of one client's key (`stoker keys`, [how-to](../how-to/keys-and-limits.md)).\n\n"
        f"{_rows(KeyLimits)}"
    )


def tuning_page() -> str:
    """Every constant of `policy/tuning.py` by theme, with its unit, default and the effect of doubling it."""
    lines = [
        "# Tuning constants",
        "",
        "Made from `policy/tuning.py` by `python -m run.commands.reference`. These constants change how endpoints",
        "scale, route and report. They apply to all endpoints. To change one endpoint, set its [parameters](parameters.md).",
    ]
    for group in constants():
        lines += [
            "",
            f"## {group.title}",
            "",
            "| constant | unit | default | what it does | doubled |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| `{each.name}` | {each.unit} | {each.default} | {each.effect} | {each.doubled} |"
            for each in group.constants
        ]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Constant:
    """One field of `Tuning`."""

    name: str
    default: str
    effect: str
    doubled: str
    """What happens when it is doubled."""

    @property
    def unit(self) -> str:
        """The unit, from the words of the name."""
        words = self.name.split("_")
        return next((unit for word, unit in _UNITS.items() if word in words), "number")


@dataclass(frozen=True)
class ConstantGroup:
    """The constants of one theme."""

    title: str
    constants: tuple[Constant, ...]


_UNITS = {
    "seconds": "s",
    "share": "share",
    "factor": "factor",
    "ratio": "factor",
    "change": "share",
    "margin": "share",
    "tolerance": "share",
    "means": "mean service times",
    "deviations": "standard deviations",
    "requests": "requests",
    "hosts": "hosts",
}
_DOUBLED = "Doubled: "


def constants() -> tuple[ConstantGroup, ...]:
    """The constants of `policy/tuning.py`, read from its source: docstrings of fields exist only there.

    Raises:
        ValueError: a constant has no docstring, or its docstring does not say what happens when it is doubled.
    """
    module = ast.parse(Path(policy.tuning.__file__).read_text())
    groups = [each for each in module.body if isinstance(each, ast.ClassDef) and each.name != "Tuning"]
    return tuple(
        ConstantGroup((ast.get_docstring(each) or each.name).removesuffix("."), tuple(_constants(each)))
        for each in groups
    )


def _constants(group: ast.ClassDef) -> Iterator[Constant]:
    for field, text in pairwise(group.body):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        words = ""
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            words = " ".join(str(text.value.value).split())
        effect, found, doubled = words.partition(_DOUBLED)
        if not found:
            raise ValueError(
                f"{field.target.id} needs a docstring that contains {_DOUBLED!r} and the effect of that"
            )
        default = getattr(policy.tuning.DEFAULT_TUNING, field.target.id)
        yield Constant(field.target.id, f"{default:g}", effect.strip().replace("|", "/"), doubled)


def metrics_page() -> str:
    """Every metric of the engine, the Temporal worker and the host marketplace."""
    # Loads the three programs.
    from engine.metrics.families import HISTOGRAMS, OF_ENDPOINTS, OF_ENGINE  # noqa: PLC0415
    from hosts.api.metrics import DECLARED as OF_HOSTS  # noqa: PLC0415
    from workflows.temporal_worker.metrics import DECLARED as OF_WORKERS  # noqa: PLC0415

    rows: list[_MetricRow] = [
        (family.sample_name, family.kind, (*labels, *family.labels), family.about)
        for found, labels in ((OF_ENGINE, ()), (OF_ENDPOINTS, ("endpoint",)))
        for family in found
    ]
    rows += [(family.name, "histogram", ("endpoint", *family.labels), family.about) for family in HISTOGRAMS]
    lines = [
        "# Metrics",
        "",
        "Generated from the code by `python -m run.commands.reference`. Every process serves `/metrics` as Prometheus text or,",
        "if `Accept` prefers it, as OpenMetrics. Each page has also the `process_*` metrics of its process. How to scrape them:",
        "[alerts and dashboards](../how-to/alerts.md).",
        "",
        "## Engine",
        "",
        "`/metrics` with an account key, which sees its own endpoints. In OpenMetrics and protobuf, histograms name the last",
        "request of each bucket; in protobuf, which Prometheus asks for if it reads native histograms, they have native buckets",
        "too. Each engine reports its own queue and requests; workers and dollars are the endpoint's, so take their maximum over",
        "engines, not their sum.",
        "",
        *_metric_table(rows),
        "",
        "## Temporal worker",
        "",
        "`/metrics` at `worker.metrics_port`, if the settings name one; it needs no key.",
        "",
        *_metric_table([(each.name, each.kind, each.labels, each.about) for each in OF_WORKERS]),
        "",
        "## Host marketplace",
        "",
        "`/metrics` at `host_market.port`; it needs no key.",
        "",
        *_metric_table([(each.name, each.kind, each.labels, each.about) for each in OF_HOSTS]),
    ]
    return "\n".join(lines) + "\n"


_MetricRow = tuple[str, str, tuple[str, ...], str]
"""Name, kind, labels, meaning."""


def _metric_table(rows: list[_MetricRow]) -> list[str]:
    return ["| metric | kind | labels | meaning |", "|---|---|---|---|"] + [
        f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels) or '–'} | {about} |"  # noqa: RUF001
        for name, kind, labels, about in rows
    ]


PAGES = {
    "metrics.md": metrics_page,
    "lifecycle.md": lifecycle_page,
    "parameters.md": parameters_page,
    "tuning.md": tuning_page,
}


def _rows(model: type[BaseModel]) -> str:
    lines = ["| parameter | default | bounds | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        bounds = ", ".join(filter(None, map(_bound, field.metadata))) or "none"
        default = "required" if field.is_required() else _default(field.default)
        meaning = (field.description or "").replace("\n", " ").replace("|", "/")
        lines.append(f"| `{name}` | {default} | {bounds} | {meaning} |")
    return "\n".join(lines) + "\n"


_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "length ≥", "max_length": "length ≤"}


def _bound(bound: object) -> str:
    bounds = [
        f"{sign} {getattr(bound, name)}"
        for name, sign in _SIGNS.items()
        if getattr(bound, name, None) is not None
    ]
    return " ".join(bounds)


def _default(value: object) -> str:
    return "none" if value in (None, "", ()) else f"`{value}`"


def main() -> None:
    """Write every page."""
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page())


if __name__ == "__main__":
    main()
