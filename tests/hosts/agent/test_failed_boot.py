"""The worker of a template with a missing model path names the path within seconds."""

import time

SCRIPT = """
export STOKER_LOG=model.log
( echo "loading /models/none"; sleep 2; echo "OSError: /models/none does not exist" >&2; exit 1 ) > model.log 2>&1 &
python -c '
from stoker_pyworker import BenchmarkConfig, HandlerConfig, LogActionConfig, Worker, WorkerConfig
Worker(WorkerConfig(model_server_url="http://127.0.0.1", model_server_port=9, model_log_file="model.log",
    log_action_config=LogActionConfig(on_load=["ready"]),
    handlers=[HandlerConfig(route="/x", benchmark_config=BenchmarkConfig(dataset=[{"prompt": "x"}]))])).run()
'
"""


async def test_a_model_that_does_not_exist_is_named_within_seconds(bench):
    began = time.monotonic()
    instance_id = await bench.rent(onstart=SCRIPT, env={"UNSECURED": "true"})
    log = await bench.printed(instance_id, "model_error")
    assert "the model server ended before it was loaded; its log ends with: OSError: /models/none" in log
    assert time.monotonic() - began < 30
