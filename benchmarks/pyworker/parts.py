"""The parts of the proxy benchmark: a report receiver, child processes, and authorised requests."""

import asyncio
import base64
import contextlib
import itertools
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from benchmarks.engine.machine import cpu_seconds
from stoker_wire.security.ticket import Ticket, sign_ticket
from stoker_wire.security.token import mint_worker_token, ticket_key

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PEER = ROOT / ".venv-peer"
LAUNCH = "0123456789ab"
TOKEN = mint_worker_token(b"benchmark", 1, LAUNCH)
PAYLOAD = {"prompt": "The stoker went below. " * 8, "max_tokens": 64, "temperature": 0.7}


class Engine:
    """Accepts reports and serves the public key, so that both workers run as in production."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.ready: dict[int, str] = {}
        self.port = 0

    async def start(self) -> asyncio.Server:
        """Listen."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
                body = await reader.readexactly(int(fields.get("content-length", 0)))
                answer = b"{}"
                if head.startswith("GET /pubkey/"):
                    answer = self.key.public_key().public_bytes(
                        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
                    )
                elif " /worker_status/" in head:
                    report = json.loads(body)
                    if report["loadtime"] > 0 and report["max_perf"] > 0 and not report["error_msg"]:
                        self.ready[report["id"]] = report["url"]
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(answer) + answer)
                await writer.drain()
        writer.close()

    def sign(self, url: str) -> str:
        """The official signature of a worker's url."""
        message = json.dumps({"url": url}, indent=4, sort_keys=True).encode()
        return base64.b64encode(self.key.sign(message, padding.PKCS1v15(), hashes.SHA256())).decode()


def official_bodies(engine: Engine, url: str, count: int) -> list[bytes]:
    auth = {"url": url, "signature": engine.sign(url), "cost": 100.0, "endpoint": "bench"}
    return [
        json.dumps(
            {
                "auth_data": auth | {"reqnum": number, "request_idx": number},
                "session_id": None,
                "payload": PAYLOAD,
            }
        ).encode()
        for number in range(1, count + 1)
    ]


_numbers = itertools.count(1)


def our_bodies(engine: Engine, url: str, count: int) -> list[bytes]:
    """Requests with one ticket each and the official signature, as the engine answers `/route/`."""
    key = ticket_key(TOKEN)
    signature = engine.sign(url)
    expires = time.time() + 600
    bodies = []
    for number in itertools.islice(_numbers, count):
        ticket = sign_ticket(Ticket(e="bench", w=LAUNCH, c=100.0, r=number, n=1, x=expires), key)
        auth = {
            "url": url, "signature": signature, "cost": 100.0, "endpoint": "bench",
            "reqnum": number, "request_idx": number, "ticket": ticket,
        }  # fmt: skip
        bodies.append(json.dumps({"auth_data": auth, "session_id": None, "payload": PAYLOAD}).encode())
    return bodies


def free_port() -> int:
    """A free port whose successor is free too: the official worker uses both."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                two.bind(("127.0.0.1", port + 1))
                return port


class Process:
    """A process that ends with the block."""

    def __init__(
        self, python: str, script: str, folder: Path | str, env: dict[str, str] | None = None, **pipes: Any
    ) -> None:
        environment = {k: v for k, v in os.environ.items() if k not in ("UNSECURED", "USE_SSL")}
        environment |= {"PYTHONPATH": str(ROOT), **(env or {})}
        self.process = subprocess.Popen([python, str(HERE / script)], cwd=folder, env=environment, **pipes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def line(self) -> str:
        """Returns the next line of its output."""
        if self.process.stdout is None:
            raise ValueError("start it with stdout=PIPE")
        return str(self.process.stdout.readline())

    def tell(self, line: str) -> None:
        """Writes a line to its input."""
        if self.process.stdin is None:
            raise ValueError("start it with stdin=PIPE")
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def cpu_seconds(self) -> float:
        """CPU time used so far."""
        return cpu_seconds(self.process.pid)


class Load:
    """The load generator's process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = Process(
            sys.executable, "load.py", folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(
        self,
        port: int,
        path: str,
        bodies: list[bytes],
        *,
        connections: int,
        seconds: float,
        requests: int | None = None,
        repeat: bool = True,
        headers: str = "",
    ) -> dict[str, Any]:
        """Sends these bodies for a time or a number, and returns the result."""
        file = Path(self.folder) / "bodies"
        file.write_bytes(b"\n".join(bodies))
        job = {
            "port": port, "path": path, "bodies": str(file), "connections": connections, "seconds": seconds,
            "requests": requests, "repeat": repeat, "headers": headers,
        }  # fmt: skip
        self.process.tell(json.dumps(job))
        result: dict[str, Any] = json.loads(self.process.line())
        return result


def peer_python() -> str:
    """The official worker's environment, made once from the pinned requirements."""
    python = PEER / "bin" / "python"
    if not (PEER / ".ready").exists():
        print("making .venv-peer for the official worker (once) …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(PEER)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "-r"]
        subprocess.run(
            [*install, str(ROOT / "requirements" / "peer.txt")], check=True, stderr=subprocess.PIPE
        )
        (PEER / ".ready").touch()
    return str(python)


def machine() -> str:
    """The machine's facts, in one line."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), name)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{name}, {os.cpu_count()} CPUs, load {load}, Linux {platform.release()}, Python {platform.python_version()}"
