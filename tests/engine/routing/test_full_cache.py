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
