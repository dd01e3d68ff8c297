"""Paths in the latent space of an autoencoder, decoded to the space of the inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...core.segment import Evaluation, Segment
from ...core.values import part
from ...errors import InputError
from ...fields import Field
from ..base import Path
from .autoencoder import Borrowed, halves
from .geodesic import Relaxation
from .greedy_step import guided, mixed
from .legs import evaluator, leg, pieces, through


@part
class LatentGuided(Path):
    """Guided IG in latent space (MA-GIG): the code coordinates with the smallest gradient move
    first.

    The path is what the codes decode to.

        z_0 = E(b),   z_k: ‖z_k − E(x)‖₁ = (1 − k/K) ‖E(b) − E(x)‖₁,   k = 1 … K − 2,   K = steps
        from z_{k−1} to z_k move the coordinates with the smallest |J_Dᵀ ∇F(D(z_{k−1}))|
        path:  b → D(z_1) → … → D(z_{K−2}) → x

    The first and last points are the baseline and the input themselves, so completeness is that of
    the rule. The published code integrates both legs in one piece with the gradient at its start
    (``ends=1`` with ``Left()``), which leaves an error of first order in the reconstruction error:
    half the change of F on a small autoencoder.

    Args:
        codec: an encoder and a decoder in the units of the inputs: a pair, or an object with
            ``encode`` and ``decode``, such as a diffusers VAE. Its decoded rows must have the shape
            of the inputs.
        steps: K: the path has K points, both ends included, before its legs are cut.
        fraction: of all coordinates, which go together at a time.
        slerp: move the chosen coordinates along the arc to their goal rather than straight to it.
            An arc does not keep to the L1 budget, so a step may have to go back a little. Arcs
            between nearly opposite codes lead far out, like 1 / sin of their angle: where few
            coordinates go at a time (small codes), take ``slerp=False``.
        ends: pieces of each of the legs b → D(z_1) and D(z_{K−2}) → x, which are as long as the
            codec's reconstruction error.

    Raises:
        ShapeError: where decoded rows have another shape.
        DetachedModel: where the decoder has no derivative.

    Cost:
        steps + 2·ends − 1 gradients per reference and example, which are handed on: one at every
        corner, and one at D(E(b)), where the walk begins but the path does not. Rows decoded: steps
        − 1, all but the last with a backward pass. Memory does not grow with steps.

    References:
        Kim, Lim, Lee, Choi, "Manifold-Aligned Guided Integrated Gradients for Reliable Feature
        Attribution", 2026 (arXiv 2605.02167).
    """

    codec: Any
    steps: int = 200
    fraction: float = 0.05
    slerp: bool = True
    ends: int = 20

    resolution: ClassVar[str] = "steps"
    coarsest: ClassVar[int] = 2

    def __post_init__(self) -> None:
        halves(self.codec)
        pieces(self.ends)
        if self.steps < 3:
            raise InputError(
                f"A guided latent path has at least 3 points, both ends included, not {self.steps}."
            )
        if not 0 < self.fraction <= 1:
            raise InputError(
                f"fraction is a fraction of the coordinates above 0 and up to 1, not {self.fraction}."
            )

    @property
    def segments(self) -> int:
        """Steps between decoded points, and the pieces of both legs."""
        return self.steps - 3 + 2 * self.ends

    @property
    def gradients(self) -> int:
        """One at every corner, and one where the walk begins."""
        return self.segments + 2

    def __call__(self, field: Field, start: Tensor, end: Tensor) -> Iterator[Segment]:
        references, batch = start.shape[:2]
        codec = Borrowed(self.codec, end)
        end = end.expand_as(start)
        evaluate = evaluator(field, references, batch, end.device)
        example = torch.arange(batch, device=end.device).repeat(references)

        def pulled(z: Tensor) -> tuple[Tensor, Evaluation, Tensor]:
            rows, evaluation, slope = codec.pulled(
                z, lambda chunk, rows: field.rows(rows, example[chunk])
            )
            return rows.reshape(start.shape), evaluation.reshape(1, references, batch), slope

        z, goal = codec.ends(start, end[0])
        total = (z - goal).abs().sum(1)
        last = self.steps - 1
        point, paid = start, evaluate(start[None])
        slope = pulled(z)[2]
        for k in range(1, last):
            z = guided(
                z, goal, slope, total * (1 - k / self.steps), total, self.fraction, slerp=self.slerp
            )
            if k < last - 1:
                following, evaluation, slope = pulled(z)
            else:  # nobody goes on from here
                following = codec.rows(z).reshape(start.shape)
                evaluation = evaluate(following[None])
            yield from leg(
                point,
                following,
                self.ends if k == 1 else 1,
                (k - 1, last),
                (paid, evaluation),
                evaluate,
            )
            point, paid = following, evaluation
        yield from leg(
            point, end, self.ends, (last - 1, last), (paid, evaluate(end[None])), evaluate
        )


@part
class Latent(Path):
    """The straight line between the codes of baseline and input, decoded.

        path:  b → D(z(0)) → D(z(1/n)) → … → D(z(1)) → x,   z(t) = E(b) + t (E(x) − E(b)),   n = steps

    Known beforehand: F is not looked at.

    Args:
        codec: an encoder and a decoder in the units of the inputs, as for ``LatentGuided``.
        steps: pieces between D(E(b)) and D(E(x)).
        ends: pieces of each of the legs that join these to b and x.
        slerp: go along the arc between the two codes rather than straight: codes of the usual
            autoencoders lie near a sphere.

    Raises:
        ShapeError: where decoded rows have another shape than inputs.

    Cost:
        steps + 1 rows decoded per reference and example. Memory does not grow with steps.

    References:
        Jha, Aicher, Gazzara, Singh, Barash, "Enhanced Integrated Gradients", Genome Biology 2020,
        their path in the latent space of an autoencoder; the legs are ours, without them the map
        explains the reconstructions of b and x.
    """

    codec: Any
    steps: int = 50
    ends: int = 10
    slerp: bool = False

    resolution: ClassVar[str] = "steps"
    coarsest: ClassVar[int] = 2

    def __post_init__(self) -> None:
        halves(self.codec)
        pieces(self.ends)
        if self.steps < 1:
            raise InputError(f"A latent path takes at least one step, not {self.steps}.")

    @property
    def segments(self) -> int:
        """Steps, and the pieces of both legs."""
        return self.steps + 2 * self.ends

    def __call__(self, field: Field, start: Tensor, end: Tensor) -> Iterator[Segment]:
        codec = Borrowed(self.codec, end)
        line = _CodeLine(*codec.ends(start, end), self.steps, slerp=self.slerp)
        return through(codec, line.codes, self.steps + 1, start, end, self.ends)


@part
class LatentGeodesic(Path):
    """The shortest decoded path between the codes of baseline and input.

        z minimises  E = T/2 Σ_i ‖D(z_{i+1}) − D(z_i)‖²,   z_1 = E(b),  z_T = E(x),   T = points
        by  z_i ← z_i − rate · η_i,   η_i = −T · J_Dᵀ(D(z_{i+1}) − 2 D(z_i) + D(z_{i−1})),   from the straight line of codes
        path:  b → D(z_1) → … → D(z_T) → x

    F is not looked at. The published code takes the mean gradient along the path times x − b, which
    is not a line integral and not complete; here the path is integrated like any other.

    Args:
        codec: an encoder and a decoder in the units of the inputs, as for ``LatentGuided``.
        points: T, both ends included.
        rate: a number: the published step, 5e-5 in their units of images and codes. None: the same
            descent in the norm of the path's differences, which takes a few steps where the other
            takes of the order of T², each path's at its own rate. Either way a step that would
            raise E is taken back and shortened.
        iterations: at most, per path.
        tolerance: a path is done when its next step could lower E by less than this fraction of it,
            to first order.
        energy: … or when E is below this (1000 in the published code, for their images); None: no
            such limit.
        ends: pieces of each of the legs b → D(z_1) and D(z_T) → x.

    Raises:
        ShapeError: where decoded rows have another shape.
        DetachedModel: where the decoder has no derivative.

    Cost:
        Up to iterations × points decoder calls with a backward pass, per reference and example.
        What is held for every point is its code, not what it decodes to.

    References:
        Zaher, Trzaskowski, Nguyen, Roosta, "Manifold Integrated Gradients: Riemannian Geometry for
        Feature Attribution", ICML 2024 (arXiv 2405.09800).
    """

    codec: Any
    points: int = 20
    rate: float | None = None
    iterations: int = 300
    tolerance: float = 1e-4
    energy: float | None = None
    ends: int = 10

    effort: ClassVar[str] = "iterations"

    def __post_init__(self) -> None:
        halves(self.codec)
        pieces(self.ends)
        if self.points < 2:
            raise InputError(
                f"A geodesic has at least 2 points, both ends included, not {self.points}."
            )
        if self.rate is not None and not self.rate > 0:
            raise InputError(f"rate is the length of a step, above 0, or None, not {self.rate}.")
        if self.iterations < 0 or self.tolerance < 0:
            raise InputError(
                f"iterations and tolerance are not negative, but they are {self.iterations} and {self.tolerance}."
            )

    @property
    def segments(self) -> int:
        """Pieces between decoded points, and those of both legs."""
        return self.points - 1 + 2 * self.ends

    def __call__(self, field: Field, start: Tensor, end: Tensor) -> Iterator[Segment]:
        codec = Borrowed(self.codec, end)
        line = _CodeLine(*codec.ends(start, end), self.points - 1)
        relaxation = Relaxation(codec, self.rate, self.iterations, self.tolerance, self.energy)
        codes = relaxation(line.codes(0, self.points).transpose(0, 1)).transpose(0, 1)
        return through(
            codec, lambda first, last: codes[first:last], self.points, start, end, self.ends
        )


class _CodeLine:
    """Codes at even places between two (N, L), both included."""

    def __init__(self, begin: Tensor, goal: Tensor, steps: int, *, slerp: bool = False) -> None:
        self.begin, self.goal, self.steps, self.slerp = begin, goal, steps, slerp

    def codes(self, first: int, last: int) -> Tensor:
        """Those numbered first … last − 1, (last − first, N, L)."""
        t = (torch.arange(first, last, dtype=torch.float64) / self.steps).to(self.begin)
        place = t[:, None].expand(-1, len(self.begin))
        shape = (len(t), *self.begin.shape)
        return mixed(self.begin.expand(shape), self.goal.expand(shape), place, slerp=self.slerp)
