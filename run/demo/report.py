"""The demo's final report."""

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from run.demo.samples import Record
from stoker.cli.output import in_cells
from stoker_wire.states import WorkerState


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed; 0 for an empty sequence."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def print_report(
    record: Record,
    costs: dict[str, Any],
    decisions: Sequence[dict[str, Any]],
    charged_dollars: float,
    *,
    source: str,
    console: Console,
) -> None:
    """Print requests, queue time, dollars by state, and every decision with its reason."""
    served = record.served
    queued = [one.waited_s + one.queued_s for one in served]
    table = Table(title="summary", show_header=False)
    table.add_row("traffic", source)
    table.add_row("requests", str(len(served) + len(record.failures)))
    table.add_row("failed", str(len(record.failures)))
    table.add_row("retried on another worker", str(sum(one.attempts > 1 for one in served)))
    table.add_row("tokens", str(sum(one.tokens for one in served)))
    table.add_row(
        "queue time p50 / p99", f"{percentile(queued, 0.5):.2f} s / {percentile(queued, 0.99):.2f} s"
    )
    totals = [one.total_s for one in served]
    table.add_row(
        "whole answer p50 / p99", f"{percentile(totals, 0.5):.2f} s / {percentile(totals, 0.99):.2f} s"
    )
    table.add_row("workers that served", str(len({one.worker_id for one in served})))
    table.add_row("most hot workers at once", str(max((sample.hot for sample in record.samples), default=0)))
    for state, dollars in sorted(costs.get("by_state", {}).items()):
        table.add_row(f"dollars while {WorkerState(state).printed}", f"${dollars:.6f}")
    table.add_row("total dollars, by the endpoint", f"${costs.get('dollars', 0.0):.6f}")
    table.add_row("total dollars, by the marketplace", f"${charged_dollars:.6f}")
    console.print(table)
    print_decisions(decisions, console=console)
    for failure in record.failures[:20]:
        console.print(failure, style="red")


def print_decisions(decisions: Sequence[dict[str, Any]], *, console: Console) -> None:
    """Print the decision log."""
    log = Table(title="decisions")
    log.add_column("s", justify="right")
    log.add_column("kind")
    log.add_column("subject")
    log.add_column("reason", overflow="fold")
    first = decisions[0]["at"] if decisions else 0.0
    for line in decisions:
        log.add_row(
            *in_cells(f"{line['at'] - first:.1f}", line["kind"], line.get("subject", ""), line["reason"])
        )
    console.print(log)
