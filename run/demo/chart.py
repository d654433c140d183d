"""The demo's chart: load and capacity, workers, and queue time over time."""

from pathlib import Path

import matplotlib as mpl

from run.demo.samples import Record

mpl.use("Agg")  # before pyplot: no display is needed

import matplotlib.pyplot as plt

_COLOURS = {"hot": "#d1495b", "booting": "#edae49", "draining": "#8d96a3", "cold": "#66a5ad"}


def draw(record: Record, path: Path, *, title: str) -> None:
    """Write the chart as PNG or SVG, depending on the path's suffix."""
    samples = record.samples
    clock = [sample.at_s for sample in samples]
    figure, (load, workers, queue) = plt.subplots(
        3, 1, figsize=(11, 8), sharex=True, height_ratios=(3, 2, 2), layout="constrained"
    )
    figure.suptitle(title)
    load.fill_between(clock, [sample.load for sample in samples], color="#30638e", alpha=0.35, label="load")
    load.step(
        clock, [sample.capacity for sample in samples], where="post", color="#d1495b", label="hot capacity"
    )
    load.set_ylabel("tokens/s")
    load.legend(loc="center left")
    series = {
        "hot": [sample.hot for sample in samples],
        "draining": [sample.draining for sample in samples],
        "booting": [sample.booting for sample in samples],
        "cold": [sample.cold for sample in samples],
    }
    workers.stackplot(
        clock, *series.values(), labels=series.keys(), colors=[_COLOURS[name] for name in series], step="post"
    )
    workers.set_ylabel("workers")
    workers.set_ylim(
        top=max(sample.hot + sample.booting + sample.cold + sample.draining for sample in samples) * 1.35
    )
    workers.legend(loc="upper left", ncols=4)
    queue.plot(clock, [sample.queue_s for sample in samples], color="#003d5b", label="longest wait now")
    queue.scatter(
        [served.sent_s for served in record.served],
        [served.waited_s + served.queued_s for served in record.served],
        s=4,
        color="#00798c",
        alpha=0.5,
        label="queue time of each request",
    )
    queue.set_ylabel("queue time, s")
    queue.set_xlabel("time, s")
    queue.legend(loc="upper right")
    for at, phase in record.phases:
        for axis in (load, workers, queue):
            axis.axvline(at, color="black", alpha=0.25, linewidth=0.8)
        load.annotate(
            phase, (at, 1), xycoords=("data", "axes fraction"), fontsize=7, rotation=20, va="bottom"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)
