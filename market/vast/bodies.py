"""Converts between the port's types and the bodies of the Vast REST API."""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from market.interface import Launch, Unavailable
from stoker_wire.market import Charge
from stoker_wire.parsing.ids import read_id

Row = TypeVar("Row", bound=BaseModel)


class Origin(NamedTuple):
    """The origin of a URL."""

    scheme: str
    host: str
    port: int


def create_body(launch: Launch) -> dict[str, Any]:
    """The body of a create call. `launch.extra` adds fields and cannot replace the launch's own."""
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


def read_rows(answer: Mapping[str, Any], name: str, doing: str) -> list[Mapping[str, Any]]:
    """The list of objects with that name. Raises Unavailable."""
    found = answer.get(name)
    if not isinstance(found, list) or not all(isinstance(row, Mapping) for row in found):
        raise Unavailable(f"{doing}: the market's answer has no list of {name}")
    return found


def read_row(model: type[Row], row: Mapping[str, Any], doing: str) -> Row:
    """A row as the given type; null counts as absent. Raises Unavailable."""
    try:
        return model.model_validate(_given(row))
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(map(str, fault["loc"])) for fault in error.errors()}))
        raise Unavailable(
            f"{doing}: the market sent an invalid {model.__name__} (fields: {fields})"
        ) from None


def read_charge(row: Mapping[str, Any], now: float) -> Charge | None:
    """A row of the bill; None if it is not an instance's or is invalid. One invalid row must not hide the others."""
    kind, _, number = str(row.get("source") or "").partition("-")
    metadata = row.get("metadata")
    instance_id = read_id(number)
    if kind != "instance" or instance_id is None:
        return None
    fields = {
        "instance_id": instance_id,
        "label": metadata.get("label") if isinstance(metadata, Mapping) else None,
        "dollars": row.get("amount"),
        "since": row.get("start"),
        "until": row.get("end") or now,
        "final": row.get("final"),
    }
    try:
        return read_row(Charge, fields, "charges")
    except Unavailable:
        return None


def merge_charges(one: Charge, other: Charge) -> Charge:
    """The sum of two rows of one instance."""
    return one.model_copy(
        update={
            "dollars": one.dollars + other.dollars,
            "since": min(one.since, other.since),
            "until": max(one.until, other.until),
            "final": one.final and other.final,
        }
    )


def origin(address: str) -> Origin | None:
    """The origin of a URL; None if it is not an http(s) URL without credentials."""
    try:
        url = httpx.URL(address)
    except (httpx.InvalidURL, TypeError):
        return None
    if url.scheme not in ("http", "https") or not url.host or url.userinfo:
        return None
    return Origin(url.scheme, url.host, url.port or {"http": 80, "https": 443}[url.scheme])
