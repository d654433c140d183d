"""A job: the engine chooses a worker, and the caller's own client makes the calls."""

import pytest

import stoker
from tests.sdk.peers import problem


async def test_a_job_is_the_address_of_one_workers_calls_and_ends_with_its_block(peers, client):
    peers.route_replies += [peers.wait(), peers.route_to()]
    endpoint = await client.get_endpoint("llm")
    async with endpoint.job(cost=7) as job:
        assert job.url == f"{peers.worker_url}/pyworker/job/ticket.of-this-request"
        assert job.engine_url == f"{peers.url}/job/llm/ticket.of-this-request"
        assert "ticket." not in repr(job)
        assert peers.worker_calls == []
    assert [call.body["cost"] for call in peers.route_calls] == [7, 7]
    assert all("fingerprint" not in call.body for call in peers.route_calls), (
        "jobs are no copies of each other"
    )
    assert [call.path for call in peers.worker_calls] == ["/pyworker/job/ticket.of-this-request"]


async def test_the_end_of_a_job_that_no_worker_confirms_hides_no_other_error(peers, client):
    peers.route_replies.append(peers.route_to("http://127.0.0.1:1"))
    endpoint = await client.get_endpoint("llm")
    with pytest.raises(ZeroDivisionError):
        async with endpoint.job():
            1 / 0  # noqa: B018


async def test_waiting_for_the_worker_of_a_job_is_bounded(peers, client):
    peers.route_replies += [peers.wait("no_capacity", "no machine is offered")] * 1000
    endpoint = await client.get_endpoint("llm")
    with pytest.raises(stoker.RequestTimedOut, match="no machine is offered"):
        async with endpoint.job(timeout=0.2):
            pass


async def test_an_unknown_endpoint_has_no_jobs(peers, client):
    peers.route_replies.append(problem(404, "endpoint_deleted", "it is being deleted"))
    endpoint = await client.get_endpoint("llm")
    with pytest.raises(stoker.EndpointNotFound):
        async with endpoint.job():
            pass
