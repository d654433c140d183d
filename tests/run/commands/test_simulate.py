"""`stokerd simulate` as a command: output, charts, errors and exit codes."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from run.cli import app
from run.commands.simulate import draw
from simulation.run import run as run_one
from simulation.world import Sample
from stoker.cli.app import app as stoker_app


def simulate(*words: object):
    return CliRunner().invoke(app, ["simulate", *map(str, words)])


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("t_s,work\n" + "".join(f"{n * 5},{700 + n % 30}\n" for n in range(200)))
    return path


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "endpoint.yaml"
    path.write_text("min_workers: 0\nmax_workers: 8\nmin_load: 0\ntarget_util: 0.4\n")
    return path


def test_a_trace_is_answered_with_a_table_by_the_installed_command(trace, config):
    done = subprocess.run(
        [sys.executable, "-m", "run", "simulate", str(trace), "--endpoint", str(config), "--perf", "100"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "200 requests" in done.stdout
    assert "wait p50 / p99 / p99.9" in done.stdout


def test_a_queue_time_gives_a_command_to_paste_and_complete_charts(trace, config, tmp_path):
    out = tmp_path / "out"
    done = simulate(trace, "--endpoint", config, "--perf", 100, "--queue", 1000, "--pictures", out)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in out.iterdir()) == ["run.svg", "suggested.svg"]
    assert all(
        "longest wait" in path.read_text() and path.read_text().startswith("<svg") for path in out.iterdir()
    )
    assert "99 % of requests begin within 1000 s for $" in done.stdout
    line = next(line for line in done.stdout.splitlines() if "stoker endpoints update" in line)
    words = line.replace("ENDPOINT", "llm").split()[1:]
    # The CLI accepts the command: it fails because there is no engine, not because of its options.
    tried = CliRunner().invoke(
        stoker_app, ["--url", "http://127.0.0.1:9", "--api-key", "a-key-0123456789", *words]
    )
    assert tried.exit_code != 2, tried.output
    assert "--target-util" in words


def test_a_recorded_request_log_is_replayed_for_one_endpoint(tmp_path, config):
    path = tmp_path / "requests.jsonl"
    path.write_text(
        "".join(
            json.dumps({"at": 1.7e9 + n, "endpoint": name, "cost": 50.0, "wait_s": 0.1, "outcome": "done"})
            + "\n"
            for n in range(200)
            for name in ("llm", "image")
        )
    )
    done = simulate(path, "--endpoint", config, "--perf", 100, "--only", "llm")
    assert done.exit_code == 0, done.output
    assert "200 requests" in done.stdout
    several = simulate(path, "--endpoint", config, "--perf", 100)
    assert (several.exit_code, "say which with --only NAME" in several.stderr) == (2, True)


def test_an_impossible_target_is_reported_with_the_nearest_config(trace, config):
    done = simulate(trace, "--endpoint", config, "--perf", 100, "--budget", "0.0001")
    assert done.exit_code == 1
    assert "nothing tried costs at most $0.0001/h; the least is $" in done.stdout
    assert "no tried config meets the target" in done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        (b"", "is empty; expected CSV"),
        (b"t_s,work\n", "has no requests"),
        (b"\xff\xfe\x00rubbish", "not UTF-8 text"),
        (gzip.compress(b"t_s,work\n1,2\n", mtime=0)[:20], "starts like gzip and is not"),
        (
            b"when,what\n1,2\n",
            "expected the columns t_s,input_tokens,output_tokens (or t_s,work), got when, what",
        ),
        (b"t_s,work\n1,lots\n", "line 2: could not convert string to float"),
        (b"t_s,work\n500,1\n900,1\n3,1\n", "t_s goes back from 900 to 3"),
        (b"t_s,work\n1,nan\n", "expected a time and a work of at least 0"),
        (b"t_s,work\n0,2\n0.5,3\n", "all 2 requests come within a second"),
        (b"t_s,work\n1,0\n100,0\n", "no request has any work"),
    ],
)
def test_a_trace_that_cannot_be_used_is_one_sentence(tmp_path, content, said):
    path = tmp_path / "t.csv"
    if content is not None:
        path.write_bytes(content)
    done = simulate(path, "--perf", 100)
    assert done.exit_code == 2
    assert done.stderr.startswith("stokerd: ")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("words", [(), ("--only", "llm")])
@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_trace_is_called_empty_whatever_is_asked_of_it(tmp_path, words, content):
    path = tmp_path / "requests.jsonl"
    path.write_text(content)
    done = simulate(path, "--perf", 100, *words)
    assert (done.exit_code, "is empty; expected" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--perf", "0"), "perf: expected a number above 0, got 0"),
        (("--perf", "-5"), "perf: expected a number above 0"),
        (("--perf", "nan"), "expected a number, e.g. 12 or 0.5, not 'nan'"),
        (("--perf", "0.0001"), "perf has to be in the units of the trace's work"),
        (("--perf", "100", "--price", "0"), "price: expected a number above 0"),
        (("--perf", "100", "--queue", "0"), "queue: expected a number above 0"),
        (("--perf", "100", "--budget", "-1"), "budget: expected a number above 0"),
        (("--perf", "100", "--only", "llm"), "is CSV, not a request log, and names no endpoints"),
    ],
)
def test_an_absurd_figure_is_refused_before_anything_runs(trace, words, said):
    done = simulate(trace, *words)
    assert done.exit_code == 2
    assert said in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("target_util: 3\n", "target_util"),
        ("target_utli: 0.5\n", "target_utli"),
        ("- a\n- b\n", "expected a mapping"),
        ("a: [\n", "is not YAML at line 2"),
        (None, "cannot read"),
    ],
)
def test_a_bad_config_names_the_file_and_the_field(trace, tmp_path, text, said):
    config = tmp_path / "endpoint.yaml"
    if text is not None:
        config.write_text(text)
    done = simulate(trace, "--endpoint", config)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "endpoint.yaml" in done.stderr


def test_a_folder_that_cannot_be_written_is_one_sentence(trace, config, tmp_path):
    (tmp_path / "out").write_text("a file")
    done = simulate(trace, "--endpoint", config, "--perf", 100, "--pictures", tmp_path / "out")
    assert (done.exit_code, "cannot be written" in done.stderr) == (2, True)


def test_a_running_endpoint_is_assumed_unless_its_first_boots_are_asked_for(tmp_path, config):
    trace = tmp_path / "t.csv"
    trace.write_text("t_s,work\n" + "".join(f"{n * 5},60\n" for n in range(360)))
    warm = simulate(trace, "--endpoint", config, "--perf", 100)
    cold = simulate(trace, "--endpoint", config, "--perf", 100, "--cold-start")
    assert "were played before it, uncounted" in warm.stdout
    assert "were played before it" not in cold.stdout
    within = {run: float(run.stdout.splitlines()[1].split()[-1].rstrip("%")) for run in (warm, cold)}
    assert within[warm] > within[cold]


def test_a_load_over_max_workers_is_reported(trace, tmp_path):
    config = tmp_path / "endpoint.yaml"
    config.write_text("min_workers: 0\nmax_workers: 1\nmin_load: 0\n")
    done = simulate(trace, "--endpoint", config, "--perf", 10)
    assert "max_workers 1 cannot carry it: the mean load alone keeps 14.4 workers busy" in done.stdout


def test_an_interrupted_run_leaves_nothing_half_written(trace, config, tmp_path, monkeypatch):
    lived = []

    def interrupted(*given: object, **more: object) -> object:
        lived.append(given)
        if len(lived) == 2:
            raise KeyboardInterrupt
        return run_one(*given, **more)

    monkeypatch.setattr("simulation.report.run", interrupted)
    out = tmp_path / "out"
    done = simulate(trace, "--endpoint", config, "--perf", 100, "--queue", 5, "--pictures", out)
    assert (done.exit_code, done.stdout) == (130, "")
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_an_interrupted_picture_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "run.svg"
    samples = (Sample(at=1.0, ready=1, booting=0, cold=0), Sample(at=2.0, ready=0, booting=0, cold=1))
    figures = SimpleNamespace(
        trace="t", within_10=1.0, dollars=1.0, hours=1.0, utilisation=0.5, samples=samples
    )
    draw(figures, path, perf=100.0, dollars_per_hour=0.4)
    before = path.read_bytes()

    def cut_off(part: Path, text: str) -> None:
        part.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", cut_off)
    with pytest.raises(KeyboardInterrupt):
        draw(figures, path, perf=100.0, dollars_per_hour=0.4)
    assert [each.name for each in tmp_path.iterdir()] == ["run.svg"]
    assert path.read_bytes() == before
