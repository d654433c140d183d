"""A request needs a valid ticket: for this worker, unexpired, unused, and with a sufficient cost."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker_pyworker.proxy import tickets as tickets_module
from stoker_pyworker.proxy.tickets import TicketVerifier, verify_ticket_fast
from stoker_wire.errors.problem import Problem
from stoker_wire.security.ticket import Ticket, TicketRefused, sign_ticket, verify_ticket
from stoker_wire.security.token import mint_worker_token
from tests.pyworker.harness import LAUNCH, handlers, until

KEY = b"k" * 32


def status_for(open_, text, key=KEY, worker=LAUNCH, now=1000.0):
    try:
        return open_(text, key, worker=worker, now=now)
    except TicketRefused as refused:
        return refused.code


tickets = st.builds(
    Ticket,
    e=st.text(max_size=20),
    w=st.sampled_from([LAUNCH, "ffffffffffff", ""]),
    c=st.floats(0, 1e12),
    r=st.integers(0, 2**53),
    n=st.integers(0, 1000),
    x=st.floats(990, 1010),
)


@given(tickets)
def test_verify_ticket_fast_agrees_with_verify_ticket_on_signed_tickets(ticket):
    text = sign_ticket(ticket, KEY)
    assert status_for(verify_ticket_fast, text) == status_for(verify_ticket, text)


@given(st.one_of(st.text(max_size=80), st.text("ab.=-_", max_size=60)))
def test_verify_ticket_fast_agrees_with_verify_ticket_on_arbitrary_text(text):
    assert status_for(verify_ticket_fast, text) == status_for(verify_ticket, text)


@given(tickets, st.integers(0, 300), st.integers(0, 255))
def test_a_changed_ticket_is_refused_by_both(ticket, at, byte):
    text = sign_ticket(ticket, KEY).encode()
    at %= len(text)
    if text[at] == byte:
        return
    changed = (text[:at] + bytes([byte]) + text[at + 1 :]).decode("latin-1")
    assert status_for(verify_ticket_fast, changed) == status_for(verify_ticket, changed) == "ticket_forged"


@pytest.mark.parametrize("cost", [0, 0.5, 1e12])
@pytest.mark.parametrize("expires_in", [0, 0.5, 60])
def test_a_plainly_valid_ticket_does_not_need_the_slow_check(monkeypatch, cost, expires_in):
    monkeypatch.setattr(tickets_module, "verify_ticket", None)
    ticket = Ticket(e="e", w=LAUNCH, c=cost, r=1, n=1, x=1000.0 + expires_in)
    assert verify_ticket_fast(sign_ticket(ticket, KEY), KEY, worker=LAUNCH, now=1000.0) == ticket


@pytest.mark.parametrize("other", ["000000000000", "zzzzzzzzzzzz"])
def test_a_ticket_of_another_worker_is_refused(other):
    text = sign_ticket(Ticket(e="e", w=other, c=1, r=1, n=1, x=2000), KEY)
    assert status_for(verify_ticket_fast, text) == "ticket_for_another_worker"


@pytest.mark.parametrize("text", ["", ".", "\ud800", "\ud800.\ud800"])
def test_a_text_that_is_no_ticket_is_refused_with_401(text):
    code = "ticket_forged" if text else "ticket_missing"
    assert refusal(TicketVerifier(KEY, LAUNCH), text, 1000.0) == code


def test_a_ticket_of_another_key_is_forged():
    text = sign_ticket(Ticket(e="e", w=LAUNCH, c=1, r=1, n=1, x=2000), b"other")
    assert status_for(verify_ticket_fast, text) == "ticket_forged"


def test_a_used_ticket_is_forgotten_once_it_has_expired():
    verifier = TicketVerifier(KEY, LAUNCH)
    for number in range(1000):
        now = 1000.0 + number
        ticket = verifier.verify(
            sign_ticket(Ticket(e="e", w=LAUNCH, c=1, r=number, n=1, x=now + 60), KEY), now
        )
        verifier.mark_used(ticket, now)
    # One ticket a second with 60 s of lifetime, rounded up to buckets of 10 s.
    assert 60 <= verifier.used_count <= 80


def test_a_ticket_is_accepted_once():
    verifier = TicketVerifier(KEY, LAUNCH)
    text = sign_ticket(Ticket(e="e", w=LAUNCH, c=1, r=5, n=2, x=1060), KEY)
    verifier.mark_used(verifier.verify(text, 1000.0), 1000.0)
    with pytest.raises(Problem) as refused:
        verifier.verify(text, 1000.0)
    assert (refused.value.status, refused.value.code) == (401, "ticket_used")
    # Routing the request again gives another ticket.
    verifier.verify(sign_ticket(Ticket(e="e", w=LAUNCH, c=1, r=5, n=3, x=1060), KEY), 1000.0)


def test_setting_the_clock_back_does_not_accept_a_used_ticket():
    verifier = TicketVerifier(KEY, LAUNCH)
    used = sign_ticket(Ticket(e="e", w=LAUNCH, c=1, r=1, n=1, x=1060), KEY)
    verifier.mark_used(verifier.verify(used, 1000.0), 1000.0)
    later = sign_ticket(Ticket(e="e", w=LAUNCH, c=1, r=2, n=1, x=1600), KEY)
    verifier.mark_used(verifier.verify(later, 1540.0), 1540.0)
    assert refusal(verifier, used, 1000.0) in {"ticket_used", "ticket_expired"}
    # tickets of later buckets are still accepted
    verifier.verify(sign_ticket(Ticket(e="e", w=LAUNCH, c=1, r=3, n=1, x=1550), KEY), 1000.0)


async def refused(worker, auth):
    answer = await worker.post("/echo", auth=auth)
    body = answer.json()
    assert body["success"] is False
    assert body["msg"]
    return answer.status_code, body["error"]


async def test_a_request_without_a_valid_ticket_never_reaches_the_model(worker, model, engine):
    before = len(model.seen)
    auth = worker.auth()
    assert await refused(worker, auth | {"ticket": auth["ticket"][:-4] + "AAAA"}) == (401, "ticket_forged")
    assert await refused(worker, auth | {"ticket": ""}) == (401, "ticket_missing")
    assert await refused(worker, auth | {"ticket": "é.ü"}) == (401, "ticket_forged")
    assert await refused(worker, worker.auth(expires_in=-1)) == (401, "ticket_expired")
    assert await refused(worker, worker.auth(worker="another-one0")) == (401, "ticket_for_another_worker")
    foreign = mint_worker_token(b"secret", 7, "fedcba987654")
    assert await refused(worker, worker.auth(token=foreign)) == (401, "ticket_forged")
    assert len([seen for seen in model.seen[before:] if seen.path != "/health"]) == 0
    # Requests without a ticket cause no reports.
    assert worker.runtime.counts.unreported == 0
    assert worker.runtime.counts.received == 0
    assert worker.runtime.counts.refused == 6


async def test_a_replayed_request_is_refused(worker):
    auth = worker.auth()
    assert (await worker.post("/echo", auth=auth)).status_code == 200
    assert await refused(worker, auth) == (401, "ticket_used")


async def test_the_request_index_comes_from_the_ticket(worker, engine):
    auth = worker.auth()
    true_index = auth["request_idx"]
    answer = await worker.post("/echo", auth=auth | {"request_idx": 999, "cost": 1e9})
    assert answer.status_code == 200
    await until(lambda: engine.finished)
    assert engine.finished[0]["request_idx"] == true_index
    await until(lambda: engine.total("new_load") == 100.0)


async def test_a_request_over_its_cost_is_refused_and_keeps_its_ticket(make_worker, engine):
    worker = await make_worker(handlers=handlers(workload_calculator=lambda payload: payload["max_tokens"]))
    auth = worker.auth(cost=64)
    answer = await worker.post("/echo", {"max_tokens": 65}, auth=auth)
    assert (answer.status_code, answer.json()["error"]) == (403, "ticket_cost_exceeded")
    assert (await worker.post("/echo", {"max_tokens": 64}, auth=auth)).status_code == 200
    await until(lambda: len(engine.finished) == 2)
    assert [item["status"] for item in engine.finished] == ["Rejected", "Success"]
    await until(lambda: engine.total("rej_load") == 65)


async def test_the_tolerance_over_a_tickets_cost_can_be_set(make_worker):
    calculated = handlers(workload_calculator=lambda payload: payload["max_tokens"])
    worker = await make_worker(handlers=calculated, cost_tolerance=1.5)
    assert (await worker.post("/echo", {"max_tokens": 96}, cost=64)).status_code == 200
    assert (await worker.post("/echo", {"max_tokens": 97}, cost=64)).status_code == 403


async def test_an_unsecured_worker_needs_no_ticket(make_worker):
    worker = await make_worker(settings={"unsecured": True})
    answer = await worker.client.post("/echo", json={"auth_data": {"cost": 5}, "payload": {"n": 1}})
    assert answer.json() == {"n": 1}


def sealed(request_idx, expires_at):
    return sign_ticket(Ticket(e="e", w=LAUNCH, c=1, r=request_idx, n=1, x=expires_at), KEY)


def refusal(verifier, text, now):
    with pytest.raises(Problem) as refused:
        verifier.verify(text, now)
    assert refused.value.status == 401
    return refused.value.code


def verifier_after_cleanup(now):
    """A verifier that has just forgotten the buckets before `now`, because a ticket of a new bucket was used."""
    verifier = TicketVerifier(KEY, LAUNCH)
    used = sealed(1, now + 0.5)
    verifier.mark_used(verifier.verify(used, now - 30), now - 30)
    newer = sealed(2, now + 60)
    verifier.mark_used(verifier.verify(newer, now), now)
    return verifier, used


@pytest.mark.parametrize("now", [1060.0, 1064.9, 1069.4])
def test_a_used_ticket_is_refused_up_to_its_last_moment(now):
    verifier, used = verifier_after_cleanup(now)
    assert refusal(verifier, used, now) == "ticket_used"
    assert refusal(verifier, used, now + 0.5) == "ticket_used"  # the time `x` itself is still valid
    assert refusal(verifier, used, now + 0.501) == "ticket_expired"


@pytest.mark.parametrize("now", [1060.0, 1064.9, 1069.4])
def test_an_unused_ticket_is_accepted_up_to_its_last_moment(now):
    verifier, _ = verifier_after_cleanup(now)
    unused = sealed(3, now + 0.5)
    assert verifier.verify(unused, now + 0.5).r == 3
    assert refusal(verifier, unused, now + 0.501) == "ticket_expired"


def test_only_completely_expired_buckets_are_forgotten():
    verifier = TicketVerifier(KEY, LAUNCH)
    for request_idx, expires_at in ((1, 1059.999), (2, 1060.0), (3, 1069.999)):
        verifier.mark_used(verifier.verify(sealed(request_idx, expires_at), 1000.0), 1000.0)
    verifier.mark_used(
        verifier.verify(sealed(4, 1120.0), 1060.0), 1060.0
    )  # bucket 1050 … 1059 has expired, 1060 … 1069 has not
    assert verifier.used_count == 3


REFUSED = {
    "a path that the worker does not have": ("/v1/nothing", {}, {}, 404),
    "a path of its own with the wrong method": ("/pyworker/status", {}, {}, 405),
    "a payload that the hooks do not take": ("/echo", [], {}, 422),
    "more work than the ticket allows": ("/echo", {"n": 101}, {}, 403),
    "a session of no length": ("/session/create", {"lifetime": -1}, {}, 422),
}


@pytest.mark.parametrize(("route", "payload", "options", "status"), REFUSED.values(), ids=REFUSED)
async def test_a_refused_request_is_reported_as_rejected_at_once(
    make_worker, engine, route, payload, options, status
):
    worker = await make_worker(handlers=handlers(workload_calculator=lambda payload: payload.get("n", 1)))
    answer = await worker.post(route, payload, **options)
    assert answer.status_code == status or (route == "/session/create" and 400 <= answer.status_code < 500)
    # Less than the report interval of a busy worker.
    await until(lambda: engine.finished, seconds=0.9)
    assert [(item["request_idx"], item["status"]) for item in engine.finished] == [(1, "Rejected")]


async def test_a_429_is_reported_as_rejected_at_once(make_worker, engine, model):
    worker = await make_worker(handlers=handlers(max_queue_time=1e-6, allow_parallel_requests=False))
    held = asyncio.ensure_future(worker.post("/held"))
    await until(lambda: model.answering)
    assert (await worker.post("/echo")).status_code == 429
    await until(lambda: engine.finished, seconds=0.9)
    assert engine.finished[0]["status"] == "Rejected"
    model.go.set()
    assert (await held).status_code == 200


async def test_a_call_without_a_valid_ticket_is_not_reported(worker, engine):
    answer = await worker.post("/v1/nothing", auth=worker.auth(expires_in=-1))
    assert answer.status_code == 404
    assert (await worker.client.post("/v1/nothing", content=b"{")).status_code == 404
    assert (await worker.client.get("/echo")).status_code == 405
    assert worker.runtime.counts.unreported == 0


PAGES = [
    {"Host": "attacker.example"},
    {"Host": "attacker.example", "Origin": "http://attacker.example", "Sec-Fetch-Site": "same-origin"},
    {"Origin": "http://attacker.example", "Content-Type": "text/plain"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"},
]


@pytest.mark.parametrize("fields", PAGES)
async def test_an_unsecured_worker_refuses_web_pages(make_worker, fields):
    worker = await make_worker(settings={"unsecured": True})
    received = worker.runtime.counts.received
    body = json.dumps({"auth_data": {"cost": 5}, "payload": {"n": 1}})
    for path in ("/echo", "/session/create"):
        answer = await worker.client.post(path, content=body, headers=fields)
        assert answer.status_code in (403, 421)
    assert worker.runtime.counts.received == received


async def test_a_secured_worker_accepts_any_host_name(make_worker):
    worker = await make_worker()
    answer = await worker.client.post(
        "/echo", json=worker.envelope({"n": 1}), headers={"Host": "worker.example"}
    )
    assert answer.json() == {"n": 1}
