"""Integrals of a kernel's derivatives along straight lines, for exact attributions of Gaussian
processes.

    A_in = D_i ∫ ∂_i k(p(t), X_n) dt                      p(t) = b + t D
    B_ij = D_i D_j ∫∫ ∂_i ∂'_j k(p(t), p(u)) dt du

Along a line every squared distance is a parabola, ρ(t) = a t² + 2βt + c, so that A is two numbers
per component and point,

    A_in = Σ_c (2 D_i / l_ci²) [(b_i − X_ni) ∫ κ_c dt + D_i ∫ t κ_c dt],

and B, which depends on t − u only, one integral over a single line, ∫ 2(1 − u) (…) du. Gaussians
have these in closed form: with error functions, scaled where both ends lie on one side of the point
(differences of erf would lose everything there); where the line is short beside a lengthscale the
closed forms cancel, and twenty-four Gauss-Legendre nodes are exact to rounding. For other kernels the
line is cut into panels that shrink by four towards the place nearest to the point, where Matérn
kernels bend sharply, with sixteen nodes in each.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from .kernels import Kernel

_SHORT = 0.5  # squared lengths in lengthscales below which closed forms cancel
_NODES = 24  # that are exact to rounding there
_PANEL_NODES = 16
_SHRINKS = (
    13  # panels to either side of a place, each a quarter of the next: down to 4⁻¹³ of the line
)
_BLOCK_ELEMENTS = 1 << 22


@cache
def _table(n: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)


def _legendre(n: int, like: Tensor) -> tuple[Tensor, Tensor]:
    nodes, weights = _table(n)
    return nodes.to(like), weights.to(like)


def squared_distances(z: Tensor, points: Tensor, scale: Tensor) -> Tensor:
    """ρ (N, M) between rows ``z`` (N, n) and ``points`` (M, n), from differences: nothing cancels."""
    root = scale.sqrt()
    scaled, others = z * root, points * root
    rows = max(1, _BLOCK_ELEMENTS // max(1, others.numel()))
    blocks = [(block[:, None] - others).square().sum(2) for block in torch.split(scaled, rows)]
    return torch.cat(blocks)


def point_moments(
    kernel: Kernel, start: Tensor, step: Tensor, points: Tensor
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Of every component 1 / l² (n,), ∫ 2 κ_c dt and ∫ 2 t κ_c dt (L, M).

    Args:
        kernel: whose derivatives are integrated.
        start: (L, n) where lines begin.
        step: (L, n) how far they go.
        points: (M, n) the other argument of k.
    """
    features = start.shape[1]
    gaussians = kernel.gaussians(features)
    if gaussians is not None:
        triples = []
        for variance, scale in gaussians:
            j0, j1 = _gaussian(scale.to(start), start, step, points)
            triples.append((scale.to(start), -variance * j0, -variance * j1))
        return triples
    scales = [scale.to(start) for scale in kernel.scales(features)]
    nodes = (2 * _SHRINKS * len(scales) + 1) * _PANEL_NODES
    lines = max(1, _BLOCK_ELEMENTS // max(1, nodes * len(points)))
    blocks = [
        _graded(kernel, scales, begin, move, points)
        for begin, move in zip(torch.split(start, lines), torch.split(step, lines), strict=True)
    ]
    joined = [
        tuple(torch.cat([block[c][k] for block in blocks]) for k in (0, 1))
        for c in range(len(scales))
    ]
    return [(scale, j0, j1) for scale, (j0, j1) in zip(scales, joined, strict=True)]


def _parabolas(
    scale: Tensor, start: Tensor, step: Tensor, points: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """a (L, 1), β (L, M) and c (L, M) of ρ(t) = a t² + 2βt + c."""
    a = (step.square() * scale).sum(1, keepdim=True)
    moved = step * scale
    beta = (start * moved).sum(1, keepdim=True) - moved @ points.T
    return a, beta, squared_distances(start, points, scale)


def _gaussian(scale: Tensor, start: Tensor, step: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """∫ e^(−ρ(t)/2) dt and ∫ t e^(−ρ(t)/2) dt (L, M), of Gaussians of variance 1."""
    centre = points.mean(0)
    start, points = start - centre, points - centre  # fewer digits are lost in products
    a, beta, c = _parabolas(scale, start, step, points)
    at_start = (-c / 2).exp()
    at_end = (-squared_distances(start + step, points, scale) / 2).exp()
    long = torch.where(a > _SHORT, a, 1)
    tau = beta / long
    root = (long / 2).sqrt()
    near, far = root * tau, root * (1 + tau)
    # The mirror image where the point lies ahead of both ends.
    ahead = far < 0
    u0, u1 = torch.where(ahead, -far, near), torch.where(ahead, -near, far)
    k0, k1 = torch.where(ahead, at_end, at_start), torch.where(ahead, at_start, at_end)
    beside = u0 >= 0
    outside = k0 * torch.special.erfcx(u0.clamp_min(0)) - k1 * torch.special.erfcx(u1.clamp_min(0))
    nearest = (c - beta * tau).clamp_min(0)
    inside = (-nearest / 2).exp() * (torch.erf(u1) - torch.erf(u0))
    j0 = (torch.pi / (2 * long)).sqrt() * torch.where(beside, outside, inside)
    j1 = (at_start - at_end) / long - tau * j0
    short = (a <= _SHORT)[:, 0]
    if bool(short.any()):
        nodes, weights = _legendre(_NODES, start)
        j0[short], j1[short] = 0, 0
        for t, w in zip(nodes, weights, strict=True):
            value = (-(a[short] * t * t + 2 * beta[short] * t + c[short]) / 2).exp()
            j0[short] += w * value
            j1[short] += w * t * value
    return j0, j1


def _graded(
    kernel: Kernel, scales: list[Tensor], start: Tensor, step: Tensor, points: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """∫ 2 κ_c dt and ∫ 2 t κ_c dt (L, M) of every component, in panels that shrink towards where
    each distance is least."""
    parabolas = [_parabolas(scale, start, step, points) for scale in scales]
    reach = 0.25 ** torch.arange(_SHRINKS).to(start)
    offsets = torch.cat([-reach, reach])
    edges = [
        torch.zeros_like(parabolas[0][2])[..., None],
        torch.ones_like(parabolas[0][2])[..., None],
    ]
    nearest = []
    for a, beta, _ in parabolas:
        place = torch.where(a > 0, -beta / torch.where(a > 0, a, 1), 0.0).clamp(0, 1)
        nearest.append(place)
        edges.append((place[..., None] + offsets).clamp(0, 1))
        edges.append(place[..., None])
    cuts = torch.cat(edges, -1).sort(-1).values
    nodes, weights = _legendre(_PANEL_NODES, start)
    width = cuts.diff(dim=-1)[..., None]
    t = cuts[..., :-1, None] + width * nodes
    distances = []
    for scale, (a, _, _), place in zip(scales, parabolas, nearest, strict=True):
        # From the nearest place of the segment on, so that small distances keep their digits.
        at = start[:, None] + place[..., None] * step[:, None] - points
        least = (at.square() * scale).sum(-1)
        slope = (at * (step * scale)[:, None]).sum(-1)
        off = t - place[..., None, None]
        rho = a[..., None, None] * off.square() + 2 * slope[..., None, None] * off
        distances.append((rho + least[..., None, None]).clamp_min(0))
    profile = kernel.profile(distances)
    measure = 2 * width * weights
    return [
        ((measure * first).sum((-1, -2)), (measure * t * first).sum((-1, -2)))
        for first in profile.first
    ]


def point_attributions(kernel: Kernel, start: Tensor, step: Tensor, points: Tensor) -> Tensor:
    """A (L, n, M) of lines ``start`` + t ``step`` (L, n) and ``points`` (M, n)."""
    total = start.new_zeros(*start.shape, len(points))
    apart = start[:, :, None] - points.T
    for scale, j0, j1 in point_moments(kernel, start, step, points):
        inner = apart * j0[:, None] + step[:, :, None] * j1[:, None]
        total += (step * scale)[:, :, None] * inner
    return total


def prior_covariance(kernel: Kernel, step: Tensor) -> Tensor:
    """B (L, n, n), the covariance before any data, of lines that go so far (L, n)."""
    features = step.shape[1]
    gaussians = kernel.gaussians(features)
    total = step.new_zeros(*step.shape, features)
    if gaussians is not None:
        for variance, scale in gaussians:
            scaled = step * scale.to(step)
            i0, i2 = gaussian_moments((step * scaled).sum(1))
            moved = step * scaled
            total += variance * (
                torch.diag_embed(moved * i0[:, None])
                - moved[:, :, None] * moved[:, None] * i2[:, None, None]
            )
        return total
    scales = [scale.to(step) for scale in kernel.scales(features)]
    edges = torch.cat([step.new_zeros(1), 0.25 ** torch.arange(_SHRINKS - 1, -1, -1).to(step)])
    nodes, weights = _legendre(_PANEL_NODES, step)
    width = edges.diff()[:, None]
    u = (edges[:-1, None] + width * nodes).reshape(-1)
    measure = 2 * (1 - u) * (width * weights).reshape(-1)
    squares = [step.square() * scale for scale in scales]
    profile = kernel.profile([m.sum(1)[:, None] * u.square() for m in squares])
    for c, square in enumerate(squares):
        total -= torch.diag_embed(2 * square * (measure * profile.first[c]).sum(1)[:, None])
        for d, other in enumerate(squares):
            curved = (measure * u.square() * profile.second[c][d]).sum(1)
            total -= 4 * curved[:, None, None] * square[:, :, None] * other[:, None]
    return total


def gaussian_moments(a: Tensor) -> tuple[Tensor, Tensor]:
    """I0 = ∫ 2(1 − u) e^(−a u²/2) du and I2 = ∫ 2(1 − u) u² e^(−a u²/2) du, for squared lengths a
    (L,)."""
    long = torch.where(a > _SHORT, a, 1)
    tail = torch.expm1(-long / 2)
    j = (torch.pi / (2 * long)).sqrt() * torch.erf((long / 2).sqrt())
    i0, i2 = 2 * j + 2 * tail / long, 2 * j / long + 4 * tail / long.square()
    u, weights = _legendre(_NODES, a)
    measure = 2 * (1 - u) * weights * (-a.clamp_max(_SHORT)[:, None] * u.square() / 2).exp()
    short = a <= _SHORT
    return (
        torch.where(short, measure.sum(1), i0),
        torch.where(short, (measure * u.square()).sum(1), i2),
    )


def cross_covariance(kernel: Kernel, step: Tensor, other: Tensor) -> Tensor | None:
    """∫∫ D_i D'_j ∂_i ∂'_j k dt du (L, n, n) of two lines each that end in one point, for sums of
    Gaussians; None elsewhere.

    With s and s' counted back from the common end the lines are s D − s' D' apart.
    """
    gaussians = kernel.gaussians(step.shape[1])
    if gaussians is None:
        return None
    total = step.new_zeros(*step.shape, step.shape[1])
    for variance, scale_ in gaussians:
        scale = scale_.to(step)
        lengths = torch.stack([(line.square() * scale).sum(1) for line in (step, other)])
        panels = int(lengths.max().sqrt() / 2) + 1 if len(step) else 1
        s, w = _composite(panels, step)
        m0, mss, mst, mtt = _pair_moments(
            lengths[0], (step * other * scale).sum(1), lengths[1], s, w
        )
        d, e = step * scale, other * scale
        mixed = (
            mss[:, None, None] * _outer(d, d)
            - mst[:, None, None] * (_outer(d, e) + _outer(e, d))
            + mtt[:, None, None] * _outer(e, e)
        )
        alone = torch.diag(scale) * m0[:, None, None]
        total += variance * _outer(step, other) * (alone - mixed)
    return total


def _outer(x: Tensor, y: Tensor) -> Tensor:
    return x[:, :, None] * y[:, None]


def _composite(panels: int, like: Tensor) -> tuple[Tensor, Tensor]:
    nodes, weights = _legendre(_PANEL_NODES, like)
    begins = torch.arange(panels).to(like)[:, None]
    return ((begins + nodes) / panels).reshape(-1), (weights / panels).repeat(panels)


def _pair_moments(
    a: Tensor, b: Tensor, c: Tensor, s: Tensor, w: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """∫∫ (1, s², ss', s'²) e^(−(a s² − 2b ss' + c s'²)/2) ds ds' (L,), a few nodes s at a time."""
    sums = [torch.zeros_like(a) for _ in range(4)]
    rows = max(1, _BLOCK_ELEMENTS // max(1, len(a) * len(s)))
    a, b, c = (numbers[:, None, None] for numbers in (a, b, c))
    for part, weight in zip(torch.split(s, rows), torch.split(w, rows), strict=True):
        t = part[:, None]
        value = (-(a * t * t - 2 * b * t * s + c * s * s) / 2).exp() * weight[:, None] * w
        sums[0] += value.sum((1, 2))
        for place, factor in enumerate((t * t, t * s, s * s)):
            sums[1 + place] += (value * factor).sum((1, 2))
    return sums[0], sums[1], sums[2], sums[3]
