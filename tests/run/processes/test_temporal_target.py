"""All commands determine their Temporal target in the same way, and print it."""

import socket

import pytest
from temporalio.testing import WorkflowEnvironment

from run.errors import CommandError
from run.processes.temporal_server import connect, connect_to, temporal_binary, temporal_target
from run.settings import DeploymentSettings, TemporalSettings
from run.state_folder.lock import free_port

SETTINGS = DeploymentSettings().temporal


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    for name in ("ADDRESS", "NAMESPACE", "PROFILE", "CONFIG_FILE", "API_KEY"):
        monkeypatch.delenv(f"TEMPORAL_{name}", raising=False)


def test_without_variables_the_settings_name_it():
    assert str(temporal_target(SETTINGS)) == "at 127.0.0.1:7233, namespace stoker (from the settings)"


def test_variables_go_before_the_settings_and_are_named(monkeypatch):
    monkeypatch.setenv("TEMPORAL_ADDRESS", "cluster.example:7233")
    found = temporal_target(SETTINGS)
    assert str(found) == "at cluster.example:7233, namespace stoker (from TEMPORAL_ADDRESS)"
    monkeypatch.setenv("TEMPORAL_NAMESPACE", "production")
    assert temporal_target(SETTINGS).name == "cluster.example:7233/production"


def test_a_profile_in_a_file_is_read_by_the_same_rule(monkeypatch, tmp_path):
    file = tmp_path / "temporal.toml"
    file.write_text('[profile.prod]\naddress = "cloud.example:7233"\nnamespace = "ours"\n')
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(file))
    monkeypatch.setenv("TEMPORAL_PROFILE", "prod")
    found = temporal_target(SETTINGS)
    assert (found.name, found.source) == (
        "cloud.example:7233/ours",
        "TEMPORAL_PROFILE, TEMPORAL_CONFIG_FILE",
    )


@pytest.mark.parametrize("text", ["[profile.prod]\n", "no TOML [", '[profile.other]\naddress = "a:1"\n'])
def test_variables_that_name_no_address_are_a_sentence(monkeypatch, tmp_path, text):
    file = tmp_path / "temporal.toml"
    file.write_text(text)
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(file))
    monkeypatch.setenv("TEMPORAL_PROFILE", "prod")
    with pytest.raises(CommandError, match="TEMPORAL_"):
        temporal_target(SETTINGS)


async def test_a_temporal_that_does_not_answer_is_a_sentence_that_names_it(monkeypatch):
    monkeypatch.setenv("TEMPORAL_ADDRESS", f"127.0.0.1:{free_port()}")
    with pytest.raises(
        CommandError, match=r"Temporal at 127.0.0.1:\d+, .*TEMPORAL_ADDRESS.* did not answer"
    ) as told:
        await connect_to(temporal_target(SETTINGS), wait_seconds_max=0.2)
    assert told.value.exit_code == 4
    assert "did not answer (Connection refused); is it running?" in str(told.value), "no Rust, no 0 s"


async def test_a_port_that_accepts_connections_and_never_answers_times_out(monkeypatch):
    monkeypatch.setattr("run.processes.temporal_server._RPC_SECONDS_MAX", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = TemporalSettings(port=silent.getsockname()[1])
        with pytest.raises(CommandError, match="did not answer"):
            await connect(settings, wait_seconds_max=0.2)


async def test_a_missing_namespace_is_a_sentence_with_the_remedy(monkeypatch):
    monkeypatch.setattr("run.processes.temporal_server.NAMESPACE_SECONDS_MAX", 0.2)
    async with await WorkflowEnvironment.start_local(
        namespace="other", dev_server_existing_path=str(temporal_binary())
    ) as env:
        monkeypatch.setenv("TEMPORAL_ADDRESS", env.client.service_client.config.target_host)
        with pytest.raises(CommandError, match="has no such namespace; create it .*--namespace stoker"):
            await connect_to(temporal_target(SETTINGS))
        monkeypatch.setenv("TEMPORAL_NAMESPACE", "other")
        await connect_to(temporal_target(SETTINGS))
