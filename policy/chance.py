"""What chance does to a level of load: which rise it cannot explain, and how much spare it needs.

Requests that come independently at r load/s with mean cost c arrive over a window of w seconds with a variance of
r x w x E[cost²]/c: a few long requests scatter more than many short ones. `cost_spread` stands for E[cost²] / c², 1 for
equal costs, 2 for exponential ones. A history without counted requests (an older engine) knows no cost: then chance
is left out, and the fixed discount of `forecast` holds.
"""

from itertools import pairwise

from policy.load import LoadHistory, rate
from policy.tuning import Tuning

_HISTORY_SECONDS = 300.0
_WINDOWS_MIN = 4


def proven_level(history: LoadHistory, tuning: Tuning) -> tuple[float, float]:
    """(load/s, window in s) of the highest level that one of the windows proves beyond chance; (0, 0): none does.

    100 load/s over 15 s in requests of 10 load scatter by √(100 x 10 x 1.7 / 15) = 11: two of that away, 78 are sure.
    """
    best, of = 0.0, 0.0
    if history.mean_cost <= 0:
        return best, of
    for window in tuning.proof_windows:
        level = rate(history, window) or 0.0
        scatter = (level * history.mean_cost * tuning.cost_spread / window) ** 0.5
        if level - tuning.proof_deviations * scatter > best:
            best, of = level - tuning.proof_deviations * scatter, window
    return best, of


def dispersion(history: LoadHistory, tuning: Tuning) -> float:
    """How many times more than chance the load of successive windows differs; 1 for independent requests.

    From differences of neighbours, so that a level that moves slowly is not taken for one that scatters.
    """
    if history.mean_cost <= 0 or history.known_until is None:
        return 1.0
    width = tuning.dispersion_seconds
    count = int(min(_HISTORY_SECONDS, history.covered_seconds) // width)
    if count < _WINDOWS_MIN:
        return 1.0
    last = history.known_until // width
    sums = [0.0] * count
    for at, load in history.seconds:
        number = int(last - at // width)
        if 0 < number < count:
            sums[number] += load
    values = sums[1:]  # the newest is not full yet
    mean = sum(values) / len(values)
    if mean <= 0:
        return 1.0
    moved = sum([(later - earlier) ** 2 for later, earlier in pairwise(values)]) / (2.0 * (len(values) - 1))
    return min(max(moved / (mean * history.mean_cost * tuning.cost_spread), 1.0), tuning.dispersion_max)


def spare(
    level: float, *, mean_cost: float, perf: float, scatter: float, queue_seconds: float, tuning: Tuning
) -> float:
    """Load/s of capacity over the mean level, so that chance seldom makes anybody wait over `queue_seconds`.

    With n workers busy on average, independent requests keep n ± √n busy. Where requests are short against the time
    that they may wait, the wait averages that out: only the share of a request's time in the allowed wait counts.
    """
    if mean_cost <= 0 or perf <= 0 or level <= 0:
        return 0.0
    unaveraged = min(1.0, tuning.cost_spread * mean_cost / (perf * queue_seconds))
    honest = (level * perf * unaveraged) ** 0.5
    return float(honest * (tuning.spare_deviations + tuning.burst_deviations * (scatter - 1.0) ** 0.5))
