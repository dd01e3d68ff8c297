"""A chord for an operation that has none: u · log v (torch.xlogy), in one line and by hand."""

from typing import Any

import torch
from torch import Tensor

import integrand as ig
from integrand.backprop.chords import ChordMode
from integrand.backprop.chords.rows import Chord, Rows
from integrand.backprop.chords.table import TABLE, chord, composite, spelled


class XLogY(Chord):
    """Δ(u log v) = mean(log v) Δu + ū Δ(log v),   Δ(log v) = Δv / L(v_a, v_b)."""

    @staticmethod
    def forward(ctx: Any, rows: Rows, u: Tensor, v: Tensor) -> Tensor:
        log_before, log_after = rows.previous(v).log(), v.log()
        near = (log_after - log_before).abs() < 1e-6  # no quotient there: the derivative halfway
        logarithmic_mean = torch.where(
            near, rows.mean(v), (v - rows.previous(v)) / (log_after - log_before)
        )
        ctx.save_for_backward((log_before + log_after) / 2, rows.mean(u) / logarithmic_mean)
        return u * log_after

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor]:
        to_u, to_v = ctx.saved_tensors
        return None, gradient * to_u, gradient * to_v


def missed(model: Any, start: Tensor, end: Tensor) -> float:
    """How much of F(end) − F(start) one chord c misses: |c · (end − start) − ΔF|, largest row."""
    z = torch.stack([start, end], 1).flatten(0, 1).requires_grad_()  # rows a_0, b_0, a_1, b_1, …
    index = torch.arange(len(z))
    with ChordMode(index - index % 2):  # b_n follows a_n; a_n follows itself
        value = model(z.clone())
    (slopes,) = torch.autograd.grad(value.sum(), z)  # the chords are in the graph
    change = (value[1::2] - value[::2]).detach()
    return float(((slopes[1::2] * (end - start)).sum(1) - change).abs().max())


def cross_entropy_of_parts(z: Tensor) -> Tensor:
    return -torch.xlogy(z[:, :3].sigmoid(), z[:, 3:].exp() + 0.1).sum(1)


torch.manual_seed(0)
start, end = torch.randn(2, 5, 6, dtype=torch.float64)
functions = spelled("xlogy")
before = dict(TABLE)
try:
    print(f"none registered   {missed(cross_entropy_of_parts, start, end):.0e}")

    # The one-line way: the same in operations that have chords already.
    composite(*functions)(lambda u, v: u * torch.log(v))
    print(f"composite         {missed(cross_entropy_of_parts, start, end):.0e}")
    assert missed(cross_entropy_of_parts, start, end) < 1e-14

    # By hand, for operations that cannot be written so.
    chord(*functions)(lambda rows, u, v: rows.apply(XLogY, u, v))
    print(f"by hand           {missed(cross_entropy_of_parts, start, end):.0e}")
    assert missed(cross_entropy_of_parts, start, end) < 1e-14

    result = ig.explain(
        cross_entropy_of_parts, end, target=ig.targets.Output(), baseline=start, tol=1e-3
    )
    print(f"gap of a map      {float(result.gap.max()):.0e}, {result.cost.gradients} gradients")
finally:
    TABLE.clear()
    TABLE.update(before)
