"""A call of the marketplace counts only with a fresh signature over exactly its bytes."""

import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from market.vast.notifications import MarketEvent, NotAuthentic, read_event

SECRET = b"a secret that the console showed once"
NOW = 1_772_490_000
BODY = json.dumps(
    {"event_id": "e1", "user_id": 1, "notif_type": "instance_offline", "subject": "s", "message": "m", "timestamp": NOW + 0.123}
).encode()  # fmt: skip


def signed(body: bytes, at: int = NOW, secret: bytes = SECRET) -> CIMultiDict[str]:
    digest = hmac.new(secret, f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return CIMultiDict({"x-vast-timestamp": str(at), "X-VAST-SIGNATURE-256": f"sha256={digest}"})


def test_a_signed_event_is_read():
    assert read_event(signed(BODY), BODY, SECRET, NOW + 299) == MarketEvent(id="e1", kind="instance_offline")


@pytest.mark.parametrize(
    ("fields", "ids"),
    [
        ({"instance_id": 7}, {7}),
        ({"contract_id": "8"}, {8}),
        ({"instance_ids": [1, "2", None, True, -3, 1.5, "x", 2**70]}, {1, 2}),
        ({"instance_id": {"id": 7}}, set()),
    ],
)
def test_the_instance_is_read_where_one_is_named(fields, ids):
    body = json.dumps({"event_id": "e1"} | fields).encode()
    assert read_event(signed(body), body, SECRET, NOW).instance_ids == ids


@pytest.mark.parametrize(
    ("headers", "now"),
    [
        (signed(BODY, secret=b"another secret"), NOW),
        (signed(BODY + b" "), NOW),
        (CIMultiDict({**signed(BODY), "x-vast-timestamp": str(NOW + 1)}), NOW),
        (signed(BODY), NOW + 301),
        (signed(BODY, at=NOW + 301), NOW),
        (CIMultiDict(), NOW),
        (CIMultiDict({"X-Vast-Timestamp": str(NOW)}), NOW),
        (CIMultiDict({"X-Vast-Timestamp": str(NOW), "X-Vast-Signature-256": "sha256=é"}), NOW),
        (CIMultiDict({"X-Vast-Timestamp": "9" * 5000, "X-Vast-Signature-256": "sha256="}), NOW),
        (CIMultiDict({"X-Vast-Timestamp": f" {NOW}", "X-Vast-Signature-256": "sha256="}), NOW),
    ],
)
def test_a_call_without_a_fresh_signature_is_refused(headers, now):
    with pytest.raises(NotAuthentic) as caught:
        read_event(headers, BODY, SECRET, now)
    assert SECRET.decode() not in str(caught.value)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b"\xff", b'{"event_id": 5}', b'{"event_id": ""}', b"[" * 60_000]
)
def test_a_signed_body_that_is_no_event_is_an_error(body):
    with pytest.raises(ValueError, match="the body should"):
        read_event(signed(body), body, SECRET, NOW)


@given(st.binary(max_size=200))
def test_any_signed_body_is_an_event_or_a_described_error(body):
    fault = ""
    try:
        read_event(signed(body), body, SECRET, NOW)
    except ValueError as error:
        fault = str(error)
    assert not fault or fault.startswith("the body should")
