"""Fidelity of subgraphs: the prediction without the explanation, and by the explanation alone.

    edges, nodes or features x (B, E) ── map ──▶ S ──▶  x without S  (fidelity+)
                                                  └──▶  S alone      (fidelity−, unfaithfulness)

A graph model is asked here as any other: a function of edge weights (B, E), or of features, of
which 0 means "not there". The subgraph S is cut by the engine of curves, or weighed by a soft mask
as it is given. Who has the outputs already uses the plain functions: ``fidelities``,
``characterize``, ``unfaithful``.

``target="predicted"`` asks about the model, the true labels as target about the phenomenon.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ...core.features import Features, feature_map, feature_scores
from ...core.shapes import describe
from ...core.values import part
from ...errors import InputError, ShapeError, TargetError
from ...fields.base import outputs_of
from ...targets import Custom, Index, Lead
from ..base import Metric, functional, functional_of_evidence, functional_of_maps, metric
from ..localisation import Places
from ..map_properties import by_feature
from ..maps import Maps
from ..task import Fill, Score, Subject
from .removal import ranked, scores_without

_MODES = ("model", "phenomenon")
_BY = ("probability", "accuracy")


# --- plain functions --------------------------------------------------------------------------------------------------


def fidelities(
    whole: Tensor,
    without: Tensor,
    alone: Tensor,
    labels: Tensor | None = None,
    *,
    mode: str = "model",
    by: str = "accuracy",
) -> tuple[Tensor, Tensor]:
    """Fidelity+ and fidelity− of each example, (N,) each, from class outputs: logits of the whole,
    without S, and of S alone (N, C).

        model,      accuracy      fid = 1 − 1[ŷ' = ŷ]                      phenomenon, accuracy      fid = |1[ŷ = y] − 1[ŷ' = y]|
        model,      probability   fid = p(ŷ) − p'(ŷ)                       phenomenon, probability   fid = p(y) − p'(y)

    Fidelity+ (without S) is better high, fidelity− (S alone) better low; their means over examples
    are what papers report.

    Args:
        whole: (N, C) class outputs of the whole.
        without: (N, C) of what is left without S.
        alone: (N, C) of S alone.
        labels: (N,) the true classes y, for mode="phenomenon".
        mode: "model": whether the predicted class stays; "phenomenon": whether the true one stays
            right or wrong.
        by: "accuracy", 0 or 1; or "probability".

    Returns:
        Fidelity+ (N,) and fidelity− (N,).

    Peers:
        PyG's ``fidelity`` is "accuracy", averaged; divelab's DIG "probability" with a sign, which
        may be negative.

    References:
        Amara et al., "GraphFramEx", 2022; Yuan et al., "Explainability in graph neural networks: a
        taxonomic survey".

    Example:
        >>> import torch, integrand as ig
        >>> whole, without, alone = torch.tensor([[2.0, 1.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[3.0, 1.0]])
        >>> ig.metrics.fidelities(whole, without, alone)
        (tensor([1.]), tensor([0.]))
    """
    _known(mode, _MODES, "mode")
    _known(by, _BY, "by")
    _alike(whole, without, alone)
    if mode == "phenomenon" and labels is None:
        raise InputError(
            'mode="phenomenon" compares with what is true: give labels=, one class per example.'
        )
    classes = whole.argmax(1) if mode == "model" or labels is None else labels.to(whole.device)
    if classes.shape != whole.shape[:1]:
        raise ShapeError(f"{describe(classes.shape)} labels were given for {len(whole)} examples.")
    if by == "probability":
        scores = [
            out.softmax(1).gather(1, classes[:, None])[:, 0] for out in (whole, without, alone)
        ]
    else:
        scores = [(out.argmax(1) == classes).to(whole.dtype) for out in (whole, without, alone)]
    plus, minus = scores[0] - scores[1], scores[0] - scores[2]
    return (plus.abs(), minus.abs()) if by == "accuracy" else (plus, minus)


def characterize(plus: Tensor, minus: Tensor, weights: tuple[float, float] = (0.5, 0.5)) -> Tensor:
    """The characterization score: the weighted harmonic mean of fidelity+ and 1 − fidelity−.

    0 to 1; higher is better.

        (w₊ + w₋) / (w₊ / fid₊ + w₋ / (1 − fid₋))

    0 where either is 0. NaN where fid₊ < 0 or fid₋ > 1, which differences of probabilities can be:
    a harmonic mean has no negative terms. Means over examples go in, as published; single examples
    may, but the mean of scores is not the score of the means.

    Args:
        plus: fidelity+, of any shape; means over examples as published.
        minus: fidelity−, likewise.
        weights: (w₊, w₋), equal unless given.

    Returns:
        Scores from 0 to 1, of the shape of ``plus``; NaN as said above.

    References:
        Amara et al., "GraphFramEx", 2022. PyG's ``characterization_score`` agrees for weights that
        sum to one, which it requires.

    Example:
        >>> import torch, integrand as ig
        >>> round(ig.metrics.characterize(torch.tensor(0.8), torch.tensor(0.4)).item(), 6)
        0.685714
    """
    _weights(weights)
    sufficiency = 1 - minus
    score = sum(weights) / (weights[0] / plus + weights[1] / sufficiency)
    score = torch.where((plus == 0) | (sufficiency == 0), 0.0, score)
    return torch.where((plus < 0) | (sufficiency < 0), torch.nan, score)


def unfaithful(whole: Tensor, alone: Tensor) -> Tensor:
    """Unfaithfulness of each example (N,), from logits of the whole and of the explanation alone
    (N, C).

    0 to 1; lower is better.

        GEF = 1 − exp(−KL(y ‖ ŷ)),      KL(y ‖ ŷ) = Σ_c y_c ln(y_c / ŷ_c)

    y are the probabilities of the whole, ŷ those of S alone.

    Args:
        whole: (N, C) logits of the whole.
        alone: (N, C) logits of the explanation alone.

    Returns:
        (N,) from 0 to 1.

    Peers:
        PyG's ``unfaithfulness`` says this formula and computes KL(ŷ ‖ y), averaged over examples
        before the exponential.

    References:
        Agarwal et al., "Evaluating explainability for graph neural networks" (GraphXAI), 2022.

    Example:
        >>> import torch, integrand as ig
        >>> half, sure = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.8, 0.2]]).log()
        >>> round(ig.metrics.unfaithful(sure, half).item(), 6), round(ig.metrics.unfaithful(half, sure).item(), 6)
        (0.175308, 0.2)
    """
    _alike(whole, alone)
    return -torch.expm1(-_divergence(alone, whole.log_softmax(1)))


def _divergence(outputs: Tensor, truth: Tensor) -> Tensor:
    """KL(y ‖ ŷ) with ln y = ``truth`` (N, C) and ŷ the softmax of ``outputs`` (N, C): (N,)."""
    divergence: Tensor = torch.nn.functional.kl_div(
        outputs.log_softmax(1), truth.to(outputs.dtype), reduction="none", log_target=True
    )
    return divergence.sum(1).clamp_min(0)  # below 0 by rounding only


def _known(value: str, known: tuple[str, ...], name: str) -> None:
    if value not in known:
        raise InputError(f"{name}= is {' or '.join(map(repr, known))}, not {value!r}.")


def _alike(*outputs: Tensor) -> None:
    if any(out.ndim != 2 or out.shape != outputs[0].shape or out.shape[1] < 2 for out in outputs):
        shapes = ", ".join(describe(out.shape) for out in outputs)
        raise ShapeError(
            f"Class outputs are (examples, classes) of one shape, two classes at least; got {shapes}."
        )


def _weights(weights: tuple[float, float]) -> None:
    if len(weights) != 2 or not all(w > 0 for w in weights):
        raise InputError(
            f"weights= are two positive numbers, of fidelity+ and of 1 − fidelity−, not {weights!r}."
        )


# --- asked of a model -------------------------------------------------------------------------------------------------


@part
class _Cut(Metric):
    """A metric of what is left without S, or of S alone."""

    sparsity: float | None = 0.7
    fill: Fill = 0.0
    features: Features = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sparsity is not None and not 0 < self.sparsity < 1:
            raise InputError(
                f"sparsity= is the fraction left out of the explanation, between 0 and 1, or None for soft masks; not {self.sparsity}."
            )

    def without(self, subject: Subject, maps: Maps, score: Score, *, alone: bool) -> Tensor:
        """The score (M, B) without S, or of S alone."""
        if self.sparsity is None:
            return self._soft(subject, maps, score, alone=alone)
        ranking = ranked(subject, maps, self.features, self.seed)
        size = ((1 - self.sparsity) * ranking.counts).round().clamp_min(1).long()
        return scores_without(subject, ranking, size[None], self.fill, score=score, keep=alone)[
            ..., 0
        ]

    def _soft(self, subject: Subject, maps: Maps, score: Score, *, alone: bool) -> Tensor:
        groups = feature_map(self.features, subject.x)
        mask = feature_scores(maps.values, groups)
        # Sums over the channels of a place may miss 0 and 1 by rounding.
        slack = 1e-5
        if float(mask[mask > float("-inf")].min()) < -slack or float(mask.max()) > 1 + slack:
            raise InputError(
                "A soft mask lies between 0 and 1, and this map does not: scale it, or give sparsity= to keep its highest features."
            )
        shown = mask.clamp(0, 1).gather(
            2, groups.expand(subject.x.shape).reshape(1, len(subject), -1).expand(len(maps), -1, -1)
        )
        shown = shown.reshape(maps.values.shape)
        x, blank = subject.x, subject.fill(self.fill)
        return subject.score(score).value(blank + (shown if alone else 1 - shown) * (x - blank), 2)


@part
class _Fidelity(_Cut):
    by: str = "probability"
    mode: str = "model"

    def __post_init__(self) -> None:
        super().__post_init__()
        _known(self.by, _BY, "by")
        _known(self.mode, _MODES, "mode")

    def fidelity(self, subject: Subject, maps: Maps, *alone_options: bool) -> Tensor:
        """(M, B, ways): what is lost by S alone, for True, or without S, for False."""
        if self.by == "probability":
            left = [
                self.without(subject, maps, "probability", alone=alone) for alone in alone_options
            ]
            return subject.whole()[:, None] - torch.stack(left, -1)
        ahead = Lead(self._class(subject))
        before = subject.whole(ahead) > 0
        after = torch.stack(
            [self.without(subject, maps, ahead, alone=alone) > 0 for alone in alone_options], -1
        )
        return (before[:, None] != after).to(subject.x.dtype)

    def _class(self, subject: Subject) -> Index:
        """The class whose being predicted counts: the predicted one, or the one explained."""
        if self.mode == "model":
            outputs = outputs_of(subject.field, subject.x)
            if outputs.ndim != 2:
                raise TargetError(
                    f"Whether a class is predicted needs outputs (rows, classes), but one output has shape {describe(outputs.shape[1:])}."
                )
            return outputs.argmax(1)
        target = subject.field.target
        classes = None if target is None else target.class_index
        if classes is None:
            raise TargetError(
                'mode="phenomenon" needs the true class of each example as the target: give target= classes.'
            )
        return classes


@metric("fidelity_plus")
@part
class FidelityPlus(_Fidelity):
    """Fidelity+: what the prediction loses without the explanation.

    Higher is better: what was taken away was necessary.

        by="probability":  p(x) − p(x without S)
        by="accuracy":     mode="model":       1 − 1[ŷ(x without S) = ŷ(x)]
                           mode="phenomenon":  |1[ŷ(x) = y] − 1[ŷ(x without S) = y]|

    Args:
        sparsity: 0.7: S are the highest (1 − sparsity) of the features, one at least; None: the map
            is a soft mask in [0, 1] and weighs what it keeps, x without S is fill + (1 − map)(x −
            fill).
        by: "probability" of the class explained (signed, as in DIG), or "accuracy" (as in PyG and
            GraphFramEx).
        mode: with "accuracy": "model" asks whether the predicted class stays, "phenomenon" whether
            the class explained, which is then to be the true one, stays as right or wrong as it
            was. With "probability" the class explained decides: target="predicted".
        fill: what is not there becomes; 0 for edge weights.
        features: "auto": pixels for images, tokens for (T, D), elements otherwise, such as edges
            (B, E).
        seed: of the shuffle that breaks ties.

    Cost:
        One row for each map and example; x once (by="accuracy": twice, once to know the class).

    Pitfalls:
        A graph without S looks like nothing the model was trained on; a model changes its mind for
        that alone (compare with a random map of the same sparsity). A tie for the highest output
        counts as not predicted.

    Peers:
        PyG uses soft masks as given and averages; threshold them there for the numbers here.

    References:
        Amara et al., "GraphFramEx", 2022; Yuan et al., "Explainability in graph neural networks",
        2022.

    Example:

    >>> import torch, integrand as ig
    >>> model, x = torch.nn.Linear(10, 3), torch.ones(5, 10)
    >>> ig.metrics.fidelity_plus(model, x, torch.rand(5, 10), target="predicted", sparsity=0.5).shape
    torch.Size([5])
    """

    higher: ClassVar[bool] = True

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        return self.fidelity(subject, maps, False)[..., 0]


@metric("fidelity_minus")
@part
class FidelityMinus(_Fidelity):
    """Fidelity−: what the prediction loses when only the explanation is left.

    Lower is better: what is left is sufficient.

        by="probability":  p(x) − p(S alone)
        by="accuracy":     mode="model":       1 − 1[ŷ(S alone) = ŷ(x)]
                           mode="phenomenon":  |1[ŷ(x) = y] − 1[ŷ(S alone) = y]|

    Cost, pitfalls and peers: as ``FidelityPlus``. Negative values of the probability version say
    that the explanation alone is more convincing than the input.

    Args:
        sparsity: 0.7: S are the highest 30 % of the features, one at least; None: the map is a soft
            mask in [0, 1].
        fill: what is not there becomes; 0 for edge weights.
        features: "auto": pixels for images, tokens for (T, D), elements otherwise, such as edges
            (B, E).
        seed: of the shuffle that breaks ties.
        by: "probability" of the class explained, or "accuracy".
        mode: with "accuracy": "model" or "phenomenon", as written above.

    Example:
        >>> import torch, integrand as ig
        >>> model, x = torch.nn.Linear(10, 3), torch.ones(5, 10)
        >>> result = ig.explain(model, x, target=0)
        >>> ig.metrics.fidelity_minus(model, x, result, target=0, sparsity=0.5).shape
        torch.Size([5])
    """

    higher: ClassVar[bool] = False

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        return self.fidelity(subject, maps, True)[..., 0]


@metric("characterization")
@part
class Characterization(_Fidelity):
    """Characterization score: the weighted harmonic mean of fidelity+ and 1 − fidelity−.

    0 to 1; higher is better.

        (w₊ + w₋) / (w₊ / fid₊ + w₋ / (1 − fid₋))

    One number per example is the score of that example; the summary is, as published, the score of
    the *mean* fidelities, which is not the mean of the scores. NaN where a harmonic mean is none:
    fid₊ < 0 (the probability rises without S).

    Args:
        weights: w₊ and w₋, equal as published.
        sparsity: as in ``FidelityPlus``; by="accuracy" is what was published.
        fill: as in ``FidelityPlus``; by="accuracy" is what was published.
        features: as in ``FidelityPlus``; by="accuracy" is what was published.
        seed: as in ``FidelityPlus``; by="accuracy" is what was published.
        by: as in ``FidelityPlus``; by="accuracy" is what was published.
        mode: as in ``FidelityPlus``; by="accuracy" is what was published.

    Cost:
        Two rows for each map and example; x once (by="accuracy": twice).

    References:
        Amara et al., "GraphFramEx", 2022.
    """

    by: str = "accuracy"
    weights: tuple[float, float] = (0.5, 0.5)

    higher: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _weights(self.weights)

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        """Fidelity+ and fidelity− (M, B, 2)."""
        return self.fidelity(subject, maps, False, True)

    def values(self, measured: Tensor) -> Tensor:
        return characterize(measured[..., 0], measured[..., 1], self.weights)

    def summary(self, measured: Tensor) -> Tensor:
        return self.values(measured.mean(1, keepdim=True))[:, 0]


@metric("unfaithfulness")
@part
class Unfaithfulness(_Cut):
    """Unfaithfulness (GEF): how far the class probabilities of the explanation alone are from those
    of the input.

    Lower is better.

        GEF = 1 − exp(−KL(y ‖ ŷ)),      y = p(x),  ŷ = p(S alone)

    The model has class outputs (B, C); which class is explained does not matter.

    Args:
        sparsity: 0.7: S are the highest 30 % of the features, one at least; None: the map is a soft
            mask in [0, 1].
        fill: what is not there becomes; 0 for edge weights.
        features: "auto": pixels for images, tokens for (T, D), elements otherwise, such as edges
            (B, E).
        seed: of the shuffle that breaks ties.

    Cost:
        One row for each map and example, and x twice: its outputs, and what every curve knows of
        its score.

    Pitfalls:
        The divergence is taken over all classes, so an explanation of one class is blamed for what
        it rightly leaves out.

    Peers:
        PyG's ``unfaithfulness`` computes KL(ŷ ‖ y) for the formula above, and averages before the
        exponential.

    References:
        Agarwal et al., "Evaluating explainability for graph neural networks" (GraphXAI), 2022.

    Example:
        >>> import torch, integrand as ig
        >>> model, x = torch.nn.Linear(10, 3), torch.ones(5, 10)
        >>> ig.metrics.unfaithfulness(model, x, torch.ones(5, 10), target=0, sparsity=None).round(decimals=5).tolist()
        [0.0, 0.0, 0.0, 0.0, 0.0]
    """

    higher: ClassVar[bool] = False

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        truth = outputs_of(subject.field, subject.x)
        if truth.ndim != 2 or truth.shape[1] < 2:
            raise TargetError(
                f"Unfaithfulness compares class probabilities; the model's outputs are {describe(truth.shape)}."
            )
        away = self.without(subject, maps, Custom(_divergence, truth.log_softmax(1)), alone=True)
        return -torch.expm1(-away)


# --- of the map alone, and of the map and what is true ------------------------------------------------------------------


@metric("sparsity")
@part
class Sparsity(Metric):
    """Sparsity: the fraction of features that a map leaves out. 0 to 1; higher is smaller.

        1 − |S| / |G|,      S = { i : φ_i > threshold }

    Args:
        threshold: 0; 0.5 turns a soft mask into a subgraph.
        features: as in ``Sparseness``.

    Pitfalls:
        Of a map with signs, S are the positive features; nearly no map of a real model has exact
        zeros, so cut it first.

    References:
        Pope et al., "Explainability methods for graph convolutional neural networks", CVPR 2019.

    Example:

    >>> import torch, integrand as ig
    >>> ig.metrics.sparsity(torch.tensor([[0.0, 0.9, 0.0, 0.2]])).item()
    0.5
    """

    threshold: float = 0.0
    features: Features = "auto"

    higher: ClassVar[bool] = True

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        scores, present = by_feature(subject, maps, self.features)
        chosen = ((scores > self.threshold) & present).sum(-1)
        return 1 - chosen.to(maps.values.dtype) / present.sum(-1)


@metric("jaccard")
@part
class Jaccard(Metric):
    """Jaccard index of an explanation and the true one (graph explanation accuracy, GEA).

    0 to 1; higher is better.

        |S ∩ T| / |S ∪ T| = TP / (TP + FP + FN),      S = { i : φ_i > threshold },  T the mask

    Works on edges (B, E) as on pixels, whose channels are summed. NaN for an empty mask, 0 for an
    empty explanation of one that is not.

    Args:
        threshold: 0; 0.5 turns a soft mask into a subgraph.

    Pitfalls:
        The threshold decides; ``localisation_auc`` has none.

    References:
        Agarwal et al., "Evaluating explainability for graph neural networks" (GraphXAI), 2022.

    Example:

    >>> import torch, integrand as ig
    >>> ig.metrics.jaccard(torch.tensor([[0.0, 0.9, 0.0, 0.2]]), torch.tensor([[False, True, True, False]])).item()
    0.3333333432674408
    """

    threshold: float = 0.0

    higher: ClassVar[bool] = True

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        places = Places.of(subject, maps, "sum")
        chosen = places.scores > self.threshold
        intersection = (chosen & places.marked).sum(-1)
        union = (chosen | places.marked).sum(-1)
        return places.where(places.size > 0, intersection.to(places.scores.dtype) / union)


fidelity_plus = functional(FidelityPlus)
fidelity_minus = functional(FidelityMinus)
characterization = functional(Characterization)
unfaithfulness = functional(Unfaithfulness)
sparsity = functional_of_maps(Sparsity)
jaccard = functional_of_evidence(Jaccard)
