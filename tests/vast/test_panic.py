"""`stokerd panic` against a running deployment: its instances go, its endpoint stays stopped, others are not touched."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

from market.ownership import owner_of
from tests.vast.stage.deployment import ROOT, Deployment, until


def test_panic_destroys_an_endpoints_instances_and_they_do_not_come_back(
    deployment: Deployment, fleet: dict[str, int], ready: Callable[[str], dict[str, Any]]
) -> None:
    other = ready("ours")["id"]
    instances = [row["id"] for row in deployment.ready(fleet["pair"], 2)]
    settings = deployment.settings.state_dir / "settings.json"
    command = [sys.executable, "-m", "run", "panic", "--config", str(settings), "--endpoint", "pair"]
    asked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert asked.returncode == 1
    assert "give --yes" in asked.stderr
    assert all(deployment.instance(number) for number in instances)
    done = subprocess.run(
        [*command, "--yes"], cwd=ROOT, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "endpoints stopped: pair" in done.stdout
    assert not any(deployment.instance(number) for number in instances)

    def stopped() -> bool:
        shown = deployment.api("GET", f"/api/v0/endptjobs/{fleet['pair']}/")["result"]
        return (shown["endpoint_state"], shown["max_workers"]) == ("stopped", 0)

    until(stopped, seconds_max=10, what="the engine has seen that the endpoint is stopped")
    owners = [owner_of(row["label"]) for row in deployment.instances()]
    assert "pair" not in [owner.endpoint for owner in owners if owner is not None]
    assert deployment.instance(other)
