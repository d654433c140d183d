"""Where a worker may be, and whom an engine that has just started may route to."""

import pytest

from engine.settings import Timing
from engine.workers import KnownWorker
from stoker_wire.states import WorkerState
from workflows.messages import Member

URL = "http://203.0.113.7:40001"


def listed(**more) -> KnownWorker:
    worker = KnownWorker("0123456789ab")
    given = {"l": "0123456789ab", "i": 7, "g": 1, "s": WorkerState.READY, "p": 50.0, "u": URL}
    worker.list_as(Member(**(given | more)), now=100.0)
    return worker


def routable(worker: KnownWorker) -> bool:
    return worker.routable(101.0, Timing(), trust_memo=True)


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
        ("box.example:40001", "http://BOX.example:40001", True),
        ("203.0.113.7:40001", "", True),
    ],
)
def test_a_url_is_held_to_the_marketplaces_word(address, url, allowed):
    assert listed(a=address).may_be_at(url) is allowed


def test_a_worker_whose_remembered_url_is_not_at_its_address_is_not_routed_to():
    assert routable(listed(a="203.0.113.7:40001"))
    assert not routable(listed(a="203.0.113.7:40002"))


def test_an_official_worker_is_routed_to_only_after_its_signing_key_was_heard():
    worker = listed(o=1)
    assert not routable(worker)
    worker.sealed = "the key in its path"
    assert routable(worker)
    assert routable(listed(o=0)), "stoker's own worker checks the ticket, which needs no key"
