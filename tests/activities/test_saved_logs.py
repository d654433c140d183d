"""The last lines of a machine are saved before it is rebooted or destroyed, without secrets and within bounds."""

from pathlib import Path
from typing import Any

import pytest

from activities.instances import MarketActivities
from activities.messages import DestroyInstance, OnInstance
from activities.saved_logs import FILES_MAX, TEXT_CHARS_MAX, SavedLogs
from activities.secrets import DeploymentSecrets
from market.fake import FakeMarket
from market.interface import Launch, Unavailable
from stoker_wire.market import Offer, Template

SECRETS = DeploymentSecrets(hmac_secret=b"s" * 32, named={"HF": "hf_named_secret"})
OFFER = Offer(id=1, machine_id=5, gpu_name="RTX 4090", gpu_ram=24_000, dph_total=0.3, dlperf=60.0)


class Talking(FakeMarket):
    """A marketplace whose instances print secrets."""

    text = "loading\nmy token is hf_named_secret\nout of memory"
    broken = False

    async def logs(self, instance_id: int, *, tail: int = 200) -> str:
        if self.broken:
            raise Unavailable("no log now")
        return self.text


@pytest.fixture
def market() -> Talking:
    return Talking([OFFER], clock=lambda: 0.0, templates=[Template(id=7, hash_id="t", name="t", image="i")])


async def rented(market: Talking) -> int:
    return await market.create(1, Launch(label="stoker:llm:aaaaaaaaaaaa", template_hash="t"))


@pytest.mark.parametrize("order", ["reboot", "destroy"])
async def test_the_last_lines_are_saved_first_and_without_secrets(
    market: Talking, tmp_path: Path, order: str
) -> None:
    saved = SavedLogs(tmp_path / "logs")
    activities = MarketActivities(market, SECRETS, saved)
    number = await rented(market)
    if order == "reboot":
        await activities.reboot_instance(OnInstance(instance_id=number))
    else:
        await activities.destroy_instance(DestroyInstance(instance_id=number))
    log = saved.read(number)
    assert log is not None
    assert log.label == "stoker:llm:aaaaaaaaaaaa"
    assert log.text == "loading\nmy token is ***\nout of memory"
    assert (tmp_path / "logs" / f"{number}.json").stat().st_mode & 0o077 == 0


async def test_a_log_that_cannot_be_read_delays_nothing(market: Talking, tmp_path: Path) -> None:
    activities = MarketActivities(market, SECRETS, SavedLogs(tmp_path / "logs"))
    number = await rented(market)
    market.broken = True
    await activities.destroy_instance(DestroyInstance(instance_id=number))
    assert market.instances == {}


async def test_a_folder_that_cannot_be_written_delays_nothing(market: Talking, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    activities = MarketActivities(market, SECRETS, SavedLogs(tmp_path / "file" / "logs"))
    number = await rented(market)
    await activities.destroy_instance(DestroyInstance(instance_id=number))
    assert market.instances == {}


def test_files_and_their_length_are_bounded(tmp_path: Path) -> None:
    saved = SavedLogs(tmp_path)
    (tmp_path / "7.1234.new").write_text("of a process that was killed while it wrote")
    for number in range(FILES_MAX + 5):
        saved.save(number, "stoker:llm:a", "x" * 10)
    assert len(list(tmp_path.iterdir())) == FILES_MAX
    saved.save(1, "stoker:llm:a", "first" + "x" * TEXT_CHARS_MAX)
    log = saved.read(1)
    assert log is not None
    assert len(log.text) == TEXT_CHARS_MAX
    assert "first" not in log.text


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"label": 1}', "\udcff"])
def test_a_damaged_file_is_no_log(tmp_path: Path, content: Any) -> None:
    (tmp_path / "7.json").write_bytes(content.encode(errors="surrogateescape"))
    assert SavedLogs(tmp_path).read(7) is None
