"""Translates error answers of the Vast REST API into the port's errors."""

import email.utils
import time
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import httpx

from market.interface import (
    InstanceGone,
    MarketError,
    OfferGone,
    RateLimited,
    Refused,
    Unauthorised,
    Unavailable,
)
from stoker_wire.parsing.numbers import read_number

About = Literal["offer", "instance", "template", "account"]

MESSAGE_CHARS_MAX = 200
SECRET_CHARS_MIN = 6
"""Shorter values are not redacted: they occur in ordinary words by chance."""

_BY_CODE: dict[str, type[MarketError]] = {
    "no_such_ask": OfferGone,
    "ask_unavailable": OfferGone,
    "no_such_instance": InstanceGone,
    "auth_error": Unauthorised,
    "invalid_api_key": Unauthorised,
}
_VAGUE = frozenset({"not_found", "invalid_id", "invalid_args"})
_LIMITED = frozenset({"too_many_requests", "rate_limited", "search_quota_exceeded"})


def failure(
    status: int,
    body: Any,
    headers: Mapping[str, str],
    *,
    about: About,
    doing: str,
    secrets: Iterable[str] = (),
) -> MarketError:
    """The error for an answer. `doing` names the call, e.g. `create on offer 7`; `secrets` are redacted."""
    code, message = _code(body), _message(body, secrets)
    what = (
        f"{doing}: the market answered {status}"
        + (f" {code}" if code else "")
        + (f": {message}" if message else "")
    )
    if status == 429 or code in _LIMITED:
        return RateLimited(what, retry_after_s=retry_after(headers.get("Retry-After")))
    if status in (401, 403):
        unknown_key = status == 401 or _BY_CODE.get(code) is Unauthorised
        return (Unauthorised if unknown_key else Refused)(what, code=code or str(status))
    if status >= 500 or status in (408, 425) or 300 <= status < 400:
        return Unavailable(what)
    if not isinstance(body, Mapping):
        # A proxy's page or a wrong address: its "not found" does not mean that an instance vanished.
        return Unavailable(f"{what}, which is not a marketplace's answer: check its address")
    kind = _BY_CODE.get(code)
    if kind is not None and not issubclass(kind, Refused):
        return kind(what)
    if status == 410 and about == "offer":
        return OfferGone(what)
    if status in (404, 410) and about == "instance" and _mentions(message, code, "instance"):
        return InstanceGone(what)
    if status in (404, 410) and about == "instance" and code == "":
        # A proxy's JSON for an unknown path does not mean that the instance vanished either.
        return Unavailable(f"{what}, which does not mention the instance")
    if status == 404 and about == "offer" and (code == "" or _mentions(message, code, "no_such_ask")):
        return OfferGone(what)
    return (kind if kind is not None else Refused)(what, code=code or str(status))


def _mentions(message: str, code: str, thing: str) -> bool:
    """Whether the message of an answer with a vague code mentions the thing.

    The hosted marketplace uses `not_found` for instances and paths, and `invalid_args` for taken offers and unknown
    templates. Paths in the message are ignored: "no route /api/v0/instances/7/" is not about instance 7.
    """
    words = " ".join(word for word in message.lower().split() if "/" not in word)
    return (code == "" or code in _VAGUE) and thing in words


def no_answer(error: httpx.HTTPError | httpx.InvalidURL, doing: str) -> Unavailable:
    """The error for a call without an answer. It names only the error's type: the text may contain the address."""
    return Unavailable(f"{doing}: no answer from the market ({type(error).__name__})")


def retry_after(value: str | None) -> float | None:
    """Seconds to wait, from a number or an HTTP date; None if the header is neither."""
    if not value:
        return None
    seconds = read_number(value)
    if seconds is None:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return min(max(0.0, seconds), 86_400.0)


def _code(body: Any) -> str:
    code = body.get("error") if isinstance(body, Mapping) else None
    return (
        "".join(char for char in code if char.isalnum() or char in "_-")[:64] if isinstance(code, str) else ""
    )


def _message(body: Any, secrets: Iterable[str]) -> str:
    if not isinstance(body, Mapping):
        return ""
    text = body.get("msg") or body.get("message") or body.get("detail")
    if not isinstance(text, str):
        return ""
    for secret in sorted({one for one in secrets if len(one) >= SECRET_CHARS_MIN}, key=len, reverse=True):
        text = text.replace(secret, "[hidden]")
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= MESSAGE_CHARS_MAX else f"{text[: MESSAGE_CHARS_MAX - 1]}…"
