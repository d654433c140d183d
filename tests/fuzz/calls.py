"""Calls of every operation of an OpenAPI document, sent as bytes, and the checks of every answer."""

import http.client
import json
import socket
import urllib.parse
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tests.fuzz.values import Schemas, bodies

METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "FROB"]
PROBLEM_FIELDS = {"success", "error", "msg", "error_msg"}
SECONDS_MAX = 30.0


@dataclass(frozen=True)
class Call:
    """One request, and the operation that it is meant for."""

    operation: tuple[str, str]
    """Method and path of the document."""
    method: str
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    chunked: bool
    keyed: bool
    """It has a valid key."""

    def __repr__(self) -> str:
        return f"Call.of({self.wire()!r})"

    def wire(self) -> bytes:
        """The bytes: `printf` them into `nc` to see the failure again."""
        lines = [b"%s %s HTTP/1.1" % (self.method.encode(), self.target), b"Host: fuzz", b"Connection: close"]
        lines += [name + b": " + value for name, value in self.headers]
        if self.chunked:
            cut = len(self.body) // 2
            parts = [part for part in (self.body[:cut], self.body[cut:]) if part]
            sent = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
            lines.append(b"Transfer-Encoding: chunked")
        else:
            sent = self.body
            if sent or self.method not in {"GET", "HEAD", "TRACE"}:
                lines.append(b"Content-Length: %d" % len(sent))
        return b"\r\n".join([*lines, b"", b""]) + sent


@dataclass(frozen=True)
class Answer:
    """The answer."""

    status: int
    content_type: str
    headers: dict[str, str]
    body: bytes


def send(address: tuple[str, int], call: Call) -> Answer:
    """The answer to the call, on a connection of its own."""
    with socket.create_connection(address, SECONDS_MAX) as connection:
        connection.settimeout(SECONDS_MAX)
        connection.sendall(call.wire())
        reply = http.client.HTTPResponse(connection, method=call.method)
        reply.begin()
        body = reply.read()
        headers = {name.lower(): value for name, value in reply.getheaders()}
        return Answer(reply.status, headers.get("content-type", "").partition(";")[0], headers, body)


class Server:
    """A running server, by its document."""

    def __init__(
        self,
        address: tuple[str, int],
        document: dict[str, Any],
        *,
        key: str,
        hints: dict[str, list[Any]],
        only: dict[str, list[Any]] | None = None,
    ) -> None:
        self.address = address
        self.document = document
        self.key = key
        self.hints = hints
        self.operations = {
            (method.upper(), path): operation
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        }
        self._schemas = Schemas(document, hints, only)
        self._validators: dict[tuple[str, str, int], Draft202012Validator] = {}

    def calls(self, only: tuple[str, str] | None = None) -> st.SearchStrategy[Call]:
        """Calls of every operation, or of one."""
        if only is not None:
            return self._calls_of(only)
        return st.sampled_from(sorted(self.operations)).flatmap(self._calls_of)

    def _calls_of(self, key: tuple[str, str]) -> st.SearchStrategy[Call]:
        method, path = key
        operation = self.operations[key]
        content = operation.get("requestBody", {}).get("content", {})
        schema = content.get("application/json", {}).get("schema")
        return st.builds(
            self._call,
            st.just(key),
            st.sampled_from([method] * 8 * len(METHODS) + METHODS),
            self._targets(path, operation),
            st.sampled_from(["good"] * 12 + ["query", "none", "wrong", "odd"]),
            st.sampled_from([[]] * len(ODD_HEADERS) + [[one] for one in ODD_HEADERS]),
            bodies(self._schemas, schema),
            st.sampled_from([False, False, False, True]),
        )

    def _targets(self, path: str, operation: dict[str, Any]) -> st.SearchStrategy[bytes]:
        pieces: dict[str, st.SearchStrategy[str]] = {}
        queries: list[st.SearchStrategy[tuple[str, str]]] = []
        for parameter in operation.get("parameters", []):
            name = parameter["name"]
            values = self._schemas.field(name, parameter["schema"], 0).map(_quoted) | ODD_PIECES
            if parameter["in"] == "path":
                hints = self.hints.get(name)
                pieces[name] = st.sampled_from(hints).map(_quoted) | values if hints else values
            elif parameter["in"] == "query":
                queries.append(st.tuples(st.just(name), values))
        queries.append(
            st.tuples(st.sampled_from(["x", "api_key", "limit", "select_filters", ""]), ODD_PIECES)
        )
        query = st.lists(st.one_of(queries), max_size=3)

        def target(found: dict[str, str], asked: list[tuple[str, str]]) -> bytes:
            made = path
            for name, value in found.items():
                made = made.replace("{" + name + "}", value)
            if asked:
                made += "?" + "&".join(f"{name}={value}" for name, value in asked)
            return made.encode("ascii")

        return st.builds(target, st.fixed_dictionaries(pieces), query)

    def _call(
        self,
        key: tuple[str, str],
        method: str,
        target: bytes,
        access: str,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        chunked: bool,
    ) -> Call:
        if access == "good":
            headers = [(b"Authorization", b"Bearer " + self.key.encode()), *headers]
        elif access == "query":
            target += (b"&" if b"?" in target else b"?") + b"api_key=" + self.key.encode()
        elif access == "wrong":
            headers = [(b"Authorization", b"Bearer " + self.key.encode()[:-1] + b"x"), *headers]
        elif access == "odd":
            headers = [(b"Authorization", b"Bearer \xed\xa0\x80\xff\xe9"), *headers]
        keyed = access in {"good", "query"} or self.key.encode() in body
        if not any(name == b"Content-Type" for name, _ in headers):
            headers = [*headers, (b"Content-Type", b"application/json")]
        return Call(key, method, target, tuple(headers), body, chunked, keyed)

    def healthy(self) -> None:
        """Checks that the server still answers correctly."""
        answer = send(self.address, Call(("GET", "/healthz"), "GET", b"/healthz", (), b"", False, False))
        assert answer.status == 200, answer

    def check(self, call: Call) -> Answer:
        """Sends the call, and checks the answer against the document."""
        answer = send(self.address, call)
        said = f"{answer} to {call.wire()!r}"
        assert b"Traceback" not in answer.body, said
        assert answer.status != 500, said
        documented = self.operations[call.operation]["responses"]
        if call.method != call.operation[0]:
            self._check_other_method(call, answer, said)
            return answer
        if "default" in documented and _of_model(answer):
            return answer  # the model's
        aside = {"400", "404"} if b"?" in call.target or b"%" in call.target else set()
        if any(name == b"Origin" for name, _ in call.headers):
            aside |= {"403"}  # the call of a web page, which the document is not about
        assert str(answer.status) in documented or str(answer.status) in aside, f"not documented: {said}"
        if 400 <= answer.status < 500:
            check_problem(answer, said)
        if self.operations[call.operation]["security"] and not call.keyed:
            assert answer.status >= 400, f"let in without a key: {said}"
        if str(answer.status) in documented:
            self._check_body(call, answer, documented[str(answer.status)], said)
        return answer

    def _check_other_method(self, call: Call, answer: Answer, said: str) -> None:
        """Another method than the call's own: another operation of this path, or refused."""
        assert answer.status < 500 or answer.status == 503, said
        if call.method == "HEAD":
            assert answer.body == b"", said
        elif answer.status >= 400:
            check_problem(answer, said)

    def _check_body(self, call: Call, answer: Answer, documented: dict[str, Any], said: str) -> None:
        content = documented.get("content")
        if not content or "*/*" in content:
            return
        assert answer.content_type in content, f"another content type: {said}"
        schema = content[answer.content_type].get("schema")
        if schema is None:
            return
        key = (*call.operation, answer.status)
        if key not in self._validators:
            self._validators[key] = Draft202012Validator(
                {**schema, "components": self.document["components"]}
            )
        faults = list(self._validators[key].iter_errors(json.loads(answer.body, parse_constant=_no_constant)))
        assert not faults, f"{faults[0].message} at {list(faults[0].absolute_path)}: {said}"


def _of_model(answer: Answer) -> bool:
    """Whether the model answered: only its answers carry a time, or name their server."""
    return not {"server-timing", "x-model", "server"}.isdisjoint(answer.headers) or answer.status == 200


def check_problem(answer: Answer, said: str) -> None:
    """Checks that a refusal is a problem with these fields and a sentence."""
    assert answer.content_type == "application/json", said
    body = json.loads(answer.body, parse_constant=_no_constant)
    if body.keys() == {"error"}:  # under /openai/
        assert body["error"].keys() == {"message", "type", "code", "param"}, said
        assert len(body["error"]["message"]) > 3, said
        return
    assert body.keys() == PROBLEM_FIELDS, said
    assert body["success"] is False, said
    assert isinstance(body["error"], str), said
    assert body["error"], said
    assert body["msg"] == body["error_msg"], said
    assert len(body["msg"]) > 3, said


def _no_constant(name: str) -> Any:
    raise AssertionError(f"the answer holds {name}, which is not JSON")


def _quoted(value: Any) -> str:
    return urllib.parse.quote(str(value).encode("utf-8", "surrogatepass"), safe="")


ODD_PIECES = st.sampled_from(
    ["0", "1", "-1", "999999999999999", "99999999999999999999", "000000" + "9" * 20, "000001" + "9" * 20, "1" * 5000, "%00", "%FF", "%ED%A0%80", "%", "%2F", "..", "%2e%2e",
     "%D9%A3", "%C2%B2", "1e3", "NaN", "null", "true", "[]", "%7B%7D", "%7B%22a%22%3A%22b%22%7D", "%5B%5B%5D%5D", "a" * 300, "+", "'", "%0d%0a"]
)  # fmt: skip

ODD_HEADERS = [
    (b"Content-Type", b"text/plain"), (b"Content-Type", b"application/json; charset=utf-16"), (b"Content-Type", b"multipart/form-data"),
    (b"Content-Type", b"\xff"), (b"Content-Type", b""), (b"Content-Encoding", b"gzip"), (b"Content-Encoding", b"br"),
    (b"Content-Encoding", b"deflate, gzip"), (b"Accept", b"application/xml"), (b"Accept-Encoding", b"br;q=NaN"),
    (b"Expect", b"100-continue"), (b"Range", b"bytes=5-1"), (b"If-None-Match", b"*"), (b"Cookie", b"a=\xff; b"),
    (b"Authorization", b"Basic Og=="), (b"Authorization", b"Bearer"), (b"Authorization", b"\xe9"), (b"X-Stoker-Cost", b"NaN"),
    (b"X-Stoker-Cost", b"1e999"), (b"X-Stoker-Cost", b"\xff"), (b"X-Stoker-Auth", b"{"), (b"X-Stoker-Auth", b'{"ticket": 1e999}'),
    (b"X-Stoker-Auth", b"\xff.\xe9"), (b"X-Stoker-Auth", b"a.b"), (b"X-Stoker-Session", b"\xff"), (b"X-Forwarded-For", b"' --"),
    (b"X-HTTP-Method-Override", b"DELETE"), (b"X", b"a" * 7000), (b"Origin", b"null"),
]  # fmt: skip
