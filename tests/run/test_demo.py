"""The demo waits for Enter with `--keep`, and ends at once with Ctrl-C."""

import signal
import subprocess
import sys

import pytest

WAIT = """
import asyncio
import signal
from run.demo.scenario import _enter_pressed
# As in a terminal's foreground: a shell without job control starts its background jobs with SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
async def main():
    waiting = asyncio.ensure_future(_enter_pressed())
    await asyncio.sleep(0)  # its thread reads
    print("waiting", flush=True)
    await waiting
asyncio.run(main())
print("pressed")
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("line", "said"), [(b"\n", b"pressed\n"), (None, b"")])
def test_the_wait_for_enter_ends_with_a_line_or_with_ctrl_c(line: bytes | None, said: bytes) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"waiting\n"
        if line is None:
            process.send_signal(signal.SIGINT)  # standard input stays open
        else:
            process.stdin.write(line)
            process.stdin.flush()
        assert process.wait(60) == (0 if line else -signal.SIGINT)
        assert process.stdout.read() == said
