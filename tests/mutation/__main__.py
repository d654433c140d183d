"""`make mutation`: changes one operator, number or branch at a time, and counts the changes that no test notices.

Runs on a copy of the tracked files, so the working tree stays as it is. Each target's session is kept under
`.mutation/`; a second run continues where the first one stopped, and judges the mutants of changed files again.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from cosmic_ray.work_db import WorkDB

from tests.mutation.mutants import Judged, equivalents, judged, targets
from tests.mutation.table import write_table

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".mutation"
TREE = KEPT / "tree"
PARTS = [TREE, TREE / "wire", TREE / "sdk", TREE / "pyworker"]


def main() -> int:
    """Returns 0 if every selected target reached the share."""
    known = targets(ROOT)
    parser = argparse.ArgumentParser(prog="make mutation", description=__doc__)
    parser.add_argument("targets", nargs="*", help="of targets.toml; all of them if none is given")
    parser.add_argument("--share", type=float, default=0.9, help="killed mutants that a target needs")
    parser.add_argument("--sample", type=int, help="mutants of each target, drawn at random; 0: all")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--again", action="store_true", help="run the survivors of earlier runs again")
    parser.add_argument(
        "--table", action="store_true", help="run nothing; write the results to docs/reliability.md"
    )
    chosen = parser.parse_args()
    unknown = set(chosen.targets) - set(known)
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}; these are: {', '.join(known)}")
    if chosen.table:
        write_table(ROOT, KEPT)
        return 0
    copy_tree()
    print(f"seed {chosen.seed}", flush=True)
    shares = []
    for name in chosen.targets or known:
        sample = -1 if chosen.sample is None else chosen.sample
        run(name, seed=chosen.seed, sample=sample, again=chosen.again)
        shares.append(report(name))
    return 0 if all(share >= chosen.share for share in shares) else 1


def copy_tree() -> None:
    """The tracked files as they are now, in a folder of their own. Unchanged files keep their compiled modules."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    names = {name for name in listed.split("\0") if name and (ROOT / name).is_file()}
    for path in [path for path in TREE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]:
        if str(path.relative_to(TREE)) not in names:
            path.unlink()
    for name in names:
        (TREE / name).parent.mkdir(parents=True, exist_ok=True)
        if not (TREE / name).exists() or (TREE / name).read_bytes() != (ROOT / name).read_bytes():
            shutil.copy2(ROOT / name, TREE / name)


def run(name: str, *, seed: int, sample: int, again: bool) -> None:
    """Run the target's mutants in a process of their own. Raises SystemExit if the tests fail without a mutant."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, PARTS))}
    arguments = [name, str(seed), str(sample), str(int(again)), str(KEPT)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutation.runner", *arguments], cwd=TREE, env=environment, check=False
    )
    if done.returncode:
        sys.exit(f"{name}: the run failed")


def report(name: str) -> float:
    """Print killed and total, and each survivor that is not named as equivalent."""
    known = equivalents()
    found = judged(WorkDB(KEPT / f"{name}.sqlite", WorkDB.Mode.open))
    survived = [each for each in found if not each.killed]
    share = (len(found) - len(survived)) / len(found) if found else 0.0
    print(f"{name}: {len(found) - len(survived)} of {len(found)} killed, {share:.1%}", flush=True)
    by_line: dict[str, list[Judged]] = defaultdict(list)
    for each in survived:
        if not any(one.covers(str(each.mutation.module_path), each.before, each.after) for one in known):
            by_line[f"{each.mutation.module_path}:{each.mutation.start_pos[0]}  {each.before}"].append(each)
    for line, mutants in by_line.items():
        print(f"  {line}")
        for each in mutants:
            print(f"      {each.after}")
    return share


if __name__ == "__main__":
    sys.exit(main())
