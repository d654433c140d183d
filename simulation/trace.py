"""Request traces: the arrival time and work of each request."""

import csv
import gzip
import io
import json
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

INPUT_TOKEN_WORK = 0.1
"""An input token counts a tenth: prefill reads tokens in parallel, decoding writes them one by one."""


DISORDER_SECONDS = 60.0
"""Allowed disorder of a CSV, seconds: requests are often recorded at their end. More means two recordings."""


class TraceFault(ValueError):
    """The file is not a trace; the message says what was expected, what was found, and where."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Arrivals in order, seconds from the start, with the work of each in load."""

    name: str
    times: tuple[float, ...] = field(repr=False)
    works: tuple[float, ...] = field(repr=False)
    seconds: float
    """Its length in seconds, at least to the last arrival."""

    @classmethod
    def of(cls, name: str, rows: Iterable[tuple[float, float]], *, seconds: float | None = None) -> Self:
        """A trace of (arrival, work) rows, sorted by arrival and counted from 0."""
        ordered = sorted(rows)
        times = tuple(at for at, _ in ordered)
        last = times[-1] if times else 0.0
        return cls(name, times, tuple(work for _, work in ordered), max(last, seconds or 0.0))

    def __len__(self) -> int:
        return len(self.times)

    @property
    def work(self) -> float:
        """All work, load."""
        return sum(self.works)

    @property
    def mean_load(self) -> float:
        """Mean load/s; over one second if the trace is shorter."""
        return self.work / max(self.seconds, 1.0)

    def scaled(self, *, mean_load: float) -> "Trace":
        """The same arrivals with works scaled to this mean load/s."""
        factor = mean_load / self.mean_load if self.mean_load > 0 else 1.0
        return Trace(self.name, self.times, tuple(work * factor for work in self.works), self.seconds)

    def part(self, start: float, end: float) -> "Trace":
        """Arrivals in start <= t < end (seconds), counted from `start`."""
        first, last = bisect_left(self.times, start), bisect_left(self.times, end)
        times = tuple(at - start for at in self.times[first:last])
        return Trace(self.name, times, self.works[first:last], min(end, self.seconds) - start)


def read_trace(path: Path, endpoint: str | None = None) -> Trace:
    """The trace in a file: CSV (`t_s,input_tokens,output_tokens` or `t_s,work`) or a request log, `.gz` or not.

    A request log is one JSON object per line with `at` (or `arrived_at`) in Unix seconds and `cost`, as an engine
    writes it. Requests that another engine has counted (`again`) are skipped. `endpoint` selects one endpoint of the
    log.

    Raises:
        TraceFault: the file cannot be read as either.
    """
    try:
        raw = path.read_bytes()
    except OSError as fault:
        raise TraceFault(
            f"{path}: cannot be read ({fault.strerror}); give the path of a CSV or JSON-lines file"
        ) from fault
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as fault:
            raise TraceFault(f"{path}: starts like gzip and is not; was it cut off?") from fault
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise TraceFault(
            f"{path}: not UTF-8 text at byte {fault.start}; expected CSV or JSON lines"
        ) from fault
    if not text.strip():
        raise TraceFault(f"{path}: is empty; expected CSV, or a request log with a line per request")
    if text.lstrip().startswith("{"):
        rows = _log_rows(path, text, endpoint)
    elif endpoint is not None:
        raise TraceFault(
            f"{path}: is CSV, not a request log, and names no endpoints; leave out --only {endpoint[:80]}"
        )
    else:
        try:
            rows = _csv_rows(path, csv.DictReader(io.StringIO(text)))
        except csv.Error as fault:
            raise TraceFault(f"{path}: not CSV ({fault}); expected a line per request") from fault
    rows = sorted(rows)
    if not rows:
        raise TraceFault(f"{path}: has no requests; expected a line per request")
    start = rows[0][0] if rows[0][0] > 1e8 else 0.0  # Unix time: counted from the first request
    name = path.name.split(".", 1)[0]
    return Trace.of(name, ((at - start, work) for at, work in rows))


def _csv_rows(path: Path, reader: "csv.DictReader[str]") -> list[tuple[float, float]]:
    fields = set(reader.fieldnames or ())
    work_field = next((name for name in ("work", "cost", "load") if name in fields), None)
    tokens = {"input_tokens", "output_tokens"} <= fields
    if "t_s" not in fields or not (work_field or tokens):
        got = ", ".join(reader.fieldnames or ()) or "nothing"
        raise TraceFault(
            f"{path}: expected the columns t_s,input_tokens,output_tokens (or t_s,work), got {got[:200]}"
        )
    rows: list[tuple[float, float]] = []
    latest = 0.0
    for row in reader:
        try:
            if work_field:
                work = float(row[work_field])
            else:
                work = INPUT_TOKEN_WORK * float(row["input_tokens"]) + float(row["output_tokens"])
            rows.append(_checked(float(row["t_s"]), work))
        except (TypeError, ValueError) as fault:
            raise TraceFault(f"{path}, line {reader.line_num}: {fault}") from fault
        latest = max(latest, rows[-1][0])
        if rows[-1][0] < latest - DISORDER_SECONDS:
            raise TraceFault(
                f"{path}, line {reader.line_num}: t_s goes back from {latest:g} to {rows[-1][0]:g}; expected the requests in"
                f" the order of their arrival (two recordings in one file would be laid over each other)"
            )
    return rows


def _log_rows(path: Path, text: str, endpoint: str | None) -> list[tuple[float, float]]:
    rows = []
    names: set[str] = set()
    for number, entry in _json_lines(path, text):
        name = str(entry.get("endpoint", ""))
        names.add(name)
        if entry.get("again") or (endpoint is not None and name != endpoint):
            continue
        at, cost = entry.get("at", entry.get("arrived_at")), entry.get("cost")
        if at is None or cost is None:
            raise TraceFault(
                f"{path}, line {number}: expected `at` (or `arrived_at`) and `cost`, got {sorted(entry)}"
            )
        try:
            rows.append(_checked(float(at), float(cost)))
        except (TypeError, ValueError, OverflowError) as fault:
            raise TraceFault(f"{path}, line {number}: {fault}") from fault
    there = ", ".join(sorted(names)[:20]) or "none"
    if endpoint is not None and endpoint not in names:
        raise TraceFault(f"{path}: has no request of endpoint {endpoint!r:.80}; it has those of: {there}")
    if endpoint is None and len(names) > 1:
        raise TraceFault(
            f"{path}: has requests of {len(names)} endpoints ({there}); say which with --only NAME"
        )
    return rows


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as fault:
            what = getattr(fault, "msg", None) or str(fault)[:100]
            raise TraceFault(f"{path}, line {number}: expected a JSON object per line ({what})") from fault
        if not isinstance(entry, dict):
            raise TraceFault(f"{path}, line {number}: expected a JSON object, got {type(entry).__name__}")
        yield number, entry


def _checked(at: float, work: float) -> tuple[float, float]:
    if not (0 <= at < 1e12 and 0 <= work < 1e12):
        raise ValueError(f"expected a time and a work of at least 0, got {at:g} and {work:g}")
    return at, work
