"""Keep-alive evaluation: which rule each kind of traffic leads to, and what the planner does with it."""

import random
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.capacity.boot_time import boot_seconds
from policy.keepalive import evaluation
from policy.keepalive.candidates import CANDIDATES, CandidateTotals, LatePrice, Retention
from policy.keepalive.evaluation import (
    EvaluationParameters,
    KeepaliveState,
    chosen_retention,
    demand_window_seconds,
    evaluate,
    peak_demand_since,
)
from policy.load.history import LoadHistory, fold
from policy.load.seasonality import next_rise, seasonal_level
from policy.planning.planner import plan
from policy.state.observation import Memory
from policy.tuning import DEFAULT_TUNING
from tests.policy.builders import COLD, NOW, READY, brief, decide, endpoint, knows, plenty, see, worker

START = (NOW // 3600.0) * 3600.0
LEAD = DEFAULT_TUNING.seasonal_lead_seconds
PARAMETERS = EvaluationParameters(
    worker_load_per_second=100.0,
    service_seconds=1.0,
    start_seconds=25.0,
    lead_seconds=LEAD,
    billed_seconds=25.0,
    target_queue_seconds=10.0,
    late_price=LatePrice.of(0.01, DEFAULT_TUNING),
)


def evaluated(arrivals, *, seconds, every=60, parameters=PARAMETERS):
    """The state after `arrivals(second)` load/s, reported every 5 s and evaluated every `every` seconds."""
    state, history = KeepaliveState(), LoadHistory()
    for number in range(1, int(seconds / 5) + 1):
        end = START + number * 5.0
        load = arrivals(end - 5.0 - START) * 5.0
        history = fold(
            history,
            engine_id="e",
            sequence=number,
            at=end,
            window_s=5.0,
            load=load,
            requests=round(load / 100.0),
        )
        if number * 5 % every == 0:
            state = evaluate(state, history, parameters, DEFAULT_TUNING)
    return state, history


def columns(totals, part):
    """The totals of a part of the candidates."""
    return CandidateTotals(**{each.name: getattr(totals, each.name)[part] for each in fields(totals)})


def late_work(state):
    """The work that waited too long under the chosen candidate."""
    assert state.chosen >= 0, "not enough evidence yet"
    return state.totals.late_work[state.chosen]


def bursts(*, seconds, every, level=500.0):
    return lambda at: level if at % every < seconds else 0.0


def test_the_default_hold_applies_for_the_first_minutes():
    state, _ = evaluated(bursts(seconds=20, every=150), seconds=600)
    chosen = chosen_retention(state, DEFAULT_TUNING)
    assert state.chosen == -1
    assert (chosen.seconds, chosen.seasonal) == (DEFAULT_TUNING.hot_hold_seconds_default, False)


def test_a_hold_spans_the_pause_between_frequent_bursts():
    # A pause is 130 s. A hold of 120 s would start workers for each burst, and a start takes as long as the burst.
    state, _ = evaluated(bursts(seconds=20, every=150), seconds=3600)
    chosen = chosen_retention(state, DEFAULT_TUNING)
    assert chosen.longest_seconds >= 180
    assert late_work(state) < PARAMETERS.late_price.free_share * state.work


def test_steady_load_leads_to_a_short_hold():
    state, _ = evaluated(lambda at: 400.0, seconds=3600)
    chosen = chosen_retention(state, DEFAULT_TUNING)
    assert chosen.seconds <= 300
    assert late_work(state) == 0.0


def test_rare_bursts_do_not_lead_to_an_hour_of_hold():
    # 5 workers for 30 s, every 50 min. A hold of an hour costs 2,500 s of five workers for 25 s of late work.
    state, _ = evaluated(bursts(seconds=30, every=3000), seconds=12_000)
    chosen = chosen_retention(state, DEFAULT_TUNING)
    assert chosen.seconds <= 300
    assert not chosen.seasonal


def test_hourly_load_is_served_by_workers_started_ahead():
    hourly = bursts(seconds=300, every=3600)
    state, _ = evaluated(hourly, seconds=5 * 3600 - 60)
    assert chosen_retention(state, DEFAULT_TUNING).seasonal
    # The burst begins in a minute; a start takes at most 45 s.
    at = START + 5 * 3600.0 - 60.0
    assert seasonal_level(state.minute_peaks, at + 20.0, LEAD, DEFAULT_TUNING) == pytest.approx(500.0)
    rise = next_rise(state.minute_peaks, at - 600.0, LEAD, DEFAULT_TUNING)
    assert rise is not None
    assert at - 120.0 <= rise <= at + 60.0 - LEAD


def test_an_hourly_burst_among_other_traffic_is_seasonal_from_the_third_hour_on():

    def arrivals(at):
        return (2000.0 if at % 3600 < 300 else 0.0) + (100.0 if (at // 60) % 7 < 3 else 0.0)

    third, _ = evaluated(arrivals, seconds=3 * 3600 - 60)
    assert chosen_retention(third, DEFAULT_TUNING).seasonal


def test_a_longer_lead_covers_the_time_until_the_seasonal_load():
    state, _ = evaluated(bursts(seconds=300, every=3600), seconds=3 * 3600 - 900)
    at, lead = START + 3 * 3600.0, 500.0
    for before in range(20, 500, 20):
        assert seasonal_level(state.minute_peaks, at - before, lead, DEFAULT_TUNING) == pytest.approx(500.0)
    assert seasonal_level(state.minute_peaks, at - 640.0, lead, DEFAULT_TUNING) < 250.0
    rise = next_rise(state.minute_peaks, at - 890.0, lead, DEFAULT_TUNING)
    assert rise is not None
    assert at - 640.0 < rise <= at - lead


def test_load_that_occurred_once_is_not_seasonal():
    state, _ = evaluated(lambda at: 500.0 if at < 300 else 0.0, seconds=5400)
    assert seasonal_level(state.minute_peaks, START + 3600.0, LEAD, DEFAULT_TUNING) == 0.0


def test_evaluating_the_same_history_again_changes_nothing():
    state, history = evaluated(bursts(seconds=20, every=150), seconds=1800)
    assert evaluate(state, history, PARAMETERS, DEFAULT_TUNING) is state


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0.0, 2000.0), min_size=20, max_size=120), st.sampled_from([5, 20, 60]))
def test_the_result_does_not_depend_on_the_evaluation_interval(levels, every):
    def arrivals(at):
        return levels[int(at / 5) % len(levels)]

    often, _ = evaluated(arrivals, seconds=1200, every=5)
    seldom, _ = evaluated(arrivals, seconds=1200, every=every)
    assert often.evaluated_until == seldom.evaluated_until
    assert often.work == pytest.approx(seldom.work, rel=1e-3, abs=0.1)
    assert often.totals.paid_seconds == pytest.approx(seldom.totals.paid_seconds, rel=0.02, abs=60.0)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=40))
def test_the_state_stays_small(levels):
    state, _ = evaluated(lambda at: levels[int(at / 5) % len(levels)], seconds=900)
    assert len(state.totals) == len(CANDIDATES)
    assert len(state.peaks) <= 24
    assert len(state.minute_peaks) <= 128
    assert len(state.recent_demand) <= 60


def test_a_gap_of_days_is_discounted_at_once(monkeypatch):
    steps, run = [], evaluation._Evaluator.run
    monkeypatch.setattr(
        evaluation._Evaluator,
        "run",
        lambda self, begin, number: steps.append(number) or run(self, begin, number),
    )
    state, history = evaluated(bursts(seconds=20, every=150), seconds=3600)
    later = fold(history, engine_id="e", sequence=9999, at=START + 4 * 86_400.0, window_s=60.0)
    after = evaluate(state, later, PARAMETERS, DEFAULT_TUNING)
    assert after.evaluated_until == START + 4 * 86_400.0
    assert after.work < state.work / 1000
    assert max(steps) == steps[-1] == evaluation._STEPS_MAX


def test_the_demand_window_is_queue_time_plus_service_time():
    assert demand_window_seconds(10.0, 5.0, DEFAULT_TUNING) == 15.0
    assert demand_window_seconds(1.0, 0.1, DEFAULT_TUNING) == DEFAULT_TUNING.demand_window_seconds_min
    assert demand_window_seconds(10.0, 1e4, DEFAULT_TUNING) == DEFAULT_TUNING.demand_window_seconds_max


def test_a_bucket_is_evaluated_after_all_engines_have_reported_it():
    # Two engines with half of the requests each. The second one reports each minute at its end.
    both, history = KeepaliveState(), LoadHistory()
    for number in range(1, 241):
        end = START + number * 5.0
        history = fold(
            history, engine_id="a", sequence=number, at=end, window_s=5.0, load=1000.0, requests=10
        )
        if number % 12 == 0:
            history = fold(
                history, engine_id="b", sequence=number, at=end, window_s=60.0, load=12_000.0, requests=120
            )
        both = evaluate(both, history, PARAMETERS, DEFAULT_TUNING)
    alone, _ = evaluated(lambda at: 400.0, seconds=1200)
    assert both.evaluated_until == alone.evaluated_until
    # The first minute is evaluated with the reports of one engine: the other one is not known yet.
    assert both.work == pytest.approx(alone.work, rel=0.05)


def test_totals_of_another_set_of_candidates_are_reset():
    state, history = evaluated(bursts(seconds=20, every=150), seconds=3600)
    other = replace(state, totals=columns(state.totals, slice(0, 4)), chosen=3)
    later = fold(history, engine_id="e", sequence=9999, at=START + 3605.0, window_s=5.0)
    after = evaluate(other, later, PARAMETERS, DEFAULT_TUNING)
    assert len(after.totals) == len(CANDIDATES)
    fewer = replace(state, totals=columns(state.totals, slice(1, None)), chosen=len(CANDIDATES) - 1)
    assert chosen_retention(fewer, DEFAULT_TUNING) == Retention(DEFAULT_TUNING.hot_hold_seconds_default)


def test_peak_demand_covers_only_the_requested_time():
    state, _ = evaluated(lambda at: 400.0 if at < 580 else 0.0, seconds=600)
    assert peak_demand_since(state, state.evaluated_until - 20.0) == pytest.approx(300.0, rel=0.4)
    assert peak_demand_since(state, state.evaluated_until) == 0.0
    assert peak_demand_since(state, state.evaluated_until + 100.0) == 0.0
    falling = KeepaliveState(evaluated_until=NOW, recent_demand=(500.0, 400.0, 300.0))
    for since, peak in ((5.0, 300.0), (5.1, 400.0), (10.0, 400.0), (11.0, 500.0), (99.0, 500.0)):
        assert peak_demand_since(falling, NOW - since) == peak


def test_for_bursts_at_random_intervals_a_tail_prevents_most_of_the_waiting():
    draw, moments, at = random.Random(7), [], 0.0
    while at < 8 * 3600:
        begin = at + draw.expovariate(1 / 600.0)
        at = begin + draw.expovariate(1 / 60.0)
        moments.append((begin, at))
    state, _ = evaluated(
        lambda moment: 1000.0 if any(begin <= moment < end for begin, end in moments) else 50.0,
        seconds=8 * 3600,
    )
    tail, hour, minutes = (
        CANDIDATES.index(each)
        for each in (
            Retention(45.0, tail_share=0.7, tail_seconds=3600.0),
            Retention(3600.0),
            Retention(600.0),
        )
    )
    paid, late = state.totals.paid_seconds, state.totals.late_work
    assert paid[tail] < 0.8 * paid[hour]
    assert late[tail] < 0.5 * late[minutes]


def test_requests_longer_than_the_queue_time_need_a_worker_each():
    # 8 and then 10 requests of 100 s at a time. As a fluid they would fit 8 workers; as single requests some wait.
    long = replace(PARAMETERS, service_seconds=100.0, start_seconds=60.0)
    short = replace(PARAMETERS, service_seconds=1.0, start_seconds=60.0)

    def late(parameters):
        state, _ = evaluated(
            lambda at: 800.0 if at % 600 < 400 else 1000.0, seconds=3600, parameters=parameters
        )
        return state.totals.late_work[CANDIDATES.index(Retention(60.0))]

    assert late(long) > 2 * late(short)


def test_only_work_beyond_the_capacity_counts_as_late():
    # Work for two workers with one hot worker, for three minutes: half of it is late.
    slow = replace(PARAMETERS, start_seconds=300.0)
    state, _ = evaluated(lambda at: 100.0 if at < 1800 else 200.0, seconds=1980, parameters=slow)
    late = state.totals.late_work[CANDIDATES.index(Retention(60.0))]
    came = 180.0 * 2
    assert came * 0.3 < late <= came * 0.5


# The planner's use of the rule


def test_a_tail_keeps_a_part_of_the_level_longer():
    retention = Retention(45.0, tail_share=0.7, tail_seconds=3600.0)
    state, _ = evaluated(lambda at: 400.0, seconds=3600)
    kept = chosen_retention(replace(state, chosen=CANDIDATES.index(retention)), DEFAULT_TUNING)
    peaks = ((NOW - 300.0, 1000.0), (NOW - 30.0, 600.0), (NOW, 100.0))
    assert kept.level(peaks, NOW) == 700.0
    assert kept.level(peaks[1:], NOW) == 600.0
    assert kept.level(((NOW - 4000.0, 1000.0), (NOW, 100.0)), NOW) == 100.0


def test_spare_capacity_is_part_of_the_demand_and_of_its_reason():
    spare = next(index for index, each in enumerate(CANDIDATES) if each.spare_share == 0.5)
    state, history = evaluated(lambda at: 400.0, seconds=3600)
    memory = Memory(keepalive=replace(state, chosen=spare))
    seen = see(now=START + 3600.0, load=history, memory=memory, listed_at=START + 3599.0)
    util = seen.config.target_util
    assert decide(seen).targets.hot_wanted == pytest.approx(400.0 * 1.5 / util)
    assert "50% spare by keep-alive evaluation" in decide(seen).targets.reason
    plain = replace(seen, memory=Memory(keepalive=replace(state, chosen=5)))
    assert decide(plain).targets.hot_wanted == pytest.approx(400.0 / util)


@pytest.mark.parametrize("number", range(len(CANDIDATES)))
def test_every_candidate_keeps_the_load_at_target_util(number):
    state, history = evaluated(lambda at: 400.0, seconds=3600)
    memory = Memory(keepalive=replace(state, chosen=number))
    hot = [worker(f"w{name}", READY, since=START) for name in range(12)]
    moment, config = START + 3600.0, endpoint(target_util=0.8)
    seen = see(*hot, now=moment, load=history, memory=memory, listed_at=moment - 1, config=config)
    decided = decide(seen)
    drained = sum(each.startswith("drain") for each in brief(decided))
    assert decided.targets.hot_wanted >= 400.0 / 0.8 - 1e-6
    assert (12 - drained) * 100.0 >= 400.0 / 0.8


def test_an_endpoint_without_hot_workers_starts_them_for_its_hourly_burst():
    state, history = evaluated(bursts(seconds=300, every=3600), seconds=5 * 3600 - 120)
    cold = [worker(f"w{number}", COLD, since=START) for number in range(6)]
    memory = Memory(keepalive=state)

    def at(moment):
        return see(
            *cold,
            now=moment,
            load=history,
            listed_at=moment - 1,
            memory=memory,
            config=endpoint(min_workers=6),
        )

    asleep = decide(at(START + 5 * 3600.0 - 118.0))
    assert brief(asleep) == []
    assert asleep.replan_at is not None
    woken = decide(at(START + 5 * 3600.0 - 100.0))
    assert sum(each.startswith("activate") for each in brief(woken)) == 5
    assert "at this minute of each of the last hours" in woken.targets.reason


def test_without_a_cold_pool_machines_are_rented_two_boots_before_the_hourly_burst():
    state, history = evaluated(bursts(seconds=300, every=3600), seconds=5 * 3600 - 900)
    known = knows()
    learned = replace(known, kinds=tuple(replace(kind, starts=0) for kind in known.kinds))
    lead = 2 * boot_seconds(learned, DEFAULT_TUNING)
    assert lead > 2 * LEAD

    def at(moment):
        return see(
            now=moment,
            load=history,
            offers=(plenty(at=moment - 5),),
            learned=learned,
            listed_at=moment - 1,
            memory=Memory(keepalive=state),
            config=endpoint(min_workers=0, cold_mult=1.0),
        )

    asleep = decide(at(START + 5 * 3600.0 - lead - 130.0))
    assert brief(asleep) == []
    assert asleep.replan_at is not None
    assert asleep.replan_at <= START + 5 * 3600.0 - lead
    woken = decide(at(asleep.replan_at + 61.0))
    assert sum(each.startswith("recruit") for each in brief(woken)) == 5


@pytest.mark.parametrize("cold", [True, False])
def test_the_evaluation_of_seasonal_load_uses_two_boots_without_a_cold_pool(cold):
    state, history = evaluated(bursts(seconds=300, every=3600), seconds=5 * 3600 - 180)
    moment = START + 5 * 3600.0 - 120.0
    history = fold(history, engine_id="e", sequence=9999, at=moment, window_s=60.0)
    known = knows()
    seen = see(
        *(worker(f"w{number}", COLD, since=START) for number in range(6 if cold else 0)),
        now=moment,
        load=history,
        learned=replace(known, kinds=tuple(replace(kind, starts=0) for kind in known.kinds)),
        listed_at=moment - 1,
        memory=Memory(keepalive=state),
        config=endpoint(min_workers=6 if cold else 0, cold_mult=1.0),
    )
    memory = plan(seen).memory
    assert memory is not None
    hot = memory.keepalive.totals.workers[CANDIDATES.index(Retention(45.0, seasonal=True))]
    assert hot == (0 if cold else 5)


def test_a_step_of_load_starts_workers_for_arrivals_and_queue():
    # 900 load/s for 15 s in requests of 100 load, no hot worker, a start takes 20 s.
    history = LoadHistory()
    for number in range(1, 4):
        history = fold(
            history, engine_id="e", sequence=number, at=NOW - 15 + 5 * number, window_s=5.0, load=4500.0,
            requests=45, queued_load=4500.0 * number, queued_requests=45 * number,
        )  # fmt: skip
    cold = [worker(f"w{number}", COLD) for number in range(60)]
    decided = decide(see(*cold, load=history, config=endpoint(max_workers=100, min_workers=60)))
    started = sum(each.startswith("activate") for each in brief(decided))
    # When the workers are ready, 13,500 + 900 x 20 load are queued: 9 workers for the arrivals and 31 to clear that in
    # 10 s, at most four times the arrivals.
    assert 30 <= started <= 40


def test_the_cold_pool_covers_yesterdays_load_in_advance():
    history = fold(LoadHistory(), engine_id="e", sequence=1, at=START - 86_400.0, window_s=3600.0)
    history = fold(
        history,
        engine_id="e",
        sequence=2,
        at=START - 86_400.0 + 1800.0,
        window_s=900.0,
        load=450_000.0,
        requests=4500,
    )
    history = fold(history, engine_id="e", sequence=3, at=START, window_s=5.0)
    wanted = decide(see(now=START, load=history, config=endpoint(cold_mult=2))).targets
    # Yesterday 500 load/s arrived half an hour after this time, and cold_mult is 2.
    assert wanted.total_wanted == pytest.approx(1000.0)
    assert wanted.hot_wanted == 0.0
    plain = decide(see(now=START, load=history, config=endpoint(cold_mult=1))).targets
    assert plain.total_wanted == 0.0
    early = decide(
        see(now=START, load=replace(history, known_since=START - 80_000.0), config=endpoint(cold_mult=2))
    ).targets
    assert early.total_wanted == 0.0
