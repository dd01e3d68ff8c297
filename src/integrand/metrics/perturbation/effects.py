"""Effects of single features: whether the order and the zeros of a map agree with what replacing
each feature does."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ...core.correlation import constant, rounding, spearman
from ...core.features import Features
from ...core.random import generator
from ...core.shapes import flattened
from ...core.values import part
from ...errors import InputError
from ...fields import Field
from ..base import Metric, functional, metric
from ..maps import Maps
from ..task import Fill, Score, Subject
from .removal import Ranking, scores_without, steps_of
from .subsets import Cells, changes_alone, noise_of


@part
class Within:
    """Noise, uniform between the smallest and the largest number of each example.

    What a feature may be where nothing is known of the data; draws are shared by the examples.
    Better are values that the feature takes: ``ig.baselines.Sample(data)``.

    Args:
        count: R, how many references.
        seed: of the noise, which the examples share.
        label: what reports call it.
    """

    count: int = 100
    seed: int = 0
    label: str = "noise within the example"

    def __call__(self, x: Tensor, field: Field) -> Tensor:
        low, high = flattened(x, 1).aminmax(dim=1)
        low, high = (end.reshape(-1, *(1,) * (x.ndim - 1)) for end in (low, high))
        noise = torch.rand(
            self.count, 1, *x.shape[1:], generator=generator(self.seed), dtype=torch.float64
        ).to(x)
        return low + (high - low) * noise


@part
class _Effects(Metric):
    fill: Fill = Within()
    features: Features = "auto"
    score: Score = "output"

    def _effects(self, subject: Subject, cells: Cells) -> tuple[Tensor, Tensor]:
        """E[(F(x) − F(x with i redrawn))²] (B, N), and how much of it is rounding (B,)."""
        effects = changes_alone(subject, cells, self.fill, self.score).double().square().mean(0)
        return effects, noise_of(subject.whole(self.score)).square()


@metric("monotonicity_correlation")
@part
class MonotonicityCorrelation(_Effects):
    """Monotonicity correlation: whether features with larger |φ| move the prediction further.

    Higher is better, 1 at best.

        Spearman over features i of    |φ_i|    and    E[ (F(x) − F(x with i redrawn))² ]

    (The paper divides by F(x)², which no ranking sees.)

    Undefined (NaN): maps that give all features the same |φ|, examples that no feature moves, fewer
    than two features.

    Args:
        fill: what a feature is redrawn from: all references of a baseline, averaged over. Noise
            between the smallest and the largest number of the example unless given;
            ``ig.baselines.Sample(data)`` takes values that the feature has elsewhere.
        features: "auto" is pixels for images, tokens for (T, D), elements otherwise; an int is
            square patches; a label map superpixels.
        score: "output", the scalar that the map explains, "probability" of its class, or a target.

    Cost:
        One row for each reference, feature and example, whatever the number of maps. For images
        take patches or superpixels.

    Pitfalls:
        Signs do not count; an effect on average is not the effect at x, and attributions relative
        to one baseline may rightly give nothing to a feature that sits at it.

    Peers:
        Quantus' MonotonicityCorrelation agrees (to 1e-5 for the same draws) with
        features="elements"; its default draws are uniform in [0, 1] whatever the inputs are, fresh
        ones for every feature.

    References:
        Nguyen and Martínez, "On quantitative aspects of model interpretability", 2020 (100 draws).

    Example:

    >>> import torch, integrand as ig
    >>> model, x = torch.nn.Linear(4, 3), torch.randn(5, 4)
    >>> ig.metrics.monotonicity_correlation(model, x, ig.explain(model, x, target=0), target=0).shape
    torch.Size([5])
    """

    higher: ClassVar[bool] = True

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        cells = Cells.of(self.features, subject.x)
        shares = cells.shares(maps.values).abs()
        effects, noise = self._effects(subject, cells)
        fine = rounding(maps.values) * shares.amax(-1)
        return spearman(shares, effects.expand_as(shares), cells.present, noise=(fine, noise)).to(
            maps.values.dtype
        )


@metric("non_sensitivity")
@part
class NonSensitivity(_Effects):
    """Non-sensitivity: features given nothing that matter, and features given something that do
    not.

    Lower is better, 0 at best.

        #( {i : φ_i = 0}  xor  {i : E[(F(x) − F(x with i redrawn))²] = 0} )

    A map of zeros counts the features that matter; a constant one those that do not. Effects within
    the rounding of F are none.

    Args:
        eps: what counts as zero: |φ_i| up to this fraction of the largest |φ|, and a root mean
            square effect up to this fraction of the largest.
        share: divide by the number of features.
        fill: as in ``MonotonicityCorrelation``.
        features: as in ``MonotonicityCorrelation``.
        score: as in ``MonotonicityCorrelation``.

    Cost:
        As ``MonotonicityCorrelation``.

    Pitfalls:
        Counts the zeros only; a map with noise everywhere, from sampling or few steps, gives
        nothing exactly zero: set ``eps`` to its error.

    Peers:
        Quantus' NonSensitivity replaces each feature once, by the smallest number of the example,
        so that features that are there already seem useless; its thresholds of 1e-5 are absolute,
        and with abs=False every negative attribution counts as zero.

    References:
        Nguyen and Martínez, "On quantitative aspects of model interpretability", 2020.

    Example:

    >>> import torch, integrand as ig
    >>> field, x = ig.fields.Linear(torch.tensor([1.0, 0.0, 2.0])), torch.randn(5, 3)
    >>> ig.metrics.non_sensitivity(field, x, x * torch.tensor([1.0, 0.0, 2.0])).tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0]
    """

    eps: float = 1e-5
    share: bool = False

    higher: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.eps < 1:
            raise InputError(
                f"eps= is a fraction of the largest, from 0 to below 1, not {self.eps}."
            )

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        cells = Cells.of(self.features, subject.x)
        shares = cells.shares(maps.values).abs()
        effects, noise = self._effects(subject, cells)
        largest = effects.amax(-1, keepdim=True)
        unmoved = effects <= torch.maximum(noise[:, None], self.eps**2 * largest)
        given_nothing = shares <= self.eps * shares.amax(-1, keepdim=True)
        wrong = ((given_nothing ^ unmoved) & cells.present).sum(-1).to(maps.values.dtype)
        return wrong / cells.counts.to(wrong) if self.share else wrong


@metric("monotonicity")
@part
class Monotonicity(Metric):
    """Monotonicity: whether the score never falls while features come, the least important first.

    Higher is better, 1 at best.

        c_k = F(fill with the k features of smallest |φ| of x),  k = 0 … N       1 if c_0 ≤ c_1 ≤ … ≤ c_N, else 0

    measured (M, B, K+1) are the scores. A step that falls by no more than the rounding of F does
    not fall.

    Undefined (NaN): maps that give all features the same |φ|, which rank nothing, and examples
    whose score never moves, which every order would pass.

    Args:
        how: "every": 1 or 0, as published; "share": the fraction of steps that do not fall.
        fill: what is there before features come: a number, a tensor, a name, or any baseline.
        steps: equal parts the features come in, at most one each; None for one feature at a time
            whatever their number.
        signed: in the order of φ instead of |φ|.
        features: as in ``SensitivityN``.
        score: as in ``SensitivityN``.
        seed: of the shuffle that breaks ties, the same for all maps.

    Cost:
        K − 1 rows for each map and example; F(x) and F(fill) once per example.

    Pitfalls:
        Features that speak against the class have large |φ| and must make the score fall: a perfect
        map of a model with negative evidence fails. With many features "every" is 0 for nearly
        every map; "share" tells them apart.

    Peers:
        Quantus' Monotonicity is true for every map: what it reveals it replaces again, so that its
        curve is constant (0.6). AIX360 leaves the first step out and orders by the signed φ.
        XAI-Bench differences in the order of the feature's index, not of its rank.

    References:
        Arya et al., "One explanation does not fit all", 2019; Luss et al., 2019.

    Example:

    >>> import torch, integrand as ig
    >>> field, x = ig.fields.Linear(torch.tensor([1.0, 3.0, 2.0])), torch.rand(5, 3)
    >>> ig.metrics.monotonicity(field, x, x * torch.tensor([1.0, 3.0, 2.0])).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """

    how: str = "every"
    fill: Fill = 0.0
    steps: int | None = 50
    features: Features = "auto"
    score: Score = "output"
    signed: bool = False
    seed: int = 0

    higher: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.how not in ("every", "share"):
            raise InputError(f'how= is "every" or "share", not {self.how!r}.')

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        cells = Cells.of(self.features, subject.x)
        shares = cells.shares(maps.values)
        ranked = shares if self.signed else shares.abs()
        ranking = Ranking.of(
            maps.values,
            subject.x,
            self.features,
            seed=self.seed,
            rank="signed" if self.signed else "size",
        ).reversed
        come = steps_of(ranking.counts, self.steps, 1 if self.steps is None else None)
        curve = scores_without(subject, ranking, come, self.fill, score=self.score, keep=True)
        fine = rounding(maps.values) * shares.abs().amax(-1)
        flat = constant(ranked, cells.present, fine)
        return curve.masked_fill(flat[..., None], torch.nan)

    def values(self, measured: Tensor) -> Tensor:
        step = measured.diff(dim=-1)
        noise = 16 * torch.finfo(measured.dtype).eps * measured.abs().amax(-1, keepdim=True)
        holds = step >= -noise
        monotone = (
            holds.all(-1).to(measured.dtype)
            if self.how == "every"
            else holds.to(measured.dtype).mean(-1)
        )
        still = (step.abs() <= noise).all(-1)
        return monotone.masked_fill(still | measured.isnan().any(-1), torch.nan)


monotonicity_correlation = functional(MonotonicityCorrelation)
non_sensitivity = functional(NonSensitivity)
monotonicity = functional(Monotonicity)
