"""The surroundings of a measured engine: a Temporal dev server with endpoints, and workers that report over HTTP.

No Temporal worker runs. The endpoints' workflows are started with their memos and do not change; the server accepts
the engine's signals. So the engine and the load generator have both cores.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.testing import WorkflowEnvironment

from benchmarks.engine.load import Connection, Generator, request_bytes
from stoker_wire.control import TASK_QUEUE, WORKFLOW_TYPE, EndpointSpec, workflow_id
from stoker_wire.messages import MEMO_KEY, EndpointMemo, Member
from stoker_wire.security.token import mint_endpoint_key, mint_worker_token
from stoker_wire.states import WorkerState
from workflows.temporal_worker.converter import data_converter

SECRET = b"benchmark secret, 32 bytes long!"
PERF = 1e6
"""High enough that workers never fill up, so that routing is measured without waits."""
VERSION = "stoker-0.2.0"
"""Of the workers: stoker's own."""
_FLEET_CHANGED_AT = SearchAttributeKey.for_datetime("FleetChangedAt")


@contextlib.asynccontextmanager
async def temporal() -> AsyncIterator[WorkflowEnvironment]:
    """A dev server in memory."""
    env = await WorkflowEnvironment.start_local(
        data_converter=data_converter,
        dev_server_existing_path=str(Path(sys.executable).parent / "temporal"),
        dev_server_log_level="error",
        search_attributes=[_FLEET_CHANGED_AT],
    )
    try:
        yield env
    finally:
        await env.shutdown()


async def add_endpoint(env: WorkflowEnvironment, number: int, workers: int) -> EndpointMemo:
    """Starts an endpoint whose memo names this many ready workers."""
    now = time.time()
    members = tuple(
        Member(l=f"{number:06x}{n:06x}", i=number * 10_000 + n + 1, g=1, s=WorkerState.READY, p=PERF, t=now)
        for n in range(workers)
    )
    memo = EndpointMemo(
        id=number, name=f"bench-{number}", groups=(1,), members=members, created_at=now, changed_at=now
    )
    await env.client.start_workflow(
        WORKFLOW_TYPE,
        EndpointSpec(endpoint_name=memo.name, endpoint_id=memo.id, created_at=now),
        id=workflow_id(memo.name),
        task_queue=TASK_QUEUE,
        memo={MEMO_KEY: memo.model_dump(mode="json", exclude_defaults=True)},
        search_attributes=TypedSearchAttributes(
            [SearchAttributePair(_FLEET_CHANGED_AT, datetime.fromtimestamp(now, UTC))]
        ),
    )
    return memo


class EngineProcess:
    """The engine process and its port."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process = process
        self.port = port

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @classmethod
    async def start(cls, address: str, *request_log: str) -> "EngineProcess":
        """Start it, with a request log if a path is given, and wait until it listens."""
        pem = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "benchmarks.engine.process",
            address,
            *request_log,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(SECRET.hex().encode() + b"\n" + pem)
        process.stdin.close()
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        return cls(process, int(line))

    async def stop(self) -> None:
        """End it."""
        self._process.terminate()
        await self._process.wait()


def route_request(memo: EndpointMemo) -> bytes:
    """A new route request as the official client sends it."""
    key = mint_endpoint_key(SECRET, memo.id, memo.key_version)
    asked = {"endpoint": memo.name, "api_key": key, "cost": 100, "request_idx": 0, "replay_timeout": 60.0}
    return request_bytes("/route/", msgspec.json.encode(asked), key)


class Feeder:
    """Sends a report for every member once a second, as a busy worker does, with the ended requests."""

    def __init__(
        self, port: int, memos: list[EndpointMemo], generator: Generator | None = None, worker_url: str = ""
    ) -> None:
        self._port = port
        self._worker_url = worker_url
        self._memos = memos
        self._generator = generator
        self._tokens = {
            member.l: mint_worker_token(SECRET, memo.id, member.l)
            for memo in memos
            for member in memo.members
        }
        self.refused = 0

    async def round(self, spread_seconds: float = 0.0) -> None:
        """Sends one report for every worker."""
        _, connection = await asyncio.get_running_loop().create_connection(
            Connection, "127.0.0.1", self._port
        )
        members = [member for memo in self._memos for member in memo.members]
        for member in members:
            await self._report(connection, member)
            if spread_seconds:
                await asyncio.sleep(spread_seconds / len(members))
        connection.close()

    async def run(self) -> None:
        """Reports until cancelled, spread over each second."""
        while True:
            await self.round(spread_seconds=1.0)

    async def _report(self, connection: Connection, member: Member) -> None:
        url = (
            self._worker_url
            or f"http://10.{member.i >> 16 & 255}.{member.i >> 8 & 255}.{member.i & 255}:3000"
        )
        token = self._tokens[member.l]
        status = {
            "id": member.i, "mtoken": token, "version": VERSION, "loadtime": 10.0, "cur_load": 0.0, "new_load": 0.0,
            "rej_load": 0.0, "cur_perf": 0.0, "max_perf": PERF, "error_msg": "", "num_requests_working": 0,
            "num_requests_recieved": 0, "working_request_idxs": [], "additional_disk_usage": 0.0, "disk_usage": 1.0,
            "cur_capacity": 0, "max_capacity": 0, "url": url,
        }  # fmt: skip
        code, _ = await connection.call(request_bytes("/worker_status/", msgspec.json.encode(status)))
        self.refused += code != 200
        ended = self._generator.given.pop(url, []) if self._generator else []
        if ended:
            items = [{"request_idx": idx, "success": True, "status": "Success"} for idx in ended]
            body = {"worker_id": member.i, "mtoken": token, "requests": items}
            code, _ = await connection.call(request_bytes("/delete_requests/", msgspec.json.encode(body)))
            self.refused += code != 200
