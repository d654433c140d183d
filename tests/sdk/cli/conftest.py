"""The `stoker` command against a fake engine."""

from collections.abc import Callable

import pytest
from click.testing import Result
from typer.testing import CliRunner

from stoker.cli.app import app
from tests.sdk.cli.samples import ADVICE, DECISION, GROUP, HOSTS, STATUS, WORKER
from tests.sdk.peers import ACCOUNT_KEY, Peers, json_reply

Stoker = Callable[..., Result]


@pytest.fixture
def peers(threaded_peers: Peers) -> Peers:
    """A fake engine with an answer for every call of the console API."""
    ok = json_reply({"success": True})
    one = "/api/v0/endptjobs/7/"
    threaded_peers.console_replies |= {
        ("GET", one + "status/"): json_reply(STATUS),
        ("GET", one + "decisions/"): json_reply({"decisions": [DECISION]}),
        ("GET", one + "costs/"): json_reply({"dollars": 1.25, "by_worker": {"0a1b": 0.5}}),
        ("GET", one + "advice/"): json_reply({"advice": ADVICE}),
        ("PUT", one + "advice/"): ok,
        ("GET", one + "hosts/"): json_reply({"hosts": HOSTS}),
        ("POST", one + "hosts/unblock/"): json_reply({"success": True, "unblocked": [17, 18]}),
        ("DELETE", one + "advice/"): ok,
        ("POST", "/get_endpoint_workers/"): json_reply([WORKER]),
        ("POST", "/get_autogroup_workers/"): json_reply([WORKER]),
        ("POST", "/get_endpoint_logs/"): json_reply(
            {"info0": "one\ntwo\n", "info1": "", "trace": "", "debug": "d\n"}
        ),
        ("POST", "/get_autogroup_logs/"): json_reply({"info0": "of the group\n"}),
        ("PUT", one): ok,
        ("DELETE", one): ok,
        ("GET", "/api/v0/workergroups/"): json_reply({"success": True, "results": [GROUP]}),
        ("POST", "/api/v0/workergroups/"): json_reply({"success": True, "id": 5}),
        ("PUT", "/api/v0/workergroups/5/"): ok,
        ("DELETE", "/api/v0/workergroups/5/"): ok,
        ("POST", "/get_worker/"): json_reply(
            {
                "success": True,
                "worker": WORKER
                | {
                    "error_msg": "the repository is gated: accept its licence",
                    "boot": [
                        {"phase": "pending", "at": 1_700_000_000.0, "seconds": 1.5},
                        {"phase": "download", "at": 1_700_000_001.5, "seconds": 30.0},
                        {"phase": "error", "at": 1_700_000_031.5, "seconds": 0.0},
                    ],
                },
            }
        ),
        ("POST", "/change_worker/"): json_reply(
            {"success": True, "launch_id": "0a1b2c3d4e5f", "action": "drain"}
        ),
        ("POST", "/update_workers/"): json_reply({"success": True, "workers_to_update": 2}),
    }
    return threaded_peers


@pytest.fixture
def stoker(peers) -> Stoker:
    """Runs the command against the fake engine."""

    def run(*arguments: str, stdin: str | None = None, **environ: str) -> Result:
        environ = {
            "STOKER_URL": peers.url,
            "STOKER_API_KEY": ACCOUNT_KEY,
            "STOKER_CONFIG": "/nonexistent",
        } | environ
        result = CliRunner().invoke(app, list(arguments), input=stdin, env=environ)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        assert ACCOUNT_KEY not in result.output
        return result

    return run
