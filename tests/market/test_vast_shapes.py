"""The client of the hosted marketplace against its public documents: requests, answers and error bodies."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from market.interface import (
    InstanceGone,
    Launch,
    MarketError,
    OfferGone,
    OfferQuery,
    RateLimited,
    Refused,
    Unauthorised,
    Unavailable,
)
from market.vast.client import VastMarket
from tests.market.vast_shapes import INSTANCE, OFFER, SHAPES, TEMPLATE, shape_of

KEY = "vast-api-key-0123456789"
LAUNCH = Launch(
    label="stoker:llm:0123456789ab",
    template_hash=TEMPLATE["hash_id"],
    env={"A": "b", "-p 3000:3000": "1"},
    disk_gb=40.0,
    onstart="start.sh",
    args=("--flag",),
    runtype="args",
)
QUERY = OfferQuery(
    filters={"gpu_name": {"in": ["RTX 4090"]}, "rentable": {"eq": True}, "gpu_ram": {"gte": 24000.0}},
    order=(("dlperf_per_dphtotal", "desc"), ("dph_total", "asc")),
)

Answer = httpx.Response | Callable[[httpx.Request], httpx.Response]


class Hosted:
    """The hosted marketplace by its documents: refuses undocumented fields and returns the test's answers."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.seen: list[tuple[str, str, Any, dict[str, str]]] = []
        self.market = VastMarket("https://console.vast.ai", KEY, transport=httpx.MockTransport(self._answer))

    def says(self, *answers: Answer | Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        for answer in answers:
            said = isinstance(answer, httpx.Response) or callable(answer)
            self.answers.append(answer if said else httpx.Response(status, json=answer, headers=headers))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        query = dict(request.url.params)
        body = json.loads(request.content) if request.content else None
        shape = shape_of(request.method, request.url.path)
        assert shape is not None, f"not documented: {request.method} {request.url.path}"
        assert shape.faults(body, query) == []
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        assert "api_key" not in query
        self.seen.append((request.method, request.url.path, body, query))
        answer = self.answers.pop(0)
        return answer(request) if callable(answer) else answer


@pytest.fixture
async def hosted():
    hosted = Hosted()
    yield hosted
    await hosted.market.close()
    assert hosted.answers == []


# -- what is sent and what comes back


async def test_a_search_sends_filters_order_type_and_disk_and_reads_offers(hosted):
    hosted.says({"offers": [OFFER]})
    (offer,) = await hosted.market.search(QUERY)
    ((_, _, body, _),) = hosted.seen
    assert body["order"] == [["dlperf_per_dphtotal", "desc"], ["dph_total", "asc"]]
    assert (offer.id, offer.kind, offer.dph_total, offer.reliability) == (
        1234567,
        "1x RTX 4090",
        0.3137,
        0.9973,
    )


@pytest.mark.parametrize("kind", ["on-demand", "bid", "reserved"])
async def test_every_type_of_offer_is_documented(hosted, kind):
    hosted.says({"offers": []})
    assert await hosted.market.search(OfferQuery(filters={}, type=kind)) == []


async def test_a_create_sends_label_template_env_and_cancels_what_cannot_start(hosted):
    hosted.says({"success": True, "new_contract": 1234568})
    assert await hosted.market.create(1234567, LAUNCH) == 1234568
    ((method, path, body, _),) = hosted.seen
    assert (method, path) == ("PUT", "/api/v0/asks/1234567/")
    assert (body["label"], body["template_hash_id"], body["disk"]) == (
        LAUNCH.label,
        LAUNCH.template_hash,
        40.0,
    )
    assert body["cancel_unavail"] is True
    assert "price" not in body


async def test_a_bid_sends_its_price(hosted):
    hosted.says({"success": True, "new_contract": 1})
    await hosted.market.create(7, Launch(label="l", image="i", bid_dollars_per_hour=0.17))
    assert hosted.seen[0][2]["price"] == 0.17


async def test_a_state_is_wanted_by_name(hosted):
    hosted.says({"success": True}, {"success": True}, {"success": True})
    await hosted.market.start(312)
    await hosted.market.stop(312)
    await hosted.market.reboot(312)
    assert [body for _, _, body, _ in hosted.seen] == [{"state": "running"}, {"state": "stopped"}, {}]


async def test_an_update_names_the_instance_and_its_new_template(hosted):
    hosted.says({"success": True, "updated_instance": INSTANCE})
    await hosted.market.update_template(312, LAUNCH)
    ((_, _, body, _),) = hosted.seen
    assert (body["id"], body["template_hash_id"]) == (312, LAUNCH.template_hash)


async def test_an_instance_is_read_from_the_plurals_name(hosted):
    hosted.says({"instances": INSTANCE})
    instance = await hosted.market.show(312)
    assert (instance.id, instance.actual_status, instance.public_ipaddr) == (312, "running", "192.0.2.45")


async def test_a_list_follows_its_tokens_and_asks_for_25_at_a_time(hosted):
    rows = [INSTANCE | {"id": number, "label": "stoker:llm:x"} for number in range(1, 61)]
    for start in (0, 25, 50):
        token = f"after-{start + 25}" if start < 50 else None
        page = rows[start : start + 25]
        hosted.says(
            {
                "success": True,
                "instances": page,
                "instances_found": len(page),
                "total_instances": 60,
                "next_token": token,
                "label_counts": {"stoker:llm:x": 60},
            }
        )
    found = await hosted.market.list(label_prefix="stoker:llm:")
    assert [one.id for one in found] == list(range(1, 61))
    queries = [query for _, _, _, query in hosted.seen]
    assert [query.get("after_token") for query in queries] == [None, "after-25", "after-50"]
    assert {query["limit"] for query in queries} == {"25"}


async def test_labels_are_looked_up_in_one_call(hosted):
    rows = [INSTANCE | {"id": number, "label": f"stoker:llm:{number}"} for number in (1, 2)]
    hosted.says({"success": True, "instances": rows, "next_token": None})
    found = await hosted.market.labelled(["stoker:llm:1", "stoker:llm:2", "stoker:llm:3"])
    assert [one.id for one in found] == [1, 2]
    [(_, path, _, query)] = hosted.seen
    assert path == "/api/v1/instances/"
    wanted = ["stoker:llm:1", "stoker:llm:2", "stoker:llm:3"]
    assert json.loads(query["select_filters"]) == {"label": {"in": wanted}}


async def test_nothing_is_believed_to_be_absent_before_a_label_was_found(hosted):
    row = INSTANCE | {"id": 2, "label": "stoker:llm:2"}
    nothing = {"success": True, "instances": [], "next_token": None}
    everything = {"success": True, "instances": [row], "next_token": None}
    hosted.says(nothing, everything, everything)
    for _ in range(2):
        assert [one.id for one in await hosted.market.labelled(["stoker:llm:2"])] == [2]
    assert ["select_filters" in query for _, _, _, query in hosted.seen] == [True, False, False]


async def test_after_a_label_was_found_a_missing_label_means_gone(hosted):
    row = INSTANCE | {"id": 2, "label": "stoker:llm:2"}
    for rows in ([row], []):
        hosted.says({"success": True, "instances": rows, "next_token": None})
    assert [one.id for one in await hosted.market.labelled(["stoker:llm:2"])] == [2]
    assert await hosted.market.labelled(["stoker:llm:3"]) == []
    assert ["select_filters" in query for _, _, _, query in hosted.seen] == [True, True]


async def test_a_marketplace_that_ignores_labels_is_listed_whole(hosted):
    rows = [INSTANCE | {"id": number, "label": f"stoker:llm:{number}"} for number in (1, 2, 3)]
    everything = {"success": True, "instances": rows, "next_token": None}
    for _ in range(2):
        hosted.says(everything)
    for _ in range(2):
        assert [one.id for one in await hosted.market.labelled(["stoker:llm:2"])] == [2]
    assert ["select_filters" in query for _, _, _, query in hosted.seen] == [True, False]


async def test_an_instance_that_moves_between_two_pages_is_listed_once(hosted):
    hosted.says(
        {"instances": [INSTANCE], "next_token": "t"},
        {"instances": [INSTANCE | {"actual_status": "exited"}], "next_token": None},
    )
    (one,) = await hosted.market.list()
    assert one.actual_status == "exited"


async def test_a_template_is_found_by_its_hash(hosted):
    hosted.says({"success": True, "templates_found": 1, "templates": [TEMPLATE]})
    template = await hosted.market.template(hash_id=TEMPLATE["hash_id"])
    assert json.loads(hosted.seen[0][3]["select_filters"]) == {"hash_id": {"eq": TEMPLATE["hash_id"]}}
    assert (template.image, template.extra_filters) == ("vllm/vllm-openai", TEMPLATE["extra_filters"])


async def test_a_log_request_sends_its_tail_as_text(hosted):
    hosted.says({"error": "invalid_id", "msg": "Invalid instance id."}, status=404)
    with pytest.raises(MarketError):
        await hosted.market.logs(312, tail=50)
    assert hosted.seen[0][2] == {"tail": "50"}


def test_every_documented_shape_is_used_here():
    called = {("POST", "/api/v0/bundles/"), ("PUT", "/api/v0/asks/{id}/"), ("GET", "/api/v0/template/")}
    called |= {("GET", "/api/v1/instances/"), ("GET", "/api/v0/instances/{id}/")}
    called |= {("PUT", "/api/v0/instances/{id}/"), ("DELETE", "/api/v0/instances/{id}/")}
    called |= {
        ("PUT", f"/api/v0/instances/{verb}/{{id}}/") for verb in ("reboot", "update_template", "request_logs")
    }
    assert {(shape.method, shape.path) for shape in SHAPES} == called


# -- error bodies


def refused(code: str, said: str, **more: Any) -> dict[str, Any]:
    return {"success": False, "error": code, "msg": said, **more}


CREATE_ERRORS = [
    (400, refused("invalid_args", "error 400/3467: Invalid args: 'id' is required", ask_id=7), Refused),
    (400, refused("invalid_price", "error 400/3500: price under the minimum bid", ask_id=7), Refused),
    (400, refused("no_ssh_key_for_vm", "add a key first"), Refused),
    (401, refused("auth_error", "Invalid user key"), Unauthorised),
    (403, refused("invalid_args", "error 403/3586: Offer 7 is not your own.", ask_id=7), Refused),
    (
        404,
        refused(
            "invalid_args", "error 404/3603: no_such_ask Instance type by id 7 is not available.", ask_id=7
        ),
        OfferGone,
    ),
    (404, refused("no_such_ask", "no_such_ask Instance type by id 7 is not available."), OfferGone),
    (
        410,
        refused("no_such_ask", "error 410/3907: no_such_ask Instance type 7 is no longer available."),
        OfferGone,
    ),
    (429, {"detail": "API requests too frequent endpoint threshold=4.5"}, RateLimited),
    (500, "<html>Internal Server Error</html>", Unavailable),
    (502, "<html>Bad Gateway</html>", Unavailable),
]


@pytest.mark.parametrize(("status", "body", "error"), CREATE_ERRORS, ids=lambda value: str(value)[:40])
async def test_each_error_of_a_create_means(hosted, status, body, error):
    hosted.says(
        httpx.Response(status, json=body) if isinstance(body, dict) else httpx.Response(status, text=body)
    )
    with pytest.raises(error) as seen:
        await hosted.market.create(7, LAUNCH)
    assert type(seen.value) is error
    assert KEY not in str(seen.value)


async def test_a_404_of_a_create_for_another_reason_is_not_offer_gone(hosted):
    """A missing template is not OfferGone, because another offer does not help."""
    hosted.says(refused("invalid_args", "error 404/3610: template not found"), status=404)
    with pytest.raises(Refused):
        await hosted.market.create(7, LAUNCH)


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), (None, None), ("soon", None)], ids=["given", "absent", "unreadable"]
)
async def test_a_429_carries_its_retry_after(hosted, header, seconds):
    headers = {} if header is None else {"Retry-After": header}
    hosted.says({"detail": "API requests too frequent endpoint threshold=1.0"}, status=429, headers=headers)
    with pytest.raises(RateLimited) as seen:
        await hosted.market.start(312)
    assert seen.value.retry_after_s == seconds


async def test_a_429_in_the_other_shape_is_one_too(hosted):
    hosted.says(
        refused("rate_limit_exceeded", "API requests too frequent endpoint threshold=3.0"), status=429
    )
    with pytest.raises(RateLimited):
        await hosted.market.destroy(312)


async def test_a_bid_that_makes_a_stopped_instance_and_reports_an_error_leaves_nothing_behind(hosted):
    hosted.says(
        httpx.Response(400, json=refused("invalid_price", "bid too low, instance stopped", new_contract=9)),
        {"success": True},
    )
    with pytest.raises(Refused):
        await hosted.market.create(7, Launch(label="l", image="i", bid_dollars_per_hour=0.01))
    assert hosted.seen[1][:2] == ("DELETE", "/api/v0/instances/9/")


async def test_an_instance_that_is_null_is_gone(hosted):
    hosted.says({"instances": None})
    with pytest.raises(InstanceGone):
        await hosted.market.show(312)


async def test_destroying_a_missing_instance_succeeds(hosted):
    hosted.says(refused("not_found", "Instance not found"), status=404)
    await hosted.market.destroy(312)


async def test_starting_a_missing_instance_raises_instance_gone(hosted):
    hosted.says(refused("no_such_instance", "no such instance"), status=404)
    with pytest.raises(InstanceGone):
        await hosted.market.start(312)


async def test_a_start_without_credit_is_refused_for_good(hosted):
    hosted.says(refused("missing_billing", "add credit first"), status=400)
    with pytest.raises(Refused, match="missing_billing"):
        await hosted.market.start(312)


async def test_an_instance_stuck_in_scheduling_is_seen_as_not_running(hosted):
    """The client reports the state; the planner's start deadline decides about the instance."""
    stuck = {
        "actual_status": "exited",
        "cur_state": "stopped",
        "next_state": "running",
        "intended_status": "running",
    }
    hosted.says({"instances": INSTANCE | stuck | {"status_msg": "SCHEDULING"}})
    instance = await hosted.market.show(312)
    assert (instance.actual_status, instance.intended_status) == ("exited", "running")


@pytest.mark.parametrize(
    "status", [None, "loading", "running", "stopped", "frozen", "exited", "unknown", "offline"]
)
async def test_every_documented_status_can_be_read(hosted, status):
    hosted.says({"instances": INSTANCE | {"actual_status": status}})
    assert (await hosted.market.show(312)).actual_status == status
