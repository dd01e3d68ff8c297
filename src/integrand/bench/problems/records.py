"""Measurements of tumours and of wines, which come with scikit-learn, and small classifiers of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...baselines import Constant, OtherClass, Sample
from ...core.optional import optional
from ...errors import UnknownName
from .base import Examples, Problem, ProblemOptions, problem, shuffled
from .classifiers import classifier

_DATA = {"breast_cancer": "load_breast_cancer", "wine": "load_wine"}
_TRAIN = 0.5  # of the rows
_REFERENCES = 8


@problem("records")
def records(
    setting: ProblemOptions, data: str = "breast_cancer", model: str = "network", epochs: int = 40
) -> Problem:
    """Rows of a real table, "breast_cancer" (569 of 30 columns, two classes) or "wine" (178 of 13,
    three), standardised; half of them train a "network", a "forest" or "boosting".

    Words: ``one`` and ``zero`` (the mean row), ``several`` (eight rows of the training half),
    ``references(n)`` (of them), ``others(n)`` (rows of the other classes), ``low`` and ``high`` (the
    extremes of the table). Trees bring ``TreeSHAP``.

    Source: scikit-learn's copies of the Wisconsin breast cancer and the UCI wine data.
    """
    sets = optional("sklearn.datasets", extra="tables", needs="The problem 'records'")
    if data not in _DATA:
        raise UnknownName("table of records", data, _DATA)
    rows, classes = getattr(sets, _DATA[data])(return_X_y=True)
    order = shuffled(len(rows), setting.seed)
    train = int(_TRAIN * len(rows))
    x, y = torch.from_numpy(rows).double()[order], torch.from_numpy(classes).long()[order]
    x = ((x - x[:train].mean(0)) / x[:train].std(0)).float()
    fitted = classifier(model, x[:train], y[:train], setting, name=f"records-{data}", epochs=epochs)
    pool, test = x[:train], x[train:]

    def load(numbers: Sequence[int]) -> Examples:
        return Examples(test[list(numbers)])

    return Problem(
        f"{data.replace('_', ' ')}, {model}",
        fitted.model,
        tuple(f"row {i}" for i in order[train:]),
        load,
        words={
            "one": Constant(0.0, label="mean row"),
            "zero": Constant(0.0, label="mean row"),
            "several": Sample(pool, _REFERENCES, setting.seed),
            "references": lambda count=2: Sample(pool, count, setting.seed),
            "others": lambda count=2: OtherClass(pool, count, setting.seed),
            "low": float(x.min()),
            "high": float(x.max()),
            **fitted.words,
        },
        facts={
            "trained on": train,
            "accuracy on the rest": round(fitted.accuracy(test, y[train:]), 4),
        },
    )
