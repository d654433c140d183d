"""The state of a previous run is read even if another build wrote it."""

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from controller.previous_run import read_carried_state, read_or_forget


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int
    z: int = 0


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    needed: int
    learned: float = 1.0
    memory: float = 2.0
    inner: Inner = Inner(a=1)
    items: tuple[Inner, ...] = ()


read = Outer.model_validate


def test_fields_that_this_build_does_not_know_are_dropped_and_named():
    sent = {
        "needed": 1,
        "new": 2,
        "inner": {"a": 5, "b": 6, "z": 1},
        "items": [{"a": 7}, {"a": 8, "c": 9, "d": 10}, {"a": 11}],
    }
    value, unknown = read_carried_state(read, sent)
    assert value == Outer(needed=1, inner=Inner(a=5, z=1), items=(Inner(a=7), Inner(a=8), Inner(a=11)))
    assert sorted(unknown) == ["inner.b", "items.1.c", "items.1.d", "new"]
    assert sent["new"] == 2, "what was sent is not changed"


def test_a_state_without_faults_is_read_as_it_is():
    assert read_carried_state(read, {"needed": 1}) == (Outer(needed=1), ())


def test_another_fault_is_an_error():
    with pytest.raises(ValidationError, match="needed"):
        read_carried_state(read, {"new": 2})


def test_fields_that_can_be_learned_again_are_forgotten_if_they_cannot_be_read():
    sent = {"needed": 1, "learned": "much", "memory": "bad", "inner": {"a": 5}, "new": 3}
    value, unknown, forgotten = read_or_forget(read, sent, frozenset({"learned", "memory"}))
    assert value == Outer(needed=1, inner=Inner(a=5))
    assert (unknown, forgotten) == (("new",), ("learned", "memory"))


def test_a_fault_deep_in_a_field_forgets_the_whole_field():
    sent = {"needed": 1, "inner": {"a": "bad"}, "learned": 3.0}
    value, _, forgotten = read_or_forget(read, sent, frozenset({"inner", "learned"}))
    assert (value, forgotten) == (Outer(needed=1, learned=3.0), ("inner",))


@pytest.mark.parametrize("sent", [{"needed": "x", "learned": "much"}, {"needed": 1, "inner": 7}, "no object"])
def test_a_field_that_is_needed_is_an_error(sent):
    with pytest.raises(ValidationError):
        read_or_forget(read, sent if isinstance(sent, dict) else {"needed": sent}, frozenset({"learned"}))


def test_a_reader_that_refuses_the_whole_state_is_an_error():
    with pytest.raises(ValidationError):
        read_or_forget(
            lambda _, **how: Inner.model_validate(7, **how), {"learned": 1}, frozenset({"learned"})
        )
