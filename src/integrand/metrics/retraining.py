"""ROAR and KAR: score maps by training new models on data whose top features are removed, or kept.

    maps ── rank ──▶ masked training and test sets ── train(inputs, labels, seed) ──▶ predict ── test set ──▶ score        per share gone

This judges maps of a data set, not of one model, and so it is a function of a training function
instead of a ``Metric``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..baselines.names import baseline_of
from ..core.features import Features
from ..core.random import generator
from ..core.shapes import checked_references, describe, flattened
from ..errors import InputError, ShapeError
from ..fields import Linear
from ..integration.attribution import Attribution
from ..model.layout import Layout
from .maps import MapLike, Maps
from .perturbation.removal import Ranking
from .task import Fill

Predict = Callable[[Tensor], Tensor]
"""inputs (N, \\*s) -> outputs (N, C), classes (N,), or whatever ``score`` understands."""

Train = Callable[[Tensor, Tensor, int], Predict]
"""(inputs (N, \\*s), labels (N, …), seed) -> a model trained from scratch."""

Data = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]
"""((training inputs, labels), (test inputs, labels))."""

MapPairs = Sequence[MapLike] | Mapping[str, Sequence[MapLike]]
"""(maps of the training inputs, maps of the test inputs), or such pairs by name."""

CUTOFFS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
_RANDOM = "random"


@dataclass(frozen=True, eq=False)
class Retraining:
    """Test scores of models trained on masked data.

    Args:
        scores: (M, T, S) for each map, cutoff and seed.
        names: (M,) of the maps.
        cutoffs: (T,) the shares removed, or kept.
        seeds: (S,) that training was given.
        masking: "top", "keep" or "bottom": what the cutoffs are shares of.
    """

    scores: Tensor
    names: tuple[str, ...]
    cutoffs: tuple[float, ...]
    seeds: tuple[int, ...]
    masking: str

    @property
    def curves(self) -> Tensor:
        """(M, T) the mean over seeds."""
        return self.scores.mean(-1)

    @property
    def spread(self) -> Tensor:
        """(M, T) the standard deviation over seeds; NaN for one seed."""
        return (
            self.scores.std(-1)
            if self.scores.shape[-1] > 1
            else torch.full_like(self.curves, torch.nan)
        )

    @property
    def areas(self) -> Tensor:
        """(M,) the area under each curve by the trapezoid rule, divided by the range of the
        cutoffs; NaN for one cutoff."""
        at = torch.tensor(self.cutoffs, dtype=torch.float64)
        return torch.trapezoid(self.curves, at) / (at[-1] - at[0])

    def __repr__(self) -> str:
        heading = {"top": "gone", "bottom": "gone from the bottom", "keep": "kept"}[self.masking]
        width = max(len(f"share {heading}"), *map(len, self.names))
        rows = [
            f"{f'share {heading}':<{width}}" + "".join(f"{cutoff:>8.2f}" for cutoff in self.cutoffs)
        ]
        rows += [
            f"{name:<{width}}" + "".join(f"{score:>8.3f}" for score in curve)
            for name, curve in zip(self.names, self.curves.tolist(), strict=True)
        ]
        return "\n".join(rows)


def roar(
    train: Train,
    data: Data,
    attributions: MapPairs,
    *,
    keep: bool = False,
    cutoffs: Sequence[float] = CUTOFFS,
    seeds: int = 5,
    fill: Fill = "mean",
    features: Features = "auto",
    score: Callable[[Tensor, Tensor], float] | None = None,
    control: bool = True,
    seed: int = 0,
) -> Retraining:
    """ROAR, remove and retrain: the test score of new models trained without the fraction t of the
    features of every example.

        score(t) = accuracy on masked test data of a model trained on masked training data

    Lower is better for ROAR, at any t: what a good map points at is missed. With ``keep=True`` it
    is KAR, keep and retrain: the fraction t stays and everything else goes, and higher is better.

    Args:
        train: (inputs, labels, seed) → predict; it makes a model from scratch, with nothing random
            that the seed does not decide.
        data: ((training inputs, labels), (test inputs, labels)); inputs are tensors (N, \\*s).
        attributions: (maps of the training inputs, of the test inputs), or a dict of such pairs by
            name: Attributions or tensors.
        keep: the fraction t stays and everything else goes: KAR.
        cutoffs: the shares t; 0.0 is trained once for all maps.
        seeds: trainings for each map and fraction, of ``seed``, ``seed + 1``, …
        fill: what goes becomes this: "mean", the mean of the training data for each channel
            (columns of tables), as published; or a number, a tensor, a name, or a baseline that
            needs no model.
        features: what is ranked, by the signed sum of its map: "auto" is pixels for images, tokens
            for (T, D), elements otherwise; an int patches, a label map superpixels.
        score: (what predict returned for the test inputs, test labels) → a number; accuracy unless
            given.
        control: judge a random ranking too, called "random"; a map has found something where it
            differs from it.
        seed: of training, of the random ranking and of the shuffle that breaks ties.

    Returns:
        ``Retraining``: all scores, their mean curves and areas.

    Raises:
        ShapeError: for shapes that do not fit.
        InputError: for cutoffs outside [0, 1], and for a score that is no number.
        NonFiniteInput: for NaN in maps.

    Cost:
        (M · T + 1) · seeds trainings for M maps and T cutoffs besides 0.

    Pitfalls:
        Which features went tells the class, and models learn to read the mask (Rong et al., 2022:
        compare with the control, and with ``diff_roar``); correlated features make up for one
        another; it is the data that is judged, not what this model uses.

    Peers:
        XAI-Bench's ROAR ranks by |φ|, rounds the number that goes down, so that several of its
        cutoffs coincide for few features, and reports the mean absolute error (higher better).

    References:
        Hooker, Erhan, Kindermans, Kim, "A benchmark for interpretability methods in deep neural
        networks", NeurIPS 2019.

    Example:
        >>> import torch, integrand as ig
        >>> x = torch.randn(200, 4)
        >>> y = (x[:, 0] > 0).long()
        >>> def train(inputs, labels, seed):
        ...     means = torch.stack([inputs[labels == c].mean(0) for c in (0, 1)])
        ...     return lambda z: -torch.cdist(z, means)
        >>> right = torch.tensor([1.0, 0, 0, 0]).expand(100, 4)
        >>> found = ig.metrics.roar(train, ((x[:100], y[:100]), (x[100:], y[100:])), (right, right), cutoffs=(0, 0.25), seeds=1, control=False)
        >>> bool(found.curves[0, 1] < found.curves[0, 0])
        True
    """
    masking = "keep" if keep else "top"
    return _retrained(
        train, data, attributions, masking, cutoffs, seeds, fill, features, score, control, seed
    )


def kar(train: Train, data: Data, attributions: MapPairs, **options: Any) -> Retraining:
    """KAR, keep and retrain: ``roar(…, keep=True)``. Higher is better.

    Args:
        train: (inputs, labels, seed) → predict, as for ``roar``.
        data: ((training inputs, labels), (test inputs, labels)).
        attributions: (maps of the training inputs, of the test inputs), or a dict of such pairs by
            name.
        **options: everything else that ``roar`` takes.

    Returns:
        ``Retraining``, as of ``roar``.
    """
    return roar(train, data, attributions, keep=True, **options)


def diff_roar(
    train: Train,
    data: Data,
    attributions: MapPairs,
    *,
    cutoffs: Sequence[float] = CUTOFFS,
    seeds: int = 5,
    fill: Fill = "mean",
    features: Features = "auto",
    score: Callable[[Tensor, Tensor], float] | None = None,
    control: bool = True,
    seed: int = 0,
) -> tuple[Tensor, Retraining, Retraining]:
    """DiffROAR: score after the fraction t went from the bottom of the ranking, minus after it went
    from the top.

    Higher is better.

        DiffROAR(t) = score(bottom t gone) − score(top t gone)

    A random ranking has 0 on average, as has a mask that reveals the class alike from either end.
    Cost (twice) and errors are those of ``roar``.

    Args:
        train: (inputs, labels, seed) → predict, as for ``roar``.
        data: ((training inputs, labels), (test inputs, labels)).
        attributions: (maps of the training inputs, of the test inputs), or a dict of such pairs by
            name.
        cutoffs: the shares t.
        seeds: trainings for each map and share.
        fill: what goes becomes this, as for ``roar``.
        features: what is ranked, as for ``roar``.
        score: (what predict returned, test labels) → a number; accuracy unless given.
        control: judge a random ranking too.
        seed: of training, of the random ranking and of ties.

    Returns:
        The differences (M, T), and both retrainings, of the bottom and of the top.

    References:
        Shah, Jain, Netrapalli, "Do input gradients highlight discriminative features?", NeurIPS
        2021.
    """
    bottom, top = (
        _retrained(
            train, data, attributions, masking, cutoffs, seeds, fill, features, score, control, seed
        )
        for masking in ("bottom", "top")
    )
    return bottom.curves - top.curves, bottom, top


def _retrained(
    train: Train,
    data: Data,
    attributions: MapPairs,
    masking: str,
    cutoffs: Sequence[float],
    seeds: int,
    fill: Fill,
    features: Features,
    score: Callable[[Tensor, Tensor], float] | None,
    control: bool,
    seed: int,
) -> Retraining:
    shares = _checked_cutoffs(cutoffs)
    if seeds < 1:
        raise InputError(f"There is one training at least for each map, not seeds={seeds}.")
    inputs, labels = _checked_data(data)
    pairs = _pairs(attributions, inputs, control=control)
    blanks = _fill(fill, inputs)
    numbers = tuple(range(seed, seed + seeds))

    def trained(masked: tuple[Tensor, Tensor]) -> Tensor:
        return torch.tensor(
            [_score(train(masked[0], labels[0], n), masked[1], labels[1], score) for n in numbers]
        )

    same: dict[bool, Tensor] = {}  # where nothing or everything is replaced, all maps are alike

    def score_of(masks: Sequence[Tensor]) -> Tensor:
        first, second = (
            torch.where(mask, blank, x)
            for mask, blank, x in zip(masks, blanks, inputs, strict=True)
        )
        uniform = _uniform(masks)
        if uniform is None:
            return trained((first, second))
        if uniform not in same:
            same[uniform] = trained((first, second))
        return same[uniform]

    curves = []
    for name, maps in pairs.items():
        rankings = [
            _shuffled(m, x, features, seed, side)
            if name == _RANDOM and control
            else Ranking.of(m, x, features, seed=seed)
            for side, (m, x) in enumerate(zip(([m[None] for m in maps]), inputs, strict=True))
        ]
        curve = [score_of([_gone(r, fraction, masking) for r in rankings]) for fraction in shares]
        curves.append(torch.stack(curve))
    return Retraining(torch.stack(curves), tuple(pairs), tuple(shares), numbers, masking)


def _pairs(
    attributions: MapPairs, inputs: tuple[Tensor, Tensor], *, control: bool
) -> dict[str, tuple[Tensor, Tensor]]:
    """Maps of the training and of the test inputs by name, with those of the control."""
    entries = attributions if isinstance(attributions, Mapping) else {"map": attributions}
    pairs = {name: _pair(name, pair, inputs) for name, pair in entries.items()}
    if control:
        if _RANDOM in pairs:
            raise InputError(
                'A map is called "random" as the control is: name it otherwise, or give control=False.'
            )
        # Of features, not of elements: sums over more channels or larger superpixels would not be
        # ranked alike.
        pairs[_RANDOM] = (torch.zeros_like(inputs[0]), torch.zeros_like(inputs[1]))
    if not pairs:
        raise InputError("There are no maps to judge: give at least one.")
    return pairs


def _uniform(masks: Sequence[Tensor]) -> bool | None:
    """The value of bool masks that all have one value everywhere; None of others."""
    values = {bool(mask.flatten()[0]) for mask in masks}
    constant = all(bool((mask == mask.flatten()[0]).all()) for mask in masks)
    return values.pop() if constant and len(values) == 1 else None


def _shuffled(like: Tensor, x: Tensor, features: Features, seed: int, side: int) -> Ranking:
    """Every example's features in an order of its own."""
    flat = Ranking.of(like, x, features, seed=seed)
    most = int(flat.counts.max())
    order = torch.rand(len(x), most, generator=generator(seed, side), dtype=torch.float64).to(
        x.device
    )
    order = (
        order.masked_fill(torch.arange(most, device=x.device) >= flat.counts[:, None], torch.inf)
        .argsort(1)
        .argsort(1)
    )
    place = order.gather(1, flattened(flat.place[0], 1)).reshape(flat.place.shape)
    return Ranking(place, flat.counts)


def _gone(ranking: Ranking, fraction: float, masking: str) -> Tensor:
    """Which elements (N, \\*s') go."""
    counts = ranking.counts.reshape(-1, *(1,) * (ranking.place.ndim - 2))
    many, place = (fraction * counts).round(), ranking.place[0]
    if masking == "bottom":
        return place >= counts - many
    return place >= many if masking == "keep" else place < many


def _fill(fill: Fill, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """What is put in place of what goes, for both sets; the mean is that of the training set for
    both."""
    first, second = inputs
    if isinstance(fill, str) and fill == "mean":
        # (N, C, H, W) by channel, (N, T, D) by dimension, (N, D) by column.
        axes = {4: (0, 2, 3), 3: (0, 1)}.get(first.ndim, (0,))
        mean = first.mean(axes, keepdim=True)
        return mean.expand_as(first), mean.expand_as(second)
    baseline = baseline_of(fill)
    field = Linear(
        torch.zeros_like(first[0])
    )  # baselines may look at a field, and here there is none
    train_fill, test_fill = (
        checked_references(baseline(x, field), x, "The fill")[0] for x in inputs
    )
    return train_fill, test_fill


def _score(
    predict: Predict,
    inputs: Tensor,
    labels: Tensor,
    score: Callable[[Tensor, Tensor], float] | None,
) -> float:
    with torch.no_grad():
        outputs = predict(inputs)
    if score is not None:
        return float(score(outputs, labels))
    if not isinstance(outputs, Tensor) or len(outputs) != len(inputs) or outputs.ndim not in (1, 2):
        returned = (
            describe(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        )
        raise ShapeError(
            f"predict(inputs) returned {returned} for {len(inputs)} examples: return outputs (N, C) or classes (N,), or give score=."
        )
    if outputs.ndim == 1 and outputs.is_floating_point():
        raise InputError(
            "predict(inputs) returned one real number for each example: accuracy needs classes; give score=."
        )
    classes = outputs.argmax(1) if outputs.ndim == 2 else outputs
    return float((classes.to(labels) == labels).double().mean())


def _checked_cutoffs(cutoffs: Sequence[float]) -> list[float]:
    shares = [float(fraction) for fraction in cutoffs]
    if (
        not shares
        or any(not 0 <= fraction <= 1 for fraction in shares)
        or sorted(set(shares)) != shares
    ):
        raise InputError(
            f"cutoffs= are shares from 0 to 1 in ascending order, each once, not {tuple(cutoffs)}."
        )
    return shares


def _checked_data(data: Data) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    try:
        (first, first_labels), (second, second_labels) = data
    except (TypeError, ValueError):
        raise InputError("data= is ((training inputs, labels), (test inputs, labels)).") from None
    for x, y, kind in ((first, first_labels, "training"), (second, second_labels, "test")):
        if len(x) != len(y) or not len(x):
            raise ShapeError(
                f"There are {len(x)} {kind} inputs and {len(y)} labels: one for each, and one at least."
            )
    if first.shape[1:] != second.shape[1:]:
        raise ShapeError(
            f"Training inputs have shape {describe(first.shape[1:])}, test inputs {describe(second.shape[1:])}: they are masked alike."
        )
    return (first, second), (first_labels, second_labels)


def _pair(name: str, pair: object, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Maps (N, \\*s) of the training and of the test inputs."""
    if isinstance(pair, Tensor | Attribution) or not isinstance(pair, Sequence) or len(pair) != 2:
        raise InputError(
            f"attributions= of {name!r} are a pair (maps of the training inputs, maps of the test inputs): both sets are masked."
        )
    first, second = (
        Maps.of({name: maps}, x, Layout.of(x)).values[0]
        for maps, x in zip(pair, inputs, strict=True)
    )
    return first, second
