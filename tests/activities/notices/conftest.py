from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from stoker_wire.alerts import Notice
from tests.activities.notices.receivers import HttpReceiver, SmtpReceiver
from tests.sdk.conftest import certificate

__all__ = ["certificate"]


@pytest.fixture
async def receiver() -> AsyncIterator[HttpReceiver]:
    async with HttpReceiver() as started:
        yield started


@pytest.fixture
async def mail() -> AsyncIterator[SmtpReceiver]:
    async with SmtpReceiver() as started:
        yield started


@pytest.fixture
def notice() -> Callable[..., Notice]:
    def make(**changes: Any) -> Notice:
        given: dict[str, Any] = {
            "id": "abc.firing",
            "incident": "abc",
            "alert": "StokerNoCapacity",
            "state": "firing",
            "severity": "page",
            "subject": "llm",
            "summary": "llm: 2 requests wait and no worker can take them",
            "runbook": "docs/how-to/alerts.md#stokernocapacity",
            "since": 1_772_490_000.0,
            "at": 1_772_490_000.0,
            "deployment": "test",
        }
        return Notice.model_validate(given | changes)

    return make
