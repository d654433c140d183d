"""Tokens, keys and tickets: valid and invalid ones."""

import base64
import hmac
import math
import string
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stoker_wire.security.ticket import (
    TICKET_SECONDS,
    Ticket,
    TicketRefused,
    sign_ticket,
    ticket_mac,
    verify_ticket,
)
from stoker_wire.security.token import (
    endpoint_key_matches,
    mint_endpoint_key,
    mint_worker_token,
    read_worker_token,
    ticket_key,
)

SECRET = b"a secret of this deployment"
TOKEN = mint_worker_token(SECRET, 7, "0a1b2c3d4e5f")
KEY = ticket_key(TOKEN)
TICKET = Ticket(e="llm", w="0a1b2c3d4e5f", c=256.0, r=9, n=1, x=1000.0)

launch_ids = st.text("0123456789abcdef", min_size=12, max_size=12)


@given(st.integers(1, 2**31), launch_ids)
def test_a_worker_token_names_its_endpoint_and_launch(endpoint_id, launch_id):
    assert read_worker_token(SECRET, mint_worker_token(SECRET, endpoint_id, launch_id)) == (
        endpoint_id,
        launch_id,
    )


def test_a_worker_token_of_another_deployment_is_refused():
    assert read_worker_token(b"another secret", TOKEN) is None


@given(st.integers(0, len(TOKEN) - 1), st.sampled_from(string.printable))
def test_no_changed_worker_token_is_accepted(place, character):
    changed = TOKEN[:place] + character + TOKEN[place + 1 :]
    if changed != TOKEN:
        assert read_worker_token(SECRET, changed) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "7",
        "x.y.z",
        "7.a",
        "7.a.b.c",
        "\N{ARABIC-INDIC DIGIT SEVEN}.a.b",
        "-7.a.b",
        "7.ä.b",
        "9" * 5000 + ".a.b",
    ],
)
def test_text_that_is_not_a_worker_token_is_none(text):
    assert read_worker_token(SECRET, text) is None


def test_an_endpoint_key_opens_its_endpoint_in_its_version_only():
    key = mint_endpoint_key(SECRET, 7, 1)
    assert key.startswith("sk-ep-7-1-")
    assert endpoint_key_matches(SECRET, key, 7, 1)
    assert not endpoint_key_matches(SECRET, key, 8, 1)
    assert not endpoint_key_matches(SECRET, key, 7, 2)
    assert not endpoint_key_matches(b"another", key, 7, 1)
    assert not endpoint_key_matches(SECRET, "", 7, 1)
    assert not endpoint_key_matches(SECRET, "schlüssel", 7, 1)
    assert not endpoint_key_matches(SECRET, "\ud800", 7, 1)


def test_a_worker_token_is_not_an_endpoint_key_and_ids_are_separated():
    assert mint_worker_token(SECRET, 1, "12") != mint_worker_token(SECRET, 11, "2")
    assert mint_worker_token(SECRET, 1, "1").split(".")[-1] != mint_endpoint_key(SECRET, 1, 1).split("-")[-1]


def test_a_ticket_opens_its_worker_until_it_expires():
    text = sign_ticket(TICKET, KEY)
    assert verify_ticket(text, KEY, worker=TICKET.w, now=999.0) == TICKET
    assert verify_ticket(text, KEY, worker=TICKET.w, now=1000.0) == TICKET
    with pytest.raises(TicketRefused, match=r"expired 1500\.5 s ago") as caught:
        verify_ticket(text, KEY, worker=TICKET.w, now=2500.5)
    assert caught.value.code == "ticket_expired"
    assert TICKET_SECONDS >= 30


def test_a_ticket_does_not_open_another_worker():
    other = ticket_key(mint_worker_token(SECRET, 7, "ffffffffffff"))
    with pytest.raises(TicketRefused) as caught:
        verify_ticket(sign_ticket(TICKET, KEY), other, worker="ffffffffffff", now=0)
    assert caught.value.code == "ticket_forged"
    for worker in ("ffffffffffff", "000000000000"):
        with pytest.raises(TicketRefused) as caught:
            verify_ticket(sign_ticket(TICKET, KEY), KEY, worker=worker, now=0)
        assert caught.value.code == "ticket_for_another_worker"


def test_during_a_key_rotation_a_ticket_carries_two_signatures_and_no_third_is_checked():
    new, old = ticket_key("7.a.new"), ticket_key("7.a.old")
    assert verify_ticket(sign_ticket(TICKET, new, old), old, worker=TICKET.w, now=0) == TICKET
    with pytest.raises(TicketRefused) as caught:
        verify_ticket(sign_ticket(TICKET, new, new, old), old, worker=TICKET.w, now=0)
    assert caught.value.code == "ticket_forged"


@pytest.mark.parametrize("field", ["c", "x"])
@pytest.mark.parametrize("value", ["5", "", -0.5, math.inf, math.nan, None, True])
def test_cost_and_expiry_are_finite_numbers_that_are_not_negative(field, value):
    replace(TICKET, **{field: 0}).check()
    with pytest.raises(ValueError, match="fields of a ticket"):
        replace(TICKET, **{field: value}).check()


@pytest.mark.parametrize(
    ("field", "value"),
    [("e", 1), ("w", None), ("r", 1.0), ("n", True), ("n", "1"), ("b", "x"), ("b", ("x", 1))],
)
def test_names_are_text_and_indices_are_whole_numbers(field, value):
    with pytest.raises(ValueError, match="fields of a ticket"):
        replace(TICKET, **{field: value}).check()


@given(st.data())
def test_no_changed_ticket_is_accepted(data):
    text = sign_ticket(TICKET, KEY)
    place = data.draw(st.integers(0, len(text) - 1))
    character = data.draw(st.characters())
    changed = text[:place] + character + text[place + 1 :]
    if changed != text:
        with pytest.raises(TicketRefused):
            verify_ticket(changed, KEY, worker=TICKET.w, now=0)


@given(
    st.text(st.characters(exclude_categories=()), max_size=200)
)  # also lone surrogates, which JSON can contain
def test_no_text_is_a_ticket(text):
    with pytest.raises(TicketRefused) as caught:
        verify_ticket(text, KEY, worker=TICKET.w, now=0)
    assert "route again" in str(caught.value)


def test_a_ticket_of_another_version_is_refused_not_crashed_on():
    import base64
    import hashlib
    import hmac

    for body in (b'{"e":"llm","w":"x","z":1}', b"[]", b"null", b"7", b"not json", b"\xff"):
        encoded = base64.urlsafe_b64encode(body).rstrip(b"=")
        mac = base64.urlsafe_b64encode(hmac.digest(KEY, encoded, hashlib.sha256)).rstrip(b"=")
        with pytest.raises(TicketRefused) as caught:
            verify_ticket((encoded + b"." + mac).decode(), KEY, worker=TICKET.w, now=0)
        assert caught.value.code == "ticket_unreadable"


@given(
    st.builds(
        Ticket,
        e=st.text(string.ascii_letters, min_size=1),
        w=launch_ids,
        c=st.floats(0, 1e12),
        r=st.integers(1, 2**53),
        n=st.integers(0, 2**53),
        b=st.lists(st.text(max_size=5), max_size=3).map(tuple),
        x=st.floats(1, 1e10),
    )
)
def test_every_ticket_survives_its_journey(ticket):
    assert verify_ticket(sign_ticket(ticket, KEY), KEY, worker=ticket.w, now=0) == ticket


@given(st.binary(max_size=200), st.binary(max_size=300))
@example(b"k" * 64, b"body")
@example(b"k" * 65, b"body")
def test_the_signature_of_a_ticket_is_hmac_sha256(key, body):
    assert base64.urlsafe_b64decode(ticket_mac(key, body) + b"=") == hmac.digest(key, body, "sha256")
