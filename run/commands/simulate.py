"""`stokerd simulate`: replays a trace through the production policy and evaluates a config."""

from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from dashboard.charts import Series, picture
from dashboard.pages.endpoint_pages import STYLE
from dashboard.rendering import charts
from dashboard.samples import Sample
from run.errors import CommandError
from run.yaml_files import read_yaml
from simulation.market import PERF_UNIT
from simulation.report import Report, Unfit, simulate_trace
from simulation.scoring import RunScore
from simulation.trace import TraceFault
from stoker.cli.output import Terminal
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.errors.problem import describe


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
        CommandError: the trace or the config is invalid, or charts cannot be written (exit code 2); or no tried config
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
                cold_start=cold_start,
                seed=seed,
                progress=lambda share, what: bar.update(task, completed=share, description=what),
            )
    except (TraceFault, Unfit) as fault:
        raise CommandError(str(fault)) from fault
    drawn = () if pictures is None else _draw(report, pictures, dollars_per_hour)
    console.print(report.table(), end="", markup=False, soft_wrap=True)
    for path in drawn:
        console.print(f"drew {path}", markup=False, soft_wrap=True)
    if not report.met:
        raise CommandError("no tried config meets the target; see above for the nearest one", exit_code=1)
    return report


def _draw(report: Report, folder: Path, price: float) -> tuple[Path, ...]:
    """The run of the config as asked, and of the suggested one if it is another."""
    runs = {folder / "run.svg": report.asked}
    if report.suggestion is not None and report.suggestion is not report.asked:
        runs[folder / "suggested.svg"] = report.suggestion
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, tried in runs.items():
            draw(tried.score, path, perf=report.perf, dollars_per_hour=price)
    except OSError as fault:
        raise CommandError(f"{fault.filename}: cannot be written ({fault.strerror})") from fault
    return tuple(runs)


def draw(score: RunScore, path: Path, *, perf: float, dollars_per_hour: float) -> None:
    """Writes the dashboard's charts of a simulated run as SVG. The worker's perf is in load/s.

    A temporary file is written first, so that an interruption leaves no partial picture.
    """
    samples = [
        Sample(
            at=each.at,
            load=each.load * perf / PERF_UNIT,
            capacity_hot=each.ready * perf,
            capacity_booting=each.booting * perf,
            capacity_cold=each.cold * perf,
            hot=each.ready,
            booting=each.booting,
            cold=each.cold,
            queue_oldest=each.worst_wait,
            dollars_hot=each.ready * dollars_per_hour,
            dollars_booting=each.booting * dollars_per_hour,
        )
        for each in score.samples
    ]
    load, workers, queue, cost = charts(samples, [], start=0.0, end=samples[-1].at)
    queue = replace(queue, series=(Series("longest wait", "late", lambda sample: sample.queue_oldest),))
    title = (
        f"{score.trace}: {score.within_10:.2%} of requests began within 10 s, ${score.dollars:.2f}"
        f" (${score.dollars / score.hours:.3f}/h), {score.utilisation:.0%} of hot time busy"
    )
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(picture(title, (load, workers, queue, cost), STYLE))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


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
