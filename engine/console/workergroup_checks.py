"""What a workergroup says is checked before its workflow hears of it: a person is told at once, not by a decision log."""

from collections.abc import Callable

from engine.console.market import MarketWindow
from market.grammar import GrammarError, parse_filters, parse_launch_args
from stoker_wire.problem import Problem
from stoker_wire.workergroup import Workergroup


async def check(group: Workergroup, window: MarketWindow) -> None:
    """Raises Problem 400: search params or launch args that cannot be read, or a template that the marketplace does not have.

    A marketplace that does not answer refuses nothing: its word comes with the first search.
    """
    _readable("invalid_search_params", "search_params", lambda: parse_filters(group.search_params))
    _readable("invalid_launch_args", "launch_args", lambda: parse_launch_args(group.launch_args))
    if await window.has_template(group.template_hash, group.template_id) is False:
        said = f"hash {group.template_hash!r}" if group.template_hash else f"id {group.template_id}"
        raise Problem(
            400,
            "no_such_template",
            f"the marketplace has no template with {said}; create it there, or correct the name",
        )


def _readable(code: str, field: str, read: Callable[[], object]) -> None:
    try:
        read()
    except GrammarError as fault:
        raise Problem(400, code, f"{field}: {fault}") from None
