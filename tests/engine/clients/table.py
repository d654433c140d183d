"""The table of docs/reference/client-table.md: what each client does through the engine, by call."""

import json
import re
from pathlib import Path

from tests.environments import NODE_LOCK, ROOT

TABLE = ROOT / "docs" / "reference" / "client-table.md"
CALLS = (
    "chat",
    "completions",
    "stream",
    "tools",
    "usage",
    "embeddings",
    "models",
    "audio in",
    "speech out",
    "images",
    "errors",
    "cancel",
    "timeout",
    "50 at once",
)
WORKS, NO_SUCH_CALL = "yes", "no such call"

Outcomes = dict[str, str]
"""By call: an empty text if it works, else the error. A call that the client does not have is absent."""

_HEAD = """# Clients of OpenAI's API

Each client in its own environment, against the engine with stoker's worker and a model server that checks the model's
name as vLLM does. The test run writes this table: `STOKER_WRITE_TABLE=1 pytest -m long tests/engine/clients`.
[How to use them](../how-to/clients.md).

"""
_NOTES = """
* **chat**: with the model's name and with the endpoint's name, and `max_tokens` of 4,000.
* **usage**: in an answer, and as the last event of a stream.
* **audio in**: a form with a file of 2 MiB. **speech out**: binary audio.
* **errors**: an unknown model and a wrong key arrive as the client's own exceptions, with message and code.
* **cancel**, **timeout**: the client leaves in mid-stream, or after its own timeout. The model server sees it leave.
"""


def table(outcomes: dict[str, Outcomes]) -> str:
    """The page, from the outcomes by client."""
    rows = [["call", *outcomes], ["---"] * (len(outcomes) + 1)]
    rows += [[name, *(_cell(client, name) for client in outcomes.values())] for name in CALLS]
    return _HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows) + _NOTES


def _cell(outcomes: Outcomes, name: str) -> str:
    if name not in outcomes:
        return NO_SUCH_CALL
    return f"no: {outcomes[name]}" if outcomes[name] else WORKS


def read_outcomes(printed: str) -> Outcomes:
    """The outcomes that a script printed."""
    lines = [json.loads(line[5:]) for line in printed.splitlines() if line.startswith("CALL ")]
    return {line["call"]: line["error"] for line in lines}


def pinned_version(lock: str, package: str) -> str:
    """The version of a package in a lock of `requirements/`."""
    found = re.search(rf"^{package}==([^ ]+)", (ROOT / f"requirements/{lock}.txt").read_text(), re.MULTILINE)
    assert found is not None, (lock, package)
    return found[1]


def node_version() -> str:
    """The version of OpenAI's package for Node."""
    lock = json.loads((NODE_LOCK / "package-lock.json").read_text())
    return str(lock["packages"]["node_modules/openai"]["version"])


def script(name: str) -> Path:
    """The path of a client's script."""
    return Path(__file__).parent / "scripts" / name
