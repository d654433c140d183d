"""What chance does to a level of load: which rise it cannot explain.

Requests that come independently at r load/s with mean cost c arrive over a window of w seconds with a variance of
r x w x E[cost²]/c: a few long requests scatter more than many short ones. `cost_spread` stands for E[cost²] / c², 1 for
equal costs, 2 for exponential ones. A history without counted requests (an older engine) knows no cost: then chance
is left out, and the fixed discount of `forecast` holds.
"""

from policy.load import LoadHistory, rate
from policy.tuning import Tuning


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
