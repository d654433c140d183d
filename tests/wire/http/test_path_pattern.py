"""Patterns of paths, and the choice among several routes of a request."""

from dataclasses import dataclass

import pytest

from stoker_wire.http.path_pattern import PathPattern, RouteTable, is_ambiguous, overlap


@dataclass(frozen=True)
class Route:
    text: str
    methods: tuple[str, ...] = ("POST",)
    websocket: bool = False

    @property
    def pattern(self):
        return PathPattern(self.text)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/prompt", "/prompt"),
        ("/history/{id}", "/history/7c9e"),
        ("/history/{id}", "/history/a%20b"),
        ("/history/{id}", "/history/%C3%A9"),
        ("/history/{id}", "/history/..."),
        ("/history/{id}/image", "/history/1/image"),
        ("/files/{path:path}", "/files/a/b/c.png"),
        ("/files/{path:path}", "/files/a//b"),
        ("/files/{path:path}", "/files/a%2Fb"),
        ("/{path:path}", "/anything"),
    ],
)
def test_a_pattern_matches_a_path_as_it_was_sent(pattern, path):
    assert PathPattern(pattern).matches(path)


@pytest.mark.parametrize(
    "path",
    [
        "/history",
        "/history/",
        "/history/1/2",
        "/history/..",
        "/history/../admin",
        "/history/%2e%2e",
        "/history/%2E.",
        "/history/%252e%252e",
        "/history/..;x",
        "/history/..%2fadmin",
        "/history/a%2fb",
        "/history/a%5cb",
        "/history/a\\b",
        "/history/a%00",
        "/history/a%0d%0ab",
        "/history/%25252525252e",
    ],
)
def test_a_variable_of_one_segment_matches_no_other_path(path):
    assert not PathPattern("/history/{id}").matches(path)


@pytest.mark.parametrize(
    "path",
    [
        "/../admin", "/a/../../admin", "/a/%2e%2e/admin", "/a/..%2f..%2fadmin", "/a/%252e%252e/x", "/./x",
        "//evil.example/x", "/a/..\\admin", "/a/%5c..%5cadmin", "/a/..;/x",
    ],
)  # fmt: skip
def test_a_wildcard_matches_no_path_that_a_server_could_read_as_another(path):
    assert is_ambiguous(path)
    assert not PathPattern("/{path:path}").matches(path)


@pytest.mark.parametrize(
    "pattern", ["/{", "/a}", "/{}", "/{a}{b}", "/x{a}", "/{a:path}/b", "/{a}/{a}", "/{1a}", "/{a:int}"]
)
def test_an_invalid_pattern_is_refused_with_a_reason(pattern):
    with pytest.raises(ValueError, match="expected|variable|allowed"):
        PathPattern(pattern)


def test_the_most_specific_route_with_the_method_serves_the_request():
    table = RouteTable(
        [
            Route("/{path:path}", ("GET",)),
            Route("/history/{id}", ("GET",)),
            Route("/history/last", ("GET",)),
            Route("/prompt"),
            Route("/ws", websocket=True),
        ]
    )
    assert table.find("GET", "/history/last").text == "/history/last"
    assert table.find("GET", "/history/7").text == "/history/{id}"
    assert table.find("HEAD", "/history/7").text == "/history/{id}"
    assert table.find("GET", "/other/7").text == "/{path:path}"
    assert table.find("POST", "/prompt").text == "/prompt"
    assert table.find("GET", "/prompt").text == "/{path:path}"
    assert table.find("GET", "/ws", websocket=True).text == "/ws"
    assert table.find("GET", "/history/7", websocket=True) is None
    assert table.find("DELETE", "/prompt") is None
    assert table.allowed("/prompt") == ("GET", "POST", "HEAD")
    assert table.allowed("/../x") == ()


def test_routes_overlap_when_one_of_them_would_never_be_used():
    assert overlap(Route("/a/{x}"), Route("/a/{y}"))
    assert overlap(Route("/a", ("GET",)), Route("/a", ("HEAD",)))
    assert not overlap(Route("/a", ("GET",)), Route("/a", ("POST",)))
    assert not overlap(Route("/a", ("GET",)), Route("/a", websocket=True))
    assert not overlap(Route("/a/{x}"), Route("/a/{x:path}"))
