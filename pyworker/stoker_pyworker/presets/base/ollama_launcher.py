"""Runs `ollama serve`, pulls and loads the model, and exits with the server: `ollama_launcher MODEL -- COMMAND…`."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from types import FrameType

_START_SECONDS = 60.0
_POLL_SECONDS = 0.2
_PULL_SECONDS_MAX = 3600.0


def main(arguments: list[str]) -> int:
    """Run the server, and return its exit status, or 1 if the model cannot be pulled."""
    model, _, *command = arguments
    server = subprocess.Popen(command)

    def forward(number: int, _frame: FrameType | None) -> None:
        server.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)
    try:
        _wait_until_answering(server)
        _pull(model)
    except (OSError, http.client.HTTPException, ValueError) as fault:
        print(f"stoker: the model cannot be pulled: {fault}", flush=True)
        server.terminate()
        server.wait()
        return 1
    print("stoker: the model is loaded", flush=True)
    return server.wait()


def _wait_until_answering(server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while server.poll() is None:
        try:
            _call("GET", "/api/version", None, seconds_max=5)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_SECONDS)
        else:
            return
    raise OSError(f"ollama serve exited with status {server.returncode}")


def _pull(model: str) -> None:
    """Pull the model, and load it into memory with an empty prompt."""
    last = ""
    for line in _lines("POST", "/api/pull", {"model": model}, seconds_max=_PULL_SECONDS_MAX):
        state = json.loads(line)
        if "error" in state:
            raise ValueError(state["error"])
        if state.get("status") != last:
            last = state.get("status", "")
            print(f"stoker: pull: {last}", flush=True)
    answer = json.loads(_call("POST", "/api/generate", {"model": model}, seconds_max=_PULL_SECONDS_MAX))
    if "error" in answer:
        raise ValueError(answer["error"])


def _call(method: str, path: str, body: dict[str, object] | None, *, seconds_max: float) -> str:
    return "".join(_lines(method, path, body, seconds_max=seconds_max))


def _lines(method: str, path: str, body: dict[str, object] | None, *, seconds_max: float) -> Iterator[str]:
    """The lines of the answer as they arrive, so that the log shows a download while it lasts."""
    host, _, port = os.environ["OLLAMA_HOST"].rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=seconds_max)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        for line in connection.getresponse():
            yield line.decode("utf-8", "replace")
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
