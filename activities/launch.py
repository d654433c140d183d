"""Builds the marketplace's search query and launch from a workergroup and its template."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from activities.secrets import DeploymentSecrets
from market.interface import Launch, OfferQuery, Refused
from market.query import GrammarError, LaunchArgs, merge_filters, parse_launch_args, query_of, read_env
from stoker_wire.market import DOLLARS_PER_HOUR_MAX, Offer, Template
from stoker_wire.parsing.strict_json import NotJson, parse_json
from stoker_wire.security.redaction import REFERENCE
from stoker_wire.workergroup import Workergroup

WORKER_PORT = 3000
DISK_GB_DEFAULT = 16.0
OFFERS_ASKED_MAX = 256
"""Offers requested before trimming, so that they include rare machine kinds."""

_HOURS_PER_MONTH = 730.0
_DEFAULT_FILTERS = {"rentable": {"eq": True}}
_RESERVED = frozenset({"REPORT_ADDR", "MASTER_TOKEN", "STOKER_ENDPOINT"})
"""Variables that only stoker sets: with another REPORT_ADDR the worker's token would be sent to a third party."""


def search_query(group: Workergroup, template: Template) -> OfferQuery:
    """The query of the group's search params and the template's extra filters.

    Raises:
        Refused: one of the two cannot be parsed.
    """
    with _refusing(f"the search params of workergroup {group.id}"):
        query = query_of(
            group.search_params,
            defaults=_DEFAULT_FILTERS,
            disk_gb=_disk_gb(_args(group), template),
            limit=OFFERS_ASKED_MAX,
        )
    with _refusing(f"the extra filters of template {template.hash_id or template.id}"):
        extra = query_of(_extra_filters(template)).filters
        filters = merge_filters({key: value for key, value in extra.items() if key not in query.filters})
    return OfferQuery(
        filters={**filters, **query.filters},
        order=query.order,
        limit=query.limit,
        disk_gb=query.disk_gb,
        type=query.type,
    )


def build_launch(
    *,
    template: Template,
    workergroup: Workergroup,
    label: str,
    endpoint_name: str,
    worker_token: str,
    secrets: DeploymentSecrets,
    offer: Offer | None = None,
    report_address: str | None = None,
    perf_estimate: float = 0.0,
) -> Launch:
    """The launch with resolved secrets. The market merges the template's environment, except secret references.

    Args:
        report_address: the launch's own; None: the deployment's.
        perf_estimate: load/s, with which a worker may serve before its benchmark; 0: unknown.

    Raises:
        Refused: the launch args cannot be parsed, or a secret does not exist.
    """
    with _refusing(f"the launch_args of workergroup {workergroup.id}"):
        args = _args(workergroup)
    # The market merges the template's environment itself; faults in it belong to the template, not to the host.
    given, _ = read_env(template.env or "")
    referred = {
        key: value for key, value in given.items() if value.startswith(REFERENCE) and key not in args.env
    }
    env = secrets.resolve(referred | {key: value for key, value in args.env.items() if key not in _RESERVED})
    env |= {
        "REPORT_ADDR": secrets.report_address if report_address is None else report_address,
        "MASTER_TOKEN": worker_token,
        "STOKER_ENDPOINT": endpoint_name,
        f"-p {WORKER_PORT}:{WORKER_PORT}": "1",
    }
    if perf_estimate > 0:
        env["STOKER_PERF"] = f"{perf_estimate:.4g}"
    launch = args.over(
        Launch(
            label=label,
            template_hash=workergroup.template_hash,
            template_id=workergroup.template_id,
            env=env,
            disk_gb=_disk_gb(args, template),
        )
    )
    if offer is not None and offer.is_bid and launch.bid_dollars_per_hour is None:
        return LaunchArgs(bid_dollars_per_hour=offer.min_bid).over(launch)
    return launch


def template_warnings(template: Template) -> tuple[str, ...]:
    """Parts of the template's environment that cannot be parsed as intended, one sentence each."""
    name = template.name or "unnamed"
    which = f"hash {template.hash_id}" if template.hash_id else f"id {template.id}"
    _, faults = read_env(template.env or "")
    return tuple(f"the environment of template {name!r} ({which}): {fault}" for fault in faults)


def priced(offers: Iterable[Offer], group: Workergroup) -> list[Offer]:
    """The offers with the price that a launch of the workergroup would pay: its bid, if it bids.

    Budget and placement use `dph_total`, which is the price without a bid. Offers without a plausible price are
    omitted, because they would look free.

    Raises:
        Refused: the launch args cannot be parsed.
    """
    with _refusing(f"the launch_args of workergroup {group.id}"):
        bid = _args(group).bid_dollars_per_hour
    return [offer for each in offers if _has_price(offer := _at(each, bid))]


def _at(offer: Offer, bid: float | None) -> Offer:
    if bid is None and offer.is_bid:
        bid = offer.min_bid or None
    return offer if bid is None else offer.model_copy(update={"dph_total": bid})


def _has_price(offer: Offer) -> bool:
    dollars = (offer.dph_total, offer.storage_cost)
    return "dph_total" in offer.model_fields_set and all(
        0 <= each <= DOLLARS_PER_HOUR_MAX for each in dollars
    )


def storage_dollars_per_hour(offer: Offer, disk_gb: float) -> float:
    """Cost of the disk while the machine is stopped, dollars per hour."""
    return offer.storage_cost * disk_gb / _HOURS_PER_MONTH


def disk_gb_of(group: Workergroup, template: Template) -> float:
    """The size of an instance's disk, GB."""
    return _disk_gb(_args(group), template)


def _args(group: Workergroup) -> LaunchArgs:
    return parse_launch_args(group.launch_args)


def _disk_gb(args: LaunchArgs, template: Template) -> float:
    return args.disk_gb or template.recommended_disk_space or DISK_GB_DEFAULT


def _extra_filters(template: Template) -> Any:
    """Parse the extra filters: usually a JSON string, sometimes an object or a search string."""
    extra = template.extra_filters
    if isinstance(extra, str) and extra.strip().startswith(("{", "[")):
        try:
            return parse_json(extra)
        except NotJson as fault:
            raise GrammarError(f"not valid JSON: {fault}") from None
    return extra or ""


@contextmanager
def _refusing(subject: str) -> Iterator[None]:
    try:
        yield
    except GrammarError as error:
        raise Refused(f"{subject} cannot be parsed: {error}", code="invalid_args") from None
