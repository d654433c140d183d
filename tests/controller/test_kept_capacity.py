"""The decision log says for what capacity stays hot: a plan that drains nothing has no other line."""

from dataclasses import replace

from controller.controller import EndpointController
from controller.effects import Decision
from controller.state import KEEP_LINE_SECONDS, EndpointStateBook
from policy.planning.planner import plan
from policy.state.plan import Plan, Targets
from tests.controller.state_book import a_book, reasons
from tests.policy.builders import NOW, group, worker

LOAD = Targets(hot_kept=420.0, kept_for="the predicted load", kept_by="forecast", kept_rule=3)
PEAKS = replace(LOAD, kept_for="recent peaks", kept_by="remember_demand", kept_rule=6)


def adopt(book: EndpointStateBook, targets: Targets, after: float = 0.0) -> None:
    book.adopt(Plan(targets=targets), NOW + after)


def test_what_keeps_capacity_hot_is_logged_when_it_changes_and_not_at_every_burst():
    book = a_book(worker("w1"))
    for number, targets in enumerate((LOAD, LOAD, PEAKS, LOAD, PEAKS)):
        adopt(book, targets, number)
    assert reasons(book) == ["420 load/s stays hot for the predicted load; scaling rule 3, forecast"]
    adopt(book, PEAKS, KEEP_LINE_SECONDS)
    line = book.log.lines[-1]
    assert (line.kind, line.subject) == ("keep", "endpoint")
    assert line.reason == "420 load/s stays hot for recent peaks; scaling rule 6, remember_demand"
    assert line.numbers == {"hot_kept": 420.0, "hot_ready": 0.0, "rule": 6.0}


def test_an_endpoint_that_keeps_nothing_says_at_once_when_it_keeps_something_again():
    book = a_book(worker("w1"))
    for number, targets in enumerate((LOAD, Targets(), LOAD)):
        adopt(book, targets, number)
    assert len(reasons(book)) == 1  # the same line again: only its time changes
    assert book.log.lines[0].at == NOW + 2


def test_one_worker_before_the_inactivity_timeout_is_called_so():
    book = a_book(worker("w1"))
    floor = Targets(hot_kept=1e-3, kept_for="inactivity_timeout", kept_by="estimate_demand", kept_rule=4)
    adopt(book, floor)
    assert reasons(book) == ["one worker stays hot for inactivity_timeout; scaling rule 4, estimate_demand"]


def test_the_planner_of_a_real_endpoint_says_what_it_keeps():
    book = a_book(worker("w1"), groups=(group(),), min_load=80.0)
    controller = EndpointController(book, label_prefix="stoker:llm:")
    seen = controller.observe(("a" * 12,), NOW)
    controller.on_plan(Decision(plan=plan(seen)), seen, NOW)
    (line,) = [each for each in book.log.lines if each.kind == "keep"]
    assert line.reason == "80 load/s stays hot for min_load; scaling rule 4, estimate_demand"
