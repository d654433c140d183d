"""A workergroup: what code runs (a template) and which machines are eligible (search params)."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field, field_validator, model_validator

from stoker_wire.base import StrictModel
from stoker_wire.parsing.limits import (
    LAUNCH_ARGS_BYTES_MAX,
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
    """The bounds, when given, hold for this workergroup alone, inside the endpoint's own."""

    id: int = Field(ge=1)
    """Given by the engine."""

    template_hash: str | None = Field(None, min_length=1, max_length=255)
    """What the instances run: the marketplace's template, by hash …"""

    template_id: int | None = Field(None, ge=1)
    """… or by id. One of the two is required."""

    search_params: SearchParams = ""
    """Which offers are eligible: `gpu_name=RTX_4090 num_gpus=1 dph_total<0.6`, `{"verified": {"eq": true}}`, or a list of those."""

    launch_args: str = Field("", max_length=16_384)
    """Command-line style overrides of instance creation, e.g. `--env "-e A=b" --disk 40`."""

    gpu_ram: float = Field(24.0, ge=0)
    """GB of VRAM that the model needs; for estimates only, the hard filter is in `search_params`."""

    cold_workers: int | None = Field(None, ge=0, le=10_000)
    """Workers of this workergroup that are kept, hot or cold."""

    max_workers: int | None = Field(None, ge=0, le=10_000)
    """Cap on the workers of this workergroup."""

    min_load: float | None = Field(None, ge=0)
    """Floor under the hot capacity of this workergroup, load/s."""

    target_util: float | None = Field(None, gt=0, le=1)
    """As the endpoint's; the strictest of all workergroups holds."""

    cold_mult: float | None = Field(None, ge=1)
    """As the endpoint's; the largest of all workergroups holds."""

    min_cold_load: float | None = Field(None, ge=0)
    """Floor under the capacity, hot and cold, of this workergroup, load/s."""

    test_workers: int = Field(3, ge=0, le=100)
    """How many machine kinds the learning phase tries."""

    revision: int = Field(1, ge=1, le=2**53)
    """Counts changes of template or filter: a worker launched from an older revision is due for an update."""

    @field_validator("search_params", mode="before")
    @classmethod
    def _search_params_are_bounded(cls, value: Any) -> Any:
        check_size(value, SEARCH_PARAMS_BYTES_MAX)
        return value

    @field_validator("launch_args", mode="before")
    @classmethod
    def _launch_args_are_bounded(cls, value: Any) -> Any:
        if isinstance(value, str) and (size := len(value.encode(errors="replace"))) > LAUNCH_ARGS_BYTES_MAX:
            raise TooLarge(f"at most {LAUNCH_ARGS_BYTES_MAX} bytes are taken; {size} came")
        return value

    @model_validator(mode="after")
    def _names_a_template(self) -> "Workergroup":
        if self.template_hash is None and self.template_id is None:
            raise ValueError("a workergroup needs template_hash or template_id")
        return self


def check_workergroups(groups: Sequence[Workergroup]) -> None:
    """Raises TooLarge when one endpoint cannot have all of these."""
    if len(groups) > WORKERGROUPS_MAX:
        raise TooLarge(
            f"workergroups: one endpoint has at most {WORKERGROUPS_MAX}; this would be number {len(groups)}"
        )
    size = sum(json_bytes(group) for group in groups)
    if size > WORKERGROUPS_BYTES_MAX:
        raise TooLarge(
            f"workergroups: those of one endpoint together take at most {WORKERGROUPS_BYTES_MAX} bytes; "
            f"these would take {size}. Shorten search_params and launch_args, or give a second endpoint a part"
        )
