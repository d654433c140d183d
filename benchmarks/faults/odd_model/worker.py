"""The worker of the odd model: one request at a time."""

import os

from stoker_pyworker import BenchmarkConfig, HandlerConfig, LogActionConfig, Worker, WorkerConfig

if __name__ == "__main__":
    Worker(
        WorkerConfig(
            model_server_url="http://127.0.0.1",
            model_server_port=int(os.environ["MODEL_PORT"]),
            model_log_file=os.environ["MODEL_LOG"],
            model_healthcheck_url="/health",
            log_action_config=LogActionConfig(
                on_load=["model ready"], on_error=["model server ended", "Traceback"]
            ),
            handlers=[
                HandlerConfig(
                    route="/v1/completions",
                    workload_calculator=lambda payload: float(payload.get("max_tokens", 16)),
                    allow_parallel_requests=False,
                    max_queue_time=60.0,
                    benchmark_config=BenchmarkConfig(
                        dataset=[{"prompt": "benchmark", "max_tokens": 20}], runs=1, do_warmup=False
                    ),
                )
            ],
        )
    ).run()
