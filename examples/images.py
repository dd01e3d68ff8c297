"""Which pixels make a network see an espresso, and where should one start asking?

A map of a photograph depends on its baseline: whatever is as dark as a black baseline gets nothing.
Weighted Gradients starts from several, finds out how few of each map's first pixels must go to
halve the probability of the class, and weighs the maps by it. Deletion, a metric that knows nothing
of the weights, says whether that was wise.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import avg_pool2d

import integrand as ig
from integrand.images import load_model
from integrand.report.figures import display_image, overlay_rgb

BASELINES = ["black", "white", "grey", "blurred"]
CELL = 16  # sums over squares of this many pixels: single pixels are too fine to see


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    net = load_model("efficientnet-lite0")
    x = net.prepare("sample:coffee")
    guess = net.predict(x)[0][0]
    of_model = {"target": guess.index, "normalisation": net.normalisation}

    result = ig.explain(
        net.module,
        x,
        method="weighted",
        baseline=BASELINES,
        rule=ig.rules.GaussLegendre(16),
        record=("shares",),
        **of_model,
    )
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    maps = {f"from {name}": share for name, share in zip(BASELINES, result.shares, strict=True)}
    maps |= {"weighted": result.values, "at random": noise}
    areas = ig.metrics.deletion(net.module, x, maps, steps=20, fill=0.0, **of_model)

    print(f"{guess.name}, {guess.probability:.0%}")
    for name, area in zip(maps, areas[:, 0], strict=True):
        print(f"{name:12s} {float(area):.3f} is the mean probability while its first pixels go")
    draw(result, maps, areas[:, 0], guess.name).savefig(out / "images.webp", dpi=100)


def draw(result: ig.Attribution, maps: dict[str, Tensor], areas: Tensor, name: str) -> Figure:
    """The photograph, and the map of every baseline beside the weighted one."""
    figure = Figure(figsize=(11.4, 2.5), layout="constrained")
    photograph = display_image(result, 0)
    first, *others = figure.subplots(1, len(maps))  # nobody needs to see a map of noise
    first.imshow(photograph)
    first.set_title(name, fontsize=10)
    for axes, (label, values), area in zip(others, maps.items(), areas, strict=False):
        summed = avg_pool2d(values.reshape(1, 3, *values.shape[-2:]).sum(1), CELL)[0]
        blocks = summed.repeat_interleave(CELL, 0).repeat_interleave(CELL, 1)
        axes.imshow(overlay_rgb(photograph, blocks, float(blocks.abs().quantile(0.99))))
        axes.set_title(label, fontsize=10)
        axes.set_xlabel(f"deletion {float(area):.3f}", fontsize=9)
    for axes, weight in zip(others, result.weights[:, 0], strict=False):
        axes.set_title(f"{axes.get_title()}, weight {float(weight):.0%}", fontsize=9.5)
    for axes in (first, *others):
        axes.set(xticks=[], yticks=[])
    return figure


if __name__ == "__main__":
    main(Path(*sys.argv[1:]))  # the folder for the picture; here unless given
