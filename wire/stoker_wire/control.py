"""How an endpoint's workflow is addressed, started and spoken to on Temporal: shared by controller and SDK."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from stoker_wire.base import StrictModel, TolerantModel
from stoker_wire.endpoint import EndpointConfig, EndpointName, EndpointPatch
from stoker_wire.workergroup import Workergroup, check_workergroups

WORKFLOW_TYPE = "EndpointWorkflow"
RELEASE_WORKFLOW_TYPE = "ReleaseWorkflow"
SWEEP_WORKFLOW_TYPE = "SweepWorkflow"
SWEEP_ID = "stoker-sweep"
TASK_QUEUE = "stoker"
"""Workflow tasks and the planner."""
MARKET_TASK_QUEUE = "stoker-market"
"""Marketplace calls: rate-limited for the whole deployment."""

REPORT_METRICS = "report_metrics"
"""A signal."""
UPDATE_CONFIG = "update_config"
"""A signal and an update, as the next three. A signal is accepted while no worker runs; an update answers, or says why not."""
SET_WORKERGROUP = "set_workergroup"
REMOVE_WORKERGROUP = "remove_workergroup"
UPDATE_WORKERS = "update_workers"
CANCEL_UPDATE = "cancel_update"
"""An update, as the next three."""
ADVISE = "advise"
ROTATE_KEY = "rotate_key"
UNBLOCK_HOSTS = "unblock_hosts"
DELETE = "delete"
"""A signal."""
QUERY_STATUS = "status"
QUERY_WORKERS = "workers"
QUERY_DECISIONS = "decisions"
QUERY_COSTS = "costs"
QUERY_LOAD = "load"
QUERY_WORKERGROUPS = "workergroups"
QUERY_ADVICE = "advice"
QUERY_HOSTS = "hosts"


def workflow_id(endpoint_name: str) -> str:
    """`endpoint/<name>`: names are unique among live endpoints because workflow ids are."""
    return f"endpoint/{endpoint_name}"


def release_id(endpoint_name: str) -> str:
    """The id of the workflow that deletes an endpoint by force."""
    return f"release/{endpoint_name}"


class Release(StrictModel):
    """The input of a forced delete: end the endpoint's workflow as it is, and release every instance with its label."""

    endpoint_name: EndpointName
    reason: str = Field("a forced delete", max_length=200)


class Released(TolerantModel):
    """What a forced delete did."""

    endpoint_name: str
    ended: bool = False
    """Its workflow ran, and was terminated."""
    destroyed: tuple[int, ...] = ()
    """Instances that the marketplace confirms to be gone."""
    left: tuple[int, ...] = ()
    """Instances that the marketplace still lists. The sweep goes on to destroy them."""
    fault: str = ""
    """Why instances are left, or why it could not be looked."""


class Advise(StrictModel):
    """A second config that is planned beside a live endpoint's own; nothing of it is carried out."""

    config: EndpointPatch = EndpointPatch()
    """What differs from the live config; the rest follows it."""
    tuning: Literal["default", "thrifty", "generous"] = "default"
    """Another temperament of the policy: less, or more, spare for chance."""

    @model_validator(mode="after")
    def _differs(self) -> Self:
        if self.tuning == "default" and not self.config.given():
            raise ValueError(
                "nothing differs from the live config: give a parameter, e.g. target_util, or a tuning"
            )
        return self


class EndpointSpec(StrictModel):
    """The input of an endpoint's workflow."""

    endpoint_name: EndpointName
    endpoint_id: int = Field(ge=1, lt=2**31)
    config: EndpointConfig = EndpointConfig()
    workergroups: tuple[Workergroup, ...] = ()
    created_at: float = 0.0
    """Unix time, s."""
    owner: str = Field("default", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    """The account that owns it: another account's key does not open it."""
    key_version: int = Field(1, ge=1, le=2**53)
    """Which version of the endpoint key is valid; raised to rotate it."""
    history_events_max: int | None = Field(None, ge=100)
    """Continue as new at a history of so many events; None: when Temporal suggests it."""
    carried: dict[str, Any] | None = None
    """State handed on by continue-as-new; never given by a person."""

    @model_validator(mode="after")
    def _workergroups_are_bounded(self) -> Self:
        check_workergroups(self.workergroups)
        return self
