"""The worker of the text model. With another import it runs on the official package."""

import os

from stoker_pyworker import BenchmarkConfig, HandlerConfig, LogActionConfig, Worker, WorkerConfig

BENCHMARK_TOKENS = 48


def workload(payload: dict[str, object]) -> float:
    """The workload of a request: the tokens that it asks for."""
    tokens = payload.get("max_tokens", 16)
    return float(tokens) if isinstance(tokens, int) else 16.0


def benchmark_payload() -> dict[str, object]:
    """The request of the benchmark."""
    return {"prompt": "The stoker went below.", "max_tokens": BENCHMARK_TOKENS, "seed": 1}


CONFIG = WorkerConfig(
    model_server_url="http://127.0.0.1",
    model_server_port=int(os.environ.get("MODEL_PORT", "8000")),
    model_log_file=os.environ.get("MODEL_LOG", "model.log"),
    model_healthcheck_url="/health",
    model_name="text-model-1",
    log_action_config=LogActionConfig(
        on_load=["model ready"], on_error=["model failed", "model server ended", "Traceback"]
    ),
    handlers=[
        HandlerConfig(
            route="/v1/completions",
            workload_calculator=workload,
            allow_parallel_requests=False,
            max_queue_time=60.0,
            benchmark_config=BenchmarkConfig(generator=benchmark_payload, runs=2, do_warmup=False),
        ),
    ],
)

if __name__ == "__main__":
    Worker(CONFIG).run()
