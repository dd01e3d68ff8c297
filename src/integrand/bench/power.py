"""Power: which difference so many examples can show, and how many a difference takes.

    detectable = (t_{1−α/2} + t_{power}) · s / √n,      s the standard deviation of paired differences

Planned beforehand, from intervals that a first look reports: s = half the interval · √n / t_{1−α/2}.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError

POWER = 0.8
"""Chance to find a difference that is there, where nothing else is said."""


def student(probability: float, freedom: float) -> float:
    """Quantile of Student's t, by Cornish and Fisher's series in 1/freedom (four terms; to 1 % from four
    degrees of freedom on, for probabilities of .005 to .995)."""
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom**k for k, term in enumerate(terms, 1))


def spread(low: float, high: float, n: int, level: float = 0.95) -> float:
    """The standard deviation of paired differences behind an interval of their mean over n examples."""
    _enough(n)
    return (high - low) / 2 * math.sqrt(n) / student((1 + level) / 2, n - 1)


def detectable(spread: float, n: int, power: float = POWER, level: float = 0.95) -> float:
    """The mean difference that n examples show with this power, two-sided, where paired differences have
    this standard deviation."""
    _enough(n)
    _between("power", power)
    reach = student((1 + level) / 2, n - 1) + student(power, n - 1)
    return reach * spread / math.sqrt(n)


def needed(spread: float, difference: float, power: float = POWER, level: float = 0.95) -> int:
    """How many examples it takes to show a mean difference with this power.

    Raises:
        InputError: for a difference of 0, which no number of examples shows.
    """
    if difference == 0:
        raise InputError("No number of examples shows a difference of 0.")
    _between("power", power)
    n = 3
    while detectable(spread, n, power, level) > abs(difference):
        z = NormalDist().inv_cdf((1 + level) / 2) + NormalDist().inv_cdf(power)
        n = max(n + 1, math.floor((z * spread / difference) ** 2))
    return n


def detectable_of(
    differences: ArrayLike, n: int | None = None, power: float = POWER, level: float = 0.95
) -> float:
    """As ``detectable``, with the spread of differences that were measured, on as many examples or on ``n``
    of their kind; NaN from fewer than three."""
    values = np.asarray(differences, dtype=np.float64)
    values = values[~np.isnan(values)]
    if len(values) < 3:
        return math.nan
    return detectable(float(values.std(ddof=1)), n or len(values), power, level)


def _enough(n: int) -> None:
    if n < 3:
        raise InputError(f"Power is of three examples or more, not {n}.")


def _between(name: str, value: float) -> None:
    if not 0.5 <= value < 1:
        raise InputError(f"{name}= is a chance from 0.5 to below 1, not {value}.")
