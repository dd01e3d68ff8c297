"""How sure is an attribution, where there were no data?

A Gaussian process knows how far it knows. Its attributions are Gaussian themselves: a mean, and a
covariance that says what the data leave open. Here the yield of a reactor depends on temperature
and pressure, hardly on humidity, and pressures between 4 and 7 bar were never tried. The true
contributions are known, so that the intervals can be put to the test.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from torch import Tensor

import integrand as ig

NAMES = ["temperature (°C)", "pressure (bar)", "humidity (%)"]
LOW, HIGH = torch.tensor([100.0, 1.0, 20.0]), torch.tensor([200.0, 10.0, 80.0])
USUAL = torch.tensor([150.0, 3.0, 50.0])  # the baseline: how the reactor is run on most days


def effects(x: Tensor) -> Tensor:
    """What each feature really adds to the yield, in percent."""
    heat = 8 * torch.sin((x[:, 0] - 100) / 25)
    squeeze = 5 * torch.sin(x[:, 1])
    damp = torch.sin((x[:, 2] - 50) / 30)
    return torch.stack([heat, squeeze, damp], 1)


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    stream = torch.Generator().manual_seed(0)
    tried = LOW + (HIGH - LOW) * torch.rand(160, 3, generator=stream)
    tried = tried[(tried[:, 1] < 4) | (tried[:, 1] > 7)]
    measured = 50 + effects(tried).sum(1) + 0.5 * torch.randn(len(tried), generator=stream)
    field = fitted(tried, measured)

    anywhere = LOW + (HIGH - LOW) * torch.rand(400, 3, generator=stream)
    result = ig.explain(field, anywhere, method="gaussian_process", baseline=USUAL)
    low, high = result.interval(0.95)
    truth = effects(anywhere) - effects(USUAL[None])
    inside = ((low <= truth) & (truth <= high)).double().mean()
    width, gap = (high - low)[:, 1], (anywhere[:, 1] > 4) & (anywhere[:, 1] < 7)
    print(
        f"the true contribution is inside its 95 % interval in {float(inside):.0%} of 1,200 cases"
    )
    print(f"width of the interval for pressure, in percent of yield: {float(width[~gap].mean()):.1f} where it was tried, {float(width[gap].mean()):.1f} where not")  # fmt: skip
    draw(field, tried).savefig(out / "gaussian_process.png", dpi=120)


def fitted(x: Tensor, y: Tensor) -> ig.fields.GPField:
    """A Gaussian process with a length for every feature, chosen by marginal likelihood."""
    kernel = ConstantKernel(100.0, (1, 1e4)) * RBF((HIGH - LOW).numpy() / 3, (0.3, 1e5))
    kernel += WhiteKernel(1.0, (1e-2, 10))
    model = GaussianProcessRegressor(kernel).fit(x.numpy(), (y - y.mean()).numpy())
    product, noise = model.kernel_.k1, model.kernel_.k2
    lengths = product.k2.length_scale.tolist()
    return ig.fields.GPField(
        x,
        y - y.mean(),
        lengthscale=lengths,
        variance=product.k1.constant_value,
        noise=noise.noise_level,
    )


def draw(field: ig.fields.GPField, tried: Tensor) -> Figure:
    """For every feature, its contribution when it alone leaves the baseline."""
    figure = Figure(figsize=(10.2, 3.1), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for i, axes in enumerate(panels):
        line = USUAL.repeat(200, 1)
        line[:, i] = torch.linspace(float(LOW[i]), float(HIGH[i]), 200)
        result = ig.explain(field, line, method="gaussian_process", baseline=USUAL)
        low, high = result.interval(0.95)
        at, truth = line[:, i], effects(line)[:, i] - effects(USUAL[None])[0, i]
        axes.fill_between(at, low[:, i], high[:, i], color="#f3c7b3", linewidth=0, label="95 % credible interval")  # fmt: skip
        axes.plot(at, result.values[:, i], color="#c2410c", linewidth=1.6, label="attribution")
        axes.plot(at, truth, color="#24272b", linewidth=1, linestyle=(0, (4, 2)), label="truth")
        axes.plot(tried[:, i], np.full(len(tried), 0.03), "|", color="#70757d", markersize=7, transform=axes.get_xaxis_transform(), label="experiments")  # fmt: skip
        axes.axvline(float(USUAL[i]), color="#b9bdc3", linewidth=0.8)
        axes.set_xlabel(NAMES[i])
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("contribution to the yield (%)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)  # fmt: skip
    return figure


if __name__ == "__main__":
    main(Path(*sys.argv[1:]))  # the folder for the picture; here unless given
