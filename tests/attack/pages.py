"""The deployment that a web page attacks: Temporal with its guarded UI, an engine and a marketplace on this machine."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ListBatchOperationsRequest
from temporalio.client import Client

from run.listeners import listeners
from run.lock import free_port
from run.settings import DevSettings
from run.temporal_server import connect, dev_server_command
from run.temporal_ui import GuardedUi, blocked_address

NAMESPACE = "stoker"
VICTIM = "victim"
SIGNAL_PATH = f"/api/v1/namespaces/{NAMESPACE}/workflows/{VICTIM}/signal/set_workergroup"
SIGNAL_BODY = '{"input": [{"id": 1, "onstart_cmd": "touch /tmp/owned"}]}'
BATCH_PATH = f"/api/v1/namespaces/{NAMESPACE}/batch-operations/attack"
"""A batch reaches workflows whose id holds a slash, such as `endpoint/<name>`."""
BATCH_BODY = json.dumps(
    {
        "visibilityQuery": "WorkflowType = 'EndpointWorkflow'",
        "reason": "attack",
        "signalOperation": {"signal": "set_workergroup", "input": {"payloads": []}, "identity": "attack"},
    }
)


@dataclass
class Temporal:
    """A Temporal dev server as `stokerd dev` starts it, with a workflow that a page tries to signal."""

    client: Client
    pid: int
    ui_port: int
    grpc_port: int

    def ports(self) -> list[int]:
        """Every port that the server or the UI's guard listens on."""
        found = listeners([self.pid])
        assert found is not None
        assert all(one.is_loopback for one in found)
        return sorted({one.port for one in found} | {self.ui_port})

    def backend_ports(self) -> list[tuple[str, int]]:
        """The server's own listeners, as host and port."""
        return [(one.host, one.port) for one in listeners([self.pid]) or []]

    async def signals(self) -> int:
        """How many signals reached the workflow, and batches the server."""
        history = await self.client.get_workflow_handle(VICTIM).fetch_history()
        signaled = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED
        batches = await self.client.workflow_service.list_batch_operations(
            ListBatchOperationsRequest(namespace=NAMESPACE)
        )
        return sum(event.event_type == signaled for event in history.events) + len(batches.operation_info)


@contextlib.asynccontextmanager
async def temporal(folder: Path) -> AsyncIterator[Temporal]:
    """The server and its guard, as the dev stack puts them together."""
    grpc, ui = free_port(), free_port()
    settings = DevSettings.model_validate(
        {"state_dir": folder, "temporal": {"port": grpc, "ui_port": ui, "db_filename": None}}
    )
    backend = blocked_address(settings.temporal.ip)
    process = await asyncio.create_subprocess_exec(
        *dev_server_command(settings, ui=backend),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        client = await connect(settings.temporal, wait_seconds_max=90)
        guard = await GuardedUi.start("127.0.0.1", ui, f"http://{backend[0]}:{backend[1]}")
        try:
            await client.start_workflow("EndpointWorkflow", id=VICTIM, task_queue="nobody-polls")
            yield Temporal(client, process.pid, ui, grpc)
        finally:
            await guard.close()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        await process.wait()


async def raw(host: str, port: int, data: bytes, *, seconds: float = 30) -> bytes:
    """Send bytes; what comes until the peer closes or is silent for a second after it spoke."""
    reader, writer = await asyncio.open_connection(host, port)
    got = b""
    try:
        with contextlib.suppress(ConnectionError, TimeoutError):
            writer.write(data)
            await writer.drain()
            async with asyncio.timeout(seconds):
                while piece := await reader.read(65536):
                    got += piece
    finally:
        writer.close()
    return got


def request(method: str, path: str, host: str, body: str = "", **fields: Any) -> bytes:
    """One HTTP request that closes its connection; `Content_Type="…"` becomes `Content-Type`."""
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: {host}",
        "Connection: close",
        f"Content-Length: {len(body)}",
    ]
    lines += [f"{name.replace('_', '-')}: {text}" for name, text in fields.items()]
    return ("\r\n".join([*lines, "", ""]) + body).encode()
