"""Keys come from the environment or an owner-only file, and show themselves nowhere."""

import json

import pytest

from run.faults import Fault
from run.keys import load_keys


@pytest.fixture(autouse=True)
def _no_keys_in_the_environment(monkeypatch):
    for name in ("STOKER_ACCOUNT_KEY", "STOKER_HMAC_SECRET", "STOKER_MARKET_KEY", "VAST_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_development_generates_keys_once_readable_by_their_owner_only(tmp_path):
    first = load_keys(tmp_path, generate=True)
    assert (tmp_path / "keys.json").stat().st_mode & 0o777 == 0o600
    assert load_keys(tmp_path, generate=True) == first


def test_production_says_which_key_is_missing(tmp_path):
    with pytest.raises(Fault, match="STOKER_ACCOUNT_KEY is not set"):
        load_keys(tmp_path, generate=False)


def test_a_file_that_others_can_read_is_refused(tmp_path):
    load_keys(tmp_path, generate=True)
    (tmp_path / "keys.json").chmod(0o644)
    with pytest.raises(Fault, match="chmod 600"):
        load_keys(tmp_path, generate=True)


def test_the_environment_goes_before_the_file(tmp_path, monkeypatch):
    load_keys(tmp_path, generate=True)
    monkeypatch.setenv("STOKER_ACCOUNT_KEY", "sk-from-outside")
    monkeypatch.setenv("STOKER_SECRET_HF_TOKEN", "hf-canary")
    keys = load_keys(tmp_path, generate=False)
    assert keys.account_key == "sk-from-outside"
    assert keys.named == {"HF_TOKEN": "hf-canary"}


def test_no_key_shows_in_the_repr(tmp_path):
    keys = load_keys(tmp_path, generate=True)
    stored = json.loads((tmp_path / "keys.json").read_text())
    for value in (keys.account_key, stored["secret"], stored["market_key"], "PRIVATE KEY"):
        assert value not in repr(keys)


def test_a_broken_file_is_named_with_what_to_do(tmp_path):
    (tmp_path / "keys.json").write_text("{")
    (tmp_path / "keys.json").chmod(0o600)
    with pytest.raises(Fault, match="not JSON .* remove it"):
        load_keys(tmp_path, generate=True)


@pytest.mark.parametrize("name", ["previous", "named", "account_keys"])
def test_a_part_of_the_file_that_is_no_object_is_named(tmp_path, name):
    load_keys(tmp_path, generate=True)
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: "text"}))
    with pytest.raises(Fault, match=f"{name} should be a JSON object"):
        load_keys(tmp_path, generate=False)


def test_a_part_of_the_file_that_is_null_is_none(tmp_path):
    load_keys(tmp_path, generate=True)
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"previous": None}))
    assert load_keys(tmp_path, generate=False).account_keys_previous == {}


@pytest.mark.parametrize("variable", ["STOKER_SIGNING_KEY_FILE", "STOKER_CA_KEY_FILE"])
def test_a_key_file_that_cannot_be_read_is_named_with_its_variable(tmp_path, monkeypatch, variable):
    load_keys(tmp_path, generate=True)
    monkeypatch.setenv(variable, str(tmp_path / "none.pem"))
    with pytest.raises(Fault, match=f"{variable}: .*none.pem cannot be read"):
        load_keys(tmp_path, generate=False)
