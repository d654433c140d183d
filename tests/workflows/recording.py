"""Writes histories into the repository: without what names the machine that they were recorded on."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from temporalio.client import WorkflowHistory

HISTORIES = Path(__file__).parent / "histories"
ASKED_FOR = "STOKER_RECORD_HISTORIES" in os.environ
"""Recording is asked for by a variable."""

MOVE_SECONDS_MIN = 0.5
"""Between two moves to another build, where `upgraded` is recorded and replayed; a test cannot wait for the real one."""


def record(name: str, histories: Iterable[WorkflowHistory]) -> None:
    """Replace the histories of this name, one file a run."""
    for old in HISTORIES.glob(f"{name}-*.json"):
        old.unlink()
    for number, history in enumerate(histories):
        text = json.dumps(scrubbed(json.loads(history.to_json())), separators=(",", ":"))
        (HISTORIES / f"{name}-{number}.json").write_text(text + "\n")


def scrubbed(value: Any) -> Any:
    """Without what names the machine that it was recorded on."""
    if isinstance(value, dict):
        dull = {"identity": "recorder", "stackTrace": "", "binaryChecksum": "recorded", "buildId": "recorded"}
        return {key: dull.get(key, scrubbed(inner)) for key, inner in value.items()}
    return [scrubbed(inner) for inner in value] if isinstance(value, list) else value
