"""Metrics of model servers, folded into the worker's report."""

from pathlib import Path

import pytest

from stoker_pyworker import presets
from stoker_pyworker.model.server.server_metrics import ServerMetrics
from stoker_wire.http1.upstream_pool import UpstreamPool
from stoker_wire.worker_status import WorkerStatus

PAGES = {
    "vllm": """
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="org/model"} 12.0
vllm:num_requests_running{engine="1",model_name="org/model"} 3.0
vllm:num_requests_waiting{engine="0",model_name="org/model"} 4.0
vllm:kv_cache_usage_perc{engine="0",model_name="org/model"} 0.97
vllm:kv_cache_usage_perc{engine="1",model_name="org/model"} 0.2
vllm:generation_tokens_total{engine="0",model_name="org/model"} 1000.0
vllm:e2e_request_latency_seconds_bucket{le="+Inf",engine="0"} 3.0
""",
    "sglang": """
sglang:num_running_reqs{model_name="m",tp_rank="0"} 15.0
sglang:num_queue_reqs{model_name="m",tp_rank="0"} 4.0
sglang:token_usage{model_name="m",tp_rank="0"} 0.97
sglang:generation_tokens_total{model_name="m"} 1000
""",
    "llama-server": """
llamacpp:requests_processing 15
llamacpp:requests_deferred 4
llamacpp:kv_cache_usage_ratio 0.97
llamacpp:tokens_predicted_total 1000
""",
}


def reader(name):
    return ServerMetrics(
        UpstreamPool("http://127.0.0.1:9", connections_max=1),
        presets.load(name).metrics,
        changed=lambda: None,
    )


@pytest.mark.parametrize("name", PAGES)
async def test_a_page_becomes_a_reading(name):
    metrics = reader(name)
    metrics.parse(PAGES[name], 10.0)
    later = metrics.parse(PAGES[name].replace("1000", "1500"), 12.0)
    assert (later.running, later.waiting, later.cache_used) == (15, 4, 0.97)
    assert later.output_tokens_per_second == 250.0  # 500 tokens in 2 s
    assert later.full


async def test_a_page_of_a_real_vllm_under_load_becomes_a_reading():
    metrics = reader("vllm")
    page = (Path(__file__).parents[1] / "presets" / "transcripts" / "vllm.busy.prom").read_text()
    reading = metrics.parse(page, 10.0)
    # vLLM 0.32 with --max-num-seqs 4 and 16 requests
    assert (reading.running, reading.waiting, reading.full) == (4, 12, False)
    assert 0 < reading.cache_used < 0.01


async def test_a_page_of_a_real_llama_server_under_load_becomes_a_reading():
    metrics = reader("llama-server")
    page = (Path(__file__).parents[1] / "presets" / "transcripts" / "llama-server.busy.prom").read_text()
    reading = metrics.parse(page, 10.0)
    # llama.cpp 0.5.0 with --parallel 2 and three requests; it tells nothing of its KV cache
    assert (reading.running, reading.waiting, reading.cache_used, reading.full) == (2, 1, 0.0, False)


async def test_a_full_server_has_room_again_below_four_fifths():
    metrics = reader("sglang")
    page = "sglang:num_queue_reqs 1\nsglang:token_usage {}\n"
    full = []
    for share in ("0.85", "0.95", "0.85", "0.75", "0.85"):
        metrics.reading = metrics.parse(page.format(share), 0.0)
        full.append(metrics.reading.full)
    assert full == [False, True, True, False, False]


async def test_a_page_without_the_names_or_with_nonsense_is_a_zero_reading():
    metrics = reader("vllm")
    reading = metrics.parse("<html>\nvllm:num_requests_running NaN\nvllm:num_requests_waiting{x=\n", 1.0)
    assert (reading.running, reading.waiting, reading.full) == (0, 0, False)


def test_a_report_with_a_reading_is_read_by_the_engine():
    status = WorkerStatus.model_validate({"id": 1, "model": {"running": 2, "full": True, "newer": 1}})
    assert status.model.full
    assert WorkerStatus.model_validate({"id": 1}).model is None
