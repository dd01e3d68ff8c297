"""Linear models and multilayer perceptrons of scikit-learn as exact networks of torch, in float64.

    LinearRegression, Ridge, Lasso, … LinearSVR          predict
    PoissonRegressor, GammaRegressor, TweedieRegressor   log predict, where the link is the logarithm
    LogisticRegression, SGDClassifier, LinearSVC …       (−m, m) for two classes, a score for each of more
    MLPRegressor, MLPClassifier                          what stands before the last activation, arranged alike

Whatever is read is held against the model's own word on random rows before it is used, which is also
how the meaning of its outputs is known: a softmax, one against the rest, or no probabilities at all.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ...core.optional import is_instance
from ...errors import ModelError, TargetError
from ..fitted import check_fitted

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

Floats = NDArray[np.float64]
LogProbabilities = Callable[[Tensor], Tensor]

_PROBES = 64  # rows that a model is held against its network at
_OFF = 1e-9  # that they may differ by, relatively, for weights in float64
_OFF_FLOAT32 = 1e-4

_IDENTITY = (
    *("LinearRegression", "Ridge", "RidgeCV", "Lasso", "LassoCV", "LassoLars", "LassoLarsCV"),
    *("LassoLarsIC", "Lars", "LarsCV", "ElasticNet", "ElasticNetCV", "OrthogonalMatchingPursuit"),
    *("OrthogonalMatchingPursuitCV", "BayesianRidge", "ARDRegression", "SGDRegressor"),
    *("HuberRegressor", "TheilSenRegressor", "QuantileRegressor", "PassiveAggressiveRegressor"),
    *("MultiTaskLasso", "MultiTaskLassoCV", "MultiTaskElasticNet", "MultiTaskElasticNetCV"),
    "LinearSVR",
)
_LOGARITHM = ("PoissonRegressor", "GammaRegressor", "TweedieRegressor")
_CLASSIFIERS = (
    *("LogisticRegression", "LogisticRegressionCV", "SGDClassifier", "RidgeClassifier"),
    *("RidgeClassifierCV", "Perceptron", "PassiveAggressiveClassifier", "LinearSVC"),
    "LinearDiscriminantAnalysis",
)
_PERCEPTRONS = ("MLPRegressor", "MLPClassifier")


@dataclass(frozen=True, eq=False)
class ModelReading:
    """A model of scikit-learn as a network.

    Attributes:
        network: rows (N, F) → outputs (N, C), in float64.
        outputs: C.
        linear: whether it is linear in its rows.
        name: what the model is called.
        log_probabilities: of its classes, from its outputs; raises ``TargetError`` where it knows
            none.
        classes: their labels, in order; empty for regressions.
        columns: names of the columns it was trained on, where they had any.
    """

    network: nn.Module
    outputs: int
    linear: bool
    name: str
    log_probabilities: LogProbabilities
    classes: tuple[Any, ...] = ()
    columns: tuple[str, ...] = ()


def kind_of(model: object) -> str | None:
    """The class of scikit-learn by whose name a model is read; None for others."""
    names = (*_IDENTITY, *_LOGARITHM, *_CLASSIFIERS, *_PERCEPTRONS)
    for base in type(model).__mro__:
        if base.__module__.startswith("sklearn.") and base.__name__ in names:
            return base.__name__
    return None


def read(model: BaseEstimator) -> ModelReading:
    """A model as a network, held against what the model says itself.

    Raises:
        ModelError: for models that are not read, and where the network does not say what the model
            says.
    """
    kind = kind_of(model)
    if is_instance(model, "sklearn.model_selection", "GridSearchCV", "RandomizedSearchCV"):
        raise ModelError(
            f"A {type(model).__name__} has found a model: explain that, its best_estimator_."
        )
    if kind is None:
        raise ModelError(
            f"{type(model).__name__} of scikit-learn has no gradient that is known here: trees, linear models and multilayer perceptrons are "
            "explained, and pipelines that end in one. Otherwise give a function of tensors that says the same."
        )
    check_fitted(model)
    layers: list[nn.Module] = (
        _perceptron(model) if kind in _PERCEPTRONS else [_affine(model.coef_, model.intercept_)]
    )
    linear = kind not in _PERCEPTRONS or all(isinstance(layer, nn.Linear) for layer in layers)
    return (
        _classifier(model, layers, linear) if _classes(model) else _regressor(model, layers, linear)
    )


# --- networks ---------------------------------------------------------------------------------------------------------


def _affine(weight: ArrayLike, bias: ArrayLike) -> nn.Linear:
    """weight (C, F) or (F,), bias (C,) or a number → a layer."""
    weight = np.atleast_2d(_dense(weight))
    bias = np.broadcast_to(np.asarray(bias, dtype=np.float64).reshape(-1), (len(weight),))
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight.copy()))
        layer.bias.copy_(torch.from_numpy(bias.copy()))
    return layer


def _dense(weight: Any) -> Floats:
    """Weights as an array; those that ``sparsify()`` made sparse, too."""
    from scipy.sparse import issparse

    return np.asarray(weight.toarray() if issparse(weight) else weight, dtype=np.float64)


_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "identity": nn.Identity,
    "logistic": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
}


def _perceptron(model: BaseEstimator) -> list[nn.Module]:
    """The layers of a multilayer perceptron, up to what stands before its last activation."""
    layers: list[nn.Module] = []
    for weight, bias in zip(model.coefs_, model.intercepts_, strict=True):
        if layers and model.activation != "identity":
            layers.append(_ACTIVATIONS[model.activation]())
        layers.append(_affine(weight.T, bias))
    return layers


class BothSides(nn.Module):
    """One margin m (N, 1) of two classes → (−m, m): what speaks for either."""

    def forward(self, margin: Tensor) -> Tensor:
        return torch.cat([-margin, margin], 1)


def _outputs(layers: Sequence[nn.Module]) -> int:
    return next(layer.out_features for layer in reversed(layers) if isinstance(layer, nn.Linear))


def _network(layers: Sequence[nn.Module]) -> nn.Module:
    return nn.Sequential(*layers).eval().requires_grad_(False)


# --- what outputs mean ------------------------------------------------------------------------------------------------


def _no_probabilities(why: str) -> LogProbabilities:
    def refuse(outputs: Tensor) -> Tensor:
        raise TargetError(why)

    return refuse


def _softmax(outputs: Tensor) -> Tensor:
    return outputs.log_softmax(1)


def _one_against_rest(outputs: Tensor) -> Tensor:
    """log p_c of p_c ∝ σ(z_c): each class against the rest, made to add up to one."""
    alone: Tensor = nnf.logsigmoid(outputs)
    return alone - alone.logsumexp(1, keepdim=True)


def _two_sided(outputs: Tensor) -> Tensor:
    """log σ(∓m) of outputs (−m, m)."""
    return nnf.logsigmoid(outputs)


_MEANINGS: tuple[LogProbabilities, ...] = (_two_sided, _softmax, _one_against_rest)


def _regressor(model: BaseEstimator, layers: list[nn.Module], linear: bool) -> ModelReading:
    name = type(model).__name__
    network = _network(layers)
    why = "The model is a regression, and knows no classes: explain its output."

    def raw(rows: Floats) -> Floats:
        predicted = np.asarray(model.predict(rows), dtype=np.float64)
        return np.log(predicted) if _of_logarithm(model) else predicted

    if _of_logarithm(model):
        why = "The model predicts exp of its raw output, and no probability."
    _check(name, network, raw, model)
    outputs = _outputs(layers)
    return ModelReading(
        network, outputs, linear, name, _no_probabilities(why), columns=_columns(model)
    )


def _of_logarithm(model: BaseEstimator) -> bool:
    """Whether a regression predicts exp of what its network says."""
    kind = kind_of(model)
    if kind == "TweedieRegressor":
        return bool(model.link == "log" or (model.link == "auto" and model.power > 0))
    return kind in _LOGARITHM or (kind == "MLPRegressor" and model.out_activation_ == "exp")


def _classifier(model: BaseEstimator, layers: list[nn.Module], linear: bool) -> ModelReading:
    name, classes = type(model).__name__, _classes(model)
    several = kind_of(model) == "MLPClassifier" and model.out_activation_ == "logistic"
    single = _outputs(layers) == 1
    network = _network([*layers, BothSides()] if single else layers)
    # A perceptron has no word for its scores but probabilities.
    scores = _margins(model) if kind_of(model) != "MLPClassifier" else None
    if scores is not None:
        _check(name, network, scores, model)
    if several and not single:
        meaning: LogProbabilities | None = _no_probabilities(
            "The classes of this model do not exclude one another, and each has a probability of its own: "
            "target=lambda out: out[:, c].sigmoid()."
        )
        _check(name, _network([network, nn.Sigmoid()]), model.predict_proba, model)
    else:
        meaning = _meaning(model, network)
    if meaning is None and scores is None:
        raise _misread(name)
    if meaning is None:
        meaning = _no_probabilities(
            f"{name} has scores of classes and no probabilities that are known here: explain a score, target=1, or 'predicted'."
        )
    outputs = max(2, _outputs(layers))
    return ModelReading(network, outputs, linear, name, meaning, classes, _columns(model))


def _margins(model: BaseEstimator) -> Callable[[Floats], Floats]:
    def margins(rows: Floats) -> Floats:
        said = np.asarray(model.decision_function(rows), dtype=np.float64)
        return np.stack([-said, said], 1) if said.ndim == 1 else said

    return margins


def _meaning(model: BaseEstimator, network: nn.Module) -> LogProbabilities | None:
    """How a classifier's probabilities follow from its outputs: as they do on random rows. None
    where it gives none, or in no way that is known."""
    try:
        probabilities = model.predict_proba
    except AttributeError:
        return None
    rows = _probes(model)
    expected = torch.from_numpy(answer_to(probabilities, rows))
    with torch.no_grad():
        outputs = network(torch.from_numpy(rows))
        for meaning in _MEANINGS:
            if meaning is _two_sided and outputs.shape[1] != 2:
                continue
            if float((meaning(outputs).exp() - expected).abs().max()) <= _tolerance(model):
                return meaning
    return None


# --- the model's own word ---------------------------------------------------------------------------------------------


def _check(
    name: str, network: nn.Module, raw: Callable[[Floats], Floats], model: BaseEstimator
) -> None:
    rows = _probes(model)
    expected = answer_to(raw, rows).reshape(len(rows), -1)
    with torch.no_grad():
        outputs = network(torch.from_numpy(rows)).numpy()
    size = max(1e-300, float(np.abs(expected).max(initial=0.0)))
    off = np.inf
    if outputs.shape == expected.shape:
        off = float(np.abs(outputs - expected).max(initial=0.0)) / size
    if not off <= _tolerance(model):
        raise _misread(name)


def answer_to(question: Callable[[Floats], Any], rows: Floats) -> Floats:
    """What a model says of rows, which have no names even where it was trained on columns that
    had: of that it warns, and need not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return np.asarray(question(rows), dtype=np.float64)


def _misread(name: str) -> ModelError:
    return ModelError(
        f"The weights of this {name} do not say what the model says. Its version, or something it does beside them, is not understood by this "
        "version of Integrand."
    )


def _tolerance(model: BaseEstimator) -> float:
    weights = model.coefs_ if kind_of(model) in _PERCEPTRONS else [model.coef_]
    return _OFF if all(weight.dtype == np.float64 for weight in weights) else _OFF_FLOAT32


def _probes(model: BaseEstimator) -> Floats:
    """Rows, near zero and farther away."""
    draws = np.random.default_rng(0)
    rows = draws.normal(size=(_PROBES, int(model.n_features_in_)))
    rows[_PROBES // 2 :] *= 0.1
    return rows


def _classes(model: BaseEstimator) -> tuple[Any, ...]:
    """The labels of a classifier's classes; none of a regression."""
    from sklearn.base import is_classifier

    return tuple(model.classes_) if is_classifier(model) else ()


def _columns(model: BaseEstimator) -> tuple[str, ...]:
    """The names of the columns it was trained on, where they had any."""
    try:
        return tuple(map(str, model.feature_names_in_))
    except AttributeError:
        return ()
