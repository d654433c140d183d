"""JSON that fits a schema, JSON that almost fits, and arbitrary bytes."""

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

DEEP = 3


@dataclass(frozen=True)
class Text:
    """Raw JSON text without a Python value."""

    text: bytes


STRANGE = [
    Text(b"NaN"), Text(b"Infinity"), Text(b"-Infinity"), Text(b"1e999"), Text(b"-1e999"), Text(b"1e-999"),
    Text(b"1" * 5000), Text(b"-" + b"9" * 400), Text(b"0" * 30), Text(b"01"), Text(b"1."), Text(b"--1"),
    Text(b"[" * 3000 + b"]" * 3000), Text(b'{"a":' * 1500 + b"1" + b"}" * 1500),
    Text(b'{"id":1,"id":2,"id":"3"}'), Text(b'"\\ud800"'), Text(b'"\\udfff\\ud800"'), Text(b'"\xed\xa0\x80"'),
    Text(b'"\xff\xfe"'), Text(b'"\\u0000"'), Text(b'"\x00"'), Text(b'"\\x"'), Text(b"'a'"), Text(b""),
    Text(b"True"), Text(b"undefined"), Text(b"/* */1"),
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**30, 0.1, -0.0, 1e308, 5e-324,
    "", " ", "0", "1", "-1", "NaN", "\x00", "a\x00b", "a\nb", "\u202e", "\U0010ffff", "é" * 300, "a" * 20_000,
    "../../etc/passwd", "$(id)", "'; --", "%s%n", "{0}", [], {}, [[]], [None], {"": None}, {"$ref": "#"},
    {"__proto__": 1}, {"eq": {"eq": {}}}, ["a"] * 300,
]  # fmt: skip

strange = st.sampled_from(STRANGE)

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | strange,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)


def dump(value: Any) -> bytes:
    """Encodes the value as JSON or raw text."""
    if isinstance(value, Text):
        return value.text
    if value is None:
        return b"null"
    if value is True or value is False:
        return b"true" if value else b"false"
    if isinstance(value, float):
        return repr(value).replace("inf", "Infinity").replace("nan", "NaN").encode()
    if isinstance(value, int):
        return str(value).encode()
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return b"{" + b",".join(_text(str(k)) + b":" + dump(v) for k, v in value.items()) + b"}"
    return b"[" + b",".join(dump(item) for item in value) + b"]"


def _text(value: str) -> bytes:
    made = []
    for char in value:
        code = ord(char)
        if char in '"\\':
            made.append(b"\\" + char.encode())
        elif code < 0x20 or 0xD800 <= code < 0xE000:
            made.append(b"\\u%04x" % code)
        else:
            made.append(char.encode())
    return b'"' + b"".join(made) + b'"'


class Schemas:
    """Strategies for the schemas of one OpenAPI document, made when they are needed."""

    def __init__(
        self,
        document: dict[str, Any],
        hints: dict[str, list[Any]] | None = None,
        only: dict[str, list[Any]] | None = None,
    ) -> None:
        self._known = document["components"]["schemas"]
        self._hints = hints or {}
        """Values of this deployment by field name: ids and names that exist, tokens that are good."""
        self._only = only or {}
        """Fields that take only these values, because they are commands."""

    def fitting(self, schema: dict[str, Any], depth: int = 0) -> st.SearchStrategy[Any]:
        """Values that the schema allows."""
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            return st.deferred(lambda: self.fitting(self._known[name], depth))
        if "const" in schema:
            return st.just(schema["const"])
        if "enum" in schema:
            return st.sampled_from(schema["enum"])
        for several in ("anyOf", "oneOf"):
            if several in schema:
                return st.one_of([self.fitting(one, depth) for one in schema[several]])
        kind = schema.get("type")
        made = getattr(self, f"_{kind}", None)
        return anything if made is None else made(schema, depth)

    def almost(self, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
        """Values that break the schema in one or two places."""
        return st.builds(
            _spoiled, self.fitting(schema), st.lists(st.tuples(st.integers(0, 60), strange), max_size=2)
        )

    def field(self, name: str, schema: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
        """Values of a named field, often one that exists in this deployment."""
        if name in self._only:
            return st.sampled_from(self._only[name])
        plain = self.fitting(schema, depth)
        hints = self._hints.get(name)
        return st.sampled_from(hints) | plain if hints else plain

    def _null(self, schema: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
        return st.none()

    def _boolean(self, schema: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
        return st.booleans()

    def _integer(self, schema: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
        low, high = schema.get("minimum"), schema.get("maximum")
        if "exclusiveMaximum" in schema:
            high = schema["exclusiveMaximum"] - 1
        return st.integers(low, high) | st.integers(max(low or 0, 0), min(100, high or 100))

    def _number(self, schema: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
        low, high = schema.get("minimum"), schema.get("maximum")
        above = "exclusiveMinimum" in schema
        if above:
            low = schema["exclusiveMinimum"]
        floats = st.floats(low, high, allow_nan=False, allow_infinity=False, exclude_min=above)
        return floats | st.sampled_from([1, 1.0, 0.5]) if high is None or high >= 1 else floats

    def _string(self, schema: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
        if "pattern" in schema:
            return st.from_regex(schema["pattern"], fullmatch=True).filter(
                lambda text: len(text) <= schema.get("maxLength", 10**6)
            )
        return st.text(min_size=schema.get("minLength", 0), max_size=min(schema.get("maxLength", 30), 30))

    def _array(self, schema: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
        if depth > DEEP:
            return st.just([])
        return st.lists(self.fitting(schema.get("items", {}), depth + 1), max_size=3)

    def _object(self, schema: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
        properties = schema.get("properties", {})
        if not properties:
            return (
                st.dictionaries(st.text(max_size=8), anything, max_size=3) if depth <= DEEP else st.just({})
            )
        needed = schema.get("required", [])
        fields = {name: self.field(name, about, depth + 1) for name, about in properties.items()}
        return st.fixed_dictionaries(
            {name: fields[name] for name in needed if name in fields},
            optional={name: made for name, made in fields.items() if name not in needed},
        )


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        for key, inner in value.items():
            found += _places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found += _places(inner, (*path, index))
    return found


def _spoiled(value: Any, changes: list[tuple[int, Any]]) -> Any:
    for number, new in changes:
        places = _places(value)
        value = _put(value, places[number % len(places)], new)
    return value


def _put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = _put(value[path[0]], path[1:], new)
    return copied


def bodies(schemas: Schemas, schema: dict[str, Any] | None) -> st.SearchStrategy[bytes]:
    """Bodies for a call: fitting, almost fitting, any JSON, and any bytes."""
    rubbish = st.sampled_from(
        [b"", b" ", b"{", b"}", b"[]", b"null", b"\xef\xbb\xbf{}", b"{}{}", b"\x00", b"\x1f\x8b\x08", b"a=b", b'{"a"}', b"\xff" * 64]
    )  # fmt: skip
    other = st.builds(dump, anything) | rubbish | st.binary(max_size=64)
    if schema is None:
        return st.just(b"") | st.just(b"") | other
    fitting = st.builds(dump, schemas.fitting(schema))
    almost = st.builds(dump, schemas.almost(schema))
    cut = st.builds(lambda text, at: text[: at % (len(text) + 1)], fitting, st.integers(0, 500))
    return st.one_of(fitting, fitting, almost, almost, other, cut)
