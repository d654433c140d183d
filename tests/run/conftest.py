"""Commands that run in the test's own process."""

import pytest


@pytest.fixture(autouse=True)
def unconfigured_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command configures the logs of its process. Here that is the process of all tests, which capture logs."""
    monkeypatch.setattr("run.cli.configure_logs", lambda **_: None)
