import subprocess
import sys

import pytest


def _stokerd(*words):
    return subprocess.run(
        [sys.executable, "-m", "run", "simulate", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("t_s,work\n" + "".join(f"{n},{40 + n % 30}\n" for n in range(600)))
    return path


def test_a_trace_is_answered_with_a_table(trace, tmp_path):
    config = tmp_path / "endpoint.yaml"
    config.write_text("min_workers: 0\nmax_workers: 8\n")
    done = _stokerd(trace, "--endpoint", config, "--perf", "100", "--queue", "1000")
    assert done.returncode == 0, done.stderr
    assert "600 requests" in done.stdout
    assert "99 % of requests begin within 1000 s" in done.stdout


def test_a_bad_trace_is_one_sentence(tmp_path):
    done = _stokerd(tmp_path / "none.csv")
    assert done.returncode == 2
    assert done.stderr.startswith("stokerd: ")
    assert "cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_config_names_the_field(trace, tmp_path):
    config = tmp_path / "endpoint.yaml"
    config.write_text("target_util: 3\n")
    done = _stokerd(trace, "--endpoint", config)
    assert done.returncode == 2
    assert "target_util" in done.stderr
