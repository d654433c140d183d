"""Pictures of a run: load, capacity by state, waits, dollars. matplotlib is loaded when one is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulation.figures import Figures

_HOT, _BOOTING, _COLD, _LOAD = "#c44e52", "#dd8452", "#c3d0e6", "#2b2b2b"
_WAIT_TICKS = (0, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600)
_SMOOTH_SAMPLES = 5
"""Samples per mean of the drawn load, which smooths random variation."""


class NoPictures(RuntimeError):
    """matplotlib is not installed."""


def picture(
    figures: Figures, path: Path, *, perf: float | None = None, scale: float = 1.0, target: float = 10.0
) -> None:
    """Draws one run to a PNG or SVG; the file is written completely or not at all.

    With `perf` (load/s of one worker), capacities are drawn in load/s beside the load, else in workers. `scale`
    converts the run's load into the user's. `target` is the wait that is drawn as a line, seconds.

    Raises:
        NoPictures: matplotlib is missing; the message says how to get it.
    """
    pyplot = _pyplot()
    samples = figures.samples
    hours = [at / 3600.0 for at in samples.at]
    figure, (capacity, wait, money) = pyplot.subplots(
        3, 1, figsize=(11, 9), sharex=True, height_ratios=(3, 2, 1.4)
    )
    unit = perf or 1.0
    standing = [[count * unit for count in each] for each in (samples.ready, samples.booting, samples.cold)]
    capacity.stackplot(
        hours, *standing, step="pre", labels=("hot", "booting", "cold"), colors=(_HOT, _BOOTING, _COLD)
    )
    load = _smooth([each * scale for each in samples.load])
    if perf:
        capacity.plot(hours, load, color=_LOAD, lw=0.9, label="load that arrives")
        capacity.set_ylabel("capacity and load, load/s")
    else:
        capacity.set_ylabel("capacity, workers")
    capacity.set_ylim(0, 1.15 * max((sum(each) for each in zip(*standing, strict=True)), default=1.0) or 1.0)
    capacity.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False)
    wait.fill_between(hours, samples.worst_wait, step="pre", color="#55a868", alpha=0.75, lw=0)
    wait.axhline(target, color="grey", lw=0.9, ls="--")
    wait.annotate(
        f"{target:g} s", (1.0, target), xycoords=("axes fraction", "data"), xytext=(4, 0),
        textcoords="offset points", va="center", color="grey", fontsize=9,
    )  # fmt: skip
    wait.set_ylabel("longest wait of a request, s")
    wait.set_ylim(0, 1.1 * max([target, *samples.worst_wait]))
    money.plot(hours, samples.dollars, color="#8172b3", lw=1.6)
    money.set_ylabel("dollars, in all")
    money.set_ylim(bottom=0)
    money.set_xlabel("hours")
    for axes in (capacity, wait, money):
        axes.grid(alpha=0.25)
        axes.set_xlim(0, max(hours, default=1.0))
    figure.suptitle(
        f"{figures.trace}: {figures.within_10:.2%} of requests began within 10 s, \\${figures.dollars:.2f}"
        f" (\\${figures.dollars / figures.hours:.3f}/h), {figures.utilisation:.0%} of hot time busy",
        fontsize=11,
    )
    _save(pyplot, figure, path)


def frontier_picture(
    points: Sequence[tuple[str, float, float]],
    path: Path,
    *,
    others: Sequence[tuple[str, float, float]] = (),
    chosen: str = "",
    queue_seconds: float | None = None,
    budget: float | None = None,
) -> None:
    """Draw the cost-latency frontier, (label, p99 wait in s, $/h) per config, and what else was tried.

    Raises:
        NoPictures: as `picture`.
    """
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(10.5, 5.5))
    axes.plot(
        [cost for _, _, cost in others], [wait for _, wait, _ in others], "o", color="#bbbbbb", ms=5,
        label="dearer or slower than another",
    )  # fmt: skip
    axes.plot(
        [cost for _, _, cost in points], [wait for _, wait, _ in points], "o-", color=_HOT, label="frontier"
    )
    if queue_seconds is not None:
        axes.axhline(queue_seconds, color="grey", ls="--", lw=0.9, label=f"wanted: {queue_seconds:g} s")
    if budget is not None:
        axes.axvline(budget, color="grey", ls=":", lw=1.2, label=rf"budget: \${budget:g}/h")
    # numbers at the points, names beside the picture, because labels of near points would overlap
    named = [*points, *(each for each in others if each[0] in {"as asked", chosen})]
    for number, (label, wait, cost) in enumerate(named, start=1):
        above = 7 if number % 2 else -15
        axes.annotate(
            str(number), (cost, wait), textcoords="offset points", xytext=(0, above), fontsize=9, ha="center"
        )
        bold = "bold" if label == chosen else "normal"
        text = rf"{number}  {label}: \${cost:.3f}/h, {wait:.1f} s"
        axes.text(
            1.02, 0.97 - 0.055 * number, text, transform=axes.transAxes, fontsize=8.5, weight=bold, va="top"
        )
        if label == chosen:
            axes.plot([cost], [wait], "o", ms=13, mfc="none", mec=_LOAD, label="suggested")
    axes.set_xlabel(r"cost, \$/h")
    axes.set_ylabel("wait of the slowest 1 % (99th percentile), s")
    axes.set_yscale("symlog", linthresh=1.0)
    most = max([1.0, *(wait for _, wait, _ in (*points, *others)), queue_seconds or 0.0])
    axes.set_yticks([tick for tick in _WAIT_TICKS if tick <= most * 1.3])
    axes.set_ylim(0, most * 1.3)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.margins(x=0.08)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8.5, loc="lower left", bbox_to_anchor=(1.0, 0.0))
    axes.set_title("What waiting less costs", fontsize=11)
    _save(pyplot, figure, path)


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """One setting of a scaler. The errors are half of a confidence interval, NaN if there is none."""

    scaler: str
    dollars: float
    """Per 1,000 requests."""
    dollars_error: float
    late: float
    """Share that waits longer than 10 s."""
    late_error: float
    p99: float
    """Wait, s."""


def fronts_picture(points: Sequence[Point], path: Path, *, title: str, ours: str) -> None:
    """Draws share late and p99 wait over dollars: a line for `ours`, dots for the others.

    Raises:
        NoPictures: as `picture`.
    """
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.6))
    for scaler in dict.fromkeys(each.scaler for each in points):
        mine = sorted(each for each in points if each.scaler == scaler)
        look = {"marker": "o", "lw": 1.6, "color": _LOAD} if scaler == ours else {"marker": "x", "lw": 0}
        look |= {"elinewidth": 0.7, "label": scaler}
        dollars, errors = [each.dollars for each in mine], [each.dollars_error for each in mine]
        late, late_errors = [max(each.late, 1e-4) for each in mine], [each.late_error for each in mine]
        axes[0].errorbar(dollars, late, xerr=errors, yerr=late_errors, **look)
        axes[1].errorbar(dollars, [min(max(each.p99, 0.1), 3600.0) for each in mine], xerr=errors, **look)
    axes[0].set_ylabel("share that waits longer than 10 s")
    axes[1].set_ylabel("p99 wait, s")
    for each in axes:
        each.set_xscale("log")
        each.set_yscale("log")
        each.set_xlabel(r"\$ per 1,000 requests")
        each.grid(alpha=0.25)
    axes[1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.suptitle(title, fontsize=11)
    _save(pyplot, figure, path)


def _smooth(values: Sequence[float]) -> list[float]:
    """Moving average."""
    half = _SMOOTH_SAMPLES // 2
    parts = [values[max(0, number - half) : number + half + 1] for number in range(len(values))]
    return [sum(part) / len(part) for part in parts]


def _save(pyplot: Any, figure: Any, path: Path) -> None:
    """Writes to a temporary file first, so that an interruption leaves no partial picture."""
    part = path.with_name(f".{path.name}.part")
    try:
        figure.tight_layout()
        figure.savefig(part, dpi=110, format=path.suffix.lstrip(".") or "png")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
        pyplot.close(figure)


def _pyplot() -> Any:
    try:
        import matplotlib as mpl  # noqa: PLC0415 - pictures are optional

        mpl.use("Agg")
        from matplotlib import pyplot as plt  # noqa: PLC0415 - after the backend was chosen
    except ImportError as fault:
        raise NoPictures(
            "pictures need matplotlib: pip install matplotlib, or leave the pictures out"
        ) from fault
    return plt
