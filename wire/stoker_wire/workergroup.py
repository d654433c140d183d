"""A workergroup: the code to run (template) and the eligible machines (search params)."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field, field_validator, model_validator

from stoker_wire.base import StrictModel
from stoker_wire.parsing.limits import (
    FACTOR_MAX,
    LAUNCH_ARGS_BYTES_MAX,
    LOAD_MAX,
    SEARCH_PARAMS_BYTES_MAX,
    WORKERGROUPS_BYTES_MAX,
    WORKERGROUPS_MAX,
    TooLarge,
    check_size,
    json_bytes,
)

SearchParams = str | dict[str, Any] | list[dict[str, Any]]
"""A query string (`gpu_name=RTX_4090 num_gpus=1`), a dict `{"verified": {"eq": true}}`, or a list of such dicts."""


class Workergroup(StrictModel):
    """A workergroup of an endpoint. Its limits apply to this workergroup, within those of the endpoint."""

    id: int = Field(ge=1)
    """Assigned by the engine."""

    template_hash: str | None = Field(None, min_length=1, max_length=255)
    """Hash of the marketplace template that the instances run. This or `template_id` is required."""

    template_id: int | None = Field(None, ge=1)
    """Id of the marketplace template that the instances run."""

    search_params: SearchParams = ""
    """Filters for offers: `gpu_name=RTX_4090 num_gpus=1 dph_total<0.6`, `{"verified": {"eq": true}}`, or a list."""

    launch_args: str = Field("", max_length=16_384)
    """Options of instance creation, e.g. `--env "-e A=b" --disk 40`."""

    gpu_ram: float = Field(24.0, ge=0, le=FACTOR_MAX)
    """GB of VRAM that the model needs; for estimates only, the hard filter is in `search_params`."""

    cold_workers: int | None = Field(None, ge=0, le=10_000)
    """Minimum number of workers of this workergroup, hot and cold."""

    max_workers: int | None = Field(None, ge=0, le=10_000)
    """Maximum number of workers of this workergroup."""

    min_load: float | None = Field(None, ge=0, le=LOAD_MAX)
    """Minimum hot capacity of this workergroup, load/s."""

    target_util: float | None = Field(None, gt=0, le=1)
    """As in the endpoint; the smallest of all workergroups applies."""

    cold_mult: float | None = Field(None, ge=1, le=FACTOR_MAX)
    """As in the endpoint; the largest of all workergroups applies."""

    min_cold_load: float | None = Field(None, ge=0, le=LOAD_MAX)
    """Minimum capacity, hot and cold, of this workergroup, load/s."""

    test_workers: int = Field(3, ge=0, le=100)
    """Number of machine kinds to try in the learning phase."""

    revision: int = Field(1, ge=1, le=2**53)
    """Incremented when template or filters change. Workers of an older revision are updated."""

    @field_validator("search_params", mode="before")
    @classmethod
    def _search_params_are_bounded(cls, value: Any) -> Any:
        check_size(value, SEARCH_PARAMS_BYTES_MAX)
        return value

    @field_validator("launch_args", mode="before")
    @classmethod
    def _launch_args_are_bounded(cls, value: Any) -> Any:
        if isinstance(value, str) and (size := len(value.encode(errors="replace"))) > LAUNCH_ARGS_BYTES_MAX:
            raise TooLarge(f"at most {LAUNCH_ARGS_BYTES_MAX} bytes are accepted, got {size}")
        return value

    @model_validator(mode="after")
    def _names_a_template(self) -> "Workergroup":
        if self.template_hash is None and self.template_id is None:
            raise ValueError("a workergroup needs template_hash or template_id")
        return self


def check_workergroups(groups: Sequence[Workergroup]) -> None:
    """Raise TooLarge if one endpoint cannot have all of these workergroups."""
    if len(groups) > WORKERGROUPS_MAX:
        raise TooLarge(f"workergroups: one endpoint can have at most {WORKERGROUPS_MAX}, got {len(groups)}")
    size = sum(json_bytes(group) for group in groups)
    if size > WORKERGROUPS_BYTES_MAX:
        raise TooLarge(
            f"workergroups: those of one endpoint together can have at most {WORKERGROUPS_BYTES_MAX} bytes, "
            f"got {size}. Shorten search_params and launch_args, or use a second endpoint"
        )
