"""Everything that enters an endpoint's state is bounded: refused where it arrives, and again by the workflow."""

import random
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from pydantic import ValidationError

from controller import config_events, metrics_events
from controller.decision_log import LINES_KEPT
from controller.state import EndpointStateBook, EngineRecord
from policy.capacity.limits import WORKERS_MAX
from policy.state.worker import Drain, Goal
from stoker_wire.control import EndpointSpec
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.market import Instance, Offer
from stoker_wire.messages import MetricsBatch, WorkerMetrics
from stoker_wire.parsing import limits
from stoker_wire.parsing.limits import (
    STATE_BYTES_MAX,
    TooLarge,
    check_size,
    excerpt,
    json_bytes,
    shortened,
)
from stoker_wire.states import WorkerState
from stoker_wire.workergroup import Workergroup, check_workergroups
from tests.workflows.life.test_size import BLOB_BYTES_MAX, NOW, payload_bytes, worker
from tests.workflows.messages.test_messages import refusal
from tests.workflows.world import group
from workflows import message_validation
from workflows.publish import memo_of

CALM = EndpointConfig(min_load=0, min_workers=0, max_workers=2)


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"eq": value}
    return value


@pytest.mark.parametrize(
    ("given_fields", "says"),
    [
        ({"search_params": {"gpu_name": {"in": ["x" * 100] * 9000}}}, "16384 bytes"),
        ({"search_params": "gpu_name=" + "x" * 880_000}, "16384 bytes"),
        ({"search_params": {"gpu_name": deep(900)}}, "16 nested levels"),
        ({"launch_args": "ü" * 10_000}, "16384 bytes"),
        ({"template_hash": "x" * 256}, "255"),
    ],
)
def test_a_workergroup_names_the_limit_that_it_passes(given_fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Workergroup.model_validate({"id": 1, "template_hash": "t"} | given_fields)


def test_all_workergroups_of_an_endpoint_are_bounded_in_number_and_together() -> None:
    small = [group(id=number) for number in range(1, limits.WORKERGROUPS_MAX + 1)]
    check_workergroups(small)
    with pytest.raises(TooLarge, match="at most 64, got 65"):
        check_workergroups([*small, group(id=65)])
    large = [group(id=number, launch_args="--env " + "a" * 16_000) for number in range(1, 18)]
    with pytest.raises(TooLarge, match="262144 bytes"):
        check_workergroups(large)
    with pytest.raises(ValidationError, match="262144 bytes"):
        EndpointSpec(endpoint_name="llm", endpoint_id=1, workergroups=tuple(large))


BIG_GROUP = {"id": 2, "template_hash": "t", "search_params": {"gpu_name": {"in": ["x" * 60] * 15_000}}}
BIG_WORKER = {"launch_id": "a" * 12, "instance_id": 1, "condition": "ready"}


@pytest.mark.parametrize(
    ("signal", "sent", "says"),
    [
        ("set_workergroup", BIG_GROUP, "65536 bytes are accepted"),
        ("set_workergroup", {"id": 2, "template_hash": "t", "launch_args": "a" * 20_000}, "16384 bytes"),
        ("set_workergroup", {"id": 2, "template_hash": "t", "search_params": {"a": deep(40)}}, "nested"),
        ("update_config", {"max_workers": "9" * 900_000}, "65536 bytes are accepted"),
        (
            "report_metrics",
            {"engine_id": "e", "sequence": 1, "sent_at": 1, "urgent": "u" * 1_200_000},
            "1048576",
        ),
        ("report_metrics", {"engine_id": "e" * 200, "sequence": 1, "sent_at": 1}, "engine_id"),
        (
            "report_metrics",
            {"engine_id": "e", "sequence": 1, "sent_at": 1, "workers": [BIG_WORKER] * 2001},
            "2000",
        ),
    ],
)
async def test_a_signal_over_a_limit_leaves_a_line_and_changes_nothing(
    a_world: Any, signal: str, sent: Any, says: str
) -> None:
    async with a_world() as world:
        await world.start(CALM, [group()])
        before = await world.handle.query("workergroups")
        await world.handle.signal(signal, sent)
        (line,) = [each for each in await world.handle.query("decisions") if "refused" in each["reason"]]
        assert line["subject"] == signal
        assert says in line["reason"]
        assert await world.handle.query("workergroups") == before
        await world.handle.signal("update_config", {"max_workers": 5})
        assert (await world.handle.query("status"))["config"]["max_workers"] == 5, "and it makes progress"


async def test_updates_over_a_limit_are_refused_and_the_endpoint_goes_on(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(CALM)
        fault = await refusal(world.handle, "set_workergroup", BIG_GROUP)
        assert "65536 bytes are accepted" in fault.message
        accepted = 0
        for number in range(1, 30):
            sent = group(id=number, launch_args="--env " + "'-e A=" + "a" * 15_900 + "'").model_dump(
                mode="json"
            )
            if accepted == 16:
                break
            try:
                await world.handle.execute_update("set_workergroup", sent)
                accepted += 1
            except Exception:  # noqa: BLE001 - which one was refused is asked below
                break
        assert 10 < accepted < 17, "as many as 256 KiB hold"
        fault = await refusal(world.handle, "set_workergroup", sent)
        assert "262144 bytes" in fault.message
        same = group(id=1, max_workers=1).model_dump(mode="json")
        await world.handle.execute_update("set_workergroup", same)
        assert len(await world.handle.query("workergroups")) == accepted, (
            "a smaller one in its place is taken"
        )


@pytest.mark.parametrize(
    "sent",
    [
        {"endpoint_name": "llm", "endpoint_id": 1, "workergroups": [BIG_GROUP]},
        {"endpoint_name": "llm", "endpoint_id": 1, "carried": {"config": {}, "x": "y" * 2_200_000}},
        {
            "endpoint_name": "llm",
            "endpoint_id": 1,
            "workergroups": [group(id=n).model_dump() for n in range(1, 70)],
        },
    ],
)
def test_the_input_of_a_workflow_is_bounded(sent: dict[str, Any]) -> None:
    with pytest.raises(message_validation.InvalidMessage, match=r"bytes are accepted|at most 64"):
        message_validation.spec(sent)


def test_one_odd_url_or_error_does_not_cost_a_batch_its_other_workers() -> None:
    worker_told = {
        "launch_id": "a",
        "instance_id": 1,
        "condition": "error",
        "error": "\x1b[2J" * 900,
        "url": "h" * 900,
    }
    batch = MetricsBatch.model_validate(
        {"engine_id": "e", "sequence": 1, "sent_at": 1, "workers": [worker_told, BIG_WORKER]}
    )
    assert batch.workers[0].url == ""
    assert len(batch.workers[0].error) == limits.ERROR_BYTES_MAX
    assert "\x1b" not in batch.workers[0].error
    assert len(batch.workers) == 2


def test_what_the_marketplace_says_is_cut() -> None:
    assert len(Offer(id=1, gpu_name="g" * 5000).gpu_name) == limits.MARKET_TEXT_BYTES_MAX
    assert Instance.model_validate({"id": 1, "actual_status": "x\n" * 5000}).actual_status == ("x " * 32)


@given(some.text(max_size=300), some.integers(1, 200))
def test_a_shortened_text_fits_and_is_printable(text: str, bytes_max: int) -> None:
    cut = shortened(text, bytes_max)
    assert len(cut.encode(errors="replace")) <= bytes_max
    assert cut.isprintable()
    if text.isprintable() and len(text.encode(errors="replace")) <= bytes_max:
        assert cut == text


@given(some.integers(0, 40))
def test_nesting_is_counted_and_not_walked(levels: int) -> None:
    if levels <= limits.NESTING_MAX:
        check_size(deep(levels), 10_000)
    else:
        with pytest.raises(TooLarge):
            check_size(deep(levels), 10_000)


NASTY = some.sampled_from(["x", "ü", "漢", "\x00", '"', "\\", "🙂"])


@given(
    some.lists(some.sampled_from(["group", "metrics", "config", "line", "refused"]), min_size=1, max_size=12),
    NASTY,
    some.integers(0, WORKERS_MAX),
    some.randoms(use_true_random=False),
)
@settings(max_examples=25, deadline=None)
def test_no_sequence_of_accepted_messages_makes_the_state_exceed_its_bound(
    kinds: list[str], filler: str, workers: int, chance: random.Random
) -> None:
    """Every field that grows is as full as it is taken, with the characters that need the most room in JSON."""
    book = EndpointStateBook(EndpointSpec(endpoint_name="e" * 200, endpoint_id=1))
    for number in range(workers):
        full = worker(
            number,
            WorkerState.ERROR,
            error=shortened(filler * 500, 300),
            drain=Drain(since=NOW, deadline=NOW, goal=Goal.UPDATE, reason="r" * 80, seen_at=NOW),
            operation="reboot",
            retry_at=NOW,
            failures=3,
        ).replace(url="u" * limits.WORKER_URL_BYTES_MAX, address="a" * 220, kind="k" * 67)
        book.record.workers[full.launch_id] = full
    for kind in kinds * 6:
        number = chance.randrange(1, 200)
        try:
            if kind == "group":
                size = chance.choice([0, 4000, 16_000])
                said = {"id": number, "template_hash": "t", "launch_args": filler * size}
                sent = message_validation.Workergroup.model_validate(said)  # as the edge would take it
                check_workergroups([*(g for g in book.record.workergroups if g.id != number), sent])
                config_events.set_workergroup(book, sent, NOW)
            elif kind == "metrics":
                told = [
                    {
                        "launch_id": one,
                        "instance_id": 1,
                        "condition": "ready",
                        "tickets_open": 12,
                        "drain_seen": True,
                    }
                    for one in book.record.workers
                ]
                batch = {
                    "engine_id": filler * 60 + str(number),
                    "sequence": 1,
                    "sent_at": NOW,
                    "workers": told,
                }
                (read,) = message_validation.metrics(batch, book)
                book.record.engines[read.engine_id] = metrics_events._engine(
                    read, book.record.workers.keys(), NOW
                )
                metrics_events._forget_engines(book.record, NOW)
            elif kind == "config":
                config_events.config(book, message_validation.patch({"max_workers": number}, book), NOW)
            else:
                for _ in range(LINES_KEPT):
                    book.log.note(NOW + number, kind, filler * 5000, subject=filler * 500)
        except (ValidationError, TooLarge, message_validation.InvalidMessage):
            continue
    book.record.memo = memo_of(book)
    assert json_bytes(book.carried()) <= STATE_BYTES_MAX
    assert payload_bytes(book.spec()) < BLOB_BYTES_MAX
    assert payload_bytes(book.record.memo) < BLOB_BYTES_MAX
    again = EndpointStateBook(book.spec())
    assert set(again.record.workers) == set(book.record.workers), "no worker is ever left out"
    assert again.record.workergroups == book.record.workergroups


def test_a_state_over_its_bound_says_what_it_left_out() -> None:
    book = EndpointStateBook(EndpointSpec(endpoint_name="llm", endpoint_id=1))
    book.record.memo = {"x": "y" * STATE_BYTES_MAX}
    assert json_bytes(book.carried()) <= STATE_BYTES_MAX
    assert EndpointStateBook(book.spec()).record.left_out == ("the published memo",)


def test_open_tickets_and_seen_drains_of_all_engines_are_bounded() -> None:
    book = EndpointStateBook(EndpointSpec(endpoint_name="llm", endpoint_id=1))
    book.record.workers = {f"{n:012x}": worker(n, WorkerState.READY) for n in range(WORKERS_MAX)}
    for number in range(32):
        tickets = dict.fromkeys(book.record.workers, 1)
        book.record.engines[f"e{number}"] = EngineRecord(
            engine_id=f"e{number}", sequence=1, heard_at=NOW, tickets=tickets, drains_seen=tuple(tickets)
        )
    metrics_events._forget_engines(book.record, NOW)
    kept = book.record.engines
    assert sum(len(each.tickets) + len(each.drains_seen) for each in kept.values()) <= 12_000
    assert "e31" in kept, "the last to speak stays"
    unknown = MetricsBatch(
        engine_id="e",
        sequence=1,
        sent_at=NOW,
        workers=(WorkerMetrics(launch_id="stranger", instance_id=1, condition="ready", tickets_open=1),),
    )
    assert metrics_events._engine(unknown, book.record.workers.keys(), NOW).tickets == {}


def test_the_reference_lists_every_limit_with_its_value() -> None:
    text = (Path(__file__).parents[3] / "docs/reference/limits.md").read_text()
    listed = dict(re.findall(r"^\| `([A-Z_]+)` \| (\d+) \|", text, re.MULTILINE))
    assert listed == {name: str(value) for name, value in vars(limits).items() if name.endswith("_MAX")}


def test_an_excerpt_ends_after_a_word_with_an_ellipsis() -> None:
    assert excerpt("the model server exited with status 1 after 12 s", 36) == "the model server exited with…"
    assert excerpt("x" * 100, 10) == "x" * 7 + "…", "a single long word is cut"
    assert excerpt("all of it\n", 10) == "all of it "


@given(some.text(max_size=300), some.integers(3, 200))
def test_an_excerpt_fits_and_says_whether_it_is_cut(text: str, bytes_max: int) -> None:
    cut = excerpt(text, bytes_max)
    assert len(cut.encode(errors="replace")) <= bytes_max
    assert cut.isprintable()
    assert excerpt(cut, bytes_max) == cut
    if cut != shortened(text, len(text) * 4):
        assert cut.endswith("…")
