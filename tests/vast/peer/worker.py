"""A worker as a user of Vast Serverless writes one. Run as it is by the official package, and by stoker's after one
changed line."""

from vastai import BenchmarkConfig, HandlerConfig, LogActionConfig, Worker, WorkerConfig  # isort: skip  the line

import os

from aiohttp import web


def tokens(payload):
    return float(payload.get("tokens", 10))


def only_prompts(payload):
    return {"prompt": payload["prompt"], "added": "by the parser"}


async def counted(client_request, model_response):
    body = await model_response.read()
    return web.Response(body=b"%d bytes" % len(body), status=200, content_type="text/plain")


async def framed(client_request, model_response):
    answer = web.StreamResponse(status=200)
    answer.content_type = "text/event-stream"
    await answer.prepare(client_request)
    async for line in model_response.content:
        await answer.write(b"data: " + line.strip() + b"\n\n")
    await answer.write_eof()
    return answer


async def add(left, right):
    return left + right


def sample():
    return {"tokens": 5, "seconds": 0.002}


CONFIG = WorkerConfig(
    model_server_url="http://127.0.0.1",
    model_server_port=int(os.environ["MODEL_PORT"]),
    model_log_file="model.log",
    model_healthcheck_url="/health",
    max_sessions=3,
    log_action_config=LogActionConfig(
        on_load=["model ready"], on_error=["model failed"], on_info=["model says"]
    ),
    handlers=[
        HandlerConfig(
            route="/json",
            allow_parallel_requests=True,
            max_queue_time=600.0,
            workload_calculator=tokens,
            benchmark_config=BenchmarkConfig(generator=sample, runs=2, concurrency=4, do_warmup=True),
        ),
        HandlerConfig(route="/closed", allow_parallel_requests=True, max_queue_time=600.0),
        HandlerConfig(route="/text", allow_parallel_requests=True, max_queue_time=600.0),
        HandlerConfig(route="/binary", allow_parallel_requests=True, max_queue_time=600.0),
        HandlerConfig(route="/events", allow_parallel_requests=True, max_queue_time=600.0),
        HandlerConfig(route="/lines", allow_parallel_requests=True, max_queue_time=600.0),
        HandlerConfig(route="/queued", allow_parallel_requests=False, max_queue_time=600.0),
        HandlerConfig(route="/parsed", allow_parallel_requests=True, request_parser=only_prompts),
        HandlerConfig(route="/counted", allow_parallel_requests=True, response_generator=counted),
        HandlerConfig(route="/framed", allow_parallel_requests=True, response_generator=framed),
        HandlerConfig(
            route="/remote/add",
            allow_parallel_requests=True,
            is_remote_dispatch=True,
            remote_function=add,
        ),
    ],
)

if __name__ == "__main__":
    Worker(CONFIG).run()
