"""Properties of a map by itself: sparseness, complexity, completeness.

None of these asks a model, and none knows whether the map is right: a constant picture of a star is
sparse. They belong beside metrics that ask the model, as ties between maps that do equally well
there.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..core.features import Features, feature_map, feature_scores
from ..core.ranks import blocks
from ..core.shapes import flattened
from ..core.values import part
from ..errors import InputError
from ..integration.attribution import rounding
from .base import Metric, functional_of_maps, metric
from .maps import Maps
from .task import Subject


def by_feature(subject: Subject, maps: Maps, features: Features) -> tuple[Tensor, Tensor]:
    """Maps summed, with sign, over the elements of each feature (M, B, N), and which features each
    example has (B, N).

    Features that an example does not have are 0 in the first.
    """
    x = subject.x
    if subject.bare and x.ndim == 3 and isinstance(features, str) and features == "auto":
        # A map with three axes and no inputs beside it is a batch of pictures: its rows are not
        # tokens.
        features = "elements"
    scores = feature_scores(maps.values, feature_map(features, x))
    present = scores[0] > float("-inf")
    return torch.where(present, scores, 0), present


@part
class _OfMap(Metric):
    """A metric of the magnitudes of a map's features."""

    features: Features = "auto"

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        scores, present = by_feature(subject, maps, self.features)
        values = [
            self.found(scores[:, block].abs().double(), present[block]) for block in blocks(scores)
        ]
        return torch.cat(values, 1).to(maps.values.dtype)

    def found(self, size: Tensor, present: Tensor) -> Tensor:
        """Magnitudes (M, B, N) of features, those that are not ``present`` (B, N) zero → (M, B)."""
        raise NotImplementedError


@metric("sparseness")
@part
class Sparseness(_OfMap):
    """Sparseness: the Gini index of a map's magnitudes.

    0 where all are equal, (n − 1)/n where one holds everything; higher is sparser.

        G = Σ_i (2i − n − 1) v_i / (n Σ v),      v = |φ| ascending, i = 1 … n

    NaN for a map that is zero everywhere.

    Args:
        features: what v are the magnitudes of: "auto" is pixels (channels summed with sign),
            tokens, or elements; a bare map (B, H, W) given without inputs is taken element by
            element.

    Pitfalls:
        Sparse is not right; the number of features is part of the answer (a one-hot map of 4
        features has 0.75, of 50,000 has 1).

    Peers:
        Quantus adds 1e-7 to every v, takes channels as features of their own, and gives a number
        for a map of zeros.

    References:
        Chalasani et al., "Concise explanations of neural networks using adversarial training", ICML
        2020.

    Example:

    >>> import torch, integrand as ig
    >>> ig.metrics.sparseness(torch.tensor([[1.0, 2.0, 3.0, 4.0]])).item()
    0.25
    """

    higher: ClassVar[bool] = True

    def found(self, size: Tensor, present: Tensor) -> Tensor:
        count = present.sum(1)
        absent = size.shape[-1] - count  # these are zero and sort first
        i = torch.arange(1, size.shape[-1] + 1, device=size.device) - absent[:, None]
        total = size.sum(-1)
        gini = ((2 * i - count[:, None] - 1) * size.sort(-1).values).sum(-1) / (count * total)
        return torch.where(total > 0, gini, torch.nan)


@metric("complexity")
@part
class Complexity(_OfMap):
    """Complexity: the entropy of how a map's magnitude is spread.

    0 for one feature, ln n for n equal ones; lower is simpler.

        H = − Σ_i p_i ln p_i,      p = |φ| / Σ |φ|

    Natural logarithm, in nats; 0 ln 0 is 0. NaN for a map that is zero everywhere.

    Args:
        features: as in ``Sparseness``.

    Pitfalls:
        Simple is not right; values of inputs with different numbers of features do not compare
        (divide by ln n yourself).

    Peers:
        Quantus adds 1e-12 inside the logarithm and takes channels as features of their own (ln 3
        more for maps repeated over them).

    References:
        Bhatt, Weller, Moura, "Evaluating and aggregating feature-based model explanations", IJCAI
        2020.

    Example:

    >>> import torch, integrand as ig
    >>> round(ig.metrics.complexity(torch.tensor([[1.0, 2.0, 3.0, 4.0]])).item(), 5)
    1.27985
    """

    higher: ClassVar[bool] = False

    def found(self, size: Tensor, present: Tensor) -> Tensor:
        fraction = size / size.sum(-1, keepdim=True)  # 0 / 0 is NaN, and stays so
        terms: Tensor = torch.special.xlogy(fraction, fraction)
        return -terms.sum(-1)


@metric("effective_complexity")
@part
class EffectiveComplexity(_OfMap):
    """Effective complexity: how many features have any weight in a map. Lower is simpler.

        #{ i : |φ_i| > eps · max |φ| }        (relative);        #{ i : |φ_i| > eps }        (absolute)

    A map that is zero everywhere has 0.

    Args:
        eps: 1e-5, what does not count.
        relative: whether eps is a fraction of the map's own largest magnitude; an absolute one
            depends on the units of F.
        features: as in ``Sparseness``.

    Pitfalls:
        The threshold is the result: say it. Nguyen and Martínez let the model decide how many
        features it needs; this is the count that toolkits call by the name.

    Peers:
        Quantus counts φ > eps, so negative evidence only if ``abs=True``, and as a fraction of the
        largest only if ``normalise=True``.

    References:
        Nguyen and Martínez, "On quantitative aspects of model interpretability", 2020.

    Example:

    >>> import torch, integrand as ig
    >>> ig.metrics.effective_complexity(torch.tensor([[0.0, -2.0, 1e-9, 4.0]])).item()
    2.0
    """

    eps: float = 1e-5
    relative: bool = True

    higher: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.eps >= 0:
            raise InputError(f"eps= is a magnitude that does not count, 0 or more, not {self.eps}.")

    def found(self, size: Tensor, present: Tensor) -> Tensor:
        least = self.eps * size.amax(-1, keepdim=True) if self.relative else self.eps
        return (size > least).sum(-1).double()


@metric("completeness_gap")
@part
class CompletenessGap(Metric):
    """Completeness gap: how far a map is from adding up to the change of F that it explains.

    Lower is better, 0 is complete.

        relative:  |ΔF − Σ φ| / |ΔF|        absolute:  |ΔF − Σ φ|,      ΔF = F(x) − Σ_r w_r F(start_r)

    ΔF is what the attribution measured where its paths really began, and Σ φ is summed here. Bare
    tensors are refused, since nobody knows what they should add up to. NaN for a relative gap where
    F does not change but for rounding: use the absolute one there. Elsewhere it is the
    attribution's own ``gap``, which never is NaN: it takes such a change for as large as rounding
    makes it.

    Args:
        relative: to the change; False leaves it in units of F.

    Pitfalls:
        Any map becomes complete by adding a constant; complete is necessary, not good. Methods that
        are not complete by design say so in their cards.

    Peers:
        Quantus' Completeness tests floats for exact equality, by default after dividing the map by
        its maximum: False for exact maps.

    Example:

    >>> import torch, integrand as ig
    >>> model, x = torch.nn.Linear(4, 3), torch.randn(5, 4)
    >>> bool((ig.metrics.completeness_gap(ig.explain(model, x, target=0)) < 1e-3).all())
    True
    """

    relative: bool = True

    higher: ClassVar[bool] = False

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        return torch.stack(
            [
                self._gap(
                    values,
                    attribution.output,
                    (attribution.weights * attribution.change).sum(0),
                    attribution.resolution,
                )
                for values, attribution in zip(maps.values, maps.attributions(), strict=True)
            ]
        )

    def _gap(self, values: Tensor, output: Tensor, change: Tensor, resolution: float) -> Tensor:
        gap = (change.double() - flattened(values.double(), 1).sum(1)).abs()
        if not self.relative:
            return gap.to(values)
        least = rounding(output, output - change, flattened(values, 1).abs().sum(1), resolution)
        return torch.where(change.abs() > least, gap / change.abs(), torch.nan).to(values)


sparseness = functional_of_maps(Sparseness)
complexity = functional_of_maps(Complexity)
effective_complexity = functional_of_maps(EffectiveComplexity)
completeness_gap = functional_of_maps(CompletenessGap)
