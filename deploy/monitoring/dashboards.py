"""Makes the Grafana dashboards: `python deploy/monitoring/dashboards.py` writes `dashboards/*.json`.

Needs `grafana-foundation-sdk`, a development dependency. A test compares the files, and runs every query.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import StackingMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef

FOLDER = Path(__file__).parent / "dashboards"
_SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
ENDPOINT = '{endpoint=~"$endpoint"}'
DONE = '{endpoint=~"$endpoint",outcome="done"}'
_DOLLARS = f"sum by (endpoint) (max by (endpoint, stage) (stoker_gpu_dollars_per_hour{ENDPOINT}))"
"""$/h; 1,000 requests at $1/h and one request a second cost 1000 / 3600 dollars."""

_ALL_DOLLARS = f"max by (endpoint, stage) (increase(stoker_gpu_dollars_total{ENDPOINT}[1d]))"
_USED_DOLLARS = f"increase(stoker_gpu_dollars_used_total{ENDPOINT}[1d])"

Query = tuple[str, str]
"""Expression and legend."""
Panel = tuple[str, str, bool, Sequence[Query]]
"""Title, unit, stacked, queries."""


def _quantile(share: float, name: str, by: str = "endpoint") -> str:
    """Of native histograms where Prometheus has them, else of classic ones."""
    native = f"histogram_quantile({share}, sum by ({by}) (rate({name}{ENDPOINT}[5m])))"
    return f"{native} or histogram_quantile({share}, sum by ({by}, le) (rate({name}_bucket{ENDPOINT}[5m])))"


def _times(title: str, name: str, by: str = "endpoint") -> Panel:
    """Median and 99th percentile of a histogram."""
    return (
        title,
        "s",
        False,
        [(_quantile(share, name, by), f"p{share * 100:g} {{{{{by}}}}}") for share in (0.5, 0.99)],
    )


FLEET: tuple[Panel, ...] = (
    (
        "Endpoints by health",
        "short",
        True,
        [("sum by (health) (max by (endpoint, health) (stoker_endpoint_health))", "{{health}}")],
    ),
    (
        "Workers by state",
        "short",
        True,
        [("sum by (state) (max by (endpoint, state) (stoker_workers))", "{{state}}")],
    ),
    (
        "GPU cost",
        "currencyUSD",
        True,
        [("sum by (stage) (max by (endpoint, stage) (stoker_gpu_dollars_per_hour))", "{{stage}} $/h")],
    ),
    ("Arrived load", "short", False, [("sum(rate(stoker_arrived_load_total[1m]))", "load/s")]),
    (
        "Requests by outcome",
        "reqps",
        True,
        [("sum by (outcome) (rate(stoker_requests_total[1m]))", "{{outcome}}")],
    ),
    ("Queued requests", "short", True, [("sum by (endpoint) (stoker_queue_requests)", "{{endpoint}}")]),
    ("Seconds since Temporal answered", "s", False, [("stoker_engine_watch_age_seconds", "{{instance}}")]),
    (
        "Instances without a deployment",
        "short",
        False,
        [("max by (owner) (stoker_foreign_instances)", "{{owner}}")],
    ),
    (
        "Marketplace calls by outcome",
        "reqps",
        True,
        [("sum by (outcome) (rate(stoker_market_call_seconds_count[5m]))", "{{outcome}}")],
    ),
    (
        "Marketplace calls, p99",
        "s",
        False,
        [
            (
                "histogram_quantile(0.99, sum by (call, le) (rate(stoker_market_call_seconds_bucket[5m])))",
                "{{call}}",
            )
        ],
    ),
    (
        "Time of workflow tasks and plans, p99",
        "s",
        False,
        [
            (
                "histogram_quantile(0.99, sum by (workflow, le) (rate(stoker_workflow_task_seconds_bucket[5m])))",
                "{{workflow}}",
            ),
            (
                'histogram_quantile(0.99, sum by (le) (rate(stoker_activity_seconds_bucket{activity="plan"}[5m])))',
                "planner",
            ),
        ],
    ),
    (
        "Temporal actions per day, at the rate of the last hour",
        "short",
        True,
        [("sum by (action) (rate(stoker_temporal_actions_total[1h])) * 86400", "{{action}}")],
    ),
    (
        "Slots of the host marketplace",
        "short",
        True,
        [("sum by (machine, state) (stoker_host_slots)", "{{machine}} {{state}}")],
    ),
)

ONE: tuple[Panel, ...] = (
    (
        "Load and capacity",
        "short",
        False,
        [
            (f"sum(rate(stoker_arrived_load_total{ENDPOINT}[1m]))", "arrived load/s"),
            (
                f"sum by (stage) (max by (endpoint, stage) (stoker_capacity_load_per_second{ENDPOINT}))",
                "{{stage}}",
            ),
        ],
    ),
    (
        "Workers by state",
        "short",
        True,
        [(f"sum by (state) (max by (endpoint, state) (stoker_workers{ENDPOINT}))", "{{state}}")],
    ),
    _times("Time in the queue", "stoker_request_wait_seconds"),
    _times("Time at the worker", "stoker_request_worker_seconds"),
    _times("Time in the model, by GPU", "stoker_request_model_seconds", "gpu"),
    _times("Time in the workers' queues, by GPU", "stoker_request_worker_queue_seconds", "gpu"),
    _times("From arrival to the first bytes, by GPU", "stoker_request_first_byte_seconds", "gpu"),
    _times("From arrival to end, by GPU", "stoker_request_seconds", "gpu"),
    (
        "Expected queue time against its target",
        "s",
        False,
        [
            (f"max by (endpoint) (stoker_queue_expected_seconds{ENDPOINT})", "expected {{endpoint}}"),
            (f"max by (endpoint) (stoker_queue_target_seconds{ENDPOINT})", "target {{endpoint}}"),
        ],
    ),
    (
        "Requests by outcome",
        "reqps",
        True,
        [(f"sum by (outcome) (rate(stoker_requests_total{ENDPOINT}[1m]))", "{{outcome}}")],
    ),
    (
        "Reroutes and expired places",
        "reqps",
        False,
        [
            (f"sum by (endpoint) (rate(stoker_reroutes_total{ENDPOINT}[5m]))", "reroutes {{endpoint}}"),
            (f"sum by (endpoint) (rate(stoker_places_expired_total{ENDPOINT}[5m]))", "expired {{endpoint}}"),
        ],
    ),
    (
        "Signals to the workflow",
        "short",
        True,
        [(f"sum by (kind) (rate(stoker_signals_total{ENDPOINT}[5m]))", "{{kind}}")],
    ),
)

COSTS: tuple[Panel, ...] = (
    (
        "GPU cost by endpoint",
        "currencyUSD",
        True,
        [
            (
                f"sum by (endpoint) (max by (endpoint, stage) (stoker_gpu_dollars_per_hour{ENDPOINT}))",
                "{{endpoint}} $/h",
            )
        ],
    ),
    (
        "Budget",
        "currencyUSD",
        False,
        [(f"max by (endpoint) (stoker_gpu_dollars_per_hour_max{ENDPOINT} < +Inf)", "{{endpoint}} $/h")],
    ),
    (
        "GPU dollars in the last day",
        "currencyUSD",
        False,
        [
            (
                f"sum by (endpoint) (avg_over_time((max by (endpoint, stage) (stoker_gpu_dollars_per_hour{ENDPOINT}))[1d:1m])) * 24",
                "{{endpoint}}",
            )
        ],
    ),
    (
        "Wasted GPU dollars in the last day: booting, or hot without load",
        "currencyUSD",
        False,
        [
            (
                f"clamp_min(sum by (endpoint) ({_ALL_DOLLARS}) - sum by (endpoint) ({_USED_DOLLARS}), 0)",
                "{{endpoint}}",
            )
        ],
    ),
    (
        "Boot time by state, median",
        "s",
        True,
        [(_quantile(0.5, "stoker_worker_boot_seconds", "state"), "{{state}}")],
    ),
    (
        "GPU dollars per 1,000 requests",
        "currencyUSD",
        False,
        [
            (
                f"{_DOLLARS} / 3.6 / sum by (endpoint) (rate(stoker_requests_total{DONE}[15m]))",
                "{{endpoint}}",
            )
        ],
    ),
    (
        "Share of the GPU cost while booting",
        "percentunit",
        False,
        [
            (
                f'sum by (endpoint) (max by (endpoint) (stoker_gpu_dollars_per_hour{{endpoint=~"$endpoint",stage="booting"}})) / sum by (endpoint) (max by (endpoint, stage) (stoker_gpu_dollars_per_hour{ENDPOINT}))',
                "{{endpoint}}",
            )
        ],
    ),
    (
        "Load on hot capacity",
        "percentunit",
        False,
        [
            (
                f"sum by (endpoint) (rate(stoker_arrived_load_total{ENDPOINT}[5m])) / max by (endpoint) (stoker_workers_perf{ENDPOINT})",
                "{{endpoint}}",
            )
        ],
    ),
)

DASHBOARDS: dict[str, tuple[str, Sequence[Panel]]] = {
    "fleet": ("stoker: fleet", FLEET),
    "endpoint": ("stoker: endpoint", ONE),
    "costs": ("stoker: costs", COSTS),
}


def queries() -> list[str]:
    """Every expression of every panel."""
    return [expression for _, panels in DASHBOARDS.values() for panel in panels for expression, _ in panel[3]]


def render(name: str) -> str:
    """The JSON of one dashboard."""
    title, panels = DASHBOARDS[name]
    made = (
        dashboard.Dashboard(title)
        .uid(f"stoker-{name}")
        .tags(["stoker"])
        .refresh("30s")
        .time("now-6h", "now")
        .with_variable(dashboard.DatasourceVariable("source").label("Data source").type("prometheus"))
    )
    if name != "fleet":
        made = made.with_variable(
            dashboard.QueryVariable("endpoint")
            .label("Endpoint")
            .datasource(_SOURCE)
            .query("label_values(stoker_endpoint_health, endpoint)")
            .multi(True)
            .include_all(True)
        )
    for panel in panels:
        made = made.with_panel(_panel(*panel))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def _panel(title: str, unit: str, stacked: bool, found: Sequence[Query]) -> Any:
    panel = timeseries.Panel().title(title).unit(unit).datasource(_SOURCE).height(8).span(12).min(0)
    if stacked:
        panel = panel.fill_opacity(40).stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    for expression, legend in found:
        panel = panel.with_target(prometheus.Dataquery().expr(expression).legend_format(legend))
    return panel


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for each in DASHBOARDS:
        (FOLDER / f"{each}.json").write_text(render(each))
