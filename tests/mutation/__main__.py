"""`make mutation`: changes one operator, number or branch at a time, and counts the changes that no test notices.

Runs cosmic-ray in a copy of the tracked files, so the working tree stays as it is. Each target's session is kept under
`.mutation/`; a second run goes on where the first one stopped.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KEPT = ROOT / ".mutation"
TREE = KEPT / "tree"
SECONDS = 60.0
LEFT_OUT = ["core/ReplaceBinaryOperator_BitOr_.*"]
"""`|` occurs in annotations, which are not evaluated."""
JUDGED = {"survived", "killed", "incompetent"}


def main() -> int:
    """Returns 0 if every selected target reached the share."""
    parser = argparse.ArgumentParser(prog="make mutation", description=__doc__)
    parser.add_argument("targets", nargs="*", help="of targets.toml; all of them if none is given")
    parser.add_argument("--share", type=float, default=0.9, help="killed mutants that a target needs")
    parser.add_argument("--fresh", action="store_true", help="forget the results of earlier runs")
    chosen = parser.parse_args()
    known = tomllib.loads((HERE / "targets.toml").read_text())
    unknown = set(chosen.targets) - set(known)
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}; these are: {', '.join(known)}")
    if chosen.fresh:
        shutil.rmtree(KEPT, ignore_errors=True)
    copy_tree()
    shares = [run(name, known[name]) for name in chosen.targets or known]
    return 0 if all(share >= chosen.share for share in shares) else 1


def copy_tree() -> None:
    """The tracked files as they are now, in a folder of their own."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    shutil.rmtree(TREE, ignore_errors=True)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (TREE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, TREE / name)


def run(name: str, target: dict[str, Any]) -> float:
    """The share of mutants that the target's tests kill. Raises SystemExit if the tests fail without a mutant."""
    config, session = KEPT / f"{name}.toml", KEPT / f"{name}.sqlite"
    test = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", *target["tests"]]
    if "select" in target:
        test += ["-k", target["select"]]
    config.write_text(
        "[cosmic-ray]\n"
        f"module-path = {json.dumps(target['module'])}\n"
        f"timeout = {target.get('seconds', SECONDS)}\n"
        f"test-command = {json.dumps(shlex.join(test))}\n"
        'excluded-modules = []\n[cosmic-ray.distributor]\nname = "local"\n'
        f"[cosmic-ray.filters.operators-filter]\nexclude-operators = {json.dumps(LEFT_OUT)}\n"
    )
    if not session.exists():
        ray("baseline", str(config))
        ray("init", str(config), str(session))
        ray("cr-filter-operators", str(session), str(config), program="")
    ray("exec", str(config), str(session))
    return report(name, target["module"], session)


def ray(command: str, *arguments: str, program: str = "cosmic-ray") -> str:
    """Run cosmic-ray in the copy; the packages of the copy come before the installed ones."""
    parts = [TREE, TREE / "wire", TREE / "sdk", TREE / "pyworker"]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, parts)),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    called = [
        str(Path(sys.executable).parent / (program or command)),
        *([command] if program else []),
        *arguments,
    ]
    done = subprocess.run(called, cwd=TREE, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command} failed: {(done.stderr or done.stdout)[-2000:]}")
    return done.stdout


def report(name: str, module: str, session: Path) -> float:
    """Print killed and total, and each survivor with its place."""
    results = [json.loads(line) for line in ray("dump", str(session)).splitlines()]
    judged = [(work, result["test_outcome"]) for work, result in results if result]
    survived = [work for work, outcome in judged if outcome == "survived"]
    total = sum(outcome in JUDGED for _, outcome in judged)
    share = (total - len(survived)) / total if total else 0.0
    print(f"{name} ({module}): {total - len(survived)} of {total} killed, {share:.1%}", flush=True)
    for work in survived:
        for each in work["mutations"]:
            line = each["start_pos"][0]
            print(f"  survived: {module}:{line} {each['operator_name']} {each['occurrence']}")
    return share


if __name__ == "__main__":
    sys.exit(main())
