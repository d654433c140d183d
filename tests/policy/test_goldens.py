"""Goldens of plans as text. Users see these reasons, so changes need a review."""

from dataclasses import replace

from policy.state.worker import Goal, KindRecord, MachineStats
from stoker_wire.states import WorkerState as S
from tests.policy.builders import (
    COLD,
    NOW,
    decide,
    draining,
    endpoint,
    group,
    held_before,
    offer,
    offers,
    plenty,
    printed,
    see,
    steady,
    worker,
)

LISTED = offers(
    offer(11, gpu="RTX 3090", price=0.18, dlperf=25.0),
    offer(12, gpu="RTX 4090", price=0.31, dlperf=55.0),
    offer(13, gpu="RTX 4090", price=0.33, dlperf=55.0),
    offer(14, gpu="H100", price=2.10, dlperf=180.0),
)


def test_a_new_endpoint(golden):
    seen = see(
        config=endpoint(min_workers=3, min_load=1),
        learned=MachineStats(),
        offers=(LISTED,),
        workergroups=(group(test_workers=3),),
        listed_at=0.0,
    )
    first = decide(replace(seen, offers=()))
    golden(printed(first) + "\nonce the search has answered:\n" + printed(decide(seen)))


def test_a_burst(golden):
    kinds = (
        KindRecord(workergroup_id=1, kind="1x RTX 3090", perf=110, samples=2, boot_seconds=150, boots=2),
        KindRecord(workergroup_id=1, kind="1x RTX 4090", perf=210, samples=2, boot_seconds=140, boots=2),
    )
    crowd = [
        worker("a1hot", perf=210, price=0.31, load=5000.0, in_flight=9),
        draining("b2drn", kind="1x RTX 3090", perf=110, price=0.18, seen=None),
        worker("c3cold", COLD, kind="1x RTX 3090", perf=110, price=0.18, since=NOW - 720),
        worker("d4load", S.MODEL_LOADING, since=NOW - 60, perf=210, price=0.31),
    ]
    seen = see(
        *crowd,
        config=endpoint(target_util=0.9),
        load=steady(600, waiting=4000, requests=12),
        offers=(LISTED,),
        learned=MachineStats(kinds=kinds),
    )
    golden(printed(decide(seen)))


def test_a_calm_evening(golden):
    crowd = [
        worker("a1hot", perf=210, price=0.31),
        worker("b2hot", perf=110, price=0.40),
        draining("c3drn", perf=110, price=0.42),
        worker("d4cold", COLD, perf=110, price=0.18, since=NOW - 9000),
    ]
    golden(
        printed(
            decide(held_before(see(*crowd, config=endpoint(min_workers=2), load=steady(50)), predicted=50))
        )
    )


def test_a_bad_day(golden):
    crowd = [
        worker("a1hot"),
        worker("b2hot", suspect_since=NOW - 30),
        worker(
            "c3err", S.ERROR, error="CUDA error: an illegal memory access was encountered", loaded_once=True
        ),
        worker("d4new", S.LOADING, since=NOW - 400),
        worker("e5stuck", S.STARTING, since=NOW - 50, market_status="stopped"),
        worker("f6cool", COLD, retry_at=NOW + 40),
    ]
    golden(printed(decide(see(*crowd, load=steady(300), offers=(offers(at=NOW - 9),)))))


def test_at_the_limits(golden):
    config = endpoint(max_workers=3, dollars_per_hour_max=0.7, min_workers=9)
    seen = see(worker("a1hot"), worker("b2cold", COLD), config=config, load=steady(900), offers=(plenty(3),))
    golden(printed(decide(seen)))


def test_a_rolling_update(golden):
    crowd = [
        worker("a1old"),
        worker("b2old", in_flight=4, load=40.0),
        worker("c3old", COLD),
        draining("d4old", Goal.UPDATE),
        worker("e5new", revision=2),
    ]
    seen = see(*crowd, workergroups=(group(revision=2),), load=steady(190), offers=(plenty(),))
    golden(printed(decide(seen)))


def test_missing_engine_reports(golden):
    crowd = [worker("a1hot", reported_at=NOW - 900), worker("b2cold", COLD)]
    golden(printed(decide(held_before(see(*crowd, load=steady(80, until=NOW - 900))))))


def test_a_deleted_endpoint(golden):
    crowd = [worker("a1hot", in_flight=1), draining("b2drn", Goal.DESTROY), worker("c3cold", COLD)]
    golden(printed(decide(see(*crowd, deleting=True))))
