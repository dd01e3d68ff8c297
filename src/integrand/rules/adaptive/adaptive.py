"""Adaptive integration to a relative tolerance.

    share = Δ ⊙ Σ_k h_k c_k            c_k: the mean gradient over interval k of the path, h_k its
                                       length

Every interval's mean gradient is a *chord*: exactly complete for networks of known operations, the
mean of its end gradients otherwise (``Field.evaluate_chords``). Completeness is one number and says
nothing of errors that cancel between features, so the error is judged on the vector: an interval
whose mean gradient agrees with its neighbours' is accepted, any other is subdivided. With r the
relative difference to the neighbours (in h-weighted attributions), the interval's error is taken as

    e = ‖share‖ · φ(r),    φ(r) = 0.45 / (1/r² + 0.6)

or what the chord misses of F's change, if that is more. Where an interval's differences to both
neighbours go one way the network is smooth there and errors may be of one sign: those are added up;
elsewhere (networks with kinks) they are nearly independent, and added in squares. From there the
number of pieces every interval needs follows from how errors fall with them, so one or two rounds
suffice.

Chords of intervals that all end where nothing happens agree, whatever happens inside. So a path
that claims to be known is looked into: one gradient g at a scattered place of each stretch that is
longer than a certain fraction of the path. It may differ from its interval's chord as much as the
neighbours do; half of what it differs more is taken to be wrong all along the interval, and the
path, which knew less of itself than it said, is divided again, at uneven places and with its errors
raised.

What is promised is the error of what is asked for: of every path alone, or, where it is known how
references are weighed, of their weighted sum, so that references of little weight get few
gradients. A path that is smooth all along is integrated by Clenshaw–Curtis nodes instead, when the
tolerance is so tight that these are fewer. docs/design/0003-chords.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...core.segment import Segment
from ...core.shapes import unravelled
from ...core.values import part
from ...errors import InputError
from ...fields import Field
from ..base import Integrated, RoughShares, Rule, between_jumps
from .intervals import (
    Intervals,
    Lines,
    as_numpy,
    on_device,
)
from .nested import between
from .refinement import Block, Limits, WantedSums

_START = 4  # intervals of the first look …
_GRADE = 2.0  # … at t = (j/4)²: most of what happens, happens near the baseline
_BLOCK_ELEMENTS = 1 << 23  # paths are refined in blocks whose chords hold about this many numbers …
_EXAMPLE_ELEMENTS = (
    1 << 25
)  # … or this many, on other devices than CPUs and where that keeps an example's paths together


@part
class Adaptive(Rule):
    """Adaptive integration: as many gradients as a relative L2 error below ``tol`` needs.

    Open-loop segments start with 4 chords, and intervals whose gradients differ from
    their neighbours' are subdivided. On
    segments whose path has paid for an end (descents, guided paths), nodes are added between both
    ends by halving.

    Estimates are checked once more: no stretch longer than a quarter of the path (an eighth where
    parts of the model multiply each other, or its operations are not known) is accepted without a
    gradient from its inside.

    Gradients are spent until the error is ``tol`` of the map, or of a thousandth of what the map is
    made of (the shares of its intervals, which cancel where F comes back to where it began), or
    rounding of that. The map is ``converged`` only in the first case.

    Returns shares with their estimated errors, whose weighted squares add up to that of the sum.

    Args:
        tol: relative to the norm of the path's share, or of the weighted sum where weights are
            known (``Segment.weights``).
        max_gradients: per path (reference × example); one that needs more is returned as it is,
            with its error, and not ``converged``.

    Cost:
        None for fields that are flat but where they jump, such as trees, whose share is exact; for
        mixtures of trees and networks, those of what lies between the jumps.
        7 gradients per path for nearly linear networks (11 where parts multiply each other), about
        25 for EfficientNet-Lite0 from black at 10 %.
    """

    tol: float = 0.05
    max_gradients: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.tol < 1:
            raise InputError(
                f"tol is a relative error between 0 and 1, such as 0.05, not {self.tol}."
            )
        if self.max_gradients < _START + 1:
            raise InputError(f"max_gradients is at least {_START + 1}, not {self.max_gradients}.")

    @property
    def budget(self) -> int:
        return self.max_gradients

    def __call__(self, field: Field, segment: Segment) -> Integrated:
        jumping = between_jumps(field, segment, lambda: self)
        if jumping is not None:
            return jumping
        _check_conservative(field, self)
        if segment.at_start is not None or segment.at_end is not None:
            return between(field, segment, self.tol, self.max_gradients)
        # Block by block: what is known of one is let go before the next.
        return Looked(field, segment, self._first_looks(field, segment)).refined(segment.weights)

    def look(self, field: Field, segment: Segment) -> RoughShares:
        """A first look at every path, kept to be refined when it is known how much each counts."""
        jumping = between_jumps(field, segment, lambda: self)
        if jumping is not None:
            return _Known(segment, jumping)
        _check_conservative(field, self)
        return Looked(field, segment, list(self._first_looks(field, segment, keep=True)))

    def _first_looks(
        self, field: Field, segment: Segment, *, keep: bool = False
    ) -> Iterator[tuple[Tensor, Block]]:
        for place in _blocks(field, segment):
            lines = Lines.of(field, segment, place)
            yield (
                place,
                Block(Limits(self.tol, self.max_gradients), lines, _first_look(lines), keep=keep),
            )


def _first_look(lines: Lines) -> Intervals:
    """A few chords on every path, by the number of its own pieces that move: an interval without a
    neighbour has nothing to be judged by."""
    pieces = np.bincount(lines.chain)[lines.chain]
    intervals = np.maximum(-(-_START // pieces), 1)
    line = np.arange(len(lines)).repeat(intervals)
    place = np.arange(len(line)) - (intervals.cumsum() - intervals)[line]
    grade = np.where(pieces == 1, _GRADE, 1.0)[line]
    dtype = as_numpy(lines.start[:0]).dtype
    a, b = (((number / intervals[line]) ** grade).astype(dtype) for number in (place, place + 1))
    return lines.chords(line, a, b)


def _check_conservative(field: Field, rule: Adaptive) -> None:
    if not field.conservative:
        raise InputError(
            f"{rule!r} judges a map by what it adds up to, and the gradients of this field follow a backward rule, so that they add up "
            "to nothing: give fixed nodes, such as rule=ig.rules.Midpoint(50)."
        )


@dataclass(frozen=True, eq=False)
class _Known:
    """Paths of a field that jumps: a first look is the last."""

    segment: Segment
    integrated: Integrated

    def refined(self, weights: Tensor | None = None, tol: float | None = None) -> Integrated:
        return self.integrated


@dataclass(frozen=True, eq=False)
class Looked:
    """Paths that have been looked at, and can be refined."""

    field: Field
    segment: Segment
    blocks: Iterable[tuple[Tensor, Block]]

    def refined(self, weights: Tensor | None = None, tol: float | None = None) -> Integrated:
        """Shares within the tolerance: each path's, or that of the sum weighed by ``weights`` (R,
        B). May be asked again."""
        segment = self.segment
        leading, inner = segment.leading, segment.start.shape[3:]
        share = segment.start.new_zeros(leading[0] * leading[1] * leading[2], *inner)
        error = share.new_zeros(len(share))
        begin, end = (share.new_full((len(share),), float("nan")) for _ in range(2))
        points = as_numpy(self.field.points(torch.arange(leading[2], device=share.device)))
        weighed = None if weights is None else as_numpy(weights.to(share))
        for place, block in self.blocks:
            _, r, b = np.unravel_index(as_numpy(place), leading)
            if weighed is None:
                wanted = WantedSums.of_paths(block.lines.chain, points[b] * leading[1] + r)
            else:
                wanted = WantedSums.of_examples(b, weighed[r, b], points[b])
            share[place], errors = block.refined(wanted, tol)
            for column, numbers in ((error, errors), (begin, block.begin), (end, block.end)):
                column[place] = on_device(numbers, share)
        shaped = (numbers.reshape(leading) for numbers in (error, begin, end))
        return Integrated(share.reshape(*leading, *inner), *shaped)


def _blocks(field: Field, segment: Segment) -> list[Tensor]:
    """The pieces that move, path by path and example by example, in blocks of whole paths and, if
    they fit, whole examples.

    Examples that ask several questions of one input go path by path together.
    """
    pieces, references, batch = segment.leading
    place = segment.moving()
    if not len(place):
        return []
    _, r, b = unravelled(place, (pieces, references, batch))
    point = field.points(torch.arange(batch, device=place.device))
    paths = (point[:, None] * references + torch.arange(references, device=place.device)).reshape(
        -1
    )
    path = torch.argsort(torch.argsort(paths, stable=True))[b * references + r]
    order = torch.argsort(path, stable=True)
    elements = 32 * pieces * max(1, segment.start[0, 0, 0].numel())
    small, large = max(1, _BLOCK_ELEMENTS // elements), max(1, _EXAMPLE_ELEMENTS // elements)
    size = small if segment.start.device.type == "cpu" else large
    together = int(torch.bincount(point).amax())
    for unit in (references * together, together):
        if size >= unit:
            size -= size % unit
            break
        if large >= unit:
            size = unit
            break
    return list(
        torch.split(
            place[order],
            torch.unique_consecutive(path[order] // size, return_counts=True)[1].tolist(),
        )
    )
