"""Localisation: agreement of maps with masks of where the evidence is known to be.

All of these compare a map with masks. What they have in common stands here once:

    places   a mask says whether a *place* is evidence: a pixel, a token, a number. Maps with
             channels are pooled to one number per place first (``pool``), and masks with channels
             mark a place if they mark any of its channels
    ties     where an order of places is needed and a map gives none, the mean over all orders is
             taken. A map that is the same everywhere therefore scores what chance scores, not 0 and
             not 1
    nothing  where the question is empty (an empty mask, no relevance at all), the value is NaN and
             ``summary`` leaves it out

They say where a map points, not whether the model looked there: a model that uses the background is
explained well by a map that scores badly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..core.ranks import blocks, found_among_first
from ..core.shapes import flattened
from ..core.values import part
from ..errors import InputError, NonFiniteInput
from .base import Metric, functional_of_evidence, metric
from .maps import Maps
from .task import Subject

POOLS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "sum": lambda v, axis: v.sum(axis),
    "positive": lambda v, axis: v.sum(axis).clamp_min(0),
    "absolute": lambda v, axis: v.sum(axis).abs(),
    "l1": lambda v, axis: v.abs().sum(axis),
    "l2": lambda v, axis: v.norm(dim=axis),
    "l2_squared": lambda v, axis: v.square().sum(axis),
    "max": lambda v, axis: v.abs().amax(axis),
}
"""How the channels of a place become one number. CLEVR-XAI calls them: sum, "sum,pos", "sum,abs",
l1-norm, l2-norm, "l2-norm,sq", max-norm."""


@dataclass(frozen=True, eq=False)
class Places:
    """Maps and masks by places.

    Args:
        scores: (M, B, N) the maps, channels pooled.
        marked: (B, N) bool, the masks.
        size: (B,) how many places each mask marks.
        plane: (H, W) where places lie in a plane, or None.
    """

    scores: Tensor
    marked: Tensor
    size: Tensor
    plane: tuple[int, int] | None

    @classmethod
    def of(cls, subject: Subject, maps: Maps, pool: str) -> Places:
        """Maps and masks of a subject. Raises ``InputError`` for no masks, ``ShapeError`` for masks of
        another size, ``NonFiniteInput`` for NaN in them."""
        masks = subject.masks
        if masks is not None and masks.is_floating_point() and bool(masks.isnan().any()):
            raise NonFiniteInput(
                "The masks hold NaN, which is neither evidence nor none: fill it first."
            )
        marked = subject.evidence()
        axis = _channels(marked, masks)
        if axis is None:
            scores = POOLS[pool](maps.values[..., None], -1)
        else:
            scores, marked = POOLS[pool](maps.values, axis + 1), marked.any(axis)
        plane = (marked.shape[1], marked.shape[2]) if marked.ndim == 3 else None
        marked = flattened(marked, 1)
        return cls(flattened(scores, 2), marked, marked.sum(1), plane)

    def of_examples(self, part: slice) -> Places:
        return Places(self.scores[:, part], self.marked[part], self.size[part], self.plane)

    @property
    def count(self) -> int:
        """How many places there are."""
        return self.marked.shape[1]

    def where(self, defined: Tensor, values: Tensor) -> Tensor:
        """``values`` (M, B) where they are ``defined`` (B,) or (M, B); NaN elsewhere."""
        return torch.where(defined, values, torch.nan).to(self.scores.dtype)


def _channels(marked: Tensor, masks: Tensor | None) -> int | None:
    """The axis of inputs (B, \\*s) that belongs to a place: channels of images, dimensions of
    tokens that are masked as a whole."""
    if marked.ndim == 4:
        return 1
    return 2 if marked.ndim == 3 and masks is not None and masks.ndim == 2 else None


@part
class _Localisation(Metric):
    """A metric of maps and masks."""

    pool: str = "sum"

    higher: ClassVar[bool] = True
    pools: ClassVar[tuple[str, ...]] = tuple(POOLS)

    def __post_init__(self) -> None:
        if self.pool not in self.pools:
            why = " (relevance that is a mass has no sign)" if self.pool in POOLS else ""
            raise InputError(
                f"pool={self.pool!r} does not go with {type(self).__name__}{why}; choose from {', '.join(map(repr, self.pools))}."
            )

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        places = Places.of(subject, maps, self.pool)
        return torch.cat(
            [self.found(places.of_examples(part)) for part in blocks(places.scores)], 1
        )

    def found(self, places: Places) -> Tensor:
        """(M, B)"""
        raise NotImplementedError


@metric("pointing_game")
@part
class PointingGame(_Localisation):
    """Pointing game: is the highest place of a map in the mask, or near it?

    1 or 0; higher is better.

        hit = 1[ some place of the mask is nearer than ``tolerance`` pixels to argmax map ]

    Where several places are highest, the fraction of them that hit, which is the chance of a hit
    for one of them drawn at random. An empty mask is NaN, never a hit. The mean over examples is
    the accuracy; the paper's is the mean of the accuracies of the classes, and its "difficult"
    subset a choice of examples: both are for the caller to make.

    Args:
        pool: how channels become one number; "sum" (signed) as published for heat maps.
        tolerance: in pixels, Euclidean, strictly less, and 0 asks for the mask itself; 15 as
            published, which is meant for photographs: on small images it makes everything a hit.
            Only places in a plane have distances; elsewhere the mask itself counts.

    Pitfalls:
        One pixel decides; large objects are hit by chance (a map without information hits with the
        share of the image that the widened mask covers: compare with a random one).

    Peers:
        TorchRay takes the first of equal places, and cannot hit with tolerance 0. Quantus has no
        tolerance, counts a hit if any of the equal places hits (a constant map always does),
        returns *hits* for empty masks, and its ``weighted=True`` crashes (or, with an older NumPy,
        rounds every weight to True).

    References:
        Zhang et al., "Top-down neural attention by excitation backprop", IJCV 2018.

    Example:

    >>> import torch, integrand as ig
    >>> mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    >>> mask[0, 0, 0] = True
    >>> heat = torch.zeros(1, 4, 4)
    >>> heat[0, 0, 2] = 1.0
    >>> ig.metrics.pointing_game(heat, mask, tolerance=2).item(), ig.metrics.pointing_game(heat, mask, tolerance=2.1).item()
    (0.0, 1.0)
    """

    tolerance: float = 15.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tolerance >= 0:
            raise InputError(
                f"A tolerance is a distance in pixels, 0 or more, not {self.tolerance}."
            )

    def found(self, places: Places) -> Tensor:
        near = places.marked
        if places.plane is not None:
            near = flattened(_widened(near.reshape(-1, *places.plane), self.tolerance), 1)
        highest = places.scores == places.scores.amax(-1, keepdim=True)
        hit = (highest & near).sum(-1) / highest.sum(-1)
        return places.where(places.size > 0, hit)


def _widened(masks: Tensor, tolerance: float) -> Tensor:
    """Masks (B, H, W) and everything nearer than ``tolerance`` to them."""
    reach = min(int(tolerance), max(masks.shape[1:]) - 1)
    if reach == 0:
        return masks
    away = torch.arange(-reach, reach + 1, device=masks.device)
    disc = away[:, None] ** 2 + away**2 < tolerance**2
    # Sums of ones below 2^24 are exact in float32.
    return (
        nn.functional.conv2d(masks[:, None].float(), disc[None, None].float(), padding=reach)[:, 0]
        > 0.5
    )


@metric("relevance_mass")
@part
class RelevanceMass(_Localisation):
    """Relevance mass accuracy: the fraction of a map's relevance that lies in the mask.

    0 to 1; higher is better.

        RMA = Σ_{mask} R / Σ R,      R ≥ 0 the pooled map

    The choice is part of the result: "positive" asks where a map finds evidence *for* the class,
    "absolute" where it finds anything. NaN for an empty mask and for a map without any relevance. A
    map that is constant scores the mask's fraction of the image.

    Args:
        pool: how channels become one relevance that is not negative: "positive" (the sum, negative
            ones dropped), "absolute" (of the sum), "l1", "l2", "l2_squared", "max". Signed sums are
            refused: with them the ratio can be anything.

    Pitfalls:
        Large masks score high by chance; noise all over a large background outweighs a sharp
        object.

    Peers:
        Quantus sums signed relevance unless ``abs=True`` (1.28 and −0.84 were seen), with which it
        is "absolute" for maps of one channel.

    References:
        Arras, Osman, Samek, "CLEVR-XAI", Information Fusion 2022, who compare all these poolings.

    Example:

    >>> import torch, integrand as ig
    >>> ig.metrics.relevance_mass(torch.tensor([[3.0, -2.0, 1.0]]), torch.tensor([[True, False, False]])).item()
    0.75
    """

    pool: str = "positive"

    pools: ClassVar[tuple[str, ...]] = tuple(name for name in POOLS if name != "sum")

    def found(self, places: Places) -> Tensor:
        mass = places.scores.double()
        inside = (mass * places.marked).sum(-1)
        total = mass.sum(-1)
        return places.where((places.size > 0) & (total > 0), inside / total)


@metric("relevance_rank")
@part
class RelevanceRank(_Localisation):
    """Relevance rank accuracy: of as many top places as the mask has, the fraction that is in it.

    0 to 1; higher is better.

        RRA = |top-K ∩ mask| / K,      K = |mask|

    Equal places share a rank: a constant map scores the mask's fraction of the image. Empty masks
    are NaN, full ones 1 whatever the map.

    Args:
        pool: how channels become one number; "sum" is signed.

    Pitfalls:
        Ranks only; chance is the fraction of the image that the mask covers.

    Peers:
        Quantus agrees where no two places are equal, and otherwise returns what numpy's sort left.

    References:
        Arras, Osman, Samek, "CLEVR-XAI", Information Fusion 2022.

    Example:

    >>> import torch, integrand as ig
    >>> ig.metrics.relevance_rank(torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[True, False, True]])).item()
    0.5
    """

    def found(self, places: Places) -> Tensor:
        hits = found_among_first(places.scores, places.marked)
        marked_hits = hits.gather(-1, places.size.expand(hits.shape[:-1])[..., None])[..., 0]
        return places.where(places.size > 0, marked_hits / places.size)


@metric("mask_overlap")
@part
class MaskOverlap(_Localisation):
    """Mask-overlap AUC: the mean precision of the top places, from one hundredth of the mask's size
    up to all of it.

    Higher is better.

        y_p = |top-k ∩ mask| / k,   k = ⌊p S / 100⌋,   p = 1 … 100,   S = |mask|        (Σ y − (y_1 + y_100)/2) / 99

    The authors' code leaves out the division: its numbers are 99 times these. As there, y is 0
    where k is 0, so masks of fewer than 100 places cannot reach 1 (the most they can reach is what
    the mask itself scores as a map). Empty masks are NaN; equal places share ranks.

    Args:
        pool: how channels become one number; "sum" is signed.

    Pitfalls:
        The top hundredth counts as much as the last; chance is the fraction of the image that the
        mask covers.

    Peers:
        None.

    References:
        The code of "Weighted Integrated Gradients" (its second metric), where masks are objects and
        any non-zero value counts.

    Example:

    >>> import torch, integrand as ig
    >>> mask = torch.arange(400).reshape(1, 20, 20) < 200
    >>> ig.metrics.mask_overlap(mask.float(), mask).item()
    1.0
    """

    def found(self, places: Places) -> Tensor:
        hits = found_among_first(places.scores, places.marked)
        k = torch.arange(1, 101, device=hits.device) * places.size[:, None] // 100  # (B, 100)
        y = hits.gather(-1, k.expand(*hits.shape[:-1], 100)) / k.clamp_min(1)
        return places.where(places.size > 0, (y.sum(-1) - (y[..., 0] + y[..., -1]) / 2) / 99)


@metric("localisation_auc")
@part
class LocalisationAUC(_Localisation):
    """ROC-AUC of a map against the mask: the chance that a place inside is higher than one outside.
    0.5 is chance; higher is better.

        AUC = P(R_in > R_out) + P(R_in = R_out) / 2

    Edges of a graph against the edges of a motif are the same question. NaN where there is nothing
    inside or nothing outside.

    Args:
        pool: how channels become one number; "sum" is signed.

    Pitfalls:
        Most places are background, so the order inside the background decides nothing and that near
        the top little.

    Peers:
        Quantus and scikit-learn agree (``roc_auc_score``).

    Example:

    >>> import torch, integrand as ig
    >>> ig.metrics.localisation_auc(torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[True, False, True]])).item()
    0.5
    """

    def found(self, places: Places) -> Tensor:
        hits = found_among_first(places.scores, places.marked)
        counts = torch.arange(places.count + 1, device=hits.device)
        outside = places.count - places.size
        false = (counts - hits).diff(dim=-1)
        area = (false * (hits[..., 1:] + hits[..., :-1]) / 2).sum(-1) / (places.size * outside)
        return places.where((places.size > 0) & (outside > 0), area)


@metric("top_intersection")
@part
class TopIntersection(_Localisation):
    """Top-k intersection: the fraction of the k top places that is in the mask.

    0 to 1; higher is better.

        TKI = |top-k ∩ mask| / k

    Equal places share ranks; empty masks are NaN.

    Args:
        k: 1000, as published for photographs; fewer than there are places (errors say so: of all
            places, every map has the same share).
        pool: how channels become one number; "sum" is signed.

    Pitfalls:
        Masks smaller than k cannot reach 1; a fixed k means something else for every size of image.

    Peers:
        Quantus agrees where no two places are equal; its ``concept_influence=True`` multiplies by
        places / |mask|.

    References:
        Theiner et al., "Interpretable semantic photo geolocation", WACV 2022.

    Example:

    >>> import torch, integrand as ig
    >>> ig.metrics.top_intersection(torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[True, False, True]]), k=2).item()
    0.5
    """

    k: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1:
            raise InputError(f"The top k places are at least one, not k={self.k}.")

    def found(self, places: Places) -> Tensor:
        if self.k >= places.count:
            raise InputError(
                f"The top k={self.k} of {places.count} places are all of them, for every map: give a smaller k=."
            )
        hits = found_among_first(places.scores, places.marked)
        return places.where(places.size > 0, hits[..., self.k] / self.k)


pointing_game = functional_of_evidence(PointingGame)
relevance_mass = functional_of_evidence(RelevanceMass)
relevance_rank = functional_of_evidence(RelevanceRank)
mask_overlap = functional_of_evidence(MaskOverlap)
localisation_auc = functional_of_evidence(LocalisationAUC)
top_intersection = functional_of_evidence(TopIntersection)
