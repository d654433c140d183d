"""The grammars of search and order strings."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market.query import (
    GrammarError,
    matches,
    merge_filters,
    parse_filters,
    parse_order,
    parse_search,
    query_of,
    sorted_by,
)


@pytest.mark.parametrize(
    ("text", "filters"),
    [
        ("", {}),
        ("  ", {}),
        ("gpu_name=RTX_4090", {"gpu_name": {"eq": "RTX 4090"}}),
        ('gpu_name="RTX 4090"', {"gpu_name": {"eq": "RTX 4090"}}),
        ("num_gpus=2", {"num_gpus": {"eq": "2"}}),
        ("num_gpus >= 2 num_gpus<8", {"num_gpus": {"gte": "2", "lt": "8"}}),
        ("num_gpus==1 rentable!=false", {"num_gpus": {"eq": "1"}, "rentable": {"neq": False}}),
        ("verified=True external=None", {"verified": {"eq": True}, "external": {"eq": None}}),
        ("gpu_ram>=24", {"gpu_ram": {"gte": 24_000.0}}),
        ("cpu_ram > 0.5", {"cpu_ram": {"gt": 500.0}}),
        ("duration>3", {"duration": {"gt": 259_200.0}}),
        ("driver_version >= 535.86.05", {"driver_version": {"gte": 535_086_005}}),
        ("cuda_vers>=12.1", {"cuda_max_good": {"gte": "12.1"}}),
        ("dph<0.6", {"dph_total": {"lt": "0.6"}}),
        ("gpu_name in [RTX_3090, RTX_4090]", {"gpu_name": {"in": ["RTX 3090", "RTX 4090"]}}),
        ("gpu_name in RTX_3090,RTX_4090", {"gpu_name": {"in": ["RTX 3090", "RTX 4090"]}}),
        ("geolocation notin [CN,VN]", {"geolocation": {"notin": ["CN", "VN"]}}),
        ("geolocation not in [CN]", {"geolocation": {"notin": ["CN"]}}),
        ("geolocation nin [CN]", {"geolocation": {"notin": ["CN"]}}),
        ("gpu_ram in [24,48]", {"gpu_ram": {"in": [24_000.0, 48_000.0]}}),
        ("num_gpus gte 2 num_gpus lt 4", {"num_gpus": {"gte": "2", "lt": "4"}}),
        ("gpu_name not eq X gpu_arch noteq Y", {"gpu_name": {"neq": "X"}, "gpu_arch": {"neq": "Y"}}),
        ("geolocation=Sweden,_SE", {"geolocation": {"eq": "Sweden, SE"}}),
        ('geolocation="Sweden, SE"', {"geolocation": {"eq": "Sweden, SE"}}),
        ('gpu_name="X,num_gpus=1"', {"gpu_name": {"eq": "X,num gpus=1"}}),
        ("mobo_name=AT&T", {"mobo_name": {"eq": "AT&T"}}),
        ('gpu_name in ["RTX 3090", RTX_4090]', {"gpu_name": {"in": ["RTX 3090", "RTX 4090"]}}),
        ("reliability > 0.98\n\tinet_up>100", {"reliability": {"gt": "0.98"}, "inet_up": {"gt": "100"}}),
    ],
)
def test_a_search_string_becomes_filters(text, filters):
    assert parse_search(text) == filters


@pytest.mark.parametrize("wildcard", ["any", "?", "*"])
def test_a_wildcard_removes_a_field_and_its_default(wildcard):
    defaults = {"verified": {"eq": True}, "rentable": {"eq": True}}
    assert parse_search(f"verified={wildcard}", defaults=defaults) == {"rentable": {"eq": True}}


def test_a_given_field_replaces_its_default():
    assert parse_search("verified=false", defaults={"verified": {"eq": True}}) == {"verified": {"eq": False}}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gpu_name", "operator"),
        ("gpu_name RTX", "operator"),
        ("gpu_name=", "value"),
        ("num_gpus=1 !", "field name, got '!' (at character 12)"),
        ("num_gpus>many", "number"),
        ("gpu_ram=lots", "number"),
        ("gpu_ram>=nan", "number"),
        ("gpu_ram>=inf", "number"),
        ("num_gpus=[1,2]", "num_gpus in [1,2]"),
        ("num_gpus in []", "at least one"),
        ('gpu_name="RTX 4090', "value"),
        ('gpu_name="a"b', "value"),
        ("a=>3", "operator"),
        ("=3", "field name"),
        ("num_gpus>=1; drop", "number"),
        ("driver_version>=535.x.1", "driver version"),
        ("gpu_name RTX_4090 num_gpus=1", "operators are"),
        ("gpu_name=X,num_gpus=1", "separate terms by blanks: gpu_name … X num_gpus=1"),
        ("gpu_name=X;num_gpus>=1", "separate terms by blanks"),
        ("gpu_name=X&num_gpus=1", "separate terms by blanks"),
        ("gpu_name=X&&num_gpus==1", "separate terms by blanks"),
        ("gpu_name=X|gpu_name=Y", "separate terms by blanks"),
        ("gpu_name in RTX_3090,RTX_4090,num_gpus=1", "separate terms by blanks"),
        ("gpu_name=X, num_gpus=1", "separate terms by blanks alone"),
        ("gpu_name=X; num_gpus=1", "separate terms by blanks alone"),
        ("gpu_name=X and num_gpus=1", "separated by blanks alone"),
        ("gpu_name=X && num_gpus=1", "field name"),
        ("gpu_name=X=Y", "holds another term"),
        ("gpu_name=RTX_3090,RTX_4090", "gpu_name in [RTX_3090,RTX_4090]"),
        ("num_gpus=1,2", "num_gpus in [1,2]"),
    ],
)
def test_an_error_says_where_and_what_to_write(text, says):
    with pytest.raises(GrammarError) as refused:
        parse_search(text)
    assert says in str(refused.value)


@given(st.text())
def test_no_text_crashes_the_search_parser(text):
    try:
        filters = parse_search(text)
    except GrammarError:
        return
    matches(filters, {"gpu_name": "RTX 4090"})


TERMS = st.sampled_from(
    [
        "gpu_name",
        "num_gpus",
        "gpu_ram",
        "=",
        ">=",
        "<",
        " in ",
        "not in",
        "[",
        "]",
        ",",
        '"',
        "'",
        " ",
        "1",
        "x",
        "_",
        "any",
    ]
)


@given(st.lists(TERMS, max_size=12).map("".join))
def test_no_almost_right_text_crashes_the_search_parser(text):
    with contextlib.suppress(GrammarError):
        matches(parse_search(text), {"num_gpus": 1})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
ODD_FILTERS = st.dictionaries(
    st.sampled_from(["gpu_ram", "gpu_name", "order", "driver_version"]),
    st.dictionaries(st.sampled_from(["eq", "gt", "in", "notin", "neq", "x"]), JSON, max_size=3) | JSON,
    max_size=3,
)


@given(
    JSON | ODD_FILTERS | st.lists(ODD_FILTERS, max_size=3),
    st.dictionaries(st.sampled_from(["gpu_ram", "gpu_name"]), JSON),
)
def test_no_filters_crash_the_reader_or_the_matching(params, offer):
    try:
        filters = parse_filters(params)
    except GrammarError:
        return
    assert matches(filters, offer) in (True, False)


@given(JSON)
def test_no_order_crashes_the_reader(order):
    with contextlib.suppress(GrammarError):
        sorted_by(parse_order(order), [{"a": 1}, {"a": "x"}, {}])


def test_a_dict_is_taken_in_the_apis_own_units():
    assert parse_filters({"gpu_ram": {"gte": 24_000}, "verified": True, "order": [["dph_total", "asc"]]}) == {
        "gpu_ram": {"gte": 24_000},
        "verified": {"eq": True},
    }


def test_a_list_of_dicts_must_hold_as_a_whole():
    parts = [{"gpu_ram": {"gte": 24}}, {"gpu_ram": {"gte": 48, "lt": 90}}, {"verified": {"eq": True}}]
    assert parse_filters(parts) == {"gpu_ram": {"gte": 48, "lt": 90}, "verified": {"eq": True}}
    with pytest.raises(GrammarError, match="keep one"):
        merge_filters({"num_gpus": {"eq": 1}}, {"num_gpus": {"eq": 2}})


def test_a_dict_may_bring_order_limit_and_type():
    query = query_of({"num_gpus": 1, "order": "dph", "limit": 5, "type": "bid", "allocated_storage": 40})
    assert query.filters == {"num_gpus": {"eq": 1}}
    assert (query.order, query.limit, query.type, query.disk_gb) == ((("dph_total", "asc"),), 5, "bid", 40.0)


def test_a_query_of_text_has_the_defaults():
    query = query_of("num_gpus=1", disk_gb=20, limit=8)
    assert (query.disk_gb, query.limit, query.type) == (20, 8, "on-demand")


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("", ()),
        ("score-,dph", (("score", "desc"), ("dph_total", "asc"))),
        ("-dlperf_usd, +num_gpus", (("dlperf_per_dphtotal", "desc"), ("num_gpus", "asc"))),
        ([["dph_total", "desc"]], (("dph_total", "desc"),)),
    ],
)
def test_an_order_names_fields_and_directions(text, order):
    assert parse_order(text) == order


@pytest.mark.parametrize("order", ["a b", "-a-", "a;b", [["a", "up"]], ["a"], 7, {"a": 1}])
def test_an_order_that_cannot_be_read_is_refused(order):
    with pytest.raises(GrammarError):
        parse_order(order)


OFFER = {
    "gpu_name": "RTX 4090",
    "num_gpus": 2,
    "gpu_ram": 24_564,
    "verified": True,
    "driver_version": "535.86.05",
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("num_gpus=2", True),
        ("num_gpus=2.0", True),
        ("num_gpus>10", False),
        ("num_gpus<10", True),
        ("num_gpus in [1,2]", True),
        ("num_gpus notin [1,2]", False),
        ("gpu_name=RTX_4090", True),
        ("gpu_name!=RTX_4090", False),
        ("gpu_name=RTX_409", False),
        ("gpu_ram>=24", True),
        ("gpu_ram>=25", False),
        ("verified=true", True),
        ("verified=false", False),
        ("driver_version>=535.86.05", True),
        ("driver_version>=535.100.0", False),
        ("unknown=1", False),
        ("unknown!=1", True),
        ("unknown=null", True),
        ("unknown>1", False),
        ("unknown notin [1]", True),
        ("gpu_name>1", False),
    ],
)
def test_numbers_are_compared_as_numbers_and_names_as_names(text, holds):
    assert matches(parse_search(text), OFFER) is holds


def test_ten_is_more_than_nine():
    rows = [{"n": "10"}, {"n": 9}, {"n": None}, {"n": 11}, {}]
    assert [row.get("n") for row in sorted_by((("n", "desc"),), rows)] == [11, "10", 9, None, None]
    assert [row.get("n") for row in sorted_by((("n", "asc"),), rows)] == [9, "10", 11, None, None]


def test_an_underscore_in_a_name_may_be_typed_as_it_is():
    assert matches(parse_search("gpu_name=cpu_small"), {"gpu_name": "cpu_small"})


def test_an_object_may_come_as_text():
    said = {"type": "bid", "gpu_name": {"eq": "RTX 4090"}}
    assert query_of(json.dumps(said)) == query_of(said)
    assert query_of('[{"num_gpus": {"eq": 1}}]') == query_of([{"num_gpus": {"eq": 1}}])


def test_text_that_only_begins_like_json_is_refused():
    with pytest.raises(GrammarError, match="JSON"):
        query_of('{"type": "bid"')
