"""The marketplace's grammars: search strings, order strings, launch arguments, docker flags."""

from market.query.docker_flags import parse_env, read_env
from market.query.errors import GrammarError
from market.query.launch_args import LaunchArgs, parse_launch_args
from market.query.match import matches, sorted_by
from market.query.order import Order, parse_order
from market.query.search import Filters, merge_filters, parse_filters, parse_search, query_of

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
