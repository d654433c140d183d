"""stoker's worker in front of the instant model."""

import os

from stoker_pyworker import BenchmarkConfig, HandlerConfig, Worker, WorkerConfig


def handler(route: str, benchmark: BenchmarkConfig | None = None) -> HandlerConfig:
    return HandlerConfig(
        route=route, allow_parallel_requests=True, max_queue_time=None, benchmark_config=benchmark
    )


Worker(
    WorkerConfig(
        model_server_url="http://127.0.0.1",
        model_server_port=int(os.environ["MODEL_PORT"]),
        model_healthcheck_url="/health",
        handlers=[
            handler("/v1/completions", BenchmarkConfig(dataset=[{"prompt": "x"}], runs=2)),
            handler("/stream"),
        ],
    )
).run()
