import pytest

from policy.state.lifecycle import (
    LIFECYCLE,
    InvalidTransition,
    Readiness,
    advance,
    is_cold,
)
from stoker_wire.states import GPU_BILLED
from stoker_wire.states import WorkerState as S
from tests.policy.builders import NOW, draining, worker


def test_every_state_has_a_row_and_a_transition_out():
    assert set(LIFECYCLE) == set(S)
    for state, row in LIFECYCLE.items():
        assert state is S.DESTROYING or S.DESTROYING in row.moves


def test_every_state_but_the_first_can_be_reached():
    reached = {to for row in LIFECYCLE.values() for to in row.moves}
    assert set(S) - reached == {S.PENDING}


def test_every_billed_state_is_hot_or_booting():
    assert {LIFECYCLE[state].readiness for state in GPU_BILLED} == {Readiness.HOT, Readiness.BOOTING}


def test_a_transition_sets_since_and_the_same_state_keeps_it():
    boots = worker("w", S.MODEL_LOADING, since=NOW - 50)
    assert advance(boots, S.READY, NOW).since == NOW
    assert advance(boots, S.MODEL_LOADING, NOW).since == NOW - 50


def test_an_invalid_transition_is_refused_with_the_allowed_ones():
    with pytest.raises(
        InvalidTransition, match="w is STOPPED and cannot become IDLE; expected one of: STARTING"
    ):
        advance(worker("w", S.INACTIVE), S.READY, NOW)
    with pytest.raises(InvalidTransition, match="nothing: it is being released"):
        advance(worker("w", S.DESTROYING), S.READY, NOW)


def test_requests_are_cleared_when_a_worker_leaves_service():
    busy = draining("w", load=5.0, in_flight=2, tickets_open=1)
    gone = advance(busy, S.STOPPING, NOW)
    assert (gone.drain, gone.load, gone.in_flight, gone.tickets_open) == (None, 0.0, 0, 0)


def test_ready_resets_the_failure_counts():
    tried = worker("w", S.STARTING, failures=2, starts_given_up=1)
    ready = advance(tried, S.READY, NOW)
    assert (ready.failures, ready.starts_given_up) == (0, 0)


def test_only_a_worker_that_has_loaded_is_cold():
    assert is_cold(worker("w", S.INACTIVE))
    assert not is_cold(worker("w", S.CREATED))
