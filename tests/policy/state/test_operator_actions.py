"""Which actions of an operator are refused."""

import pytest

from policy.state.operator_actions import refusal
from stoker_wire.control import WorkerAction
from stoker_wire.states import WorkerState as S
from tests.policy.builders import worker


@pytest.mark.parametrize(
    ("action", "state", "why"),
    [
        (WorkerAction.DRAIN, S.READY, ""),
        (WorkerAction.DRAIN, S.DESTROYING, "released already"),
        (WorkerAction.REBOOT, S.DESTROYING, "released already"),
        (WorkerAction.DESTROY, S.DESTROYING, ""),
        (WorkerAction.REBOOT, S.READY, ""),
        (WorkerAction.REBOOT, S.ERROR, ""),
        (WorkerAction.REBOOT, S.REBOOTING, ""),
        (WorkerAction.REBOOT, S.INACTIVE, "only one that is ready or failed"),
    ],
)
def test_an_action_is_refused_where_it_cannot_be_done(action, state, why):
    refused = refusal(worker("w", state), action)
    assert why in refused
    assert bool(refused) == bool(why)
