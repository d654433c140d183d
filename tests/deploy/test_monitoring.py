"""Alert rules and dashboards, with the real promtool and a real Prometheus that scrapes a real engine."""

import asyncio
import importlib.util
import re
import subprocess
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from temporalio.bridge.proto.workflow_activation import (
    SignalWorkflow,
    WorkflowActivation,
    WorkflowActivationJob,
)
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion

from engine.metrics.families import HISTOGRAMS, OF_ENDPOINTS, OF_ENGINE
from hosts.api.metrics import DECLARED as OF_HOSTS
from tests.deploy.prometheus_server import PROMTOOL, needs_prometheus, prometheus_server
from tests.engine.conftest import ALICE, Stage
from webserver.metrics_page import served_page
from workflows.temporal_worker.metrics import DECLARED as OF_WORKERS
from workflows.temporal_worker.metrics import TemporalWorkerMetrics

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
_NAMES = (
    {family.sample_name for family in (*OF_ENGINE, *OF_ENDPOINTS)}
    | {f"{family.name}{suffix}" for family in HISTOGRAMS for suffix in ("", "_bucket")}
    | {
        f"{each.name}{suffix}"
        for each in (*OF_WORKERS, *OF_HOSTS)
        for suffix in (("_bucket", "_count") if each.kind == "histogram" else ("",))
    }
)

_TASK = WorkflowActivation(
    jobs=[WorkflowActivationJob(signal_workflow=SignalWorkflow(signal_name="metrics"))]
)
_COMMANDS = WorkflowActivationCompletion()


@pytest.fixture(scope="module")
def dashboards() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dashboards", MONITORING / "dashboards.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    return group["rules"]


def test_the_dashboards_are_the_ones_that_the_code_makes(dashboards: ModuleType) -> None:
    for name in dashboards.DASHBOARDS:
        assert (dashboards.FOLDER / f"{name}.json").read_text() == dashboards.render(name)


def test_every_rule_and_query_uses_metrics_that_exist(dashboards: ModuleType) -> None:
    for expression in [rule["expr"] for rule in rules()] + dashboards.queries():
        used = set(re.findall(r"\bstoker_\w+", expression))
        assert used <= _NAMES, expression


def test_every_alert_has_a_runbook() -> None:
    page = (ROOT / "docs" / "how-to" / "alerts.md").read_text()
    headings = {heading.lower() for heading in re.findall(r"^## (\w+)$", page, re.MULTILINE)}
    for rule in rules():
        file, _, section = rule["annotations"]["runbook_url"].partition("#")
        assert file == "docs/how-to/alerts.md"
        assert section == rule["alert"].lower()
        assert section in headings


@needs_prometheus
def test_the_alert_rules_pass_their_tests() -> None:
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, "test", "rules", "alerts_test.yaml"],
        cwd=MONITORING,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tested = set(re.findall(r"alertname: (\w+)", (MONITORING / "alerts_test.yaml").read_text()))
    assert tested == {rule["alert"] for rule in rules()}


@needs_prometheus
@pytest.mark.long  # a rate needs several scrapes
async def test_every_query_of_the_dashboards_has_a_result_in_a_real_prometheus(
    stage: Stage, dashboards: ModuleType, tmp_path: Path
) -> None:
    endpoint = await stage.endpoint(dollars_per_hour_max=3.0)
    worker, booting = endpoint.worker(), endpoint.worker("bbbbbbbbbbbb", 102)

    async def boot(step: int) -> None:
        """The second worker leaves one state of its boot."""
        state = ("loading", "model_loading")[step % 2]
        member = booting.member(s=state, c=0.25, p=10.0, t=time.time())
        await endpoint.script(groups=[1], members=[worker.member(c=0.5, k="1x RTX 4090"), member])

    await boot(0)
    await worker.report()
    process = TemporalWorkerMetrics()
    async with (
        served_page(process.registry, "127.0.0.1", 0) as page,
        _prometheus(stage, tmp_path, page) as url,
    ):
        # Neither the sweep that counts foreign instances nor a host marketplace runs here.
        absent = ("foreign_instances", "orphans_destroyed", "stoker_host_")
        missing = [query for query in dashboards.queries() if not any(name in query for name in absent)]
        for second in range(90):  # the subquery over a day has a value at each full minute
            given = await endpoint.route(cost=40)  # a rate needs growth between scrapes
            await worker.finish(given["request_idx"], times=(1.0, 1.1, 1.3))
            await worker.report()
            await boot(second + 1)
            process.market_call("list", "done", 0.1)
            process.activity("plan", "done", 0.01)
            process.workflow_task("EndpointWorkflow", _TASK, _COMMANDS, 0.02)
            await asyncio.sleep(1.0)
            missing = [query for query in missing if not await _result(stage, url, query)]
            if not missing:
                break
        assert missing == []


@needs_prometheus
async def test_a_prometheus_that_reads_native_histograms_gets_finer_quantiles(
    stage: Stage, dashboards: ModuleType, tmp_path: Path
) -> None:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await endpoint.ready(worker)
    await endpoint.route(cost=1)
    took = stage.server.engine.directory.named(endpoint.name).stats.took
    for _ in range(200):
        took.observe(3.0, 7)  # between the classic ends 2.5 and 5
    features = ("--enable-feature=native-histograms",)
    async with _prometheus(stage, tmp_path, "http://127.0.0.1:1/metrics", *features) as url:
        found: list[Any] = []
        while not found:
            query = f'histogram_quantile(0.5, stoker_request_worker_seconds{{endpoint="{endpoint.name}"}})'
            found = await _result(stage, url, query)
            await asyncio.sleep(0.2)
        # The native bucket of 3 s is (2.83, 3.08]; the classic one says 3.75.
        assert 2.83 < float(found[0]["value"][1]) <= 3.09
        for count in ("wait", "worker"):
            (one,) = await _result(
                stage, url, f'histogram_count(stoker_request_{count}_seconds{{endpoint="{endpoint.name}"}})'
            )
            assert float(one["value"][1]) == {"wait": 1, "worker": 200}[count]
        for query in dashboards.queries():
            await _result(stage, url, query)  # none is refused
        (scraped,) = await _result(stage, url, 'up{job="stoker"}')
        assert scraped["value"][1] == "1"
        assert await _result(stage, url, 'process_cpu_seconds_total{job="stoker"}')


async def _result(stage: Stage, url: str, query: str) -> list[Any]:
    query = query.replace("$endpoint", ".*")
    async with stage.http.get(f"{url}/api/v1/query", params={"query": query}) as answer:
        found = await answer.json()
    assert found["status"] == "success", (query, found)
    return found["data"]["result"]


def _prometheus(
    stage: Stage, folder: Path, worker_page: str, *features: str
) -> AbstractAsyncContextManager[str]:
    (folder / "key").write_text(ALICE)
    job = {
        "job_name": "stoker",
        "authorization": {"credentials_file": str(folder / "key")},
        "static_configs": [{"targets": [stage.server.url.removeprefix("http://")]}],
    }
    worker = {
        "job_name": "stoker-worker",
        "static_configs": [{"targets": [worker_page.removeprefix("http://").removesuffix("/metrics")]}],
    }
    settings = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [job, worker],
        "rule_files": [str(MONITORING / "alerts.yaml")],
    }
    return prometheus_server(folder, settings, *features)
