"""The channels of notifications: their secrets, and whether this machine reaches their receivers."""

import asyncio
import os
from collections.abc import AsyncIterator

from run.errors import CommandError
from run.settings import DeploymentSettings, bracketed
from stoker.cli.overview.addresses import connection_fault, host_and_port
from stoker.cli.overview.findings import Finding, found


async def check_notices(settings: DeploymentSettings) -> AsyncIterator[Finding]:
    """One finding per channel. Nothing is sent: `stokerd notify` does that."""
    notify = settings.notify
    # A webhook's URL may contain a secret, so only its host is shown.
    receivers = {
        each.name: f"http://{bracketed(host)}:{port}"
        for each in notify.webhooks
        for host, port in [host_and_port(each.url)]
    }
    receivers |= {each.name: f"smtp://{bracketed(each.host)}:{each.port}" for each in notify.email}
    if not receivers:
        yield Finding("notifications", "ok", "no channel is configured (docs/how-to/notify.md)")
        return
    try:
        notify.channels(os.environ)
    except CommandError as fault:
        yield Finding(
            "notifications", "failed", str(fault), "see docs/how-to/notify.md for secrets of channels"
        )
    faults = await asyncio.gather(*map(connection_fault, receivers.values()))
    for (name, address), unreachable in zip(receivers.items(), faults, strict=True):
        where = address.partition("://")[2]
        fault_text = f"its receiver does not take connections: {unreachable}" if unreachable else ""
        yield found(
            f"notifications to {name}",
            fault_text,
            f"{where} takes connections; a real test: stokerd notify --channel {name}",
            "correct the channel's address under notify, or open the way to it in the firewall",
        )
