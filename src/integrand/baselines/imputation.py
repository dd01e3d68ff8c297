"""Fills that depend on the features that are left, and so differ from row to row.

A baseline that has a method ``without(rows (N, *s), gone (N, *s or broadcast) bool, example (N,))
-> rows`` replaces what is gone by it wherever features are taken away. Called like any baseline it
says what an input becomes of which nothing is left.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.optional import optional
from ..core.random import generator
from ..core.values import part
from ..errors import InputError
from ..fields import Field
from .image import Mean, _image
from .per_input import OfEach, unlike

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@part
class MeanLeft(OfEach):
    """The mean of all numbers that are left, over channels and places alike.

    Where nothing is left, the mean of the whole input.

    The fill of DiffID: what is added says nothing that what is left does not say.

    Raises:
        BaselineError: for columns and other numbers of different kinds.
    """

    label: str = "mean of what is left"
    count: ClassVar[int] = 1

    def of(self, x: Tensor, field: Field) -> Tensor:
        return self.without(
            x, torch.ones((), dtype=torch.bool, device=x.device), torch.arange(len(x))
        )[None]

    def without(self, rows: Tensor, gone: Tensor, example: Tensor) -> Tensor:
        unlike(rows, "The mean of what is left")
        away = gone.expand(rows.shape)
        left = (~away).to(rows.dtype).flatten(1)
        flat = rows.flatten(1)
        count = left.sum(1)
        mean = torch.where(count > 0, (flat * left).sum(1) / count.clamp(min=1), flat.mean(1))
        return torch.where(away, mean.reshape(-1, *(1,) * (rows.ndim - 1)), rows)


@part
class Imputed(OfEach):
    """Noisy linear imputation of missing pixels (ROAD).

    Every missing pixel is the weighted mean of its eight neighbours, missing ones included, plus
    noise.

        Σ_q w_pq (z_p − z_q) = 0  for missing p,   w = 1/6 for neighbours beside, above and below, 1/12 across corners

    Neighbours beyond the edge do not count. An input of which nothing is left becomes its mean
    colour, plus the noise. The system is solved exactly, in double precision, once for all
    channels.

    Args:
        noise: standard deviation of what is added to missing pixels, in the model's numbers (as
            published; 0 for none).
        seed: of the noise, the same for every row.
        label: what reports call it.

    Raises:
        BaselineError: for what is no image.
        MissingExtra: where the package that this needs is missing.

    Cost:
        One sparse solution for each row, on the CPU: milliseconds to a quarter of a second at 224 ×
        224, the more is missing the more. Needs integrand[curves] (scipy).

    References:
        Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods"
        (ROAD), ICML 2022.

    Example:
        >>> import integrand as ig
        >>> ig.metrics.Deletion(fill=ig.baselines.Imputed(noise=0.0))
        Deletion(Imputed(0.0))
    """

    noise: float = 0.01
    seed: int = 0
    label: str = "imputed"
    count: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.noise < 0:
            raise InputError(f"Noise has a positive deviation, or 0, not noise={self.noise}.")

    def of(self, x: Tensor, field: Field) -> Tensor:
        _image(x, "Imputation")
        return Mean().of(x, field) + self._noise(x)

    def without(self, rows: Tensor, gone: Tensor, example: Tensor) -> Tensor:
        _image(rows, "Imputation")
        scipy = _scipy()
        per_channel = gone.shape[1] > 1  # masks that differ between channels
        masks = gone.expand(len(rows), gone.shape[1], *rows.shape[2:]).flatten(2).cpu().numpy()
        known = rows.flatten(2).cpu().double().numpy()
        imputed = known.copy()
        laplacian = _laplacian(*rows.shape[2:])
        for row, mask in enumerate(masks):
            for channels, missing in (
                [([c], mask[c]) for c in range(len(mask))]
                if per_channel
                else [(slice(None), mask[0])]
            ):
                imputed[row, channels] = _impute(scipy, laplacian, known[row, channels], missing)
        filled = torch.from_numpy(imputed).reshape(rows.shape).to(rows)
        return torch.where(gone, filled + self._noise(rows)[0], rows)

    def _noise(self, x: Tensor) -> Tensor:
        """(1, 1, \\*s) noise: the same for all examples, whatever is replaced."""
        drawn = torch.randn(x.shape[1:], generator=generator(self.seed), dtype=torch.float64).to(x)
        return self.noise * drawn[None, None]


def _impute(
    scipy: ModuleType, laplacian: csr_array, known: NDArray[Any], missing: NDArray[Any]
) -> NDArray[Any]:
    """Numbers (C, P) with the ``missing`` (P,) ones between their neighbours."""
    if not missing.any():
        return known
    if missing.all():
        return np.broadcast_to(known.mean(1, keepdims=True), known.shape)
    completed = known.copy()
    equations = laplacian[missing]
    # Symmetric and diagonally dominant: no pivoting, and an order made for such systems, which is
    # the faster half of the work.
    solved = scipy.sparse.linalg.splu(
        equations[:, missing].tocsc(),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    ).solve(-(equations[:, ~missing] @ known[:, ~missing].T))
    completed[:, missing] = solved.T
    return completed


@lru_cache(maxsize=4)
def _laplacian(height: int, width: int) -> Any:
    """Degrees minus weights of the grid whose pixels have eight neighbours, sparse (P, P)."""
    scipy = _scipy()
    place = np.arange(height * width).reshape(height, width)
    pairs = [
        (place[:, :-1], place[:, 1:], 1 / 6),
        (place[:-1], place[1:], 1 / 6),
        (place[:-1, :-1], place[1:, 1:], 1 / 12),
        (place[:-1, 1:], place[1:, :-1], 1 / 12),
    ]
    first = np.concatenate([a.ravel() for a, _, _ in pairs])
    second = np.concatenate([b.ravel() for _, b, _ in pairs])
    weight = np.concatenate([np.full(a.size, w) for a, _, w in pairs])
    shape = (place.size, place.size)
    half = scipy.sparse.csr_array((weight, (first, second)), shape=shape)
    weights = half + half.T
    return (scipy.sparse.diags_array(weights.sum(1)) - weights).tocsr()


def _scipy() -> Any:
    """SciPy with its sparse matrices."""
    optional("scipy.sparse.linalg", extra="curves", needs="Imputation")
    return import_module("scipy")
