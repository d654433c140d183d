"""The Vast REST API's answers, translated once into the port's errors."""

import email.utils
import time
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import httpx

from market.port import InstanceGone, MarketError, OfferGone, RateLimited, Refused, Unauthorised, Unavailable
from stoker_wire.parsing.numbers import read_number

About = Literal["offer", "instance", "template", "account"]

SAID_MAX = 200
SECRET_LENGTH_MIN = 6
"""Shorter values occur in ordinary words by chance."""

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
    """The error that an answer means. `doing` names the call, e.g. `create on offer 7`; secrets are cut out of the market's words."""
    code, said = _code(body), _said(body, secrets)
    what = (
        f"{doing}: the market answered {status}"
        + (f" {code}" if code else "")
        + (f": {said}" if said else "")
    )
    if status == 429 or code in _LIMITED:
        return RateLimited(what, retry_after_s=retry_after(headers.get("Retry-After")))
    if status in (401, 403):
        unknown_key = status == 401 or _BY_CODE.get(code) is Unauthorised
        return (Unauthorised if unknown_key else Refused)(what, code=code or str(status))
    if status >= 500 or status in (408, 425) or 300 <= status < 400:
        return Unavailable(what)
    if not isinstance(body, Mapping):
        # A proxy's page or a wrong address: "not found" of such an answer must not pass for an instance that vanished.
        return Unavailable(f"{what}, which is no answer of a marketplace: check its address")
    kind = _BY_CODE.get(code)
    if kind is not None and not issubclass(kind, Refused):
        return kind(what)
    if status == 410 and about == "offer":
        return OfferGone(what)
    if status in (404, 410) and about == "instance" and _names(said, code, "instance"):
        return InstanceGone(what)
    if status in (404, 410) and about == "instance" and code == "":
        # Nor the JSON of a proxy that knows no such path: the machine runs on, and is paid.
        return Unavailable(f"{what}, which does not speak of the instance")
    if status == 404 and about == "offer" and (code == "" or _names(said, code, "no_such_ask")):
        return OfferGone(what)
    return (kind if kind is not None else Refused)(what, code=code or str(status))


def _names(said: str, code: str, thing: str) -> bool:
    """Whether a vague code is made clear by the sentence: the hosted marketplace says `not_found` of an instance and of a
    path, and `invalid_args` of an offer that is taken and of a template that does not exist.

    A path that it repeats does not count: a server that has no route `/api/v0/instances/7/` says nothing of instance 7."""
    words = " ".join(word for word in said.lower().split() if "/" not in word)
    return (code == "" or code in _VAGUE) and thing in words


def no_answer(error: httpx.HTTPError | httpx.InvalidURL, doing: str) -> Unavailable:
    """The call had no answer; only the kind of fault is named, since its text may hold the address with what is in it."""
    return Unavailable(f"{doing}: no answer from the market ({type(error).__name__})")


def retry_after(value: str | None) -> float | None:
    """Seconds to wait, from seconds or from an HTTP date; None if it says neither."""
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


def _said(body: Any, secrets: Iterable[str]) -> str:
    if not isinstance(body, Mapping):
        return ""
    said = body.get("msg") or body.get("message") or body.get("detail")
    if not isinstance(said, str):
        return ""
    for secret in sorted({one for one in secrets if len(one) >= SECRET_LENGTH_MIN}, key=len, reverse=True):
        said = said.replace(secret, "[hidden]")
    said = " ".join("".join(char if char.isprintable() else " " for char in said).split())
    return said if len(said) <= SAID_MAX else f"{said[: SAID_MAX - 1]}…"
