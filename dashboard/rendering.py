"""Templates, and the parts of pages that are sent again while a page is open."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

import stoker
from dashboard import text
from dashboard.charts import Chart, Marker, Series, bar, spark
from dashboard.sampler import Details
from dashboard.samples import Sample
from stoker.cli.fields import state_name, worker_state
from stoker.up.progress import PHASES
from stoker_wire.states import WorkerState

WORKERS_SHOWN = 100
REQUESTS_SHOWN = {"recent": 20, "slow": 20, "failed": 50}
RANGES = {"3m": 180.0, "10m": 600.0, "1h": 3600.0, "6h": 21_600.0, "24h": 86_400.0}

_LAUNCH_ID = re.compile(r"[0-9a-f]{12}")
_FOLDER = Path(__file__).parent / "templates"

HEALTH = {
    "ok": "requests are served within the target queue time",
    "idle": "no hot worker and no request: the first request wakes a worker",
    "waiting": "requests wait and no worker can take them yet",
    "late": "the expected queue time is over the target",
    "degraded": "a worker has an error or does not answer, its starts fail, or recruiting has stopped",
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
    Series("failed", "failed", lambda sample: sample.failed, area=True),
)
_WAIT = (
    Series("p99", "late", lambda sample: sample.wait_p99),
    Series("p50", "load", lambda sample: sample.wait_p50),
    Series("oldest waiting", "cold", lambda sample: sample.queue_oldest),
)
_DOLLARS = (
    Series("used", "load", lambda sample: sample.dollars_used, area=True),
    Series("hot, unused", "hot", lambda sample: sample.dollars_hot - sample.dollars_used, area=True),
    Series("booting", "booting", lambda sample: sample.dollars_booting, area=True),
)


@dataclass(frozen=True, slots=True)
class Row:
    """An endpoint in the list."""

    figures: dict[str, Any]
    sample: Sample | None
    spark: object


def state_style(status: str) -> str:
    """The style class of a worker's status."""
    try:
        return WorkerState(status).stage or "cold"
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
        "moment": text.moment,
        "state_name": state_name,
    }
    made.globals |= {"health_words": HEALTH, "phases": PHASES, "empty_sample": Sample(at=0.0)}
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
) -> list[Chart]:
    """The four charts of an endpoint; decisions are marked on the first.

    Args:
        decisions: newest first, with their numbers.
    """
    markers = [
        Marker(
            line["at"],
            f"{text.clock(line['at'])}: {line['kind']} {line['subject']}: {line['reason']}",
            f"decision-{line['number']}",
            style=line["kind"],
        )
        for line in reversed(decisions)
    ]

    def made(title: str, unit: str, series: Sequence[Series], **more: Any) -> Chart:
        return Chart(title=title, unit=unit, samples=samples, series=series, start=start, end=end, **more)

    return [
        made("Load and capacity", "load/s", _LOAD, markers=markers),
        made("Workers", "workers", _WORKERS, stacked=True),
        made("Queue time", "s", _WAIT, written=text.duration),
        made("GPU cost", "$/h", _DOLLARS, stacked=True, written=text.dollars),
    ]


def advice_sentence(advice: dict[str, Any]) -> str:
    """What the tried config would have cost, beside the live one in the same simulation."""
    seconds = advice.get("until", 0.0) - advice.get("since", 0.0)
    live, tried = advice.get("live_imagined") or {}, advice.get("advised") or {}
    now, then = live.get("dollars_per_hour_mean"), tried.get("dollars_per_hour_mean")
    if seconds <= 0 or now is None or then is None:
        return "It has begun and runs a few seconds behind; the comparison appears here."
    less = (
        "the same" if now == then else f"{text.dollars(abs(now - then))}/h {'less' if then < now else 'more'}"
    )
    waits = f"{text.duration(tried.get('wait_seconds_mean'))} instead of {text.duration(live.get('wait_seconds_mean'))}"
    return (
        f"In the last {text.duration(seconds)} this would have cost {text.dollars(then)}/h instead of "
        f"{text.dollars(now)}/h ({less}), with an expected wait of {waits}."
    )


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


def request_lists(requests: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The recent, slow and failed requests, each list with the rows that are shown and the number of all."""
    return {
        name: {"total": len(requests.get(name, [])), "rows": _request_rows(requests.get(name, [])[:most])}
        for name, most in REQUESTS_SHOWN.items()
    }


def _request_rows(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each request with where its time went, as numbers and as a bar; the longest bar is the slowest request."""
    most = max((each["waited_s"] + each["took_s"] for each in found), default=0.0)
    made = []
    for each in found:
        # A worker that does not report the time in the model counts as the model.
        queued = max(0.0, each["took_s"] - each["busy_s"]) if each["busy_s"] else None
        model = each["busy_s"] or each["took_s"]
        parts = {"late": each["waited_s"], "booting": queued or 0.0, "load": model}
        made.append(
            {
                **each,
                "waited": each["waited_s"],
                "queued": queued,
                "model": model,
                "total": each["waited_s"] + each["took_s"],
                "bar": bar(parts, most),
            }
        )
    return made


def worker_row(record: stoker.WorkerRecord) -> dict[str, Any]:
    """One worker. A field that an engine of another version does not send is empty."""
    return (
        {"held": False, "gpus": [], "boot": [], "began_at": None, "phase": "", "error_msg": ""}
        | record.model_dump()
        | {"style": state_style(record.status), "state": worker_state(record)}
    )


def boot_rows(phases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The phases of a boot that took time, in words, and its end."""
    found = []
    for place, phase in enumerate(phases):
        is_last = place == len(phases) - 1
        if phase["seconds"] < 0.05 and not is_last:
            continue
        style = {"idle": "hot", "error": "failed"}.get(phase["phase"], "booting")
        text = PHASES.get(phase["phase"], phase["phase"])
        found.append(
            {"text": text, "style": style, "seconds": phase["seconds"], "is_end": style != "booting"}
        )
    return found


def worker_rows(details: Details, everything: bool) -> list[dict[str, Any]]:
    """The workers: hot first, then booting, then the others; without `everything` only the first ones."""
    places = {"failed": 0, "hot": 1, "booting": 2, "cold": 3}
    found = [worker_row(record) for record in details.workers]
    found.sort(key=lambda row: (places[row["style"]], row["id"]))
    return found if everything else found[:WORKERS_SHOWN]
