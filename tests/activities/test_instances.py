"""Marketplace activities: idempotent, with classified errors and without secrets in messages."""

import asyncio
from dataclasses import asdict
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.testing import ActivityEnvironment

from activities.instances import MarketActivities
from activities.messages import (
    CreateInstance,
    DestroyInstance,
    ListInstances,
    OnInstance,
    SearchOffers,
    UpdateInstance,
    read_label,
)
from activities.secrets import DeploymentSecrets
from activities.signing import open_signing_key
from market.fake import FakeMarket
from market.interface import InstanceGone, OfferGone, RateLimited, Refused, Unauthorised, Unavailable
from stoker_wire.market import Instance, Offer
from stoker_wire.security.token import read_worker_token

SECRET = "hf_very_secret_value"


def create(market: FakeMarket, group: Any, *, offer: int = 2, **changes: Any) -> CreateInstance:
    asked = CreateInstance(
        endpoint_name="llm",
        endpoint_id=3,
        launch_id="0123456789ab",
        workergroup=group(),
        offer=market.offers[offer],
    )
    return CreateInstance(**{field: getattr(asked, field) for field in asked.__slots__} | changes)


async def fault_of(run: Any, activity: Any, asked: Any, **how: Any) -> ApplicationError:
    with pytest.raises(ApplicationError) as failed:
        await run(activity, asked, **how)
    return failed.value


async def test_a_create_rents_once_and_returns_the_price(
    run: Any, hands: MarketActivities, market: FakeMarket, group: Any
) -> None:
    made = await run(hands.create_instance, create(market, group))
    assert not made.adopted
    assert made.dollars_per_hour == 1.8
    assert made.storage_dollars_per_hour == pytest.approx(0.73 * 20 / 730)
    assert market.labels() == ["stoker:llm:0123456789ab"]


async def test_a_first_attempt_does_not_list_instances(
    run: Any, hands: MarketActivities, market: FakeMarket, group: Any
) -> None:
    await run(hands.create_instance, create(market, group))
    assert market.count("list") == 0


@pytest.mark.parametrize("how", [{"attempt": 2}, {"asked_before": True}])
async def test_a_retry_adopts_the_instance_of_a_lost_answer(
    run: Any, hands: MarketActivities, market: FakeMarket, group: Any, how: dict[str, Any]
) -> None:
    market.lose_next_answer("create")
    first = await fault_of(run, hands.create_instance, create(market, group))
    assert not first.non_retryable
    asked = create(market, group, asked_before=how.get("asked_before", False))
    made = await run(hands.create_instance, asked, attempt=how.get("attempt", 1))
    assert made.adopted
    assert [made.instance_id] == list(market.instances)


async def listed(run: Any, hands: MarketActivities, *known: int) -> Any:
    return await run(hands.list_instances, ListInstances(prefix="stoker:llm:", known_ids=known))


async def test_a_known_instance_with_an_edited_label_is_found_by_its_id(
    run: Any, hands: MarketActivities, market: FakeMarket, group: Any
) -> None:
    made = (await run(hands.create_instance, create(market, group))).instance_id
    assert (await listed(run, hands, made)).shown == ()
    assert market.count("show") == 0
    market.edit_label(made, "somebody was here")
    found = await listed(run, hands, made, 4711)
    assert [each.id for each in found.instances] == [made]
    assert (found.shown, found.gone) == ((made,), (4711,))


@pytest.mark.parametrize(
    ("flags", "says"), [("-e GREETING=don't", "never closed"), ("-e NAME", "NAME=value after -e")]
)
async def test_a_template_with_a_malformed_environment_is_launched_with_a_warning(
    run: Any, hands: MarketActivities, market: FakeMarket, group: Any, flags: str, says: str
) -> None:
    template = market.templates["tmpl"]
    market.templates["tmpl"] = template.model_copy(
        update={"name": "greeter", "env": f"{template.env} {flags}"}
    )
    made = await run(hands.create_instance, create(market, group))
    assert [made.instance_id] == list(market.instances)
    (warning,) = made.warnings
    assert "template 'greeter' (hash tmpl)" in warning
    assert says in warning
    assert market.launches[0].env["HF_TOKEN"] == SECRET, "valid variables take effect"
    await run(
        hands.update_instance,
        UpdateInstance(
            endpoint_name="llm",
            endpoint_id=3,
            launch_id="0123456789ab",
            instance_id=made.instance_id,
            workergroup=group(),
        ),
    )


async def test_an_unreachable_market_reports_no_instance_as_gone(
    run: Any, hands: MarketActivities, market: FakeMarket
) -> None:
    market.fail_next("show", Unavailable("503"))
    found = await listed(run, hands, 4711)
    assert (found.instances, found.shown, found.gone) == ((), (), ())
    assert (await listed(run, hands, 4711)).gone == (4711,)


async def test_after_an_empty_list_of_a_large_fleet_every_id_is_looked_up_eventually(
    run: Any, hands: MarketActivities, market: FakeMarket
) -> None:
    known = tuple(range(1, 101))
    denied: set[int] = set()
    for look in range(1, 5):
        denied |= set((await listed(run, hands, *known)).gone)
        assert market.count("show") == 32 * look
    assert denied == set(known)


async def test_a_label_with_the_same_prefix_is_not_adopted(
    run: Any, hands: MarketActivities, market: FakeMarket, group: Any
) -> None:
    await run(hands.create_instance, create(market, group, launch_id="0123456789abcd"))
    made = await run(hands.create_instance, create(market, group, offer=3), attempt=2)
    assert not made.adopted
    assert len(market.instances) == 2


async def test_an_instance_gets_the_environment_that_it_needs_to_report(
    run: Any, hands: MarketActivities, market: FakeMarket, group: Any, secrets: DeploymentSecrets
) -> None:
    launch_args = "--env '-e MODE=fast -e MASTER_TOKEN=mine -e KEY=secret:HF_TOKEN' --disk 40 --image me/it:2"
    await run(hands.create_instance, create(market, group, workergroup=group(launch_args=launch_args)))
    [launch] = market.launches
    base, _, sealed = launch.env["REPORT_ADDR"].rpartition("/")
    assert base == "http://engine:8080/w/0123456789ab"
    assert open_signing_key(secrets.hmac_secret, "0123456789ab", sealed) is not None
    assert launch.env["STOKER_ENDPOINT"] == "llm"
    assert launch.env["-p 3000:3000"] == "1"
    assert launch.env["MODE"] == "fast"
    assert launch.env["KEY"] == launch.env["HF_TOKEN"] == SECRET, "from launch_args and from the template"
    assert "A" not in launch.env, "the market merges the template's own environment"
    identity = read_worker_token(secrets.hmac_secret, launch.env["MASTER_TOKEN"])
    assert identity == (3, "0123456789ab")
    assert (launch.disk_gb, launch.image) == (40, "me/it:2")


async def test_an_instance_gets_the_perf_that_was_learned_for_such_machines(
    run: Any, hands: MarketActivities, market: FakeMarket, group: Any
) -> None:
    await run(hands.create_instance, create(market, group, perf_estimate=1234.5678))
    await run(hands.create_instance, create(market, group, offer=1, launch_id="f" * 12))
    assert [launch.env.get("STOKER_PERF") for launch in market.launches] == ["1235", None]


async def test_an_unknown_secret_is_a_final_error_that_contains_only_the_name(
    run: Any, hands: MarketActivities, market: FakeMarket, group: Any
) -> None:
    asked = create(market, group, workergroup=group(launch_args="--env '-e KEY=secret:NOPE'"))
    fault = await fault_of(run, hands.create_instance, asked)
    assert fault.non_retryable
    assert "NOPE" in fault.message
    assert "KEY" in fault.message
    assert market.count("create") == 0


async def test_no_secret_shows_in_errors_results_or_reprs(
    run: Any, hands: MarketActivities, market: FakeMarket, group: Any, secrets: DeploymentSecrets
) -> None:
    market.fail_next("create", Refused(f"bad env HF_TOKEN={SECRET}", code="invalid_args"))
    fault = await fault_of(run, hands.create_instance, create(market, group))
    assert SECRET not in repr(fault) + str(fault.__cause__)
    assert "***" in fault.message
    made = await run(hands.create_instance, create(market, group))
    shown = repr(asdict(made)) + repr(secrets) + repr(market.launches) + repr(create(market, group))
    assert SECRET not in shown
    assert "the deployment's secret" not in shown


async def test_an_adapter_bug_does_not_write_its_message_to_the_history(
    run: Any, hands: MarketActivities, market: FakeMarket, group: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> int:
        raise ValueError(f"unexpected body {SECRET}")

    monkeypatch.setattr(market, "create", broken)
    fault = await fault_of(run, hands.create_instance, create(market, group))
    assert fault.type == "MarketAdapterFault"
    assert fault.__cause__ is None
    assert SECRET not in fault.message
    assert not fault.non_retryable


async def test_starts_at_once_keep_their_rate_and_others_are_not_counted(
    run: Any, market: FakeMarket, secrets: DeploymentSecrets, group: Any
) -> None:
    times = [100.0, 100.4, 100.5, 100.9]
    hands = MarketActivities(market, secrets, starts_per_second=2.0, now=iter(times).__next__)
    made = await run(hands.create_instance, create(market, group))
    done = []
    for _ in times:
        before = market.count("start")
        asked = OnInstance(instance_id=made.instance_id, at_once=True)
        started = await run(hands.start_instance, asked)
        assert market.count("start") - before == started
        done.append(started)
        assert await run(hands.start_instance, OnInstance(instance_id=made.instance_id))
    assert done == [True, False, True, False]


@pytest.mark.parametrize(
    ("error", "final", "benign"),
    [
        (OfferGone("gone"), True, True),
        (InstanceGone("gone"), True, True),
        (Refused("no", code="invalid_args"), True, False),
        (Unauthorised("who?"), True, False),
        (Unavailable("later"), False, True),
        (RateLimited("slow down", retry_after_s=7), False, True),
    ],
)
async def test_each_error_says_whether_a_retry_makes_sense(
    run: Any, hands: MarketActivities, market: FakeMarket, error: Any, final: bool, benign: bool
) -> None:
    market.fail_next("start", error)
    fault = await fault_of(run, hands.start_instance, OnInstance(instance_id=1))
    assert fault.type == type(error).__name__
    assert fault.non_retryable is final
    assert (fault.category is ApplicationErrorCategory.BENIGN) is benign


async def test_a_429_delays_the_retry_by_at_most_two_minutes(
    run: Any, hands: MarketActivities, market: FakeMarket
) -> None:
    waits = []
    for asked in (7.0, 3600.0, None):
        market.fail_next("start", RateLimited("slow down", retry_after_s=asked))
        fault = await fault_of(run, hands.start_instance, OnInstance(instance_id=1))
        waits.append(fault.next_retry_delay.total_seconds() if fault.next_retry_delay else None)
    assert waits == [7.0, 120.0, None]


async def test_a_trimmed_search_keeps_every_machine_kind(
    run: Any, hands: MarketActivities, market: FakeMarket, group: Any
) -> None:
    found = await run(hands.search_offers, SearchOffers(workergroup=group(), limit=7))
    assert found.matched == 99
    assert len(found.offers) == 7
    assert {offer.kind for offer in found.offers} == {"1x RTX 3090", "1x RTX 4090", "1x H100"}


async def test_a_search_applies_the_params_and_the_templates_filters(
    run: Any, hands: MarketActivities, market: FakeMarket, group: Any
) -> None:
    template = market.templates["tmpl"]
    market.templates["tmpl"] = template.model_copy(update={"extra_filters": '{"gpu_name": {"neq": "H100"}}'})
    found = await run(hands.search_offers, SearchOffers(workergroup=group(search_params="dph_total<0.25")))
    assert {offer.gpu_name for offer in found.offers} == {"RTX 3090"}
    found = await run(hands.search_offers, SearchOffers(workergroup=group()))
    assert {offer.gpu_name for offer in found.offers} == {"RTX 3090", "RTX 4090"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"search_params": "gpu_name ~ x"}, "search params of workergroup 1"),
        ({"launch_args": "--unheard of"}, "workergroup 1"),
        ({"template_hash": "nope"}, "no template"),
    ],
)
async def test_a_malformed_workergroup_is_a_final_error(
    run: Any, hands: MarketActivities, group: Any, changes: dict[str, Any], says: str
) -> None:
    fault = await fault_of(run, hands.search_offers, SearchOffers(workergroup=group(**changes)))
    assert fault.non_retryable
    assert fault.type == "Refused"
    assert says in fault.message


async def test_a_destroy_succeeds_only_after_the_market_confirms_it(
    run: Any, hands: MarketActivities, market: FakeMarket, group: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await run(hands.create_instance, create(market, group))

    async def slow(instance_id: int) -> None:
        """The destroy was accepted but has not happened yet."""

    with monkeypatch.context() as patch:
        patch.setattr(market, "destroy", slow)
        fault = await fault_of(run, hands.destroy_instance, DestroyInstance(instance_id=made.instance_id))
        assert fault.type == "StillThere"
        assert not fault.non_retryable
    await run(hands.destroy_instance, DestroyInstance(instance_id=made.instance_id))
    assert market.instances == {}
    await run(hands.destroy_instance, DestroyInstance(instance_id=made.instance_id))


async def test_a_destroy_without_an_id_releases_instances_with_exactly_the_label(
    run: Any, hands: MarketActivities, market: FakeMarket, group: Any
) -> None:
    await run(hands.create_instance, create(market, group))
    other = await run(hands.create_instance, create(market, group, offer=3, launch_id="0123456789abcd"))
    await run(hands.destroy_instance, DestroyInstance(label="stoker:llm:0123456789ab"))
    assert list(market.instances) == [other.instance_id]
    await run(hands.destroy_instance, DestroyInstance(label=""))
    assert list(market.instances) == [other.instance_id], "without a label nothing is destroyed"


async def test_an_update_restarts_only_running_instances(
    run: Any, hands: MarketActivities, market: FakeMarket, group: Any
) -> None:
    made = await run(hands.create_instance, create(market, group))
    for restart in (False, True):
        await run(
            hands.update_instance,
            UpdateInstance(
                endpoint_name="llm",
                endpoint_id=3,
                launch_id="0123456789ab",
                instance_id=made.instance_id,
                workergroup=group(launch_args="--env '-e MODE=new'", revision=2),
                restart=restart,
            ),
        )
        assert market.count("reboot") == int(restart)
    assert market.instances[made.instance_id].launch.env["MODE"] == "new"
    assert market.instances[made.instance_id].launch.env["MASTER_TOKEN"], "it keeps its token"


async def test_a_listing_omits_fields_that_no_decision_needs(
    run: Any, hands: MarketActivities, market: FakeMarket, group: Any
) -> None:
    await run(hands.create_instance, create(market, group))
    listed = await run(hands.list_instances, ListInstances(prefix="stoker:llm:"))
    [instance] = listed.instances
    assert instance.ports is None
    assert read_label(instance.label) == ("llm", "0123456789ab")
    assert (await run(hands.list_instances, ListInstances(prefix="stoker:other:"))).instances == ()


@pytest.mark.parametrize("label", [None, "", "mine", "stoker:", "stoker:llm", "stoker::abc", "stoker:llm:"])
def test_a_foreign_label_is_not_parsed(label: str | None) -> None:
    assert read_label(label) is None


async def test_a_long_listing_sends_heartbeats(
    hands: MarketActivities, market: FakeMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without heartbeats Temporal would detect a dead worker only after the timeout of minutes."""
    monkeypatch.setattr("activities.instances._HEARTBEAT_SECONDS", 0.001)
    beaten = asyncio.Event()
    environment = ActivityEnvironment()
    environment.on_heartbeat = lambda *_: beaten.set()

    async def slow(*, label_prefix: str = "") -> list[Instance]:
        await beaten.wait()
        return []

    monkeypatch.setattr(market, "list", slow)
    async with asyncio.timeout(10):
        await environment.run(hands.list_instances, ListInstances(prefix="stoker:"))


async def test_offers_without_a_plausible_price_are_omitted(
    run: Any, hands: MarketActivities, market: FakeMarket, group: Any
) -> None:
    sound = next(iter(market.offers.values()))
    rows: list[dict[str, Any]] = [
        {"dph_total": 1e300},
        {"is_bid": True, "min_bid": -3.0, "dph_total": 0.5},
        {"is_bid": True, "min_bid": 1e300, "dph_total": 0.5},
        {"dph_total": 0.5, "storage_cost": -100.0},
        {"dph_total": 0.5, "storage_cost": 1e300},
        {},
        {"dph_total": 0.0},
        {"is_bid": True, "min_bid": 0.2, "dph_total": 0.5},
    ]
    like = {"machine_id": 7, "gpu_name": sound.gpu_name, "num_gpus": sound.num_gpus, "gpu_ram": sound.gpu_ram}
    market.offers = {
        number: Offer.model_validate({"id": number} | like | row) for number, row in enumerate(rows, start=1)
    }
    found = await run(hands.search_offers, SearchOffers(workergroup=group(), limit=64))
    assert {offer.id: offer.dph_total for offer in found.offers} == {7: 0.0, 8: 0.2}
    assert found.matched == 2
