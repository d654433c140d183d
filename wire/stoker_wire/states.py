"""The states of a worker in the API and the logs."""

from enum import StrEnum


class WorkerState(StrEnum):
    """The state of a worker. The value is the API's `status`; `printed` is for tables, `words` for sentences."""

    PENDING = "pending"
    CREATING = "creating"
    CREATED = "created"
    LOADING = "loading"
    MODEL_LOADING = "model_loading"
    READY = "idle"
    STOPPING = "stopping"
    INACTIVE = "stopped"
    STARTING = "starting"
    UPDATE_READY = "update_ready"
    UPDATE_REBOOTING = "update_rebooting"
    UPDATE_STARTING = "update_starting"
    REBOOTING = "rebooting"
    ERROR = "error"
    DESTROYING = "destroying"

    @property
    def printed(self) -> str:
        """The short upper-case name, e.g. `IDLE`."""
        return self.value.upper()

    @property
    def words(self) -> str:
        """The state in a sentence, after "is", "while" or "still", e.g. `loading its model`."""
        return _WORDS.get(self, self.value)

    @property
    def stage(self) -> str:
        """`hot`, `booting` (on the way to ready), `cold` (stopped) or `failed`; empty: it ends."""
        return _STAGES.get(self, "")


_WORDS = {
    WorkerState.PENDING: "being rented",
    WorkerState.CREATING: "being created",
    WorkerState.CREATED: "created and not started",
    WorkerState.LOADING: "loading its image",
    WorkerState.MODEL_LOADING: "loading its model",
    WorkerState.READY: "ready",
    WorkerState.UPDATE_READY: "waiting for its update",
    WorkerState.UPDATE_REBOOTING: "being updated",
    WorkerState.UPDATE_STARTING: "starting after its update",
    WorkerState.ERROR: "broken",
    WorkerState.DESTROYING: "being destroyed",
}
"""The other states are verbs already."""

GPU_BILLED = frozenset(
    {
        WorkerState.LOADING,
        WorkerState.MODEL_LOADING,
        WorkerState.READY,
        WorkerState.STARTING,
        WorkerState.UPDATE_READY,
        WorkerState.UPDATE_REBOOTING,
        WorkerState.UPDATE_STARTING,
        WorkerState.REBOOTING,
    }
)
"""States in which the marketplace bills the GPU."""

STAGES = ("hot", "booting", "cold", "failed")
"""Values of `WorkerState.stage`."""

_STAGES = dict.fromkeys(
    GPU_BILLED | {WorkerState.PENDING, WorkerState.CREATING, WorkerState.CREATED}, "booting"
) | {WorkerState.READY: "hot", WorkerState.INACTIVE: "cold", WorkerState.ERROR: "failed"}

STORAGE_UNBILLED = frozenset({WorkerState.PENDING, WorkerState.ERROR, WorkerState.DESTROYING})
"""States in which the marketplace bills no storage."""
