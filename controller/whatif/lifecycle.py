"""Advice on a live endpoint: begun, ended, and told. Nothing of it is ever carried out: no operation comes from here."""

from dataclasses import replace

from controller.state import EndpointStateBook
from controller.whatif.advice import Advice, begin, differences_in_words, said, summary
from stoker_wire.control import Advise

FIRST_SUMMARY_SECONDS = 600.0
SUMMARY_SECONDS = 3600.0
DIFFERENCES_SECONDS = 60.0
"""A burst changes the steps with every plan; the query and the UI always show the last ones."""


def advise(book: EndpointStateBook, asked: Advise | None, now: float) -> str:
    """Begins advice, or ends it. Answers why a plan is due, or nothing."""
    record = book.record
    if asked is None:
        if record.advice is not None:
            book.log.note(now, "advise", f"advice ends; {summary(record.advice)}")
            record.advice = None
        return ""
    seen = book.observation(now)
    record.advice = begin(seen, asked.config, asked.tuning, dollars=record.ledger.dollars)
    book.log.note(
        now, "advise", f"advised beside the live config, nothing of it is carried out: {said(record.advice)}"
    )
    return "advice was asked for"


def adopt(book: EndpointStateBook, advised: Advice | None, now: float) -> None:
    """Keeps what the planner made of the advice, unless another was asked for meanwhile, and tells what is new."""
    before = book.record.advice
    if advised is None or before is None or not _same(before, advised):
        return
    words = differences_in_words(advised)
    if words != advised.told and now - advised.told_at >= DIFFERENCES_SECONDS:
        first = f" ({advised.differences[0].reason})" if advised.differences else ""
        book.log.note(now, "advise", f"{words}{first}", level=1)
        advised = replace(advised, told=words, told_at=now)
    first_due = advised.summed_up_at == advised.since
    if now - advised.summed_up_at >= (FIRST_SUMMARY_SECONDS if first_due else SUMMARY_SECONDS):
        book.log.note(now, "advise", summary(advised))
        advised = replace(advised, summed_up_at=now)
    book.record.advice = advised


def _same(one: Advice, other: Advice) -> bool:
    return (one.since, one.patch, one.tuning) == (other.since, other.patch, other.tuning)
