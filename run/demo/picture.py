"""The demo's picture: the charts of the dashboard, which draws them without a browser."""

import asyncio
from pathlib import Path

import httpx

from dashboard.rendering import RANGES
from run.commands.dev import DevStack
from run.errors import CommandError


async def save_picture(stack: DevStack, endpoint_id: int, path: Path, *, seconds: float) -> None:
    """Write the endpoint's charts of the last `seconds`, or a longer range, as SVG.

    Raises:
        CommandError: the dashboard gives no picture.
    """
    assert stack.keys is not None
    span = next((name for name, length in RANGES.items() if length >= seconds), list(RANGES)[-1])
    try:
        async with httpx.AsyncClient(base_url=stack.settings.dashboard.url or "", trust_env=False) as http:
            await http.post("/sign-in", data={"key": stack.keys.account_key})
            answer = await http.get(f"/endpoints/{endpoint_id}/charts.svg", params={"range": span})
            answer.raise_for_status()
    except httpx.HTTPError as fault:
        raise CommandError(f"the dashboard gives no picture: {fault}", exit_code=1) from fault
    await asyncio.to_thread(_write, path, answer.content)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
