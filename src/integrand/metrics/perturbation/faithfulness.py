"""Faithfulness: correlations between sums of a map and the change of F when features are replaced,
over subsets and over single features."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ...core.correlation import pearson, rounding
from ...core.features import Features
from ...core.values import part
from ...errors import InputError
from ..base import Metric, functional, metric
from ..maps import Maps
from ..task import Fill, Score, Subject
from .subsets import Cells, changes, changes_alone, given_subsets, noise_of, sums


@metric("sensitivity_n")
@part
class SensitivityN(Metric):
    """Sensitivity-n: how well sums of a map over n features foretell what their removal does.

    Higher is better, 1 at best.

        PCC over subsets S of n features of    Σ_{i∈S} φ_i    and    F(x) − F(x with S replaced)

    measured (M, B, K) is the curve over n; the value of an example is its mean over n.

    Undefined (NaN): maps that give all features the same, examples where F never changes. One of K
    points that is undefined is left out of the mean.

    Args:
        sizes: the n: counts or shares of the features; on a logarithmic scale unless given (each n
            once, so that few features have fewer points).
        subsets: drawn for each n, every subset of n features as likely as any other.
        fill: what removed features become: a number, a tensor, a name, or any baseline.
        features: what is chosen: "auto" is pixels for images (all channels together), tokens for
            (T, D), elements otherwise; an int is square patches; a label map superpixels.
        score: "output", the scalar that the map explains, "probability" of its class, or a target.
        points: how many n there are unless ``sizes`` says.
        most: the largest of them, as a fraction of all features.
        seed: of the subsets, the same for all maps and examples.

    Raises:
        InputError: for fewer than two features, and for n that leaves nothing to choose.

    Cost:
        K · subsets rows for each example, whatever the number of maps, and one for F(x).

    Pitfalls:
        For n near all features every subset is almost the same, and the correlation that of noise;
        the size of a map is not judged, its relative sizes are; removed features are not what the
        model was trained on. A linear F and φ = w ⊙ (x − fill) give 1 at every n. With n = all
        features it would be completeness, for which a correlation has nothing to vary over.

    Peers:
        Quantus' SensitivityN is another statistic: it removes features cumulatively in the map's
        order, pairs the cumulative change with the sum over the last step only, and correlates
        across the examples of the first batch.

    References:
        Ancona et al., "Towards better understanding of gradient-based attribution methods", ICLR
        2018 (100 subsets, n up to about 80 % of the features).

    Example:
        >>> import torch, integrand as ig
        >>> model, x = torch.nn.Linear(8, 3), torch.randn(5, 8)
        >>> found = ig.metrics.sensitivity_n(model, x, ig.explain(model, x, target=0), target=0)
        >>> bool((found > 0.999).all())
        True
    """

    sizes: tuple[float, ...] | None = None
    subsets: int = 100
    fill: Fill = 0.0
    features: Features = "auto"
    score: Score = "output"
    points: int = 10
    most: float = 0.8
    seed: int = 0

    higher: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_draws(self.subsets)
        if self.sizes is not None and not self.sizes:
            raise InputError("sizes= names at least one n.")
        if not 0 < self.most < 1 or self.points < 1:
            raise InputError(
                f"points= is at least 1 and most= a fraction below 1, not {self.points} and {self.most}."
            )

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        cells = Cells.of(self.features, subject.x)
        shares = cells.shares(maps.values)
        noise = noise_of(subject.whole(self.score))
        curve = []
        for sizes in self._grid(cells):
            chosen = cells.draw(sizes, self.subsets, self.seed)
            change = changes(subject, cells, chosen, self.fill, self.score)
            curve.append(_prediction_correlation(shares, chosen, change, noise, maps))
        return torch.stack(curve, -1)

    def values(self, measured: Tensor) -> Tensor:
        return measured.nanmean(-1)

    def _grid(self, cells: Cells) -> list[Tensor]:
        """The n of each example, (1 or B,) for every point."""
        if self.sizes is not None:
            return [cells.sized(size, "sizes") for size in self.sizes]
        if int(cells.counts.min()) < 2:
            raise InputError(
                'Sensitivity-n chooses among features, and there is one only: take finer ones, features="elements".'
            )
        most = (self.most * cells.counts.double()).clamp_min(1)
        places = torch.linspace(0, 1, self.points, dtype=torch.float64, device=most.device)
        grid = (most.log() * places[:, None]).exp().round().long()
        distinct: Tensor = torch.unique(torch.minimum(grid, cells.counts - 1), dim=0)
        return list(distinct)


@metric("faithfulness_correlation")
@part
class FaithfulnessCorrelation(Metric):
    """Faithfulness correlation: sensitivity-n at one n. Higher is better, 1 at best.

        PCC over subsets S of k features of    Σ_{i∈S} φ_i    and    F(x) − F(x with S replaced)

    Undefined (NaN) and errors as for ``SensitivityN``.

    Args:
        size: k: a count, or a fraction of the features.
        runs: how many subsets.
        fill: as in ``SensitivityN``.
        features: as in ``SensitivityN``.
        score: as in ``SensitivityN``.
        subsets: (S, N) or (S, B, N) bool, taken instead where given; N the features in order.
        seed: as in ``SensitivityN``.

    Cost:
        ``runs`` rows for each example, whatever the number of maps, and one for F(x).

    Pitfalls:
        K decides the answer: small k judge single features, large ones the noise between nearly
        equal sets. Report it.

    Peers:
        Quantus' FaithfulnessCorrelation agrees (to 1e-5 for the same subsets) with
        features="elements"; its 224 elements are a fraction of 0.0015 of an ImageNet picture, and
        its "black" is the smallest number of the example.

    References:
        Bhatt, Weller, Moura, "Evaluating and aggregating feature-based model explanations", IJCAI
        2020.

    Example:
        >>> import torch, integrand as ig
        >>> model, x = torch.nn.Linear(8, 3), torch.randn(5, 8)
        >>> found = ig.metrics.faithfulness_correlation(model, x, ig.explain(model, x, target=0), target=0, size=3)
        >>> bool((found > 0.999).all())
        True
    """

    size: float = 0.2
    runs: int = 100
    fill: Fill = 0.0
    features: Features = "auto"
    score: Score = "output"
    subsets: Tensor | None = None
    seed: int = 0

    higher: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_draws(self.runs)

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        cells = Cells.of(self.features, subject.x)
        if self.subsets is None:
            chosen = cells.draw(cells.sized(self.size), self.runs, self.seed)
        else:
            chosen = given_subsets(self.subsets, cells, len(subject))
        change = changes(subject, cells, chosen, self.fill, self.score)
        return _prediction_correlation(
            cells.shares(maps.values), chosen, change, noise_of(subject.whole(self.score)), maps
        )


@metric("faithfulness_estimate")
@part
class FaithfulnessEstimate(Metric):
    """Faithfulness estimate: how well a map foretells what the removal of each feature alone does.

    Higher is better, 1 at best.

        PCC over features i of    φ_i    and    F(x) − F(x with i replaced)

    Undefined (NaN): maps that give all features the same, examples where F never changes, fewer
    than two features.

    Args:
        fill: as in ``SensitivityN``.
        features: as in ``SensitivityN``.
        score: as in ``SensitivityN``.
        absolute: compare |φ_i| with |F(x) − F(x without i)|, as XAI-Bench does.

    Cost:
        One row for each feature and example, whatever the number of maps, and one for F(x). For
        images take patches (``features=16``) or superpixels: a pixel alone changes little.

    Pitfalls:
        Says nothing of features that matter together; F saturates, and a feature that is backed up
        by others seems useless.

    Peers:
        Quantus' FaithfulnessEstimate agrees (to 1e-5) with features="elements" and
        features_in_step=1; with more in a step its groups follow the map's order, so that every map
        is asked something else. AIX360's faithfulness_metric is this one, of the probability of the
        class predicted; XAI-Bench's interventional version writes into the means it fills with, and
        so carries features over to the next.

    References:
        Alvarez-Melis and Jaakkola, "Towards robust interpretability with self-explaining neural
        networks", NeurIPS 2018.

    Example:

    >>> import torch, integrand as ig
    >>> model, x = torch.nn.Linear(8, 3), torch.randn(5, 8)
    >>> found = ig.metrics.faithfulness_estimate(model, x, ig.explain(model, x, target=0), target=0)
    >>> bool((found > 0.999).all())
    True
    """

    fill: Fill = 0.0
    features: Features = "auto"
    score: Score = "output"
    absolute: bool = False

    higher: ClassVar[bool] = True

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        cells = Cells.of(self.features, subject.x)
        # Several references of a fill are several answers to one question: their mean.
        change = changes_alone(subject, cells, self.fill, self.score).double().mean(0)
        shares = cells.shares(maps.values)
        if self.absolute:
            shares, change = shares.abs(), change.abs()
        noise = rounding(maps.values) * shares.abs().amax(-1), noise_of(subject.whole(self.score))
        return pearson(shares, change.expand_as(shares), cells.present, noise=noise).to(
            maps.values.dtype
        )


def _prediction_correlation(
    shares: Tensor, chosen: Tensor, change: Tensor, noise: Tensor, maps: Maps
) -> Tensor:
    """PCC (M, B) of the changes that maps predict for subsets and those of F."""
    predicted = sums(shares, chosen)
    # Sums over n equal shares are equal but for the rounding of the map in its own type.
    fine = rounding(maps.values) * sums(shares.abs(), chosen).amax(-1)
    return pearson(predicted, change.expand_as(predicted), noise=(fine, noise)).to(
        maps.values.dtype
    )


def _check_draws(draws: int) -> None:
    if draws < 2:
        raise InputError(
            f"A correlation needs two subsets at least, and a hundred to mean something, not {draws}."
        )


sensitivity_n = functional(SensitivityN)
faithfulness_correlation = functional(FaithfulnessCorrelation)
faithfulness_estimate = functional(FaithfulnessEstimate)
