"""`make bench`: every benchmark, one after the other, each in a process of its own. `--quick` passes on."""

import subprocess
import sys

NAMES = ("pyworker_proxy", "engine_route", "reaction", "temporal_actions", "scaling_policy", "scale")
ALWAYS = {"scale": ["--quick"]}
"""A thousand endpoints take ten minutes and both cores to themselves: ask for them by name."""


def main() -> int:
    """The number of benchmarks that could not be run."""
    failed = 0
    for name in NAMES:
        print(f"\n=== {name}", flush=True)
        code = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:], *ALWAYS.get(name, [])], check=False
        ).returncode
        if code:
            failed += 1
            print(f"{name} ended with exit code {code}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
