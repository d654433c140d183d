"""A worker whose model server has a full KV cache gets no request until its report shows room."""

import asyncio

from tests.engine.conftest import Stage


async def test_requests_pass_a_full_worker_and_wait_when_all_are_full(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    full, free = endpoint.worker("a" * 12, 101), endpoint.worker("b" * 12, 102)
    await endpoint.ready(full, free)
    await full.report(max_perf=400.0, model={"running": 30, "waiting": 2, "cache_used": 0.97, "full": True})
    answer = await endpoint.route()
    assert answer["url"] == free.url
    await free.finish(answer["request_idx"])
    await free.report(model={"waiting": 1, "cache_used": 0.99, "full": True})
    waiting = asyncio.ensure_future(endpoint.route())
    await asyncio.sleep(0.2)
    assert not waiting.done()
    await full.report(max_perf=400.0, model={"running": 12, "cache_used": 0.5, "full": False})
    assert (await waiting)["url"] == full.url


async def test_a_worker_is_busy_beyond_the_requests_that_it_serves_at_once(stage: Stage) -> None:
    endpoint = await stage.endpoint(max_queue_time=10.0)
    worker = endpoint.worker("a" * 12, 101)
    await endpoint.ready(worker)
    # perf 100: eight requests of 500 load take 40 s, and all of them run
    eight = {"max_perf": 100.0, "cur_load": 4000.0, "num_requests_working": 8, "concurrency": 8}
    await worker.report(**eight)
    known = stage.server.engine.directory.named(endpoint.name).workers[worker.launch_id]
    assert known.metrics().waiting == 0
    assert (await endpoint.route(cost=500.0))["url"] == worker.url
    # four of them do not fit the KV cache: 20 s of work before a new request
    await worker.report(**eight, model={"running": 4, "waiting": 4})
    assert known.metrics().waiting == 4
    held = asyncio.ensure_future(endpoint.route(cost=500.0))
    await asyncio.sleep(0.2)
    assert not held.done()
    # a worker that does not say how many it serves at once is busy with all of them
    await worker.report(**(eight | {"concurrency": 0}))
    assert known.metrics().waiting is None
    assert not held.done()
    await worker.report(**eight)
    assert (await held)["url"] == worker.url
