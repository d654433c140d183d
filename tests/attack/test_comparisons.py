"""Secrets are compared in constant time. The test reads the source code, so it also finds new comparisons."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("wire", "sdk", "pyworker", "market", "activities", "workflows", "engine", "dashboard", "run")

SECRET_WORDS = {
    "token",
    "mtoken",
    "secret",
    "password",
    "signature",
    "mac",
    "digest",
    "ticket",
    "bearer",
    "hmac",
    "api_key",
    "apikey",
    "master_token",
    "account_key",
    "market_key",
    "session_auth",
    "key",
    "presented",
}
HARMLESS = {
    # sdk: the client compares a refused key with its own key, to decide whether to fetch a new one
    ("sdk/stoker/endpoint.py", "refused"),
    # wire: the launch id in a ticket whose signature is valid
    ("wire/stoker_wire/security/ticket.py", "worker"),
    # engine: the name of a query parameter
    ("engine/proxy/headers.py", "_KEY_PARAMETER"),
    # named keys: names, days and limits; digests of keys that the deployment itself stored
    ("wire/stoker_wire/security/client_key.py", "'create')"),
    ("workflows/message_validation.py", "read.digest"),
    ("engine/console/keys.py", "digest"),
    ("engine/console/keys.py", "value"),
    ("engine/routing/client_keys.py", "self._day"),
    ("engine/routing/client_keys.py", "name"),
    # public keys
    ("engine/tls/certificate_authority.py", "self._key.public_key()"),
    ("run/doctor/engine_checks.py", "shown[0]"),
    # keys of mappings
    ("sdk/stoker/up/progress.py", "text"),
    ("wire/stoker_wire/endpoint.py", "dropped"),
    ("run/yaml_files.py", "_MERGE"),
    ("workflows/sweep/sweep.py", "foreign"),
    ("controller/previous_run.py", "first"),
    ("controller/effects.py", "LIST"),
}


def words_of(node: ast.expr) -> set[str]:
    """The words in the names of an operand."""
    found: set[str] = set()
    for part in ast.walk(node):
        name = part.id if isinstance(part, ast.Name) else part.attr if isinstance(part, ast.Attribute) else ""
        if name:
            bare = name.strip("_").lower()
            found |= {bare, *bare.split("_")}
    return found


def is_plain(node: ast.expr) -> bool:
    """Whether the operand is a constant, a length or a type; comparing with it reveals nothing about a secret."""
    return isinstance(node, ast.Constant) or (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"len", "type"}
    )


def comparisons(source: str) -> Iterator[tuple[int, str]]:
    """Every comparison of a secret with == or !=."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Compare):
            continue
        operands = [node.left, *node.comparators]
        if not any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops) or any(map(is_plain, operands)):
            continue
        if any(words_of(operand) & SECRET_WORDS for operand in operands):
            yield node.lineno, ast.unparse(node)


def sources() -> list[Path]:
    return [
        path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")) if ".venv" not in path.parts
    ]


def test_no_secret_is_compared_with_an_operator_that_stops_at_the_first_difference():
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in sources()
        for line, text in comparisons(path.read_text())
        if (str(path.relative_to(ROOT)), text.split()[-1]) not in HARMLESS
    ]
    assert found == [], "compare secrets with hmac.compare_digest (engine.api.keys.same_key)"


@pytest.mark.parametrize(
    ("source", "seen"),
    [
        ("if token == given: pass", True),
        ("if self._token != request.token: pass", True),
        ("ok = known.encode() == sent.mtoken.encode()", True),
        ("ok = mac(a) == digest", True),
        ("return known == presented_key.encode()", True),
        ("if token == '': pass", False),
        ("if len(token) != 3: pass", False),
        ("ok = hmac.compare_digest(token, given)", False),
        ("if place == worker: pass", False),
    ],
)
def test_comparisons_of_secrets_are_recognised(source, seen):
    assert bool(list(comparisons(source))) is seen


def test_it_reads_every_room():
    assert {path.relative_to(ROOT).parts[0] for path in sources()} == set(ROOMS)
    assert len(sources()) > 150
