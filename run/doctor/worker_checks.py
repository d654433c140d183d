"""The workers on rented machines: their versions and certificates."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from importlib import metadata
from typing import Any

import httpx

from engine.tls.certificate_authority import worker_trust
from run.doctor.engine_checks import engine_keys, http_client, unreachable
from run.doctor.tls import expiry_finding, read_certificate
from run.settings import DeploymentSettings
from run.state_folder.keys import Keys
from stoker.cli.overview.findings import Finding, found
from stoker.client import Serverless
from stoker.errors import StokerError
from stoker.management.records import WorkerRecord
from stoker.requests.retry.backoff import NO_RETRY

CERTIFICATES_MAX = 20
"""Workers whose certificates are read."""
NAMED_MAX = 5


async def check_workers(settings: DeploymentSettings) -> AsyncIterator[Finding]:
    """Versions of all workers, and certificates of some. Without an engine there is no list of workers."""
    keys = engine_keys(settings)
    if keys is None:
        return
    try:
        workers = await _workers(settings.engine.own_url, keys)
    except StokerError:  # a finding about the engine says so
        yield Finding("workers", "unknown", "the engine does not list them", "see the findings on the engine")
        return
    yield version_finding_of(workers, metadata.version("stoker-pyworker"))
    async for finding in _certificates(workers, keys):
        yield finding


async def _workers(url: str, keys: Keys) -> list[tuple[str, WorkerRecord]]:
    """Endpoint name and record of every worker that has an address."""
    async with Serverless(keys.account_key, url=url, retry=NO_RETRY) as client:
        rows = (await client.endpoints.overview())["endpoints"]
        listed = await asyncio.gather(*(client.endpoints.workers(row["id"]) for row in rows))
    return [
        (str(row["name"]), worker)
        for row, workers in zip(rows, listed, strict=True)
        for worker in workers
        if worker.url
    ]


def version_finding_of(workers: list[tuple[str, WorkerRecord]], installed: str) -> Finding:
    """Whether the workers have the version that this engine serves.

    Official workers have versions of their own. A worker has none before its first report.
    """
    reported = [(name, worker) for name, worker in workers if _field(worker, "version")]
    own = [(name, worker) for name, worker in reported if not _field(worker, "official")]
    counts = Counter(_version(worker) for _, worker in own)
    official = len(reported) - len(own)
    text = (
        ", ".join(f"{number} of version {version}" for version, number in sorted(counts.items()))
        or "none of stoker's"
    )
    text += f", {official} with the official package" if official else ""
    other = [
        f"{worker.id} of {name}" for name, worker in own if _minor(_version(worker)) != _minor(installed)
    ]
    names = ", ".join(other[:NAMED_MAX]) + (
        f" and {len(other) - NAMED_MAX} more" if len(other) > NAMED_MAX else ""
    )
    remedy = "bring this version into the template, then update them one by one: stoker workergroups roll ID"
    return found("worker versions", f"{text}; not {installed}: {names}" if other else "", text, remedy)


async def _certificates(workers: list[tuple[str, WorkerRecord]], keys: Keys) -> AsyncIterator[Finding]:
    with_tls = [(name, worker) for name, worker in workers if (worker.url or "").startswith("https://")]
    findings = await asyncio.gather(
        *(_certificate(name, worker, keys) for name, worker in with_tls[:CERTIFICATES_MAX])
    )
    for finding in findings:
        yield finding


async def _certificate(endpoint: str, worker: WorkerRecord, keys: Keys) -> Finding:
    check, url = f"TLS of worker {worker.id} of {endpoint}", worker.url or ""
    remedy = "reboot it: its start script fetches a new certificate"
    async with http_client(url, worker_trust(keys.ca_key_pem.encode())) as http:
        try:
            return expiry_finding(check, await read_certificate(http, url), remedy)
        except httpx.HTTPError as fault:
            return Finding(check, "failed", unreachable(url, fault), remedy)


def _field(worker: WorkerRecord, name: str) -> Any:
    return (worker.model_extra or {}).get(name)


def _version(worker: WorkerRecord) -> str:
    """A report names the package before its version, because official workers report too."""
    return str(_field(worker, "version")).removeprefix("stoker-")


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]
