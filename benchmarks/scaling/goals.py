"""The goals, each beside its result."""

from collections.abc import Sequence
from typing import Any

from benchmarks.scaling.measure import Row, best_fixed, best_per_workload, geomean, large

GOALS = {
    "attainment": 0.99,
    "pool": 1.6,
    "large": 1.12,
    "nopool": 2.0,
    "kinds": 1.05,
}


def goals(measured: dict[str, Any]) -> None:
    """One line per goal: the policy, the best of the peers in this simulator, the goal."""
    print(f"\n## Goals\n\n{'':<70}{'best peers here':>24}{'stoker':>9}{'goal':>9}")
    pool, tried = measured.get("pool", []), measured.get("hindsight", [])
    _attainment(pool)
    _ratio("geomean cost ÷ ORACLE99, cold pool", pool, tried, GOALS["pool"])
    _ratio("… large or diurnal workloads", _large(pool), _large(tried), GOALS["large"])
    _ratio(
        "… no cold pool", measured.get("nopool", []), measured.get("nopool_hindsight", []), GOALS["nopool"]
    )
    if "kinds" in measured:
        _line(
            "$ per work ÷ hindsight-cheapest kind, after a day",
            "",
            measured["kinds"]["ratio"],
            f"≤ {GOALS['kinds']}",
        )
    for made in measured.get("routing", []):
        if made["router"].startswith("stoker"):
            _line(f"p99: {made['case']}, {made['router'][8:]}", "", made["p99"], f"≤ {made['goal']}")


def _attainment(rows: Sequence[Row]) -> None:
    mine, peers = _split(rows)
    if not mine:
        return
    worst = {
        name: min(each["within_10"] for each in peers if each["scaler"] == name)
        for name in dict.fromkeys(each["scaler"] for each in peers)
    }
    name = max(worst, key=lambda each: worst[each], default="")
    best = f"{worst[name]:.3f} ({name})" if name else ""
    _line(
        "attainment ≤ 10 s, worst workload; peers at defaults",
        best,
        min(each["within_10"] for each in mine),
        "≥ 0.99",
    )


def _ratio(title: str, rows: Sequence[Row], tried: Sequence[Row], goal: float) -> None:
    mine, peers = _split(rows)
    if not mine:
        return
    everything = [*tried] or [*peers]
    if everything:
        chosen, fixed = best_per_workload(everything), best_fixed(everything)
        good = sum(each["within_10"] >= 0.99 for each in chosen)
        _line(
            f"{title}; peers in hindsight per workload",
            f"{geomean(_ratios(chosen)):.2f} ({good}/{len(chosen)})",
            geomean(_ratios(mine)),
            f"≤ {goal}",
        )
        good = sum(each["within_10"] >= 0.99 for each in fixed)
        name = f"  best fixed peer: {fixed[0]['scaler']}, {fixed[0]['setting']}"
        _line(name, f"{geomean(_ratios(fixed)):.2f} ({good}/{len(fixed)})", None, "")
    else:
        _line(title, "", geomean(_ratios(mine)), f"≤ {goal}")


def _line(title: str, peers: str, mine: float | None, goal: str) -> None:
    print(f"{title[:69]:<70}{peers:>24}{'' if mine is None else format(mine, '.3f'):>9}{goal:>9}")


def _split(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    mine = [each for each in rows if each["scaler"] == "stoker"]
    return mine, [each for each in rows if each["scaler"] != "stoker"]


def _large(rows: Sequence[Row]) -> list[Row]:
    return [each for each in rows if large([each])]


def _ratios(rows: Sequence[Row]) -> list[float]:
    return [each["ratio"] for each in rows]
