"""Host failures: a host is blocked only for a failure that it does not share with other hosts."""

from dataclasses import replace

import pytest

from policy.state.host_failures import cause_of, split
from policy.state.machine_stats import remember_hosts
from policy.state.observation import Observation
from policy.state.worker import HostFailure, MachineStats, Worker
from policy.state.worker_events import fold_operation_result
from stoker_wire.states import WorkerState as S
from tests.policy.builders import (
    NOW,
    brief,
    decide,
    endpoint,
    group,
    knows,
    offer,
    offers,
    see,
    worker,
)

ASSERT = "the model's log says: CUDA error: device-side assert triggered (pid {}, port 180{})"


def broken(number: int, error: str = ASSERT, **changes: object) -> Worker:
    """A worker that failed again after a reboot."""
    fields = {"error": error.format(number, number), "reboots": 1, "machine_id": 1000 + number} | changes
    return worker(f"w{number}", S.ERROR, loaded_once=True, **fields)


def after(*workers: Worker, learned: MachineStats | None = None, **more: object) -> MachineStats:
    """The machine statistics after these workers were given up."""
    seen = see(*workers, learned=learned or knows(), **more)
    return remember_hosts(seen.learned, decide(seen).failed_hosts, NOW)


def blocked(learned: MachineStats, *workers: Worker, now: float = NOW) -> list[int]:
    return [each.machine_id for each in split(learned.failed_hosts, workers, now)[0]]


def wanting(learned: MachineStats, *workers: Worker, **more: object) -> Observation:
    """An endpoint that needs a worker; the offers are on machines 1001, 1002, …"""
    return see(*workers, learned=learned, config=endpoint(min_load=50), **more)


def test_a_single_failure_blocks_its_host() -> None:
    learned = after(broken(1))
    assert blocked(learned) == [1001]
    seen = wanting(learned, offers=(offers(offer(1)),))
    assert brief(decide(seen)) == []


def test_the_same_failure_on_two_hosts_blocks_neither_and_lifts_the_block_of_the_first() -> None:
    first = after(broken(1))
    both = after(broken(2), learned=first)
    assert blocked(both) == []
    assert brief(decide(wanting(both, offers=(offers(offer(1)),)))) == ["recruit 1x RTX 4090 1"]


def test_two_hosts_that_fail_in_one_plan_are_not_blocked_either() -> None:
    assert blocked(after(broken(1), broken(2))) == []


def test_different_failures_block_both_hosts() -> None:
    learned = after(broken(1), broken(2, "out of memory"))
    assert blocked(learned) == [1001, 1002]


def test_failures_that_differ_in_kind_or_numbers_are_the_same() -> None:
    assert blocked(after(broken(1, kind="1x RTX 4090"), broken(2, kind="2x H100"))) == []
    assert cause_of("10.0.0.7:18000 takes no connection [0x7f3a]") == cause_of(
        "10.2.0.19:18001 takes no connection [0x7f00]"
    )
    assert cause_of("disk full") != cause_of("no such model")
    assert len(cause_of("x" * 1000)) <= 80


@pytest.mark.parametrize("error", ["GPU {} (H100): Xid 79, it fell off the bus", "GPU 0: {} ECC errors"])
def test_a_hardware_error_blocks_every_host_that_has_it(error: str) -> None:
    assert blocked(after(broken(1, error), broken(2, error))) == [1001, 1002]


def test_a_failure_before_ready_blocks_the_host_if_the_revision_loads_elsewhere() -> None:
    never = [
        worker(f"w{n}", S.ERROR, loaded_once=False, error="no such file", machine_id=1000 + n) for n in (1, 2)
    ]
    learned = after(*never)
    assert blocked(learned) == []
    assert blocked(learned, worker("fine")) == [1001, 1002]
    assert blocked(learned, worker("old", revision=0)) == []


def test_a_shared_failure_after_ready_blocks_no_host() -> None:
    assert blocked(after(broken(1), broken(2)), worker("fine")) == []


def failed(count: int, *, revision: int = 1, times: int = 1, last: float = NOW - 100) -> MachineStats:
    return replace(
        knows(),
        failed_hosts=tuple(
            HostFailure(
                machine_id=1001 + n,
                until=last + 3600,
                reason="no such file",
                workergroup_id=1,
                failed_at=last,
                cause="no such file",
                revision=revision,
                times=times,
            )
            for n in range(count)
        ),
    )


def test_a_shared_failure_pauses_the_workergroup_with_a_reason() -> None:
    decided = decide(wanting(failed(3), offers=(offers(offer(50)),)))
    assert brief(decided) == []
    (wait,) = [each for each in decided.waits if each.code == "worker_failed"]
    assert wait.subject == "workergroup 1"
    assert "pauses after 3 equal failures on several hosts" in wait.reason
    assert "no such file" in wait.reason
    assert wait.until == NOW - 100 + 600
    assert len(brief(decide(wanting(failed(2), offers=(offers(offer(50)),))))) == 1


def test_a_new_revision_lifts_the_pause_at_once() -> None:
    seen = wanting(failed(3), workergroups=(group(revision=2),), offers=(offers(offer(50), revision=2),))
    assert len(brief(decide(seen))) == 1


def test_a_pause_ends_with_one_attempt_and_alternating_hosts_still_count() -> None:
    again = failed(2, times=2)  # four launches on two hosts
    assert brief(decide(wanting(again, offers=(offers(offer(50)),)))) == []
    rested = failed(2, times=2, last=NOW - 600)
    assert len(brief(decide(wanting(rested, offers=(offers(offer(50)),))))) == 1


def test_hosts_with_a_shared_failure_are_tried_last() -> None:
    seen = wanting(failed(2), offers=(offers(offer(1, price=0.1), offer(50, price=0.9)),))
    assert brief(decide(seen)) == ["recruit 1x RTX 4090 50"]
    only = wanting(failed(2), offers=(offers(offer(1)),))
    assert brief(decide(only)) == ["recruit 1x RTX 4090 1"]


def test_create_calls_refused_on_every_host_are_a_template_failure() -> None:
    learned = MachineStats()
    for number in (1, 2):
        born = worker(
            f"w{number}", S.PENDING, operation="create", machine_id=1000 + number, loaded_once=False
        )
        learned = fold_operation_result(
            born, "create", now=NOW, learned=learned, ok=False, error_kind="refused", error="no such template"
        ).learned
    assert blocked(learned) == []


def failure(**changes: object) -> HostFailure:
    made = HostFailure(machine_id=7, until=NOW + 3600, reason="x", cause="x", workergroup_id=1, failed_at=NOW)
    return replace(made, **changes)


def test_equal_consecutive_failures_of_a_host_are_counted() -> None:
    learned = remember_hosts(MachineStats(), [failure()], NOW)
    (once,) = remember_hosts(learned, [failure()], NOW).failed_hosts
    assert once.times == 1  # the same plan, applied twice
    (twice,) = remember_hosts(learned, [failure(failed_at=NOW + 1)], NOW).failed_hosts
    assert twice.times == 2
    (other,) = remember_hosts(learned, [failure(failed_at=NOW + 1, cause="y")], NOW).failed_hosts
    assert other.times == 1


def test_an_offer_that_is_gone_does_not_shorten_the_block_for_a_failure() -> None:
    learned = remember_hosts(MachineStats(), [failure()], NOW)
    gone = failure(failed_at=0.0, until=NOW + 300, cause="", reason="its offer was rented by someone else")
    assert remember_hosts(learned, [gone], NOW).failed_hosts == (failure(),)


def test_a_block_that_is_over_is_neither_blocked_nor_lifted() -> None:
    over = failure(until=NOW - 1)
    assert split([over, failure(until=NOW), failure(until=NOW + 1)], [], NOW) == (
        (failure(until=NOW + 1),),
        (),
    )
