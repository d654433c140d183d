"""`make bench`: every benchmark, one after the other, each in its own process. `--quick` is passed to each of them."""

import subprocess
import sys

NAMES = (
    "pyworker_proxy",
    "openai_door",
    "engine_route",
    "reaction",
    "wake",
    "first_token",
    "real_models",
    "temporal_actions",
    "dashboard",
    "scaling_policy",
    "scale",
)
ALWAYS = {"scale": ["--quick"]}
"""A thousand endpoints need ten minutes and two idle cores, so that benchmark runs only by name."""


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
