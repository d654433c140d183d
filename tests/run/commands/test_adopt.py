"""`stokerd adopt` assigns instances without an owner to this deployment after confirmation."""

import io

import pytest
from rich.console import Console
from temporalio.testing import WorkflowEnvironment

from market.fake import FakeMarket
from market.interface import Launch, Unavailable
from market.ownership import DeploymentMarket
from run.commands.adopt import run_adopt
from run.errors import CommandError
from run.processes.temporal_server import temporal_binary
from stoker_wire.control import WORKFLOW_TYPE
from stoker_wire.market import Offer, Template

OURS, THEIRS, GONE = "0123456789ab", "ba9876543210", "deadbeef0000"
LABELS = (
    "stoker:llm:aaaaaaaaaaaa",
    "stoker:away:bbbbbbbbbbbb",
    f"stoker:{THEIRS}:llm:cccccccccccc",
    f"stoker:{GONE}:llm:dddddddddddd",
    f"stoker:{OURS}:llm:eeeeeeeeeeee",
    "by hand",
)


@pytest.fixture
async def account():
    offers = [Offer(id=n, gpu_name="RTX 4090", dph_total=0.3) for n in range(1, 8)]
    account = FakeMarket(offers=offers, templates=[Template(id=1, hash_id="t")], clock=lambda: 1000.0)
    for offer, label in zip(offers, LABELS, strict=False):
        await account.create(offer.id, Launch(label=label, template_hash="t"))
    return account


@pytest.fixture
async def client():
    async with await WorkflowEnvironment.start_local(dev_server_existing_path=str(temporal_binary())) as env:
        await env.client.start_workflow(WORKFLOW_TYPE, id="endpoint/llm", task_queue="nobody")
        yield env.client


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=160)


async def adopt(account, client, console, *, origin=None, said=True):
    market = DeploymentMarket(account, OURS)
    return await run_adopt(market, client, origin=origin, confirmed=lambda _: said, console=console)


async def test_instances_of_no_deployment_are_adopted_and_no_others(account, client, console):
    adopted = await adopt(account, client, console)
    assert len(adopted) == 2
    assert account.labels() == [
        f"stoker:{OURS}:llm:aaaaaaaaaaaa",
        f"stoker:{OURS}:away:bbbbbbbbbbbb",
        *LABELS[2:],
    ]
    shown = console.file.getvalue()
    assert "runs" in shown
    assert "does not run: the sweep destroys the instance" in shown
    assert await adopt(account, client, console) == ()


async def test_those_of_a_deployment_that_is_gone_are_adopted_by_its_identity(account, client, console):
    assert len(await adopt(account, client, console, origin=GONE)) == 1
    assert account.labels()[3] == f"stoker:{OURS}:llm:dddddddddddd"
    assert account.labels()[2] == LABELS[2]


async def test_without_the_confirmation_nothing_is_adopted(account, client, console):
    with pytest.raises(CommandError, match="nothing was changed"):
        await adopt(account, client, console, said=False)
    assert account.labels() == list(LABELS)


@pytest.mark.parametrize(("origin", "said"), [("nonsense", "--from should be"), (OURS, "is this deployment")])
async def test_an_origin_that_cannot_be_one_is_refused(account, client, console, origin, said):
    with pytest.raises(CommandError, match=said):
        await adopt(account, client, console, origin=origin)


async def test_a_marketplace_that_does_not_answer_is_one_sentence(account, client, console):
    account.fail_next("list", Unavailable("502"))
    with pytest.raises(CommandError, match="the marketplace does not answer"):
        await adopt(account, client, console)


async def test_a_label_with_terminal_commands_is_shown_as_text(account, client, console):
    await account.create(7, Launch(label="stoker:\x1b]0;evil\x07[red]llm:ffffffffffff", template_hash="t"))
    with pytest.raises(CommandError):
        await adopt(account, client, console, said=False)
    shown = console.file.getvalue()
    assert "\x1b" not in shown
    assert "[red]llm" in shown
