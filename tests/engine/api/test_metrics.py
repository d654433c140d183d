"""`/metrics`: both formats, the conventions of Prometheus, histograms and their exemplars."""

import re
import shutil
import subprocess
import time
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal import decoder
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from engine.metrics import protobuf
from engine.metrics.exposition import parts
from engine.metrics.families import HISTOGRAMS, OF_ENDPOINTS, OF_ENGINE
from engine.request_stats import BUCKET_SECONDS, GPUS_MAX, EndedRequest, Histogram, RequestStats
from tests.engine.conftest import ALICE, EndpointDouble, Stage
from webserver.metrics_page import OPEN_METRICS, PROTOBUF

PROMTOOL = shutil.which("promtool")


async def scrape(stage: Stage, accept: str = "text/plain") -> str:
    headers = {"Authorization": f"Bearer {ALICE}", "Accept": accept}
    async with stage.http.get(f"{stage.server.url}/metrics", headers=headers) as answer:
        assert answer.status == 200
        return await answer.text()


async def scrape_bytes(stage: Stage) -> bytes:
    headers = {"Authorization": f"Bearer {ALICE}", "Accept": PROTOBUF}
    async with stage.http.get(f"{stage.server.url}/metrics", headers=headers) as answer:
        return await answer.read()


async def served(stage: Stage) -> EndpointDouble:
    """An endpoint with one request that was served and one that waits."""
    endpoint = await stage.endpoint(max_queue_time=1.0)
    worker = endpoint.worker()
    await endpoint.ready(worker)
    given = await endpoint.route(cost=40)
    await worker.finish(given["request_idx"])
    return endpoint


async def test_both_formats_have_the_same_samples(stage: Stage) -> None:
    endpoint = await served(stage)
    found = []
    for accept, parse in (("text/plain", parse_text), (OPEN_METRICS, parse_open_metrics)):
        text = await scrape(stage, accept)
        families = list(parse(text))
        found.append(
            {
                (sample.name, *sorted(sample.labels.items()))
                for family in families
                for sample in family.samples
                if sample.name.startswith("stoker_") and sample.labels.get("endpoint") == endpoint.name
            }
        )
    assert found[0] == found[1]
    assert len(found[0]) > 60


_PROMETHEUS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"


@pytest.mark.parametrize(
    ("accept", "is_open"),
    [
        ("", False),
        ("*/*", False),
        (_PROMETHEUS, True),
        ("Application/OpenMetrics-Text", True),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text; q=0.0, text/plain", False),
        ("application/openmetrics-text;version=1.0.0;q=0.2, text/plain;q=0.7", False),
        ("application/openmetrics-text;q=nonsense", False),
        ("text/html, xapplication/openmetrics-text-too", False),
        ("application/vnd.google.protobuf;q=0.9, text/plain;q=0.1", False),
        (
            "application/vnd.google.protobuf;proto=x;encoding=delimited, application/openmetrics-text;q=0.1",
            True,
        ),
    ],
)
async def test_the_format_is_the_one_that_the_client_prefers(
    stage: Stage, accept: str, is_open: bool
) -> None:
    assert (await scrape(stage, accept)).endswith("# EOF\n") is is_open


@pytest.mark.parametrize("accept", ["text/plain", OPEN_METRICS])
async def test_both_formats_have_the_metrics_of_the_process(stage: Stage, accept: str) -> None:
    assert "process_cpu_seconds_total " in await scrape(stage, accept)


async def test_a_histogram_counts_every_request_and_names_the_last_of_its_bucket(stage: Stage) -> None:
    endpoint = await served(stage)
    families = {family.name: family for family in parse_open_metrics(await scrape(stage, OPEN_METRICS))}
    samples = [
        s for s in families["stoker_request_worker_seconds"].samples if s.labels["endpoint"] == endpoint.name
    ]
    assert next(s.value for s in samples if s.name.endswith("_count")) == 1
    assert [s.exemplar.labels.keys() for s in samples if s.exemplar] == [{"request_id"}]
    outcomes = {
        s.labels["outcome"]: s.value
        for s in families["stoker_requests"].samples
        if s.labels["endpoint"] == endpoint.name
    }
    assert outcomes == {"done": 1}


@pytest.mark.parametrize("accept", ["text/plain", OPEN_METRICS, PROTOBUF])
async def test_the_times_of_a_request_are_told_by_kind_of_gpu(stage: Stage, accept: str) -> None:
    endpoint = await stage.endpoint(max_queue_time=1.0)
    worker = endpoint.worker()
    await endpoint.script(groups=[1], members=[worker.member(k='1x "RTX" 4090')])
    await worker.report()
    for times in (
        (100.0, 100.5, 102.5, 101.25),
        None,
    ):  # an official worker of an old version reports no times
        given = await endpoint.route(cost=40)
        await worker.finish(given["request_idx"], times=times)
    sums = {name: found for name in GPU_TIMES if (found := await _sums(stage, accept, name, endpoint.name))}
    # 2 s in the model after 0.5 s in the worker's queue; all within the test's own seconds
    assert sums["stoker_request_model_seconds"] == {('1x "RTX" 4090', 1, 2.0)}
    assert sums["stoker_request_worker_queue_seconds"] == {('1x "RTX" 4090', 1, 0.5)}
    ((gpu, count, seconds),) = sums["stoker_request_first_byte_seconds"]
    assert (gpu, count) == ('1x "RTX" 4090', 1)
    assert seconds >= 1.25  # after its time in the engine's queue
    ((gpu, count, _),) = sums["stoker_request_seconds"]
    assert (gpu, count) == ('1x "RTX" 4090', 2)


GPU_TIMES = (
    "stoker_request_worker_queue_seconds",
    "stoker_request_model_seconds",
    "stoker_request_first_byte_seconds",
    "stoker_request_seconds",
)


async def _sums(stage: Stage, accept: str, name: str, endpoint: str) -> set[tuple[str, float, float]]:
    """GPU, count and sum of a histogram of the endpoint."""
    if accept == PROTOBUF:
        family = next(each for each in families_of(await scrape_bytes(stage)) if each.name == name)
        labelled = [
            ({pair.name: pair.value for pair in each.label}, each.histogram) for each in family.metric
        ]
        return {
            (labels["gpu"], each.sample_count, each.sample_sum)
            for labels, each in labelled
            if labels["endpoint"] == endpoint
        }
    parse = parse_open_metrics if accept == OPEN_METRICS else parse_text
    samples = {
        sample.name.removeprefix(name): (sample.labels["gpu"], sample.value)
        for family in parse(await scrape(stage, accept))
        if family.name == name
        for sample in family.samples
        if sample.labels["endpoint"] == endpoint
    }
    return {(samples["_count"][0], samples["_count"][1], samples["_sum"][1])}


def test_kinds_of_gpu_beyond_the_limit_share_their_histograms() -> None:
    stats = RequestStats()
    for number in range(GPUS_MAX + 5):
        stats.end(
            EndedRequest(
                request_idx=number + 1,
                arrived_at=0.0,
                cost=1.0,
                waited_s=0.0,
                took_s=1.0,
                busy_s=0.0,
                launch_id="a",
                gpu=f"gpu {number}",
                outcome="done",
            )
        )
    assert len(stats.by_gpu) == GPUS_MAX + 1
    assert sum(stats.by_gpu["other"].total.counts) == 5


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool is installed (apt-get install prometheus)")
async def test_promtool_finds_nothing_against_the_conventions(stage: Stage) -> None:
    await served(stage)
    assert PROMTOOL is not None
    text = await scrape(stage)
    done = subprocess.run(  # noqa: ASYNC221 - a short call of a local program
        [PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_metric_has_a_name_in_base_units_and_a_help_text() -> None:
    for family in (*OF_ENGINE, *OF_ENDPOINTS, *HISTOGRAMS):
        assert re.fullmatch(r"stoker_[a-z_]+", family.name), family.name
        assert not family.name.endswith("_total"), "the suffix is added to the samples"
        assert not re.search(r"_(ms|minutes|hours|percent)$", family.name), family.name
        assert len(family.about) > 10


@given(st.lists(st.floats(0, 1e6), max_size=50))
def test_a_histogram_puts_each_duration_into_the_first_bucket_that_holds_it(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    below = [sum(value <= bound for value in values) for bound in BUCKET_SECONDS]
    assert [sum(histogram.counts[: bucket + 1]) for bucket in range(len(BUCKET_SECONDS))] == below
    assert sum(histogram.counts) == len(values)


_DOUBLE, _TEXT, _UINT64, _MESSAGE, _SINT32, _UINT32, _SINT64 = 1, 9, 4, 11, 17, 13, 18
_PROTO = {
    "LabelPair": [("name", 1, _TEXT), ("value", 2, _TEXT)],
    "Gauge": [("value", 1, _DOUBLE)],
    "Exemplar": [("label", 1, "LabelPair"), ("value", 2, _DOUBLE)],
    "Bucket": [("cumulative_count", 1, _UINT64), ("upper_bound", 2, _DOUBLE), ("exemplar", 3, "Exemplar")],
    "BucketSpan": [("offset", 1, _SINT32), ("length", 2, _UINT32)],
    "Histogram": [
        ("sample_count", 1, _UINT64),
        ("sample_sum", 2, _DOUBLE),
        ("bucket", 3, "Bucket"),
        ("schema", 5, _SINT32),
        ("zero_threshold", 6, _DOUBLE),
        ("zero_count", 7, _UINT64),
        ("positive_span", 12, "BucketSpan"),
        ("positive_delta", 13, _SINT64),
    ],
    "Metric": [
        ("label", 1, "LabelPair"),
        ("gauge", 2, "Gauge"),
        ("counter", 3, "Gauge"),
        ("histogram", 7, "Histogram"),
    ],
    "MetricFamily": [("name", 1, _TEXT), ("help", 2, _TEXT), ("type", 3, _UINT32), ("metric", 4, "Metric")],
}
"""Of `io.prometheus.client`: name, number and type of each field that the engine writes."""
_REPEATED = {"label", "bucket", "positive_span", "positive_delta", "metric"}


def message_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="metrics.proto", package="p", syntax="proto2")
    for name, fields in _PROTO.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            made = message.field.add(name=field, number=number, label=3 if field in _REPEATED else 1)
            made.type = _MESSAGE if isinstance(kind, str) else kind
            if isinstance(kind, str):
                made.type_name = f".p.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("p.MetricFamily"))


def families_of(body: bytes) -> list[Any]:
    made, at, kind = [], 0, message_class()
    while at < len(body):
        length, at = decoder._DecodeVarint32(body, at)
        made.append(kind.FromString(body[at : at + length]))
        assert made[-1].SerializeToString() == body[at : at + length], "no field is unknown or out of order"
        at += length
    return made


async def test_protobuf_has_the_samples_of_the_text(stage: Stage) -> None:
    endpoint = await served(stage)
    headers = {"Authorization": f"Bearer {ALICE}", "Accept": f"{PROTOBUF},{OPEN_METRICS};q=0.8"}
    async with stage.http.get(f"{stage.server.url}/metrics", headers=headers) as answer:
        assert answer.headers["Content-Type"] == PROTOBUF
        body = await answer.read()
    found: dict[tuple[str, ...], float] = {}
    for family in families_of(body):
        for metric in family.metric:
            labels = tuple(sorted((pair.name, pair.value) for pair in metric.label))
            if metric.HasField("histogram"):
                found[f"{family.name}_count", *labels] = metric.histogram.sample_count
                assert len(metric.histogram.bucket) == len(BUCKET_SECONDS) + 1
            else:
                found[family.name, *labels] = (
                    metric.gauge if metric.HasField("gauge") else metric.counter
                ).value
    in_text = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parse_text(await scrape(stage))
        for sample in family.samples
        if not sample.name.endswith(("_bucket", "_sum"))
    }
    assert found.keys() == in_text.keys()
    steady = (
        "stoker_requests_total",
        "stoker_workers",
        "stoker_routes_total",
        "stoker_request_wait_seconds_count",
    )
    for key, value in in_text.items():
        if key[0] in steady:
            assert found[key] == value, key
    assert any(endpoint.name in dict(key[1:]).values() for key in found)


@given(st.lists(st.floats(0, 1e7), max_size=30))
def test_native_buckets_hold_every_duration_within_their_ends(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.observe(value, 1)
    message = message_class()()
    message.metric.add().histogram.MergeFromString(protobuf._native(histogram))
    native = message.metric[0].histogram
    counts: list[tuple[float, float, int]] = []
    index, count, deltas = 0, 0, iter(native.positive_delta)
    for span in native.positive_span:
        index += span.offset
        for _ in range(span.length):
            count += next(deltas)
            counts.append((2 ** ((index - 1) / 8), 2 ** (index / 8), count))
            index += 1
    assert next(deltas, None) is None
    assert native.zero_count + sum(count for *_, count in counts) == len(values)
    assert native.zero_count == sum(value <= native.zero_threshold for value in values)
    longest = 2.0**18
    for low, high, count in counts:
        inside = [v for v in values if low * (1 - 1e-9) < min(v, longest) <= high * (1 + 1e-9)]
        assert count <= len(inside)


async def test_a_hostile_endpoint_name_is_a_label_of_its_own_in_protobuf(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    known = stage.server.engine.directory.named(endpoint.name)
    known.name = 'a"b\\c\n\x00\ud800 é' * 3
    body = b"".join(protobuf.parts(stage.server.engine, [known]))
    names = {
        pair.value for f in families_of(body) for m in f.metric for pair in m.label if pair.name == "endpoint"
    }
    assert names == {'a"b\\c\n\x00? é' * 3}


async def test_a_hostile_endpoint_name_cannot_cannot_break_a_line(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    known = stage.server.engine.directory.named(endpoint.name)
    known.name = 'a"b\\c\nstoker_fake 1'
    text = "".join(parts(stage.server.engine, [known], open_metrics=False))
    names = {
        s.labels.get("endpoint")
        for f in parse_text(text)
        for s in f.samples
        if s.name == "stoker_workers_max"
    }
    assert names == {'a"b\\c\nstoker_fake 1'}
    assert "\nstoker_fake" not in text


@pytest.mark.parametrize("in_protobuf", [False, True])
async def test_a_page_is_made_in_parts_between_which_other_tasks_run(stage: Stage, in_protobuf: bool) -> None:
    endpoint = await served(stage)
    known = stage.server.engine.directory.named(endpoint.name)
    for n in range(1000):
        known.stats.took.observe(0.01 * 1.01**n)
    engine, thousand = stage.server.engine, [known] * 1000
    began = time.process_time()
    made: list[str] | list[bytes] = (
        list(protobuf.parts(engine, thousand))
        if in_protobuf
        else list(parts(engine, thousand, open_metrics=False))
    )
    print(f"1,000 endpoints: {time.process_time() - began:.3f} s of CPU, {sum(map(len, made)) / 1e6:.1f} MB")
    assert len(made) > len(OF_ENDPOINTS)
    if not in_protobuf:  # the length of a message comes before it
        assert max(map(len, made)) < sum(map(len, made)) / 5


async def test_metrics_and_overview_have_the_same_figures(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    hot, booting, cold = (endpoint.worker(name * 12, 100 + n) for n, name in enumerate("abc"))
    members = [
        hot.member(c=0.5),
        booting.member(s="model_loading", c=0.25),
        cold.member(s="stopped", c=0.1, p=80.0),
    ]
    await endpoint.script(groups=[1], members=members)
    await hot.report()
    status, overview = await stage.call("GET", "/api/v0/overview/", key=ALICE)
    assert status == 200
    row = next(row for row in overview["endpoints"] if row["id"] == endpoint.id)
    assert row["stages"] == {"hot": 1, "booting": 1, "cold": 1, "failed": 0}
    # no perf is known of the booting worker: the mean of 100 and 80
    assert row["capacity"] == {"hot": 100.0, "booting": 90.0, "cold": 80.0}
    assert row["dollars_per_hour"] == {"hot": 0.5, "booting": 0.25}
    samples = {
        (sample.name, sample.labels.get("stage", sample.labels.get("health"))): sample.value
        for family in parse_text(await scrape(stage))
        for sample in family.samples
        if sample.labels.get("endpoint") == endpoint.name
    }
    for stage_name, value in row["capacity"].items():
        assert samples["stoker_capacity_load_per_second", stage_name] == value
    for stage_name, value in row["dollars_per_hour"].items():
        assert samples["stoker_gpu_dollars_per_hour", stage_name] == value
    assert samples["stoker_endpoint_health", row["health"]] == 1


async def test_the_memos_of_a_boot_count_its_dollars_and_the_time_of_its_states(stage: Stage) -> None:
    endpoint, worker = await stage.endpoint(), None
    worker = endpoint.worker()
    began = time.time() - 3600
    await endpoint.script(groups=[1], members=[worker.member(s="loading", t=began, c=0.5)])
    await endpoint.script(members=[worker.member(s="model_loading", t=began + 60, c=0.5)])
    text = await scrape(stage)
    own = f'endpoint="{endpoint.name}"'
    assert re.search(rf'stoker_worker_boot_seconds_sum{{{own},state="loading"}} 60\b', text)
    found = re.search(rf'stoker_gpu_dollars_total{{{own},stage="booting"}} (\S+)', text)
    assert found is not None
    assert 0 < float(found[1]) < 0.5  # of the seconds since the engine's first memo, not of the hour before
