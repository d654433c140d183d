"""What the traffic teaches about holding: every way is tried in the shadow of the fleet, the cheapest good one is used."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.capacity.boot_time import boot_seconds
from policy.keepalive.candidates import LAST_SECONDS, WAYS, Candidate
from policy.keepalive.evaluation import (
    Conditions,
    KeepaliveMemory,
    keep,
    last_until,
    lived,
    need_window,
    needed_since,
)
from policy.load.history import LoadHistory, fold
from policy.load.seasonality import next_rise, seasonal_level
from policy.planning.planner import plan
from policy.state.observation import Memory
from policy.tuning import DEFAULT_TUNING
from tests.policy.builders import COLD, NOW, READY, brief, decide, endpoint, knows, plenty, see, worker

START = (NOW // 3600.0) * 3600.0
LEAD = DEFAULT_TUNING.habit_lead_seconds
ON = Conditions(
    unit=100.0,
    service_seconds=1.0,
    start_seconds=25.0,
    lead_seconds=LEAD,
    billed_seconds=25.0,
    queue_seconds=10.0,
)


def lives(arrivals, *, seconds, every=60, on=ON):
    """What is learned from `arrivals(second)` load/s, told every 5 s and lived through every `every` seconds."""
    experience, history = KeepaliveMemory(), LoadHistory()
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
            experience = lived(experience, history, on, DEFAULT_TUNING)
    return experience, history


def bursts(*, seconds, every, level=500.0):
    return lambda at: level if at % every < seconds else 0.0


def test_nothing_is_concluded_from_a_few_minutes():
    experience, _ = lives(bursts(seconds=20, every=150), seconds=600)
    chosen = keep(experience, DEFAULT_TUNING)
    assert (chosen.seconds, chosen.habit, chosen.late_share) == (
        DEFAULT_TUNING.hot_hold_seconds_unknown,
        False,
        None,
    )


def test_bursts_that_come_again_within_minutes_are_waited_for():
    # 130 s of pause: whoever holds for 120 s starts anew for every burst, and a start takes as long as the burst
    experience, _ = lives(bursts(seconds=20, every=150), seconds=3600)
    chosen = keep(experience, DEFAULT_TUNING)
    assert chosen.longest_seconds >= 180
    assert chosen.late_share is not None
    assert chosen.late_share < DEFAULT_TUNING.late_share_max


def test_a_steady_stream_is_not_held_for_longer_than_it_needs():
    experience, _ = lives(lambda at: 400.0, seconds=3600)
    chosen = keep(experience, DEFAULT_TUNING)
    assert chosen.seconds <= 300
    assert chosen.late_share == 0.0


def test_a_rare_burst_is_not_worth_holding_an_hour_for():
    # half a minute of 5 workers every 50 min: an hour's hold costs 2,500 s of five workers for 25 s of late work
    experience, _ = lives(bursts(seconds=30, every=3000), seconds=12_000)
    chosen = keep(experience, DEFAULT_TUNING)
    assert chosen.seconds <= 300
    assert not chosen.habit


def test_what_comes_every_hour_is_met_before_it_comes():
    hourly = bursts(seconds=300, every=3600)
    experience, _ = lives(hourly, seconds=5 * 3600 - 60)
    assert keep(experience, DEFAULT_TUNING).habit
    # the burst begins in a minute; a start takes 45 s at most
    at = START + 5 * 3600.0 - 60.0
    assert seasonal_level(experience.minutes, at + 20.0, LEAD, DEFAULT_TUNING) == pytest.approx(500.0)
    rise = next_rise(experience.minutes, at - 600.0, LEAD, DEFAULT_TUNING)
    assert rise is not None
    assert at - 120.0 <= rise <= at + 60.0 - LEAD


def test_an_hourly_burst_among_other_traffic_is_met_by_habit_from_the_third_hour_on():

    def arrivals(at):
        return (2000.0 if at % 3600 < 300 else 0.0) + (100.0 if (at // 60) % 7 < 3 else 0.0)

    third, _ = lives(arrivals, seconds=3 * 3600 - 60)
    assert keep(third, DEFAULT_TUNING).habit


def test_where_coming_back_takes_minutes_a_habit_is_met_minutes_before_and_until_it_comes():
    experience, _ = lives(bursts(seconds=300, every=3600), seconds=3 * 3600 - 900)
    at, lead = START + 3 * 3600.0, 500.0
    for before in range(20, 500, 20):
        assert seasonal_level(experience.minutes, at - before, lead, DEFAULT_TUNING) == pytest.approx(500.0)
    assert seasonal_level(experience.minutes, at - 640.0, lead, DEFAULT_TUNING) < 250.0
    rise = next_rise(experience.minutes, at - 890.0, lead, DEFAULT_TUNING)
    assert rise is not None
    assert at - 640.0 < rise <= at - lead


def test_what_came_once_is_no_habit():
    experience, _ = lives(lambda at: 500.0 if at < 300 else 0.0, seconds=5400)
    assert seasonal_level(experience.minutes, START + 3600.0, LEAD, DEFAULT_TUNING) == 0.0


def test_living_through_the_same_history_again_teaches_nothing():
    experience, history = lives(bursts(seconds=20, every=150), seconds=1800)
    assert lived(experience, history, ON, DEFAULT_TUNING) is experience


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0.0, 2000.0), min_size=20, max_size=120), st.sampled_from([5, 20, 60]))
def test_how_often_it_looks_does_not_matter(levels, every):
    def arrivals(at):
        return levels[int(at / 5) % len(levels)]

    often, _ = lives(arrivals, seconds=1200, every=5)
    seldom, _ = lives(arrivals, seconds=1200, every=every)
    assert often.at == seldom.at
    assert often.work == pytest.approx(seldom.work, rel=1e-3, abs=0.1)
    for mine, other in zip(often.trials, seldom.trials, strict=True):
        assert mine[3] == pytest.approx(other[3], rel=0.02, abs=60.0)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=40))
def test_the_books_stay_small(levels):
    experience, _ = lives(lambda at: levels[int(at / 5) % len(levels)], seconds=900)
    assert len(experience.trials) == len(WAYS)
    assert len(experience.peaks) <= 24
    assert len(experience.minutes) <= 128
    assert len(experience.needs) <= 60


def test_a_silence_of_days_is_forgotten_quickly_and_cheaply():
    experience, history = lives(bursts(seconds=20, every=150), seconds=3600)
    later = fold(history, engine_id="e", sequence=9999, at=START + 4 * 86_400.0, window_s=60.0)
    after = lived(experience, later, ON, DEFAULT_TUNING)
    assert after.at == START + 4 * 86_400.0
    assert after.work < experience.work / 1000


def test_the_window_is_as_long_as_work_may_wait_and_run():
    assert need_window(10.0, 5.0, DEFAULT_TUNING) == 15.0
    assert need_window(1.0, 0.1, DEFAULT_TUNING) == DEFAULT_TUNING.need_seconds_min
    assert need_window(10.0, 1e4, DEFAULT_TUNING) == DEFAULT_TUNING.need_seconds_max


def test_an_engine_that_tells_later_is_not_left_out():
    # two engines, each with half of the requests; the second one tells of every minute at its end
    both, history = KeepaliveMemory(), LoadHistory()
    for number in range(1, 241):
        end = START + number * 5.0
        history = fold(
            history, engine_id="a", sequence=number, at=end, window_s=5.0, load=1000.0, requests=10
        )
        if number % 12 == 0:
            history = fold(
                history, engine_id="b", sequence=number, at=end, window_s=60.0, load=12_000.0, requests=120
            )
        both = lived(both, history, ON, DEFAULT_TUNING)
    alone, _ = lives(lambda at: 400.0, seconds=1200)
    assert both.at == alone.at
    # the very first minute is told by one of them alone: nobody knew then that there are two
    assert both.work == pytest.approx(alone.work, rel=0.05)


def test_books_of_another_version_are_begun_anew():
    experience, history = lives(bursts(seconds=20, every=150), seconds=3600)
    other = replace(experience, trials=experience.trials[:4], chosen=3)
    later = fold(history, engine_id="e", sequence=9999, at=START + 3605.0, window_s=5.0)
    after = lived(other, later, ON, DEFAULT_TUNING)
    assert len(after.trials) == len(WAYS)
    newer = replace(experience, trials=(*experience.trials, experience.trials[0]), chosen=len(WAYS))
    assert keep(newer, DEFAULT_TUNING).late_share is None, "before anything is lived through, too"


def test_what_was_needed_a_moment_ago_is_known_and_what_was_needed_long_ago_is_not():
    experience, _ = lives(lambda at: 400.0 if at < 580 else 0.0, seconds=600)
    assert needed_since(experience, experience.at - 20.0) == pytest.approx(300.0, rel=0.4)
    assert needed_since(experience, experience.at) == 0.0
    assert needed_since(experience, experience.at + 100.0) == 0.0


def test_of_memoryless_bursts_a_part_that_is_kept_through_every_pause_saves_most_of_the_waiting():
    draw, moments, at = random.Random(7), [], 0.0
    while at < 8 * 3600:
        begin = at + draw.expovariate(1 / 600.0)
        at = begin + draw.expovariate(1 / 60.0)
        moments.append((begin, at))
    experience, _ = lives(
        lambda moment: 1000.0 if any(begin <= moment < end for begin, end in moments) else 50.0,
        seconds=8 * 3600,
    )
    books = dict(zip(WAYS, experience.trials, strict=True))
    part, hour, minutes = (
        books[way]
        for way in (Candidate(45.0, part=0.7, part_seconds=3600.0), Candidate(3600.0), Candidate(600.0))
    )
    assert part[3] < 0.8 * hour[3]
    assert part[2] < 0.5 * minutes[2]


def test_a_request_that_runs_for_longer_than_it_may_wait_needs_a_worker_of_its_own():
    # eight requests of 100 s in the time of one, then twelve: a fluid would flow through eight workers, single requests wait
    long = replace(ON, service_seconds=100.0, start_seconds=60.0)
    short = replace(ON, service_seconds=1.0, start_seconds=60.0)

    def late(on):
        experience, _ = lives(lambda at: 800.0 if at % 600 < 400 else 1000.0, seconds=3600, on=on)
        return experience.trials[WAYS.index(Candidate(60.0))][2]

    assert late(long) > 2 * late(short)


def seldom():
    """Ten seconds of a worker now and then, and each fourth time fifty at once."""
    return lambda at: (1000.0 if at % 3480 < 5 else 200.0) if at % 870 < 5 else 0.0


def test_seldom_requests_keep_one_worker_and_not_those_that_several_at_a_time_once_asked_for():
    single = replace(ON, service_seconds=10.0)
    experience, _ = lives(seldom(), seconds=6 * 3600, on=single)
    kept = keep(experience, DEFAULT_TUNING)
    assert kept.last
    assert kept.seconds < 300
    paid = {way: trial[3] for way, trial in zip(WAYS, experience.trials, strict=True)}
    assert paid[WAYS[experience.chosen]] < 0.8 * paid[Candidate(LAST_SECONDS)]


def test_who_is_late_lets_others_pass_so_only_what_is_beyond_the_capacity_is_booked_as_late():
    # two workers' work on one that is hot, for three minutes: half of it is late, and not everything that comes behind it
    slow = replace(ON, start_seconds=300.0)
    experience, _ = lives(lambda at: 100.0 if at < 1800 else 200.0, seconds=1980, on=slow)
    late = experience.trials[WAYS.index(Candidate(60.0))][2]
    came = 180.0 * 2
    assert came * 0.3 < late <= came * 0.5


# what the planner makes of it


def test_the_last_worker_is_kept_for_an_hour_where_experience_says_so():
    hot = [worker(name, READY, since=START) for name in ("a", "b")]

    def drains(seconds, way):
        experience, history = lives(lambda at: 100.0 if at < 3000 else 0.0, seconds=seconds)
        until = last_until(experience)
        assert until == pytest.approx(START + 3000 + LAST_SECONDS, abs=60) or (not until and seconds > 6600)
        moment, memory = START + seconds, Memory(experience=replace(experience, chosen=WAYS.index(way)))
        decided = decide(see(*hot, now=moment, load=history, memory=memory, listed_at=moment - 1))
        return sum(each.startswith("drain") for each in brief(decided))

    assert drains(4200, Candidate(300.0, last=True)) == 1
    assert drains(4200, Candidate(300.0)) == 2
    assert drains(6660, Candidate(300.0, last=True)) == 2


def test_a_part_is_held_for_longer_than_the_rest():
    way = Candidate(45.0, part=0.7, part_seconds=3600.0)
    experience, _ = lives(lambda at: 400.0, seconds=3600)
    kept = keep(replace(experience, chosen=WAYS.index(way)), DEFAULT_TUNING)
    peaks = ((NOW - 300.0, 1000.0), (NOW - 30.0, 600.0), (NOW, 100.0))
    assert kept.level(peaks, NOW) == 700.0
    assert kept.level(peaks[1:], NOW) == 600.0
    assert kept.level(((NOW - 4000.0, 1000.0), (NOW, 100.0)), NOW) == 100.0


def test_a_spare_that_experience_keeps_is_wanted_and_said():
    spare = next(number for number, way in enumerate(WAYS) if way.spare == 0.5)
    experience, history = lives(lambda at: 400.0, seconds=3600)
    memory = Memory(experience=replace(experience, chosen=spare))
    seen = see(now=START + 3600.0, load=history, memory=memory, listed_at=START + 3599.0)
    util = seen.config.target_util
    assert decide(seen).targets.hot_wanted == pytest.approx(400.0 * 1.5 / util)
    assert "50% more by experience" in decide(seen).targets.reason
    plain = replace(seen, memory=Memory(experience=replace(experience, chosen=5)))
    assert decide(plain).targets.hot_wanted == pytest.approx(400.0 / util)


@pytest.mark.parametrize("number", range(len(WAYS)))
def test_no_way_of_holding_keeps_less_than_the_load_at_target_util(number):
    experience, history = lives(lambda at: 400.0, seconds=3600)
    memory = Memory(experience=replace(experience, chosen=number))
    hot = [worker(f"w{name}", READY, since=START) for name in range(12)]
    moment, config = START + 3600.0, endpoint(target_util=0.8)
    seen = see(*hot, now=moment, load=history, memory=memory, listed_at=moment - 1, config=config)
    decided = decide(seen)
    drained = sum(each.startswith("drain") for each in brief(decided))
    assert decided.targets.hot_wanted >= 400.0 / 0.8 - 1e-6
    assert (12 - drained) * 100.0 >= 400.0 / 0.8


def test_a_sleeping_endpoint_wakes_for_its_hourly_burst():
    experience, history = lives(bursts(seconds=300, every=3600), seconds=5 * 3600 - 120)
    cold = [worker(f"w{number}", COLD, since=START) for number in range(6)]
    memory = Memory(experience=experience)

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
    assert asleep.look_again_at is not None
    woken = decide(at(START + 5 * 3600.0 - 100.0))
    assert sum(each.startswith("activate") for each in brief(woken)) == 5
    assert "at this minute of each of the last hours" in woken.targets.reason


def test_where_nothing_is_kept_cold_the_hourly_burst_has_its_machines_rented_two_boots_before():
    experience, history = lives(bursts(seconds=300, every=3600), seconds=5 * 3600 - 900)
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
            memory=Memory(experience=experience),
            config=endpoint(min_workers=0, cold_mult=1.0),
        )

    asleep = decide(at(START + 5 * 3600.0 - lead - 130.0))
    assert brief(asleep) == []
    assert asleep.look_again_at is not None
    assert asleep.look_again_at <= START + 5 * 3600.0 - lead
    woken = decide(at(asleep.look_again_at + 61.0))
    assert sum(each.startswith("recruit") for each in brief(woken)) == 5


@pytest.mark.parametrize("cold", [True, False])
def test_the_books_of_a_habit_pay_for_two_boots_where_nothing_is_kept_cold(cold):
    experience, history = lives(bursts(seconds=300, every=3600), seconds=5 * 3600 - 180)
    moment = START + 5 * 3600.0 - 120.0
    history = fold(history, engine_id="e", sequence=9999, at=moment, window_s=60.0)
    known = knows()
    seen = see(
        *(worker(f"w{number}", COLD, since=START) for number in range(6 if cold else 0)),
        now=moment,
        load=history,
        learned=replace(known, kinds=tuple(replace(kind, starts=0) for kind in known.kinds)),
        listed_at=moment - 1,
        memory=Memory(experience=experience),
        config=endpoint(min_workers=6 if cold else 0, cold_mult=1.0),
    )
    memory = plan(seen).memory
    assert memory is not None
    hot = memory.experience.trials[WAYS.index(Candidate(45.0, habit=True))][4]
    assert hot == (0 if cold else 5)


def test_a_step_from_nothing_starts_what_clears_the_queue_beside_what_arrives():
    # 900 load/s for 15 s in requests of 100 load, nobody hot, 20 s to help
    history = LoadHistory()
    for number in range(1, 4):
        history = fold(
            history, engine_id="e", sequence=number, at=NOW - 15 + 5 * number, window_s=5.0, load=4500.0,
            requests=45, queued_load=4500.0 * number, queued_requests=45 * number,
        )  # fmt: skip
    cold = [worker(f"w{number}", COLD) for number in range(60)]
    decided = decide(see(*cold, load=history, config=endpoint(max_workers=100, min_workers=60)))
    started = sum(each.startswith("activate") for each in brief(decided))
    # by the time that help comes some 13,500 + 900 x 20 load wait: 9 workers for what arrives and 31 to clear that in 10 s,
    # but no more than four times what arrives
    assert 30 <= started <= 40


def test_yesterdays_load_has_its_cold_workers_before_it_comes_round():
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
    # 500 load/s came half an hour after this time: twice that is wanted, cold
    assert wanted.total_wanted == pytest.approx(1000.0)
    assert wanted.hot_wanted == 0.0
    plain = decide(see(now=START, load=history, config=endpoint(cold_mult=1))).targets
    assert plain.total_wanted == 0.0
    early = decide(
        see(now=START, load=replace(history, known_since=START - 80_000.0), config=endpoint(cold_mult=2))
    ).targets
    assert early.total_wanted == 0.0
