"""Asks the OSV database which pinned packages have known vulnerabilities: `make audit`, and so `make check`.

The exit status is 1 if a package has a known vulnerability, else 0. If the database cannot be reached, it prints a line
and exits with 0, so that the check passes offline; with `--required`, for CI, it exits with 1.
"""

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx

OSV = "https://api.osv.dev/v1/querybatch"
_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)")
_BATCH = 500
_SECONDS_MAX = 15.0


class Unreachable(Exception):
    """The database did not answer, or its answer is invalid."""


def pins(files: Iterable[Path]) -> list[tuple[str, str]]:
    """Name and version of every pinned package, without duplicates."""
    found = {
        (match["name"].lower(), match["version"]): None
        for file in files
        for line in file.read_text().splitlines()
        if (match := _PIN.match(line))
    }
    return list(found)


def vulnerable(packages: list[tuple[str, str]], url: str = OSV) -> list[tuple[str, str, list[str]]]:
    """Name, version and advisories of each vulnerable package.

    Raises:
        Unreachable: the database did not answer, or its answer is invalid.
    """
    found = []
    with httpx.Client(timeout=_SECONDS_MAX) as client:
        for start in range(0, len(packages), _BATCH):
            part = packages[start : start + _BATCH]
            for (name, version), result in zip(part, _ask(client, url, part), strict=True):
                advisories = [str(one["id"]) for one in result.get("vulns") or []]
                if advisories:
                    found.append((name, version, advisories))
    return found


def _ask(client: httpx.Client, url: str, packages: list[tuple[str, str]]) -> list[dict[str, Any]]:
    queries = [
        {"package": {"ecosystem": "PyPI", "name": name}, "version": version} for name, version in packages
    ]
    try:
        reply = client.post(url, json={"queries": queries})
        reply.raise_for_status()
        results = reply.json()["results"]
    except httpx.HTTPError as fault:
        raise Unreachable(f"{type(fault).__name__}: {str(fault)[:100]}") from None
    except (ValueError, KeyError, TypeError) as fault:
        raise Unreachable(f"its answer cannot be read ({type(fault).__name__})") from None
    if (
        not isinstance(results, list)
        or len(results) != len(packages)
        or not all(isinstance(one, dict) for one in results)
    ):
        raise Unreachable(f"its answer does not match the {len(packages)} packages of the request")
    return results


def main(arguments: list[str] | None = None) -> int:
    """Print the result and return the exit status."""
    parser = argparse.ArgumentParser(description="known vulnerabilities of the pinned packages")
    parser.add_argument("files", nargs="+", type=Path, help="requirements/*.txt")
    parser.add_argument("--url", default=OSV, help="the database")
    parser.add_argument("--required", action="store_true", help="fail when the database cannot be reached")
    options = parser.parse_args(arguments)
    packages = pins(options.files)
    try:
        found = vulnerable(packages, options.url)
    except Unreachable as fault:
        message = f"audit: not done, the advisory database cannot be reached ({fault}); {len(packages)} packages are unchecked"
        print(message, file=sys.stderr)
        return int(options.required)
    for name, version, advisories in found:
        print(f"audit: {name} {version} has known vulnerabilities: {', '.join(advisories)}; raise it in requirements/*.in and run `make lock`")  # fmt: skip
    print(f"audit: {len(packages)} packages, {len(found)} with known vulnerabilities")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
