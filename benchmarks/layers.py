"""At a layer only what comes behind it runs, several targets share forward passes: against Captum, hooks, and a run for each target.

    python -m benchmarks.layers [--threads 1] [--repeats 5]

EfficientNet-Lite0 and one photograph. A library that hooks runs the whole model for every node and exchanges what a layer puts out on
the way; that is written here by hand, with the best of several chunk sizes, and Captum does the same. Rows are counted where they run, in
the forward of the first layer's class, so that neither can hide one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor, nn

import integrand as ig
from integrand.images import load_model

from .side_by_side import Row, Times, arguments, interleaved, ratio, seconds, tell

NODES = 32
SITES = {"late": "_blocks.14", "early": "_blocks.2"}
FIRST = "_conv_stem"
CHUNKS = (4, 8, 16)
CLASSES = 4  # the most targets asked at once
SHARED_NODES = 16  # of every run with several targets


def rows(repeats: int) -> list[Row]:
    """The lines of the table."""
    model = load_model("efficientnet-lite0")
    net = model.module.eval().requires_grad_(False)
    x = model.prepare("sample:chelsea")
    likely = [int(number) for number in net(x)[0].topk(CLASSES).indices]
    found = [line for site in SITES.values() for line in _layer(net, x, likely[0], site, repeats)]
    return [*found, *_targets(net, x, likely, repeats)]


# --- at a layer -------------------------------------------------------------------------------------------------------


def _layer(net: nn.Module, x: Tensor, target: int, site: str, repeats: int) -> list[Row]:
    from captum.attr import LayerIntegratedGradients

    layer = dict(net.named_modules())[site]
    captum = LayerIntegratedGradients(net, layer)

    def ours(nodes: int = NODES) -> Tensor:
        method = ig.methods.layer(site, rule=ig.rules.GaussLegendre(nodes))
        return ig.explain(net, x, target=target, method=method).values

    def theirs(size: int | None = None) -> Tensor:
        made: Tensor = captum.attribute(x, target=target, n_steps=NODES, internal_batch_size=size)
        return made.detach()

    chunk = _fastest(lambda size: hooked(net, layer, x, target, size))
    size = _fastest(theirs)
    ways = {
        "integrand": ours,
        "captum": theirs,
        "captum at its best": lambda: theirs(size),
        "whole model": lambda: hooked(net, layer, x, target, chunk),
    }
    times = interleaved(ways, repeats)
    apart = max(float((ways[name]() - ours()).norm() / ours().norm()) for name in list(ways)[1:])
    # Nodes that differ in their last place may lie on two sides of a kink: 0.002 was seen in float32, 1e-8 in float64.
    assert apart < 1e-2, f"they say different things of {site}: {apart}"
    ends, more = _before(net, ours), _before(net, lambda: ours(2 * NODES))
    note = f"{seconds(times)}; whole model in chunks of {chunk}; relative difference {apart:.0e}"
    return [
        Row(
            f"layer attribution at {site} of EfficientNet-Lite0, {NODES} nodes: to running the whole model for every node",
            *ratio(times, "integrand", "whole model"),
            note=note,
        ),
        Row("the same, to Captum's default call", *ratio(times, "integrand", "captum")),
        Row(
            f"the same, to Captum's best (internal_batch_size={size})",
            *ratio(times, "integrand", "captum at its best"),
        ),
        Row(
            f"layer attribution at {site}: rows that run the layers before it, for each node",
            (more - ends) / NODES,
            None,
            0,
            unit="",
            note=f"{ends} rows at the ends and to see what passes the layer by; Captum's default call runs {_before(net, theirs)}",
        ),
    ]


def hooked(net: nn.Module, layer: nn.Module, x: Tensor, target: int, chunk: int) -> Tensor:
    """Layer attribution from zero, written by hand: the whole model for every node, its layer's output exchanged by a hook."""
    start, end = (_seen(net, layer, rows) for rows in (torch.zeros_like(x), x))
    nodes, weights = (
        torch.tensor(side).to(x).reshape(-1, 1, 1, 1)
        for side in ig.rules.GaussLegendre(NODES).table()
    )
    mean = torch.zeros_like(end)
    for first in range(0, NODES, chunk):
        part = slice(first, first + chunk)
        points = torch.lerp(start, end, nodes[part]).requires_grad_()
        with _hook(layer, lambda _, points=points: points.clone()):
            scores = net(x.expand(len(points), -1, -1, -1))[:, target]
        (slopes,) = torch.autograd.grad(scores.sum(), points)
        mean += (weights[part] * slopes).sum(0)
    return mean * (end - start)


def _seen(net: nn.Module, layer: nn.Module, x: Tensor) -> Tensor:
    found: list[Tensor] = []
    with _hook(layer, found.append), torch.no_grad():
        net(x)
    return found[0]


@contextmanager
def _hook(layer: nn.Module, made: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    hook = layer.register_forward_hook(lambda _, __, output: made(output))
    try:
        yield
    finally:
        hook.remove()


def _before(net: nn.Module, run: Callable[[], object]) -> int:
    """How many rows the first layer of the network really runs on."""
    first = dict(net.named_modules())[FIRST]
    kind, counted = type(first), [0]
    own = kind.forward

    def forward(self: nn.Module, z: Tensor) -> Tensor:
        counted[0] += len(z) * (self is first)
        made: Tensor = own(self, z)
        return made

    with mock.patch.object(kind, "forward", forward):
        run()
    return counted[0]


def _fastest(run: Callable[[int], object]) -> int:
    tried = interleaved({str(size): lambda size=size: run(size) for size in CHUNKS}, 1, warm=0)
    return int(min(tried, key=lambda size: min(tried[size])))


# --- several targets --------------------------------------------------------------------------------------------------


def _targets(net: nn.Module, x: Tensor, likely: list[int], repeats: int) -> list[Row]:
    rule = ig.rules.GaussLegendre(SHARED_NODES)
    found = []
    for count in (2, CLASSES):
        asked = likely[:count]

        def apart(asked: list[int] = asked) -> list[ig.Attribution]:
            return [ig.explain(net, x, target=target, rule=rule) for target in asked]

        def together(asked: list[int] = asked) -> list[ig.Attribution]:
            return ig.explain_targets(net, x, targets=asked, rule=rule)

        passes = _passes(net, x, likely[0], repeats)
        # Every number of targets has call sizes of its own, found within the first runs.
        times = interleaved({"together": together, "apart": apart}, repeats, warm=3)
        differ = max(
            float((one.values - other.values).norm() / other.values.norm())
            for one, other in zip(together(), apart(), strict=True)
        )
        assert differ < 1e-2, (
            f"the two say different things: {differ}"
        )  # kinks and float32, as above
        forward, backward = (float(torch.tensor(times).median()) for times in passes.values())
        floor = (forward + count * backward) / (count * (forward + backward))
        note = f"{seconds(times)}; a backward pass took {backward / forward:.2g} forward passes, so the floor is {floor:.3g}"
        line = f"{count} targets × {SHARED_NODES} nodes of EfficientNet-Lite0 at once: to a run for each"
        found.append(
            Row(line, *ratio(times, "together", "apart"), (1 + count) / (2 * count), note=note)
        )
    return found


def _passes(net: nn.Module, x: Tensor, target: int, repeats: int) -> Times:
    """Seconds of a forward pass that is followed for gradients, and of a backward pass to the input."""
    leaf = x.repeat(CHUNKS[0], 1, 1, 1).requires_grad_()
    scores: list[Tensor] = []

    def forward() -> None:
        scores[:] = [net(leaf)[:, target].sum()]

    def backward() -> None:
        # Kept, as all backward passes of one forward pass but the last must keep it.
        torch.autograd.grad(scores[0], leaf, retain_graph=True)

    return interleaved({"forward": forward, "backward": backward}, 2 * repeats)


def main() -> None:
    found = arguments(__doc__, 5)
    tell(rows(found.repeats))


if __name__ == "__main__":
    main()
