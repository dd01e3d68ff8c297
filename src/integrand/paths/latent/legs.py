"""Segments of decoded paths, and the legs that join them to the baseline and the input.

A codec never gives back quite what it was given, so a decoded path begins and ends beside the
baseline and the input. The legs b → D(z_0) and D(z_n) → x close it. They are as long as the
reconstruction error and may be far longer than the steps between them, so they are cut into pieces
of their own: one piece each, as published, leaves a first-order error the size of the
reconstruction error in the map.

On the clock a leg counts as one step, however many pieces it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import torch
from torch import Tensor

from ...core.segment import Evaluation, Segment, polyline
from ...errors import InputError
from ...fields import Field
from .autoencoder import Borrowed

_STACK_ELEMENTS = 1 << 23  # corners are stacked up to about this many numbers at a time

Evaluate = Callable[[Tensor], Evaluation]


def pieces(ends: int) -> int:
    """The number of pieces of a leg, if it is one."""
    if ends < 1:
        raise InputError(
            f"A leg between an end and what is decoded has at least one piece, not {ends}."
        )
    return ends


def evaluator(field: Field, references: int, batch: int, device: torch.device) -> Evaluate:
    """Evaluations of points (K, R, B, \\*s)."""
    example = torch.arange(batch, device=device).repeat(references)

    def evaluate(points: Tensor) -> Evaluation:
        return field.rows(points.flatten(0, 2), example.repeat(len(points))).reshape(
            *points.shape[:3]
        )

    return evaluate


def leg(
    start: Tensor,
    end: Tensor,
    ends: int,
    clock: tuple[int, int],
    paid: tuple[Evaluation, Evaluation] | None = None,
    evaluate: Evaluate | None = None,
) -> Iterator[Segment]:
    """``ends`` even pieces from start to end (R, B, \\*s), step ``clock[0]`` of ``clock[1]``.

    ``paid`` are evaluations (1, R, B) at both ends; then ``evaluate`` evaluates the corners between
    them, and pieces hand on theirs.
    """
    most = max(1, _STACK_ELEMENTS // start.numel())
    previous, before = start, paid[0] if paid else None
    for first in range(0, ends, most):
        last = min(first + most, ends)
        fractions = torch.arange(first, last + 1, dtype=torch.float64) / ends
        after = _lerp_exact_end(start, end, fractions[1:])
        times = ((clock[0] + fractions) / clock[1]).to(start)
        corners = torch.cat([previous[None], after])
        at_starts = at_ends = None
        if paid and before and evaluate:
            inner = after[:-1] if last == ends else after
            evaluations = [
                before,
                *([evaluate(inner)] if len(inner) else []),
                *([paid[1]] if last == ends else []),
            ]
            joined = Evaluation(
                torch.cat([e.value for e in evaluations]),
                torch.cat([e.gradient for e in evaluations]),
            )
            at_starts, at_ends = (
                Evaluation(joined.value[selection], joined.gradient[selection])
                for selection in (slice(-1), slice(1, None))
            )
            before = Evaluation(joined.value[-1:], joined.gradient[-1:])
        yield Segment(corners[:-1], corners[1:], (times[:-1], times[1:]), at_starts, at_ends)
        previous = after[-1].clone()  # a view would keep the whole block
        del after, corners


def through(
    codec: Borrowed,
    codes: Callable[[int, int], Tensor],
    count: int,
    start: Tensor,
    end: Tensor,
    ends: int,
) -> Iterator[Segment]:
    """From start (R, B, \\*s) through ``count`` ≥ 2 decoded points to end; ``codes(first, last)``
    are those of the points (K, R·B, L).

    Legs and steps are stacked together: a rule with a tolerance then judges the path, not its
    parts, which may cancel.
    """
    end = end.expand_as(start)
    first_leg = torch.arange(ends + 1, dtype=torch.float64) / ends
    middle = torch.arange(2, count, dtype=torch.float64)
    clock = (torch.cat([first_leg, middle, count + first_leg]) / (count + 1)).to(start)

    def decoded(first: int, last: int) -> Tensor:
        return codec.rows(codes(first, last).flatten(0, 1)).reshape(-1, *start.shape)

    @lru_cache(maxsize=2)
    def joint(number: int) -> Tensor:
        return decoded(number, number + 1)[0]

    def corners(first: int, last: int) -> Tensor:
        """Those numbered first … last − 1: ends + 1 of a leg, count − 2 between, ends + 1 of the
        other leg."""
        parts = [start.new_empty(0, *start.shape)]
        if first <= ends:
            parts.append(_lerp_exact_end(start, joint(0), first_leg[first:last]))
        inner = [min(max(n - ends, 1), count - 1) for n in (first, last)]
        if inner[0] < inner[1]:
            parts.append(decoded(*inner))
        begun = ends + count - 1
        if last > begun:
            parts.append(
                _lerp_exact_end(
                    joint(count - 1), end, first_leg[max(first - begun, 0) : last - begun]
                )
            )
        return torch.cat(parts)

    most = max(1, _STACK_ELEMENTS // start.numel())
    previous = start[None]
    for first in range(1, len(clock), most):
        last = min(first + most, len(clock))
        points = torch.cat([previous, corners(first, last)])
        yield polyline(points, clock[first - 1 : last])
        previous = points[-1:].clone()  # a view would keep the whole block
        del points


def _lerp_exact_end(start: Tensor, end: Tensor, at: Tensor) -> Tensor:
    """Points at parts ``at`` (K,) of the way, the end itself at 1."""
    t = at.to(start).reshape(-1, *(1,) * start.ndim)
    return torch.where(t == 1, end, torch.lerp(start, end, t))
