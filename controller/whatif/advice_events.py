"""Begins, ends and logs advice on a live endpoint. It orders no operations."""

from dataclasses import replace

from controller.state import EndpointStateBook
from controller.whatif.advice import Advice, begin, said, summary
from stoker_wire.control import Advise

FIRST_SUMMARY_SECONDS = 600.0
SUMMARY_SECONDS = 3600.0


def advise(book: EndpointStateBook, asked: Advise | None, now: float) -> str:
    """Begins or ends advice. Returns why a plan is due; empty: none is."""
    record = book.record
    if asked is None:
        if record.advice is not None:
            book.log.note(now, "advise", f"advice ends; {summary(record.advice)}")
            record.advice = None
        return ""
    seen = book.observation(now)
    record.advice = begin(seen, asked.config, dollars=record.ledger.dollars)
    book.log.note(
        now, "advise", f"advised beside the live config, nothing of it is carried out: {said(record.advice)}"
    )
    return "advice was asked for"


def adopt(book: EndpointStateBook, advised: Advice | None, now: float) -> None:
    """Keeps what the planner made of the advice, unless another was asked for meanwhile, and tells what is new."""
    before = book.record.advice
    if advised is None or before is None or not _same(before, advised):
        return
    first_due = advised.summed_up_at == advised.since
    if now - advised.summed_up_at >= (FIRST_SUMMARY_SECONDS if first_due else SUMMARY_SECONDS):
        book.log.note(now, "advise", summary(advised))
        advised = replace(advised, summed_up_at=now)
    book.record.advice = advised


def _same(one: Advice, other: Advice) -> bool:
    return (one.since, one.patch) == (other.since, other.patch)
