"""Request bodies of the REST API."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, field_validator

from market.query import Filters, GrammarError, Order, parse_env, parse_filters, parse_order
from stoker_wire.base import TolerantModel
from stoker_wire.errors.problem import Problem
from stoker_wire.parsing.numbers import finite

LIMIT_MAX = 1000
TYPES = ("on-demand", "ondemand", "bid", "interruptible", "reserved")

EnvValue = str | int | float | bool | None


class _Runs(TolerantModel):
    """The fields of create and update that define the code to run."""

    image: str | None = Field(None, max_length=512)
    env: dict[str, EnvValue] | str | None = Field(None, repr=False)
    onstart: str | None = Field(None, max_length=65536, repr=False)
    args: list[str] | str | None = Field(None, repr=False)
    args_str: str | None = Field(None, max_length=65536, repr=False)
    template_hash_id: str | None = Field(None, max_length=255)
    template_id: int | None = None

    @field_validator("env")
    @classmethod
    def _env_can_be_set(cls, env: Any) -> Any:
        if isinstance(env, str):
            try:
                return parse_env(env)
            except GrammarError as error:
                raise ValueError(str(error)) from None
        for name, value in (env or {}).items():
            if not name or "=" in name or "\0" in name or "\0" in str(value):
                raise ValueError("a variable's name must not be empty or contain =, and NUL is not allowed")
        return env

    @field_validator("onstart", "args_str")
    @classmethod
    def _no_nul(cls, text: str | None) -> str | None:
        if text is not None and "\0" in text:
            raise ValueError("a command must not contain NUL")
        return text

    def env_map(self) -> dict[str, str]:
        """The variables as text, without those that are null."""
        if not isinstance(self.env, dict):
            return {}
        return {name: _text(value) for name, value in self.env.items() if value is not None}

    def args_list(self) -> list[str]:
        """The arguments as a list; text is split as a shell would. Raises Problem."""
        if isinstance(self.args, list):
            words = list(self.args)
        else:
            try:
                words = shlex.split(self.args or self.args_str or "")
            except ValueError as error:
                raise Problem(400, "invalid_args", f"args: {error}") from None
        if any("\0" in word for word in words):
            raise Problem(400, "invalid_args", "args: NUL cannot stand in an argument")
        return words


class CreateBody(_Runs):
    """`PUT /api/v0/asks/{id}/`."""

    price: float | None = Field(None, gt=0)
    disk: float | None = Field(None, gt=0)
    label: str | None = Field(None, max_length=1024)
    runtype: str | None = Field(None, max_length=255)
    target_state: Literal["running", "stopped"] | None = None
    cancel_unavail: bool | None = None


class TemplateChange(_Runs):
    """`PUT /api/v0/instances/update_template/{id}/`."""


class InstanceChange(TolerantModel):
    """`PUT /api/v0/instances/{id}/`."""

    state: Literal["running", "stopped"] | None = None
    label: str | None = Field(None, max_length=1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferSearch:
    """A validated search for offers."""

    filters: Filters
    order: Order
    limit: int
    type: str
    allocated_storage: float

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> "OfferSearch":
        """The search in a request body. Raises Problem 400 invalid_args."""
        kind = body.get("type") or "on-demand"
        if kind not in TYPES:
            raise Problem(
                400, "invalid_args", f"type must be one of {', '.join(TYPES)}, not {str(kind)[:40]!r}"
            )
        try:
            return cls(
                filters=parse_filters(body),
                order=parse_order(body.get("order") or []),
                limit=int(min(LIMIT_MAX, _number(body, "limit", LIMIT_MAX, least=1))),
                type=str(kind),
                allocated_storage=_number(body, "allocated_storage", 5.0, least=0),
            )
        except GrammarError as error:
            raise Problem(400, "invalid_args", str(error)) from None


def _number(body: Mapping[str, Any], name: str, default: float, *, least: float) -> float:
    value = body.get(name)
    if value is None:
        return default
    number = finite(value)
    if number is None or number < least:
        raise GrammarError(f"{name} must be a number of at least {least:g}, got {str(value)[:40]!r}")
    return number


def _text(value: EnvValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
