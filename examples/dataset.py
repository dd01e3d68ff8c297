"""Where in the picture is what tells ten digits apart, over a whole dataset?

A map explains one prediction. Integrated Gradient Correlation adds maps up over all examples, into
what each pixel contributes to the correlation between the predictions and the truth: its numbers
sum to Pearson's r, and have standard errors.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor, nn

import integrand as ig


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    x = torch.from_numpy(data.images).float()[order] / 16  # (1797, 8, 8), from 0, the paper, to 1
    y = torch.from_numpy(data.target).long()[order]
    model = trained(x[:1000], y[:1000])

    classes = [ig.targets.Probability(digit) for digit in range(10)]
    truth = nn.functional.one_hot(y[1000:], 10).float()
    batches = list(zip(x[1000:].split(200), truth.split(200), strict=True))
    result = ig.correlate(model, batches, target=classes, tol=0.02)

    clear = result.values.abs() > 2 * result.standard_error
    print(f"{result.count} digits; r of probability and truth from {float(result.total.min()):.2f} to {float(result.total.max()):.2f}")  # fmt: skip
    print(f"the maps' sums miss r by {float(result.residual.abs().max()):.4f} at most")
    print(f"{float(clear.double().mean()):.0%} of the pixels are further from 0 than two standard errors")  # fmt: skip
    draw(result, x, y).savefig(out / "dataset.png", dpi=120)


def trained(x: Tensor, y: Tensor) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    for _ in range(30):
        for rows in torch.randperm(len(x)).split(50):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimiser.step()
    return model.eval()


def draw(result: ig.Correlation, x: Tensor, y: Tensor) -> Figure:
    """For every digit its mean picture, and below it what each pixel contributes to r."""
    figure = Figure(figsize=(10.2, 2.6), layout="constrained")
    panels = figure.subplots(2, 10)
    limit = float(result.values.abs().max())
    for digit in range(10):
        above, below = panels[:, digit]
        above.imshow(x[y == digit].mean(0).numpy(), cmap="Greys")
        shown = below.imshow(result.values[digit].numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
        below.set_xlabel(f"r = {float(result.total[digit]):.2f}", fontsize=9)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color("#d5d8dc")
    panels[0, 0].set_ylabel("mean digit", fontsize=9)
    panels[1, 0].set_ylabel("contribution", fontsize=9)
    figure.colorbar(
        shown, ax=panels[1], ticks=[-limit, 0, limit], format="%.2f", aspect=8, pad=0.01
    )
    return figure


if __name__ == "__main__":
    main(Path(*sys.argv[1:]))  # the folder for the picture; here unless given
