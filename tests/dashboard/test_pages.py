"""The pages as a browser sees them: signing in, live figures, foreign text, and actions."""

import asyncio
import json

import pytest

from dashboard.pages.sign_in_limit import WRONG_MAX
from tests.dashboard.conftest import Browser, until_page
from tests.engine.conftest import ALICE, BOB, Stage

HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(1)>\x1b[31m\u202e'


async def test_nothing_is_shown_without_signing_in(browser: Browser, stage: Stage) -> None:
    endpoint = await stage.endpoint()
    for path in ("/", f"/endpoints/{endpoint.id}", f"/endpoints/{endpoint.id}/config"):
        async with browser.http.get(browser.url + path, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "/sign-in")
    for path in ("/events", f"/endpoints/{endpoint.id}/events"):
        status, _ = await browser.get(path)
        assert status == 401
    status, text = await browser.post(f"/endpoints/{endpoint.id}/delete", name=endpoint.name)
    assert status == 401
    assert endpoint.name not in text


async def test_a_wrong_key_is_refused_and_not_repeated_on_the_page(browser: Browser) -> None:
    status, text = await browser.post("/sign-in", key="sk-guess-1234")
    assert status == 403
    assert "No account has this key" in text
    assert "sk-guess-1234" not in text


async def test_wrong_keys_lock_the_sign_in_of_their_own_address_only(browser: Browser) -> None:
    form = {"data": {"key": "sk-guess"}, "headers": {"X-Forwarded-For": "203.0.113.9"}}
    for _ in range(WRONG_MAX):
        async with browser.http.post(browser.url + "/sign-in", **form) as answer:
            assert answer.status == 403
    form["data"] = {"key": ALICE}
    async with browser.http.post(browser.url + "/sign-in", **form) as answer:
        assert answer.status == 429
        assert 0 < int(answer.headers["Retry-After"]) <= 60
    await browser.sign_in()


async def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(browser: Browser) -> None:
    async with browser.http.post(
        browser.url + "/sign-in", data={"key": ALICE}, allow_redirects=False
    ) as answer:
        cookie = answer.headers["Set-Cookie"]
        assert ALICE not in cookie
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= {part.strip() for part in cookie.split(";")}


async def test_every_page_forbids_foreign_and_inline_scripts(browser: Browser) -> None:
    await browser.sign_in()
    for path in ("/", "/sign-in", "/static/live.js", "/no-such-page"):
        async with browser.http.get(browser.url + path, allow_redirects=False) as answer:
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "fields",
    [
        {"Origin": "http://evil.example"},
        {"Host": "evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_a_form_of_another_site_changes_nothing(
    browser: Browser, stage: Stage, fields: dict[str, str]
) -> None:
    endpoint = await stage.endpoint()
    await browser.sign_in()
    await until_page(browser, "/", endpoint.name)
    form = {"csrf": await browser.token(), "state": "stopped"}
    target = f"{browser.url}/endpoints/{endpoint.id}/state"
    async with browser.http.post(target, data=form, headers=fields) as answer:
        assert answer.status in (403, 421)
    assert stage.server.engine.directory.named(endpoint.name).config.endpoint_state == "active"


async def test_a_form_without_the_token_of_the_session_changes_nothing(
    browser: Browser, stage: Stage
) -> None:
    endpoint = await stage.endpoint()
    await browser.sign_in()
    await until_page(browser, "/", endpoint.name)
    for token in ("", "guess"):
        status, _ = await browser.post(f"/endpoints/{endpoint.id}/state", csrf=token, state="stopped")
        assert status == 403


async def test_an_account_sees_its_own_endpoints_only(browser: Browser, stage: Stage) -> None:
    own, other = await stage.endpoint(owner="alice"), await stage.endpoint(owner="bob")
    await browser.sign_in(ALICE)
    page = await until_page(browser, "/", own.name)
    assert f">{other.name}<" not in page
    status, text = await browser.get(f"/endpoints/{other.id}")
    assert status == 404
    assert other.name not in text
    await browser.post("/sign-out", csrf=await browser.token())
    await browser.sign_in(BOB)
    await until_page(browser, "/", other.name)


async def test_the_page_of_an_endpoint_shows_workers_load_and_requests(
    browser: Browser, stage: Stage
) -> None:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await endpoint.ready(worker)
    given = await endpoint.route(cost=40)
    await worker.finish(given["request_idx"])
    await browser.sign_in()
    page = await until_page(browser, f"/endpoints/{endpoint.id}", "done")
    assert worker.launch_id in page
    assert "1x RTX 4090" in page
    assert 'class="health ok"' in page


async def test_an_endpoint_whose_recruiting_has_stopped_is_degraded_and_not_idle(
    browser: Browser, stage: Stage
) -> None:
    endpoint = await stage.endpoint()
    await endpoint.script(groups=[1], wait_code="worker_failed", wait_reason="the model is gated")
    await browser.sign_in()
    page = await until_page(
        browser, f"/endpoints/{endpoint.id}", "<b>Recruiting has stopped:</b> the model is gated"
    )
    assert 'class="health degraded"' in page
    assert "the first request wakes a worker" not in page


async def test_foreign_text_is_text_on_every_part_of_the_page(browser: Browser, stage: Stage) -> None:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await endpoint.script(
        groups=[1],
        members=[worker.member(k=HOSTILE, e=HOSTILE)],
        wait_code="booting",
        wait_reason=HOSTILE,
    )
    await worker.report(error_msg=HOSTILE, loadtime=0.0)
    held = endpoint.begin()
    await endpoint.lined_up(1)
    await browser.sign_in()
    page = await until_page(browser, f"/endpoints/{endpoint.id}", "&lt;script&gt;")
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    held.cancel()


async def test_foreign_text_in_a_decision_is_text_on_the_page_and_in_the_picture(
    browser: Browser, stage: Stage
) -> None:
    endpoint = await stage.endpoint()
    for part in ("kind", "subject", "reason"):
        await endpoint.handle.signal("log", {"kind": "stop", "subject": "s", "reason": "r", part: HOSTILE})
    await browser.sign_in()
    page = await until_page(browser, f"/endpoints/{endpoint.id}", "&lt;script&gt;")
    picture = await browser.page(f"/endpoints/{endpoint.id}/charts.svg")
    assert "&lt;script&gt;" in picture
    for raw in ("<script>alert", "<img", "\x1b", "\u202e"):
        assert raw not in page
        assert raw not in picture


async def test_a_decision_stays_on_the_page_when_the_endpoint_has_dropped_it(
    browser: Browser, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dashboard.sampler.TAIL", 2)
    endpoint = await stage.endpoint()
    await browser.sign_in()
    for number in range(4):
        await endpoint.handle.signal("log", {"kind": "stop", "subject": "s", "reason": f"cause {number}"})
        await endpoint.script()  # changes the memo, as a decision does
        page = await until_page(browser, f"/endpoints/{endpoint.id}", f"cause {number}")
    assert all(f"cause {number}" in page for number in range(4))


async def test_the_charts_are_a_file_for_the_own_account_only(browser: Browser, stage: Stage) -> None:
    endpoint, other = await stage.endpoint(), await stage.endpoint(owner="bob")
    async with browser.http.get(
        f"{browser.url}/endpoints/{endpoint.id}/charts.svg", allow_redirects=False
    ) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/sign-in")
    await browser.sign_in()
    await until_page(browser, "/", endpoint.name)
    async with browser.http.get(f"{browser.url}/endpoints/{endpoint.id}/charts.svg?range=10m") as answer:
        assert answer.content_type == "image/svg+xml"
        assert answer.headers["Content-Disposition"] == f'attachment; filename="{endpoint.name}-10m.svg"'
        text = await answer.text()
    assert text.startswith("<svg")
    assert endpoint.name in text
    assert (await browser.get(f"/endpoints/{other.id}/charts.svg"))[0] == 404


async def test_an_open_page_receives_changes(browser: Browser, stage: Stage) -> None:
    endpoint = await stage.endpoint()
    await browser.sign_in()
    await until_page(browser, "/", endpoint.name)
    async with browser.http.get(f"{browser.url}/endpoints/{endpoint.id}/events") as stream:
        assert stream.headers["Content-Type"] == "text/event-stream"
        held = endpoint.begin()
        async with asyncio.timeout(20):
            async for line in stream.content:
                if line.startswith(b"data: ") and "waiting" in json.loads(line[6:]).get("figures", ""):
                    break
        held.cancel()


async def test_the_updates_of_a_page_end_with_its_session(browser: Browser, stage: Stage) -> None:
    endpoint = await stage.endpoint()
    await browser.sign_in()
    await until_page(browser, "/", endpoint.name)
    async with browser.http.get(f"{browser.url}/events") as stream:
        await stream.content.readline()
        await browser.post("/sign-out", csrf=await browser.token())
        async with asyncio.timeout(20):
            while await stream.content.readline():
                pass


async def test_a_stopped_engine_is_named_and_the_last_figures_stay(browser: Browser, stage: Stage) -> None:
    endpoint = await stage.endpoint()
    await browser.sign_in()
    await until_page(browser, "/", endpoint.name)
    await stage.stop_engine(stage.server)
    page = await until_page(browser, "/", "The figures are old")
    assert endpoint.name in page


async def test_a_deletion_needs_the_name_of_the_endpoint(browser: Browser, stage: Stage) -> None:
    endpoint = await stage.endpoint()
    await browser.sign_in()
    await until_page(browser, "/", endpoint.name)
    status, text = await browser.submit(f"/endpoints/{endpoint.id}/delete", name="another")
    assert status == 400
    assert endpoint.name in text
    assert not stage.server.engine.directory.named(endpoint.name).deleting


@pytest.mark.parametrize(
    "path", ["/endpoints/0", "/endpoints/99999999999999999999999999", "/endpoints/x", "/%00"]
)
async def test_a_wrong_address_is_a_page_and_no_traceback(browser: Browser, path: str) -> None:
    await browser.sign_in()
    status, text = await browser.get(path)
    assert status == 404
    assert "<h1>404</h1>" in text


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/x-www-form-urlencoded", b"csrf=\xff\xfe&key=\xff", 400),
        ("application/x-www-form-urlencoded", b"&".join(b"a=1" for _ in range(200)), 400),
        ("application/x-www-form-urlencoded; charset=unknown", b"csrf=a&key=b", 403),
        ("application/x-www-form-urlencoded; charset=utf-7", b"csrf=%2B2AA-&key=b", 403),
        ("application/x-www-form-urlencoded", b"csrf=%ED%A0%80&key=%00", 403),
        ("multipart/form-data", b"x", 415),
        ("multipart/form-data; boundary=x", b"--x\r\n", 415),
        ("application/json", b'{"csrf": 1}', 415),
    ],
)
@pytest.mark.parametrize("path", ["/sign-in", "/sign-out"])
async def test_a_body_that_is_not_a_form_is_refused_on_a_page(
    browser: Browser, path: str, content_type: str, body: bytes, status: int
) -> None:
    await browser.sign_in()
    sent = browser.http.post(browser.url + path, data=body, headers={"Content-Type": content_type})
    async with sent as answer:
        assert (answer.status, answer.content_type) == (status, "text/html")
    await browser.page("/")


async def test_a_config_is_applied_by_its_own_button_only(browser: Browser, stage: Stage) -> None:
    endpoint = await stage.endpoint()
    await browser.sign_in()
    await until_page(browser, "/", endpoint.name)
    for action in ({}, {"action": "guess"}):
        status, text = await browser.submit(f"/endpoints/{endpoint.id}/config", max_workers="3", **action)
        assert status == 400
        assert "action: should be advise, apply or stop-advice" in text
    assert stage.server.engine.directory.named(endpoint.name).config.max_workers != 3


async def test_the_open_pages_of_an_account_leave_room_for_those_of_another(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dashboard.pages.shell.STREAMS_MAX", 1)
    await browser.sign_in(ALICE)
    async with browser.http.get(browser.url + "/events") as first:
        assert first.status == 200
        assert (await browser.get("/events"))[0] == 503
        await browser.post("/sign-in", key=BOB)
        async with browser.http.get(browser.url + "/events") as other:
            assert other.status == 200
