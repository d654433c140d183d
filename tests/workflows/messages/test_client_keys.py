"""Named keys in the endpoint's state: refused changes, reports of engines, continue-as-new."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller import key_events
from controller.key_events import DAY_SECONDS, count_use, engines_sharing, memo_keys, spent_in_steps
from controller.state import EndpointStateBook, EngineRecord
from stoker_wire.control import EndpointSpec
from stoker_wire.messages import KeyUse
from stoker_wire.parsing.limits import KEYS_MAX
from stoker_wire.security.client_key import KeyEdit
from tests.workflows.messages.test_messages import CALM, refusal
from workflows import message_validation
from workflows.message_validation import InvalidMessage

NOON = 20_000 * DAY_SECONDS + 43_200.0
DIGEST = "a" * 64


def book_with(*edits: KeyEdit) -> EndpointStateBook:
    book = EndpointStateBook(EndpointSpec(endpoint_name="llm", endpoint_id=7))
    for edit in edits:
        key_events.edit(book, edit, NOON)
    return book


def create(name: str = "app", digest: str = DIGEST, **limits: Any) -> KeyEdit:
    return KeyEdit(op="create", name=name, digest=digest, limits=limits)


async def test_a_key_is_created_changed_and_revoked_by_updates(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(CALM)
        sent = {"op": "create", "name": "app", "digest": DIGEST, "limits": {"load_per_second": 3.0}}
        await world.handle.execute_update("edit_keys", sent)
        await world.live(5)
        (key,) = (await world.memo()).keys
        assert (key.n, key.h, key.r, key.b, key.p) == ("app", DIGEST, 3.0, None, "normal")
        assert (await refusal(world.handle, "edit_keys", sent)).type == "key_exists"
        change = {"op": "change", "name": "app", "limits": {"load_per_second": None, "priority": "low"}}
        await world.handle.execute_update("edit_keys", change)
        await world.live(5)
        (key,) = (await world.memo()).keys
        assert (key.r, key.p) == (None, "low")
        await world.handle.execute_update("edit_keys", {"op": "revoke", "name": "app"})
        await world.live(5)
        assert (await world.memo()).keys == ()
        assert (await refusal(world.handle, "edit_keys", change)).type == "no_such_key", "it stays revoked"


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (None, "valid"),
        ({"op": "create", "name": "a"}, "digest"),
        ({"op": "create", "name": "a", "digest": "sk-ep-7-secret"}, "digest"),
        ({"op": "create", "name": "a\n", "digest": DIGEST}, "name"),
        ({"op": "revoke", "name": "a", "digest": DIGEST}, "digest"),
        (
            {"op": "create", "name": "b", "digest": DIGEST, "limits": {"load_per_second": float("nan")}},
            "load",
        ),
        (
            {"op": "create", "name": "b", "digest": DIGEST, "limits": {"dollars_per_day": -1}},
            "dollars_per_day",
        ),
        ({"op": "change", "name": "nobody", "limits": {}}, "no key named"),
        ({"op": "drop", "name": "app"}, "op"),
        ({"op": "create", "name": "b", "digest": DIGEST}, "another key has it"),
    ],
)
def test_a_change_that_is_not_possible_is_refused(sent: Any, says: str) -> None:
    book = book_with(create())
    with pytest.raises(InvalidMessage, match=says):
        message_validation.key_edit(sent, book)


def test_an_endpoint_has_a_bounded_number_of_keys() -> None:
    book = book_with(*(create(f"key {number}", f"{number:064x}") for number in range(KEYS_MAX)))
    with pytest.raises(InvalidMessage, match="at most 100 keys"):
        message_validation.key_edit(create("one more").message(), book)
    assert len(memo_keys(book.record)) == KEYS_MAX


def test_an_edit_is_logged_with_the_limits_and_only_if_something_changes() -> None:
    book = book_with(
        create(load_per_second=2.0, dollars_per_day=0.5),
        KeyEdit.model_validate({"op": "change", "name": "app", "limits": {"dollars_per_day": None}}),
        KeyEdit.model_validate({"op": "change", "name": "app", "limits": {"dollars_per_day": None}}),
        KeyEdit(op="revoke", name="app"),
    )
    assert [line.reason for line in book.log.lines] == [
        "key 'app' created: priority normal, 2 load/s, $0.5 a day",
        "key 'app' changed: priority normal, 2 load/s",
        "key 'app' revoked",
    ]
    assert book.record.keys == {}


@pytest.mark.parametrize(
    ("dollars", "shown"),
    [(0.0, 0.0), (0.1, 0.0), (0.3, 0.2), (3.99, 3.8), (9.99, 9.8), (10.0, 10.0), (99.0, 10.0)],
)
def test_spending_is_published_in_fiftieths_of_the_limit(dollars: float, shown: float) -> None:
    assert spent_in_steps(dollars, 10.0) == pytest.approx(shown)
    assert spent_in_steps(dollars, None) == 0.0


def test_a_key_without_a_budget_publishes_no_day() -> None:
    book = book_with(create(), create("two", "b" * 64, dollars_per_day=1.0))
    count_use(book.record, [KeyUse(key=DIGEST, dollars=1.0), KeyUse(key="b" * 64, dollars=0.5)], NOON)
    assert [(key.n, key.s, key.d) for key in memo_keys(book.record)] == [
        ("app", 0.0, 0),
        ("two", 0.5, 20_000),
    ]


def test_an_earlier_day_does_not_forget_what_was_used() -> None:
    record = book_with(create(dollars_per_day=1.0)).record
    count_use(record, [KeyUse(key=DIGEST, dollars=0.25, load=1.0)], NOON)
    count_use(record, [KeyUse(key=DIGEST, dollars=0.25, load=2.0)], NOON - DAY_SECONDS)
    known = record.keys["app"]
    assert (known.dollars, known.load, known.day) == (0.5, 3.0, 20_000)
    count_use(record, [KeyUse(key=DIGEST, dollars=0.25, load=4.0)], NOON + DAY_SECONDS)
    known = record.keys["app"]
    assert (known.dollars, known.load, known.day) == (0.25, 4.0, 20_001)


def test_use_of_all_engines_adds_up_on_the_controllers_day() -> None:
    record = book_with(create(dollars_per_day=1.0)).record
    for dollars in (0.25, 0.5):
        count_use(record, [KeyUse(key=DIGEST, dollars=dollars, load=10.0)], NOON)
    count_use(record, [KeyUse(key="f" * 64, dollars=9.0)], NOON)
    (key,) = memo_keys(record)
    assert (key.s, key.d) == (0.74, 20_000)
    assert (record.keys["app"].dollars, record.keys["app"].load) == (0.75, 20.0)
    count_use(record, [KeyUse(key=DIGEST, dollars=0.1)], NOON + DAY_SECONDS)
    (key,) = memo_keys(record)
    assert (key.s, key.d) == (0.1, 20_001)


def test_what_was_used_survives_the_next_run() -> None:
    book = book_with(create(dollars_per_day=1.0, priority="low"))
    count_use(book.record, [KeyUse(key=DIGEST, dollars=1.0)], NOON)
    after = EndpointStateBook(book.spec())
    assert after.record.keys == book.record.keys
    assert memo_keys(after.record)[0].s == 1.0


@given(st.floats(0, 1e12), st.floats(1e-6, 1e9))
def test_published_spending_is_at_most_the_real_one_and_reaches_the_limit(
    dollars: float, limit: float
) -> None:
    shown = spent_in_steps(dollars, limit)
    assert shown <= max(dollars, limit * 1e-9) * (1 + 1e-9)
    assert shown >= min(dollars, limit) - limit / 50 * (1 + 1e-9)
    assert (shown == limit) == (dollars / limit * 50 >= 50)


def test_engines_that_report_share_a_rate() -> None:
    record = book_with(create(load_per_second=1.0)).record
    for name, heard_at, left in (("a", NOON, False), ("b", NOON - 20, False), ("c", NOON, True)):
        record.engines[name] = EngineRecord(engine_id=name, sequence=1, heard_at=heard_at, left=left)
    record.engines["d"] = EngineRecord(engine_id="d", sequence=1, heard_at=NOON - 60)
    assert engines_sharing(record) == 2
    record.engines.clear()
    assert engines_sharing(record) == 1, "no engine has reported yet"
    assert engines_sharing(book_with(create()).record) == 1, "without a rate the memo does not change"
