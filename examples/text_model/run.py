"""A worker that starts the model server itself; no start script is needed. The template's onstart: `python run.py`."""

import os
import sys

from stoker_pyworker import BenchmarkConfig, FieldWorkload, HandlerConfig, Worker, WorkerConfig

ROUTE = HandlerConfig(
    route="/v1/completions",
    workload_calculator=FieldWorkload(fields=("max_tokens",), default=16.0),
    benchmark_config=BenchmarkConfig(
        dataset=[{"prompt": "The stoker went below.", "max_tokens": 48}], runs=2
    ),
)

if __name__ == "__main__":
    Worker(
        WorkerConfig(
            model_server_port=int(os.environ.setdefault("MODEL_PORT", "8000")),
            model_healthcheck_url="/health",
            handlers=[ROUTE],
        ),
        command=[sys.executable, "model_server.py"],
        startup_seconds_max=60,
    ).run()
