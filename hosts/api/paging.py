"""Order and paging of the instance list."""

import base64
from typing import Any

from market.query import Order, parse_order
from stoker_wire.errors.problem import Problem
from stoker_wire.parsing.ids import read_id
from stoker_wire.parsing.numbers import read_whole

PAGE_MAX = 25


def read_order(order: Any) -> Order:
    """The order from `[{"col": "id", "dir": "asc"}]`; by id if empty. Raises GrammarError."""
    if not order:
        return (("id", "asc"),)
    if isinstance(order, list):
        order = [
            [entry.get("col"), entry.get("dir", "asc")] if isinstance(entry, dict) else entry
            for entry in order
        ]
    return parse_order(order)


def page_token(instance_id: int) -> str:
    """The token of the page that follows this instance."""
    return base64.urlsafe_b64encode(f"after:{instance_id}".encode()).decode()


def page_begin(rows: list[dict[str, Any]], token: str | None) -> int:
    """The index at which the token's page begins. Raises Problem."""
    if not token:
        return 0
    try:
        word, _, number = base64.urlsafe_b64decode(token.encode()).decode().partition(":")
        last = read_id(number)
    except ValueError:
        word, last = "", None
    if word != "after" or last is None:
        raise Problem(
            400, "invalid_args", "after_token was not issued by this marketplace: start again without it"
        )
    for index, row in enumerate(rows):
        if row["id"] == last:
            return index + 1
    # The last instance of the previous page was destroyed: continue with the next id.
    return next((index for index, row in enumerate(rows) if row["id"] > last), len(rows))


def page_limit(text: str | None) -> int:
    """The number of instances on a page. Raises Problem."""
    if text is None:
        return PAGE_MAX
    limit = read_whole(text)
    if limit is None or not 1 <= limit <= PAGE_MAX:
        raise Problem(400, "invalid_args", f"limit must be a whole number from 1 to {PAGE_MAX}")
    return limit
