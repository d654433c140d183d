"""A client that slept does not blame the engine on waking."""

import stoker.engine
from stoker.engine import Outage


def test_an_outage_is_not_longer_because_the_process_slept(monkeypatch):
    now = 100.0
    monkeypatch.setattr(stoker.engine.time, "monotonic", lambda: now)
    outage = Outage(now)
    now += 2.0
    assert outage.failed() == 2.0
    now += 3600.0  # the lid was closed during the pause before the next call
    assert outage.failed() == 32.0, "one call and its pause: 20 s + 10 s"
    now += 5.0
    assert outage.failed() == 37.0
