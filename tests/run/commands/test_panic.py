"""`stokerd panic`: which instances it destroys or keeps, and its errors if a service does not answer."""

import io
import json

import pytest
from rich.console import Console
from temporalio.testing import WorkflowEnvironment

from market.fake import FakeMarket
from market.interface import Launch, RateLimited, Unauthorised, Unavailable
from market.ownership import DeploymentMarket
from run.commands.panic import Panic, find_deployment, run_panic
from run.errors import CommandError
from run.processes.temporal_server import temporal_binary, temporal_target
from run.settings import TemporalSettings
from run.state_folder.identity import StoredIdentity, identity_of, store_identity
from run.state_folder.lock import free_port
from stoker_wire.control import UPDATE_CONFIG, WORKFLOW_TYPE
from stoker_wire.market import Offer, Template

OURS, THEIRS = "0123456789ab", "ba9876543210"
LABELS = (
    f"stoker:{OURS}:llm:aaaaaaaaaaaa",
    f"stoker:{OURS}:llm:bbbbbbbbbbbb",
    f"stoker:{OURS}:other:cccccccccccc",
    f"stoker:{THEIRS}:llm:dddddddddddd",
    "stoker:llm:eeeeeeeeeeee",
    "somebody's",
    None,
)
FOREIGN = sorted([f"stoker:{THEIRS}:llm:dddddddddddd", "stoker:llm:eeeeeeeeeeee", "somebody's", "none"])


@pytest.fixture
async def market():
    offers = [Offer(id=n, gpu_name="RTX 4090", dph_total=0.3) for n in range(1, 8)]
    market = FakeMarket(offers=offers, templates=[Template(id=1, hash_id="t")], clock=lambda: 1000.0)
    for offer, label in zip(offers, LABELS, strict=True):
        await market.create(offer.id, Launch(label=label or "none", template_hash="t"))
    return market


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=120)


async def panic(market, console, *, endpoint=None, said=True) -> Panic:
    return await run_panic(
        DeploymentMarket(market, OURS),
        None,
        endpoint=endpoint,
        confirmed=lambda question: said,
        console=console,
    )


async def test_the_deployments_instances_are_destroyed_and_no_others(market, console):
    done = await panic(market, console)
    assert len(done.destroyed) == 3
    assert done.left == ()
    assert sorted(market.labels()) == FOREIGN
    assert f"1 instances of the deployment {THEIRS}" in console.file.getvalue()
    assert "1 instances whose labels name no deployment" in console.file.getvalue()


async def test_one_endpoints_instances_alone(market, console):
    done = await panic(market, console, endpoint="llm")
    assert len(done.destroyed) == 2
    assert f"stoker:{OURS}:other:cccccccccccc" in market.labels()


async def test_without_the_confirmation_nothing_changes(market, console):
    with pytest.raises(CommandError, match="not confirmed"):
        await panic(market, console, said=False)
    assert len(market.labels()) == 7
    assert market.count("destroy") == 0


async def test_it_shows_what_it_will_destroy_before_it_asks(market, console):
    asked = []

    def confirmed(question):
        asked.append((question, console.file.getvalue()))
        return False

    with pytest.raises(CommandError):
        await run_panic(
            DeploymentMarket(market, OURS),
            None,
            endpoint=None,
            confirmed=confirmed,
            console=console,
        )
    ((question, shown),) = asked
    assert "3 instances" in question
    assert shown.count("1x RTX 4090") == 3
    assert "$0.90 per hour" in shown


async def test_what_fails_once_is_tried_again(market, console, monkeypatch):
    monkeypatch.setattr("run.commands.panic._PAUSE_SECONDS", 0.0)
    market.fail_next("destroy", Unavailable("502"), times=2)
    market.fail_next("destroy", RateLimited("slow down", retry_after_s=0.0))
    done = await panic(market, console)
    assert (len(done.destroyed), done.left) == (3, ())


async def test_what_cannot_be_destroyed_is_named(market, console, monkeypatch):
    monkeypatch.setattr("run.commands.panic._PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("run.commands.panic.DESTROY_SECONDS_MAX", 0.0)
    market.fail_next("destroy", Unavailable("502"), times=1)
    done = await panic(market, console)
    assert len(done.destroyed) == 2
    assert len(done.left) == 1


async def test_a_temporal_that_does_not_answer_leaves_a_fault_behind(market, console):
    done = await panic(market, console)
    assert done.endpoints.names == ()
    assert len(done.destroyed) == 3
    [fault] = done.faults()
    assert "endpoints could not be stopped (Temporal does not answer)" in fault


async def test_a_wrong_market_key_is_a_fault_that_names_the_variable(market, console):
    market.fail_next("list", Unauthorised("401"))
    with pytest.raises(CommandError, match="VAST_API_KEY"):
        await panic(market, console)


class Temporal:
    """The part of a Temporal client that panic uses: workflows with memos, and signals."""

    def __init__(self, **members):
        self.members = members
        self.updates = []

    async def list_workflows(self, query, **_):
        if "'Running'" in query:
            for name, ids in self.members.items():
                yield Execution(name, ids)

    def get_workflow_handle(self, workflow):
        updates = self.updates

        class Handle:
            async def signal(self, *_, **__):
                updates.append(workflow)

        return Handle()


class Execution:
    def __init__(self, name, ids):
        self.id = f"endpoint/{name}"
        members = [{"l": f"launch{i}", "i": i, "g": 1, "s": "idle"} for i in ids]
        self._memo = {"id": 1, "name": name, "members": members}

    async def memo_value(self, *_):
        return self._memo


@pytest.mark.parametrize("endpoint", [None, "llm"])
async def test_known_instances_are_destroyed_regardless_of_labels_and_list(market, console, endpoint):
    ids = list(market.instances)
    market.edit_label(ids[0], "do not touch")
    market.omits = lambda instance: instance.id == ids[1]
    client = Temporal(llm=ids[:2], other=[ids[2]])
    done = await run_panic(
        DeploymentMarket(market, OURS),
        client,
        endpoint=endpoint,
        confirmed=lambda question: True,
        console=console,
    )
    assert set(done.destroyed) == set(ids[:2] if endpoint else ids[:3])
    assert done.left == ()
    assert set(market.instances) == set(ids) - set(done.destroyed)
    assert client.updates == ["endpoint/llm"] if endpoint else ["endpoint/llm", "endpoint/other"]


@pytest.fixture
async def cluster(monkeypatch):
    """A Temporal at TEMPORAL_ADDRESS, while the settings' address is unreachable."""
    async with await WorkflowEnvironment.start_local(
        namespace="production", dev_server_existing_path=str(temporal_binary())
    ) as env:
        monkeypatch.setenv("TEMPORAL_ADDRESS", env.client.service_client.config.target_host)
        monkeypatch.setenv("TEMPORAL_NAMESPACE", "production")
        yield env.client


def settings():
    return TemporalSettings(port=free_port())


async def config_updates(client, *names):
    updates = []
    for name in names:
        async for event in client.get_workflow_handle(f"endpoint/{name}").fetch_history_events():
            signalled = event.workflow_execution_signaled_event_attributes
            if signalled.signal_name == UPDATE_CONFIG:
                updates.append((name, json.loads(signalled.input.payloads[0].data)))
    return updates


async def test_endpoints_are_stopped_on_the_temporal_that_the_variables_name(
    cluster, market, console, tmp_path
):
    for name in ("llm", "other"):
        await cluster.start_workflow(WORKFLOW_TYPE, id=f"endpoint/{name}", task_queue="nobody")
    target = temporal_target(settings())
    identity, client = await find_deployment(target, tmp_path, None, console)
    assert identity == await identity_of(cluster)
    done = await run_panic(
        DeploymentMarket(market, identity), client, endpoint=None, confirmed=lambda _: True, console=console
    )
    assert done.endpoints.names == ("llm", "other")
    assert done.faults() == []
    stopped = {"endpoint_state": "stopped", "max_workers": 0}
    assert await config_updates(cluster, "llm", "other") == [("llm", stopped), ("other", stopped)]
    assert "(from TEMPORAL_ADDRESS)" in console.file.getvalue()


async def test_another_deployments_endpoints_are_not_stopped(cluster, market, console, tmp_path):
    await cluster.start_workflow(WORKFLOW_TYPE, id="endpoint/llm", task_queue="nobody")
    identity, client = await find_deployment(temporal_target(settings()), tmp_path, OURS, console)
    assert (identity, client) == (OURS, None)
    assert await config_updates(cluster, "llm") == []


async def test_without_temporal_the_folders_identity_counts_for_the_same_temporal_only(
    console, tmp_path, monkeypatch
):
    monkeypatch.setattr("run.commands.panic.TEMPORAL_SECONDS_MAX", 0.1)
    target = temporal_target(settings())
    with pytest.raises(CommandError, match="which deployment.*--deployment"):
        await find_deployment(target, tmp_path, None, console)
    store_identity(tmp_path, StoredIdentity(THEIRS, "another.example:7233/stoker"))
    with pytest.raises(CommandError, match="which deployment"):
        await find_deployment(target, tmp_path, None, console)
    store_identity(tmp_path, StoredIdentity(OURS, target.name))
    assert await find_deployment(target, tmp_path, None, console) == (OURS, None)
    with pytest.raises(CommandError, match="--deployment should be 12"):
        await find_deployment(target, tmp_path, "nonsense", console)
