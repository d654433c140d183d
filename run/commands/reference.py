"""Pages of `docs/reference/` that are made from the code: `python -m run.commands.reference` writes them, a test compares."""

from pathlib import Path

from policy.state.lifecycle import diagram, table
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.workergroup import Workergroup

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"


def lifecycle_page() -> str:
    """The worker states, as the one table in `policy/state/lifecycle.py` has them."""
    return (
        "# The life of a worker\n\nMade from `policy/state/lifecycle.py` by `python -m run.commands.reference`.\n\n"
        f"{table()}\n\n```mermaid\n{diagram()}\n```\n"
    )


def parameters_page() -> str:
    """Every parameter of endpoints and workergroups with its default and bounds."""
    return (
        "# Parameters\n\nMade from `stoker_wire` by `python -m run.commands.reference`. Load is the summed cost of requests, in units that the "
        "application picks; perf is load that a worker does per second.\n\n## Endpoint\n\n"
        f"{_rows(EndpointConfig)}\n## Workergroup\n\n{_rows(Workergroup)}"
    )


PAGES = {"lifecycle.md": lifecycle_page, "parameters.md": parameters_page}


def _rows(model: type[EndpointConfig] | type[Workergroup]) -> str:
    lines = ["| parameter | default | bounds | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        bounds = ", ".join(filter(None, map(_bound, field.metadata))) or "none"
        default = "required" if field.is_required() else _default(field.default)
        meaning = (field.description or "").replace("\n", " ").replace("|", "/")
        lines.append(f"| `{name}` | {default} | {bounds} | {meaning} |")
    return "\n".join(lines) + "\n"


_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "length ≥", "max_length": "length ≤"}


def _bound(bound: object) -> str:
    said = [
        f"{sign} {getattr(bound, name)}"
        for name, sign in _SIGNS.items()
        if getattr(bound, name, None) is not None
    ]
    return " ".join(said)


def _default(value: object) -> str:
    return "none" if value is None or value == "" else f"`{value}`"


def main() -> None:
    """Write every page."""
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page())


if __name__ == "__main__":
    main()
