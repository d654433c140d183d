"""Systemd units, compose file and Helm chart: the checks that need no cluster."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from run.settings import load_settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "stoker"


@pytest.mark.parametrize("role", ["engine", "worker"])
def test_systemd_accepts_the_units(role, tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    text = (DEPLOY / "systemd" / f"stoker-{role}.service").read_text()
    assert f"ExecStart=/opt/stoker/bin/stokerd {role} --config" in text
    unit = tmp_path / f"stoker-{role}.service"
    unit.write_text(text.replace("/opt/stoker/bin/stokerd", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], check=False, capture_output=True, text=True, timeout=60
    )
    assert [line for line in done.stderr.splitlines() if unit.name in line] == []
    assert done.returncode == 0, done.stderr


def test_a_unit_gives_its_role_more_time_to_stop_than_the_role_takes():
    """`stokerd worker` finishes activities for up to 40 s, as in `run/commands/dev.py`."""
    unit = (DEPLOY / "systemd" / "stoker-worker.service").read_text()
    assert int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[1]) > 40


def test_the_compose_files_settings_are_valid_and_its_roles_get_only_their_keys():
    settings = load_settings(DEPLOY / "compose" / "stoker.yaml")
    assert settings.uses_vast
    services = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())["services"]
    assert set(services) == {"postgres", "temporal", "engine", "worker", "proxy"}
    for role in ("engine", "worker"):
        assert services[role]["read_only"] is True
        assert services[role]["cap_drop"] == ["ALL"]
        assert services[role]["command"][0] == role
    assert "STOKER_ACCOUNT_KEY" not in services["worker"]["environment"]
    needed = set(re.findall(r"\$\{([A-Z_]+):\?", (DEPLOY / "compose" / "compose.yaml").read_text()))
    example = (DEPLOY / "compose" / ".env.example").read_text()
    assert needed == set(re.findall(r"^([A-Z_]+)=", example, re.MULTILINE))


def test_the_charts_values_match_their_schema_and_wrong_ones_are_refused():
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    jsonschema.validate(values, schema)
    for wrong in ({"engin": {}}, {"engine": values["engine"] | {"publicUrl": "https://engine.example.org/"}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(values | wrong, schema)


def test_every_value_that_a_template_reads_exists():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for template in (CHART / "templates").iterdir():
        for path in re.findall(r"\.Values\.([A-Za-z.]+)", template.read_text()):
            found = values
            for name in path.split("."):
                assert name in found, f"{template.name}: {path}"
                found = found[name]


def test_the_charts_settings_are_valid():
    """The config map with its values filled in, as Helm would; the conditions of its template are left out."""
    text = (CHART / "templates" / "configmap.yaml").read_text()
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def value(found: re.Match[str]) -> str:
        at = values
        for name in found[1].split("."):
            at = at[name]
        return json.dumps(at)

    text = re.sub(r"\{\{ \.Values\.([A-Za-z.]+)(?: \| quote)? \}\}", value, text)
    text = re.sub(r"^ *\{\{-.*\n", "", text, flags=re.MULTILINE).replace("{{ .Release.Name }}", "test")
    settings = yaml.safe_load(yaml.safe_load(text)["data"]["stoker.yaml"])
    folder = settings.pop("state_dir")
    assert folder == "/var/lib/stoker"
    from run.settings import DeploymentSettings

    checked = DeploymentSettings.model_validate(settings)
    assert checked.engine.memo_trust_seconds is None
    assert checked.engine.public_url == values["engine"]["publicUrl"]


def test_the_chart_has_the_version_of_the_controller():
    import tomllib

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert (chart["version"], chart["appVersion"], values["image"]["tag"]) == (version, version, version)
