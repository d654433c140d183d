"""`/metrics`: both formats, the conventions of Prometheus, histograms and their exemplars."""

import re
import shutil
import subprocess
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from engine.metrics.exposition import parts
from engine.metrics.families import HISTOGRAMS, OF_ENDPOINTS, OF_ENGINE
from engine.request_stats import BUCKET_SECONDS, Histogram
from tests.engine.conftest import ALICE, EndpointDouble, Stage
from webserver.metrics_page import OPEN_METRICS

PROMTOOL = shutil.which("promtool")


async def scrape(stage: Stage, accept: str = "text/plain") -> str:
    headers = {"Authorization": f"Bearer {ALICE}", "Accept": accept}
    async with stage.http.get(f"{stage.server.url}/metrics", headers=headers) as answer:
        assert answer.status == 200
        return await answer.text()


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


async def test_a_hostile_endpoint_name_cannot_break_a_line(stage: Stage) -> None:
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


async def test_the_text_is_made_in_parts_between_which_other_tasks_run(stage: Stage) -> None:
    endpoint = await served(stage)
    known = stage.server.engine.directory.named(endpoint.name)
    began = time.process_time()
    made = list(parts(stage.server.engine, [known] * 1000, open_metrics=False))
    print(f"1,000 endpoints: {time.process_time() - began:.3f} s of CPU, {sum(map(len, made)) / 1e6:.1f} MB")
    assert len(made) > len(OF_ENDPOINTS)
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
