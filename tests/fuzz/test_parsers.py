"""Every parser of text from outside: it returns, or raises its documented error."""

import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from market.query import (
    GrammarError,
    matches,
    merge_filters,
    parse_env,
    parse_filters,
    parse_launch_args,
    parse_order,
    parse_search,
    query_of,
    sorted_by,
)
from market.query.docker_flags import published_ports
from run.commands.simulate import read_config
from run.errors import CommandError
from run.settings import load_settings
from simulation.trace import TraceFault, read_trace
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.security.ticket import Ticket, TicketRefused, sign_ticket, verify_ticket
from stoker_wire.security.token import endpoint_key_matches, mint_worker_token, read_worker_token
from tests.fuzz.size import examples
from tests.fuzz.values import Text, anything, dump

words = st.sampled_from(
    ["gpu_name", "num_gpus", "dph_total", "driver_version", "verified", "=", "!=", ">=", "<", " in ", "notin", "not", "[", "]", ",", '"', "'",
     "RTX_4090", "any", "?", "None", "true", "1", "-1", "1e999", "nan", "535.86.05", "--env", "-e", "A=b", "--disk", "--onstart-cmd", "--args",
     "--image", "--ssh", "--jupyter", "--create-volume", "--mount-path", "-p", "3000:3000", "-v", "-h", "--", "=", "\\", "{", "}", ":", "$(id)", " "]
)  # fmt: skip
phrases = st.lists(words | st.text(max_size=4), max_size=10).map("".join) | st.lists(words, max_size=10).map(
    " ".join
)


def _plain(value: Any) -> Any:
    """JSON values as a JSON reader gives them."""
    if isinstance(value, Text):
        return None
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


plain = anything.map(_plain)

OFFER = {"gpu_name": "RTX 4090", "num_gpus": 2, "dph_total": 0.3, "verified": True, "geolocation": None}


@examples(50)
@given(text=phrases)
@example("gpu_name in [" * 500)
@example("{" * 100_000)
@example('{"a":' * 100_000)
@example("num_gpus>=" + "9" * 5000)
def test_a_search_string_is_read_or_refused(text: str) -> None:
    try:
        filters = parse_search(text)
    except GrammarError as fault:
        assert len(str(fault)) < 1000
        return
    assert parse_filters(filters) == parse_filters(parse_filters(filters))
    assert merge_filters(filters, filters) == filters
    assert matches(filters, OFFER) in (True, False)


@examples(50)
@given(params=plain | phrases)
def test_search_params_of_any_shape_are_read_or_refused(params: Any) -> None:
    try:
        query = query_of(params)
    except GrammarError:
        return
    assert query.limit >= 1
    assert matches(query.filters, OFFER) in (True, False)
    assert sorted_by(query.order, [OFFER, {}, OFFER]) is not None
    json.dumps(query.filters)


@examples(30)
@given(order=plain | phrases)
def test_an_order_is_read_or_refused(order: Any) -> None:
    try:
        read = parse_order(order)
    except GrammarError:
        return
    assert all(direction in ("asc", "desc") for _, direction in read)
    assert parse_order([list(pair) for pair in read]) == read


@examples(50)
@given(text=phrases)
@example("--create-volume 1e300 --mount-path /a")
@example("--create-volume 0.5 --mount-path /a")
@example("--env '" + "-e A=b " * 2000 + "'")
def test_launch_args_are_read_or_refused(text: str) -> None:
    try:
        args = parse_launch_args(text)
    except GrammarError:
        return
    again = parse_launch_args(text)
    assert dataclasses.asdict(args) == dataclasses.asdict(again)
    json.dumps(dataclasses.asdict(args), allow_nan=False)


@examples(50)
@given(text=phrases)
def test_docker_flags_are_read_or_refused(text: str) -> None:
    try:
        env = parse_env(text)
    except GrammarError:
        return
    assert all(isinstance(name, str) and isinstance(value, str) for name, value in env.items())
    assert all(0 < port < 65536 for port, _ in published_ports(env))


@examples(30)
@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12),
        max_size=4,
    )
)
def test_an_environment_that_is_written_as_flags_is_read_back(env: dict[str, str]) -> None:
    import shlex

    assert parse_env(" ".join(f"-e {shlex.quote(f'{name}={value}')}" for name, value in env.items())) == env


YAMLS = (
    st.binary(max_size=60)
    | phrases.map(str.encode)
    | plain.map(lambda value: yaml.safe_dump(value).encode("utf-8", "surrogatepass"))
    | st.sampled_from(
        [b"\xff\xfe", b"[" * 5000, b"a: 2026-13-45", b"0b_", b"a: 0x_", b"? [a]\n: b", b"&a [*a]", b"!!python/object:os.system x", b"a: !!binary x",
         b"a: &x [*x, *x]", b"<<: 1", b"=: 1", b"\x00", b"max_workers: 1e999", b"max_workers: .nan", b"- a", b"a\tb: c", b"{a: b, a: c}", b"1:60:60: 3"]
    )
)  # fmt: skip


@examples(40)
@given(data=YAMLS)
def test_a_settings_file_is_read_or_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "temporal-dev.yaml"
    path.write_bytes(data)
    try:
        load_settings(path)
    except CommandError as fault:
        assert str(path) in str(fault)


def settings_fields() -> st.SearchStrategy[dict[str, Any]]:
    from run.settings import DeploymentSettings

    names = st.sampled_from(sorted(DeploymentSettings.model_fields))
    return st.dictionaries(names, plain | st.dictionaries(st.text(max_size=6), plain, max_size=2), max_size=3)


@examples(30)
@given(data=settings_fields())
def test_settings_of_wrong_types_are_refused_with_their_name(tmp_path: Path, data: dict[str, Any]) -> None:
    path = tmp_path / "temporal-dev.yaml"
    path.write_text(json.dumps(data))
    try:
        load_settings(path)
    except CommandError as fault:
        assert str(path) in str(fault)


@examples(40)
@given(data=YAMLS)
def test_a_config_file_is_read_or_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "endpoint.yaml"
    path.write_bytes(data)
    try:
        assert isinstance(read_config(path), EndpointConfig)
    except CommandError as fault:
        assert str(path) in str(fault)


cells = st.sampled_from(
    ["1", "0", "-1", "nan", "inf", "1e999", "", "x", "1_000", "٣", '"', "\0", "1e11", "5e-324"]
)
traces = (
    st.lists(st.lists(cells, max_size=4).map(",".join), max_size=6).map(
        lambda rows: "\n".join(["t_s,work", *rows]).encode()
    )
    | st.lists(st.lists(cells, max_size=4).map(",".join), max_size=6).map(
        lambda rows: "\r\n".join(["t_s,input_tokens,output_tokens", *rows]).encode()
    )
    | st.lists(anything.map(dump) | st.fixed_dictionaries({"at": anything, "cost": anything}).map(dump), max_size=4).map(
        b"\n".join
    )
    | st.binary(max_size=40)
    | st.sampled_from(
        [b"", b"\x1f\x8b", b"\x1f\x8b\x08\x00" + b"\0" * 20, gzip.compress(b"t_s,work\n1,2\n")[:-9], gzip.compress(b"t_s,work\n1,2\n") + b"x",
         b'{"at": -1' + b"0" * 400 + b', "cost": 1}', b"{" * 9000, b'{"at":' * 5000, b't_s,work\n"' + b"a" * 200_000, b"t_s,work\n1,2\n\x00,1\n", b'{"at": 1, "cost": 1' + b"0" * 5000 + b"}",
         gzip.compress(b"t_s,work\n1,2\n")[:14] + b"\xff" * 12]
    )
)  # fmt: skip


@examples(60)
@given(data=traces)
def test_a_trace_is_read_or_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(data)
    try:
        trace = read_trace(path)
    except TraceFault as fault:
        assert str(path) in str(fault)
        return
    assert len(trace) >= 1
    assert list(trace.times) == sorted(trace.times)
    assert 0 <= trace.mean_load < float("inf")


KEY, SECRET = b"k" * 32, b"s" * 32
texts = st.text(st.characters(exclude_categories=()), max_size=60)
ticket_texts = (
    texts
    | st.builds(lambda a, b: f"{a}.{b}", texts, texts)
    | st.binary(max_size=40).map(lambda b: b.decode("latin-1"))
)


@examples(50)
@given(text=ticket_texts)
def test_text_that_is_no_ticket_is_refused(text: str) -> None:
    with pytest.raises(TicketRefused):
        verify_ticket(text, KEY, worker="a", now=0.0)


amounts = st.floats(0, 1e300)
names = st.text(st.characters(codec="utf-8"), max_size=60)  # the console API refuses lone surrogates


@examples(40)
@given(
    said=st.builds(
        Ticket, e=names, w=names, c=amounts, r=st.integers(), n=st.integers(), x=amounts.map(lambda x: x + 1)
    )
)
def test_a_ticket_is_read_back_as_it_was_sealed(said: Ticket) -> None:
    read = verify_ticket(sign_ticket(said, KEY), KEY, worker=said.w, now=0.0)
    assert repr(read) == repr(said)


@examples(40)
@given(text=ticket_texts, endpoint=st.integers(1, 2**31))
def test_text_that_is_no_token_opens_nothing(text: str, endpoint: int) -> None:
    assert read_worker_token(SECRET, text) is None
    assert not endpoint_key_matches(SECRET, text, endpoint, 1)
    good = mint_worker_token(SECRET, endpoint, "0123456789ab")
    assert read_worker_token(SECRET, good) == (endpoint, "0123456789ab")
    assert read_worker_token(SECRET, good + text) is None or not text
