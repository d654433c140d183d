"""Real processes under faults: `python -m benchmarks.faults [--quick] [name …]`.

Temporal on a file, engine, Temporal worker, the marketplace of this machine and its PyWorkers, under steady traffic of
the SDK. After each fault the deployment must recover by itself, and the ledgers are compared. Exit code 1 if a request
was lost or answered twice, an instance leaked, or the deployment did not recover.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import uvloop

from benchmarks.engine.machine import facts
from benchmarks.faults.cases import Case, cases
from benchmarks.faults.stage import Stage, can_mount, small_disk, staged
from benchmarks.faults.traffic import Outcomes, outcomes_of
from market.ownership import owner_of
from run.logs import configure_logs
from tests.attack.pages import BROWSER
from tests.workflows.recording import ASKED_FOR, record
from tests.workflows.world import histories_of

BEFORE_SECONDS = 3.0
AFTER_SECONDS = 3.0
DISK_MEGABYTES = 96


@dataclass(frozen=True, slots=True)
class Row:
    """The result of one fault."""

    case: Case
    answer_seconds: float
    """Seconds until the first request was answered."""
    recovery_seconds: float
    """Seconds until every part worked and a new request was answered within seconds, the backlog included."""
    tally: Outcomes
    leaked: int
    dollars_leaked: float
    restarts: dict[str, int]
    failure: str = ""

    @property
    def good(self) -> bool:
        """True if no request was lost or answered twice, no instance leaked, and the deployment recovered."""
        return not (
            self.failure or self.tally.lost or self.tally.twice or self.leaked or self.dollars_leaked > 0
        )


async def struck(stage: Stage, case: Case) -> Row:
    """Runs one fault, and waits for the recovery."""
    await asyncio.sleep(BEFORE_SECONDS)
    began = time.monotonic()
    before = {name: child.restarts for name, child in stage.stack.supervisor.children.items()}
    failure, ended, recovery, leaked, dollars = "", began, float("nan"), -1, float("nan")
    try:
        ended = await case.strike(stage)
        recovery = await stage.until_whole() - ended
        await asyncio.sleep(AFTER_SECONDS)
        leaked, dollars = await stage.leaked()
    except (TimeoutError, AssertionError) as fault:
        failure = str(fault) or type(fault).__name__
    await stage.traffic.settled()
    after = stage.stack.supervisor.children
    restarts = {
        name: child.restarts - before[name] for name, child in after.items() if child.restarts > before[name]
    }
    book = [sent for sent in stage.traffic.since(began) if sent.ended_at is not None]
    answers = [sent.ended_at for sent in book if not sent.lost and sent.ended_at and sent.ended_at > ended]
    answered = min(answers, default=float("nan")) - ended
    return Row(case, answered, recovery, outcomes_of(book), leaked, dollars, restarts, failure)


async def played(chosen: list[Case], folder: Path, *, why: bool) -> list[Row]:
    """Runs every case of one kind of stage; a stage that did not recover is replaced."""
    rows: list[Row] = []
    left = list(chosen)
    while left:
        place = folder / f"stage-{len(rows)}"
        with small_disk(place, megabytes=DISK_MEGABYTES) if left[0].disk else contextlib.nullcontext():
            async with staged(place / "state") as stage:
                while left:
                    row = await struck(stage, left.pop(0))
                    rows.append(row)
                    print(line(row), flush=True)
                    if why:
                        print("".join(f"    {at:5.1f} s: {ailing}\n" for at, ailing in stage.ailed), end="")
                    if row.failure:
                        break
                else:
                    await _farewell(stage)
    return rows


async def _farewell(stage: Stage) -> None:
    """Deletes the endpoint, then checks that nothing is left and that ledger and bill agree."""
    await stage.traffic.stop()
    handle = stage.temporal.get_workflow_handle(f"endpoint/{stage.endpoint.name}")
    await stage.client.endpoints.delete(stage.endpoint.id)
    told = await asyncio.wait_for(handle.result(), 120)
    if ASKED_FOR:
        await asyncio.to_thread(record, "faults", await histories_of(stage.temporal, handle.id))
    rows = await stage.charges()
    charges = [row for row in rows if _is_of(row["label"], stage.endpoint.name)]
    left = [row for row in rows if not row["destroyed"]]
    dollars = sum(row["dollars"] for row in charges)
    print(
        f"  deleted: {told['workers_rented']} rented by the workflow, {len(charges)} by the marketplace's books, {len(left)} left; "
        f"ledger ${told['dollars']:.5f}, charged ${dollars:.5f}",
        flush=True,
    )
    if left or told["workers_rented"] != len(charges):
        raise SystemExit("an instance was left, or rented behind the workflow's back")


def _is_of(label: str, endpoint: str) -> bool:
    owner = owner_of(label)
    return owner is not None and owner.endpoint == endpoint


HEAD = (
    "| fault | sent | lost | twice | retried | streams cut | instances leaked | $ leaked | longest request, s | "
    "first answer, s | whole again, s | started again |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def line(row: Row) -> str:
    """One row of the table."""
    seen = row.tally
    again = ", ".join(f"{name} {count}x" for name, count in row.restarts.items()) or "-"
    told = (
        f"| {row.case.what} | {seen.sent} | {seen.lost} | {seen.twice} | {seen.retried} | {seen.cut} | {row.leaked} | "
        f"{row.dollars_leaked:.4f} | {seen.longest_seconds:.1f} | {row.answer_seconds:.1f} | {row.recovery_seconds:.1f} | {again} |"
    )
    notes = [f"  FAILED {row.case.name}: {row.failure}"] if row.failure else []
    notes += [f"  lost: {reason}" for reason in seen.reasons[:5]]
    return "\n".join([told, *notes])


async def main(names: list[str], *, quick: bool, why: bool) -> int:
    """The exit code."""
    known = cases(quick=quick)
    unknown = set(names) - {case.name for case in known}
    if unknown:
        sys.exit(f"no such fault: {', '.join(sorted(unknown))}; there are {', '.join(c.name for c in known)}")
    chosen = [case for case in known if not names or case.name in names]
    if not can_mount() and any(case.disk for case in chosen):
        print("disk-full is left out: making a small disk needs root")
        chosen = [case for case in chosen if not case.disk]
    if BROWSER is None and any(case.browser for case in chosen):
        print("hostile-page is left out: no Chromium is installed")
        chosen = [case for case in chosen if not case.browser]
    print(facts())
    print(HEAD, flush=True)
    rows = []
    with tempfile.TemporaryDirectory(prefix="stoker-faults-") as folder:
        for disk in (False, True):
            rows += await played(
                [case for case in chosen if case.disk is disk], Path(folder) / f"disk-{disk}", why=why
            )
    bad = [row.case.name for row in rows if not row.good]
    print(f"\n{len(rows)} faults, {len(bad)} with damage{': ' + ', '.join(bad) if bad else ''}")
    return 1 if bad else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only these faults")
    parser.add_argument("--quick", action="store_true", help="what lasts is shortened")
    parser.add_argument("--why", action="store_true", help="say what was not whole, and until when")
    given = parser.parse_args()
    configure_logs(level="error", process="faults")
    sys.exit(uvloop.run(main(given.names, quick=given.quick, why=given.why)))
