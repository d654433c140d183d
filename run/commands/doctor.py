"""`stokerd doctor`: checks of the whole deployment, side by side, each with a time limit."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from run.doctor import engine_checks, temporal_checks
from run.doctor.engine_checks import check_engine, check_public_address
from run.doctor.market_checks import check_market
from run.doctor.notice_checks import check_notices
from run.doctor.port_checks import check_dashboard, check_ports
from run.doctor.state_checks import check_keys, check_state_folder
from run.doctor.temporal_checks import check_temporal
from run.doctor.worker_checks import check_workers
from run.errors import CommandError
from run.settings import load_settings
from stoker.cli.overview.findings import SECONDS_MAX, Check, Finding, report, run_checks


async def run_doctor(config: Path | None, *, as_json: bool) -> None:
    """Print the findings. Exit code 1 if a check failed."""
    await report(findings_of(config), as_json=as_json)


async def findings_of(config: Path | None, *, seconds_max: float = SECONDS_MAX) -> AsyncIterator[Finding]:
    """The findings, in the order in which an operator would mend them."""
    try:
        settings = load_settings(config)
    except CommandError as fault:
        yield Finding("settings", "failed", str(fault), "correct the file, or give another with --config")
        return
    where = config if config is not None else "temporal-dev.yaml of this folder, else the built-in settings"
    yield Finding("settings", "ok", str(where))
    checks = [
        Check("keys", partial(check_keys, settings), ""),
        Check("state folder", partial(check_state_folder, settings), "does its disk answer?"),
        Check("ports", partial(check_ports, settings), ""),
        Check("Temporal", partial(check_temporal, settings), temporal_checks.REMEDY),
        Check("engine", partial(check_engine, settings), engine_checks.REMEDY),
        Check("address for workers", partial(check_public_address, settings), engine_checks.PUBLIC_REMEDY),
        Check(
            "marketplace",
            partial(check_market, settings),
            "does the marketplace run, and does a firewall drop the call?",
        ),
        Check("dashboard", partial(check_dashboard, settings), "start it: `stokerd dashboard`"),
        Check("notifications", partial(check_notices, settings), "do the channels' receivers answer?"),
        Check("workers", partial(check_workers, settings), "see the findings on the engine"),
    ]
    async for finding in run_checks(checks, seconds_max=seconds_max):
        yield finding
