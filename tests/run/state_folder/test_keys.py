"""Keys are read from the environment or an owner-only file, and are never shown."""

import json
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from run.errors import CommandError
from run.state_folder.keys import load_account_key, load_keys


@pytest.fixture(autouse=True)
def _no_keys_in_the_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("STOKER_") or name == "VAST_API_KEY"]:
        monkeypatch.delenv(name)


def change(state_dir: Path, **parts: object) -> None:
    path = state_dir / "keys.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))


def test_development_generates_keys_once_readable_by_their_owner_only(tmp_path):
    first = load_keys(tmp_path, generate=True)
    assert (tmp_path / "keys.json").stat().st_mode & 0o777 == 0o600
    assert load_keys(tmp_path, generate=True) == first


def test_a_missing_key_is_named_in_production(tmp_path):
    with pytest.raises(CommandError, match="STOKER_ACCOUNT_KEY is not set"):
        load_keys(tmp_path, generate=False)


def test_a_file_that_others_can_read_is_refused(tmp_path):
    load_keys(tmp_path, generate=True)
    (tmp_path / "keys.json").chmod(0o644)
    with pytest.raises(CommandError, match="chmod 600"):
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
    with pytest.raises(CommandError, match="not JSON .* remove it"):
        load_keys(tmp_path, generate=True)


@pytest.mark.parametrize("name", ["previous", "named", "account_keys"])
def test_a_part_of_the_file_that_is_not_an_object_is_named(tmp_path, name):
    load_keys(tmp_path, generate=True)
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: "text"}))
    with pytest.raises(CommandError, match=f"{name} should be a JSON object"):
        load_keys(tmp_path, generate=False)


def test_a_part_of_the_file_that_is_null_is_absent(tmp_path):
    load_keys(tmp_path, generate=True)
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"previous": None}))
    assert load_keys(tmp_path, generate=False).account_keys_previous == {}


@pytest.mark.parametrize("variable", ["STOKER_SIGNING_KEY_FILE", "STOKER_CA_KEY_FILE"])
def test_a_key_file_that_cannot_be_read_is_named_with_its_variable(tmp_path, monkeypatch, variable):
    load_keys(tmp_path, generate=True)
    monkeypatch.setenv(variable, str(tmp_path / "none.pem"))
    with pytest.raises(CommandError, match=f"{variable}: .*none.pem cannot be read"):
        load_keys(tmp_path, generate=False)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"secret": 314159}, "secret should be text, not int"),
        ({"signing_key_pem": [314159]}, "signing_key_pem should be text, not list"),
        ({"market_key": 314159}, "market_key should be text, not int"),
        ({"account_keys": {"default": 314159}}, "account_keys.default should be text, not int"),
        ({"named": {"HF_TOKEN": 314159}}, "named.HF_TOKEN should be text, not int"),
        ({"previous": {"secret": 314159}}, "secret should be text, not int"),
        ({"secret": "half a character 314159 \ud800"}, "STOKER_HMAC_SECRET, .* is not Unicode text"),
    ],
)
def test_a_stored_key_that_cannot_be_one_is_named_and_not_repeated(tmp_path, part, said):
    load_keys(tmp_path, generate=True)
    change(tmp_path, **part)
    with pytest.raises(CommandError, match=said) as refused:
        load_keys(tmp_path, generate=False)
    assert "314159" not in str(refused.value)


@pytest.mark.parametrize("generate", [True, False])
def test_a_key_file_that_is_a_folder_is_one_sentence(tmp_path, generate):
    (tmp_path / "keys.json").mkdir(mode=0o700)
    with pytest.raises(CommandError, match="keys.json cannot be read .*another state_dir"):
        load_keys(tmp_path, generate=generate)


def test_a_state_folder_that_takes_no_key_file_is_one_sentence(tmp_path):
    (tmp_path / "keys.new").mkdir()
    with pytest.raises(CommandError, match="keys.json cannot be written .*another state_dir"):
        load_keys(tmp_path, generate=True)


def with_password() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    sealed = serialization.BestAvailableEncryption(b"password")
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealed)
    return pem.decode()


@pytest.mark.parametrize("variable", ["STOKER_SIGNING_KEY_FILE", "STOKER_CA_KEY_FILE"])
@pytest.mark.parametrize("wrong", ["no PEM", "the other's kind", "with a password"])
def test_an_engine_refuses_a_file_without_the_required_key_type(tmp_path, monkeypatch, variable, wrong):
    load_keys(tmp_path, generate=True)
    stored = json.loads((tmp_path / "keys.json").read_text())
    other = "ca_key_pem" if variable == "STOKER_SIGNING_KEY_FILE" else "signing_key_pem"
    texts = {
        "no PEM": "canary",
        "the other's kind": stored[other],
        "with a password": with_password(),
    }
    file = tmp_path / "wrong.pem"
    file.write_text(texts[wrong])
    assert load_keys(tmp_path, generate=False, role="engine").ca_key_pem
    monkeypatch.setenv(variable, str(file))
    with pytest.raises(CommandError, match=f"{variable}, .*private key in PEM without a password") as refused:
        load_keys(tmp_path, generate=False, role="engine")
    assert "canary" not in str(refused.value)


@pytest.fixture
def no_market_key(monkeypatch):
    for name in ("STOKER_MARKET_KEY", "VAST_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("generate", [True, False])
def test_the_key_of_a_hosted_marketplace_is_never_invented(tmp_path, no_market_key, generate):
    with pytest.raises(CommandError, match="market.kind is vast.*set VAST_API_KEY"):
        load_keys(tmp_path, generate=generate, uses_vast=True)


@pytest.mark.parametrize("role", ["engine", "worker", "market", None])
def test_a_generated_market_key_is_refused_for_the_hosted_market(tmp_path, no_market_key, monkeypatch, role):
    generated = load_keys(tmp_path, generate=True).market_key
    with pytest.raises(CommandError, match="was generated for the host marketplace") as told:
        load_keys(tmp_path, generate=False, role=role, uses_vast=True)
    assert generated not in str(told.value)
    monkeypatch.setenv("VAST_API_KEY", "a" * 64)
    assert load_keys(tmp_path, generate=False, role=role, uses_vast=True).market_key == "a" * 64


def test_a_key_of_the_hosted_marketplace_in_the_file_is_taken(tmp_path, no_market_key):
    load_keys(tmp_path, generate=True)
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"market_key": "b" * 64}))
    assert load_keys(tmp_path, generate=True, uses_vast=True).market_key == "b" * 64


@pytest.mark.parametrize("name", ["STOKER_ACCOUNT_KEY", "STOKER_HMAC_SECRET", "STOKER_MARKET_KEY"])
@pytest.mark.parametrize("value", ["  ", "key\n", " key", "ke\ny"])
def test_a_blank_key_or_one_with_line_breaks_is_refused(tmp_path, monkeypatch, name, value):
    load_keys(tmp_path, generate=True)
    monkeypatch.setenv(name, value)
    with pytest.raises(CommandError, match=f"{name}.* no surrounding white space"):
        load_keys(tmp_path, generate=False)


def test_the_account_key_is_printed_without_other_keys(tmp_path, no_market_key):
    with pytest.raises(CommandError, match="STOKER_ACCOUNT_KEY is not set"):
        load_account_key(tmp_path)
    expected = load_keys(tmp_path, generate=True).account_key
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"account_keys": json.loads(path.read_text())["account_keys"]}))
    assert load_account_key(tmp_path) == expected
