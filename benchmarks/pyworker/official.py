"""The official worker (package `vastai`) in front of the instant model, with the same configuration."""

import os

from vastai.serverless.server.worker import (
    BenchmarkConfig,
    HandlerConfig,
    LogActionConfig,
    Worker,
    WorkerConfig,
)


def handler(route: str, benchmark: BenchmarkConfig | None = None) -> HandlerConfig:
    return HandlerConfig(
        route=route, allow_parallel_requests=True, max_queue_time=None, benchmark_config=benchmark
    )


Worker(
    WorkerConfig(
        model_server_url="http://127.0.0.1",
        model_server_port=int(os.environ["MODEL_PORT"]),
        model_log_file=os.environ["MODEL_LOG"],
        model_healthcheck_url="/health",
        log_action_config=LogActionConfig(on_load=["ready"]),
        handlers=[
            handler("/v1/completions", BenchmarkConfig(dataset=[{"prompt": "x"}], runs=2)),
            handler("/stream"),
        ],
    )
).run()
