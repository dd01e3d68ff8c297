"""Guided IG on EfficientNet-Lite0, 50 steps, 8 photographs at once: against its bare gradients, and against PAIR's ``saliency``.

    python -m benchmarks.guided [--threads 1] [--repeats 5] [--steps 50]

The path is a closed loop, so steps follow one another and only photographs can share a call. Bare gradients are as many calls of the model as
the walk makes, by hand, at fixed points, in the best of several call sizes. ``saliency`` (``pip install --no-deps saliency``) walks one
photograph at a time, in NumPy and float64 around the same model; its time is per photograph, so it is run on one of them and counted
eight times. Both find the same map to rounding, which they only do because both keep the path in float64: it is chaotic.
"""

from __future__ import annotations

import argparse
import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.images import load_model, samples

from .side_by_side import Row, begin, interleaved, ratio, seconds, tell

PHOTOGRAPHS = 8
CHUNKS = (1, 2, 4, 8)  # rows per call of the bare gradients; the best is taken
ALIKE = 8  # steps that are compared in float64


def gradients(net: nn.Module, z: Tensor, target: Tensor, rows: int) -> Tensor:
    """∇ of each row's class score, by torch alone, ``rows`` to a call."""
    found = torch.empty_like(z)
    for first in range(0, len(z), rows):
        part = slice(first, first + rows)
        leaf = z[part].detach().clone().requires_grad_()
        score = net(leaf).gather(1, target[part, None]).sum()
        (found[part],) = torch.autograd.grad(score, leaf)
    return found


class _Numpy:
    """NumPy as ``saliency`` 0.2.1 knows it: ``quantile(interpolation=)`` is called ``method=`` since 1.22 and is gone from 2.4."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def quantile(a: Any, q: Any, *, interpolation: str) -> Any:
        return np.quantile(a, q, method=interpolation)


def peer(net: nn.Module, x: Tensor, target: int, steps: int) -> np.ndarray[Any, Any]:
    """The map of one photograph (C, H, W) by PAIR's code, with its defaults."""
    from saliency.core import guided_ig
    from saliency.core.base import INPUT_OUTPUT_GRADIENTS

    guided_ig.np = _Numpy()

    def call(batch: Any, call_model_args: Any = None, expected_keys: Any = None) -> dict[str, Any]:
        leaf = torch.as_tensor(np.asarray(batch), dtype=x.dtype).requires_grad_()
        (slope,) = torch.autograd.grad(net(leaf)[:, target].sum(), leaf)
        return {INPUT_OUTPUT_GRADIENTS: slope.numpy()}

    made = guided_ig.GuidedIG().GetMask(
        x.numpy(), call, x_steps=steps, x_baseline=np.zeros(x.shape), max_dist=0.02, fraction=0.25
    )
    return np.asarray(made)


def difference(net: nn.Module, x: Tensor, target: int, steps: int) -> float:
    """‖ours − theirs‖ / ‖theirs‖ for one photograph."""
    theirs = torch.from_numpy(peer(net, x, target, steps)).to(x)
    ours = ig.methods.guided(0.0, steps, rule=ig.rules.Left())(
        ig.TorchField(net, target), x[None]
    ).values[0]
    return float((ours - theirs).norm() / theirs.norm())


def rows(repeats: int, steps: int = 50) -> list[Row]:
    """The lines of the table."""
    import saliency.core  # noqa: F401  # left out where it is not installed

    model = load_model("efficientnet-lite0")
    net = model.module.eval().requires_grad_(False)
    x = model.prepare(*[f"sample:{name}" for name in list(samples())[:PHOTOGRAPHS]])
    target = net(x).argmax(1)
    first = int(target[0])
    exact = difference(copy.deepcopy(net).double(), x[0].double(), first, ALIKE)
    assert exact < 1e-9, f"the two walk differently: {exact}"
    rounded = difference(net, x[0], first, steps)
    sizes = interleaved({str(n): lambda n=n: gradients(net, x, target, n) for n in CHUNKS}, 2)
    best = int(min(sizes, key=lambda size: min(sizes[size])))
    method = ig.methods.guided(0.0, steps, rule=ig.rules.Left())
    field, fast = ig.TorchField(net, target), ig.TorchField(net, target, optimize=True)
    ways = {
        "integrand": lambda: method(field, x),
        "optimized": lambda: method(fast, x),
        "bare": lambda: [gradients(net, x, target, best) for _ in range(steps)],
        "saliency": lambda: peer(net, x[0], first, steps),
    }
    times = interleaved(ways, repeats)
    times["saliency"] = [PHOTOGRAPHS * once for once in times["saliency"]]
    line = f"Guided IG, {steps} steps, {PHOTOGRAPHS} photographs, EfficientNet-Lite0: to its bare gradients"
    note = f"{seconds(times)}; bare {best} rows per call"
    alike = f"maps differ by {exact:.0e} in float64 ({ALIKE} steps), by {rounded:.0e} in float32"
    return [
        Row(line, *ratio(times, "integrand", "bare"), 1.1, note=note),
        Row(
            "per photograph, to PAIR's `saliency`",
            *ratio(times, "integrand", "saliency"),
            1 / 1.3,
            note=alike,
        ),
        Row("the same with optimize=True", *ratio(times, "optimized", "saliency")),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=50)
    asked = parser.parse_args()
    begin(asked.threads)
    tell(rows(asked.repeats, asked.steps))


if __name__ == "__main__":
    main()
