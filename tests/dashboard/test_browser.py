"""The dashboard in a real browser: signing in, live updates, hostile text, the keyboard, contrast and narrow screens."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.dashboard.test_pages import HOSTILE
from tests.engine.clients.browser import BROWSER, Tab, open_page
from tests.engine.conftest import ALICE, Stage

pytestmark = [
    pytest.mark.timeout(200),
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (apt-get install chromium)"),
]

CONTRAST = """
(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((each) => {
    const c = each / 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  }).reduce((sum, c, place) => sum + c * [0.2126, 0.7152, 0.0722][place], 0);
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("main *")) {
    if (![...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())) continue;
    if (element.closest("svg") || !element.offsetParent) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${element.tagName} ${element.className}: ${ratio.toFixed(2)}`);
  }
  return found;
})()
"""


async def until(tab: Tab, script: str, seconds: float = 30) -> Any:
    """The expression's first true value."""
    async with asyncio.timeout(seconds):
        while not (value := await tab.evaluate(f"document.body && ({script})")):
            await asyncio.sleep(0.1)
        return value


async def signed_in(tab: Tab) -> None:
    await until(tab, "!!document.querySelector('#key')")
    await tab.evaluate(
        f"document.querySelector('#key').value = {json.dumps(ALICE)}; document.querySelector('main form').submit()"
    )
    await until(tab, "document.title.startsWith('Endpoints')")


async def test_an_operator_watches_a_burst_and_hostile_text_stays_text(
    dashboard: str, stage: Stage, tmp_path: Path
) -> None:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    member = worker.member(k=HOSTILE, e=HOSTILE, s="model_loading")
    await endpoint.script(groups=[1], members=[member], wait_code="booting", wait_reason=HOSTILE)
    await worker.report(error_msg=HOSTILE, loadtime=0.0)
    async with open_page(dashboard, tmp_path / "profile") as tab:
        await tab.evaluate("window.alert = () => { document.body.dataset.attacked = 'yes' }")
        await signed_in(tab)
        await until(tab, f"document.body.innerText.includes({json.dumps(endpoint.name)})")
        await tab.evaluate(f"location.href = '/endpoints/{endpoint.id}?range=10m'")
        await until(tab, "document.querySelectorAll('.chart svg').length === 4")
        held = [endpoint.begin(cost=10) for _ in range(3)]
        # live: the queue of the burst and its reason appear without a reload
        shown = await until(
            tab,
            "document.querySelector('#figures .summary').innerText.includes('Waiting') && "
            "document.querySelector('#figures').innerText",
        )
        assert "<script>alert(1)</script>" in shown
        assert "\\u202e" in shown
        assert not await tab.evaluate("document.body.dataset.attacked || ''")
        assert await tab.evaluate("document.querySelectorAll('main script, main img').length") == 0
        foreign = await tab.evaluate(
            "performance.getEntriesByType('resource').map((e) => e.name).filter((n) => !n.startsWith(location.origin))"
        )
        assert foreign == []
        for each in held:
            each.cancel()


async def fits(tab: Tab) -> None:
    """No page is wider than a desktop's or a phone's screen."""
    for width in (1280, 390):
        await tab._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=844,
            deviceScaleFactor=1,
            mobile=False,
        )
        wide = await tab.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide <= 0, f"the page is wider than a screen of {width} px"


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_has_the_contrast_of_wcag_aa_and_fits_a_narrow_screen(
    dashboard: str, stage: Stage, tmp_path: Path, scheme: str
) -> None:
    endpoint = await stage.endpoint()
    worker, failing = endpoint.worker(), endpoint.worker("bbbbbbbbbbbb", 102)
    await endpoint.ready(worker, failing)
    await failing.report(error_msg="out of memory")
    given = await endpoint.route(cost=40)
    await worker.finish(given["request_idx"])
    async with open_page(dashboard, tmp_path / "profile") as tab:
        await tab._call(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
        )
        await signed_in(tab)
        assert await tab.evaluate(CONTRAST) == []
        await tab.evaluate(f"location.href = '/endpoints/{endpoint.id}'")
        await until(
            tab,
            "document.body.innerText.includes('out of memory') && document.body.innerText.includes('done')",
        )
        assert await tab.evaluate(CONTRAST) == []
        await fits(tab)
        await tab.evaluate(f"location.href = '/endpoints/{endpoint.id}/workers/{failing.launch_id}'")
        await until(
            tab,
            "document.title.startsWith('Worker') && document.body.innerText.includes('out of memory')",
        )
        await tab.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })")
        assert await tab.evaluate(CONTRAST) == []
        await fits(tab)
        focusable = await tab.evaluate(
            "[...document.querySelectorAll('a, button, input, summary')].filter((e) => e.tabIndex < 0).length"
        )
        assert focusable == 0


PIN = "document.querySelector('a.marker')"


async def test_an_open_page_keeps_focus_and_selected_text_and_tells_decisions_to_the_keyboard(
    dashboard: str, stage: Stage, tmp_path: Path
) -> None:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await endpoint.ready(worker)
    for number in range(3):
        await endpoint.handle.signal("log", {"kind": "recruit", "subject": "s", "reason": f"reason {number}"})
    async with open_page(dashboard, tmp_path / "profile") as tab:
        await signed_in(tab)
        await tab.evaluate(f"location.href = '/endpoints/{endpoint.id}?range=10m'")
        await until(tab, f"!!{PIN} && !!document.querySelector('#requests-slow summary')")
        # the decisions of one moment are on one pin, which the keyboard reaches
        await tab.evaluate("document.querySelector('.save').focus()")
        for kind in ("keyDown", "keyUp"):
            await tab._call(
                "Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9
            )
        assert await until(tab, "!document.querySelector('.readout').hidden")
        shown = await tab.evaluate("document.querySelector('.readout').innerText")
        assert [f"reason {number}" in shown for number in range(3)] == [True] * 3
        await tab.evaluate(
            f"{PIN}.dispatchEvent(new MouseEvent('click', {{bubbles: true, cancelable: true}}))"
        )
        assert "reason 0" in await tab.evaluate("document.activeElement.innerText")
        # a part that changes keeps its focused element, and its selected text until nothing is selected
        await tab.evaluate("document.querySelector('#requests-slow summary').focus()")
        given = await endpoint.route(cost=40)
        await worker.finish(given["request_idx"])
        await until(tab, "document.querySelector('#requests').innerText.includes('done')")
        assert await tab.evaluate("document.activeElement.parentElement.id") == "requests-slow"
        await tab.evaluate("getSelection().selectAllChildren(document.querySelector('#requests tbody'))")
        before = await tab.evaluate("document.querySelector('#requests').innerText")
        given = await endpoint.route(cost=77)
        await worker.finish(given["request_idx"])
        await until(tab, "held.has('requests')")
        assert await tab.evaluate("document.querySelector('#requests').innerText") == before
        await tab.evaluate("getSelection().removeAllRanges()")
        await until(tab, "document.querySelector('#requests tbody').innerText.includes('77')")


async def test_requests_are_short_on_a_phone(dashboard: str, stage: Stage, tmp_path: Path) -> None:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await endpoint.ready(worker)
    for _ in range(20):
        given = await endpoint.route(cost=40)
        await worker.finish(given["request_idx"])
    async with open_page(dashboard, tmp_path / "profile") as tab:
        await tab._call(
            "Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=False
        )
        await signed_in(tab)
        await tab.evaluate(f"location.href = '/endpoints/{endpoint.id}'")
        await until(tab, "document.querySelectorAll('#requests-recent tbody tr').length === 20")
        height = await tab.evaluate("document.querySelector('#requests-recent').offsetHeight")
        assert height < 2 * 844, "twenty requests take less than two screens"
        # what the time went to is in sight: each part of the row is inside the screen
        cut = await tab.evaluate(
            "[...document.querySelectorAll('#requests-recent td')].filter((e) => e.getBoundingClientRect().right > 390).length"
        )
        assert cut == 0
