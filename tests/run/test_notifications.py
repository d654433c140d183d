"""The settings of notices are checked at the start; a secret is never in a message, a repr or the plan."""

import base64
import json

import pytest

from run.commands.notify import send_test
from run.errors import CommandError
from run.notifications import NotifySettings
from run.settings import load_settings
from run.state_folder.keys import environment_for
from tests.activities.notices.receivers import HttpReceiver, SmtpReceiver

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def webhook(url: str, more: str = "") -> str:
    return f"notify: {{webhooks: [{{name: ops, url: '{url}'{more}}}]}}"


def mail(**changes: str) -> str:
    fields = {
        "name": "mail",
        "host": "smtp.example.org",
        "sender": "a@example.org",
        "recipients": ["b@example.org"],
    }
    return f"notify: {{email: [{json.dumps(fields | changes)}]}}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (webhook("ftp://example.org/"), "channel ops: url should be https://"),
        (webhook("https:///path"), "channel ops: url should be https://"),
        (webhook("example.org/hook"), "channel ops: url should be https://"),
        (webhook("https://exa mple.org/"), "in ASCII, without spaces"),
        (webhook("https://example.org/é"), "in ASCII, without spaces"),
        (webhook("https://user:hunter2@example.org/"), "should have no user and password"),
        (webhook("https://example.org/#hunter2"), "should have no fragment"),
        (webhook("https://example.org:99999/hunter2"), "channel ops: url .*[Pp]ort"),
        (webhook("https://[::1/hunter2"), "channel ops: url "),
        (webhook("http://example.org/hunter2"), "should begin with https://; .* plain_http: true"),
        (webhook("http://169.254.169.254/hunter2", ", plain_http: true"), "metadata address"),
        (webhook("https://[fe80::1]/hunter2"), "metadata address"),
        (webhook("https://metadata.google.internal/hunter2"), "metadata address"),
        (webhook("https://0.0.0.0/hunter2"), "metadata address"),
        (webhook("https://2852039166/hunter2"), "should name a host or an IP address"),
        (webhook("https://0xa9.0xfe.0xa9.0xfe/hunter2"), "should name a host or an IP address"),
        (
            webhook("https://example.org/", ", alerts: [StokerNoCapcity]"),
            "should be one of Stoker.*NoCapcity",
        ),
        (webhook("https://example.org/", ", secret: hunter2"), "secret: Extra inputs are not permitted"),
        ("notify: {webhooks: [{name: OPS, url: 'https://a.b/'}]}", "notify.webhooks.0.name"),
        (
            "notify: {webhooks: [{name: a, url: 'https://a.b/'}, {name: a, url: 'https://a.b/'}]}",
            "two channels have the name a",
        ),
        (
            "notify: {webhooks: ["
            + ", ".join(f"{{name: a{n}, url: 'https://a.b/'}}" for n in range(9))
            + "]}",
            "there may be 8 channels, not 9",
        ),
        (mail(tls="none"), "tls: none is allowed only to a mail server on this machine"),
        (mail(sender="a@b.c\nBcc: d@e.f"), "notify.email.0.sender: .*mail address"),
        (mail(host="smtp.example.org:25"), "should be the mail server's name"),
        (mail(host="169.254.169.254"), "metadata address"),
        ("notify: {deployment: 'a\\nb'}", "notify.deployment"),
    ],
)
def test_an_error_says_what_should_change(tmp_path, text, said):
    path = tmp_path / "stoker.yaml"
    path.write_text(text)
    with pytest.raises(CommandError, match=said) as caught:
        load_settings(path)
    assert "hunter2" not in str(caught.value)


def test_the_address_and_the_secrets_are_in_no_repr_and_not_in_the_plan(monkeypatch):
    settings = NotifySettings.model_validate(
        {
            "webhooks": [{"name": "ops", "url": "https://example.org/hunter2"}],
            "email": [
                {
                    "name": "mail", "host": "smtp.example.org", "user": "stoker", "sender": "a@example.org",
                    "recipients": ["b@example.org"],
                }
            ],
        }
    )  # fmt: skip
    channels = settings.channels(
        {"STOKER_NOTIFY_SECRET_OPS": SECRET, "STOKER_NOTIFY_SECRET_MAIL": "swordfish"}
    )
    shown = f"{settings!r} {channels!r} {settings.plan()!r}"
    assert "hunter2" not in shown
    assert "swordfish" not in shown
    assert SECRET.removeprefix("whsec_") not in shown


@pytest.mark.parametrize(
    ("channel", "environ", "said"),
    [
        ({"webhooks": [{"name": "on-call", "url": "https://a.b/"}]}, {}, "STOKER_NOTIFY_SECRET_ON_CALL\\) is missing"),
        ({"webhooks": [{"name": "ops", "url": "https://a.b/"}]}, {"STOKER_NOTIFY_SECRET_OPS": "hunter2"}, "should begin with whsec_"),
        ({"email": [{"name": "mail", "host": "a.b", "user": "u", "sender": "a@b.c", "recipients": ["a@b.c"]}]}, {}, "the password is missing; set STOKER_NOTIFY_SECRET_MAIL"),
        ({"webhooks": [{"name": "ops", "url": "https://a.b/", "secret_file": "/nowhere/secret"}]}, {}, "secret_file /nowhere/secret cannot be read"),
        ({"webhooks": [{"name": "ops", "url": "https://a.b/", "ca_file": "/nowhere/ca.pem"}]}, {"STOKER_NOTIFY_SECRET_OPS": SECRET}, "ca_file /nowhere/ca.pem should be a PEM file"),
    ],
)  # fmt: skip
def test_a_missing_or_bad_secret_is_an_error_before_anything_starts(channel, environ, said):
    with pytest.raises(CommandError, match=said) as caught:
        NotifySettings.model_validate(channel).channels(environ)
    assert "hunter2" not in str(caught.value)


def test_a_secret_file_is_relative_to_the_settings_and_holds_one_secret(tmp_path, monkeypatch):
    path, secret = tmp_path / "stoker.yaml", tmp_path / "ops.secret"
    path.write_text(webhook("https://example.org/", ", secret_file: ops.secret"))
    secret.write_text(f"{SECRET}\n")
    monkeypatch.chdir("/")
    settings = load_settings(path).notify
    assert "ops" in settings.channels({})
    secret.write_text("")
    with pytest.raises(CommandError, match="should hold one line with the secret"):
        settings.channels({})


@pytest.mark.parametrize(
    ("role", "given"),
    [("engine", True), ("worker", True), ("market", False), ("dashboard", False), (None, False)],
)
def test_only_engines_and_workers_get_the_secrets(role, given):
    assert ("STOKER_NOTIFY_SECRET_OPS" in environment_for(role, {"STOKER_NOTIFY_SECRET_OPS": "x"})) is given


async def test_a_test_notice_goes_through_every_channel_and_each_answer_is_shown(monkeypatch):
    said: list[str] = []
    async with HttpReceiver() as good, HttpReceiver() as bad, SmtpReceiver() as smtp:
        bad.answers = [404]
        settings = NotifySettings.model_validate(
            {
                "deployment": "test",
                "webhooks": [{"name": "good", "url": good.url}, {"name": "bad", "url": bad.url}],
                "email": [
                    {
                        "name": "mail", "host": "127.0.0.1", "port": smtp.port, "tls": "none",
                        "sender": "a@example.org", "recipients": ["b@example.org"],
                    }
                ],
            }
        )  # fmt: skip
        for name in ("GOOD", "BAD"):
            monkeypatch.setenv(f"STOKER_NOTIFY_SECRET_{name}", SECRET)
        failed = await send_test(settings, only=None, say=said.append)
        assert smtp.accepted[0].message["Subject"] == "[test] test: StokerTest"
        assert len(good.requests) == 1
        with pytest.raises(
            CommandError, match="there is no channel 'pager'; the settings have good, bad, mail"
        ):
            await send_test(settings, only="pager", say=said.append)
    assert failed == ["bad"]
    assert said[1] == "bad: not delivered: the receiver answered 404"
    assert said[0].startswith("good: delivered in ")


async def test_a_test_without_channels_says_where_to_add_one():
    with pytest.raises(CommandError, match="add one under notify"):
        await send_test(NotifySettings(), only=None, say=print)
