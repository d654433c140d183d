"""Pictures of a run: load, capacity by standing, the queue's wait, dollars. matplotlib is loaded when one is drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simulation.figures import Figures


class NoPictures(RuntimeError):
    """matplotlib is not installed."""


def picture(figures: Figures, path: Path) -> None:
    """Draw one run to a PNG or SVG.

    Raises:
        NoPictures: matplotlib is missing; the message says how to get it.
    """
    pyplot = _pyplot()
    samples = figures.samples
    hours = [at / 3600.0 for at in samples.at]
    figure, (load, capacity, wait, money) = pyplot.subplots(4, 1, figsize=(11, 10), sharex=True)
    load.fill_between(hours, samples.load, step="pre", alpha=0.6, color="#4c72b0")
    load.set_ylabel("load/s")
    capacity.stackplot(
        hours, samples.ready, samples.booting, samples.cold, step="pre",
        labels=("hot", "booting", "cold"), colors=("#c44e52", "#dd8452", "#8ca9d3"),
    )  # fmt: skip
    capacity.set_ylabel("workers")
    capacity.legend(loc="upper left", ncols=3, frameon=False)
    wait.plot(hours, samples.wait_seconds, color="#55a868", lw=0.9)
    wait.axhline(10.0, color="grey", lw=0.7, ls="--")
    wait.set_ylabel("longest wait, s")
    money.plot(hours, samples.dollars, color="#8172b3")
    money.set_ylabel("dollars")
    money.set_xlabel("hours")
    load.set_title(
        f"{figures.scaler} on {figures.trace}: {figures.within_10:.2%} within 10 s, ${figures.dollars:.2f},"
        f" {figures.utilisation:.0%} of hot time busy"
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def frontier_picture(points: Sequence[tuple[str, float, float]], path: Path) -> None:
    """Draw the cost-latency frontier, (label, p99 wait in s, $/h) per config.

    Raises:
        NoPictures: as `picture`.
    """
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(8, 5))
    axes.plot([cost for _, _, cost in points], [wait for _, wait, _ in points], "o-", color="#c44e52")
    for label, wait, cost in points:
        axes.annotate(label, (cost, wait), textcoords="offset points", xytext=(6, 4), fontsize=8)
    axes.set_xlabel("$/h")
    axes.set_ylabel("p99 wait, s")
    axes.set_yscale("symlog", linthresh=1.0)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
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
