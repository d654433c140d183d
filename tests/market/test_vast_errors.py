"""Answers of other marketplaces, proxies and networks, which the host marketplace does not give."""

import json
import time

import httpx
import pytest

from market.interface import (
    InstanceGone,
    Launch,
    OfferGone,
    OfferQuery,
    RateLimited,
    Refused,
    Unauthorised,
    Unavailable,
)
from market.vast.client import VastMarket
from market.vast.errors import retry_after

KEY = "key-that-must-not-show-0123"
LAUNCH = Launch(label="stoker:a:b", template_hash="h", env={"TOKEN": "env-secret-9876", "SHORT": "a"})


def market_of(*answers, base="http://market.test") -> tuple[VastMarket, list[httpx.Request]]:
    """A client whose calls get these answers in order; the last one repeats."""
    seen: list[httpx.Request] = []
    left = list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        now = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(now, Exception):
            raise now
        return now

    return VastMarket(base, KEY, transport=httpx.MockTransport(answer)), seen


def said(status: int, body=None, **headers) -> httpx.Response:
    return httpx.Response(status, json=body if body is not None else {}, headers=headers)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (said(400, {"success": False, "error": "invalid_args", "msg": "no"}), Refused),
        (said(400, {"success": False, "error": "invalid_price", "msg": "no"}), Refused),
        (said(400, {"success": False, "error": "no_such_ask", "msg": "no"}), OfferGone),
        (said(402, {"success": False, "error": "insufficient_credit"}), Refused),
        (said(401, {"error": "auth_error"}), Unauthorised),
        (said(403, {"error": "forbidden"}), Refused),
        (said(404, {"success": False, "error": "no_such_ask"}), OfferGone),
        (said(404, {}), OfferGone),
        (said(404, {"error": "no_such_template"}), Refused),
        (said(410, {"success": False, "error": "unavailable"}), OfferGone),
        (said(200, {"success": False, "error": "no_such_ask", "msg": "late"}), OfferGone),
        (said(200, {"success": False, "error": "insufficient_credit"}), Refused),
        (said(429, {"detail": "slow down"}), RateLimited),
        (httpx.Response(429, text="slow down"), RateLimited),
        (said(200, {"success": False, "error": "too_many_requests"}), RateLimited),
        (said(408), Unavailable),
        (said(500), Unavailable),
        (httpx.Response(502, text="<html>bad gateway</html>"), Unavailable),
        (httpx.Response(503, text=""), Unavailable),
        (httpx.Response(302, headers={"Location": "http://elsewhere.test/"}), Unavailable),
        (httpx.Response(200, text="<html>hello</html>"), Unavailable),
        (httpx.Response(200, text="[" * 100_000), Unavailable),
        (httpx.Response(200, json=[1]), Unavailable),
        (httpx.Response(404, text="<html>no such page</html>"), Unavailable),
        (said(200, {"success": True}), Unavailable),
        (said(200, {"success": True, "new_contract": True}), Unavailable),
        (httpx.ConnectError("refused"), Unavailable),
        (httpx.ReadTimeout("slow"), Unavailable),
        (httpx.RemoteProtocolError("cut"), Unavailable),
    ],
    ids=repr,
)
async def test_each_answer_to_a_create_call_means_one_error(answer, error):
    market, _ = market_of(answer)
    with pytest.raises(error) as raised:
        await market.create(7, LAUNCH)
    assert type(raised.value) is error
    await market.close()


async def test_a_missing_instance_is_recognised_by_code_and_not_from_a_proxys_page():
    market, _ = market_of(said(404, {"success": False, "error": "no_such_instance", "msg": "gone"}))
    with pytest.raises(InstanceGone):
        await market.start(7)
    market, _ = market_of(said(200, {"instances": None}))
    with pytest.raises(InstanceGone):
        await market.show(7)
    for stranger in (httpx.Response(404, text="nginx"), said(200, {}), said(200, {"instances": 3})):
        market, _ = market_of(stranger)
        with pytest.raises(Unavailable):
            await market.show(7)
    market, _ = market_of(httpx.Response(404, text="nginx"))
    with pytest.raises(Unavailable):
        await market.destroy(7)
    for nobody in (
        {"message": "no Route matched with those values"},
        {"message": "The route api/v0/instances/7 could not be found."},
        {"message": "Cannot DELETE /api/v0/instances/7/"},
        {"detail": "Not Found"},
        {},
    ):
        market, _ = market_of(said(404, nobody))
        with pytest.raises(Unavailable):
            await market.destroy(7)
    # Another server of stoker at the market's address: its "no route" does not mean that the instance is gone.
    for path in ("", " /marketplace/api/v0/instances/7/"):
        no_route = {"success": False, "error": "not_found", "msg": f"there is no route{path}"}
        market, _ = market_of(said(404, no_route))
        with pytest.raises(Refused) as refused:
            await market.destroy(7)
        assert not isinstance(refused.value, InstanceGone)


@pytest.mark.parametrize(
    "body", [{"msg": "Instance 7 not found"}, {"detail": "no such instance: 7 (see /docs)"}]
)
async def test_a_missing_instance_is_recognised_by_the_message_alone(body):
    market, _ = market_of(said(404, body))
    with pytest.raises(InstanceGone):
        await market.start(7)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("5", 5),
        ("0.5", 0.5),
        ("-3", 0),
        ("1e9", 86_400),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("", None),
    ],
)
def test_retry_after_is_read_in_seconds(header, seconds):
    assert retry_after(header) == seconds


def test_retry_after_may_be_a_date():
    import email.utils

    later = retry_after(email.utils.formatdate(time.time() + 60, usegmt=True))
    assert 50 < later <= 61
    assert retry_after("Thu, 01 Jan 1970 00:00:00 GMT") == 0


async def test_an_error_contains_no_key_and_no_secret():
    echo = f"bad env TOKEN=env-secret-9876 for {KEY}\x1b[31m\n" + "x" * 5000
    for answer in (said(400, {"error": "invalid_args", "msg": echo}), httpx.Response(500, text=echo)):
        market, _ = market_of(answer)
        with pytest.raises((Refused, Unavailable)) as raised:
            await market.create(7, LAUNCH)
        text = str(raised.value) + repr(raised.value) + repr(raised.value.__cause__)
        assert "env-secret" not in text
        assert KEY not in text
        assert "\x1b" not in text
        assert "\n" not in text
        assert len(text) < 1000


async def test_a_bid_that_fails_but_leaves_an_instance_releases_it():
    market, seen = market_of(
        said(400, {"success": False, "error": "invalid_price", "msg": "outbid", "new_contract": 55}),
        said(200, {"success": True}),
    )
    with pytest.raises(Refused, match="invalid_price"):
        await market.create(7, LAUNCH)
    assert [(one.method, one.url.path) for one in seen] == [
        ("PUT", "/api/v0/asks/7/"),
        ("DELETE", "/api/v0/instances/55/"),
    ]


async def test_a_failed_release_after_a_failed_create_does_not_hide_the_error():
    market, _ = market_of(
        said(400, {"success": False, "error": "invalid_price", "new_contract": 55}), said(500)
    )
    with pytest.raises(Refused, match="invalid_price"):
        await market.create(7, LAUNCH)


async def test_create_sends_the_launch_and_extra_cannot_change_it():
    market, seen = market_of(said(200, {"success": True, "new_contract": 12}))
    launch = Launch(
        label="stoker:a:b",
        template_hash="h",
        template_id=3,
        env={"A": "1", "-p 3000:3000": "1"},
        disk_gb=40,
        bid_dollars_per_hour=0.2,
        args=("a", "b"),
        extra={"image_login": "x", "label": "stolen", "env": {}},
    )
    assert await market.create(7, launch) == 12
    assert json.loads(seen[0].content) == {
        "client_id": "me",
        "label": "stoker:a:b",
        "template_hash_id": "h",
        "env": {"A": "1", "-p 3000:3000": "1"},
        "disk": 40,
        "price": 0.2,
        "args": ["a", "b"],
        "image_login": "x",
        "cancel_unavail": True,
    }
    assert seen[0].headers["Authorization"] == f"Bearer {KEY}"
    assert KEY not in str(seen[0].url)


async def test_one_odd_offer_does_not_hide_the_others():
    rows = [
        {"id": 1, "gpu_name": None, "dlperf": None},
        {"id": "x"},
        {"id": 3, "num_gpus": 2, "new_field": {}},
    ]
    market, seen = market_of(said(200, {"offers": rows}))
    offers = await market.search(OfferQuery(filters={"gpu_ram": {"gt": 1}}, limit=5))
    assert [(one.id, one.num_gpus) for one in offers] == [(1, 1), (3, 2)]
    assert json.loads(seen[0].content)["gpu_ram"] == {"gt": 1}


async def test_an_instance_that_cannot_be_read_fails_the_list_rather_than_vanish():
    market, _ = market_of(said(200, {"instances": [{"id": 1}, {"id": "x"}]}))
    with pytest.raises(Unavailable, match="id"):
        await market.list()


async def test_null_fields_of_an_instance_are_unknown_not_errors():
    row = {"id": 1, "num_gpus": None, "dph_total": None, "is_bid": None, "machine_id": None, "label": None}
    market, _ = market_of(said(200, {"instances": [row], "next_token": None}))
    (instance,) = await market.list()
    assert (instance.num_gpus, instance.label) == (1, None)


async def test_an_instance_with_an_odd_price_is_listed_without_one():
    text = '{"instances": [{"id": 1, "dph_total": NaN}, {"id": 2, "dph_total": -4}, {"id": 3, "dph_total": 0.5}]}'
    market, _ = market_of(httpx.Response(200, content=text))
    assert [each.dph_total for each in await market.list()] == [0.0, 0.0, 0.5]


async def test_pages_that_never_end_are_an_error():
    market, _ = market_of(said(200, {"instances": [{"id": 1}], "next_token": "same"}))
    with pytest.raises(Unavailable, match="do not end"):
        await market.list()


@pytest.mark.parametrize(
    "address",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://market.test:8080/log",
        "https://market.test/log",
        "http://market.test@evil.test/log",
        "http://user:pw@market.test/log",
        "file:///etc/passwd",
        "//evil.test/log",
        "/log",
        "http://",
        7,
        None,
    ],
)
async def test_a_log_address_elsewhere_is_not_followed(address):
    market, seen = market_of(said(200, {"success": True, "result_url": address}))
    with pytest.raises(Unavailable, match="origin"):
        await market.logs(7)
    assert len(seen) == 1


async def test_logs_are_fetched_without_the_key_and_as_soon_as_they_are_there():
    market, seen = market_of(
        said(200, {"success": True, "result_url": "http://market.test/logs/1"}),
        httpx.Response(404),
        httpx.Response(200, text="one\ntwo\nthree\n"),
        said(200, {"instances": {"id": 7}}),
    )
    assert await market.logs(7, tail=2) == "two\nthree"
    assert "Authorization" not in seen[1].headers


async def test_a_log_has_no_secret_of_the_instances_environment():
    environment = [["HF_TOKEN", "hf_0123456789"], ["MODEL", "small-model"], ["odd"], 7]
    market, _ = market_of(
        said(200, {"success": True, "result_url": "http://market.test/logs/1"}),
        httpx.Response(200, text="login with hf_0123456789 for small-model"),
        said(200, {"instances": {"id": 7, "extra_env": environment}}),
    )
    assert await market.logs(7) == "login with *** for small-model"


@pytest.mark.parametrize("base", ["market.test", "ftp://market.test", "http://", "http://a@b", ""])
def test_an_invalid_address_is_refused_at_once(base):
    with pytest.raises(ValueError, match="address"):
        VastMarket(base, KEY)


async def test_a_market_that_does_not_listen_is_unavailable():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    market = VastMarket(f"http://127.0.0.1:{port}", KEY)
    with pytest.raises(Unavailable, match="ConnectError"):
        await market.list()
    await market.close()
