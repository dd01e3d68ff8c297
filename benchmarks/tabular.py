"""A thousand rows of a table, a three-layer network: against Captum, equal numbers with 50 nodes each, and the default calls of both.

    python -m benchmarks.tabular [--threads 1] [--repeats 7]

Captum is called as its tutorial calls it, and with the best of several ``internal_batch_size``. The default call of Integrand is also
held against bare backward passes of as many rows as it took: what it does beside its gradients.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import integrand as ig

from .side_by_side import Row, arguments, interleaved, ratio, seconds, tell

ROWS, NODES, COLUMNS = 1024, 50, 20
BATCHES = (1024, 2048, 4096, 8192, 16384)


def network() -> nn.Module:
    """Twenty columns in, four classes out."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(COLUMNS, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4)
    ).eval()  # fmt: skip


def rows(repeats: int) -> list[Row]:
    """The lines of the table."""
    from captum.attr import IntegratedGradients

    net = network()
    x = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(0))
    target = net(x).argmax(1)
    captum = IntegratedGradients(net)
    rule = ig.rules.GaussLegendre(NODES)

    def theirs(size: int | None = None) -> Tensor:
        return captum.attribute(x, target=target, n_steps=NODES, internal_batch_size=size)

    def ours() -> Tensor:
        return ig.explain(net, x, target=target, rule=rule).values

    tried = interleaved({str(size): lambda size=size: theirs(size) for size in BATCHES}, 1)
    best = int(min(tried, key=lambda size: min(tried[size])))
    times = interleaved(
        {"captum": theirs, "captum at its best": lambda: theirs(best), "integrand": ours},
        repeats,
        warm=2,
        apart=True,
    )
    apart = float((ours() - theirs()).abs().max() / theirs().abs().max())
    assert apart < 1e-5, f"the two say different things: {apart}"
    note = f"{seconds(times)}; largest difference {apart:.0e} of the largest entry"
    line = f"{ROWS:,} tabular rows × {NODES} nodes, three layers: how much faster than Captum's default call"
    return [
        Row(line, *ratio(times, "captum", "integrand"), 15, more=True, note=note),
        Row(
            f"the same, than Captum's best (internal_batch_size={best})",
            *ratio(times, "captum at its best", "integrand"),
        ),
        *default_rows(net, x, target, theirs, repeats),
    ]


def default_rows(
    net: nn.Module, x: Tensor, target: Tensor, theirs: Callable[[], Tensor], repeats: int
) -> list[Row]:
    """The lines of the default call, to a relative error of 5 %."""
    spent = ig.explain(net, x, target=target).cost.gradients
    per_row = spent / len(x)
    copies = x.repeat(-(-spent // len(x)), 1)[:spent]
    classes = target.repeat(-(-spent // len(x)))[:spent]

    def bare() -> None:
        for first in range(0, spent, 2 * ROWS):
            part = slice(first, first + 2 * ROWS)
            leaf = copies[part].clone().requires_grad_()
            torch.autograd.grad(net(leaf).gather(1, classes[part, None]).sum(), leaf)

    default = lambda: ig.explain(net, x, target=target)  # noqa: E731
    ways = {"captum": theirs, "integrand": default, "its gradients": bare}
    times = interleaved(ways, repeats, warm=3, apart=True)
    note = f"{seconds(times)}; {per_row:.1f} gradients a row"
    return [
        Row(f"the default call of {ROWS:,} rows: how much faster than Captum's", *ratio(times, "captum", "integrand"), 15, more=True, note=note),
        Row(f"the default call of {ROWS:,} rows, to as many bare gradients", *ratio(times, "integrand", "its gradients"), 3),
    ]  # fmt: skip


def main() -> None:
    found = arguments(__doc__, 7)
    tell(rows(found.repeats))


if __name__ == "__main__":
    main()
