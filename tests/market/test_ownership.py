"""Two deployments on one account: each sees and changes only its own instances."""

import pytest

from activities.messages import LABEL_PREFIX, launch_label, read_label
from market.fake import FakeMarket
from market.interface import InstanceGone, Launch, Unavailable
from market.ownership import (
    LABEL_CHARS_MAX,
    DeploymentMarket,
    Owner,
    count_by_deployment,
    deployment_prefix,
    owner_of,
)
from stoker_wire.endpoint import ENDPOINT_NAME_CHARS_MAX
from stoker_wire.market import Offer, Template

OURS, THEIRS = "0123456789ab", "ba9876543210"
LABEL = "stoker:llm:aaaaaaaaaaaa"


@pytest.fixture
def account():
    offers = [Offer(id=n, gpu_name="RTX 4090", dph_total=0.3) for n in range(1, 20)]
    return FakeMarket(offers=offers, templates=[Template(id=1, hash_id="t")], clock=lambda: 1000.0)


@pytest.fixture
def ours(account):
    return DeploymentMarket(account, OURS)


@pytest.fixture
def theirs(account):
    return DeploymentMarket(account, THEIRS)


def launch(label=LABEL):
    return Launch(label=label, template_hash="t")


async def test_labels_have_the_identity_on_the_account_only(account, ours):
    number = await ours.create(1, launch())
    assert account.labels() == [f"stoker:{OURS}:llm:aaaaaaaaaaaa"]
    assert (await ours.show(number)).label == LABEL
    assert [one.label for one in await ours.list(label_prefix="stoker:llm:")] == [LABEL]
    assert [one.label for one in await ours.labelled([LABEL])] == [LABEL]
    assert [one.label for one in await ours.charges(label_prefix="stoker:llm:")] == [LABEL]


async def test_equal_names_and_launches_of_two_deployments_are_not_mixed(ours, theirs):
    mine, other = await ours.create(1, launch()), await theirs.create(2, launch())
    assert [one.id for one in await ours.list()] == [mine]
    assert [one.id for one in await theirs.list(label_prefix="stoker:llm:")] == [other]
    assert [one.id for one in await ours.labelled([LABEL])] == [mine]
    assert [one.instance_id for one in await theirs.charges()] == [other]


@pytest.mark.parametrize("verb", ["start", "stop", "reboot", "logs"])
async def test_an_instance_of_another_deployment_is_gone(account, ours, theirs, verb):
    number = await theirs.create(2, launch())
    with pytest.raises(InstanceGone, match=f"belongs to the deployment {THEIRS}"):
        await getattr(ours, verb)(number)
    assert account.count(verb) == 0
    with pytest.raises(InstanceGone):
        await ours.show(number)


async def test_another_deployments_instance_is_neither_destroyed_nor_changed(account, ours, theirs):
    number = await theirs.create(2, launch())
    await ours.destroy(number)
    with pytest.raises(InstanceGone):
        await ours.update_template(number, launch())
    assert account.labels() == [f"stoker:{THEIRS}:llm:aaaaaaaaaaaa"]
    assert account.count("destroy") == account.count("update_template") == 0


async def test_an_id_is_looked_at_once_and_a_fault_of_the_look_changes_nothing(account, ours):
    number = await ours.create(1, launch())
    after_a_restart = DeploymentMarket(account, OURS)
    account.fail_next("show", Unavailable("502"))
    with pytest.raises(Unavailable):
        await after_a_restart.destroy(number)
    assert account.count("destroy") == 0
    await after_a_restart.stop(number)
    await after_a_restart.start(number)
    assert account.count("show") == 2


async def test_an_instance_with_an_edited_label_remains_accessible_by_id(account, ours):
    number = await ours.create(1, launch())
    await account.relabel(number, "renamed by hand")
    after_a_restart = DeploymentMarket(account, OURS)
    await after_a_restart.destroy(number)
    assert account.labels() == []


async def test_the_accounts_instances_are_separated_by_owner(account, ours, theirs):
    mine = await ours.create(1, launch())
    other = await theirs.create(2, launch())
    old = await account.create(3, launch())
    await account.create(4, Launch(label="somebody's", template_hash="t"))
    await account.create(5, Launch(label="stoker:", template_hash="t"))
    found = await ours.account()
    assert [one.id for one in found.own] == [mine]
    assert [one.id for one in found.foreign] == [other]
    assert [one.id for one in found.unowned] == [old]
    assert count_by_deployment(found.foreign) == {THEIRS: 1}


async def test_an_adopted_instance_is_the_deployments_own(account, ours):
    old = await account.create(3, launch())
    [unowned] = (await ours.account()).unowned
    await ours.adopt(unowned)
    assert [one.id for one in await ours.list(label_prefix="stoker:llm:")] == [old]
    assert account.labels() == [f"stoker:{OURS}:llm:aaaaaaaaaaaa"]


async def test_an_instance_that_another_deployment_adopted_meanwhile_stays_there(account, ours, theirs):
    await account.create(3, launch())
    [unowned] = (await ours.account()).unowned
    await theirs.adopt(unowned)
    with pytest.raises(InstanceGone):
        await ours.adopt(unowned)
    assert account.labels() == [f"stoker:{THEIRS}:llm:aaaaaaaaaaaa"]


def test_the_longest_label_fits_the_marketplace():
    name = "x" * ENDPOINT_NAME_CHARS_MAX
    label = Owner(OURS, name, "0123456789ab").label
    assert len(label) == 233 <= LABEL_CHARS_MAX
    assert owner_of(label) == Owner(OURS, name, "0123456789ab")


def test_a_label_outside_is_the_label_inside_with_the_identity():
    assert deployment_prefix(None) == LABEL_PREFIX
    inside = launch_label("a name", "0123456789ab")
    outside = Owner(OURS, *read_label(inside)).label
    assert outside == inside.replace(LABEL_PREFIX, f"{LABEL_PREFIX}{OURS}:")


@pytest.mark.parametrize(
    "label",
    [None, "", "x", "stoker:", "stoker:a", "stoker:a:", "stoker::b", f"stoker:{OURS}:a:", f"stoker:{OURS}::b",
     f"stoker:{OURS.upper()}:a:b", "stoker:short:a:b", f"stoker:{OURS}:a:b:c", f" stoker:{OURS}:a:b"],
)  # fmt: skip
def test_other_labels_have_no_owner(label):
    assert owner_of(label) is None


@pytest.mark.parametrize("identity", ["", "short", "0123456789AB", "0123456789a:", "0123456789abc"])
def test_an_invalid_identity_is_refused(account, identity):
    with pytest.raises(ValueError, match="identity"):
        DeploymentMarket(account, identity)
