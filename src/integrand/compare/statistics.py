"""Statistics of scores: bootstrap intervals, paired differences with tests, and verdicts.

    mean         with a bootstrap interval over examples (BCa)
    differences  between two methods on the same examples: mean with its studentised interval, the
                 larger p of sign flips and of the studentised bootstrap, win rate with Wilson's
                 interval
    verdict      a winner only where its differences to all other methods are significant after
                 Bonferroni's correction

The unit of resampling is the example, never pixels or steps. An example without a value (NaN) is
left out of what needs that value, and counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError, UnknownName
from .scores import Numbers, Scores

_BLOCK = 1 << 22  # numbers drawn at a time
_EXACT = 14  # up to so many examples all flips of signs are tried: 16,384
_TIE = 1e-12  # relative difference of two means that is rounding

Statistic = Callable[..., Any]
"""(values (…, E), axis=-1) -> (…), as ``np.mean`` and ``np.median``."""


@dataclass(frozen=True)
class Inference:
    """Parameters of intervals and tests.

    Args:
        level: of intervals; tests are at 1 − level.
        draws: of bootstrap and permutations.
        seed: of the draws.
        bootstrap: of means, "bca", corrected for bias and skewness, or "percentile"; that of
            paired differences is studentised.
    """

    level: float = 0.95
    draws: int = 9999
    seed: int = 0
    bootstrap: str = "bca"

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise InputError(f"level= is a probability such as 0.95, not {self.level}.")
        if self.draws < 99:
            raise InputError(
                f"draws= is at least 99, not {self.draws}: tests and intervals are no finer than that."
            )
        if self.bootstrap not in ("bca", "percentile"):
            raise UnknownName("bootstrap", self.bootstrap, ("bca", "percentile"))

    @property
    def alpha(self) -> float:
        """The bound below which a corrected p is significant."""
        return 1 - self.level


# --- arithmetic -------------------------------------------------------------------------------------------------------


def interval(
    values: ArrayLike, sure: Inference = Inference(), statistic: Statistic = np.mean
) -> tuple[float, float]:
    """Bootstrap interval of a statistic of values (E,), examples drawn with replacement.

    Percentiles of the statistic of ``draws`` draws; "bca" moves them by the bias z₀ = Φ⁻¹(share of
    draws below the statistic) and the acceleration a of the jackknife: α → Φ(z₀ + (z₀ + z_α) / (1 −
    a (z₀ + z_α))). With fewer than two values, (NaN, NaN): one example says nothing. It is too
    narrow for few examples, as every bootstrap is: of nominal 95 % intervals of ten examples about
    90 % hold the mean, of thirty about 93 %.

    References:
        Efron, "Better bootstrap confidence intervals", JASA 1987.
    """
    numbers: Numbers = np.asarray(values, dtype=np.float64)
    numbers = numbers[~np.isnan(numbers)]
    if len(numbers) < 2:
        return math.nan, math.nan
    if np.ptp(numbers) <= _TIE * np.abs(numbers).max():
        return float(numbers[0]), float(numbers[0])
    drawn = _drawn(numbers, sure, statistic)
    tails = np.array([(1 - sure.level) / 2, (1 + sure.level) / 2])
    if sure.bootstrap == "bca":
        tails = _corrected(tails, drawn, numbers, statistic)
    low, high = np.quantile(drawn, tails)
    return float(low), float(high)


def _drawn(values: Numbers, sure: Inference, statistic: Statistic) -> Numbers:
    """(draws,) the statistic of samples drawn with replacement."""
    generator = np.random.default_rng(sure.seed)
    size = max(1, _BLOCK // len(values))
    results = []
    for first in range(0, sure.draws, size):
        indices = generator.integers(len(values), size=(min(size, sure.draws - first), len(values)))
        results.append(np.asarray(statistic(values[indices], axis=-1)))
    return np.concatenate(results)


def _corrected(tails: Numbers, drawn: Numbers, values: Numbers, statistic: Statistic) -> Numbers:
    """The tails of BCa; those of percentiles where the draws are all on one side, or the jackknife
    does not vary."""
    normal = NormalDist()
    observed = statistic(values, axis=-1)
    below = (np.mean(drawn < observed) + np.mean(drawn <= observed)) / 2
    left_out = np.array([statistic(np.delete(values, i), axis=-1) for i in range(len(values))])
    off = left_out.mean() - left_out
    spread = float((off**2).sum()) ** 1.5
    if not 0 < below < 1 or spread == 0:
        return tails
    bias, pull = normal.inv_cdf(float(below)), float((off**3).sum()) / (6 * spread)
    moved = [bias + normal.inv_cdf(float(tail)) for tail in tails]
    return np.array([normal.cdf(bias + z / (1 - pull * z)) for z in moved])


def sign_flip(differences: ArrayLike, sure: Inference = Inference()) -> Numbers:
    """Two-sided p of paired differences (P, E): how often randomly flipped signs give a mean as far
    from 0.

    The null hypothesis: every difference is as likely as its negative. Differences that average 0
    and are skewed are not: of very skewed ones (exponential, 20 examples) 9 % come out below .05
    and 2 % below .005; ``paired`` is not misled by them. Up to 14 examples that differ all flips
    are tried and p is exact; beyond, ``draws`` of them, the observed one counted: p = (1 + as
    extreme) / (1 + draws). NaN differences are left out; where all are, p is NaN.
    """
    differences = np.atleast_2d(np.asarray(differences, dtype=np.float64))
    known = ~np.isnan(differences)
    p = np.where(known.any(1), 1.0, np.nan)
    flipped = np.where(known, differences, 0.0)  # flipping nothing changes nothing
    differ = (flipped != 0).sum(1)
    for row in np.flatnonzero((differ > 0) & (differ <= _EXACT)):
        nonzero = flipped[row][flipped[row] != 0]
        signs = 1 - 2 * (np.arange(2 ** len(nonzero))[:, None] >> np.arange(len(nonzero)) & 1)
        p[row] = _as_extreme(signs @ nonzero[:, None], nonzero.sum(keepdims=True)).mean()
    many = np.flatnonzero(differ > _EXACT)
    if len(many):
        p[many] = _sampled(flipped[many], sure)
    return p


def _as_extreme(sums: Numbers, observed: Numbers) -> Any:
    return np.abs(sums) >= np.abs(observed) * (1 - _TIE)


def _sampled(differences: Numbers, sure: Inference) -> Numbers:
    generator = np.random.default_rng(sure.seed)
    rows, examples = differences.shape
    extreme = np.zeros(rows)
    size = max(1, _BLOCK // max(examples, rows))
    observed = differences.sum(1)
    for first in range(0, sure.draws, size):
        signs = (
            generator.integers(2, size=(min(size, sure.draws - first), examples), dtype=np.int8)
            * 2.0
            - 1.0
        )
        extreme += _as_extreme(signs @ differences.T, observed).sum(0)
    p: Numbers = (1 + extreme) / (1 + sure.draws)
    return p


_SPREAD = 0.25
"""Of a draw's standard deviation, the least that counts, as a fraction of the sample's: a draw of
one example many times has none."""


@dataclass(frozen=True, eq=False)
class Paired:
    """Means of paired differences (P, E) against 0.

    Args:
        p: (P,) two-sided.
        low: (P,) end of the mean's interval.
        high: (P,) end of the mean's interval.
    """

    p: Numbers
    low: Numbers
    high: Numbers


def paired(differences: ArrayLike, sure: Inference = Inference()) -> Paired:
    """Paired differences (P, E): the studentised interval of their mean, and the larger p of
    ``sign_flip`` and of the studentised bootstrap.

        t* = (mean* − mean) / max(s*, s/4) over ``draws`` samples with replacement
        interval  mean − s · (t*'s upper, lower quantile),     p = 2 min(P(t* ≥ t), P(t* ≤ t)),  t = mean / s

    Sign flips are exact where a difference is as likely as its negative, and mistake skewness for a
    difference elsewhere; the studentised bootstrap allows for skewness, and is a little generous
    with very few examples. Both have to agree. Of exponential differences that average 0 (20
    examples) 5 % come out below .05 and .7 % below .005, of lognormal ones 6 % and 1 %, of normal
    ones 4 % and .2 %. The interval is wider than BCa's where differences are skewed, on the side
    of the tail.

    NaN differences are left out. A single one has no interval (NaN) and p = 1, as have differences
    that are all 0; none has neither.

    Cost:
        ``draws`` samples of each set of examples that the rows have values for, shared by these
        rows.

    References:
        Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 12.
    """
    rows: Numbers = np.atleast_2d(np.asarray(differences, dtype=np.float64))
    p, low, high = np.full((3, len(rows)), np.nan)
    known = ~np.isnan(rows)
    for mask in np.unique(known, axis=0):
        if mask.sum() < 2:
            continue
        which = np.flatnonzero((known == mask).all(1))
        p[which], low[which], high[which] = _studentised(rows[which][:, mask], sure)
    return Paired(np.fmax(p, sign_flip(rows, sure)), low, high)


def _studentised(values: Numbers, sure: Inference) -> tuple[Numbers, Numbers, Numbers]:
    """p, low and high of the means of rows (P, E) without gaps."""
    examples = values.shape[1]
    unit = np.abs(values).max(1)  # squares of very small numbers would vanish
    unit = np.where(unit > 0, unit, 1.0)
    values = values / unit[:, None]
    mean, spread = values.mean(1), values.std(1, ddof=1)
    constant = np.ptp(values, axis=1) <= _TIE * np.abs(values).max(1)
    scale = np.where(constant, 1.0, spread)
    standard = (values - mean[:, None]) / scale[:, None]
    t = np.empty((sure.draws, len(values)))
    generator = np.random.default_rng(sure.seed)
    size = max(1, _BLOCK // max(examples, len(values)))
    for first in range(0, sure.draws, size):
        many = min(size, sure.draws - first)
        counts = drawn_counts(generator, examples, many)
        drawn = counts @ standard.T / examples
        squares = counts @ (standard**2).T / examples - drawn**2
        deviation = np.sqrt(np.maximum(squares, 0) * examples / (examples - 1))
        t[first : first + many] = drawn / np.maximum(deviation, _SPREAD)
    tail = (1 - sure.level) / 2
    lower, upper = np.quantile(t, [tail, 1 - tail], axis=0)
    observed = mean / scale
    beyond = np.minimum((t >= observed).sum(0), (t <= observed).sum(0))
    p = np.minimum(1, 2 * (1 + beyond) / (1 + sure.draws))
    p = np.where(constant, np.where(mean == 0, 1.0, 2 / (1 + sure.draws)), p)
    return (
        p,
        unit * np.where(constant, values[:, 0], mean - scale * upper),
        unit * np.where(constant, values[:, 0], mean - scale * lower),
    )


def drawn_counts(generator: np.random.Generator, examples: int, many: int) -> Numbers:
    """How often each example is in each of ``many`` samples with replacement: (many, E)."""
    picks = generator.integers(examples, size=(many, examples))
    picks += examples * np.arange(many)[:, None]
    counts = np.bincount(picks.ravel(), minlength=many * examples)
    return counts.reshape(many, examples).astype(np.float64)


def holm(p: ArrayLike) -> Numbers:
    """Holm's correction of p values (P,) for the family-wise error rate.

    Sorted, p_(i) becomes the largest (P − j) p_(j) of those up to it, j from 0; NaN is no test and
    stays NaN.

    References:
        Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    p = np.asarray(p, dtype=np.float64)
    corrected = np.full(p.shape, np.nan)
    tests = np.flatnonzero(~np.isnan(p))
    order = tests[np.argsort(p[tests], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1, np.maximum.accumulate(factors * p[order]))
    return corrected


def wilson(wins: float, many: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of the share ``wins`` / ``many``; wins may be halves, for ties. (NaN, NaN)
    where many is 0."""
    if many == 0:
        return math.nan, math.nan
    z = NormalDist().inv_cdf((1 + level) / 2)
    proportion, scale = wins / many, 1 + z**2 / many
    middle = (proportion + z**2 / (2 * many)) / scale
    half = z * math.sqrt(proportion * (1 - proportion) / many + z**2 / (4 * many**2)) / scale
    return max(0.0, middle - half), min(1.0, middle + half)


# --- of scores --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """Scores of one method by one metric, over examples.

    Args:
        method: its name.
        metric: its name.
        n: examples with a value.
        missing: examples without.
        mean: of the values.
        low: end of the mean's interval.
        high: end of the mean's interval.
        median: of the values.
        quantiles: .05, .25, .75 and .95.
    """

    method: str
    metric: str
    n: int
    missing: int
    mean: float
    low: float
    high: float
    median: float
    quantiles: tuple[float, float, float, float]


@dataclass(frozen=True)
class Difference:
    """One method against another by one metric, on the n examples that both have values for.

    Args:
        method: its name.
        reference: the other method.
        metric: its name.
        n: examples.
        mean: of method − reference.
        low: end of the mean's interval.
        high: end of the mean's interval.
        p: two-sided, see ``paired``.
        corrected: p, corrected for the family it was tested in.
        wins: share of examples on which the method is better, ties counting half.
        wins_low: end of the share's interval.
        wins_high: end of the share's interval.
    """

    method: str
    reference: str
    metric: str
    n: int
    mean: float
    low: float
    high: float
    p: float
    corrected: float
    wins: float
    wins_low: float
    wins_high: float


@dataclass(frozen=True)
class Verdict:
    """The best method by one metric, and whether its lead is significant.

    Args:
        metric: its name.
        best: the method with the best mean over the examples that all have values for, controls
            excluded; None where nothing has a value.
        winner: that method, if it is significantly better than every other; else None.
        tied: methods that the best is not significantly better than.
        blind: controls that the best is not significantly better than.
        words: the same in a sentence.
    """

    metric: str
    best: str | None
    winner: str | None
    tied: tuple[str, ...]
    blind: tuple[str, ...]
    words: str


def summaries(scores: Scores, sure: Inference = Inference()) -> list[Summary]:
    """Summaries of every method by every metric."""
    rows = []
    for metric in scores.metrics:
        for method, values in zip(scores.methods, scores.of(metric), strict=True):
            known = values[~np.isnan(values)]
            if not len(known):
                none = math.nan
                rows.append(
                    Summary(method, metric, 0, len(values), none, none, none, none, (none,) * 4)
                )
                continue
            five, quarter, median, three, most = (
                float(v) for v in np.quantile(known, (0.05, 0.25, 0.5, 0.75, 0.95))
            )
            low, high = interval(known, sure)
            missing = len(values) - len(known)
            mean = float(known.mean())
            rows.append(
                Summary(
                    method,
                    metric,
                    len(known),
                    missing,
                    mean,
                    low,
                    high,
                    median,
                    (five, quarter, three, most),
                )
            )
    return rows


def differences(scores: Scores, reference: str, sure: Inference = Inference()) -> list[Difference]:
    """Differences of every method from the reference by every metric, with Holm's correction over
    all of these tests. Raises ``UnknownName`` for another reference."""
    if reference not in scores.methods:
        raise UnknownName("method to compare with", reference, scores.methods)
    pairs = [(method, reference) for method in scores.methods if method != reference]
    if not pairs:
        return []
    tested = {metric: _paired(scores, metric, pairs) for metric in scores.metrics}
    family = _family(sure, len(pairs) * len(tested))
    means = [paired(rows, family) for rows in tested.values()]
    p, low, high = (
        np.concatenate([getattr(mean, name) for mean in means]) for name in ("p", "low", "high")
    )
    statistics = iter(zip(low, high, p, holm(p), strict=True))
    return [
        _difference(scores, metric, pair, row, next(statistics), sure)
        for metric, rows in tested.items()
        for pair, row in zip(pairs, rows, strict=True)
    ]


def verdict(scores: Scores, metric: str, sure: Inference = Inference()) -> Verdict:
    """The best method by a metric, if its lead over every other method and control is significant.

    Each of its M − 1 differences is tested by ``paired`` and p is multiplied by M − 1; the interval
    of the difference has to leave out 0 as well. Whoever is truly best is then, at the
    level chosen, either the method with the best mean or among those it is not significantly better
    than, although the best is chosen by the same scores: a method is crowned wrongly only if it
    beats the truly best one at p < (1 − level)/(M − 1), and there are M − 1 such methods (multiple
    comparisons with the best, Hsu 1996). Holm's steps would be too generous here, because a crown
    needs all tests at once.

    Where the best is not significantly better than a control, the metric is uninformative on these
    examples, and there is no winner.
    """
    values = dict(zip(scores.methods, scores.of(metric), strict=True))
    sign = 1 if scores.is_higher(metric) else -1
    means = {name: sign * mean for name, mean in _means(values).items()}
    contenders = [name for name in means if name not in scores.controls]
    if not contenders:
        return Verdict(metric, None, None, (), (), "no winner: no method has a value")
    best = max(contenders, key=lambda name: means[name])
    rivals = [name for name in means if name != best]
    leads = sign * _paired(scores, metric, [(best, name) for name in rivals])
    unresolved = [name for name, lead in zip(rivals, _leads(leads, sure), strict=True) if not lead]
    blind = tuple(name for name in unresolved if name in scores.controls)
    tied = tuple(name for name in unresolved if name not in scores.controls)
    win_rates = {
        name: _wins(row)
        for name, row in zip(rivals, leads, strict=True)
        if name not in scores.controls
    }
    n = int((~np.isnan(values[best])).sum())
    crowned = n > 1 and bool(win_rates) and not tied and not blind
    words = _worded(metric, best, n, win_rates, tied, blind, len(rivals), sure)
    return Verdict(metric, best, best if crowned else None, tied, blind, words)


def _leads(differences: Numbers, sure: Inference) -> Any:
    """(P,) bool: whether differences (P, E) are significantly above 0, by test, mean and
    interval."""
    tests = len(differences)
    if not tests:
        return np.empty(0, dtype=bool)
    mean = paired(differences, _family(sure, tests))
    means = np.array([_known_mean(row) for row in differences])
    return (tests * mean.p < sure.alpha) & (means > 0) & (mean.low > 0)


def _means(values: dict[str, Numbers]) -> dict[str, float]:
    """Means of methods that have any value, over the examples that all of these have values for
    where there are such.

    A method that fails on what is hard would otherwise look good for it.
    """
    known = {name: row for name, row in values.items() if not np.isnan(row).all()}
    common = ~np.isnan(list(known.values())).any(0) if known else np.zeros(0, dtype=bool)
    return {
        name: float(row[common].mean()) if common.any() else _known_mean(row)
        for name, row in known.items()
    }


def _known_mean(row: Numbers) -> float:
    known = row[~np.isnan(row)]
    return float(known.mean()) if len(known) else math.nan


def _wins(differences: Numbers) -> float:
    """The fraction of differences that are positive, those that are zero counting half."""
    known = differences[~np.isnan(differences)]
    return float(np.mean((known > 0) + (known == 0) / 2)) if len(known) else math.nan


def _worded(
    metric: str,
    best: str,
    n: int,
    win_rates: dict[str, float],
    tied: tuple[str, ...],
    blind: tuple[str, ...],
    tests: int,
    sure: Inference,
) -> str:
    if n == 1:
        return "no winner: one example says nothing"
    if not win_rates and not blind:
        return f"no winner: {best} is the only method"
    needed = _needed(tests, sure)
    if n < min(needed, _EXACT):
        return f"no winner: {n} examples are too few for any difference to be significant; {needed} may do"
    if blind:
        beside = f", nor from {_listed(tied)}" if tied else ""
        noun = "controls" if len(blind) > 1 else "control"
        return f"no winner: {metric} does not tell {_quoted(best)} from {noun} {_listed(blind)} here{beside}"
    if tied:
        return f"no winner: {_listed(tied)} cannot be told from {_quoted(best)}, which has the best mean"
    closest = min(win_rates, key=lambda name: win_rates[name])
    best = _quoted(best)
    beaten = _listed(list(win_rates)) if len(win_rates) < 4 else f"all {len(win_rates)} others"
    return f"{best} beats {beaten}; it is better than {_quoted(closest)} on {100 * win_rates[closest]:.0f} % of examples"


def _needed(tests: int, sure: Inference) -> int:
    """How many examples it takes before the smallest p there is, 2/2^n, survives the correction."""
    return max(2, 2 + math.floor(math.log2(max(1, tests) / sure.alpha)))


def _quoted(name: str) -> str:
    """A name in a sentence: one with a comma of its own would read as two."""
    return f"“{name}”" if "," in name else name


def _listed(names: Sequence[str]) -> str:
    names = list(map(_quoted, names))
    shown = names if len(names) <= 4 else [*names[:3], f"{len(names) - 3} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _paired(scores: Scores, metric: str, pairs: Sequence[tuple[str, str]]) -> Numbers:
    """(P, E) differences of pairs of methods."""
    values = dict(zip(scores.methods, scores.of(metric), strict=True))
    return np.array([values[method] - values[reference] for method, reference in pairs]).reshape(
        len(pairs), len(scores)
    )


def _family(sure: Inference, tests: int) -> Inference:
    """Enough draws that the smallest p is still small after correction for so many tests."""
    draws = max(sure.draws, math.ceil(5 * tests / sure.alpha))
    return Inference(sure.level, draws, sure.seed, sure.bootstrap)


def _difference(
    scores: Scores,
    metric: str,
    pair: tuple[str, str],
    differences: Numbers,
    statistics: tuple[float, float, float, float],
    sure: Inference,
) -> Difference:
    known = differences[~np.isnan(differences)]
    if not len(known):
        none = math.nan
        return Difference(*pair, metric, 0, none, none, none, none, none, none, none, none)
    better = known > 0 if scores.is_higher(metric) else known < 0
    wins = float(better.sum() + (known == 0).sum() / 2)
    bounds = wilson(wins, len(known), sure.level) if len(known) > 1 else (math.nan, math.nan)
    low, high, p, corrected = (float(number) for number in statistics)
    return Difference(
        *pair,
        metric,
        len(known),
        float(known.mean()),
        low,
        high,
        p,
        corrected,
        wins / len(known),
        *bounds,
    )
