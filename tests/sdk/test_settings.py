"""Address and key from arguments, environment and config file."""

import pytest

import stoker
from stoker.settings import read_settings


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A directory without a dev deployment: the checkout may have one."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def config(tmp_path):
    """Writes a config file and returns an environment that names it."""
    path = tmp_path / "config.toml"

    def write(text: str) -> dict[str, str]:
        path.write_text(text)
        return {"STOKER_CONFIG": str(path)}

    return write


def test_arguments_override_the_environment_and_the_environment_overrides_the_file(config):
    environ = config('url = "http://file:1"\napi_key = "file-key"\n')
    assert read_settings(environ=environ).url == "http://file:1"
    environ |= {"STOKER_URL": "http://environment:1", "STOKER_API_KEY": "environment-key"}
    assert read_settings(environ=environ).api_key == "environment-key"
    settings = read_settings("https://argument:1/", "argument-key", environ=environ)
    assert (settings.url, settings.api_key) == ("https://argument:1", "argument-key")


def test_the_config_file_is_found_in_the_usual_places(tmp_path):
    path = tmp_path / "xdg" / "stoker" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text('url = "http://xdg:1"\napi_key = "k"\n')
    assert read_settings(environ={"XDG_CONFIG_HOME": str(tmp_path / "xdg")}).url == "http://xdg:1"
    home = tmp_path / "home" / ".config" / "stoker" / "config.toml"
    home.parent.mkdir(parents=True)
    home.write_text('url = "http://home:1"\napi_key = "k"\n')
    assert read_settings(environ={"HOME": str(tmp_path / "home")}).url == "http://home:1"


def test_a_missing_setting_is_named_with_the_three_places(tmp_path):
    environ = {"HOME": str(tmp_path)}
    with pytest.raises(stoker.Invalid, match=r"url=.*STOKER_URL.*config\.toml"):
        read_settings(environ=environ)
    with pytest.raises(stoker.Invalid, match=r"api_key=.*STOKER_API_KEY.*config\.toml"):
        read_settings("http://engine:1", environ=environ)


@pytest.mark.parametrize(
    "text",
    ["url = ", 'urll = "http://a"', "api_key = 5", "[url]\na = 1", "\x00"],
)
def test_a_file_that_cannot_be_used_is_named(config, text):
    with pytest.raises(stoker.Invalid, match=r"config\.toml"):
        read_settings(environ=config(text))


@pytest.mark.parametrize(
    "url",
    [
        "engine:8080",
        "ftp://engine",
        "http://",
        "http://engine:0",
        "http://engine:99999",
        "http://k@engine",
        "http://e/?a=b",
        "http://[::1",
        "http://a b",
        "http://a\n",
    ],
)
def test_an_invalid_address_is_refused(url):
    with pytest.raises(stoker.Invalid, match="address"):
        read_settings(url, "key", environ={})


@pytest.mark.parametrize("key", ["a b", "a\nb", "schlüssel"])
def test_an_invalid_key_is_refused_without_being_printed(key):
    with pytest.raises(stoker.Invalid, match="the key") as caught:
        read_settings("http://e:1", key, environ={})
    assert key not in str(caught.value)


def test_the_key_is_in_no_repr():
    settings = read_settings("http://engine:1", "very-secret", environ={})
    client = stoker.Serverless("very-secret", url="http://engine:1")
    assert "very-secret" not in repr(settings) + repr(client)


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": float("nan")}, {"connections_max": 0}])
def test_a_client_with_bad_options_is_refused(options):
    with pytest.raises(stoker.Invalid):
        stoker.Serverless("key", url="http://engine:1", **options)


@pytest.fixture
def local(tmp_path, monkeypatch):
    """A directory with the state folder of a dev deployment."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".stoker").mkdir()
    file = tmp_path / ".stoker" / "client.toml"
    file.write_text('url = "http://127.0.0.1:8080"\napi_key = "sk-dev"\n')
    file.chmod(0o600)
    return file


NOTHING = {"HOME": "/nonexistent"}


def test_beside_a_dev_deployment_nothing_has_to_be_set(local):
    settings = read_settings(environ=NOTHING)
    assert (settings.url, settings.api_key) == ("http://127.0.0.1:8080", "sk-dev")


def test_the_key_of_a_dev_deployment_is_never_sent_to_another_address(local):
    with pytest.raises(stoker.Invalid, match="no key"):
        read_settings(environ=NOTHING | {"STOKER_URL": "http://elsewhere:1"})
    with pytest.raises(stoker.Invalid, match="no engine address"):
        read_settings(environ=NOTHING | {"STOKER_API_KEY": "sk-mine"})


def test_a_file_that_others_can_read_is_not_used(local):
    local.chmod(0o644)
    with pytest.raises(stoker.Invalid, match="no engine address"):
        read_settings(environ=NOTHING)
