"""`launch_args`: one string of command-line options that override how an instance is created."""

from dataclasses import dataclass, field, fields, replace
from typing import Any

from market.interface import Launch
from market.query.docker_flags import parse_env
from market.query.errors import GrammarError, shown
from market.query.words import Word, split_words
from stoker_wire.parsing.numbers import read_number

_TEXT = {
    "image": "image",
    "onstart_cmd": "onstart",
    "label": "label",
    "template_hash": "template_hash",
    "login": "image_login",
    "user": "user",
    "extra": "extra",
    "entrypoint": "entrypoint",
    "jupyter_dir": "jupyter_dir",
    "mount_path": "mount_path",
    "volume_label": "volume_label",
}
_NUMBERS = {
    "disk": "disk_gb",
    "bid_price": "bid_dollars_per_hour",
    "price": "bid_dollars_per_hour",
    "create_volume": "create_volume",
    "link_volume": "link_volume",
    "volume_size": "volume_size",
}
_SWITCHES = {
    "ssh": "ssh",
    "jupyter": "jupyter",
    "direct": "direct",
    "force": "force",
    "cancel_unavail": "cancel_unavail",
    "jupyter_lab": "use_jupyter_lab",
    "lang_utf8": "lang_utf8",
    "python_utf8": "python_utf8",
}
_KNOWN = sorted({*_TEXT, *_NUMBERS, *_SWITCHES, "env", "args"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchArgs:
    """The parsed options; None: not given. `extra` holds other fields of the create call, by their API names."""

    image: str | None = None
    disk_gb: float | None = None
    env: dict[str, str] = field(default_factory=dict, repr=False)
    onstart: str | None = None
    args: tuple[str, ...] | None = None
    label: str | None = None
    template_hash: str | None = None
    bid_dollars_per_hour: float | None = None
    runtype: str | None = None
    extra: dict[str, Any] = field(default_factory=dict, repr=False)

    def over(self, launch: Launch) -> Launch:
        """The launch with these options. The launch keeps its label, and its variables override those given here."""
        given = {
            name: value
            for name in ("image", "disk_gb", "onstart", "args", "bid_dollars_per_hour", "runtype")
            if (value := getattr(self, name)) is not None
        }
        template: dict[str, Any] = (
            {"template_hash": self.template_hash, "template_id": None} if self.template_hash else {}
        )
        return replace(
            launch,
            **given,
            **template,
            env={**self.env, **launch.env},
            extra={**launch.extra, **self.extra},
        )


def parse_launch_args(text: str) -> LaunchArgs:
    """Parse a `launch_args` string with shell-like quoting. Raises GrammarError."""
    words = split_words(text)
    options: dict[str, Any] = {}
    at = 0
    while at < len(words):
        word = words[at]
        if not word.text.startswith("--") or word.text == "--":
            raise GrammarError(
                f"expected an option, got {shown(word.text)}",
                position=word.position,
                advice="options start with --; quote a value that contains blanks",
            )
        name, equals, attached = word.text[2:].partition("=")
        name = name.replace("-", "_")
        if name == "args":
            rest = ([attached] if equals else []) + [later.text for later in words[at + 1 :]]
            options["args"] = tuple(rest)
            break
        if name in _SWITCHES:
            if equals:
                raise GrammarError(f"--{name} takes no value", position=word.position)
            options[_SWITCHES[name]] = True
            at += 1
            continue
        value = Word(attached, word.position) if equals else _value(words, at)
        at += 1 if equals else 2
        _option(options, name, value, word)
    return _launch_args(options)


def _option(options: dict[str, Any], name: str, value: Word, word: Word) -> None:
    if name == "env":
        try:
            options["env"] = {**options.get("env", {}), **parse_env(value.text)}
        except GrammarError as error:
            raise GrammarError(f"--env: {error}", position=value.position) from None
    elif name in _TEXT:
        options[_TEXT[name]] = value.text
    elif name in _NUMBERS:
        options[_NUMBERS[name]] = _number(name, value)
    elif name == "onstart":
        raise GrammarError(
            "--onstart names a file on the user's machine, which cannot be read here",
            position=word.position,
            advice="give the commands themselves with --onstart-cmd",
        )
    else:
        raise GrammarError(
            f"unknown option {shown(word.text)}",
            position=word.position,
            advice="known are " + ", ".join(f"--{known}" for known in _KNOWN),
        )


def _value(words: list[Word], at: int) -> Word:
    if at + 1 == len(words):
        raise GrammarError(f"{shown(words[at].text)} needs a value", position=words[at].position)
    return words[at + 1]


def _number(name: str, value: Word) -> float:
    number = read_number(value.text)
    if number is None or number < 0:
        raise GrammarError(
            f"--{name} takes a number of at least 0, got {shown(value.text)}", position=value.position
        )
    return number


def _launch_args(options: dict[str, Any]) -> LaunchArgs:
    runtype = _runtype(options)
    entrypoint = options.pop("entrypoint", None)
    volume = _volume(options)
    known = {f.name for f in fields(LaunchArgs)} - {"extra", "runtype"}
    extra = {name: value for name, value in options.items() if name not in known}
    if entrypoint is not None:
        extra["entrypoint"] = entrypoint
    if volume:
        extra["volume_info"] = volume
    return LaunchArgs(
        runtype=runtype, extra=extra, **{name: value for name, value in options.items() if name in known}
    )


def _runtype(options: dict[str, Any]) -> str | None:
    ssh, jupyter, direct = (options.pop(name, False) for name in ("ssh", "jupyter", "direct"))
    if options.get("jupyter_dir") or options.get("use_jupyter_lab"):
        jupyter = True
    if jupyter and options.get("args") is not None:
        raise GrammarError("--jupyter and --args exclude each other", advice="use --onstart-cmd")
    if jupyter:
        return "jupyter_direc ssh_direc ssh_proxy" if direct else "jupyter_proxy ssh_proxy"
    if ssh:
        return "ssh_direc ssh_proxy" if direct else "ssh_proxy"
    if direct:
        raise GrammarError("--direct alone has no meaning", advice="add --ssh or --jupyter")
    return "args" if options.get("args") is not None else None


def _volume(options: dict[str, Any]) -> dict[str, Any]:
    create, link = options.pop("create_volume", None), options.pop("link_volume", None)
    size, path, label = (options.pop(name, None) for name in ("volume_size", "mount_path", "volume_label"))
    if create is None and link is None:
        if size is not None or path or label:
            raise GrammarError("volume options need --create-volume or --link-volume")
        return {}
    if create is not None and link is not None:
        raise GrammarError("--create-volume and --link-volume exclude each other")
    if not path:
        raise GrammarError("a volume needs --mount-path")
    volume: dict[str, Any] = {
        "mount_path": path,
        "create_new": create is not None,
        "volume_id": int(create if create is not None else link or 0),
    }
    if label:
        volume["name"] = label
    if create is not None:
        volume["size"] = size if size is not None else 15.0
    return volume
