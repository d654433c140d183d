"""The settings of notifications, and the channels that they describe."""

import re
import ssl
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field, model_validator

from activities.notices.deliver import Channel
from activities.notices.mail import MailBox
from activities.notices.reporting import NoticePlan
from activities.notices.webhook import Webhook, is_forbidden, signing_key
from policy.alerting.rules import RULES
from run.errors import CommandError
from run.state_folder.keys import NOTIFY_SECRET_PREFIX
from stoker_wire.alerts import CHANNELS_MAX, NoticeChannel
from stoker_wire.base import StrictModel
from stoker_wire.security.loopback import is_loopback

MAIL_BATCH_MAX = 20
"""Notices in one message. Doubled: fewer and longer messages when many endpoints fail at once."""
_SECRET_BYTES_MAX = 4096
_METADATA_NAMES = frozenset({"metadata", "metadata.google.internal", "metadata.goog", "instance-data"})
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-fA-F]*")
"""The last label of a name that a resolver may read as an IP address."""
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")


def _known_alert(name: str) -> str:
    if name not in RULES:
        raise ValueError(f"should be one of {', '.join(sorted(RULES))}")
    return name


def _mail_address(value: str) -> str:
    if not _ADDRESS.fullmatch(value):
        raise ValueError("should be a mail address in ASCII, without a display name, such as ops@example.org")
    return value


def _server(value: str) -> str:
    if not _HOST.fullmatch(value) and not _is_ip(value):
        raise ValueError("should be the mail server's name or IP address, without scheme and port")
    _require_allowed_host(value)
    return value


MailAddress = Annotated[str, AfterValidator(_mail_address)]
AlertName = Annotated[str, AfterValidator(_known_alert)]
ChannelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]


class _ChannelSettings(StrictModel):
    name: ChannelName
    """Unique; part of the name of the secret's variable."""
    alerts: tuple[AlertName, ...] = ()
    """Only these alerts, by name; empty: all."""
    secret_file: Path | None = None
    """File with the secret. None: the variable STOKER_NOTIFY_SECRET_<NAME>."""
    ca_file: Path | None = None
    """PEM of the certificate authority of the receiver. None: the system's authorities."""

    def secret(self, environ: Mapping[str, str]) -> str:
        """The channel's secret; empty if it has no secret.

        Raises:
            CommandError: the file is missing, unreadable, empty or too large.
        """
        if self.secret_file is None:
            return environ.get(self.variable, "").strip()
        try:
            with self.secret_file.open("rb") as file:
                content = file.read(_SECRET_BYTES_MAX + 1)
            secret = content.decode().strip()
        except (OSError, UnicodeDecodeError) as fault:
            raise CommandError(
                f"notify: channel {self.name}: secret_file {self.secret_file} cannot be read: {fault}"
            ) from None
        if not secret or len(content) > _SECRET_BYTES_MAX:
            raise CommandError(
                f"notify: channel {self.name}: secret_file {self.secret_file} should hold one line with the secret"
            )
        return secret

    @property
    def variable(self) -> str:
        """The environment variable of the secret."""
        return NOTIFY_SECRET_PREFIX + self.name.upper().replace("-", "_")

    def trust(self) -> ssl.SSLContext | None:
        """The receiver's certificate authority; None: the system's.

        Raises:
            CommandError: the file is no PEM of certificates.
        """
        if self.ca_file is None:
            return None
        try:
            return ssl.create_default_context(cafile=str(self.ca_file))
        except (OSError, ValueError) as fault:
            raise CommandError(
                f"notify: channel {self.name}: ca_file {self.ca_file} should be a PEM file with certificates: {fault}"
            ) from None


_Settings = TypeVar("_Settings", bound=_ChannelSettings)


class WebhookSettings(_ChannelSettings):
    """A receiver of signed POST requests."""

    url: str = Field(max_length=2048, repr=False)
    """`https://…`. It is never logged and never reaches Temporal, because it may contain a secret."""
    plain_http: bool = False
    """Allow `http://` to a host other than this one. Notices are then readable on the network, but still signed."""

    @model_validator(mode="after")
    def _url_is_a_receiver(self) -> Self:
        # Not a field constraint: its error message would contain the URL.
        try:
            parsed = urlsplit(self.url)
            _require_receiver(parsed, self.url, plain_http=self.plain_http)
        except ValueError as fault:
            raise ValueError(f"channel {self.name}: url {fault}") from None
        return self

    def channel(self, environ: Mapping[str, str]) -> Webhook:
        """The channel with its secret.

        Raises:
            CommandError: the secret is missing or has another form.
        """
        try:
            key = signing_key(self.secret(environ))
        except ValueError as fault:
            raise CommandError(
                f"notify: channel {self.name}: the secret ({self.secret_file or self.variable}) {fault}"
            ) from None
        return Webhook(url=self.url, key=key, tls=self.trust())


class MailSettings(_ChannelSettings):
    """Receivers of e-mail."""

    host: Annotated[str, AfterValidator(_server)]
    """The mail server that accepts the messages."""
    port: int = Field(587, ge=1, le=65535)
    """587: STARTTLS; 465: TLS from the start; 25: between servers."""
    tls: Literal["starttls", "tls", "none"] = "starttls"
    """`none` only to a server on this machine."""
    user: str = Field("", max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")
    """Login. Its password is the channel's secret. Empty: no login."""
    sender: MailAddress
    recipients: tuple[MailAddress, ...] = Field(min_length=1, max_length=50)

    @model_validator(mode="after")
    def _mail_is_encrypted(self) -> Self:
        if self.tls == "none" and not (self.host == "localhost" or is_loopback(self.host)):
            raise ValueError(
                f"channel {self.name}: tls: none is allowed only to a mail server on this machine; "
                "use starttls (port 587) or tls (port 465)"
            )
        return self

    def channel(self, environ: Mapping[str, str]) -> MailBox:
        """The channel with its password.

        Raises:
            CommandError: there is a user and no password.
        """
        password = self.secret(environ) if self.user or self.secret_file else ""
        if self.user and not password:
            raise CommandError(
                f"notify: channel {self.name}: user is set and the password is missing; set {self.variable} or secret_file"
            )
        if not password.isprintable():
            raise CommandError(f"notify: channel {self.name}: the password should have no control characters")
        return MailBox(
            host=self.host,
            port=self.port,
            tls=self.tls,
            sender=self.sender,
            recipients=self.recipients,
            user=self.user,
            password=password,
            context=self.trust(),
        )


class NotifySettings(StrictModel):
    """Notices of alerts by webhook and e-mail. Every engine and Temporal worker needs the same."""

    deployment: str = Field("stoker", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    """Name of the deployment in notices, such as `production`."""
    webhooks: tuple[WebhookSettings, ...] = ()
    email: tuple[MailSettings, ...] = ()

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [each.name for each in (*self.webhooks, *self.email)]
        if len(names) > CHANNELS_MAX:
            raise ValueError(
                f"there may be {CHANNELS_MAX} channels, not {len(names)}; let one receiver pass notices on"
            )
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two channels have the name {name}; give each its own")
        return self

    def plan(self) -> NoticePlan | None:
        """Names of the channels and their alerts; None without a channel."""
        channels = [NoticeChannel(name=each.name, alerts=each.alerts) for each in self.webhooks]
        channels += [
            NoticeChannel(name=each.name, alerts=each.alerts, batch_max=MAIL_BATCH_MAX) for each in self.email
        ]
        return NoticePlan(deployment=self.deployment, channels=tuple(channels)) if channels else None

    def relative_to(self, folder: Path) -> Self:
        """The settings with paths of files that are relative to this folder."""

        def moved(channel: _Settings) -> _Settings:
            files = {"secret_file": channel.secret_file, "ca_file": channel.ca_file}
            return channel.model_copy(
                update={name: folder / file for name, file in files.items() if file is not None}
            )

        return self.model_copy(
            update={"webhooks": tuple(map(moved, self.webhooks)), "email": tuple(map(moved, self.email))}
        )

    def channels(self, environ: Mapping[str, str]) -> dict[str, Channel]:
        """The channels with their secrets, by name.

        Raises:
            CommandError: a secret is missing or invalid. The message does not contain it.
        """
        webhooks: dict[str, Channel] = {each.name: each.channel(environ) for each in self.webhooks}
        return webhooks | {each.name: each.channel(environ) for each in self.email}


def _require_receiver(parsed: SplitResult, url: str, *, plain_http: bool) -> None:
    host = parsed.hostname or ""
    if (
        parsed.scheme not in ("http", "https")
        or not host
        or not url.isascii()
        or not url.isprintable()
        or " " in url
    ):
        raise ValueError("should be https://host[:port][/path] in ASCII, without spaces")
    if parsed.username is not None or parsed.password is not None:
        raise ValueError("should have no user and password; requests are signed instead")
    if parsed.fragment:
        raise ValueError("should have no fragment")
    if parsed.port == 0:
        raise ValueError("should have a port from 1 to 65535")
    if not _is_ip(host) and (not _HOST.fullmatch(host) or _NUMBER.fullmatch(host.rpartition(".")[2])):
        raise ValueError("should name a host or an IP address")
    _require_allowed_host(host)
    is_own = host == "localhost" or (_is_ip(host) and is_loopback(host))
    if parsed.scheme == "http" and not is_own and not plain_http:
        raise ValueError("should begin with https://; in a network that you trust, set plain_http: true")


def _require_allowed_host(host: str) -> None:
    if host.lower().rstrip(".") in _METADATA_NAMES or (_is_ip(host) and is_forbidden(host)):
        raise ValueError(
            "should not be a link-local, multicast or metadata address: no receiver listens there, "
            "and a cloud's metadata service would answer"
        )


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
