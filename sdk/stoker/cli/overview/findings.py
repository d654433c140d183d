"""Findings of `stoker doctor` and `stokerd doctor`, and checks that run side by side, each with a time limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import typer
from rich.table import Table
from rich.text import Text

from stoker.cli.output import console, print_json
from stoker_wire.parsing.escaping import escape_line

SECONDS_MAX = 10.0
"""Limit of one check; all run at the same time. Doubled: a deployment that is down is reported twice as late."""

Result = Literal["ok", "warning", "failed", "unknown"]

_MARKS: dict[Result, tuple[str, str]] = {
    "ok": ("ok  ", "green"),
    "warning": ("WARN", "bold yellow"),
    "failed": ("FAIL", "bold red"),
    "unknown": ("?   ", "bold"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. `unknown`: it cannot be checked from here, or not now."""

    check: str
    result: Result
    found: str
    remedy: str = ""
    """Empty if the result is ok."""


def found(check: str, fault: str, otherwise: str, remedy: str) -> Finding:
    """A failed finding with the fault, or an ok one if there is no fault."""
    return Finding(check, "failed", fault, remedy) if fault else Finding(check, "ok", otherwise)


@dataclass(frozen=True, slots=True)
class Check:
    """Findings about one part of the deployment."""

    name: str
    findings: Callable[[], AsyncIterator[Finding]]
    remedy: str
    """If the check does not end in time."""


async def run_checks(checks: Sequence[Check], *, seconds_max: float = SECONDS_MAX) -> AsyncIterator[Finding]:
    """The findings in the order of the checks, each as soon as the checks before it have ended."""
    tasks = [asyncio.create_task(_collect(check, seconds_max)) for check in checks]
    try:
        for task in tasks:
            for finding in await task:
                yield finding
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _collect(check: Check, seconds_max: float) -> list[Finding]:
    findings: list[Finding] = []
    try:
        async with asyncio.timeout(seconds_max):
            async for finding in check.findings():
                findings.append(finding)  # noqa: PERF401 - those before a timeout are kept
    except TimeoutError:
        findings.append(Finding(check.name, "failed", f"no answer within {seconds_max:.0f} s", check.remedy))
    except Exception as fault:  # noqa: BLE001 - one broken check must not hide the others
        message = f"cannot be checked: {type(fault).__name__}: {fault}"[:300]
        findings.append(Finding(check.name, "unknown", message, check.remedy))
    return findings


async def report(findings: AsyncIterator[Finding], *, as_json: bool) -> None:
    """Print the findings as they come, or all as JSON. Exit code 1 if a check failed."""
    all_found = []
    async for finding in findings:
        all_found.append(finding)
        if not as_json:
            _show(finding)
    if as_json:
        print_json([asdict(finding) for finding in all_found])
    if any(finding.result == "failed" for finding in all_found):
        raise typer.Exit(1)


def _show(finding: Finding) -> None:
    # A table, so that a narrow terminal shows long lines beside their mark.
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_row(Text(*_MARKS[finding.result]), Text(escape_line(f"{finding.check}: {finding.found}")))
    if finding.remedy:
        grid.add_row("", Text(escape_line(finding.remedy)))
    console().print(grid)
