"""The simulated world: time, money, service, randomness."""

import pytest

from simulation.machine import Bill, Machine, Stage
from simulation.run import run
from simulation.settings import MachineKind, WorldSettings
from simulation.trace import Trace
from stoker_wire.endpoint import EndpointConfig


def _machine(**server: object) -> Machine:
    machine = Machine(
        id=1, launch_id="a", offer_id=1, machine_id=1, kind="1x RTX 4090", perf=100.0, price=0.36,
        storage_price=0.036, speeds=WorldSettings(**server).speeds, account=Bill(), now=0.0,
    )  # fmt: skip
    machine.become(Stage.READY, 0.0)
    return machine


def test_first_come_is_first_served():
    machine = _machine()
    assert machine.admit(1, 200.0, 0.0)
    assert not machine.admit(2, 100.0, 0.5)
    assert machine.next_finish() == pytest.approx(2.0)
    assert machine.finish(2.0) == (1, 2)
    assert machine.next_finish() == pytest.approx(3.0)
    assert machine.finish(3.0) == (2, None)
    assert machine.busy_seconds == pytest.approx(3.0)


def test_shared_perf_slows_everybody_down_alike():
    machine = _machine(slots=2)
    machine.admit(1, 100.0, 0.0)
    assert machine.admit(2, 100.0, 0.5)
    # alone for 0.5 s: 50 load are left, at half the pace 1 s
    assert machine.next_finish() == pytest.approx(1.5)
    assert machine.finish(1.5) == (1, None)
    assert machine.next_finish() == pytest.approx(2.0)


def test_a_measured_curve_slows_requests_down_as_more_of_them_run():
    machine = _machine(slots=2, curve=((1, 60.0), (2, 80.0), (4, 100.0)))
    # alone at 60/80 of the perf of 100, beside another one at half of it
    machine.admit(1, 75.0, 0.0)
    assert machine.next_finish() == pytest.approx(1.0)
    machine.admit(2, 100.0, 0.5)
    assert machine.next_finish() == pytest.approx(0.5 + 37.5 / 50.0)
    # three share 90/80 of the perf, a fourth may run, a fifth waits
    machine.admit(3, 100.0, 0.5)
    assert machine.next_finish() == pytest.approx(0.5 + 37.5 / 37.5)
    assert [machine.admit(number, 100.0, 0.5) for number in (4, 5)] == [True, False]
    assert machine.next_finish() == pytest.approx(0.5 + 37.5 / 31.25)


def test_the_gpu_is_billed_while_it_loads_starts_or_is_ready_and_the_disk_always():
    machine = _machine()
    machine.become(Stage.STOPPED, 3600.0)
    machine.become(Stage.STARTING, 7200.0)
    machine.bill(10800.0)
    assert machine.account.dollars == pytest.approx(
        {"loading": 0.0, "starting": 0.36, "ready": 0.36, "storage": 0.036}
    )
    assert machine.account.gpu_hours == pytest.approx({"loading": 0.0, "starting": 1.0, "ready": 1.0})


def test_a_static_fleet_costs_what_its_hours_cost(steady, even, static):
    trace = even(every=2.0, work=100.0, seconds=7200.0)
    result = run(trace, static(2), steady, warmup_seconds=1000.0)
    # two workers for two hours; a request keeps one busy for 1 s of 2 s
    assert result.dollars == pytest.approx(2 * 2 * 0.42)
    assert result.utilisation == pytest.approx(0.25, abs=0.01)
    assert result.within_2 == 1.0
    assert result.over_hours == pytest.approx(3.0, abs=0.05)


def test_what_does_not_fit_waits_and_is_counted(steady, even, static):
    # one worker serves one request of 100 per second, two arrive: after an hour 3600 wait, but late requests yield,
    # so nearly every second one is served in time
    trace = even(every=0.5, work=100.0, seconds=3600.0)
    result = run(trace, static(1), steady, warmup_seconds=0.0)
    assert 0.4 < result.within_10 < 0.5
    assert result.wait_p99 > 1000.0
    assert result.utilisation == pytest.approx(1.0, abs=0.02)


def test_the_same_seed_gives_the_same_result_to_the_bit(controller):
    trace = Trace.of("noise", ((n * 0.9 + (n * 7919 % 13) / 13, 20.0 + n % 50 * 4) for n in range(3000)))
    first, second, other = (run(trace, controller(), seed=seed) for seed in (5, 5, 6))
    assert first == second
    assert first.dollars != other.dollars


def test_a_request_on_a_machine_that_is_taken_away_is_served_by_another(steady, even, static):
    trace = even(every=1.0, work=90.0, seconds=7200.0)
    result = run(trace, static(3), steady.but(outbid_per_hour=5.0), warmup_seconds=1000.0)
    assert result.lost_requests > 0
    assert result.wait_p999 < 1000.0


def test_a_market_that_keeps_no_stopped_machines_releases_them(steady, controller):
    trace = Trace.of("two", [(float(n), 50.0) for n in range(600)] + [(5000.0 + n, 50.0) for n in range(600)])
    kept = run(trace, controller(), steady)
    released = run(trace, controller(), steady.but(cold_pool=False))
    assert kept.starts_per_hour > 0
    assert released.starts_per_hour == 0
    assert released.creates_per_hour > kept.creates_per_hour


def test_an_idle_worker_among_busy_ones_is_not_taken_for_dead(steady, controller):
    # three stay hot, one serves all requests: the others send heartbeats
    # and every 5 s the load changes, so there is never a heartbeat for all workers
    trace = Trace.of("uneven", ((n * 1.3 + n % 11, 20.0) for n in range(2000)), seconds=2700.0)
    policy = controller(min_load=250.0)
    result = run(trace, policy, steady)
    assert [reason for _, op, reason in policy.decisions if op in ("reboot", "destroy")] == []
    assert result.failures == 0


@pytest.mark.parametrize("timeout", [12.0, 50.0])
def test_a_steady_endpoint_is_not_stopped_by_its_inactivity_timeout(steady, even, controller, timeout):
    trace = even(every=1.0, work=5.0, seconds=7200.0)
    made = controller(inactivity_timeout=timeout, min_workers=2)
    config = EndpointConfig(inactivity_timeout=timeout)
    result = run(trace, made, steady, config=config, warmup_seconds=1000.0)
    assert [reason for _, _, reason in made.decisions if "inactivity" in reason] == []
    assert result.stops_per_hour == 0
    assert result.within_2 == 1.0
    # without the engine's renewal, steady requests are not significant, and the endpoint counts as idle each minute
    deaf = run(trace, controller(inactivity_timeout=timeout, min_workers=2), steady, warmup_seconds=1000.0)
    assert deaf.stops_per_hour > 10


def test_machines_that_others_bid_more_for_are_lost_at_once_and_not_offered(steady, even, controller):
    cheap = MachineKind(name="cheap", perf=1.0, dollars_per_hour=0.2, taken=((4000.0, 5000.0),))
    dear = MachineKind(name="dear", perf=1.0, dollars_per_hour=0.4)
    trace = even(every=2.0, work=100.0, seconds=8000.0)
    alone = run(trace, controller(min_workers=1), steady.but(kinds=(cheap,)), score_from=2000.0)
    both = run(trace, controller(min_workers=1), steady.but(kinds=(cheap, dear)), score_from=2000.0)
    assert alone.failures >= 1
    # nothing serves for 1000 s and a boot, of 6000 s
    assert alone.within_10 < 0.85
    assert both.within_10 > alone.within_10 + 0.1
