"""launch_args and docker flags."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market.interface import Launch
from market.query import GrammarError, parse_env, parse_launch_args
from market.query.docker_flags import published_ports, read_env


def fault_of(reader, text: str) -> GrammarError | None:
    try:
        reader(text)
    except GrammarError as fault:
        return fault
    return None


def test_options_are_read_with_shell_quoting():
    said = parse_launch_args(
        """--image 'vllm/vllm-openai:latest' --disk 40 --env "-e A=1 -e 'B=two words' -p 8000:8000" """
        """--onstart-cmd 'echo "hi there"; ./run' --label mine --bid_price=0.25 --login '-u me -p pw r.io' --force"""
    )
    assert said.image == "vllm/vllm-openai:latest"
    assert (said.disk_gb, said.bid_dollars_per_hour, said.label) == (40.0, 0.25, "mine")
    assert said.env == {"A": "1", "B": "two words", "-p 8000:8000": "1"}
    assert said.onstart == 'echo "hi there"; ./run'
    assert said.extra == {"image_login": "-u me -p pw r.io", "force": True}


def test_args_takes_the_rest():
    said = parse_launch_args("--disk 10 --args --model 'a b' --disk 99")
    assert said.args == ("--model", "a b", "--disk", "99")
    assert (said.disk_gb, said.runtype) == (10.0, "args")


@pytest.mark.parametrize(
    ("text", "runtype"),
    [
        ("", None),
        ("--ssh", "ssh_proxy"),
        ("--ssh --direct", "ssh_direc ssh_proxy"),
        ("--jupyter", "jupyter_proxy ssh_proxy"),
        ("--jupyter --direct", "jupyter_direc ssh_direc ssh_proxy"),
        ("--jupyter-lab", "jupyter_proxy ssh_proxy"),
    ],
)
def test_connection_switches_make_the_runtype(text, runtype):
    assert parse_launch_args(text).runtype == runtype


def test_a_volume_is_described_as_the_api_wants_it():
    said = parse_launch_args("--create-volume 7 --volume-size 20 --mount-path /data --volume-label x")
    assert said.extra["volume_info"] == {
        "mount_path": "/data",
        "create_new": True,
        "volume_id": 7,
        "size": 20.0,
        "name": "x",
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("--disk", "needs a value"),
        ("--disk many", "number"),
        ("--disk -5", "number"),
        ("--disk nan", "number"),
        ("disk 5", "options start with --"),
        ("--disc 5", "--disk"),
        ("--onstart run.sh", "--onstart-cmd"),
        ("--env '-e A'", "NAME=value"),
        ("--env '-e 1A=2'", "NAME=value"),
        ("--label 'open", "never closed (at character 9)"),
        ('--label "open', "never closed"),
        ("--label x\\", "backslash"),
        ("--jupyter --args a", "exclude"),
        ("--direct", "--ssh or --jupyter"),
        ("--force=1", "takes no value"),
        ("--volume-size 3", "--create-volume"),
        ("--create-volume 3", "--mount-path"),
        ("--create-volume 3 --link-volume 4 --mount-path /x", "exclude"),
        ("--label a\0b", "NUL"),
        ("--", "expected an option"),
    ],
)
def test_an_error_says_what_to_write(text, says):
    with pytest.raises(GrammarError) as refused:
        parse_launch_args(text)
    assert says in str(refused.value)


def test_a_launch_keeps_its_label_under_launch_args():
    launch = Launch(label="stoker:a:b", template_hash="h", template_id=None, env={"MASTER_TOKEN": "own"})
    said = parse_launch_args(
        "--label other --disk 40 --env '-e MASTER_TOKEN=x -e A=1' --template_hash h2 --args a b"
    )
    result = said.over(launch)
    assert (result.label, result.disk_gb, result.template_hash, result.args) == (
        "stoker:a:b",
        40.0,
        "h2",
        ("a", "b"),
    )
    assert result.env == {"MASTER_TOKEN": "own", "A": "1"}
    assert parse_launch_args("").over(launch) == launch


def test_secrets_in_launch_args_do_not_show():
    assert "hidden-value" not in repr(parse_launch_args("--env '-e A=hidden-value' --login hidden-value"))


@pytest.mark.parametrize(
    ("text", "env"),
    [
        ("", {}),
        ("-e A=1 -e B=", {"A": "1", "B": ""}),
        ("-e A=b=c", {"A": "b=c"}),
        ("-eA=1 --env B=2 --env=C=3", {"A": "1", "B": "2", "C": "3"}),
        (
            "-p 3000:3000 -p 53:53/udp -v a:/b -n net",
            {"-p 3000:3000": "1", "-p 53:53/udp": "1", "-v a:/b": "1", "-n net": "1"},
        ),
        ("-h box", {"-h": "box"}),
        ("""-e A='x y' -e "B=\\"q\\"" """, {"A": "x y", "B": '"q"'}),
        ("'-e A=1 -e B=2'", {"A": "1", "B": "2"}),
        ("--ipc=host --gpus all -e A=1", {"A": "1"}),
    ],
)
def test_docker_flags_become_the_env_object(text, env):
    assert parse_env(text) == env


def test_published_ports_are_the_containers_own():
    env = {
        "-p 80:3000": "1",
        "-p 53:53/udp": "1",
        "-p 9000": "1",
        "A": "-p 1:1",
        "-p 0:0": "1",
        "-p x:y": "1",
    }
    assert published_ports(env) == [(3000, "tcp"), (53, "udp"), (9000, "tcp")]


@given(st.text())
def test_no_text_crashes_the_readers(text):
    for reader in (parse_launch_args, parse_env):
        with contextlib.suppress(GrammarError):
            reader(text)


PIECES = st.sampled_from(
    ["--env", "--disk", "--args", "-e", "-p", "=", "A=1", "'", '"', "\\", " ", "--", "3", "--ssh", "\n"]
)


@given(st.lists(PIECES, max_size=14).map("".join))
def test_no_almost_right_text_crashes_the_readers(text):
    for reader in (parse_launch_args, parse_env):
        found = fault_of(reader, text)
        assert found is None or found.position is None or 0 <= found.position <= len(text)


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True),
        st.text().filter(lambda t: "\0" not in t),
        max_size=4,
    )
)
def test_shell_quoted_text_is_parsed_back(env):
    import shlex

    assert parse_env(" ".join(f"-e {shlex.quote(f'{name}={value}')}" for name, value in env.items())) == env


@pytest.mark.parametrize(
    ("text", "env", "says"),
    [
        ("-e A=1 -e GREETING=don't -e B=2", {"A": "1", "GREETING": "don't", "B": "2"}, "never closed"),
        ("-e A=1 -e NAME -e B=2", {"A": "1", "B": "2"}, "NAME=value after -e, got 'NAME'"),
        ("-e A=1 -e", {"A": "1"}, "needs a value"),
        ('-e A="x y" -p 3000:3000', {"A": "x y", "-p 3000:3000": "1"}, ""),
        ("-e A=1,-e B=2", {}, "separate flags with blanks"),
        ("-e 1A=x -h host", {"-h": "host"}, "NAME=value"),
    ],
)
def test_a_templates_flags_are_read_as_the_marketplace_reads_them(text, env, says):
    read, faults = read_env(text)
    assert read == env
    assert (len(faults), says in "".join(faults)) == (bool(says), True)


def test_warnings_about_a_templates_flags_repeat_no_value():
    _, faults = read_env("-e hf_abcdefghijk -e TOKEN=it's")
    assert len(faults) == 2
    assert not any("hf_abc" in fault or "it's" in fault for fault in faults)


@given(st.text(alphabet=" -epvnh=AB'\"\\\0\n,;", max_size=40))
def test_no_environment_of_a_template_crashes_the_reader(text):
    read_env(text)
