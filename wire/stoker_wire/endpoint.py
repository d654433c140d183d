"""An endpoint's config: the scaling parameters, with the defaults and bounds of the public documentation."""

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AliasChoices, Field, model_validator

from stoker_wire.base import StrictModel
from stoker_wire.parsing.limits import DURATION_SECONDS_MAX, FACTOR_MAX, LOAD_MAX, PRICE_MAX

ENDPOINT_NAME_PATTERN = r"^[A-Za-z0-9_-]+( [A-Za-z0-9_-]+)*$"
"""Letters, digits, `_`, `-` and single inner blanks, which the official CLI's `run benchmarks` uses."""

Origin = Annotated[str, Field(max_length=255, pattern=r"^(\*|https?://[^/?#@\s*,]+)$")]
"""Of a web page, as browsers send it: `https://chat.example.com`; `*` stands for every page."""
Origins = Annotated[tuple[Origin, ...], Field(max_length=32)]

ENDPOINT_NAME_CHARS_MAX = 200
"""A marketplace label has at most 256 characters: the name and 33 others."""

EndpointName = Annotated[str, Field(pattern=ENDPOINT_NAME_PATTERN, max_length=ENDPOINT_NAME_CHARS_MAX)]


class EndpointState(StrEnum):
    """`active`: routed and scaled. `suspended`: routed, not scaled. `stopped`: every worker is cold."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    STOPPED = "stopped"


_MIN_WORKERS = AliasChoices("min_workers", "cold_workers")


def _one_name(data: Any) -> Any:
    """If both names of `min_workers` are given, drop `cold_workers`, or `min_workers` if it is null."""
    if not isinstance(data, dict) or not {"min_workers", "cold_workers"} <= data.keys():
        return data
    dropped = "min_workers" if data["min_workers"] is None else "cold_workers"
    return {key: value for key, value in data.items() if key != dropped}


class EndpointConfig(StrictModel):
    """How much capacity an endpoint holds, and how long its requests may wait.

    Load is the summed cost of requests, in units that the application chooses. Perf is the load that a worker completes
    per second.
    """

    max_workers: int = Field(16, ge=0, le=10_000)
    """Maximum number of workers, hot, cold and being created. An endpoint grows to at most 1000."""

    min_workers: int = Field(5, ge=0, le=10_000, validation_alias=_MIN_WORKERS)
    """Minimum number of workers with the model loaded at least once, hot + cold. `cold_workers` in the REST API."""

    min_load: float = Field(1.0, ge=0, le=LOAD_MAX)
    """Minimum hot capacity, load/s: any value > 0 keeps at least one worker hot."""

    target_util: float = Field(0.9, gt=0, le=1)
    """Hot capacity = predicted load / target_util. 900 load/s at 0.9 -> 1000."""

    cold_mult: float = Field(3.0, ge=1, le=FACTOR_MAX)
    """Total capacity (hot + cold) target = hot capacity x cold_mult."""

    min_cold_load: float = Field(0.0, ge=0, le=LOAD_MAX)
    """Total capacity (hot + cold) target, load/s, set directly."""

    inactivity_timeout: float | None = Field(None, ge=-DURATION_SECONDS_MAX, le=DURATION_SECONDS_MAX)
    """Seconds without a request before scaling to zero. None or 0: no delay. Negative: never scale to zero."""

    max_queue_time: float = Field(30.0, gt=0, le=DURATION_SECONDS_MAX)
    """Seconds: a worker whose expected queue time is at this limit takes no more requests."""

    target_queue_time: float = Field(10.0, gt=0, le=DURATION_SECONDS_MAX)
    """Seconds: when the endpoint's expected queue time passes this, capacity is added."""

    error_budget: float = Field(0.01, ge=0.0001, le=1)
    """Share of the work that may wait longer than target_queue_time: the price of late work. Half of it
    makes a second of late work twice as dear."""

    endpoint_state: EndpointState = EndpointState.ACTIVE
    """`active`: routed and scaled. `suspended`: routed, not scaled. `stopped`: every worker is stopped (cold)."""

    dollars_per_hour_max: float | None = Field(None, gt=0, le=PRICE_MAX)
    """Budget: the maximum price of all running workers together, $/h. None: no budget."""

    drain_seconds_max: float = Field(600.0, ge=0, le=DURATION_SECONDS_MAX)
    """How long a draining worker may finish what it holds before it is stopped. One that is stopped only to save money
    finishes it first."""

    silence_seconds_max: float = Field(3600.0, gt=0, le=DURATION_SECONDS_MAX)
    """Seconds that a request through the OpenAI API waits for the next byte of a worker, the first one included."""

    allowed_origins: Origins = ()
    """Origins of the web pages that may call the OpenAI API from a browser. Empty: none."""

    affinity_prefix_bytes: int = Field(0, ge=0, le=1_000_000)
    """OpenAI API: requests whose prompts begin with the same bytes prefer the same worker, which has them in its cache.
    This is the number of bytes. 0: only requests with an affinity key do."""

    @model_validator(mode="before")
    @classmethod
    def _min_workers_wins(cls, data: Any) -> Any:
        return _one_name(data)

    def patched(self, patch: "EndpointPatch") -> Self:
        """The config with the patch's given fields changed; the result is validated as a whole."""
        return type(self).model_validate(self.model_dump() | patch.given())


class EndpointPatch(StrictModel):
    """A change to a live endpoint. Null or absent fields stay unchanged."""

    max_workers: int | None = Field(None, ge=0, le=10_000)
    min_workers: int | None = Field(None, ge=0, le=10_000, validation_alias=_MIN_WORKERS)
    min_load: float | None = Field(None, ge=0, le=LOAD_MAX)
    target_util: float | None = Field(None, gt=0, le=1)
    cold_mult: float | None = Field(None, ge=1, le=FACTOR_MAX)
    min_cold_load: float | None = Field(None, ge=0, le=LOAD_MAX)
    inactivity_timeout: float | None = Field(None, ge=-DURATION_SECONDS_MAX, le=DURATION_SECONDS_MAX)
    max_queue_time: float | None = Field(None, gt=0, le=DURATION_SECONDS_MAX)
    target_queue_time: float | None = Field(None, gt=0, le=DURATION_SECONDS_MAX)
    error_budget: float | None = Field(None, ge=0.0001, le=1)
    endpoint_state: EndpointState | None = None
    dollars_per_hour_max: float | None = Field(None, gt=0, le=PRICE_MAX)
    drain_seconds_max: float | None = Field(None, ge=0, le=DURATION_SECONDS_MAX)
    silence_seconds_max: float | None = Field(None, gt=0, le=DURATION_SECONDS_MAX)
    allowed_origins: Origins | None = None
    affinity_prefix_bytes: int | None = Field(None, ge=0, le=1_000_000)

    @model_validator(mode="before")
    @classmethod
    def _min_workers_wins(cls, data: Any) -> Any:
        return _one_name(data)

    def given(self) -> dict[str, Any]:
        """The fields that are not null."""
        return {key: value for key, value in self.model_dump().items() if value is not None}
