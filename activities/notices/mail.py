"""E-mail by SMTP, with the standard library. One message per delivery."""

import asyncio
import contextlib
import smtplib
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from typing import Literal

import structlog

from activities.notices.errors import NotDelivered
from stoker_wire.alerts import Notice
from stoker_wire.parsing.escaping import escape_line

log = structlog.get_logger(__name__)

OPERATION_SECONDS_MAX = 15.0
"""One answer of the server."""
TRY_SECONDS_MAX = 20.0
"""One try in all: a server may answer each command late."""
_SUBJECT_CHARS_MAX = 160
_GREETING = 220


@dataclass(frozen=True, slots=True, kw_only=True)
class MailBox:
    """Receivers of e-mail and the server that takes it."""

    host: str
    port: int
    tls: Literal["starttls", "tls", "none"]
    sender: str
    recipients: tuple[str, ...]
    user: str = ""
    """Empty: no login."""
    password: str = field(default="", repr=False)
    context: ssl.SSLContext | None = field(default=None, repr=False)
    """None: the system's certificate authorities."""
    operation_seconds_max: float = OPERATION_SECONDS_MAX
    try_seconds_max: float = TRY_SECONDS_MAX

    async def deliver(self, notices: Sequence[Notice]) -> None:
        """Send one message with all notices.

        Raises:
            NotDelivered: the server does not answer, or refuses the message.
        """
        sending = _Sending(self, message_of(notices, sender=self.sender, recipients=self.recipients))
        try:
            async with asyncio.timeout(self.try_seconds_max):
                await asyncio.to_thread(sending.run)
        except TimeoutError:
            raise NotDelivered(
                f"the mail server did not take the message within {self.try_seconds_max:.0f} s"
            ) from None
        finally:
            sending.abort()  # a process that stops waits for its threads


class _Sending:
    """One SMTP dialogue in a thread, which `abort` ends from outside."""

    def __init__(self, box: MailBox, message: EmailMessage) -> None:
        self._box = box
        self._message = message
        self._connection: smtplib.SMTP | None = None

    def run(self) -> None:
        try:
            refused = self._send()
        except smtplib.SMTPRecipientsRefused as error:
            codes = {code for code, _ in error.recipients.values()}
            raise NotDelivered(
                f"the mail server refuses every recipient ({_codes(codes)})", final=min(codes) >= 500
            ) from None
        except smtplib.SMTPAuthenticationError as error:
            raise NotDelivered(
                f"the mail server refuses the login ({error.smtp_code}); check user and password"
            ) from None
        except smtplib.SMTPNotSupportedError:
            raise NotDelivered(
                "the mail server offers no STARTTLS, or no login; check tls and user"
            ) from None
        except smtplib.SMTPServerDisconnected:
            raise NotDelivered("the mail server closed the connection or does not answer") from None
        except smtplib.SMTPResponseException as error:
            refuses = isinstance(error, smtplib.SMTPDataError) and error.smtp_code >= 500
            raise NotDelivered(f"the mail server answered {error.smtp_code}", final=refuses) from None
        except ssl.SSLCertVerificationError as error:
            raise NotDelivered(
                f"the mail server's certificate is not valid: {error.verify_message}"
            ) from None
        except ssl.SSLError:
            raise NotDelivered("no TLS connection to the mail server; check port and tls") from None
        except (OSError, smtplib.SMTPException, ValueError) as error:
            reason = getattr(error, "strerror", "") or type(error).__name__
            raise NotDelivered(f"no connection to the mail server: {reason}") from None
        if refused:
            # The others have it: a retry would send it to them again.
            log.warning(
                "mail_recipients_refused", count=len(refused), codes=_codes({c for c, _ in refused.values()})
            )

    def abort(self) -> None:
        """Close the connection, if it is open, so that the thread ends."""
        connected: socket.socket | None = getattr(self._connection, "sock", None)
        if connected is not None:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    def _send(self) -> dict[str, tuple[int, bytes]]:
        box = self._box
        context = box.context or ssl.create_default_context()
        if box.tls == "tls":
            connection: smtplib.SMTP = smtplib.SMTP_SSL(timeout=box.operation_seconds_max, context=context)
        else:
            connection = smtplib.SMTP(timeout=box.operation_seconds_max)
        # Only the constructor sets it, and it would connect at once: `abort` needs the connection before that.
        connection._host = box.host  # type: ignore[attr-defined]
        self._connection = connection
        code, text = connection.connect(box.host, box.port)
        try:
            if code != _GREETING:
                raise smtplib.SMTPConnectError(code, text)
            if box.tls == "starttls":
                connection.starttls(context=context)
            if box.user:
                connection.login(box.user, box.password)
            refused = connection.send_message(self._message)
        finally:
            with contextlib.suppress(OSError, smtplib.SMTPException):
                connection.quit()
        return refused


def message_of(notices: Sequence[Notice], *, sender: str, recipients: Sequence[str]) -> EmailMessage:
    """The message. Its id depends only on the notices, so that a mail system can recognise a repeated one."""
    first = notices[0]
    domain = sender.rpartition("@")[2] or "stoker"
    message = EmailMessage(policy=SMTP)
    message["From"] = sender
    message["To"] = ", ".join(recipients)
    message["Subject"] = _subject(notices)
    message["Date"] = datetime.fromtimestamp(first.at, UTC)
    message["Message-ID"] = f"<{first.id}@{domain}>"
    if first.state == "resolved":
        message["References"] = message["In-Reply-To"] = f"<{first.incident}.firing@{domain}>"
    message["Auto-Submitted"] = "auto-generated"
    message["X-Stoker-Notice-Ids"] = " ".join(each.id for each in notices)
    message.set_content("\n".join(map(_section, notices)))
    return message


def _subject(notices: Sequence[Notice]) -> str:
    first = notices[0]
    where = f"[{first.deployment or 'stoker'}]"
    more = f" and {len(notices) - 1} more" if len(notices) > 1 else ""
    subject = escape_line(f"{where} {first.state}: {first.alert} {first.subject}".rstrip())
    return subject[:_SUBJECT_CHARS_MAX] + more


def _section(notice: Notice) -> str:
    at = datetime.fromtimestamp(notice.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    lines = [
        f"{notice.state}: {notice.alert} ({notice.severity})",
        notice.summary,
        f"at {at}",
        f"incident {notice.incident}",
        f"what to do: {notice.runbook}" if notice.runbook else "",
    ]
    return "".join(f"{escape_line(line)}\n" for line in lines if line)


def _codes(codes: set[int]) -> str:
    return ", ".join(str(each) for each in sorted(codes))
