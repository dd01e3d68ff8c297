"""One photograph, 48 gradients of EfficientNet-Lite0: against a hand-tuned loop, against Captum, and with optimize=True.

    python -m benchmarks.image_gradients [--threads 1] [--repeats 7]

The loop is what somebody would write who knows torch: eval mode, no parameter gradients, the best of several chunk sizes, nothing
checked. Integrand is called as users call it, which includes F at both ends. Captum is called as its tutorial calls it.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

import integrand as ig
from integrand.images import load_model, samples

from .side_by_side import Row, arguments, interleaved, ratio, seconds, tell

NODES = 48
CHUNKS = (4, 6, 8, 12, 16)
MAPS = 10  # photographs whose optimized maps are compared
RULE = ig.rules.GaussLegendre(NODES)


def bare(net: nn.Module, x: Tensor, target: int, chunk: int) -> Tensor:
    """Integrated Gradients from zero, written by hand."""
    nodes, weights = (torch.tensor(side).reshape(-1, 1, 1, 1) for side in RULE.table())
    mean = torch.zeros_like(x)
    for first in range(0, NODES, chunk):
        part = slice(first, first + chunk)
        rows = (nodes[part] * x).requires_grad_()
        (slopes,) = torch.autograd.grad(net(rows)[:, target].sum(), rows)
        mean += (weights[part] * slopes).sum(0)
    return mean * x


def rows(repeats: int) -> list[Row]:
    """The lines of the table."""
    from captum.attr import IntegratedGradients

    model = load_model("efficientnet-lite0")
    net = model.module.eval().requires_grad_(False)
    x = model.prepare("sample:chelsea")
    target = int(net(x).argmax())
    sizes = interleaved(
        {str(chunk): lambda chunk=chunk: bare(net, x, target, chunk) for chunk in CHUNKS}, 3
    )
    chunk = int(min(sizes, key=lambda size: min(sizes[size])))
    fast = ig.TorchField(net, target, optimize=True)
    captum = IntegratedGradients(net)
    method = ig.methods.integrated(rule=RULE)
    ways = {
        "loop": lambda: bare(net, x, target, chunk),
        "integrand": lambda: ig.explain(net, x, target=target, rule=RULE).values,
        "optimized": lambda: method(fast, x).values,
        "captum": lambda: captum.attribute(x, target=target, n_steps=NODES),
        # A model never seen before: the call size is found on the way.
        "first call": lambda: ig.explain(_shared_copy(net), x, target=target, rule=RULE).values,
        "first optimized call": lambda: (
            ig.explain(_shared_copy(net), x, target=target, rule=RULE, optimize=True).values
        ),
    }
    times = interleaved(ways, repeats)
    apart = float((ways["integrand"]() - ways["loop"]()).norm() / ways["loop"]().norm())
    assert apart < 1e-3, f"the two integrate differently: {apart}"
    note = f"{seconds(times)}; loop in chunks of {chunk}"
    return [
        Row(
            f"{NODES} gradients of EfficientNet-Lite0 at 224², to a hand-tuned loop",
            *ratio(times, "integrand", "loop"),
            1.05,
            note=note,
        ),
        Row(
            f"{NODES} gradients of EfficientNet-Lite0, to Captum's default call",
            *ratio(times, "integrand", "captum"),
            0.5,
        ),
        Row(
            f"{NODES} gradients of EfficientNet-Lite0 with optimize=True, to the loop",
            *ratio(times, "optimized", "loop"),
            0.9,
        ),
        Row("the first call on a new model, to the loop", *ratio(times, "first call", "loop")),
        Row(
            "the first call with optimize=True, its copy made, to the loop",
            *ratio(times, "first optimized call", "loop"),
        ),
        agreement(),
    ]


def agreement() -> Row:
    """How far optimized maps are from plain ones, worst of several photographs, beside what float32 itself leaves open."""
    model = load_model("efficientnet-lite0")
    x = model.prepare(*[f"sample:{name}" for name in list(samples())[:MAPS]])
    target = ig.targets.Logit(model.module(x).argmax(1))
    method = ig.methods.integrated(rule=RULE)
    plain = method(ig.TorchField(model.module, target), x).values
    fast = method(ig.TorchField(model.module, target, optimize=True), x).values
    apart = (fast - plain).flatten(1).norm(dim=1) / plain.flatten(1).norm(dim=1)
    note = f"median {apart.median():.1g} over {len(x)} photographs"
    return Row(
        "optimize=True: relative L2 error of maps, worst photograph",
        float(apart.max()),
        None,
        5e-3,
        unit="",
        note=note,
    )


def _shared_copy(net: nn.Module) -> nn.Module:
    """Another module object with the same tensors."""
    return copy.deepcopy(
        net, {id(tensor): tensor for tensor in (*net.parameters(), *net.buffers())}
    )


def main() -> None:
    found = arguments(__doc__, 7)
    tell(rows(found.repeats))


if __name__ == "__main__":
    main()
