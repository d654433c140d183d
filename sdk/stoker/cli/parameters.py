"""The scaling parameters as options of `endpoints create` and `endpoints update`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

MaxWorkers = Annotated[int | None, typer.Option(help="Hard cap on all workers, hot and cold.")]
MinWorkers = Annotated[
    int | None, typer.Option("--min-workers", "--cold-workers", help="Floor on loaded workers, hot and cold.")
]
MinLoad = Annotated[float | None, typer.Option(help="Floor under the hot capacity, load/s.")]
TargetUtil = Annotated[float | None, typer.Option(help="Hot capacity = predicted load / this.")]
ColdMult = Annotated[float | None, typer.Option(help="Total capacity = hot capacity x this.")]
MinColdLoad = Annotated[float | None, typer.Option(help="Total capacity, hot and cold, load/s.")]
InactivityTimeout = Annotated[
    float | None, typer.Option(help="Idle seconds before zero hot workers; negative: never zero.")
]
MaxQueueTime = Annotated[
    float | None, typer.Option(help="A worker with this expected queue takes no more, s.")
]
TargetQueueTime = Annotated[
    float | None, typer.Option(help="Capacity is added above this expected queue, s.")
]
State = Annotated[str | None, typer.Option("--state", help="active, suspended or stopped.")]
Budget = Annotated[float | None, typer.Option("--budget", help="Hard limit on running workers, $/h.")]
DrainSeconds = Annotated[float | None, typer.Option(help="How long a draining worker may finish, s.")]

_NAMES = {"state": "endpoint_state", "budget": "dollars_per_hour_max", "drain_seconds": "drain_seconds_max"}


def given(**options: Any) -> dict[str, Any]:
    """The options that the person gave, by the parameters' names."""
    return {_NAMES.get(name, name): value for name, value in options.items() if value is not None}
