"""`stoker keys`."""

import json

from tests.sdk.cli.test_commands import sent
from tests.sdk.management.test_keys import KEYS, MADE, ROW
from tests.sdk.peers import json_reply


def test_a_created_key_is_printed_alone_on_standard_output(peers, stoker):
    peers.console_replies["POST", KEYS] = MADE
    made = stoker("keys", "create", "llm", "app", "--load-per-second", "5", "--priority", "low")
    assert made.stdout == "sk-ep-7-" + "a" * 40 + "\n"
    assert "not shown again" in made.stderr
    shown = json.loads(stoker("keys", "create", "llm", "app", "--dollars-per-day", "2", "--json").stdout)
    assert shown["api_key"].startswith("sk-ep-7-")
    assert sent(peers, "POST", KEYS)[1]["dollars_per_day"] == 2.0


def test_keys_are_listed_and_revoked(peers, stoker):
    peers.console_replies["GET", KEYS] = json_reply({"success": True, "keys": [ROW]})
    peers.console_replies["DELETE", KEYS + "app/"] = json_reply({"success": True})
    assert "app" in stoker("keys", "list", "llm").stdout
    assert json.loads(stoker("keys", "list", "llm", "--json").stdout)[0]["load_per_second"] == 5.0
    assert stoker("keys", "revoke", "llm", "app").stdout == "key app of endpoint llm is revoked\n"


def test_a_limit_that_is_no_number_is_refused_before_anything_is_sent(peers, stoker):
    for value in ("nan", "-1", "0", "x"):
        done = stoker("keys", "create", "llm", "app", f"--load-per-second={value}")
        assert done.exit_code != 0, value
        assert "load" in done.output.replace("-", " "), done.output
    assert sent(peers, "POST", KEYS) == []
