"""The ports of the settings: who listens on them, whether they can be bound, and whether the network reaches them."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from hosts.agent import proc
from run.doctor.engine_checks import http_client, unreachable
from run.errors import CommandError
from run.processes.listening_sockets import ListeningSocket, listening_sockets
from run.settings import DeploymentSettings, bracketed
from run.state_folder.lock import require_free
from stoker.cli.overview.findings import Finding, found
from stoker_wire.security.loopback import is_loopback

_PROXY = "bind it to 127.0.0.1, or put a TLS proxy in front of it and set its public_url to https://… (deploy/proxy)"


async def check_ports(settings: DeploymentSettings) -> AsyncIterator[Finding]:
    """One finding per port."""
    listening = listening_sockets(proc.pids()) or []
    encrypted = {
        "engine.port": (settings.engine.public_url or "").startswith("https://"),
        "dashboard.port": (settings.dashboard.public_url or "").startswith("https://"),
    }
    for name, (host, port) in settings.ports().items():
        holder = next((one for one in listening if one.port == port and _same_host(one.host, host)), None)
        yield _finding(name, host, port, holder, plain=not encrypted.get(name, False))


def _finding(name: str, host: str, port: int, holder: ListeningSocket | None, *, plain: bool) -> Finding:
    check, where = f"port {name}", f"{bracketed(host)}:{port}"
    if holder is None:
        try:
            require_free({name: (host, port)})
        except CommandError as fault:
            return Finding(check, "failed", str(fault), f"free the port, or change {name}")
        text = f"nothing listens on {where}; it can be bound"
    else:
        text = f"pid {holder.pid} ({_program(holder.pid)}) listens on {where}"
    if plain and not is_loopback(host):
        return Finding(check, "warning", f"{text}: open to the network without TLS", _PROXY)
    return Finding(check, "ok", text)


def _same_host(listening: str, configured: str) -> bool:
    """A socket on all interfaces also serves the configured one."""
    return listening in {configured, "0.0.0.0", "::"} or (is_loopback(listening) and is_loopback(configured))


def _program(pid: int) -> str:
    """The command of a process, without its arguments, which may contain secrets."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "ended"


async def check_dashboard(settings: DeploymentSettings) -> AsyncIterator[Finding]:
    """The web page, if the settings have one."""
    listen = settings.dashboard
    if listen.port is None:
        return
    url = f"http://{bracketed(listen.host)}:{listen.port}"
    fault = ""
    async with http_client(url) as http:
        try:
            response = await http.get(f"{url}/healthz")
        except httpx.HTTPError as error:
            fault = unreachable(url, error)
        else:
            if not response.is_success:
                fault = f"{url}/healthz answered {response.status_code}: another program"
    remedy = "start it: `stokerd dev`, or `stokerd dashboard`; without a page set dashboard.port to null"
    yield found("dashboard", fault, f"answers at {url}", remedy)
