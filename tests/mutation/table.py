"""The results in `docs/reliability.md`, written from the session files."""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.work_db import WorkDB

from tests.mutation.mutants import NOT_SAMPLED, Equivalent, Judged, Target, equivalents, judged, targets

PAGE = "docs/reliability.md"
BEGIN = "<!-- written by `make mutation TARGETS=--table` -->"
END = "<!-- end of the mutation results -->"
HEAD = [
    "| code | target | mutants | killed | share | equivalent | not noticed |",
    "|---|---|---|---|---|---|---|",
]


@dataclass(frozen=True, slots=True)
class Result:
    """A target's results."""

    target: Target
    seed: int
    possible: int
    """Mutants without those that are never run."""
    judged: list[Judged]
    named: dict[Equivalent, int]
    """Survivors by the entry that names them."""

    @property
    def killed(self) -> int:
        """Mutants that a test noticed."""
        return sum(each.killed for each in self.judged)

    def row(self) -> str:
        """A line of the table."""
        run, equivalent = len(self.judged), sum(self.named.values())
        drawn = f"{run:,} of {self.possible:,}, seed {self.seed}" if run < self.possible else f"all {run:,}"
        left = run - self.killed - equivalent
        share = self.killed / run if run else 0.0
        code = f"| `{self.target.title}` | `{self.target.name}` "
        return code + f"| {drawn} | {self.killed:,} | {share:.1%} | {equivalent} | {left} |"


def write_table(root: Path, folder: Path) -> None:
    """Replace the results in the page by those of the session files."""
    results = [result for target in targets(root).values() if (result := read(target, folder))]
    lines = [BEGIN, "", *HEAD, *(result.row() for result in results), ""]
    lines += ["Survivors that behave like the original, and why:", "", *_reasons(results), "", END]
    page = root / PAGE
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(before + "\n".join(lines) + rest.partition(END)[2])
    used = {entry for result in results for entry in result.named}
    for entry in equivalents():
        if entry not in used:
            print(f"no survivor is named by this entry: {entry.file}: {entry.line}")


def read(target: Target, folder: Path) -> Result | None:
    """The results of the target's session; None if it is not complete."""
    path, note = folder / f"{target.name}.sqlite", folder / f"{target.name}.json"
    if not path.exists() or not note.exists():
        return None
    session = WorkDB(path, WorkDB.Mode.open)
    run = judged(session)
    if not run or session.pending_work_items:
        return None
    left_out = sum(result.output == NOT_SAMPLED for _, result in session.results)
    named: dict[Equivalent, int] = defaultdict(int)
    known = equivalents()
    for each in run:
        if not each.killed:
            file = str(each.mutation.module_path)
            entry = next((one for one in known if one.covers(file, each.before, each.after)), None)
            if entry is not None:
                named[entry] += 1
    seed = json.loads(note.read_text())["seed"]
    return Result(target, seed, len(run) + left_out, run, dict(named))


def _reasons(results: list[Result]) -> list[str]:
    """A line for each reason in each file, with the number of mutants."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for result in results:
        for entry, count in result.named.items():
            counts[entry.file, entry.reason] += count
    return [f"* `{file}` ({count}): {reason}" for (file, reason), count in counts.items()]
