"""Keys are rotated without refusing a valid caller; afterwards the old ones are refused."""

import time

import pytest

from activities.signing import sealed_signing_key
from stoker_pyworker.proxy.tickets import TicketVerifier
from stoker_wire.errors.problem import Problem
from stoker_wire.security.token import mint_endpoint_key, mint_worker_token, ticket_key
from tests.engine.conftest import ALICE, SECRET, Stage

NEW_SECRET = b"the next secret of the tests, 34 b"
NEW_KEY = "alice-key-of-tomorrow"
LAUNCH = "aaaaaaaaaaaa"


async def listed(stage: Stage, key: str) -> int:
    return (await stage.call("GET", "/api/v0/endptjobs/", key=key))[0]


async def routes(stage: Stage, endpoint, key: str) -> int:
    return (await stage.post("/route/", {"endpoint": endpoint.name, "api_key": key, "cost": 1}))[0]


def opens(ticket: str, secret: bytes, endpoint_id: int) -> bool:
    """Whether a worker that was launched with this secret accepts the ticket."""
    verifier = TicketVerifier(ticket_key(mint_worker_token(secret, endpoint_id, LAUNCH)), LAUNCH)
    try:
        verifier.verify(ticket, time.time())
    except Problem as refused:
        return refused.code != "ticket_forged"
    return True


async def test_both_account_keys_are_accepted_during_a_rotation(bare_stage: Stage) -> None:
    stage = bare_stage
    seen = {}
    for step, accounts, previous in [
        ("before", ALICE, None),
        ("announced", ALICE, NEW_KEY),
        ("swapped", NEW_KEY, ALICE),
        ("after", NEW_KEY, None),
    ]:
        given = {"alice": previous} if previous else {}
        server = await stage.start_engine(accounts={"alice": accounts}, accounts_previous=given)
        seen[step] = [await listed(stage, ALICE), await listed(stage, NEW_KEY)]
        await stage.stop_engine(server)
    assert seen == {
        "before": [200, 401],
        "announced": [200, 200],
        "swapped": [200, 200],
        "after": [401, 200],
    }


async def test_workers_of_the_old_secret_are_served_until_it_is_dropped(bare_stage: Stage) -> None:
    stage = bare_stage
    server = await stage.start_engine(secret=NEW_SECRET, secrets_previous=(SECRET,))
    endpoint = await stage.endpoint()
    worker = endpoint.worker(LAUNCH)  # its token was made with the old secret
    sealed = sealed_signing_key(SECRET, LAUNCH)
    await endpoint.script(groups=[1], members=[worker.member(p=100.0, u=worker.url)])

    # Before its first report the secret of its token is unknown, so its ticket is valid with either.
    unheard = await endpoint.route(cost=1)
    assert opens(unheard["ticket"], SECRET, endpoint.id)
    assert opens(unheard["ticket"], NEW_SECRET, endpoint.id)
    assert not opens(unheard["ticket"], b"a third secret, of somebody else", endpoint.id)

    await worker.report()
    heard = await endpoint.route(cost=1)
    assert opens(heard["ticket"], SECRET, endpoint.id)
    assert not opens(heard["ticket"], NEW_SECRET, endpoint.id)
    assert (await stage.call("GET", f"/w/{LAUNCH}/{sealed}/pubkey/"))[0] == 200

    # After an update its token is made with the new secret.
    worker.token = mint_worker_token(NEW_SECRET, endpoint.id, LAUNCH)
    await worker.report()
    updated = await endpoint.route(cost=1)
    assert opens(updated["ticket"], NEW_SECRET, endpoint.id)
    assert not opens(updated["ticket"], SECRET, endpoint.id)

    # The endpoint key of the old secret is valid until that secret is dropped.
    fresh = mint_endpoint_key(NEW_SECRET, endpoint.id, 1)
    assert [await routes(stage, endpoint, key) for key in (endpoint.key, fresh)] == [200, 200]
    await stage.stop_engine(server)

    await stage.start_engine(secret=NEW_SECRET)
    await worker.report()
    assert [await routes(stage, endpoint, key) for key in (endpoint.key, fresh)] == [401, 200]
    worker.token = mint_worker_token(SECRET, endpoint.id, LAUNCH)
    assert (await stage.post("/worker_status/", worker.status()))[0] == 401
    assert (await stage.call("GET", f"/w/{LAUNCH}/{sealed}/pubkey/"))[0] == 404


async def test_an_old_endpoint_key_is_valid_until_its_overlap_ends(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    await endpoint.ready(endpoint.worker())
    first, second = (mint_endpoint_key(SECRET, endpoint.id, version) for version in (1, 2))
    never = mint_endpoint_key(SECRET, endpoint.id, 3)
    await endpoint.script(key_version=2, key_overlap_until=time.time() + 600)
    assert [await routes(stage, endpoint, key) for key in (first, second, never)] == [200, 200, 401]
    known = stage.server.engine.directory.named(endpoint.name)
    assert known.accepts_key(first, time.time() + 599)
    assert not known.accepts_key(first, time.time() + 601)
    assert known.accepts_key(second, time.time() + 1e9)
    await endpoint.script(key_version=2, key_overlap_until=0.0)
    assert [await routes(stage, endpoint, key) for key in (first, second)] == [401, 200]


def test_a_ticket_with_a_third_signature_is_refused() -> None:
    """Otherwise an attacker could try many signatures with one ticket."""
    from stoker_wire.security.ticket import Ticket, TicketRefused, sign_ticket, verify_ticket

    ticket = Ticket(e="e", w=LAUNCH, c=1, r=1, n=1, x=time.time() + 60)
    assert verify_ticket(sign_ticket(ticket, b"x", b"right"), b"right", worker=LAUNCH, now=0) == ticket
    with pytest.raises(TicketRefused, match="is not signed with this worker"):
        verify_ticket(sign_ticket(ticket, b"x", b"y", b"right"), b"right", worker=LAUNCH, now=0)
