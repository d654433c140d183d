"""Checks of a workergroup before it reaches the workflow, so that the caller gets the error at once."""

from collections.abc import Callable

from engine.console.market import MarketApi
from market.query import GrammarError, parse_filters, parse_launch_args
from stoker_wire.errors.problem import Problem
from stoker_wire.security.redaction import REFERENCE, plaintext_secrets
from stoker_wire.workergroup import Workergroup


async def check(group: Workergroup, market: MarketApi) -> None:
    """Check search params, launch args and template. The template is accepted while the marketplace does not answer.

    Raises:
        Problem: 400, search params or launch args cannot be parsed, or the template does not exist.
    """
    check_search(group)
    _check_secrets(group)
    if await market.has_template(group.template_hash, group.template_id) is False:
        message = f"hash {group.template_hash!r}" if group.template_hash else f"id {group.template_id}"
        raise Problem(
            400,
            "no_such_template",
            f"the marketplace has no template with {message}; create it there, or correct the name",
        )


def check_search(group: Workergroup) -> None:
    """Check that search params and launch args can be parsed.

    Raises:
        Problem: 400.
    """
    _check_grammar("invalid_search_params", "search_params", lambda: parse_filters(group.search_params))
    _check_grammar("invalid_launch_args", "launch_args", lambda: parse_launch_args(group.launch_args))


def _check_secrets(group: Workergroup) -> None:
    """Reject secrets in launch args: the workflow history stores them for everyone who can read it."""
    args = parse_launch_args(group.launch_args)
    if plain := plaintext_secrets(args.env):
        name = plain[0]
        message = (
            f"{name} looks like a secret in plain text; set STOKER_SECRET_{name} for the deployment "
            f"and write {name}={REFERENCE}{name}"
        )
        raise Problem(400, "plain_secret", f"launch_args: {message}, or set it in the marketplace's template")
    if "image_login" in args.extra:
        message = "the workflow history would contain a registry password; name the login in the marketplace's template"
        raise Problem(400, "plain_secret", f"launch_args: --login is not accepted: {message}")


def _check_grammar(code: str, field: str, read: Callable[[], object]) -> None:
    try:
        read()
    except GrammarError as fault:
        raise Problem(400, code, f"{field}: {fault}") from None
