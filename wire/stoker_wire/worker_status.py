"""Reports of a worker to the engine (`POST /worker_status/`, `POST /delete_requests/`)."""

from typing import Annotated

from pydantic import Field

from stoker_wire.base import TolerantModel
from stoker_wire.workload import ServedRoute

ModelName = Annotated[str, Field(max_length=512)]


class WorkerStatus(TolerantModel):
    """One report. Field names are the official worker's, including the spelling of `num_requests_recieved`."""

    id: int
    """The marketplace instance id (`CONTAINER_ID`)."""
    mtoken: str = ""
    version: str = ""
    loadtime: float = Field(0.0, ge=0)
    """0 until the model is loaded, then the seconds from process start to ready, in every report."""
    cur_load: float = Field(0.0, ge=0)
    """Workload of all requests and sessions in flight."""
    new_load: float = Field(0.0, ge=0)
    """Workload received minus cancelled since the last successful report."""
    rej_load: float = Field(0.0, ge=0)
    cur_perf: float = Field(0.0, ge=0)
    """Workload finished since the last report: an amount, not a rate."""
    max_perf: float = Field(0.0, ge=0)
    """Benchmark result, workload/s; 0 until loaded."""
    error_msg: str = ""
    num_requests_working: int = Field(0, ge=0)
    num_requests_recieved: int = Field(0, ge=0)
    working_request_idxs: tuple[int, ...] = ()
    additional_disk_usage: float = 0.0
    disk_usage: float = 0.0
    cur_capacity: float = 0.0
    max_capacity: float = 0.0
    url: str = ""

    # Sent by stoker's worker only:
    draining: bool = False
    queued: int = Field(0, ge=0)
    """Requests waiting inside the worker for the model server."""
    concurrency: int = Field(0, ge=0)
    """Requests at a time at which `max_perf` was measured; 0: unknown. More of them are served more slowly."""
    end_report_seconds: float = Field(0.0, ge=0)
    """The worker runs one request at a time and reports its end within this time. 0: several at a time, or unknown."""
    running_load: float = Field(0.0, ge=0)
    """Workload of the running request of such a worker, part of `cur_load`; 0: no request runs."""
    running_seconds: float = Field(0.0, ge=0)
    """For how long that request has been running."""
    gpus: tuple["GpuStatus", ...] = ()
    routes: Annotated[tuple[ServedRoute, ...], Field(max_length=256)] = ()
    """Routes that the worker serves; empty if it does not report them."""
    models: Annotated[tuple[ModelName, ...], Field(max_length=256)] = ()
    """Names under which its model server serves its models; empty: not known."""
    model: "ModelStatus | None" = None
    """From the model server's metrics; None: it has none, or they are not known."""
    incarnation: str = Field("", max_length=64)
    """Random id of the worker's process, in every report."""
    uptime_seconds: float = Field(0.0, ge=0)
    """Age of the process; 0: unknown."""
    download_seconds: float = Field(0.0, ge=0)
    """How long its model server downloaded the weights, part of `loadtime`; 0: not at all, or unknown."""
    provisional: bool = False
    """`max_perf` is an estimate that the benchmark will replace."""
    error_everywhere: bool = False
    """Whether `error_msg` would occur on every machine: only another template, model or secret helps."""
    phase: str = Field("", max_length=16)
    """Phase of its start: `download`, `load` or `benchmark`; empty: unknown, or ready."""

    @property
    def process(self) -> str:
        """Id of the reporting process; empty: unknown, e.g. while an official worker loads.

        An official worker sends no `incarnation`. Its `loadtime` has microseconds and is constant during the life of
        the process, so it identifies the process. A value in whole milliseconds is not such a measurement.
        """
        if self.incarnation or self.loadtime == round(self.loadtime, 3):
            return self.incarnation
        return f"loadtime-{self.loadtime!r}"

    @property
    def ready(self) -> bool:
        """Whether the worker is loaded, benchmarked and without error."""
        return self.loadtime > 0 and self.max_perf > 0 and not self.error_msg


class GpuStatus(TolerantModel):
    """The state of one GPU from NVML."""

    index: int
    name: str
    utilization_percent: float = 0.0
    memory_used_gib: float = 0.0
    memory_total_gib: float = 0.0
    power_watts: float = 0.0
    temperature_celsius: float = 0.0
    ecc_errors: int = 0
    """Uncorrected ECC errors since the driver was loaded."""
    xid: int = 0
    """The last critical Xid event; 0: no event."""


class ModelStatus(TolerantModel):
    """The load of the model server from its own metrics."""

    running: int = 0
    waiting: int = 0
    """Requests that the model server has accepted and not started."""
    cache_used: float = 0.0
    """Share of the KV cache in use, 0 to 1."""
    output_tokens_per_second: float = 0.0
    full: bool = False
    """The KV cache is full and requests wait: another worker should get the next request."""


class FinishedRequest(TolerantModel):
    """One request that ended on the worker."""

    request_idx: int
    success: bool = True
    status: str = ""
    """`Success`, `Error`, `Cancelled`, `Rejected` or `Started`."""
    entered_queue_at: float | None = None
    work_started_at: float | None = None
    work_completed_at: float | None = None

    # Sent by stoker's worker only:
    work_first_byte_at: float | None = None
    """When the first bytes of the answer's body came from the model; None or 0: none did, or not known."""
    fingerprint: str = Field("", max_length=64)
    """The fingerprint of the request's content (`stoker_wire.security.fingerprint`), if the model failed with it."""


class FinishedRequests(TolerantModel):
    """`POST /delete_requests/`: the requests that ended since the last such report."""

    worker_id: int
    mtoken: str = ""
    requests: tuple[FinishedRequest, ...] = ()
    incarnation: str = Field("", max_length=64)
    """As in `WorkerStatus`; not sent by an official worker."""


WorkerStatus.model_rebuild()
