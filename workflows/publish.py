"""Publishes an endpoint's state: the memo for engines, search attributes for lists, Markdown for the Temporal UI.

Memo and search attributes are history events, so they are written only when they change. The details cost no event.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeKey, SearchAttributeUpdate

from controller.key_events import engines_sharing, memo_keys
from controller.query_results import endpoint_state
from controller.state import EndpointStateBook
from controller.whatif.advice import summary
from policy.amounts import amount
from policy.state.worker import Worker
from stoker_wire.control import WorkerAction
from stoker_wire.messages import MEMO_KEY, EndpointMemo, Member
from stoker_wire.parsing.limits import excerpt
from stoker_wire.states import WorkerState
from workflows.markdown import literal

ENDPOINT_NAME = SearchAttributeKey.for_keyword("EndpointName")
ENDPOINT_ID = SearchAttributeKey.for_int("EndpointId")
ENDPOINT_STATE = SearchAttributeKey.for_keyword("EndpointState")
READY_WORKERS = SearchAttributeKey.for_int("ReadyWorkers")
TOTAL_WORKERS = SearchAttributeKey.for_int("TotalWorkers")
DOLLARS_PER_HOUR = SearchAttributeKey.for_float("DollarsPerHour")
FLEET_CHANGED_AT = SearchAttributeKey.for_datetime("FleetChangedAt")

_MEMO_ERROR_BYTES = 80
_MEMO_REASON_BYTES = 400
_ROWS_MAX = 40
_NOTE_BYTES = 120
_LINES_SHOWN = 12
_SIGNIFICANT = 3
"""Digits of perf in the memo: a jitter of a thousandth is no news to a router."""


class Publisher:
    """Publishes what changed, and nothing else."""

    def __init__(self, book: EndpointStateBook) -> None:
        self._book = book
        self._attributes: dict[str, Any] = {}

    @property
    def memo(self) -> dict[str, Any]:
        """The memo as published."""
        return {MEMO_KEY: (self._book.record.memo or {}) | {"changed_at": self._book.record.changed_at}}

    def publish(self, now: float) -> None:
        """Memo and search attributes if they changed, the details always."""
        record = self._book.record
        memo = memo_of(self._book)
        if memo != record.memo:
            record.memo, record.changed_at = memo, now
            workflow.upsert_memo(self.memo)
        changed = [update for update in search_attributes_of(self._book) if self._is_news(update)]
        if changed:
            workflow.upsert_search_attributes(changed)
        workflow.set_current_details(details_of(self._book, now))

    def _is_news(self, update: SearchAttributeUpdate[Any]) -> bool:
        known = self._attributes.get(update.key.name)
        self._attributes[update.key.name] = update.value
        return known != update.value


def memo_of(book: EndpointStateBook) -> dict[str, Any]:
    """The memo as JSON; `changed_at` is left for the publisher."""
    record = book.record
    wait = record.waits[0] if record.waits else None
    memo = EndpointMemo(
        id=book.id,
        name=book.name,
        owner=book.owner,
        config=record.config.model_dump(mode="json", exclude_defaults=True),
        groups=tuple(group.id for group in record.workergroups),
        members=tuple(_member(book, worker) for worker in record.workers.values()),
        key_version=record.key_version,
        key_overlap_until=record.key_overlap_until,
        created_at=book.created_at,
        deleting=record.deleting,
        wait_code=wait.code if wait else "",
        wait_reason=excerpt(wait.reason, _MEMO_REASON_BYTES) if wait else "",
        wait_until=round(wait.until) if wait and wait.until is not None else None,
        b=record.request_breaks,
        keys=memo_keys(record),
        engines=engines_sharing(record),
        bills=float(f"{record.ledger.notable_difference:.2g}"),
    )
    return memo.model_dump(mode="json", exclude_defaults=True)


def search_attributes_of(book: EndpointStateBook) -> list[SearchAttributeUpdate[Any]]:
    """Every search attribute of `stoker_wire.messages.SEARCH_ATTRIBUTES`."""
    workers = list(book.record.workers.values())
    return [
        ENDPOINT_NAME.value_set(book.name),
        ENDPOINT_ID.value_set(book.id),
        ENDPOINT_STATE.value_set(endpoint_state(book)),
        READY_WORKERS.value_set(sum(worker.state is WorkerState.READY for worker in workers)),
        TOTAL_WORKERS.value_set(len(workers)),
        DOLLARS_PER_HOUR.value_set(round(float(book.burn_dollars_per_hour()), 4)),
        FLEET_CHANGED_AT.value_set(datetime.fromtimestamp(book.record.changed_at, UTC)),
    ]


def details_of(book: EndpointStateBook, now: float) -> str:
    """The workflow's current details, in Markdown: workers, targets and recent decisions."""
    record = book.record
    advice, workers = record.advice, list(record.workers.values())
    parts = [
        f"# {book.name} is {endpoint_state(book)}",
        _counts(workers)
        + f" · **${book.burn_dollars_per_hour():.2f}/h** now · ${record.ledger.dollars:.2f} so far",
        "## Load and capacity",
        _capacity(book),
        "## Fleet",
        _fleet(workers, now),
        *(() if advice is None else ("## Advice (nothing of it is carried out)", literal(summary(advice)))),
        "## Last decisions",
        _decisions(book),
    ]
    return "\n\n".join(parts)


def _member(book: EndpointStateBook, worker: Worker) -> Member:
    group = book.workergroup(worker.workergroup_id)
    ready = worker.state is WorkerState.READY
    return Member(
        l=worker.launch_id,
        i=worker.instance_id or 0,
        g=worker.workergroup_id,
        s=worker.state,
        d=worker.drain is not None,
        p=float(f"{worker.perf:.{_SIGNIFICANT}g}"),
        u=worker.url if ready else "",
        c=round(worker.dollars_per_hour, 4),
        k=worker.kind,
        t=round(worker.since, 1),
        n=int(group is not None and worker.revision < group.revision),
        e=excerpt(worker.error, _MEMO_ERROR_BYTES),
        o=int(worker.official),
        h=int(worker.asked is WorkerAction.DRAIN),
        a=worker.address,
    )


def _counts(workers: Iterable[Worker]) -> str:
    counted: dict[str, int] = {}
    for worker in workers:
        word = "DRAINING" if worker.drain is not None else worker.state.printed
        counted[word] = counted.get(word, 0) + 1
    if not counted:
        return "no workers"
    return " · ".join(f"{count} {word}" for word, count in sorted(counted.items()))


_BLANK = "&#160;"
"""One that does not break; the UI shows `&nbsp;` as it is written."""
_GAP = _BLANK * 2
"""The UI sets table cells without any space between them."""


def _capacity(book: EndpointStateBook) -> str:
    targets, load = book.record.targets, book.record.load
    rows = [
        ("predicted load", f"{amount(targets.predicted_load)} load/s"),
        ("hot capacity wanted", f"{amount(targets.hot_wanted)} load/s"),
        (
            "hot capacity ready / booting",
            f"{amount(targets.hot_ready)} / {amount(targets.hot_booting)} load/s",
        ),
        (
            "total capacity wanted / there",
            f"{amount(targets.total_wanted)} / {amount(targets.total_have)} load/s",
        ),
        ("waiting", f"{load.backlog_requests} requests, {amount(load.backlog_load)} load"),
        ("expected queue time", f"{targets.queue_seconds:.1f} s"),
    ]
    lines = ["| what | how much |", "|---|---|", *(f"| {what}{_GAP} | {much} |" for what, much in rows)]
    if targets.reason:
        lines += ["", literal(targets.reason)]
    lines += [f"- waits for {literal(wait.subject)}: {literal(wait.reason)}" for wait in book.record.waits]
    return "\n".join(lines)


def _fleet(workers: list[Worker], now: float) -> str:
    if not workers:
        return "nothing rented"
    lines = [
        "| worker | instance | kind | state | for | perf | load | in flight | $/h | note |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for worker in workers[:_ROWS_MAX]:
        note = worker.error or (f"drains: {worker.drain.reason}" if worker.drain else worker.operation)
        cells = (
            worker.launch_id,
            str(worker.instance_id or "-"),
            literal(worker.kind).replace(" ", _BLANK),
            worker.state.printed,
            _span(now - worker.since).replace(" ", _BLANK),
            f"{amount(worker.perf)}",
            f"{amount(worker.load)}",
            str(worker.in_flight),
            f"{worker.burn_dollars_per_hour:.3f}",
            literal(excerpt(note, _NOTE_BYTES)),
        )
        lines.append("| " + f"{_GAP} | ".join(cells) + " |")
    if len(workers) > _ROWS_MAX:
        lines.append(f"\nand {len(workers) - _ROWS_MAX} more")
    return "\n".join(lines)


def _decisions(book: EndpointStateBook) -> str:
    lines = [
        f"- {datetime.fromtimestamp(line.at, UTC):%m-%d %H:%M:%S} **{line.kind}**"
        f" {literal(line.subject)} {literal(line.reason)}"
        for line in reversed(book.log.tail(_LINES_SHOWN, level_max=1))
    ]
    return "\n".join(lines) or "none yet"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
