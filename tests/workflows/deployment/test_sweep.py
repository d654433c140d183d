"""Instances whose endpoint does not exist any more are destroyed, others are not."""

from datetime import timedelta
from typing import Any

import structlog
from temporalio.testing import ActivityEnvironment

from activities.instances import MarketActivities
from market.fake import FakeInstance
from market.interface import Launch, Unavailable
from market.ownership import DeploymentMarket
from stoker_wire.control import SWEEP_ID
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.messages import FOREIGN_KEY, ForeignInstances
from tests.workflows.world import SECRETS, group
from workflows.sweep.sweep import FindOrphans, Orphans, SweepActivities, SweepSpec, ensure_sweep


async def test_what_belongs_to_no_running_endpoint_is_destroyed(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(EndpointConfig(min_load=0, min_workers=1, max_workers=2), [group()])
        await world.live(120)
        alive = list(world.market.instances)
        orphans = [
            await world.market.create(129, Launch(label="stoker:gone:0123456789ab")),
            await world.market.create(128, Launch(label="stoker:gone:0123456789ac")),
        ]
        stranger = await world.market.create(127, Launch(label="my own"))
        world.market.fail_next("list", Unavailable("down"))
        await ensure_sweep(world.client, SweepSpec(every_seconds=300, young_seconds=600))
        await ensure_sweep(world.client)
        await world.live(120)
        assert set(orphans) <= set(world.market.instances), "young ones are left alone"
        await world.env.sleep(timedelta(seconds=1200))
        assert set(world.market.instances) == {*alive, stranger}
        assert await world.client.get_workflow_handle(SWEEP_ID).query("destroyed") == 2


async def test_an_endpoint_that_was_terminated_leaves_its_instances_to_the_sweep(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(EndpointConfig(min_load=0, min_workers=1, max_workers=2), [group()])
        await world.live(120)
        assert world.market.instances
        await world.handle.terminate("a mistake")
        await ensure_sweep(world.client, SweepSpec(every_seconds=300, young_seconds=60))
        await world.env.sleep(timedelta(seconds=900))
        assert world.market.instances == {}


class Listing:
    """The part of a Temporal client that lists workflows: the test server's own list knows no such query."""

    def __init__(self, client: Any, *, running: Any = (), ended: Any = ()) -> None:
        self._client, self._running, self._ended = client, running, ended

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def list_workflows(self, query: str, **_: Any) -> Any:
        for execution in self._running if "'Running'" in query else self._ended:
            yield execution


async def test_machines_of_a_terminated_endpoint_are_released_whatever_their_labels_say(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(EndpointConfig(min_load=0, min_workers=1, max_workers=2), [group()])
        await world.live(120)
        (lost,) = world.market.instances
        await world.handle.terminate("a mistake")
        ended = await world.client.get_workflow_handle(world.handle.id).describe()
        world.market.edit_label(lost, "do not touch")
        stranger = await world.market.create(127, Launch(label="my own"))
        asked = FindOrphans(now=world.now + 9000, young_seconds=60, stuck_seconds=900)

        def activities(**lists: Any) -> SweepActivities:
            hands = MarketActivities(DeploymentMarket(world.market, "0123456789ab"), SECRETS)
            return SweepActivities(Listing(world.client, **lists), hands)

        found = await ActivityEnvironment().run(activities(ended=[ended]).find_orphans, asked)
        assert found.instance_ids == (lost,)
        assert stranger in world.market.instances
        in_use = await ActivityEnvironment().run(
            activities(ended=[ended], running=[ended]).find_orphans, asked
        )
        assert in_use.instance_ids == (), "another life of the endpoint has it"
        named = await ActivityEnvironment().run(activities().instances_of, world.name)
        assert named == (lost,), "a forced delete finds it, too"


async def test_machines_of_a_running_endpoint_are_kept_while_the_list_of_workflows_lags(a_world: Any) -> None:
    """After a reset, Temporal's list may show the terminated run before it shows the run that replaces it."""
    async with a_world() as world:
        await world.start(EndpointConfig(min_load=0, min_workers=1, max_workers=2), [group()])
        await world.live(120)
        (serving,) = world.market.instances
        reset = await world.handle.describe()
        world.market.edit_label(serving, "do not touch")
        hands = MarketActivities(DeploymentMarket(world.market, "0123456789ab"), SECRETS)
        activities = SweepActivities(Listing(world.client, ended=[reset]), hands)
        asked = FindOrphans(now=world.now + 9000, young_seconds=60, stuck_seconds=900)
        found = await ActivityEnvironment().run(activities.find_orphans, asked)
        assert found.instance_ids == ()


async def test_the_list_of_a_large_account_never_enters_the_history(a_world: Any) -> None:
    """Ten thousand instances are 4 MB and Temporal accepts 2 MB: in the history, every sweep would fail."""
    async with a_world() as world:
        await world.start(EndpointConfig(min_load=0, min_workers=0), [group()])
        orphan = await world.market.create(129, Launch(label="stoker:gone:0123456789ab"))
        world.market.instances[orphan].created_at = 0.0
        for number in range(3000):
            one = FakeInstance(
                id=10_000 + number,
                offer=world.market.offers[100],
                launch=Launch(label=f"stoker:other:{number:012x}"),
                created_at=world.now,  # listed, but too young to be swept
            )
            world.market.instances[one.id] = one
        await ensure_sweep(world.client, SweepSpec(every_seconds=300, young_seconds=86_400))
        await world.env.sleep(timedelta(seconds=900))
        assert orphan not in world.market.instances
        history = await world.client.get_workflow_handle(SWEEP_ID).fetch_history()
        assert max(event.ByteSize() for event in history.events) < 2000


async def test_instances_of_another_deployment_are_counted_and_left_alone(a_world: Any) -> None:
    async with a_world() as world:
        ours = DeploymentMarket(world.market, "0123456789ab")
        theirs = DeploymentMarket(world.market, "ba9876543210")
        orphan = await ours.create(129, Launch(label="stoker:gone:0123456789ab"))
        serving = await theirs.create(128, Launch(label="stoker:llm:0123456789ab"))
        old = await world.market.create(127, Launch(label="stoker:llm:0123456789ac"))
        activities = SweepActivities(world.client, MarketActivities(ours, SECRETS))
        asked = FindOrphans(now=world.now + 3600, young_seconds=600, stuck_seconds=1800)
        with structlog.testing.capture_logs() as logs:
            found = await ActivityEnvironment().run(activities.find_orphans, asked)
        assert found == Orphans(
            instance_ids=(orphan,), foreign=ForeignInstances(other_deployments=1, unowned=1)
        )
        warned = {line["event"]: line for line in logs if line["log_level"] == "warning"}
        assert warned["instances_of_other_deployments"]["by_deployment"] == {"ba9876543210": 1}
        assert warned["instances_without_deployment"]["instance_ids"] == [old]
        assert serving in world.market.instances


async def test_the_sweep_tells_in_its_memo_what_it_leaves_alone(a_world: Any) -> None:
    async with a_world(deployment="0123456789ab") as world:
        theirs = DeploymentMarket(world.market, "ba9876543210")
        serving = await theirs.create(128, Launch(label="stoker:gone:0123456789ab"))
        await world.market.create(127, Launch(label="stoker:gone:0123456789ac"))
        orphan = await DeploymentMarket(world.market, "0123456789ab").create(
            129, Launch(label="stoker:gone:0123456789ad")
        )
        await ensure_sweep(world.client, SweepSpec(every_seconds=300, young_seconds=60))
        await world.env.sleep(timedelta(seconds=900))
        memo = await (await world.client.get_workflow_handle(SWEEP_ID).describe()).memo()
        told = ForeignInstances.model_validate(memo[FOREIGN_KEY])
        assert (told.other_deployments, told.unowned, told.destroyed) == (1, 1, 1)
        assert told.destroyed_at > 0
        assert orphan not in world.market.instances
        assert serving in world.market.instances
        assert len(world.market.instances) == 2
