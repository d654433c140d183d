"""When advice is logged, and which plan's advice is kept."""

from dataclasses import replace

from controller.state import EndpointStateBook
from controller.whatif.advice import Advice, Difference
from controller.whatif.lifecycle import (
    DIFFERENCES_SECONDS,
    FIRST_SUMMARY_SECONDS,
    SUMMARY_SECONDS,
    adopt,
    advise,
)
from stoker_wire.control import Advise
from stoker_wire.endpoint import EndpointPatch
from tests.controller.book import a_book, reasons
from tests.policy.builders import NOW, worker

THRIFTY = Advise(config=EndpointPatch(target_util=0.5, error_budget=0.02))
DRAIN = Difference(side="advised", op="drain", subject="w1", reason="not needed")


def advised_book() -> tuple[EndpointStateBook, Advice]:
    book = a_book(worker("w1"))
    assert advise(book, THRIFTY, NOW) == "advice was asked for"
    assert book.record.advice is not None
    return book, book.record.advice


def test_advice_is_logged_when_it_begins_and_when_it_ends():
    book, advice = advised_book()
    assert advice.since == advice.summed_up_at == NOW
    assert reasons(book) == [
        "advised beside the live config, nothing of it is carried out: target_util = 0.5, error_budget = 0.02"
    ]
    assert advise(book, None, NOW + 5) == ""
    assert book.record.advice is None
    assert reasons(book)[-1].startswith(
        "advice ends; advised (target_util = 0.5, error_budget = 0.02): nothing to"
    )
    assert advise(book, None, NOW + 6) == ""
    assert len(reasons(book)) == 2, "nothing more ends"


def test_the_planners_advice_is_kept_only_if_it_is_the_one_that_was_asked_for():
    book, advice = advised_book()
    adopt(book, None, NOW + 1)
    assert book.record.advice is advice
    for other in (
        replace(advice, since=NOW + 1),
        replace(advice, patch=EndpointPatch(target_util=0.6)),
    ):
        adopt(book, other, NOW + 1)
        assert book.record.advice is advice
    book.record.advice = None
    adopt(book, advice, NOW + 1)
    assert book.record.advice is None, "it has ended meanwhile"


def test_differences_are_logged_once_a_minute_and_only_if_they_changed():
    book, advice = advised_book()
    adopt(book, replace(advice, differences=(DRAIN,)), NOW + 10)
    assert reasons(book)[1:] == ["advised only: drain w1 (not needed)"]
    again = book.record.advice
    adopt(book, again, NOW + 10 + DIFFERENCES_SECONDS)
    adopt(book, replace(again, differences=()), NOW + 9 + DIFFERENCES_SECONDS)
    assert len(reasons(book)) == 2
    adopt(book, replace(again, differences=()), NOW + 10 + DIFFERENCES_SECONDS)
    assert reasons(book)[2:] == ["no step differs now"]


def test_a_summary_is_logged_after_ten_minutes_and_then_every_hour():
    book, advice = advised_book()
    book.record.advice = replace(advice, logged="no step differs now")
    at, logged = NOW, []
    for second in range(0, 3 * 3600, 60):
        before = len(book.log.lines), book.log.lines[-1].at
        adopt(book, book.record.advice, at + second)
        if (len(book.log.lines), book.log.lines[-1].at) != before:
            logged.append(second)
    first = FIRST_SUMMARY_SECONDS
    assert logged == [first, first + SUMMARY_SECONDS, first + 2 * SUMMARY_SECONDS]
