"""What goes to the Vast REST API and what comes back, as our types."""

import ipaddress
from collections.abc import Mapping
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from market.port import Launch, Unavailable
from stoker_wire.market import Charge
from stoker_wire.parsing.ids import read_id

Row = TypeVar("Row", bound=BaseModel)
Origin = tuple[str, str, int]
"""Scheme, host and port."""


def create_body(launch: Launch) -> dict[str, Any]:
    """The body of a create call; `launch.extra` adds fields but changes none of the launch's own."""
    own = {
        "client_id": "me",
        "env": dict(launch.env),
        "disk": launch.disk_gb,
        "label": launch.label,
        "cancel_unavail": True,
        **_given(_code(launch), runtype=launch.runtype, price=launch.bid_dollars_per_hour),
    }
    return {**launch.extra, **own}


def update_body(instance_id: int, launch: Launch) -> dict[str, Any]:
    """The body of an update_template call."""
    return {"id": instance_id, "env": dict(launch.env), **_given(_code(launch))}


def _code(launch: Launch) -> dict[str, Any]:
    return {
        "template_hash_id": launch.template_hash,
        "template_id": launch.template_id if launch.template_hash is None else None,
        "image": launch.image,
        "onstart": launch.onstart,
        "args": list(launch.args) if launch.args is not None else None,
    }


def _given(fields: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {name: value for name, value in {**fields, **more}.items() if value is not None}


def rows(answer: Mapping[str, Any], name: str, doing: str) -> list[Mapping[str, Any]]:
    """The list of objects under that name. Raises Unavailable."""
    found = answer.get(name)
    if not isinstance(found, list) or not all(isinstance(row, Mapping) for row in found):
        raise Unavailable(f"{doing}: the market's answer holds no list of {name}")
    return found


def read(model: type[Row], row: Mapping[str, Any], doing: str) -> Row:
    """A row as our type; null means "not said", as an absent field does. Raises Unavailable."""
    try:
        return model.model_validate(_given(row))
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(map(str, fault["loc"])) for fault in error.errors()}))
        raise Unavailable(
            f"{doing}: the market sent a {model.__name__} that cannot be read ({fields})"
        ) from None


def charge_of(row: Mapping[str, Any], now: float) -> Charge | None:
    """A row of the bill; None if it is not an instance's, or cannot be read: one odd row must not hide the others."""
    kind, _, number = str(row.get("source") or "").partition("-")
    metadata = row.get("metadata")
    instance_id = read_id(number)
    if kind != "instance" or instance_id is None:
        return None
    said = {
        "instance_id": instance_id,
        "label": metadata.get("label") if isinstance(metadata, Mapping) else None,
        "dollars": row.get("amount"),
        "since": row.get("start"),
        "until": row.get("end") or now,
        "final": row.get("final"),
    }
    try:
        return read(Charge, said, "charges")
    except Unavailable:
        return None


def together(one: Charge, other: Charge) -> Charge:
    """Two rows of one instance."""
    return one.model_copy(
        update={
            "dollars": one.dollars + other.dollars,
            "since": min(one.since, other.since),
            "until": max(one.until, other.until),
            "final": one.final and other.final,
        }
    )


def origin(address: str) -> Origin | None:
    """Where an address points; None if it is not a plain http(s) address."""
    try:
        url = httpx.URL(address)
    except (httpx.InvalidURL, TypeError):
        return None
    if url.scheme not in ("http", "https") or not url.host or url.userinfo:
        return None
    return (url.scheme, url.host, url.port or {"http": 80, "https": 443}[url.scheme])


def is_loopback(where: Origin) -> bool:
    """Whether it is this machine."""
    try:
        return where[1] == "localhost" or ipaddress.ip_address(where[1].strip("[]")).is_loopback
    except ValueError:
        return False
