"""The host marketplace under calls of every kind, from its own document."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hosts import HostMarketSettings, MachineSettings, TemplateSettings, create_app
from tests.fuzz.calls import Server
from tests.fuzz.live import live, served
from tests.fuzz.size import examples

KEY = "test-key-0123456789"
SLEEPER = "exec sleep 1000"
# Commands are not drawn, because the marketplace runs them.
ONLY = {
    "onstart": [SLEEPER, "exit 3", None],
    "args": [None, ["sleep", "1000"], []],
    "args_str": [None, "sleep 1000"],
    # Without the faults that look like faults of the server: an answer 500, a lost answer.
    "fault": [
        "slow_pull",
        "load_failure",
        "offer_gone",
        "rate_limited",
        "outbid",
        "host_dies",
        "stuck_scheduling",
    ],
    "state": ["running", "stopped", None, "frozen"],
    "target_state": ["running", "stopped", None],
}


@contextlib.asynccontextmanager
async def market(folder: Path) -> AsyncIterator[str]:
    settings = HostMarketSettings(
        state_dir=folder,
        api_keys=(KEY,),
        machines=(
            MachineSettings(name="CPU small", count=4, dollars_per_hour=0.10, min_bid_dollars_per_hour=0.05),
            MachineSettings(name="CPU large", dollars_per_hour=0.30),
        ),
        templates=(TemplateSettings(name="sleeper", onstart=SLEEPER, hash_id="sleeper"),),
        stop_grace_seconds=0.5,
        cpu_limit="off",
    )
    async with served(create_app(settings, gpus=list)) as url:
        yield url


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A marketplace with two instances."""
    with live(lambda: market(tmp_path_factory.mktemp("market") / "state")) as (url, _):
        keyed = {"Authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=url, headers=keyed, trust_env=False, timeout=30) as client:
            document = client.get("/openapi.json").json()
            offers = [offer["id"] for offer in client.post("/api/v0/bundles/", json={}).json()["offers"]]
            rented = [
                client.put(f"/api/v0/asks/{offer}/", json={"onstart": SLEEPER, "label": "a"}).json()
                for offer in offers[:2]
            ]
            template = client.get("/api/v0/template/").json()["templates"][0]
        host, _, port = url.removeprefix("http://").partition(":")
        ids = [one["new_contract"] for one in rented]
        hints = {
            "id": [*ids, *offers], "ids": [ids, [*ids, 5]], "instance_ids": [[5], [ids[0]]], "limit": [1, 25],
            "template_id": [template["id"]], "template_hash_id": ["sleeper"], "hash_id": ["sleeper"],
            "type": ["bid", "on-demand", None], "path": ["/nowhere"], "method": ["FROB"],
            "select_filters": ['{"label": {"eq": "a"}}', '{"num_gpus": {"gte": NaN}}', '{"id": {"in": [1, "a"]}}'],
            "order_by": ['[{"col": "id", "dir": "desc"}]', '[["id"]]', '[{"col": {}, "dir": 3}]', '{"a": 1}'],
        }  # fmt: skip
        yield Server((host, int(port)), document, key=KEY, hints=hints, only=ONLY)


@examples(60, 3000)
@given(data=st.data())
def test_every_call_is_answered_as_documented(server: Server, data: st.DataObject) -> None:
    server.check(data.draw(server.calls(), label="call"))
    server.healthy()
