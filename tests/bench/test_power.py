"""Power against scipy, and against what it promises, by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from integrand.bench.power import detectable, detectable_of, needed, spread, student
from integrand.compare.statistics import Inference, paired
from integrand.errors import InputError

scipy_stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize("freedom", [4, 7, 19, 99])
@pytest.mark.parametrize("probability", [0.005, 0.2, 0.5, 0.8, 0.975, 0.995])
def test_quantiles_are_those_of_scipy(probability: float, freedom: int) -> None:
    theirs = scipy_stats.t.ppf(probability, freedom)
    assert student(probability, freedom) == pytest.approx(theirs, rel=0.012, abs=1e-12)


@pytest.mark.parametrize("n", [10, 24, 100])
def test_a_detectable_difference_is_detected_four_times_of_five(n: int) -> None:
    """By Student's test on 4,000 samples, and by the noncentral t of scipy."""
    size = detectable(2.0, n)
    rng = np.random.default_rng(n)
    p = scipy_stats.ttest_1samp(rng.normal(size, 2.0, (4000, n)), 0, axis=1).pvalue
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.025)
    bound = scipy_stats.t.ppf(0.975, n - 1)
    exact = 1 - scipy_stats.nct.cdf(bound, n - 1, size / 2 * math.sqrt(n))
    assert exact == pytest.approx(0.8, abs=0.015)


def test_the_paired_test_has_that_power_too() -> None:
    d = np.random.default_rng(0).normal(detectable(1.0, 40), 1.0, (600, 40))
    assert (paired(d, Inference(draws=999)).p < 0.05).mean() == pytest.approx(0.8, abs=0.06)


def test_a_first_look_says_how_many_it_takes() -> None:
    """± .0138 on 40: a standard deviation of .043, by Student's t; then back and forth."""
    s = spread(-0.033, -0.0054, 40)
    assert s == pytest.approx(0.0138 * math.sqrt(40) / scipy_stats.t.ppf(0.975, 39), rel=1e-3)
    assert detectable(s, 100) < detectable(s, 40)
    many = needed(s, 0.01)
    assert detectable(s, many) <= 0.01 < detectable(s, many - 1)
    assert needed(s, -0.01) == many
    assert needed(s, 10.0) == 3


def test_measured_differences_say_it_of_themselves() -> None:
    d = np.random.default_rng(1).normal(size=30)
    assert detectable_of(np.append(d, np.nan)) == detectable(d.std(ddof=1), 30)
    assert detectable_of(d, 100) == detectable(d.std(ddof=1), 100)
    assert math.isnan(detectable_of([1.0, 2.0]))


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        (lambda: detectable(1.0, 2), "three examples"),
        (lambda: needed(1.0, 0.0), "difference of 0"),
        (lambda: detectable(1.0, 10, power=1.0), "from 0.5"),
    ],
)
def test_what_has_no_answer(ask, why: str) -> None:
    with pytest.raises(InputError, match=why):
        ask()
