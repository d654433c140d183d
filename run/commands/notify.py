"""`stokerd notify`: a test notice through every channel."""

import os
import secrets
import time
from collections.abc import Callable

from activities.notices.errors import NotDelivered
from policy.alerting.rules import TEST
from run.errors import CommandError
from run.notifications import NotifySettings
from stoker_wire.alerts import Notice


async def send_test(settings: NotifySettings, *, only: str | None, say: Callable[[str], object]) -> list[str]:
    """Send a test notice through the channels, one after the other, without Temporal.

    Returns:
        The names of the channels that did not accept it.

    Raises:
        CommandError: there is no channel, none of this name, or a secret is missing or invalid.
    """
    channels = settings.channels(os.environ)
    if not channels:
        raise CommandError(
            "the settings have no channel for notices; add one under notify (docs/how-to/notify.md)"
        )
    if only is not None and only not in channels:
        raise CommandError(f"there is no channel {only!r}; the settings have {', '.join(channels)}")
    failed = []
    for name in [only] if only is not None else list(channels):
        began = time.monotonic()
        try:
            await channels[name].deliver([_notice(settings.deployment)])
        except NotDelivered as error:
            failed.append(name)
            say(f"{name}: not delivered: {error}")
        else:
            say(f"{name}: delivered in {1000 * (time.monotonic() - began):.0f} ms")
    return failed


def _notice(deployment: str) -> Notice:
    now, incident = time.time(), secrets.token_hex(12)
    return Notice(
        id=f"{incident}.test",
        incident=incident,
        alert=TEST,
        state="test",
        severity="info",
        summary="a test: notices of this deployment arrive here",
        since=now,
        at=now,
        deployment=deployment,
    )
