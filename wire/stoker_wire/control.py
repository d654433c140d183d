"""Names, ids and inputs of an endpoint's workflow on Temporal, shared by controller and SDK."""

from enum import StrEnum
from typing import Any, Self

from pydantic import Field, model_validator

from stoker_wire.base import StrictModel, TolerantModel
from stoker_wire.endpoint import EndpointConfig, EndpointName, EndpointPatch
from stoker_wire.messages import LaunchId
from stoker_wire.workergroup import Workergroup, check_workergroups

WORKFLOW_TYPE = "EndpointWorkflow"
RELEASE_WORKFLOW_TYPE = "ReleaseWorkflow"
SWEEP_WORKFLOW_TYPE = "SweepWorkflow"
SWEEP_ID = "stoker-sweep"
TASK_QUEUE = "stoker"
"""Task queue of workflows and the planner."""
MARKET_TASK_QUEUE = "stoker-market"
"""Task queue of marketplace calls, rate-limited for the whole deployment."""

REPORT_METRICS = "report_metrics"
"""A signal."""
UPDATE_CONFIG = "update_config"
"""A signal and an update, like the next three. A signal is accepted while no worker runs; an update returns errors."""
SET_WORKERGROUP = "set_workergroup"
REMOVE_WORKERGROUP = "remove_workergroup"
UPDATE_WORKERS = "update_workers"
CANCEL_UPDATE = "cancel_update"
"""An update, like the next five."""
ADVISE = "advise"
ROTATE_KEY = "rotate_key"
EDIT_KEYS = "edit_keys"
UNBLOCK_HOSTS = "unblock_hosts"
CHANGE_WORKER = "change_worker"
LOOK_NOW = "look_now"
"""A signal, like the next one."""
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
    """`endpoint/<name>`. Running workflows have unique ids, so endpoint names are unique."""
    return f"endpoint/{endpoint_name}"


def release_id(endpoint_name: str) -> str:
    """The id of the workflow that deletes an endpoint by force."""
    return f"release/{endpoint_name}"


class Release(StrictModel):
    """Input of a forced delete: terminate the endpoint's workflow and destroy every instance with its label."""

    endpoint_name: EndpointName
    reason: str = Field("a forced delete", max_length=200)


class Released(TolerantModel):
    """Result of a forced delete."""

    endpoint_name: str
    ended: bool = False
    """Whether a running workflow was terminated."""
    destroyed: tuple[int, ...] = ()
    """Instances whose destruction the marketplace confirmed."""
    left: tuple[int, ...] = ()
    """Instances that the marketplace still lists. The sweep continues to destroy them."""
    fault: str = ""
    """Why instances are left, or why the marketplace could not be read."""


class WorkerAction(StrEnum):
    """The actions that an operator can order for one worker."""

    DRAIN = "drain"
    """No new request. Once it is empty it is stopped, and it stays out of service until it is resumed."""
    RESUME = "resume"
    """Back in service: a drain or a release that has not ended yet is cancelled."""
    REBOOT = "reboot"
    """Drained, then restarted."""
    DESTROY = "destroy"
    """Drained, then released for good."""


class WorkerChange(StrictModel):
    """An action on one worker."""

    launch_id: LaunchId
    action: WorkerAction


class Advise(StrictModel):
    """A second config, planned beside the live one without being executed (what-if analysis)."""

    config: EndpointPatch = EndpointPatch()
    """The parameters that differ from the live config."""

    @model_validator(mode="after")
    def _differs(self) -> Self:
        if not self.config.given():
            raise ValueError("nothing differs from the live config: give a parameter, e.g. target_util")
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
    """The account that owns the endpoint. Keys of other accounts have no access."""
    key_version: int = Field(1, ge=1, le=2**53)
    """The valid version of the endpoint key; raised to rotate the key."""
    history_events_max: int | None = Field(None, ge=100)
    """History length at which the workflow continues as new; None: when Temporal suggests it."""
    carried: dict[str, Any] | None = None
    """State of the previous run, set by continue-as-new only."""

    @model_validator(mode="after")
    def _workergroups_are_bounded(self) -> Self:
        check_workergroups(self.workergroups)
        return self
