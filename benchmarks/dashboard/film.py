"""Films the demo's burst on the dashboard, and takes pictures of its pages.

`python -m benchmarks.dashboard.film [FOLDER]` starts `stokerd demo --keep`, opens its dashboard in Chromium, and writes
`burst.gif`, the demo's own picture, and each page in light, dark and at 390 px into the folder (default: `.film`). It
takes three minutes.
"""

import asyncio
import base64
import contextlib
import io
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from PIL import Image

from tests.engine.clients.browser import Tab, open_page

ROOT = Path(__file__).parents[2]
FRAME_SECONDS = 2.0
FRAMES_MAX = 90
FRAME_MS = 160
FILM_SIZE = (1100, 700)
FILM_WIDTH = 880
COLOURS = 96
START_SECONDS_MAX = 180.0
FILM_SECONDS_MAX = 420.0


@asynccontextmanager
async def demo(folder: Path, picture: Path) -> AsyncIterator[tuple[str, str, asyncio.subprocess.Process]]:
    """The demo; yields the dashboard's address and the account key as soon as both are there."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "run", "demo", "--keep", "--state-dir", str(folder)),
        *("--picture", str(picture)),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS_MAX):
            while True:
                line = (await process.stdout.readline()).decode()
                if not line:
                    sys.exit("the demo ended before it printed the dashboard's address")
                print(line, end="", flush=True)
                if found := re.search(r"watch it: (http://[\w.:]+)/endpoints", line):
                    break
        keys = json.loads((folder / "keys.json").read_text())
        key = next(iter(keys["account_keys"].values()))
        yield found[1], key, process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGINT)
            await process.wait()


async def until(tab: Tab, script: str) -> None:
    """Wait until the expression is true; a page that is being replaced has no expressions."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(AssertionError):
                if await tab.evaluate(f"document.documentElement && ({script})"):
                    return
            await asyncio.sleep(0.1)


async def show(tab: Tab, base: str, path: str) -> None:
    """Open a page of the dashboard, and wait until it is drawn."""
    await tab.navigate(f"{base}{path}")
    await until(
        tab,
        f"location.pathname + location.search === {json.dumps(path)} && document.readyState === 'complete'",
    )


async def sign_in(tab: Tab, key: str) -> None:
    """Exchange the key for a session."""
    await until(tab, "!!document.querySelector('#key')")
    await tab.evaluate(
        f"document.querySelector('#key').value = {json.dumps(key)}; document.querySelector('main form').submit()"
    )
    await until(tab, "document.title.startsWith('Endpoints')")


async def set_screen(tab: Tab, width: int, height: int, scheme: str) -> None:
    """The size of the window and the colour scheme."""
    await tab._call(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=height,
        deviceScaleFactor=1,
        mobile=width < 700,
    )
    await tab._call("Emulation.setScrollbarsHidden", hidden=True)
    await tab._call(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
    )


async def whole_page(tab: Tab, file: Path) -> None:
    """A picture of the page from top to bottom."""
    shot = await tab._call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
    await asyncio.to_thread(file.write_bytes, base64.b64decode(shot["data"]))


async def pictures(tab: Tab, base: str, paths: dict[str, str], folder: Path) -> None:
    """Each page in light, dark and on a narrow screen."""
    for name, path in paths.items():
        await show(tab, base, path)
        for kind, width, scheme in (("light", 1280, "light"), ("dark", 1280, "dark"), ("390", 390, "light")):
            await set_screen(tab, width, 900, scheme)
            await asyncio.sleep(0.3)
            await whole_page(tab, folder / f"{name}-{kind}.png")


def save_gif(frames: list[bytes], file: Path) -> None:
    """All frames with one palette."""
    images = [Image.open(io.BytesIO(frame)).convert("RGB") for frame in frames]
    height = images[0].height * FILM_WIDTH // images[0].width
    small = [each.resize((FILM_WIDTH, height), Image.Resampling.LANCZOS) for each in images]
    places = [len(small) * part // 6 for part in range(6)]
    sheet = Image.new("RGB", (FILM_WIDTH, height * len(places)))
    for row, place in enumerate(places):
        sheet.paste(small[place], (0, height * row))
    palette = sheet.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE)
    drawn = [each.quantize(palette=palette, dither=Image.Dither.NONE) for each in small]
    drawn[0].save(file, save_all=True, append_images=drawn[1:], duration=FRAME_MS, loop=0, optimize=True)


async def main(folder: Path) -> None:
    """Film the burst, then take the pictures."""
    worker = ""
    with tempfile.TemporaryDirectory(prefix="stoker-film-") as temporary:
        picture = (folder / "demo.svg").resolve()
        async with demo(Path(temporary) / "demo", picture) as (base, key, process):
            async with open_page(base, Path(temporary) / "profile", seconds_max=FILM_SECONDS_MAX) as tab:
                await set_screen(tab, *FILM_SIZE, "light")
                await sign_in(tab, key)
                await until(tab, "!!document.querySelector('tbody th a')")
                here = await tab.evaluate("document.querySelector('tbody th a').getAttribute('href')")
                await show(tab, base, f"{here}?range=3m")
                frames = []
                while len(frames) < FRAMES_MAX:
                    frames.append(await tab.screenshot())
                    if len(frames) == FRAMES_MAX // 2:
                        worker = await tab.evaluate(
                            "document.querySelector('#workers tbody th a')?.getAttribute('href') || ''"
                        )
                    await asyncio.sleep(FRAME_SECONDS)
                    done = await tab.evaluate("document.querySelector('#figures .cards')?.innerText || ''")
                    if len(frames) > 20 and re.search(r"\b0 hot\b.*\b0 booting", " ".join(done.split())):
                        break
                save_gif(frames, folder / "burst.gif")
                paths = {"list": "/", "endpoint": here, "config": f"{here}/config"}
                if worker:
                    paths["worker"] = worker
                await pictures(tab, base, paths, folder)
                assert process.stdout is not None
                while b"press Enter" not in (line := await process.stdout.readline()):
                    if not line:
                        sys.exit("the demo ended before its picture was written")
                await set_screen(tab, 1060, 504, "light")
                await tab.navigate(picture.as_uri())
                await until(
                    tab, "document.readyState === 'complete' && document.documentElement.nodeName === 'svg'"
                )
                await whole_page(tab, folder / "demo.png")
            assert process.stdin is not None
            process.stdin.write(b"\n")
            await process.stdin.drain()
            assert process.stdout is not None
            print((await process.stdout.read()).decode())


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else ".film")
    target.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(target))
