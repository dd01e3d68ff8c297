"""Error bounds for means of random maps, from their spread.

Of n independent maps with covariance Σ the mean misses the truth by e, E‖e‖² = tr Σ / n. How far
‖e‖ may go beyond that depends on how many directions the maps differ in: along one, its 95 %
quantile is 1.96 times the root of the mean, along very many it is hardly more than the root itself.
With the effective rank ν = (tr Σ)² / tr Σ²,

    ‖e‖²  ≲  q(ν, m) · tr Σ / n            q: the 95 % quantile of F with ν and m degrees of freedom (m = n − 1)

(Satterthwaite's approximation; m because tr Σ is itself known from n maps only).
docs/design/0008-chance.md has how often that is so.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.random import generator
from ..core.shapes import norm, over, total
from .loop import PathIntegrals

_SKETCH = 32  # numbers that stand for a map where only its products with other maps count
_NORMAL = 1.675  # the normal 95 % quantile, 1.645, raised until the approximation below is nowhere under the exact quantile
_BLOCK_ELEMENTS = 1 << 19  # maps are looked at about this many numbers at a time


@dataclass(frozen=True, eq=False)
class Doubt:
    """What is known of the error of B maps that chance made.

    Attributes:
        error: (B,) relative L2 error that the map stays under in 95 of 100 cases; infinite where
            too few draws tell nothing.
        residual: (B,) the standard error of the residual, in units of F.
        draws: (B,) random positions taken of each.
    """

    error: Tensor
    residual: Tensor
    draws: Tensor


def _square_dtype(device: torch.device) -> torch.dtype:
    """The type sums of squares are kept in: float64, in which squares of float32 numbers neither
    vanish nor overflow, where there is one."""
    return torch.float32 if device.type == "mps" else torch.float64


class Spread:
    """A running mean of independent random maps per example, and how far from the truth it may be.

    count (B,);  value (B, \\*s) the mean;  squares (B,) the sum of squared distances from it
    moments (B, m, m) sums of products of differences, of maps made m numbers: enough to tell their
    effective rank missed (B,) the mean of what each map misses of its change, and missed_squares
    (B,) the sum of squared differences from that
    """

    def __init__(self, like: Tensor) -> None:
        self.sketch = _Sketch(like)
        wide = _square_dtype(like.device)
        self.count, self.squares = like.new_zeros(len(like)), like.new_zeros(len(like), dtype=wide)
        self.value = torch.zeros_like(like)
        self.moments = like.new_zeros(len(like), self.sketch.size, self.sketch.size, dtype=wide)
        self.missed, self.missed_squares = (
            torch.zeros_like(self.count),
            torch.zeros_like(self.squares),
        )

    def add(
        self, maps: Tensor, missed: Tensor | None = None, examples: Tensor | slice = slice(None)
    ) -> None:
        """More maps (n, M, \\*s) of the ``examples`` (M,), all unless given, and what each
        ``missed`` (n, M) of its change."""
        n, before = len(maps), self.count[examples]
        # What is added to a mean of n, and what the square of a step to the mean of other maps
        # counts for.
        pace, counts = n / (before + n), before * n / (before + n)
        mean = maps.mean(0)
        differences, step = maps - mean, mean - self.value[examples]
        self.count[examples] += n
        self.value[examples] += step * over(pace, step)
        wide = self.squares.dtype
        self.squares[examples] += (
            norm(differences, 2).to(wide).square().sum(0) + norm(step).to(wide).square() * counts
        )
        drawn, moved = (
            self.sketch(differences).to(wide),
            self.sketch(step[None])[0].to(wide) * counts.sqrt()[:, None],
        )
        self.moments[examples] += (
            torch.einsum("nbi,nbj->bij", drawn, drawn) + moved[:, :, None] * moved[:, None]
        )
        if missed is not None:
            off = missed.mean(0) - self.missed[examples]
            self.missed[examples] += off * pace
            from_mean = (missed - missed.mean(0)).to(wide)
            self.missed_squares[examples] += (
                from_mean.square().sum(0) + off.to(wide).square() * counts
            )

    def error(self) -> Tensor:
        """The standard error of the mean (B,): √(tr Σ / n); infinite for fewer than two maps."""
        return self._error_of_mean(self.squares)

    def rank(self) -> Tensor:
        """In how many directions the maps differ (B,): (tr Σ)² / tr Σ², at least 1."""
        return _rank(self.moments).to(self.count.dtype)

    def doubt(self, draws: float = 1) -> Doubt:
        """What is known, of maps that took so many ``draws`` each."""
        distance = bound(self.error(), self.rank(), self.count - 1)
        return Doubt(
            _relative(distance, self.missed, self.value),
            self._error_of_mean(self.missed_squares),
            self.count * draws,
        )

    def _error_of_mean(self, squares: Tensor) -> Tensor:
        error = (squares / (self.count - 1).clamp_min(1) / self.count).sqrt().to(self.count.dtype)
        return torch.where(self.count > 1, error, torch.inf)


class Noise:
    """The error of a weighted sum of shares whose own errors are known from random nodes
    (``PathIntegrals.noise``).

    Attributes:
        squares: (B,) tr Cov of the sum.
        moments: (B, m, m) of the noise made m numbers.
        residual: (B,) variance of what the sum misses.
    """

    def __init__(self, like: Tensor) -> None:
        self.sketch = _Sketch(like)
        wide = _square_dtype(like.device)
        self.squares, self.residual = (like.new_zeros(len(like), dtype=wide) for _ in range(2))
        self.moments = like.new_zeros(len(like), self.sketch.size, self.sketch.size, dtype=wide)
        self.counted, self.evenness = like.new_zeros(len(like)), like.new_zeros(len(like))
        self.groups = 0

    def add(self, noise: Tensor, weights: Tensor) -> None:
        """The noise (G, R, B, \\*s) of more references, weighed in the end by ``weights`` (R,
        B)."""
        self.groups = len(noise)
        size = max(1, _BLOCK_ELEMENTS // max(1, noise[:, :1].numel()))
        for first in range(0, len(weights), size):
            chunk, weight = noise[:, first : first + size], weights[first : first + size]
            weighed = (chunk * over(weight, chunk[0])).flatten(0, 1)
            wide = self.squares.dtype
            drawn = self.sketch(weighed).to(wide)
            self.squares += norm(weighed, 2).to(wide).square().sum(0)
            self.moments += torch.einsum("nbi,nbj->bij", drawn, drawn)
            self.residual += total(weighed, 2).to(wide).square().sum(0)
        self.counted += weights.square().sum(0)
        self.evenness += weights.square().square().sum(0)

    def doubt(self, values: Tensor, residual: Tensor, draws: float) -> Doubt:
        """What is known of the sum ``values`` (B, \\*s), that misses ``residual`` (B,) of the
        change and took so many ``draws``."""
        # Satterthwaite: as many degrees of freedom as references that count, times those of each.
        tiny = torch.finfo(self.evenness.dtype).tiny
        freedom = (self.groups - 1) * self.counted.square() / self.evenness.clamp_min(tiny)
        distance = bound(
            self.squares.sqrt().to(values.dtype), _rank(self.moments).to(values.dtype), freedom
        )
        error = _relative(distance, residual, values)
        return Doubt(error, self.residual.sqrt().to(values.dtype), torch.full_like(error, draws))


class Chance:
    """What is known of the error of a weighted sum of random shares, gathered as blocks of them
    come.

    Where the references are those that are meant, and each has several random nodes, from how these
    differ: that leaves out how much references differ, which is no error. Where the references are
    drawn themselves, or have one node each, from how their shares differ.
    """

    def __init__(self, like: Tensor, references: int, nodes: int, *, sampled: bool) -> None:
        self.references, self.draws, self.sampled = references, references * nodes, sampled
        self.nodes = nodes
        self.spread: Spread | None = None
        self.noise: Noise | None = None
        self.like = like

    def add(self, walked: PathIntegrals, weights: Tensor) -> None:
        """A block of references with their shares, and their weights (R, B)."""
        if walked.noise is not None and not self.sampled:
            self.noise = self.noise or Noise(self.like)
            self.noise.add(walked.noise, weights)
            return
        self.spread = self.spread or Spread(self.like)
        size = max(1, _BLOCK_ELEMENTS // max(1, walked.shares[0].numel()))
        missed = walked.change - total(walked.shares, 2)
        for first in range(0, len(weights), size):
            part = slice(first, first + size)
            shares, times = walked.shares[part], weights[part] * self.references
            if not bool(
                (times == 1).all()
            ):  # as the plain mean of maps that are as much larger as they count for more
                shares = shares * over(times, shares)
            self.spread.add(shares, missed[part] * times)

    def doubt(self, values: Tensor, residual: Tensor) -> Doubt:
        """What is known of the sum ``values`` (B, \\*s), that misses ``residual`` (B,) of the
        change."""
        if self.noise is not None:
            return self.noise.doubt(values, residual, self.draws)
        assert self.spread is not None
        return self.spread.doubt(self.nodes)


class _Sketch:
    """Maps (n, B, \\*s) as few numbers (n, B, m), whose products are on average those of the maps:
    features with random signs, added up.

    Sums of features can only make maps look more alike than they are, on average: ranks come out
    low, and bounds high.
    """

    def __init__(self, like: Tensor) -> None:
        features = like.shape[1:].numel()
        self.size = min(features, _SKETCH)
        self.signs: Tensor | None = None
        if features > _SKETCH:
            signs = torch.randint(
                0, 2, (features,), generator=generator(features), dtype=torch.int8
            )
            self.signs = (2 * signs - 1).to(like)
            self.short = -features % _SKETCH

    def __call__(self, maps: Tensor) -> Tensor:
        flat = maps.flatten(2) if maps.ndim > 2 else maps[..., None]
        if self.signs is None:
            return flat
        signed = torch.nn.functional.pad(flat * self.signs, (0, self.short))
        return signed.reshape(*signed.shape[:2], -1, self.size).sum(2)


def bound(error: Tensor, rank: Tensor, freedom: Tensor) -> Tensor:
    """What a random vector stays under in 95 of 100 cases, from its standard error, effective rank,
    and what these are known from."""
    return torch.where(error == 0, 0, error * quantile(rank, freedom).sqrt())


def quantile(rank: Tensor, freedom: Tensor) -> Tensor:
    """The 95 % quantile of F with ``rank`` and ``freedom`` degrees of freedom, or a little more;
    infinite for fewer than two.

    References:
        Paulson, "An approximate normalization of the analysis of variance distribution", Annals of
        Mathematical Statistics 13, 1942: the cube root of F is nearly a ratio of normal numbers.
    """
    upper, lower = 2 / (9 * rank), 2 / (9 * freedom.clamp_min(1))
    b, a = 1 - upper, 1 - lower
    square = a.square() - _NORMAL**2 * lower
    rest = b.square() - _NORMAL**2 * upper
    root = (a * b + ((a * b).square() - square * rest).clamp_min(0).sqrt()) / square
    return torch.where(freedom > 1.5, root**3, torch.inf)


def _rank(moments: Tensor) -> Tensor:
    trace = moments.diagonal(dim1=1, dim2=2).sum(1)
    # In units of the trace, whose square may over- or underflow.
    concentration = (
        (moments / trace.clamp_min(torch.finfo(trace.dtype).tiny)[:, None, None])
        .square()
        .sum((1, 2))
    )
    return torch.where(concentration > 0, 1 / concentration, 1.0).clamp_min(1)


def _relative(distance: Tensor, missed: Tensor, values: Tensor) -> Tensor:
    """A ``distance`` (B,) of ``values`` (B, \\*s) from the truth, relative to the truth: d /
    √(‖values‖² − d²); 0 of 0 is 0.

    The error of a mean of random maps is about at a right angle to the truth and makes the mean
    longer. A map that ``missed`` (B,) of the change is at least that over √features away, whatever
    the draws say.
    """
    size = norm(values)
    distance = torch.maximum(distance, missed.abs() / max(1, values.shape[1:].numel()) ** 0.5)
    unit = torch.maximum(size, distance)
    unit = torch.where(unit > 0, unit, 1)
    left = ((size / unit).square() - (distance / unit).square()).clamp_min(0).sqrt()
    relative = torch.where(distance > 0, distance / unit / left, 0)
    return torch.where(distance.isfinite(), relative, torch.inf)
