"""Order strings: `dlperf_usd-,dph` → best price-performance first, then the cheapest."""

import re
from typing import Any

from market.query.errors import GrammarError, shown

Order = tuple[tuple[str, str], ...]

ALIASES = {
    "cuda_vers": "cuda_max_good",
    "display_active": "gpu_display_active",
    "dlperf_usd": "dlperf_per_dphtotal",
    "dph": "dph_total",
    "flops_usd": "flops_per_dphtotal",
}
"""Short names of the CLI → the API's columns."""

_TERM = re.compile(r"([+-]?)([A-Za-z0-9_]+)([+-]?)")


def parse_order(order: Any) -> Order:
    """`score-,dph` (a `-` before or after a field is descending) or the API's `[[field, "asc"|"desc"]]`.

    Raises GrammarError.
    """
    if isinstance(order, str):
        return tuple(_term(name.strip(), order) for name in order.split(",") if name.strip())
    if not isinstance(order, list | tuple):
        raise GrammarError(
            f"an order must be text or a list of [field, direction], not {type(order).__name__}"
        )
    return tuple(_pair(entry) for entry in order)


def _term(text: str, whole: str) -> tuple[str, str]:
    found = _TERM.fullmatch(text)
    if found is None or (found[1] and found[3]):
        raise GrammarError(
            f"expected a field name with an optional - or +, got {shown(text)}",
            position=whole.find(text),
            advice="for example `dlperf_usd-,dph`",
        )
    return ALIASES.get(found[2], found[2]), "desc" if "-" in (found[1], found[3]) else "asc"


def _pair(entry: Any) -> tuple[str, str]:
    if isinstance(entry, list | tuple) and len(entry) == 2 and all(isinstance(part, str) for part in entry):
        field, direction = entry
        if _TERM.fullmatch(field) and direction in ("asc", "desc"):
            return ALIASES.get(str(field), str(field)), str(direction)
    raise GrammarError(f'expected ["field", "asc" or "desc"], got {shown(entry)}')
