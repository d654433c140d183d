"""Interruptible machines: a bid under the price cap, an outbid, and the replacement."""

from typing import Any

import stoker
from market.ownership import owner_of
from tests.vast.stage.deployment import Deployment, until

CAP = 0.05
"""Dollars per hour: an on-demand machine costs twice as much, a bid of 0.03 fits once."""


async def test_an_outbid_worker_is_seen_and_made_good_and_the_price_cap_holds(deployment: Deployment) -> None:
    number = deployment.create(
        "bids",
        "ours",
        search={"type": "bid", "num_gpus": {"eq": 1}},
        dollars_per_hour_max=CAP,
        max_workers=3,
        cold_workers=1,
    )
    first = deployment.ready(number)[0]
    assert _mine(deployment) == [(first["id"], True)]
    fault = {"fault": "outbid", "instance_id": first["id"]}
    headers = {"Authorization": f"Bearer {deployment.market_key}"}
    answer = deployment.http.post(f"{deployment.market}/host/faults/", json=fault, headers=headers)
    assert answer.status_code == 200, answer.text
    until(lambda: _status(deployment, first["id"]) != "running", seconds_max=20, what="it is outbid")
    async with stoker.Serverless(deployment.key, url=deployment.engine) as client:
        endpoint = await client.get_endpoint("bids")
        served = await endpoint.request("/json", {"tokens": 1}, cost=1, timeout=90)
    assert served.status == 200
    prices = [
        row["dph_total"] for row in deployment.instances() if _ours(row) and row["actual_status"] == "running"
    ]
    assert sum(prices) <= CAP
    assert all(bid for _, bid in _mine(deployment))
    deployment.api("DELETE", f"/api/v0/endptjobs/{number}/")


def _ours(row: dict[str, Any]) -> bool:
    owner = owner_of(row["label"])
    return owner is not None and owner.endpoint == "bids"


def _mine(deployment: Deployment) -> list[tuple[int, bool]]:
    return [(row["id"], row["is_bid"]) for row in deployment.instances() if _ours(row)]


def _status(deployment: Deployment, number: int) -> str:
    row = deployment.instance(number)
    return str(row["actual_status"]) if row else "gone"
