"""`POST /route/` over real HTTP, with endpoints whose memo is scripted."""

from stoker_wire.ticket import unseal
from stoker_wire.token import ticket_key
from tests.engine.conftest import Stage


async def test_a_request_goes_to_a_ready_worker_with_everything_that_an_official_client_needs(
    stage: Stage,
) -> None:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await endpoint.ready(worker)

    answer = await endpoint.route(cost=42)

    assert answer["url"] == worker.url
    assert answer["cost"] == 42
    assert answer["endpoint"] == endpoint.name
    assert answer["worker_id"] == worker.instance_id
    assert 1 <= answer["request_idx"] < 2**53
    assert answer["reqnum"] >= 1
    ticket = unseal(answer["ticket"], ticket_key(worker.token), worker=worker.launch_id, now=0)
    assert (ticket.e, ticket.c, ticket.r) == (endpoint.name, 42, answer["request_idx"])


async def test_a_held_call_is_answered_as_soon_as_a_worker_is_ready(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await endpoint.script(groups=[1], members=[worker.member()])
    call = endpoint.begin()
    await endpoint.lined_up(1)

    await worker.report()

    answer = await call
    assert answer["url"] == worker.url
    assert answer["waited_ms"] > 0
