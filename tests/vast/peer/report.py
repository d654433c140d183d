"""Shared by all peer scripts: cases run one after another or side by side, each reported as one line of JSON."""

import asyncio
import json
import sys
import time
import traceback

CASES = {}


def case(function):
    """A case, by its function's name."""
    CASES[function.__name__] = function
    return function


def say(**line):
    print(json.dumps(line, default=str), flush=True)


async def run_one(name, *args):
    began = time.monotonic()
    try:
        value = await CASES[name](*args)
        say(case=name, ok=True, value=value, seconds=round(time.monotonic() - began, 3))
    except Exception as fault:  # noqa: BLE001 - whatever it is, it is what the test asks about
        said = traceback.format_exc()[-3000:]
        say(case=name, ok=False, error=f"{type(fault).__name__}: {fault}", trace=said)


async def run_all(*args, names=None):
    """Runs cases concurrently, because they mostly wait."""
    await asyncio.gather(*(run_one(name, *args) for name in names or CASES))


def setting(name):
    return json.loads(sys.argv[1])[name]
