"""Shared by the client scripts: each call is a function; its outcome is one line of JSON on stdout.

The settings come from the environment, as for every client of this kind.
"""

import asyncio
import inspect
import json
import os
import traceback

BASE_URL = os.environ["OPENAI_BASE_URL"]
KEY = os.environ["OPENAI_API_KEY"]
MODEL = os.environ["MODEL"]
ENDPOINT = os.environ["ENDPOINT"]
SPEECH_BYTES = 102_400
AUDIO = b"x" * (2 * 1024 * 1024)
MESSAGES = [{"role": "user", "content": "hello"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}

CALLS = []


def call(name):
    """Marks the function that makes this call."""

    def add(function):
        CALLS.append((name, function))
        return function

    return add


def slow(call_name):
    """A prompt that the model server answers until the client leaves."""
    return [{"role": "user", "content": f"slow {call_name}"}]


def expect(received, expected):
    """Compares."""
    assert received == expected, f"expected {expected!r}, received {received!r}"


def raises(kind, function, *args, **options):
    """The exception of this kind that the function raises."""
    try:
        received = function(*args, **options)
    except kind as fault:
        return fault
    raise AssertionError(f"expected {kind.__name__}, received {received!r}")


def say(name, error=""):
    """The outcome of one call."""
    print("CALL " + json.dumps({"call": name, "error": error}), flush=True)


async def run_all(*args):
    """Makes the calls one after the other."""
    for name, function in CALLS:
        try:
            made = function(*args)
            if inspect.isawaitable(made):
                await made
        except Exception as fault:  # noqa: BLE001 - whatever it is, it is the outcome
            traceback.print_exc()
            say(name, f"{type(fault).__name__}: {fault}"[:300])
        else:
            say(name)


def run():
    """Makes the calls one after the other."""
    asyncio.run(run_all())
