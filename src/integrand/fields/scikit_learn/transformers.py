"""Transformers of scikit-learn as functions of torch, in float64.

Those that come after the step whose columns are explained are part of F, and have to be
differentiated: scalers, projections, polynomials, selections of columns, norms, and functions of
NumPy that torch knows too. What splits tables by name, or numbers words, belongs before that step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ...errors import ModelError

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator


class Affine(nn.Module):
    """z ⊙ scale + shift, column by column."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: ArrayLike, shift: ArrayLike, width: int) -> None:
        super().__init__()
        self.register_buffer("scale", _row(scale, width))
        self.register_buffer("shift", _row(shift, width))

    def forward(self, z: Tensor) -> Tensor:
        return z * self.scale + self.shift


class Projection(nn.Module):
    """(z − centre) Wᵀ, divided column by column by ``size``."""

    centre: Tensor
    weight: Tensor

    def __init__(self, centre: ArrayLike, weight: ArrayLike, size: ArrayLike = 1.0) -> None:
        super().__init__()
        weight = np.asarray(weight, dtype=np.float64)
        self.register_buffer("centre", _row(centre, weight.shape[1]))
        self.register_buffer("weight", torch.from_numpy((weight.T / np.asarray(size)).copy()))

    def forward(self, z: Tensor) -> Tensor:
        return (z - self.centre) @ self.weight


class Powers(nn.Module):
    """Π_i z_i^m_i, a column for each row of powers m (C, F)."""

    def __init__(self, powers: ArrayLike) -> None:
        super().__init__()
        self.powers = np.asarray(powers, dtype=int).tolist()

    def forward(self, z: Tensor) -> Tensor:
        columns = []
        for powers in self.powers:
            column = torch.ones_like(z[:, 0])
            for i, power in enumerate(powers):
                if power:
                    column = column * z[:, i] ** power
            columns.append(column)
        return torch.stack(columns, 1)


class UnitNorm(nn.Module):
    """z / ‖z‖ of each row; a row of zeros stays."""

    def __init__(self, norm: str) -> None:
        super().__init__()
        self.order = {"l1": 1.0, "l2": 2.0, "max": float("inf")}[norm]

    def forward(self, z: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(z, self.order, dim=1, keepdim=True)
        return z / torch.where(size == 0, 1.0, size)


class Columns(nn.Module):
    """Some of the columns, in an order."""

    def __init__(self, index: Sequence[int]) -> None:
        super().__init__()
        self.index = list(index)

    def forward(self, z: Tensor) -> Tensor:
        return z[:, self.index]


class Elementwise(nn.Module):
    """A function of each number."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, z: Tensor) -> Tensor:
        return self.function(z)


def module_of(transformer: BaseEstimator) -> nn.Module:
    """A fitted transformer as a function of torch.

    Raises:
        ModelError: for those that are not known.
    """
    if transformer is None or transformer == "passthrough":
        return nn.Identity()
    for base in type(transformer).__mro__:
        build = _MODULES.get(base.__name__)
        if build is not None and base.__module__.startswith("sklearn."):
            return build(transformer)
    if _is_selector(transformer):
        return Columns(transformer.get_support(indices=True).tolist())
    raise ModelError(
        f"{type(transformer).__name__} is not known as a function that torch can differentiate, and it comes after the step whose columns are "
        "explained: name it, or a later step, with attribute_after=."
    )


def _row(numbers: ArrayLike, width: int) -> Tensor:
    row = np.broadcast_to(np.asarray(numbers, dtype=np.float64), (width,))
    return torch.from_numpy(row.copy())


def _standard(scaler: BaseEstimator) -> nn.Module:
    width = int(scaler.n_features_in_)
    scale = 1.0 if scaler.scale_ is None else 1 / np.asarray(scaler.scale_)
    mean = 0.0 if scaler.mean_ is None or not scaler.with_mean else np.asarray(scaler.mean_)
    return Affine(scale, -mean * scale, width)


def _robust(scaler: BaseEstimator) -> nn.Module:
    scale = 1.0 if scaler.scale_ is None else 1 / np.asarray(scaler.scale_)
    centre = 0.0 if scaler.center_ is None else np.asarray(scaler.center_)
    return Affine(scale, -centre * scale, int(scaler.n_features_in_))


def _min_max(scaler: BaseEstimator) -> nn.Module:
    affine = Affine(scaler.scale_, scaler.min_, int(scaler.n_features_in_))
    if not scaler.clip:
        return affine
    low, high = scaler.feature_range
    return nn.Sequential(affine, Elementwise(lambda z: z.clamp(low, high)))


def _max_abs(scaler: BaseEstimator) -> nn.Module:
    return Affine(1 / np.asarray(scaler.scale_), 0.0, int(scaler.n_features_in_))


def _pca(transformer: BaseEstimator) -> nn.Module:
    size = np.sqrt(np.asarray(transformer.explained_variance_)) if transformer.whiten else 1.0
    return Projection(transformer.mean_, transformer.components_, size)


def _svd(transformer: BaseEstimator) -> nn.Module:
    return Projection(0.0, transformer.components_)


def _polynomial(transformer: BaseEstimator) -> nn.Module:
    return Powers(transformer.powers_)


def _function(transformer: BaseEstimator) -> nn.Module:
    if transformer.func is None:
        return nn.Identity()
    named = {getattr(np, name): getattr(torch, name) for name in _UFUNCS}
    if not isinstance(transformer.func, np.ufunc) or transformer.func not in named:
        raise ModelError(
            f"The function {transformer.func!r} of a FunctionTransformer is none that torch is known to have too, and it comes after the step "
            "whose columns are explained: name it, or a later step, with attribute_after=."
        )
    return Elementwise(named[transformer.func])


_UFUNCS = ("log", "log1p", "log2", "log10", "exp", "expm1", "sqrt", "square", "absolute", "tanh")

_MODULES: dict[str, Callable[[Any], nn.Module]] = {
    "StandardScaler": _standard,
    "RobustScaler": _robust,
    "MinMaxScaler": _min_max,
    "MaxAbsScaler": _max_abs,
    "PCA": _pca,
    "TruncatedSVD": _svd,
    "PolynomialFeatures": _polynomial,
    "Normalizer": lambda transformer: UnitNorm(transformer.norm),
    "FunctionTransformer": _function,
}


def _is_selector(transformer: object) -> bool:
    from sklearn.feature_selection import SelectorMixin

    return isinstance(transformer, SelectorMixin)
