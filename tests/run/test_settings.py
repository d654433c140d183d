"""Validation of `temporal-dev.yaml`, with errors that say what to do."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from run.commands.dev import DevStack, banner, exports
from run.demo.scenario import run_demo
from run.errors import CommandError
from run.processes.temporal_server import connect, dev_server_command
from run.settings import DashboardListen, DeploymentSettings, load_settings
from run.yaml_files import read_yaml

ROOT = Path(__file__).parents[2]


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    return path


def test_the_committed_file_is_valid_and_offers_at_least_three_kinds_of_different_price_and_speed():
    settings = load_settings(ROOT / "temporal-dev.yaml")
    machines = settings.host_market.machines
    assert len({machine.dollars_per_hour for machine in machines}) >= 3
    assert len({machine.cpu_percent for machine in machines}) >= 3


def test_an_empty_file_means_every_default(tmp_path):
    settings = load_settings(write(tmp_path, ""))
    assert settings.temporal.port == 7233
    assert settings.state_dir == tmp_path / ".stoker"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("temporal: {port: 70000}", "temporal.port: .*less than or equal to 65535.*70000"),
        ("temporal: {prot: 7233}", "temporal.prot: Extra inputs are not permitted"),
        ("temporal: {ip: 0.0.0.0}", "loopback address.*neither TLS nor authorisation"),
        ("temporal: {ip: here}", "should be an IP address"),
        (f"temporal: {{retention: {'9' * 30}d}}", "temporal.retention: .*should match pattern"),
        (
            "market: {kind: vast, url: console.vast.ai}",
            r"market: .*url should be http.*\(got 'console.vast.ai'\)",
        ),
        ("market: {kind: vast, url: 'https://console.vast.ai:99999'}", "market: .*url should be http.*99999"),
        ("host_market: {instance_port_min: 80}", r"host_market.instance_port_min: .*1024 \(got 80\)"),
        (
            "host_market: {instance_port_min: 21000, instance_port_max: 21003}",
            "host_market: ports 21000-21003 are fewer than the 10",
        ),
        (
            "host_market: {machines: [{name: a, dollars_per_hour: 1}, {name: a, dollars_per_hour: 2}]}",
            "host_market: two machines have the same name",
        ),
        ("engine: {host: '[::1]'}", "engine.host: .*without brackets"),
        ("engine: {host: ''}", "engine.host: .*should be an IP address"),
        ("engine: {host: 'http://127.0.0.1'}", "engine.host: .*should be an IP address"),
        ("temporal: {retention: soon}", "temporal.retention"),
        ("temporal: {search_attributes: {EndpointName: Keyword}}", "should name EndpointId: Int"),
        ("engine: {port: 7233}", "temporal.port and engine.port are both 7233"),
        ("engine: {public_url: 'http://a/'}", "engine.public_url"),
        ("market: {kind: ebay}", "market.kind"),
        ("host_market: {machines: [{name: A, dollars_per_hour: -1}]}", "dollars_per_hour"),
        ('host_market: {templates: [{name: t, env: "-e \'A"}]}', "env"),
        ("- a list", "should hold a mapping of settings, got list"),
        ("a: [", "is not YAML at line"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(tmp_path, text, said):
    with pytest.raises(CommandError, match=said):
        load_settings(write(tmp_path, text))


@pytest.mark.parametrize(
    "url", ["https://me:canary@console.vast.ai", "https://console.vast.ai/?api_key=canary"]
)
def test_a_market_url_with_a_secret_in_it_is_refused_and_not_repeated(tmp_path, url):
    with pytest.raises(
        CommandError, match="market: .*url should be http.*without user, password, query"
    ) as refused:
        load_settings(write(tmp_path, json.dumps({"market": {"kind": "vast", "url": url}})))
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "gpu_box-1.example", "a"])
def test_an_engine_may_listen_on_an_address_or_a_name(host):
    assert DeploymentSettings.model_validate({"engine": {"host": host}}).engine.host == host


def test_a_character_that_json_writes_as_two_escapes_is_one(tmp_path):
    settings = load_settings(write(tmp_path, json.dumps({"state_dir": "state \U0001f680"})))
    assert settings.state_dir == tmp_path / "state \U0001f680"


def test_a_state_folder_that_no_file_system_can_name_is_refused(tmp_path):
    with pytest.raises(CommandError, match=r"state_dir: 'a.x00b' cannot be a folder"):
        load_settings(write(tmp_path, json.dumps({"state_dir": "a\0b"})))


def test_half_a_character_is_refused_with_its_line(tmp_path):
    with pytest.raises(CommandError, match="at line 2 .*a lone surrogate"):
        load_settings(write(tmp_path, '# settings\nstate_dir: "\\ud83d"\n'))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CommandError, match="cannot read .*nothing.yaml.*--config"):
        load_settings(tmp_path / "nothing.yaml")


def test_the_dev_server_gets_a_flag_for_every_setting(tmp_path):
    settings = load_settings(write(tmp_path, "temporal: {dynamic_config: {limit.a: 3, limit.b: true}}"))
    command = " ".join(dev_server_command(settings, ui=("127.0.0.1", 6666)))
    for flag in (
        "--ip 127.0.0.1",
        "--port 7233",
        "--ui-ip 127.0.0.1 --ui-port 6666",
        "--namespace stoker",
        "--sqlite-pragma journal_mode=wal",
        "--search-attribute EndpointName=Keyword",
        "--dynamic-config-value limit.a=3",
        "--dynamic-config-value limit.b=true",
        f"--db-filename {tmp_path / '.stoker' / 'temporal.db'}",
    ):
        assert flag in command


def test_settings_survive_the_way_to_a_child_process(tmp_path):
    settings = load_settings(ROOT / "temporal-dev.yaml")
    path = tmp_path / "effective.json"
    path.write_text(settings.model_dump_json())
    assert load_settings(path) == settings


def test_the_market_url_follows_the_choice():
    assert DeploymentSettings().market_url == "http://127.0.0.1:8091"
    assert (
        DeploymentSettings.model_validate({"market": {"kind": "vast"}}).market_url
        == "https://console.vast.ai"
    )


def test_an_ipv6_address_stands_in_brackets_before_its_port():
    settings = DeploymentSettings.model_validate({"temporal": {"ip": "::1"}, "engine": {"host": "::1"}})
    assert settings.temporal.address == "[::1]:7233"
    assert settings.temporal.ui_url == "http://[::1]:8233"
    assert settings.engine.url == "http://[::1]:8080"
    assert "http://[::1]:8233/namespaces/" in banner(DevStack(settings))
    named = DeploymentSettings.model_validate(
        {"engine": {"host": "::1", "public_url": "https://llm.example"}}
    )
    assert named.engine.url == "https://llm.example"
    assert named.engine.own_url == "http://[::1]:8080"


async def test_an_address_of_temporal_that_no_client_takes_is_a_sentence_at_once():
    settings = DeploymentSettings.model_validate({"temporal": {"ip": "::1%lo"}})
    with pytest.raises(
        CommandError, match=r"cannot connect to Temporal at \[::1%lo\]:7233.*change temporal.ip"
    ):
        await connect(settings.temporal)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("market: &a [*a]\n", "inside its own value"),
        ("a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)), "aliases"),
        ("engine: {port: 1}\nengine: {port: 2}\n", "the key 'engine' is given twice"),
        ("engine:\n  port: 1\n  port: 2\n", "the key 'port' is given twice"),
        ('{"engine": {"port": ' + "[" * 2000 + "]" * 2000 + "}}", "nested too deeply"),
        ("engine: {port: " + "1" * 5000 + "}\n", "cannot be read"),
        ("\ufeffengine: {port: .inf}\n", "engine"),
        ("engine: {port: .nan}\n", "engine"),
        ('engine: {port: "1_0"}\n', "engine"),
    ],
)  # fmt: skip
def test_yaml_that_breaks_its_reader_is_one_sentence(tmp_path, text, said):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(CommandError, match=said):
        load_settings(path)


def test_an_anchor_may_be_merged(tmp_path):
    path = tmp_path / "value.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\n")
    assert read_yaml(path, "a mapping")["b"] == {"x": 1, "y": 3}


def test_the_line_for_another_terminal_names_the_command_and_the_settings_file_of_this_one():
    settings = DeploymentSettings.model_validate({"engine": {"port": 9080}})
    line = exports(settings, Path("my dev.yaml"), program=".venv/bin/stokerd")
    assert line.endswith(
        "export STOKER_URL=http://127.0.0.1:9080 STOKER_API_KEY=$(.venv/bin/stokerd key --config 'my dev.yaml')"
    )
    assert exports(settings, None, program="run/__main__.py").endswith("STOKER_API_KEY=$(stokerd key)")


@pytest.mark.parametrize(
    "url", ["http://me:secret@prometheus:9090", "prometheus:9090", "http://prometheus:9090/", "http://p/?a=b"]
)
def test_a_prometheus_url_has_no_password_query_or_trailing_slash(url: str) -> None:
    with pytest.raises(ValidationError, match="prometheus_url"):
        DashboardListen(prometheus_url=url)
    assert DashboardListen(prometheus_url="https://metrics.example.org/prefix").prometheus_url


async def test_the_picture_of_the_demo_is_svg(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"should end with \.svg"):  # before anything is started
        await run_demo(DeploymentSettings(), state_dir=tmp_path, chaos=False, picture=Path("demo.png"))
