"""Allowed addresses of workers, and routing from the memo after an engine start."""

import pytest

from engine.routing.worker import KnownWorker
from engine.settings import Timing
from stoker_wire.messages import Member
from stoker_wire.states import WorkerState

URL = "http://203.0.113.7:40001"


def listed(**more) -> KnownWorker:
    worker = KnownWorker("0123456789ab")
    given = {"l": "0123456789ab", "i": 7, "g": 1, "s": WorkerState.READY, "p": 50.0, "u": URL}
    worker.apply_member(Member(**(given | more)), now=100.0)
    return worker


def routable(worker: KnownWorker) -> bool:
    return worker.is_routable(101.0, Timing(), trust_memo=True)


@pytest.mark.parametrize(
    ("address", "url", "allowed"),
    [
        ("", URL, True),
        ("203.0.113.7:40001,40002", URL, True),
        ("203.0.113.7:40001,40002", "https://203.0.113.7:40002", True),
        ("203.0.113.7:40001,40002", "http://203.0.113.7:40003", False),
        ("203.0.113.7:40001", "http://203.0.113.8:40001", False),
        ("203.0.113.7:", "http://203.0.113.7:1", True),
        ("203.0.113.7:443", "https://203.0.113.7", True),
        ("203.0.113.7:443", "http://203.0.113.7", False),
        ("[2001:db8::1]:40001", "http://[2001:db8::1]:40001", True),
        ("[2001:db8::1]:40001", "http://[2001:db8::2]:40001", False),
        ("[2001:db8:0:0::1]:40001", "http://[2001:DB8::1]:40001", True),
        ("[2001:db8::1]:443", "https://[2001:db8::1]", True),
        ("box.example:40001", "http://BOX.example:40001", True),
        ("203.0.113.7:40001", "", True),
    ],
)
def test_a_url_must_match_the_address_of_the_marketplace(address, url, allowed):
    assert listed(a=address).listing.allows(url) is allowed


def test_a_worker_whose_memo_url_is_not_at_its_address_is_not_routable():
    assert routable(listed(a="203.0.113.7:40001"))
    assert not routable(listed(a="203.0.113.7:40002"))


def test_an_official_worker_is_routable_only_after_it_reported_its_signing_key():
    worker = listed(o=1)
    assert not routable(worker)
    worker.sealed_key = "the key in its path"
    assert routable(worker)
    assert routable(listed(o=0)), "stoker's own worker checks the ticket, which needs no key"


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",  # metadata service that hands out credentials
        "[fe80::1]",
        "[::ffff:169.254.169.254]",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "0.0.0.0",
        "[::]",
        "224.0.0.1",
        "255.255.255.255",
        "2852039166",  # 169.254.169.254 as one number
        "metadata.google.internal",
        "localhost",
        "a.name.that.points.anywhere",
    ],
)
async def test_an_unconfirmed_address_must_be_possible_for_a_worker(stage, host):
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await endpoint.script(groups=[1], members=[worker.member()])
    message = worker.status(url=f"http://{host}:80")
    status, problem = await stage.post("/worker_status/", message)
    assert (status, problem["error"]) == (400, "invalid_url")
    # An address that the marketplace lists is allowed.
    await endpoint.script(members=[worker.member(a="10.1.2.3:80")])
    assert (await stage.post("/worker_status/", message))[0] == 403
    assert (await stage.post("/worker_status/", worker.status(url="http://10.1.2.3:80")))[0] == 200


async def test_an_implausible_perf_attracts_only_the_traffic_of_the_confirmed_perf(stage):
    endpoint = await stage.endpoint()
    honest, rogue = endpoint.worker("aaaaaaaaaaaa", 101), endpoint.worker("bbbbbbbbbbbb", 102)
    await endpoint.script(groups=[1], members=[honest.member(p=100.0), rogue.member(p=300.0)])
    await honest.report()
    await rogue.report(max_perf=1e12)
    urls = [(await endpoint.route(cost=10))["url"] for _ in range(40)]
    assert 5 <= urls.count(honest.url) <= 15  # 100 of 400 load/s
