"""Statistics of machine kinds: means over the samples."""

import pytest

from policy.state.machine_stats import (
    Boot,
    learn_boot,
    learn_failure,
    learn_perf,
    learn_start,
    remember_hosts,
)
from policy.state.worker import HostFailure, MachineStats
from policy.tuning import DEFAULT_TUNING
from tests.policy.builders import NOW, worker

KIND = "1x RTX 4090"


def test_perf_and_price_are_means_of_the_samples():
    learned = MachineStats()
    for perf, price in ((100.0, 0.3), (130.0, 0.4), (160.0, 0.8)):
        learned = learn_perf(learned, worker("w", price=price), perf)
    record = learned.kind(1, KIND)
    assert (record.perf, record.dollars_per_hour, record.samples) == (
        pytest.approx(130.0),
        pytest.approx(0.5),
        3,
    )


def test_a_mean_of_many_samples_still_follows_new_ones():
    learned = MachineStats()
    for _ in range(100):
        learned = learn_perf(learned, worker("w"), 100.0)
    most = DEFAULT_TUNING.perf_samples_max
    record = learn_perf(learned, worker("w"), 200.0).kind(1, KIND)
    assert record.perf == pytest.approx(100.0 + 100.0 / most)
    assert record.samples == 101


def test_boots_starts_and_failures_are_counted_by_kind_and_workergroup():
    learned = learn_boot(MachineStats(), worker("w"), Boot(seconds=90.0))
    learned = learn_start(learned, worker("w"), 20.0)
    learned = learn_failure(learn_failure(learned, worker("w")), worker("v", workergroup_id=2))
    record, other = learned.kind(1, KIND), learned.kind(2, KIND)
    assert (record.boots, record.boot_seconds, record.starts, record.start_seconds) == (1, 90.0, 1, 20.0)
    assert (record.failures, other.failures, other.boots) == (1, 1, 0)


def test_a_boot_is_remembered_in_parts_by_kind_and_as_a_whole_by_host():
    first, second = worker("w", machine_id=5), worker("v", machine_id=6)
    learned = learn_boot(MachineStats(), first, Boot(seconds=100.0, pull=20.0, download=60.0))
    learned = learn_boot(learned, second, Boot(seconds=30.0, pull=10.0))
    record = learned.kind(1, KIND)
    # The newest boot counts 0.3: 20 + 0.3 * (10 - 20) = 17, 60 + 0.3 * (0 - 60) = 42, 100 + 0.3 * (30 - 100) = 79.
    assert (record.pull_seconds, record.download_seconds, record.boot_seconds) == (
        17.0,
        42.0,
        pytest.approx(79.0),
    )
    assert [learned.host(1, number).boot_seconds for number in (5, 6)] == [100.0, 30.0]
    assert learned.host(2, 5) is None
    learned = learn_boot(learned, first, Boot(seconds=20.0))
    assert (learned.host(1, 5).boots, learned.host(1, 5).boot_seconds) == (2, pytest.approx(76.0))
    assert learned.kind(1, KIND).pull_seconds == 17.0, "a boot whose image was not seen says nothing about it"


def test_the_latest_hosts_are_remembered():
    learned = MachineStats()
    for number in range(1, 131):
        learned = learn_boot(learned, worker("w", machine_id=number), Boot(seconds=float(number)))
    assert [each.machine_id for each in learned.hosts] == list(range(31, 131))


@pytest.mark.parametrize(
    ("boot", "text"),
    [
        (Boot(seconds=90.0), "90 s"),
        (Boot(seconds=90.0, pull=20.0, download=60.0), "90 s (image 20 s, download 60 s, load 10 s)"),
        (Boot(seconds=30.0, pull=20.0), "30 s (image 20 s, load 10 s)"),
    ],
)
def test_a_boot_is_described_in_parts(boot, text):
    assert str(boot) == text


def test_the_hosts_that_are_blocked_longest_are_remembered():
    failures = [
        HostFailure(machine_id=number, until=NOW + 1000 - number, reason="r") for number in range(130)
    ]
    kept = remember_hosts(MachineStats(), failures, NOW).failed_hosts
    assert [each.machine_id for each in kept] == list(range(99, -1, -1))
