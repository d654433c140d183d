"""When advice is logged, and which plan's advice is kept."""

from dataclasses import replace

from controller.state import EndpointStateBook
from controller.whatif.advice import Advice
from controller.whatif.advice_events import FIRST_SUMMARY_SECONDS, SUMMARY_SECONDS, adopt, advise
from stoker_wire.control import Advise
from stoker_wire.endpoint import EndpointPatch
from tests.controller.state_book import a_book, reasons
from tests.policy.builders import NOW, worker

THRIFTY = Advise(config=EndpointPatch(target_util=0.5, error_budget=0.02))


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


def test_a_summary_is_logged_after_ten_minutes_and_then_every_hour():
    book, _ = advised_book()
    at, logged = NOW, []
    for second in range(0, 3 * 3600, 60):
        before = len(book.log.lines), book.log.lines[-1].at
        adopt(book, book.record.advice, at + second)
        if (len(book.log.lines), book.log.lines[-1].at) != before:
            logged.append(second)
    first = FIRST_SUMMARY_SECONDS
    assert logged == [first, first + SUMMARY_SECONDS, first + 2 * SUMMARY_SECONDS]
