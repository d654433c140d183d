"""Options that several commands share: the parameters of an endpoint and of a workergroup."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from stoker.cli.context import complete_from

ENDPOINT_OPTIONS: Mapping[str, Any] = {
    "max_workers": Annotated[int | None, typer.Option(help="Hard cap on all workers, hot and cold.")],
    "min_workers": Annotated[
        int | None,
        typer.Option("--min-workers", "--cold-workers", help="Floor on loaded workers, hot and cold."),
    ],
    "min_load": Annotated[float | None, typer.Option(help="Floor under the hot capacity, load/s.")],
    "target_util": Annotated[float | None, typer.Option(help="Hot capacity = predicted load / this.")],
    "cold_mult": Annotated[float | None, typer.Option(help="Total capacity = hot capacity x this.")],
    "min_cold_load": Annotated[float | None, typer.Option(help="Total capacity, hot and cold, load/s.")],
    "inactivity_timeout": Annotated[
        float | None, typer.Option(help="Idle seconds before zero hot workers; negative: never zero.")
    ],
    "max_queue_time": Annotated[
        float | None, typer.Option(help="A worker with this expected queue takes no more, s.")
    ],
    "target_queue_time": Annotated[
        float | None, typer.Option(help="Capacity is added above this expected queue, s.")
    ],
    "error_budget": Annotated[
        float | None,
        typer.Option(help="Share of the work that may wait longer than the target, e.g. 0.01."),
    ],
    "endpoint_state": Annotated[
        str | None,
        typer.Option(
            "--state",
            help="active, suspended or stopped.",
            autocompletion=complete_from("active", "suspended", "stopped"),
        ),
    ],
    "dollars_per_hour_max": Annotated[
        float | None, typer.Option("--budget", help="Hard limit on running workers, $/h.")
    ],
    "drain_seconds_max": Annotated[
        float | None, typer.Option("--drain-seconds", help="How long a draining worker may finish, s.")
    ],
    "silence_seconds_max": Annotated[
        float | None,
        typer.Option("--silence-seconds", help="OpenAI API: how long a worker may send nothing, s."),
    ],
    "allowed_origins": Annotated[
        list[str] | None,
        typer.Option("--allowed-origin", help="OpenAI API: origin of web pages that may call; repeatable."),
    ],
    "affinity_prefix_bytes": Annotated[
        int | None,
        typer.Option(help="OpenAI API: prompts that begin with the same bytes prefer one worker; 0: off."),
    ],
}
"""By the parameter's name in an endpoint's config."""

WORKERGROUP_OPTIONS: Mapping[str, Any] = {
    "template_hash": Annotated[str | None, typer.Option(help="Template by hash.")],
    "template_id": Annotated[int | None, typer.Option(help="Template by id.")],
    "search_params": Annotated[
        str | None,
        typer.Option("--search", "--search-params", help="Eligible offers, e.g. 'gpu_name=RTX_4090'."),
    ],
    "launch_args": Annotated[
        str | None, typer.Option(help="Overrides of instance creation, e.g. '--disk 40'.")
    ],
    "gpu_ram": Annotated[float | None, typer.Option(help="GB of VRAM that the model needs.")],
    "max_workers": Annotated[int | None, typer.Option(help="Cap for this workergroup alone.")],
    "cold_workers": Annotated[
        int | None, typer.Option("--min-workers", "--cold-workers", help="Floor for this workergroup.")
    ],
    "test_workers": Annotated[int | None, typer.Option(help="Machine kinds that the learning phase tries.")],
}
"""By the field's name in a workergroup."""


def with_options(options: Mapping[str, Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add options to a command. The values that were given are its argument `given`, by parameter name."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        shared = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
            for name, option in options.items()
        ]
        flags = [each for name, each in own.parameters.items() if name != "given"]
        first = [each for each in flags if each.default is inspect.Parameter.empty]
        rest = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in flags if each not in first]
        signature = own.replace(parameters=[*first, *shared, *rest])

        @functools.wraps(command)
        def called(*args: Any, **values: Any) -> None:
            given = {name: values.pop(name) for name in options if name in values}
            command(
                *args, **values, given={name: value for name, value in given.items() if value is not None}
            )

        called.__signature__ = signature  # type: ignore[attr-defined]
        called.__annotations__ = {name: each.annotation for name, each in signature.parameters.items()}
        return called

    return decorate
