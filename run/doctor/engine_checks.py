"""The engine on this machine, and its address for workers and clients: does it reach this deployment's engine?"""

import asyncio
import ipaddress
import re
import secrets
import ssl
import time
from collections.abc import AsyncIterator
from importlib import metadata
from urllib.parse import urlsplit

import httpx

from activities.signing import report_address, sealed_signing_key
from engine.routing.ticket_issuer import TicketIssuer
from engine.tls.certificate_authority import Authority
from run.doctor.tls import expiry_finding, read_certificate
from run.errors import CommandError
from run.settings import DeploymentSettings
from run.state_folder.keys import Keys, load_keys
from stoker.cli.overview.addresses import resolve
from stoker.cli.overview.doctor import clock_finding, version_finding
from stoker.cli.overview.findings import Finding, found
from stoker.client import Serverless
from stoker.errors import EngineUnavailable, StokerError, Unauthorised
from stoker.requests.retry.backoff import NO_RETRY
from stoker_wire.parsing.strict_json import NotJson, parse_answer
from stoker_wire.security.certificate_faults import certificate_fault
from stoker_wire.security.loopback import is_loopback, is_loopback_url

SECONDS_MAX = 5.0
REMEDY = "start it: `stokerd dev`, or `stokerd engine` with these settings; `stokerd doctor` checks the engine beside it"
PUBLIC_REMEDY = "let the TLS proxy of engine.public_url pass every path to the engine (deploy/proxy), and open its port in the firewall"
_KEYS_REMEDY = "restart the engine, so that it reads the present keys; every engine and worker needs the same"
_VERSION = re.compile(r"^version='([^']+)'$", re.MULTILINE)


def engine_keys(settings: DeploymentSettings) -> Keys | None:
    """The engine's keys; None if they are not complete, which is a finding of its own."""
    try:
        return load_keys(settings.state_dir, generate=False, role="engine", uses_vast=settings.uses_vast)
    except CommandError:
        return None


async def check_engine(settings: DeploymentSettings) -> AsyncIterator[Finding]:
    """The engine at its own address: identity, readiness, keys, clock, version."""
    url = settings.engine.own_url
    async with http_client(url) as http:
        fault = await engine_fault(http, url)
        yield found("engine", fault, f"answers at {url}", REMEDY)
        if fault:
            return
        not_ready = await _not_ready(http, url)
        yield found(
            "engine ready", not_ready, "reads the endpoints from Temporal", "see the findings on Temporal"
        )
    keys = engine_keys(settings)
    if keys is None:
        yield Finding(
            "account key", "unknown", "this state folder has no complete keys", "see the finding on keys"
        )
        return
    async with Serverless(keys.account_key, url=url, retry=NO_RETRY) as client:
        before = time.time()
        try:
            overview = await client.endpoints.overview()
        except Unauthorised:
            fault = "the engine refuses the account key of this state folder: it runs with other keys"
            yield Finding("account key", "failed", fault, _KEYS_REMEDY)
            return
        except EngineUnavailable as error:
            later = "see the finding on its readiness" if not_ready else REMEDY
            yield Finding("account key", "unknown" if not_ready else "failed", str(error), later)
            return
        except StokerError as error:
            yield Finding("account key", "failed", str(error), REMEDY)
            return
        yield Finding("account key", "ok", "the engine accepts it")
        yield clock_finding("clock of the engine", "its clock", overview.get("at"), before, time.time())
        yield version_finding(
            overview.get("version"), metadata.version("stoker-controller"), "these commands"
        )


async def check_public_address(settings: DeploymentSettings) -> AsyncIterator[Finding]:
    """The address at which workers and clients reach the engine, as far as this machine can try it."""
    url = settings.engine.url
    check = "address for workers"
    if settings.uses_vast and (settings.engine.public_url is None or is_loopback_url(url)):
        remedy = (
            "set engine.public_url to an address of the internet, with a TLS proxy behind it (deploy/proxy)"
        )
        yield Finding(check, "failed", f"rented machines cannot reach {url}", remedy)
        return
    host = urlsplit(url).hostname or ""
    try:
        addresses = await resolve(host)
    except (OSError, TimeoutError) as error:
        reason = getattr(error, "strerror", None) or "no answer of the resolver"
        remedy = f"add {host} to the DNS, or correct engine.public_url"
        yield Finding(check, "failed", f"{host} does not resolve: {reason}", remedy)
        return
    inside = [
        address for address in addresses if not ipaddress.ip_address(address.partition("%")[0]).is_global
    ]
    if settings.uses_vast and inside:
        remedy = f"let the DNS name of {host} point to a public address"
        yield Finding(check, "failed", f"{host} is {inside[0]}, which only this network reaches", remedy)
        return
    async with http_client(url) as http:
        fault = await engine_fault(http, url)
        where = "" if is_loopback(host) else f" ({', '.join(addresses)}), tried from this machine"
        remedy = REMEDY if settings.engine.public_url is None else PUBLIC_REMEDY
        yield found(check, fault, f"{url} reaches an engine{where}", remedy)
        if fault:
            return
        yield await _transport(http, settings)
        keys = engine_keys(settings)
        if keys is not None:
            for finding in await asyncio.gather(
                _same_keys(http, url, keys), _worker_package(http, url, keys)
            ):
                yield finding


def http_client(url: str, verify: ssl.SSLContext | None = None) -> httpx.AsyncClient:
    """A client that trusts the system's authorities, as machines do, and uses the environment's proxy for other hosts."""
    return httpx.AsyncClient(
        timeout=SECONDS_MAX, verify=verify or ssl.create_default_context(), trust_env=not is_loopback_url(url)
    )


async def engine_fault(http: httpx.AsyncClient, url: str) -> str:
    """Why no engine of stoker answers at the address; empty: one does."""
    try:
        response = await http.get(f"{url}/healthz")
    except httpx.HTTPError as fault:
        return unreachable(url, fault)
    try:
        answer = parse_answer(response.content)
    except NotJson:
        answer = None
    if (
        response.is_success
        and isinstance(answer, dict)
        and str(answer.get("engine_id", "")).startswith("engine-")
    ):
        return ""
    return f"{url}/healthz answered {response.status_code}, but not as an engine: another program, or a proxy without it"


async def _not_ready(http: httpx.AsyncClient, url: str) -> str:
    """Why the engine is not ready; empty: it is."""
    try:
        response = await http.get(f"{url}/readyz")
        answer = parse_answer(response.content)
    except httpx.HTTPError as fault:
        return unreachable(url, fault)
    except NotJson:
        answer = {}
    if response.is_success:
        return ""
    reason = answer.get("reason") if isinstance(answer, dict) else None
    return str(reason or f"/readyz answered {response.status_code}")


def unreachable(url: str, fault: httpx.HTTPError) -> str:
    """Why an HTTP call got no answer."""
    if (reason := certificate_fault(fault)) is not None:
        return f"the certificate of {url} is not trusted: {reason}"
    if isinstance(fault, httpx.TimeoutException):
        return f"{url} has not answered for {SECONDS_MAX:.0f} s"
    return f"nothing answers at {url}: {fault or type(fault).__name__}"


async def _transport(http: httpx.AsyncClient, settings: DeploymentSettings) -> Finding:
    """Whether the address is encrypted, and how long its certificate is valid."""
    url, check = settings.engine.url, "TLS"
    if url.startswith("https://"):
        return expiry_finding(
            check, await read_certificate(http, f"{url}/healthz"), "renew it at the TLS proxy"
        )
    if is_loopback_url(url) and is_loopback(settings.engine.host):
        return Finding(check, "ok", "not needed: the engine is reachable on this machine only")
    fault = f"{url} is not encrypted: keys and worker tokens are readable on the network"
    return Finding(
        check, "warning", fault, "put a TLS proxy in front of it and set engine.public_url (deploy/proxy)"
    )


async def _same_keys(http: httpx.AsyncClient, url: str, keys: Keys) -> Finding:
    """Whether the engine at the address signs with this deployment's keys."""
    check = "keys of the engine"
    signing = TicketIssuer(secrets=(keys.secret,), rsa_private_key_pem=keys.signing_key_pem.encode())
    answers = await asyncio.gather(
        http.get(f"{url}/pubkey/"), http.get(f"{url}/static/jvastai_root.cer"), return_exceptions=True
    )
    shown = [
        each.content if isinstance(each, httpx.Response) and each.is_success else b"" for each in answers
    ]
    ours = {"signing key": signing.public_key_pem == shown[0]}
    if keys.ca_key_pem:
        ours["certificate authority"] = Authority(keys.ca_key_pem.encode()).issued_root(shown[1])
    differ = [name for name, same in ours.items() if not same]
    fault = f"the engine at {url} has another {' and another '.join(differ)}" if differ else ""
    return found(
        check, fault, "the engine there has this deployment's signing key and authority", _KEYS_REMEDY
    )


async def _worker_package(http: httpx.AsyncClient, url: str, keys: Keys) -> Finding:
    """The start script of rented machines, fetched as a machine does: with a launch's own path."""
    check = "worker package"
    launch_id = secrets.token_hex(6)
    sealed = await asyncio.to_thread(sealed_signing_key, keys.secret, launch_id)
    try:
        response = await http.get(f"{report_address(url, launch_id, sealed)}/worker/bootstrap.sh")
    except httpx.HTTPError as fault:
        return Finding(check, "failed", unreachable(url, fault), PUBLIC_REMEDY)
    if response.status_code == httpx.codes.NOT_FOUND and "no_worker_package" in response.text:
        fault_text = "the engine has no worker to install: presets need it in the image"
        return Finding(
            check, "warning", fault_text, "install stoker-pyworker beside the engine and restart it"
        )
    version = _VERSION.search(response.text)
    if not response.is_success or version is None:
        fault_text = f"the engine at {url} refuses a path of this deployment: it has another HMAC secret"
        return Finding(check, "failed", fault_text, _KEYS_REMEDY)
    installed = metadata.version("stoker-pyworker")
    text = f"the engine serves the worker {version[1]}"
    differs = f"{text}, installed is {installed}" if version[1] != installed else ""
    return found(check, differs, text, "restart the engine, so that it serves the installed version")
