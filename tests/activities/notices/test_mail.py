"""Notices as e-mail, to a real SMTP server. No text of others can add a header or reach a terminal as a command."""

import asyncio
import ssl

import pytest

from activities.notices.errors import NotDelivered
from activities.notices.mail import MailBox, message_of
from tests.activities.notices.receivers import SmtpReceiver

HOSTILE = "llm\r\nBcc: thief@example.org\r\n\r\n\x1b]0;title\x07 \u202e <script>"


def box(server: SmtpReceiver, **changes: object) -> MailBox:
    given: dict[str, object] = {
        "host": "127.0.0.1",
        "port": server.port,
        "tls": "none",
        "sender": "stoker@example.org",
        "recipients": ("ops@example.org", "night@example.org"),
    }
    return MailBox(**(given | changes))  # type: ignore[arg-type]


def text_of(message) -> str:
    return message.get_content().replace("\r\n", "\n")


async def refused(channel: MailBox, notice) -> NotDelivered:
    with pytest.raises(NotDelivered) as caught:
        await channel.deliver([notice()])
    assert "hunter2" not in str(caught.value)
    return caught.value


async def test_a_message_says_what_began_and_what_to_do(mail, notice):
    await box(mail).deliver([notice()])
    (found,) = mail.accepted
    assert (found.sender, found.recipients) == (
        "stoker@example.org",
        ["ops@example.org", "night@example.org"],
    )
    message = found.message
    assert message["Subject"] == "[test] firing: StokerNoCapacity llm"
    assert message["Message-ID"] == "<abc.firing@example.org>"
    assert message["Date"] == "Mon, 02 Mar 2026 22:20:00 +0000"
    assert text_of(message) == (
        "firing: StokerNoCapacity (page)\n"
        "llm: 2 requests wait and no worker can take them\n"
        "at 2026-03-02 22:20:00 UTC\n"
        "incident abc\n"
        "what to do: docs/how-to/alerts.md#stokernocapacity\n"
    )


async def test_the_end_of_an_incident_belongs_to_the_thread_of_its_beginning(mail, notice):
    await box(mail).deliver([notice(id="abc.resolved", state="resolved")])
    assert mail.accepted[0].message["In-Reply-To"] == "<abc.firing@example.org>"


async def test_many_notices_are_one_message_with_a_stable_id(mail, notice):
    notices = [notice(id=f"{n}.firing", incident=f"{n}", subject=f"llm-{n}") for n in range(20)]
    for _ in range(2):
        await box(mail).deliver(notices)
    first, second = (found.message for found in mail.accepted)
    assert first["Subject"] == "[test] firing: StokerNoCapacity llm-0 and 19 more"
    assert first["Message-ID"] == second["Message-ID"]
    assert first.get_content().count("incident ") == 20


@pytest.mark.parametrize("name", ["subject", "summary", "runbook", "alert", "deployment"])
async def test_hostile_text_adds_no_header_and_no_control_character(mail, notice, name):
    await box(mail).deliver([notice(**{name: HOSTILE})])
    (found,) = mail.accepted
    message = found.message
    assert message["Bcc"] is None
    assert found.recipients == ["ops@example.org", "night@example.org"]
    text = message["Subject"] + text_of(message)
    assert not [char for char in text if not char.isprintable() and char != "\n"]
    assert "thief" in text  # shown, escaped


async def test_a_long_name_in_another_script_is_shown(mail, notice):
    await box(mail).deliver([notice(subject="моделька-" * 60, summary="模型 " * 90)])
    message = mail.accepted[0].message
    assert message["Subject"].startswith("[test] firing: StokerNoCapacity моделька-")
    assert len(message["Subject"]) <= 160
    assert "模型" in message.get_content()
    assert max(map(len, mail.accepted[0].raw.split(b"\r\n"))) < 998


@pytest.fixture
def server_tls(certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def test_the_password_is_sent_after_starttls(server_tls, certificate, notice):
    async with SmtpReceiver(tls=server_tls, password="hunter2") as server:
        trust = ssl.create_default_context(cafile=certificate)
        await box(server, tls="starttls", user="stoker", password="hunter2", context=trust).deliver(
            [notice()]
        )
        assert [(found.encrypted, found.login) for found in server.accepted] == [(True, "stoker")]


async def test_a_server_with_another_certificate_gets_no_password(server_tls, notice):
    async with SmtpReceiver(tls=server_tls, password="hunter2") as server:
        error = await refused(box(server, tls="starttls", user="stoker", password="hunter2"), notice)
        assert server.accepted == []
    assert "certificate is not valid" in str(error)


async def test_a_server_with_a_certificate_for_another_name_is_refused(server_tls, certificate, notice):
    async with SmtpReceiver(tls=server_tls) as server:
        trust = ssl.create_default_context(cafile=certificate)
        error = await refused(box(server, tls="starttls", host="localhost", context=trust), notice)
    assert "certificate is not valid" in str(error)


async def test_a_server_without_starttls_gets_no_message(mail, notice):
    error = await refused(box(mail, tls="starttls", user="stoker", password="hunter2"), notice)
    assert "no STARTTLS" in str(error)
    assert mail.accepted == []


async def test_a_wrong_password_is_an_error_that_can_be_repaired(server_tls, certificate, notice):
    async with SmtpReceiver(tls=server_tls, password="another") as server:
        trust = ssl.create_default_context(cafile=certificate)
        error = await refused(
            box(server, tls="starttls", user="stoker", password="hunter2", context=trust), notice
        )
    assert (str(error), error.final) == (
        "the mail server refuses the login (535); check user and password",
        False,
    )


@pytest.mark.parametrize(
    ("command", "reply", "said", "final"),
    [
        ("CONNECT", "421 busy", "answered 421", False),
        ("EHLO", "500 what", "", False),
        ("MAIL", "451 later", "answered 451", False),
        ("MAIL", "550 no", "answered 550", False),
        ("RCPT", "450 greylisted", "refuses every recipient (450)", False),
        ("RCPT", "550 unknown", "refuses every recipient (550)", True),
        ("DATA", "451 later", "answered 451", False),
        ("END", "554 spam", "answered 554", True),
        ("END", "452 full", "answered 452", False),
        ("CONNECT", "SSH-2.0", "", False),
    ],
)
async def test_a_refusal_says_whether_another_try_makes_sense(mail, notice, command, reply, said, final):
    mail.replies[command] = reply
    if command == "EHLO":
        mail.replies["HELO"] = reply
    error = await refused(box(mail), notice)
    assert said in str(error)
    assert error.final is final


async def test_one_refused_recipient_does_not_keep_the_others_from_their_message(mail, notice):
    mail.replies["night@example.org"] = "550 unknown"
    await box(mail).deliver([notice()])
    assert [found.recipients for found in mail.accepted] == [["ops@example.org"]]


async def test_a_server_that_says_nothing_is_given_up(notice):
    async with SmtpReceiver(silent=True) as server:
        error = await refused(box(server, operation_seconds_max=0.3), notice)
        assert str(error) == "the mail server closed the connection or does not answer"
        error = await refused(box(server, try_seconds_max=0.3), notice)
        assert "did not take the message within" in str(error)


async def test_a_try_that_is_cancelled_leaves_no_thread_behind(notice):
    asked, ended = asyncio.Event(), asyncio.Event()

    async def answer_only_the_connection(reader, writer):
        writer.write(b"220 test\r\n")
        await reader.readline()
        asked.set()
        await reader.read()
        ended.set()
        writer.close()

    async with await asyncio.start_server(answer_only_the_connection, "127.0.0.1", 0) as server:
        channel = box(SmtpReceiver(port=server.sockets[0].getsockname()[1]), try_seconds_max=60)
        trying = asyncio.create_task(channel.deliver([notice()]))
        await asyncio.wait_for(asked.wait(), 60)
        trying.cancel()
        # Its thread would wait for the answer for 15 s, and once more for the reply to QUIT.
        await asyncio.wait_for(ended.wait(), 10)
        await asyncio.gather(trying, return_exceptions=True)


async def test_tls_to_a_port_without_it_is_an_error(mail, notice):
    error = await refused(box(mail, tls="tls", operation_seconds_max=5), notice)
    assert not error.final


def test_the_message_lists_the_ids_of_all_notices(notice):
    message = message_of([notice(), notice(id="x.resolved")], sender="a@b.c", recipients=["d@e.f"])
    assert message["X-Stoker-Notice-Ids"] == "abc.firing x.resolved"
