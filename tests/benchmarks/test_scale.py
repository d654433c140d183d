"""The parts of the benchmark that stand in for a marketplace's key and for workers, as the deployment reads them."""

from pathlib import Path

import msgspec
import pytest

from benchmarks.scale.fake_workers import FakeWorkers
from benchmarks.scale.seed import Part
from benchmarks.scale.stage import Stage
from run.state_folder.keys import load_keys
from stoker_wire.worker_status import WorkerStatus


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "state", calls_per_second_max=1.0)


def test_its_deployment_has_the_key_of_its_marketplace(stage: Stage) -> None:
    settings = stage.settings
    assert load_keys(settings.state_dir, generate=False, uses_vast=settings.uses_vast).market_key


async def test_its_workers_report_as_an_engine_expects_it(stage: Stage) -> None:
    stage.seed(1, 2, part=Part.BUSY)
    fake = FakeWorkers(0, lambda one: (f"token {one.id}", ""))
    (one,) = stage.endpoints[0].running
    worker = fake.join(one, loaded=True)
    read = WorkerStatus.model_validate_json(msgspec.json.encode(worker.report()))
    fake.close()
    assert (read.id, read.url) == (one.id, worker.url)
    assert read.loadtime > 0
