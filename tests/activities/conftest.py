from dataclasses import replace
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from activities.instances import MarketActivities
from activities.secrets import DeploymentSecrets
from market.fake import FakeMarket
from stoker_wire.market import Offer, Template
from stoker_wire.workergroup import Workergroup

SECRET = "hf_very_secret_value"


@pytest.fixture
def secrets() -> DeploymentSecrets:
    return DeploymentSecrets(
        hmac_secret=b"the deployment's secret",
        named={"HF_TOKEN": SECRET},
        report_address="http://engine:8080",
    )


@pytest.fixture
def market() -> FakeMarket:
    kinds = [("RTX 3090", 0.2, 30.0), ("RTX 4090", 0.3, 60.0), ("H100", 1.8, 200.0)]
    offers = [
        Offer(
            id=number,
            machine_id=500 + number,
            gpu_name=kinds[number % 3][0],
            dph_total=kinds[number % 3][1],
            dlperf=kinds[number % 3][2] - number * 0.01,
            storage_cost=0.73,
        )
        for number in range(1, 100)
    ]
    template = Template(
        id=7, hash_id="tmpl", env="-e A=1 -e HF_TOKEN=secret:HF_TOKEN", recommended_disk_space=20.0
    )
    return FakeMarket(offers, clock=lambda: 1000.0, templates=[template])


@pytest.fixture
def hands(market: FakeMarket, secrets: DeploymentSecrets) -> MarketActivities:
    return MarketActivities(market, secrets)


@pytest.fixture
def run() -> Any:
    """Run an activity as its n-th attempt."""

    async def run(activity: Any, asked: Any, *, attempt: int = 1) -> Any:
        environment = ActivityEnvironment()
        environment.info = replace(environment.info, attempt=attempt)
        return await environment.run(activity, asked)

    return run


@pytest.fixture
def group() -> Any:
    def make(**changes: Any) -> Workergroup:
        return Workergroup.model_validate({"id": 1, "template_hash": "tmpl", **changes})

    return make
