"""`stokerd simulate`: replays a trace through the production policy and evaluates a config."""

from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from run.errors import CommandError
from run.yaml_files import read_yaml
from simulation.pictures import NoPictures
from simulation.report import Report, Unfit, simulate_trace
from simulation.trace import TraceFault
from stoker.cli.output import Terminal
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.problem import describe


def run_simulate(
    trace: Path,
    config: Path | None,
    *,
    only: str | None = None,
    perf: float | None,
    dollars_per_hour: float,
    queue_seconds: float | None,
    budget_dollars_per_hour: float | None,
    frontier: bool,
    pictures: Path | None,
    cold_start: bool = False,
    seed: int,
    console: Console,
) -> Report:
    """Simulate and print.

    Raises:
        CommandError: the trace or the config is invalid, or charts cannot be drawn (exit code 2); or no tried config
            meets the target (exit code 1).
    """
    given = read_config(config)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    try:
        screen = Terminal(stderr=True)
        with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
            task = bar.add_task("simulating", total=1.0)
            report = simulate_trace(
                trace,
                given,
                endpoint=only,
                perf=perf,
                dollars_per_hour=dollars_per_hour,
                queue_seconds=queue_seconds,
                budget_dollars_per_hour=budget_dollars_per_hour,
                frontier=frontier,
                pictures=pictures,
                cold_start=cold_start,
                seed=seed,
                progress=lambda share, what: bar.update(task, completed=share, description=what),
            )
    except (TraceFault, NoPictures, Unfit) as fault:
        raise CommandError(str(fault)) from fault
    except OSError as fault:
        raise CommandError(f"{fault.filename}: cannot be written ({fault.strerror})") from fault
    console.print(report.table(), end="", markup=False, soft_wrap=True)
    for path in report.pictures:
        console.print(f"drew {path}", markup=False, soft_wrap=True)
    if not report.met:
        raise CommandError("no tried config meets the target; see above for the nearest one", exit_code=1)
    return report


def read_config(path: Path | None) -> EndpointConfig:
    """The endpoint config in a YAML or JSON file; the defaults without one.

    Raises:
        CommandError: no such file, no mapping, or a value out of bounds.
    """
    if path is None:
        return EndpointConfig()
    given = read_yaml(path, "an endpoint config in YAML or JSON")
    if not isinstance(given, dict):
        raise CommandError(
            f"{path}: expected a mapping such as `target_util: 0.9`, got {type(given).__name__}"
        )
    try:
        return EndpointConfig.model_validate(given)
    except ValidationError as fault:
        raise CommandError(f"{path}: {describe(fault)}") from fault
