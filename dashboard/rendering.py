"""Templates, and the parts of pages that are sent again while a page is open."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

import stoker
from dashboard import text
from dashboard.charts import Marker, Series, chart, spark
from dashboard.sampler import Details
from dashboard.samples import Sample
from stoker.up.progress import PHASES
from stoker_wire.states import WorkerState

WORKERS_SHOWN = 100
DECISIONS_SHOWN = 60
MARKERS_SHOWN = 60
RANGES = {"3m": 180.0, "10m": 600.0, "1h": 3600.0, "6h": 21_600.0, "24h": 86_400.0}

_LAUNCH_ID = re.compile(r"[0-9a-f]{12}")
_FOLDER = Path(__file__).parent / "templates"

HEALTH = {
    "ok": "requests are served within the target queue time",
    "idle": "no hot worker and no request: the first request wakes a worker",
    "waiting": "requests wait and no worker can take them yet",
    "late": "the expected queue time is over the target",
    "degraded": "a worker has an error or does not answer",
    "stopped": "stopped by its owner",
    "deleting": "being deleted",
    "stuck": "its workflow makes no progress",
}

_LOAD = (
    Series("load", "load", lambda sample: sample.load, area=True),
    Series("hot", "hot", lambda sample: sample.capacity_hot),
    Series("hot + booting", "booting", lambda sample: sample.capacity_hot + sample.capacity_booting),
    Series(
        "+ cold",
        "cold",
        lambda sample: sample.capacity_hot + sample.capacity_booting + sample.capacity_cold,
    ),
)
_WORKERS = (
    Series("hot", "hot", lambda sample: sample.hot, area=True),
    Series("booting", "booting", lambda sample: sample.booting, area=True),
    Series("cold", "cold", lambda sample: sample.cold, area=True),
    Series("error", "error", lambda sample: sample.failed, area=True),
)
_WAIT = (
    Series("p99", "late", lambda sample: sample.wait_p99),
    Series("p50", "load", lambda sample: sample.wait_p50),
    Series("oldest waiting", "cold", lambda sample: sample.queue_oldest),
)
_DOLLARS = (
    Series("ready", "hot", lambda sample: sample.dollars_hot, area=True),
    Series("booting", "booting", lambda sample: sample.dollars_booting, area=True),
)

_STATES = {
    WorkerState.READY: "hot",
    WorkerState.INACTIVE: "cold",
    WorkerState.ERROR: "error",
    WorkerState.DESTROYING: "cold",
    WorkerState.STOPPING: "cold",
}


@dataclass(frozen=True, slots=True)
class Row:
    """An endpoint in the list."""

    figures: dict[str, Any]
    sample: Sample | None
    spark: object


def state_style(status: str) -> str:
    """The style class of a worker's status."""
    try:
        return _STATES.get(WorkerState(status), "booting")
    except ValueError:
        return "cold"


def environment() -> jinja2.Environment:
    """The template environment: every value is escaped, and a missing one is an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=text.shown,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        "number": text.number,
        "duration": text.duration,
        "dollars": text.dollars,
        "clock": text.clock,
        "state_style": state_style,
    }
    made.globals |= {"health_words": HEALTH, "phases": PHASES}
    return made


def rows(overview: dict[int, dict[str, Any]], windows: dict[int, list[Sample]], now: float) -> list[Row]:
    """The rows of the list, worst health first, then by name."""
    order = {name: rank for rank, name in enumerate(reversed(HEALTH))}
    found = [
        Row(
            figures,
            windows[number][-1] if windows.get(number) else None,
            spark(windows.get(number, []), lambda sample: sample.load, start=now - 3600, end=now),
        )
        for number, figures in overview.items()
    ]
    bad = {"stuck", "waiting", "late", "degraded"}
    return sorted(
        found,
        key=lambda row: (
            row.figures["health"] not in bad,
            order.get(row.figures["health"], 0) if row.figures["health"] in bad else 0,
            row.figures["name"],
        ),
    )


def charts(
    samples: list[Sample], decisions: list[dict[str, Any]], *, start: float, end: float
) -> dict[str, object]:
    """The four charts of an endpoint; decisions are marked on the first."""
    markers = [
        Marker(
            line["at"],
            f"{text.clock(line['at'])}: {line['kind']} {line.get('subject') or ''}: {line.get('reason') or ''}",
            f"decision-{line['number']}",
            style=line["kind"] if line["kind"] in {"fail", "wait", "config"} else "decision",
        )
        for line in decisions
        if line["at"] >= start
    ][:MARKERS_SHOWN]
    return {
        "load": chart("Load and capacity", "load/s", samples, _LOAD, start=start, end=end, markers=markers),
        "workers": chart("Workers", "workers", samples, _WORKERS, start=start, end=end, stacked=True),
        "wait": chart("Queue time", "s", samples, _WAIT, start=start, end=end),
        "dollars": chart("GPU cost", "$/h", samples, _DOLLARS, start=start, end=end, stacked=True),
    }


def numbered(decisions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Decisions with a number that stays the same between readings: the time in milliseconds and a counter."""
    seen: dict[int, int] = {}
    found = []
    for line in reversed(decisions):
        at = int(line["at"] * 1000)
        seen[at] = seen.get(at, 0) + 1
        each = {"subject": "", "reason": "", "numbers": {}, **line, "number": f"{at}-{seen[at]}"}
        found.append(each | {"is_worker": _LAUNCH_ID.fullmatch(str(each["subject"])) is not None})
    return found[::-1]


def worker_row(record: stoker.WorkerRecord) -> dict[str, Any]:
    """One worker. A field that an engine of another version does not send is empty."""
    return (
        {"held": False, "gpus": [], "boot": [], "phase": "", "error_msg": ""}
        | record.model_dump()
        | {"style": state_style(record.status)}
    )


def boot_rows(phases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The phases of a boot that took time, in words, and its end."""
    found = []
    for place, phase in enumerate(phases):
        is_last = place == len(phases) - 1
        if phase["seconds"] < 0.05 and not is_last:
            continue
        style = {"idle": "hot", "error": "error"}.get(phase["phase"], "booting")
        text = PHASES.get(phase["phase"], phase["phase"])
        found.append(
            {"text": text, "style": style, "seconds": phase["seconds"], "is_end": style != "booting"}
        )
    return found


def worker_rows(details: Details, everything: bool) -> list[dict[str, Any]]:
    """The workers: hot first, then booting, then the others; without `everything` only the first ones."""
    places = {"error": 0, "hot": 1, "booting": 2, "cold": 3}
    found = [worker_row(record) for record in details.workers]
    found.sort(key=lambda row: (places[row["style"]], row["id"]))
    return found if everything else found[:WORKERS_SHOWN]
