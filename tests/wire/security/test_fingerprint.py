"""All copies of a request have one fingerprint, and no two requests share one."""

import json

from hypothesis import given
from hypothesis import strategies as st

from stoker_wire.security.fingerprint import CANONICAL_BYTES_MAX, FINGERPRINT_CHARS, fingerprint

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=4), values, max_size=5))
def test_blanks_and_the_order_of_keys_do_not_count(payload):
    turned = dict(reversed(payload.items()))
    mark = fingerprint("/x", json.dumps(payload).encode())
    assert fingerprint("/x", json.dumps(turned, indent=3, ensure_ascii=False).encode()) == mark
    assert len(mark) == FINGERPRINT_CHARS


@given(values, values)
def test_other_payloads_have_other_fingerprints(one, other):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    marks = fingerprint("/x", json.dumps(one).encode()), fingerprint("/x", json.dumps(other).encode())
    assert (marks[0] == marks[1]) is same


def test_the_route_counts():
    assert fingerprint("/a", b"{}") != fingerprint("/b", b"{}")


@given(st.binary(max_size=40))
def test_a_payload_that_is_not_json_is_hashed_as_it_is(payload):
    assert fingerprint("/x", payload) == fingerprint("/x", payload)


def test_depth_and_size_are_no_obstacle():
    deep = b"[" * 100_000
    assert fingerprint("/x", deep) != fingerprint("/x", deep + b"[")
    large = b'"' + b"x" * 1_000_000 + b'"'
    assert fingerprint("/x", large) != fingerprint("/x", large + b" ")


def test_blanks_count_in_a_payload_that_is_too_large_to_be_sorted():
    def padded(size):
        blanks = size - len(b'{"a":1}')
        return b'{"a":' + b" " * blanks + b"1}"

    plain = fingerprint("/x", b'{"a":1}')
    assert fingerprint("/x", padded(CANONICAL_BYTES_MAX)) == plain
    assert fingerprint("/x", padded(CANONICAL_BYTES_MAX + 1)) != plain
