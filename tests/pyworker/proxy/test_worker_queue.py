"""The worker's queue, its limit, and the counts that are reported to the engine."""

import asyncio
import json

import pytest

from stoker_pyworker.proxy.worker_queue import WorkerQueue
from stoker_pyworker.reporting.request_counts import Outcome, RequestCounts, Work
from tests.pyworker.harness import handlers, until


async def test_serial_routes_send_one_request_at_a_time_in_order(make_worker, model):
    worker = await make_worker(handlers=handlers(allow_parallel_requests=False))
    first = asyncio.create_task(worker.post("/held", {"n": 0}))
    await until(lambda: model.answering == 1)
    rest = []
    for number in range(1, 5):
        # All serial routes share one queue.
        rest.append(asyncio.create_task(worker.post("/echo", {"n": number})))
        await until(lambda number=number: len(worker.runtime.queue) == number)
    model.go.set()
    answers = [answer.json() for answer in await asyncio.gather(first, *rest)]
    assert answers == [{"n": number} for number in range(5)]
    served = [json.loads(seen.body)["n"] for seen in model.seen if b'"n"' in seen.body]
    assert served == [0, 1, 2, 3, 4]


async def test_server_timing_includes_the_wait_in_the_queue(make_worker, model):
    worker = await make_worker(handlers=handlers(allow_parallel_requests=False))
    first = asyncio.create_task(worker.post("/held"))
    await until(lambda: model.answering == 1)
    second = asyncio.create_task(worker.post("/echo"))
    await until(lambda: len(worker.runtime.queue) == 1)
    exchange = next(each for each in worker.runtime.proxy.active if each.connection is None)
    exchange.entered_at -= 2.0
    model.go.set()
    await first
    timing = (await second).headers["server-timing"]
    assert float(timing.partition("queue;dur=")[2].partition(",")[0]) >= 2000


async def test_a_client_that_disconnects_leaves_the_queue(make_worker, model):
    worker = await make_worker(handlers=handlers(allow_parallel_requests=False))
    first = asyncio.create_task(worker.post("/held"))
    await until(lambda: model.answering == 1)
    _, writer = await worker.connect()
    writer.write(worker.raw_request("/echo", {"n": "left"}))
    await until(lambda: len(worker.runtime.queue) == 1)
    last = asyncio.create_task(worker.post("/echo", {"n": "stayed"}))
    await until(lambda: len(worker.runtime.queue) == 2)
    writer.close()
    await until(lambda: len(worker.runtime.queue) == 1)
    model.go.set()
    assert (await first).status_code == 200
    assert (await last).json() == {"n": "stayed"}
    assert not any(b"left" in seen.body for seen in model.seen)


async def test_parallel_requests_do_not_wait_for_each_other(worker, model):
    held = [asyncio.create_task(worker.post("/held")) for _ in range(5)]
    await until(lambda: model.answering == 5)
    assert (await worker.post("/echo")).status_code == 200
    model.go.set()
    assert {answer.status_code for answer in await asyncio.gather(*held)} == {200}


async def test_a_full_worker_answers_429_with_retry_after(make_worker, model, engine):
    worker = await make_worker(handlers=handlers(max_queue_time=10.0))
    worker.runtime.health.perf = 10.0
    # 100 load at 10 load/s is a wait of exactly 10 s, which is not over the limit.
    held = [asyncio.create_task(worker.post("/held", cost=100))]
    await until(lambda: worker.runtime.counts.held == 1)
    held.append(asyncio.create_task(worker.post("/held", cost=100)))
    await until(lambda: worker.runtime.counts.held == 2)
    answer = await worker.post("/echo", cost=100)
    assert (answer.status_code, answer.json()["error"]) == (429, "queue_full")
    assert answer.headers["retry-after"] == "10"
    model.go.set()
    await asyncio.gather(*held)
    # a request may end after the totals of its report were read
    await until(lambda: len(engine.finished) == 3 and engine.total("cur_perf") >= 200)
    assert sorted(item["status"] for item in engine.finished) == ["Rejected", "Success", "Success"]
    assert (engine.total("new_load"), engine.total("rej_load"), engine.total("cur_perf")) == (200, 100, 200)


async def test_max_queue_time_none_means_no_limit(make_worker, model):
    worker = await make_worker(handlers=handlers(max_queue_time=None))
    worker.runtime.health.perf = 0.001
    held = [asyncio.create_task(worker.post("/held")) for _ in range(3)]
    await until(lambda: model.answering == 3)
    model.go.set()
    assert {answer.status_code for answer in await asyncio.gather(*held)} == {200}


@pytest.mark.parametrize("leaver", [0, 1, 2])
def test_the_queue_starts_every_entry_that_stays(leaver):
    queue, order = WorkerQueue(), []

    class Waiter:
        def __init__(self, name):
            self.name = name

        def start(self):
            order.append(self.name)

    waiters = [Waiter(name) for name in range(3)]
    for waiter in waiters:
        queue.join(waiter)
    queue.leave(waiters[leaver])
    queue.leave(waiters[leaver])
    for waiter in waiters:
        if waiter is not waiters[leaver]:
            queue.leave(waiter)
    assert order == [name for name in range(3) if name != leaver or name == 0]
    assert len(queue) == 0


def test_counts_balance_for_every_outcome():
    counts = RequestCounts()
    works = [Work(number, 0.1 * number) for number in range(30)]
    for work in works:
        counts.accept(work)
    for work in works:
        counts.finish(work, list(Outcome)[work.request_idx % 3])
    assert counts.load == counts.queue_load == 0.0
    assert counts.held == 0
    totals = counts.totals()
    success = sum(work.workload for work in works if work.request_idx % 3 == 0)
    cancelled = sum(work.workload for work in works if work.request_idx % 3 == 2)
    assert totals.served == pytest.approx(success)
    assert totals.new == pytest.approx(sum(work.workload for work in works) - cancelled)
