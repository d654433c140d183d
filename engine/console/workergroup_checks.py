"""What a workergroup says is checked before its workflow hears of it: a person is told at once, not by a decision log."""

from collections.abc import Callable

from engine.console.market import MarketApi
from market.query import GrammarError, parse_filters, parse_launch_args
from stoker_wire.problem import Problem
from stoker_wire.security.redaction import REFERENCE, plaintext_secrets
from stoker_wire.workergroup import Workergroup


async def check(group: Workergroup, window: MarketApi) -> None:
    """Raises Problem 400: search params or launch args that cannot be read, or a template that the marketplace does not have.

    A marketplace that does not answer refuses nothing: its word comes with the first search.
    """
    _readable("invalid_search_params", "search_params", lambda: parse_filters(group.search_params))
    _readable("invalid_launch_args", "launch_args", lambda: parse_launch_args(group.launch_args))
    _without_secrets(group)
    if await window.has_template(group.template_hash, group.template_id) is False:
        message = f"hash {group.template_hash!r}" if group.template_hash else f"id {group.template_id}"
        raise Problem(
            400,
            "no_such_template",
            f"the marketplace has no template with {message}; create it there, or correct the name",
        )


def _without_secrets(group: Workergroup) -> None:
    """Launch args lie in the workflow's history, for everybody who can look at Temporal, for as long as it is kept."""
    args = parse_launch_args(group.launch_args)
    if plain := plaintext_secrets(args.env):
        name = plain[0]
        message = f"{name} looks like a secret in plain; give the deployment STOKER_SECRET_{name}, and say {name}={REFERENCE}{name}"
        raise Problem(400, "plain_secret", f"launch_args: {message}, or set it in the marketplace's template")
    if "image_login" in args.extra:
        message = "a registry password would lie in the workflow's history; name the login in the marketplace's template"
        raise Problem(400, "plain_secret", f"launch_args: --login is not taken: {message}")


def _readable(code: str, field: str, read: Callable[[], object]) -> None:
    try:
        read()
    except GrammarError as fault:
        raise Problem(400, code, f"{field}: {fault}") from None
