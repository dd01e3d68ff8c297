"""``ScikitLearnField``: a linear model or perceptron of scikit-learn, and a target.

A pipeline whose steps are functions of numbers is read as well: its transformers become modules in
front of the network, or the embedding of trees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...core.optional import is_instance
from ...core.segment import Segment
from ...errors import ModelError, TargetError
from ..base import Field
from ..embedded_trees import EmbeddedTrees
from ..fitted import check_fitted
from ..labels import class_target
from ..torch import TorchField
from ..trees import TreeField
from .models import ModelReading, answer_to, read
from .transformers import module_of

_TOLERANCE = 1e-6  # that transformers and their modules may differ by, relatively


class ScikitLearnField(TorchField):
    """F(z) = target(outputs of a linear model or multilayer perceptron of scikit-learn at z).

    Outputs are what the model adds up: the prediction of regressions (the logarithm of it where
    they predict exp of a sum), and for classifiers the scores before the softmax: (−m, m) for two
    classes with one margin m, so that a class is explained by what speaks for it, as in
    ``TreeField``. ``ig.targets.Probability`` is the probability the model gives.

    Args:
        model: fitted; linear models, ``MLPClassifier``, ``MLPRegressor``, or a Pipeline of
            transformers of numbers that ends in one of them.
        target: a class (a number, or a label that is a word), an ``ig.targets`` value, or a callable
            outputs → (N,); a regression with one output needs none.

    Raises:
        ModelError: for models that are not read, and where the weights do not say what the model
            says.

    Cost:
        A gradient is a forward and a backward pass through the network, in float64. Linear models
        have an exact share: ``rule=ig.rules.Exact()`` costs one gradient for each example.

    Example:
        >>> import numpy as np, integrand as ig
        >>> from sklearn.linear_model import LinearRegression
        >>> X = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> model = LinearRegression().fit(X, X @ [2.0, -3.0] + 1.0)
        >>> ig.explain(model, np.ones((1, 2))).values.round(decimals=6).tolist()
        [[2.0, -3.0]]
    """

    def __init__(self, model: Any, target: Any = None) -> None:
        self.reading = _read_pipeline(model) if _is_pipeline(model) else read(model)
        super().__init__(
            self.reading.network, class_target(target, self.reading.classes, self.reading.name)
        )
        self.log_probabilities = self.reading.log_probabilities
        if target is None:
            self._check_default(self.reading)

    def __repr__(self) -> str:
        return f"ScikitLearnField({self.reading.name}, {self.target!r})"

    @staticmethod
    def _check_default(reading: ModelReading) -> None:
        if reading.outputs > 1:
            raise TargetError(
                f"This {reading.name} has {reading.outputs} outputs, and nothing says which is meant: give target=, such as a class or 'predicted'."
            )

    @classmethod
    def adopts(cls, model: object) -> bool:
        """Every estimator of scikit-learn that is no function of tensors itself, so that those which
        are not read are refused in words."""
        return is_instance(model, "sklearn.base", "BaseEstimator") and not callable(model)

    @classmethod
    def adopted(cls, model: Any, target: Any) -> Field:
        if _is_pipeline(model) and TreeField.adopts(model.steps[-1][1]):
            trees = TreeField(model.steps[-1][1], target)
            return EmbeddedTrees(trees, _front(model))
        return cls(model, target)

    @property
    def sign_decides(self) -> bool:
        return False

    @property
    def columns(self) -> Sequence[str]:
        return self.reading.columns

    @property
    def exact(self) -> bool:
        return self.reading.linear and self.target.linear

    def share(self, segment: Segment) -> Tensor:
        if not self.exact:
            return super().share(segment)
        index = torch.arange(segment.start.shape[2], device=segment.start.device)
        return segment.step * self.rows(segment.start[0, 0], index).gradient


def _is_pipeline(model: object) -> bool:
    return is_instance(model, "sklearn.pipeline", "Pipeline")


def _front(pipeline: Any) -> nn.Module:
    """The transformers of a pipeline as one module, held against what they say themselves."""
    steps = [step for _, step in pipeline.steps[:-1]]
    for step in steps:
        if not isinstance(step, str) and step is not None:
            check_fitted(step)
    front = nn.Sequential(*map(module_of, steps)).eval().requires_grad_(False)
    first = next((step for step in steps if not isinstance(step, str) and step is not None), None)
    if first is None:
        return front
    rows = 1 + np.random.default_rng(0).random((16, int(first.n_features_in_)))
    expected = answer_to(lambda numbers: _transformed(steps, numbers), rows)
    outputs = front(torch.from_numpy(rows)).numpy()
    if outputs.shape != expected.shape or not np.allclose(
        outputs, expected, rtol=_TOLERANCE, atol=_TOLERANCE * np.abs(expected).max(initial=0.0)
    ):
        raise ModelError(
            f"The steps {', '.join(repr(name) for name, _ in pipeline.steps[:-1])} of the pipeline do not say what their functions say here: "
            "their version is not understood by this version of Integrand. Name the last of them with attribute_after=."
        )
    return front


def _transformed(steps: Sequence[Any], rows: Any) -> Any:
    """What comes out of steps by their own word; a frame where they were told to make some."""
    from scipy.sparse import issparse

    for step in steps:
        rows = rows if step is None or isinstance(step, str) else step.transform(rows)
    return rows.toarray() if issparse(rows) else rows


def _read_pipeline(pipeline: Any) -> ModelReading:
    reading = read(pipeline.steps[-1][1])
    front = _front(pipeline)
    plain = all(isinstance(part, nn.Identity) for part in front.modules() if part is not front)
    return ModelReading(
        nn.Sequential(front, reading.network).eval(),
        reading.outputs,
        reading.linear and plain,
        reading.name,
        reading.log_probabilities,
        reading.classes,
    )
