"""Detection of cross-origin requests."""

import pytest

from stoker_wire.security.cross_origin import cross_origin_problem, host_names, is_own_host, parse_host

NAMES = frozenset({"stoker.example.org"})
OWN = "127.0.0.1:8080"


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.0.0.1:8080", "[::1]", "[::1]:8080", "10.1.2.3:80", "[fe80::1]", "localhost:8080"),
        *(
            "LOCALHOST",
            "engine",
            "engine:8080",
            "a.localhost:1",
            "stoker.example.org",
            "Stoker.Example.ORG:443",
        ),
        "stoker.example.org.",
    ],
)
def test_addresses_and_configured_names_are_own_hosts(host):
    assert is_own_host(host, NAMES)
    assert cross_origin_problem("POST", host, None, None, names=NAMES) is None


@pytest.mark.parametrize(
    "host",
    [
        *("attacker.example", "attacker.example:8080", "127.0.0.1.attacker.example", "127.0.0.1.nip.io:80"),
        *("stoker.example.org.attacker.example", "xstoker.example.org", "localhost.attacker.example"),
        *(
            "localhost@attacker.example",
            "127.0.0.1:8080@attacker.example",
            "attacker.example.",
            "127.0.0.1:x",
        ),
        *(
            "127.0.0.1/attacker.example",
            "attacker.example#127.0.0.1",
            "attacker.example?127.0.0.1",
            "[::1",
            "a:",
        ),
        *(
            "attacker.example,127.0.0.1",
            "127.0.0.1 attacker.example",
            "0x7f.1",
            "127.1",
            "2130706433.attacker.example",
        ),
    ],
)
def test_other_names_are_refused_for_every_method(host):
    for method in ("GET", "POST", "OPTIONS"):
        refused = cross_origin_problem(method, host, None, None, names=NAMES)
        assert refused is not None
        assert (refused.status, refused.code) == (421, "host_not_allowed")


@pytest.mark.parametrize(
    "origin",
    [
        *(
            "http://attacker.example",
            "null",
            "",
            "http://127.0.0.1",
            "http://127.0.0.1:8081",
            "http://localhost:8080",
        ),
        *("file://", "http://127.0.0.1:8080.attacker.example", "chrome-extension://127.0.0.1:8080"),
    ],
)
def test_a_page_of_another_origin_is_refused_for_every_method(origin):
    for method in ("GET", "POST", "PUT"):
        refused = cross_origin_problem(method, OWN, origin, None)
        assert refused is not None
        assert (refused.status, refused.code) == (403, "cross_origin")


def test_a_page_of_the_same_origin_is_served():
    assert cross_origin_problem("POST", OWN, f"http://{OWN}", "same-origin") is None
    assert (
        cross_origin_problem(
            "POST", "stoker.example.org", "https://stoker.example.org", "same-origin", names=NAMES
        )
        is None
    )
    assert cross_origin_problem("POST", "LocalHost:1", "http://localhost:1", None) is None


@pytest.mark.parametrize("site", ["cross-site", "same-site", "anything"])
def test_another_site_may_link_here_but_change_nothing(site):
    assert cross_origin_problem("GET", OWN, None, site) is None
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        refused = cross_origin_problem(method, OWN, None, site)
        assert refused is not None
        assert refused.code == "cross_origin"


def test_a_program_sends_neither_field_and_is_served():
    for method in ("GET", "POST", "PUT", "DELETE"):
        assert cross_origin_problem(method, OWN, None, None) is None
    assert cross_origin_problem("GET", "", None, None) is None


def test_names_come_from_urls_and_hosts():
    assert host_names("https://A.example:8/x/y", "b.example", "c.example:5", "", "http://[::1]:2", "::") == {
        *("a.example", "b.example", "c.example", "::1"),
    }
    assert parse_host("[::1]:8080") == "::1"
    assert parse_host("user@a.example") is None
