"""The marketplace's little languages: search strings, order strings, launch arguments, docker flags."""

from market.grammar.docker_flags import parse_env, read_env
from market.grammar.errors import GrammarError
from market.grammar.launch_args import LaunchArgs, parse_launch_args
from market.grammar.match import matches, sorted_by
from market.grammar.order import Order, parse_order
from market.grammar.search import Filters, merge_filters, parse_filters, parse_search, query_of

__all__ = [
    "Filters",
    "GrammarError",
    "LaunchArgs",
    "Order",
    "matches",
    "merge_filters",
    "parse_env",
    "parse_filters",
    "parse_launch_args",
    "parse_order",
    "parse_search",
    "query_of",
    "read_env",
    "sorted_by",
]
