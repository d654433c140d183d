"""`stokerd doctor`: its findings in a deployment that is down, half configured, or someone else's."""

import asyncio
import base64
import collections
import contextlib
import json
import shutil
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from temporalio import activity
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from typer.testing import CliRunner

from engine.app import start_server
from engine.settings import EngineSettings
from run.cli import app as stokerd
from run.commands.doctor import findings_of
from run.doctor.engine_checks import check_engine, check_public_address
from run.doctor.market_checks import check_market, credit_finding
from run.doctor.notice_checks import check_notices
from run.doctor.port_checks import check_ports
from run.doctor.state_checks import check_keys, check_state_folder
from run.doctor.temporal_checks import check_temporal
from run.doctor.tls import expiry_finding
from run.doctor.worker_checks import version_finding_of
from run.processes.temporal_server import connect, prepare, temporal_binary
from run.settings import DeploymentSettings
from run.state_folder.keys import load_keys
from run.state_folder.lock import free_port
from run.worker_package import worker_package
from stoker.cli.overview.findings import Check, Finding, run_checks
from stoker.management.records import WorkerRecord
from stoker_wire.control import MARKET_TASK_QUEUE, TASK_QUEUE
from tests.hosts.conftest import KEY, running, settings_for
from tests.sdk.conftest import make_certificate
from workflows.sweep.release import ReleaseWorkflow
from workflows.temporal_worker.converter import data_converter


@activity.defn
async def nothing() -> None:
    """Gives a worker something to poll for."""


SECONDS_MAX = 90.0
"""For checks that end; generous, because the machine may be busy."""


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in (
        "STOKER_MARKET_KEY",
        "VAST_API_KEY",
        "STOKER_ACCOUNT_KEY",
        "STOKER_HMAC_SECRET",
        "TEMPORAL_ADDRESS",
    ):
        monkeypatch.delenv(name, raising=False)


def settings_in(tmp_path: Path, **given: Any) -> DeploymentSettings:
    """Settings with free ports, on which nothing listens."""
    ports = {
        "temporal": {"port": free_port(), "ui_port": None},
        "engine": {"port": free_port()},
        "dashboard": {"port": free_port()},
        "host_market": {"port": free_port()},
    }
    return DeploymentSettings.model_validate({"state_dir": tmp_path / "state", **ports, **given})


def written(tmp_path: Path, settings: DeploymentSettings) -> Path:
    path = tmp_path / "settings.json"
    path.write_text(settings.model_dump_json())
    return path


async def found_by(check: Any, settings: DeploymentSettings) -> dict[str, Finding]:
    checks = [Check("check", lambda: check(settings), "")]
    return {each.check: each async for each in run_checks(checks, seconds_max=SECONDS_MAX)}


def results(findings: dict[str, Finding]) -> dict[str, str]:
    return {name: finding.result for name, finding in findings.items()}


def without_remedy(findings: dict[str, Finding]) -> list[Finding]:
    return [each for each in findings.values() if each.result != "ok" and not each.remedy]


# A deployment that is down


async def test_a_deployment_that_is_down_is_described_to_the_end(tmp_path):
    settings = settings_in(tmp_path)
    load_keys(settings.state_dir, generate=True)
    found = {
        each.check: each async for each in findings_of(written(tmp_path, settings), seconds_max=SECONDS_MAX)
    }
    assert {name for name, each in found.items() if each.result == "failed"} == {
        "Temporal", "engine", "address for workers", "marketplace", "dashboard"
    }  # fmt: skip
    assert found["workers"].result == "unknown"
    assert without_remedy(found) == []
    assert f"nothing answers at http://127.0.0.1:{settings.engine.port}" in found["engine"].found


async def test_servers_that_accept_and_never_answer_are_given_up_together(tmp_path):
    """Four silent servers: one after the other, each limit would be waited for."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        port = silent.getsockname()[1]
        settings = settings_in(tmp_path).model_copy(
            update={
                "temporal": DeploymentSettings().temporal.model_copy(update={"port": port}),
                "engine": DeploymentSettings().engine.model_copy(update={"port": port}),
                "host_market": DeploymentSettings().host_market.model_copy(update={"port": port}),
            }
        )
        load_keys(settings.state_dir, generate=True)
        checks = [
            Check(name, lambda check=check: check(settings), "start it")
            for name, check in (
                ("Temporal", check_temporal),
                ("engine", check_engine),
                ("address", check_public_address),
                ("marketplace", check_market),
            )
        ]
        found = [each async for each in run_checks(checks, seconds_max=1.0)]
    assert [(each.check, each.result) for each in found] == [
        ("Temporal", "failed"), ("engine", "failed"), ("address", "failed"), ("marketplace", "failed")
    ]  # fmt: skip
    assert {each.found for each in found} == {"no answer within 1 s"}


def test_the_command_prints_json_and_ends_with_1(tmp_path):
    done = CliRunner().invoke(
        stokerd, ["doctor", "--json", "--config", str(written(tmp_path, settings_in(tmp_path)))]
    )
    rows = {row["check"]: row for row in json.loads(done.stdout)}
    assert done.exit_code == 1
    assert (rows["keys"]["result"], rows["state folder"]["result"]) == ("failed", "warning")
    assert "run `stokerd dev` once" in rows["keys"]["found"]


def test_settings_that_cannot_be_read_are_one_finding(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("engine: {port: 0}\n")
    done = CliRunner().invoke(stokerd, ["doctor", "--config", str(path)])
    assert done.exit_code == 1
    assert done.stdout.splitlines()[0].startswith(f"FAIL settings: {path}: engine.port")
    assert len(done.stdout.splitlines()) == 2


# State folder and ports


async def test_a_folder_with_complete_keys_and_space_is_sound(tmp_path):
    settings = settings_in(tmp_path)
    load_keys(settings.state_dir, generate=True)
    found = await found_by(check_state_folder, settings) | await found_by(check_keys, settings)
    assert results(found) == dict.fromkeys(["state folder", "identity", "disk", "keys"], "ok")


@pytest.mark.parametrize(
    ("free", "total", "result"), [(1e8, 1e9, "failed"), (1e9, 1e11, "warning"), (9e9, 1e10, "ok")]
)
async def test_a_disk_that_fills_up_is_named_before_it_is_full(tmp_path, monkeypatch, free, total, result):
    settings = settings_in(tmp_path)
    settings.state_dir.mkdir()
    usage = collections.namedtuple("usage", "total used free")  # noqa: PYI024 - as shutil's
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(int(total), int(total - free), int(free)))
    assert (await found_by(check_state_folder, settings))["disk"].result == result


async def test_keys_that_others_can_read_are_named_with_the_command(tmp_path):
    settings = settings_in(tmp_path)
    load_keys(settings.state_dir, generate=True)
    (settings.state_dir / "keys.json").chmod(0o644)
    keys = (await found_by(check_keys, settings))["keys"]
    assert (keys.result, "chmod 600" in keys.found) == ("failed", True)


async def test_a_short_secret_is_a_warning(tmp_path, monkeypatch):
    settings = settings_in(tmp_path)
    load_keys(settings.state_dir, generate=True)
    monkeypatch.setenv("STOKER_HMAC_SECRET", "short")
    keys = (await found_by(check_keys, settings))["keys"]
    assert (keys.result, "5 bytes" in keys.found) == ("warning", True)


async def test_a_port_names_the_process_that_holds_it_and_whether_the_network_reaches_it(tmp_path):
    with socket.create_server(("0.0.0.0", 0)) as holder:
        port = holder.getsockname()[1]
        settings = settings_in(tmp_path, engine={"host": "0.0.0.0", "port": port})
        found = await found_by(check_ports, settings)
    engine = found["port engine.port"]
    assert engine.result == "warning"
    assert f"listens on 0.0.0.0:{port}: open to the network without TLS" in engine.found
    assert "can be bound" in found["port temporal.port"].found
    elsewhere = settings_in(
        tmp_path, engine={"host": "192.0.2.1", "public_url": "https://engine.example.org"}
    )
    assert (await found_by(check_ports, elsewhere))["port engine.port"].result == "failed"


# Temporal


async def test_a_namespace_that_nobody_prepared_and_nothing_polls_then_one_that_is_ready(tmp_path):
    async with await WorkflowEnvironment.start_local(
        namespace="stoker", dev_server_existing_path=str(temporal_binary()), data_converter=data_converter
    ) as server:
        port = int(server.client.service_client.config.target_host.rpartition(":")[2])
        settings = settings_in(tmp_path, temporal={"port": port, "ui_port": None})
        found = await found_by(check_temporal, settings)
        assert found["Temporal"].result == "ok"
        assert "EndpointName" in found["search attributes"].found
        assert "--name EndpointId --type Int" in found["search attributes"].remedy
        assert found["clock of Temporal"].result == "ok"
        kinds = [f"Temporal worker for {kind}" for kind in ("workflows", "the planner", "marketplace calls")]
        assert {found[kind].result for kind in kinds} == {"failed"}
        assert found["sweep"].result == "failed"
        assert without_remedy(found) == []

        client = await connect(settings.temporal)
        await prepare(client, settings.temporal)
        async with (
            Worker(
                client,
                task_queue=TASK_QUEUE,
                workflows=[ReleaseWorkflow],
                activities=[nothing],
                workflow_runner=UnsandboxedWorkflowRunner(),
            ),
            Worker(client, task_queue=MARKET_TASK_QUEUE, activities=[nothing]),
        ):
            async with asyncio.timeout(SECONDS_MAX):
                while "failed" in {
                    (found := await found_by(check_temporal, settings))[kind].result for kind in kinds
                }:
                    pass
        assert found["search attributes"].result == "ok"

        versioned = settings.model_copy(
            update={"worker": settings.worker.model_copy(update={"deployment": "d", "build_id": "2"})}
        )
        build = (await found_by(check_temporal, versioned))[kinds[0]]
        assert (build.result, "none of build 2" in build.found) == ("failed", True)


# The engine and its address


@pytest.fixture
async def serve_engine():
    """Starts a real engine that has no Temporal, with the keys of the settings; behind TLS if a certificate is given."""
    closing = contextlib.AsyncExitStack()

    async def serve(
        settings: DeploymentSettings, *, secret: bytes | None = None, pem: Path | None = None
    ) -> str:
        keys = load_keys(settings.state_dir, generate=True)
        engine = EngineSettings(
            accounts=keys.account_keys,
            secret=secret or keys.secret,
            rsa_private_key_pem=keys.signing_key_pem.encode(),
            ca_key_pem=keys.ca_key_pem.encode(),
            worker_package=worker_package(),
            port=0,
        )
        nowhere = await Client.connect(f"127.0.0.1:{free_port()}", lazy=True, data_converter=data_converter)
        server = await start_server(engine, nowhere)
        closing.push_async_callback(server.close)
        if pem is None:
            return server.url
        proxy = await tls_proxy(pem, server.port)
        closing.callback(proxy.close)
        return f"https://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"

    async with closing:
        yield serve


async def tls_proxy(pem: Path, port: int) -> asyncio.Server:
    """Passes the bytes of each TLS connection to this port."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, there_writer), pump(there_reader, writer))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)


def at(settings: DeploymentSettings, url: str) -> DeploymentSettings:
    """The settings with the engine at this address."""
    engine = settings.engine.model_copy(update={"port": int(url.rpartition(":")[2]), "public_url": url})
    return settings.model_copy(update={"engine": engine})


async def test_an_engine_with_the_deployments_keys_is_recognised_through_its_address(tmp_path, serve_engine):
    settings = settings_in(tmp_path)
    settings = at(settings, await serve_engine(settings))
    found = await found_by(check_public_address, settings)
    assert results(found) == dict.fromkeys(
        ["address for workers", "TLS", "keys of the engine", "worker package"], "ok"
    )
    own = await found_by(check_engine, settings)
    assert (own["engine"].result, own["engine ready"].result) == ("ok", "failed"), "it has no Temporal"
    assert (own["account key"].result, without_remedy(own)) == ("unknown", [])


async def test_an_engine_of_another_deployment_is_no_sound_address(tmp_path, serve_engine):
    other = settings_in(tmp_path / "other")
    settings = at(settings_in(tmp_path), await serve_engine(other))
    load_keys(settings.state_dir, generate=True)
    found = await found_by(check_public_address, settings) | await found_by(check_engine, settings)
    failed = {name for name, each in found.items() if each.result == "failed"}
    assert failed == {"keys of the engine", "worker package", "account key", "engine ready"}
    assert "another signing key and another certificate authority" in found["keys of the engine"].found
    assert without_remedy(found) == []


async def test_an_engine_that_kept_its_old_secret_refuses_the_paths_of_new_launches(tmp_path, serve_engine):
    settings = settings_in(tmp_path)
    settings = at(settings, await serve_engine(settings, secret=b"the secret before the rotation"))
    found = await found_by(check_public_address, settings)
    assert found["keys of the engine"].result == "ok"
    assert "another HMAC secret" in found["worker package"].found


@pytest.mark.parametrize(
    ("hours", "trusted", "check", "said"),
    [
        (24 * 60, True, "TLS", "ok: the certificate is valid for"),
        (24 * 3, True, "TLS", "warning: the certificate is valid for"),
        (-1, True, "address for workers", "it has expired"),
        (24 * 60, False, "address for workers", "it is self-signed"),
    ],
)
async def test_a_certificate_is_named_before_and_after_its_end(
    tmp_path, serve_engine, monkeypatch, hours, trusted, check, said
):
    pem = make_certificate(tmp_path, hours=hours)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    settings = settings_in(tmp_path)
    settings = at(settings, await serve_engine(settings, pem=pem))
    found = (await found_by(check_public_address, settings))[check]
    assert said in f"{found.result}: {found.found}"


async def test_an_address_that_rented_machines_cannot_use_is_refused_without_a_call(tmp_path):
    vast = {"kind": "vast"}
    unset = await found_by(check_public_address, settings_in(tmp_path, market=vast))
    assert "rented machines cannot reach http://127.0.0.1" in unset["address for workers"].found
    inside = settings_in(tmp_path, market=vast, engine={"public_url": "https://10.1.2.3"})
    assert (
        "which only this network reaches"
        in (await found_by(check_public_address, inside))["address for workers"].found
    )
    unknown = settings_in(tmp_path, engine={"public_url": "https://no-such-host.invalid"})
    assert "does not resolve" in (await found_by(check_public_address, unknown))["address for workers"].found


async def test_another_program_on_the_engines_port_is_no_engine(tmp_path):
    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="hello \x1b[31m")

    program = web.Application()
    program.router.add_get("/{any:.*}", hello)
    runner = web.AppRunner(program)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    settings = at(settings_in(tmp_path), f"http://127.0.0.1:{runner.addresses[0][1]}")
    found = (await found_by(check_engine, settings))["engine"]
    assert (found.result, "another program" in found.found) == ("failed", True)
    await runner.cleanup()


def test_an_end_that_cannot_be_read_is_unknown():
    assert expiry_finding("TLS", None, "renew it").result == "unknown"
    assert expiry_finding("TLS", time.time() + 40 * 86_400, "renew it").result == "ok"


# Notifications


async def test_channels_of_notices_are_checked_without_sending_and_without_their_secrets(
    tmp_path, monkeypatch
):
    secret = "whsec_" + base64.b64encode(b"the secret of this channel, long").decode()
    monkeypatch.setenv("STOKER_NOTIFY_SECRET_CHAT", secret)
    with socket.create_server(("127.0.0.1", 0)) as receiver:
        url = f"http://127.0.0.1:{receiver.getsockname()[1]}/canary-in-the-path"
        mail = {"name": "mail", "host": "127.0.0.1", "port": free_port(), "tls": "none"}
        mail |= {"sender": "stoker@example.org", "recipients": ["ops@example.org"]}
        settings = settings_in(tmp_path, notify={"webhooks": [{"name": "chat", "url": url}], "email": [mail]})
        found = await found_by(check_notices, settings)
    assert results(found) == {"notifications to chat": "ok", "notifications to mail": "failed"}
    monkeypatch.delenv("STOKER_NOTIFY_SECRET_CHAT")
    without = await found_by(check_notices, settings)
    assert without["notifications"].result == "failed"
    assert "canary" not in str(without | found)


# The marketplace and the workers


@pytest.fixture
async def market(tmp_path) -> AsyncIterator[str]:
    async with running(settings_for(tmp_path / "market")) as bench:
        yield bench.url


async def test_an_account_without_credit_is_named(tmp_path, market, monkeypatch):
    monkeypatch.setenv("VAST_API_KEY", KEY)
    settings = settings_in(tmp_path, market={"kind": "vast", "url": market})
    load_keys(settings.state_dir, generate=True, uses_vast=True)
    found = await found_by(check_market, settings)
    assert results(found) == {"marketplace": "ok", "clock of the marketplace": "ok", "credit": "failed"}
    assert found["credit"].found == "$0.00 are left"


async def test_a_key_that_the_marketplace_refuses_is_named_and_not_repeated(tmp_path, market, monkeypatch):
    monkeypatch.setenv("VAST_API_KEY", "canary-of-a-key")
    settings = settings_in(tmp_path, market={"kind": "vast", "url": market})
    load_keys(settings.state_dir, generate=True, uses_vast=True)
    found = await found_by(check_market, settings)
    assert results(found) == {"marketplace": "failed"}
    assert "VAST_API_KEY" in found["marketplace"].remedy
    assert "canary" not in found["marketplace"].found


@pytest.mark.parametrize(
    ("credit", "dollars_per_hour", "result"),
    [
        (0.0, 0.0, "failed"),
        (-3.0, 1.0, "failed"),
        (10.0, 1.0, "warning"),
        (10.0, 0.0, "ok"),
        (30.0, 1.0, "ok"),
    ],
)
def test_credit_should_last_for_a_day(credit, dollars_per_hour, result):
    assert credit_finding(credit, dollars_per_hour).result == result


def test_workers_of_another_version_are_named_and_official_ones_are_not_compared():
    def worker(number: int, version: str, official: bool = False) -> tuple[str, WorkerRecord]:
        fields = {"id": number, "url": "http://w", "version": version, "official": official}
        return "llm", WorkerRecord.model_validate(fields)

    same = version_finding_of(
        [worker(1, "stoker-0.2.9"), worker(2, "7.1", official=True), worker(3, "")], "0.2.0"
    )
    assert (same.result, same.found) == ("ok", "1 of version 0.2.9, 1 with the official package")
    older = version_finding_of([worker(number, "stoker-0.1.0") for number in range(1, 8)], "0.2.0")
    assert older.result == "failed"
    assert older.found.endswith("not 0.2.0: 1 of llm, 2 of llm, 3 of llm, 4 of llm, 5 of llm and 2 more")
