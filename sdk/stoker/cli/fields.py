"""Shows the engine's JSON objects as readable fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stoker.cli.output import cell, format_number, format_seconds, format_time
from stoker.management.records import WorkerRecord

PARAMETER_UNITS: Mapping[str, str] = {
    "min_load": "load/s",
    "min_cold_load": "load/s",
    "inactivity_timeout": "s",
    "max_queue_time": "s",
    "target_queue_time": "s",
    "drain_seconds_max": "s",
    "silence_seconds_max": "s",
    "affinity_prefix_bytes": "bytes",
    "dollars_per_hour_max": "$/h",
    "auto_delete_in_seconds": "s",
}

QUEUE_SECONDS_WITHOUT_CAPACITY = 1e6

DECISION_COLUMNS = ("at (UTC)", "decision", "subject", "reason")
WORKER_COLUMNS = ("id", "state", "gpu", "in flight", "requests", "perf", "$/h", "url")


def describe(value: Any, name: str = "") -> str:
    """One value as text. The field's name tells times (`…_at`, `until`, `since`) and durations (`…_seconds`)."""
    if value is None or value in ("", [], {}, ()):
        return "-"
    if name.endswith("_at") or name in {"until", "since", "at"}:
        return format_time(value) + " UTC" if format_time(value) != "-" else "-"
    if name.endswith(("_seconds", "_s")):
        return format_seconds(value)
    if isinstance(value, Mapping):
        reason, until = value.get("reason"), value.get("until")
        if isinstance(reason, str):
            return reason + (f" (until {describe(until, 'until')})" if until else "")
        return ", ".join(f"{key} {describe(inner, str(key))}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(describe(inner) for inner in value)
    return cell(value)


def parameter_rows(record: Mapping[str, Any]) -> list[list[str]]:
    """Name and value of an endpoint's or a workergroup's fields, with units."""
    rows = []
    for name, value in record.items():
        if name == "broken" and not value:
            continue
        unit = PARAMETER_UNITS.get(name)
        if unit and isinstance(value, int | float) and not isinstance(value, bool):
            rows.append([name, f"{format_number(value)} {unit}"])
        else:
            rows.append([name, describe(value, name)])
    return rows


def status_rows(status: Mapping[str, Any]) -> list[list[str]]:
    """Name and value of an endpoint's status. The config is left out: it is shown as the endpoint's parameters."""
    targets = mapping(status.get("targets"))
    known: dict[str, Any] = {
        "state": status.get("state"),
        "load": _amount(status.get("load_per_second"), "load/s"),
        "hot capacity": _amount(targets.get("hot_ready"), "load/s"),
        "hot capacity wanted": _amount(targets.get("hot_wanted"), "load/s"),
        "expected queue": queue_time(targets.get("queue_seconds")),
        "queued": _queued(status),
        "workers": worker_counts(status),
        "cost now": _amount(status.get("dollars_per_hour"), "$/h"),
        "spent": _amount(status.get("dollars"), "$"),
    }
    rows = [[name, cell(value)] for name, value in known.items()]
    if kept_for := targets.get("kept_for"):
        rows.append(["kept hot for", f"{kept_for}, {_amount(targets.get('hot_kept'), 'load/s')}"])
    rows += [["waiting", describe(wait)] for wait in objects(status.get("waits"))]
    shown = {
        "success", "name", "id", "created_at", "config", "state", "targets", "workers", "waits", "load_per_second",
        "queued_load", "queued_requests", "dollars_per_hour", "dollars",
    }  # fmt: skip
    for name, value in status.items():
        if name not in shown:
            rows += _nested_rows(name, value)
    return rows


def _nested_rows(name: str, value: Any) -> list[list[str]]:
    """One row; of an object with lists of objects, one row per inner object."""
    lists = {inner: objects(each) for inner, each in mapping(value).items()}
    if not any(lists.values()):
        return [[name, describe(value, name)]]
    rows = [[f"{name}, {inner}", describe(each)] for inner, found in lists.items() for each in found]
    return rows + [
        [f"{name}, {inner}", describe(each, str(inner))]
        for inner, each in mapping(value).items()
        if not isinstance(each, list)
    ]


def queue_time(seconds: Any) -> str:
    """The expected queue time; the policy's maximum stands for load without any capacity."""
    if isinstance(seconds, int | float) and seconds >= QUEUE_SECONDS_WITHOUT_CAPACITY:
        return "no capacity"
    return format_seconds(seconds)


def _queued(status: Mapping[str, Any]) -> str:
    requests, load = status.get("queued_requests"), status.get("queued_load")
    text = "-" if requests is None else f"{cell(requests)} requests"
    return text if load is None else f"{text}, {cell(load)} load"


def _amount(value: Any, unit: str) -> str | None:
    return f"{cell(value)} {unit}" if isinstance(value, int | float) else None


def worker_counts(status: Mapping[str, Any]) -> str:
    """How many workers are in which state, e.g. `2 idle, 1 stopped`."""
    counts = mapping(status.get("workers"))
    return ", ".join(f"{cell(number)} {state_name(state)}" for state, number in counts.items()) or "none"


def state_name(state: Any) -> str:
    """A worker's state as text: `model loading` for MODEL_LOADING."""
    return str(state).lower().replace("_", " ")


def worker_state(worker: WorkerRecord) -> str:
    """The worker's state as an operator needs it: draining, suspect and busy are shown instead of idle."""
    extra = worker.model_extra or {}
    notes = [name for name in ("draining", "held", "suspect") if extra.get(name) is True]
    if extra.get("update_pending") is True:
        notes.append("update pending")
    busy = worker.status == "idle" and (worker.reqs_working > 0 or load_in_flight(worker) > 0)
    state = "busy" if busy else state_name(worker.status)
    if notes and state in {"idle", "busy"}:
        return ", ".join(notes)
    return ", ".join([state, *notes])


def load_in_flight(worker: WorkerRecord) -> float:
    """Load of the requests that the worker has now: by the engine's count, else by its own report."""
    counted = (worker.model_extra or {}).get("cur_load_rolling_avg")
    if isinstance(counted, int | float) and not isinstance(counted, bool):
        return max(float(counted), worker.cur_load)
    return worker.cur_load


def worker_rows(workers: Sequence[WorkerRecord]) -> list[list[Any]]:
    """One row per worker, in the order of WORKER_COLUMNS."""
    return [
        [
            worker.id,
            worker_state(worker),
            worker.gpu_name,
            load_in_flight(worker),
            worker.reqs_working,
            worker.perf,
            worker.dph_total,
            worker.url,
        ]
        for worker in workers
    ]


def worker_table(workers: Sequence[WorkerRecord]) -> tuple[Sequence[str], list[list[Any]]]:
    """Columns and rows; a worker that failed or boots adds a column with its error or its phase."""
    notes = [_note(worker) for worker in workers]
    if not any(notes):
        return WORKER_COLUMNS, worker_rows(workers)
    rows = [[*row, note] for row, note in zip(worker_rows(workers), notes, strict=True)]
    return (*WORKER_COLUMNS, "note"), rows


def _note(worker: WorkerRecord) -> str:
    extra = worker.model_extra or {}
    return str(extra.get("error_msg") or extra.get("phase") or "")


def decision_rows(decisions: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Time, kind, subject and reason of each decision."""
    return [
        [
            format_time(line.get("at")),
            str(line.get("kind", "")),
            str(line.get("subject", "")),
            str(line.get("reason", "")),
        ]
        for line in decisions
    ]


def mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def objects(value: Any) -> list[Mapping[str, Any]]:
    """The objects of a list; empty for anything else."""
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []
