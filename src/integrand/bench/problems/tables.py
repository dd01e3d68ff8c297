"""Synthetic tables whose distribution is known (XAI-Bench), and a small network or trees trained on
them."""

from __future__ import annotations

from collections.abc import Sequence

from ...baselines import Constant, Gaussian, OtherClass, Sample
from ...metrics import xai_bench
from .base import Examples, Problem, ProblemOptions, problem
from .classifiers import classifier

_TRAIN, _POOL, _TEST = 4000, 200, 1000


@problem("tables")
def tables(
    setting: ProblemOptions,
    function: str = "nonlinear_additive",
    rho: float = 0.5,
    epochs: int = 40,
    model: str = "network",
) -> Problem:
    """Rows of five correlated normal features; the class is whether a known function of them is
    above its median.

    Words: ``one`` (the mean, zero), ``several`` (zero, two draws of noise, other rows),
    ``others(n)`` and ``references(n)`` (rows of the other class), ``table`` (the distribution), and
    the benchmark's metrics, which ask for expectations over it: ``Faithfulness(table)``,
    ``Monotonicity(table)``, ``ShapleyCorrelation(table)``, ``ShapleyError(table)``.

    The model is a "network", a "forest" or "boosting"; trees bring the word ``TreeSHAP``.

    Source: Liu et al., XAI-Bench, 2021. Papers that used it name no model; these are ours.
    """
    table = xai_bench.gaussian(function, rho=rho)
    x, y = table.data(_TRAIN + _TEST, setting.seed)
    middle = y[:_TRAIN].median()
    x, y = x.float(), (y >= middle).long()
    fitted = classifier(
        model, x[:_TRAIN], y[:_TRAIN], setting, name=f"tables-{function}", epochs=epochs
    )
    test, pool = x[_TRAIN:], x[:_POOL]

    def load(numbers: Sequence[int]) -> Examples:
        return Examples(test[list(numbers)])

    def others(count: int = 2) -> OtherClass:
        return OtherClass(pool, count, setting.seed)

    return Problem(
        f"XAI-Bench, {function}, correlations {rho:g}, {model}",
        fitted.model,
        tuple(f"row {i}" for i in range(_TEST)),
        load,
        words={
            "one": Constant(0.0),
            "zero": Constant(0.0),
            "several": [
                Constant(0.0),
                Gaussian(1.0),
                Gaussian(1.0, seed=1),
                Sample(pool, 3, setting.seed),
            ],
            "references": others,
            "others": others,
            "low": float(x.min()),
            "high": float(x.max()),
            "table": table,
            "Faithfulness": xai_bench.Faithfulness,
            "Monotonicity": xai_bench.Monotonicity,
            "ShapleyCorrelation": xai_bench.ShapleyCorrelation,
            "ShapleyError": xai_bench.ShapleyError,
            **fitted.words,
        },
        facts={
            "trained on": _TRAIN,
            "accuracy on the rest": round(fitted.accuracy(test, y[_TRAIN:]), 4),
        },
    )
