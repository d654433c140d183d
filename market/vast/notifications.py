"""Vast.ai's notification webhooks: their signature, and what they say.

Source: https://docs.vast.ai/guides/reference/notification-webhooks. The body's fields are `event_id`, `user_id`,
`notif_type`, `subject`, `message` and `timestamp`. Vast.ai documents no field for the instance; if one of the names in
`_INSTANCE_FIELDS` is there, its value is used.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from stoker_wire.parsing.limits import shortened

BODY_BYTES_MAX = 64 * 1024
AGE_SECONDS_MAX = 300.0
"""A signed time that differs more than this from now is refused, as Vast.ai advises."""
TIMESTAMP = "X-Vast-Timestamp"
SIGNATURE = "X-Vast-Signature-256"
_TIME = re.compile(r"[0-9]{1,12}")
_INSTANCE_FIELDS = ("instance_id", "contract_id", "instance_ids", "contract_ids")
_INSTANCES_MAX = 100
_ID_MAX = 2**53


class NotAuthentic(Exception):
    """The call was not signed with the webhook's secret, or not lately."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketEvent:
    """Something that changed on the marketplace account."""

    id: str
    """The same for every delivery of the event."""
    kind: str
    """`notif_type`, such as `instance_offline` or `outbid`; texts of the event are not kept."""
    instance_ids: frozenset[int] = frozenset()
    """Empty: the event names none."""


def read_event(headers: Mapping[str, str], body: bytes, secret: bytes, now: float) -> MarketEvent:
    """The event of a call that is signed with the secret.

    Args:
        headers: case-insensitive.

    Raises:
        NotAuthentic: the signature is missing or wrong, or the signed time is more than five minutes away.
        ValueError: the signed body is not a JSON object with an id.
    """
    timestamp = headers.get(TIMESTAMP, "")
    if not _TIME.fullmatch(timestamp):
        raise NotAuthentic(f"{TIMESTAMP} should be Unix seconds")
    signed = hmac.new(secret, f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    given = headers.get(SIGNATURE, "").encode(errors="replace")
    if not hmac.compare_digest(f"sha256={signed}".encode(), given):
        raise NotAuthentic(f"{SIGNATURE} is not that of the webhook's secret")
    if abs(now - int(timestamp)) > AGE_SECONDS_MAX:
        raise NotAuthentic(f"{TIMESTAMP} is more than {AGE_SECONDS_MAX:.0f} s away from this clock")
    return _event(body)


def _event(body: bytes) -> MarketEvent:
    try:
        fields = msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        raise ValueError(f"the body should be a JSON object: {fault}"[:200]) from None
    event_id = fields.get("event_id")
    if not isinstance(event_id, str) or not event_id:
        raise ValueError("the body should have an event_id")
    kind = fields.get("notif_type")
    return MarketEvent(
        id=shortened(event_id, 128),
        kind=shortened(kind, 64) if isinstance(kind, str) else "",
        instance_ids=frozenset(_ids(fields)),
    )


def _ids(fields: Mapping[str, object]) -> list[int]:
    found: list[int] = []
    for name in _INSTANCE_FIELDS:
        value = fields.get(name)
        for each in value[:_INSTANCES_MAX] if isinstance(value, list) else [value]:
            if isinstance(each, str) and each.isascii() and each.isdigit() and len(each) < 17:
                found.append(int(each))
            elif isinstance(each, int) and not isinstance(each, bool) and 0 < each < _ID_MAX:
                found.append(each)
    return found
