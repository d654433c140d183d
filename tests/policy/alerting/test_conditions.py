"""Which alerts an engine's figures make active. The names and times are those of the rules for Prometheus."""

import math
import re
from pathlib import Path

import pytest
import yaml

from policy.alerting.conditions import (
    EndpointSnapshot,
    Window,
    deployment_alerts,
    endpoint_alerts,
    share,
    worker_alerts,
)
from policy.alerting.rules import RULES, runbook
from stoker_wire.messages import ForeignInstances

ROOT = Path(__file__).parents[3]
SECONDS = {"m": 60, "h": 3600}
ONLY_PROMETHEUS = {"StokerHostMarketDown"}
"""A host marketplace that is down makes calls fail, which is an alert of its own."""


def names(**figures: object) -> list[str]:
    figures = {"name": "llm", "health": "ok", "workers_max": 4} | figures
    return [alert.name for alert in endpoint_alerts(EndpointSnapshot(**figures))]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({}, []),
        ({"health": "waiting", "queued_requests": 2, "queue_seconds": math.inf}, ["StokerNoCapacity"]),
        ({"queue_seconds": 3.1, "target_queue_seconds": 3.0}, ["StokerQueueOverTarget"]),
        ({"queue_seconds": 3.0, "target_queue_seconds": 3.0}, []),
        ({"queued_requests": 1, "workers": 4}, ["StokerAtMaxWorkers"]),
        ({"queued_requests": 0, "workers": 4}, []),
        ({"gpu_dollars_per_hour": 0.95, "dollars_per_hour_max": 1.0}, ["StokerBudgetReached"]),
        ({"gpu_dollars_per_hour": 0.94, "dollars_per_hour_max": 1.0}, []),
        ({"gpu_dollars_per_hour": 50.0}, []),
        ({"health": "degraded"}, ["StokerWorkersFailing"]),
        ({"health": "stuck", "fault": "it fails"}, ["StokerEndpointStuck"]),
        ({"failed_share": 0.051}, ["StokerRequestsFailing"]),
        ({"failed_share": 0.05}, []),
        ({"bill_difference": -2.5}, ["StokerBillDiffers"]),
    ],
)
def test_a_condition_makes_its_alert_active(figures, expected):
    found = names(**figures)
    if figures.get("health") == "waiting":
        found = [name for name in found if name != "StokerQueueOverTarget"]
    assert found == expected


def test_an_endless_queue_without_workers_is_over_target_too():
    assert "StokerQueueOverTarget" in names(
        health="waiting", queued_requests=1, queue_seconds=math.inf, target_queue_seconds=3.0
    )


def test_the_text_says_why_requests_wait():
    (alert,) = endpoint_alerts(
        EndpointSnapshot(
            name="llm", health="waiting", queued_requests=3, workers_max=1, wait_reason="no offer matches"
        )
    )
    assert alert.text == "no worker can take 3 waiting requests: no offer matches"


def test_destroyed_orphans_are_an_alert_for_a_quarter_of_an_hour():
    swept = ForeignInstances(destroyed=3, destroyed_at=1000.0)
    assert deployment_alerts(ForeignInstances(), 1000.0) == []
    assert deployment_alerts(swept, 1900.0) == []
    (alert,) = deployment_alerts(swept, 1899.0)
    assert alert.name == "StokerOrphansDestroyed"
    assert alert.text == "the sweep destroyed what no endpoint looked after; 3 instances so far"


def test_instances_without_a_deployment_are_an_alert_of_the_deployment():
    found = deployment_alerts(ForeignInstances(unowned=2), 1e9)
    assert [(alert.name, alert.subject) for alert in found] == [("StokerUnownedInstances", "")]


def test_the_failed_share_is_that_of_the_window():
    window = Window(600.0)

    def observed(failed: int, ended: int, now: float) -> float:
        return share(window.grown({"failed": failed, "done": ended - failed}, now), ["failed", "expired"])

    assert observed(0, 0, 0.0) == 0.0
    assert observed(5, 10, 300.0) == 0.5
    # 600 s later only what ended since second 300 counts: 5 failed of 90.
    assert observed(10, 100, 900.0) == pytest.approx(5 / 90)
    # Nothing ended in the window.
    assert observed(10, 100, 2000.0) == 0.0


def test_a_counter_that_appears_later_began_at_zero():
    window = Window(300.0)
    assert window.grown({}, 0.0) == {}
    assert window.grown({"EndpointWorkflow": 2.0}, 10.0) == {"EndpointWorkflow": 2.0}
    assert window.grown({"EndpointWorkflow": 2.0}, 400.0) == {"EndpointWorkflow": 0.0}


def test_a_worker_sees_failing_workflow_tasks_and_marketplace_calls():
    assert worker_alerts(market_failed_share=0.2, failing_workflows=()) == []
    found = worker_alerts(market_failed_share=0.21, failing_workflows=["SweepWorkflow"])
    assert [(alert.name, alert.subject) for alert in found] == [
        ("StokerWorkflowTasksFailing", "SweepWorkflow"),
        ("StokerMarketFailing", ""),
    ]


def test_the_rules_are_those_for_prometheus():
    rules = yaml.safe_load((ROOT / "deploy/monitoring/alerts.yaml").read_text())["groups"][0]["rules"]
    theirs = {rule["alert"]: rule for rule in rules}
    assert set(theirs) - ONLY_PROMETHEUS == set(RULES)
    for name in set(theirs) & set(RULES):
        hold = theirs[name].get("for", "0m")
        assert RULES[name].hold_seconds == int(hold[:-1]) * SECONDS[hold[-1]], name
        assert RULES[name].severity == theirs[name]["labels"]["severity"], name
        assert theirs[name]["annotations"]["runbook_url"] == runbook(name), name


def test_every_rule_has_its_section_in_the_how_to():
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs/how-to/alerts.md").read_text(), re.MULTILINE)
    assert set(RULES) <= set(headings)
