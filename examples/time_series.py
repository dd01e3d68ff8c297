"""Where in an electrocardiogram does a network see the extra beat?

Every recording is six seconds of a heart; half of them have one beat that comes too early and is
too wide, as a premature ventricular contraction is. Recordings are made from sums of bell curves
(after McSharry et al., 2003), so that the place of that beat is known: a map that is right lies on
it. Expected Gradients starts from healthy recordings instead of a flat line, which no heart draws.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor, nn

import integrand as ig

RATE, SECONDS = 100, 6  # samples in a second
# waves of a beat: when (s, from the R wave), how high (mV), how wide (s)
NORMAL = [(-0.18, 0.12, 0.028), (-0.035, -0.1, 0.012), (0, 1.0, 0.014), (0.035, -0.18, 0.013), (0.27, 0.28, 0.055)]  # fmt: skip
PREMATURE = [(-0.01, 0.95, 0.045), (0.1, -0.4, 0.05), (0.32, -0.25, 0.07)]


def recording(rng: np.random.Generator, ill: bool) -> tuple[np.ndarray, np.ndarray]:
    """A recording in mV, and where its extra beat is."""
    time = np.arange(RATE * SECONDS) / RATE
    signal = 0.05 * np.sin(2 * np.pi * (0.3 * time + rng.random())) + 0.02 * rng.normal(size=time.size)  # fmt: skip
    mask, at, number = np.zeros(time.size, bool), rng.uniform(0.2, 0.8), 0
    extra, period = rng.integers(1, 5) if ill else -1, rng.uniform(0.75, 0.95)
    while at < SECONDS:
        early = number == extra
        centre = at - 0.3 * period if early else at
        for shift, height, width in PREMATURE if early else NORMAL:
            signal += height * np.exp(-(((time - centre - shift) / width) ** 2) / 2)
        if early:
            mask |= np.abs(time - centre - 0.1) < 0.3
        at, number = at + period * rng.normal(1, 0.02), number + 1
    return signal, mask


def recordings(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Signals (N, 1, T), whether they have an extra beat (N,), and where (N, 1, T)."""
    rng = np.random.default_rng(seed)
    ill = rng.random(count) < 0.5
    signals, masks = zip(*(recording(rng, sick) for sick in ill), strict=True)
    return (
        torch.from_numpy(np.stack(signals)).float()[:, None],
        torch.from_numpy(ill).long(),
        torch.from_numpy(np.stack(masks))[:, None],
    )


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    x, y, _ = recordings(800, seed=0)
    model = trained(x, y)
    new, labels, masks = recordings(200, seed=1)
    with torch.no_grad():
        accuracy = (model(new).argmax(1) == labels).double().mean()

    ill, place = new[labels == 1], masks[labels == 1]
    result = ig.explain(model, ill, target=1, method="expected", baseline=x[y == 0][:24], tol=0.05)

    values, place = result.values[:, 0], place[:, 0]
    mass = ig.metrics.relevance_mass(values, place, pool="absolute")
    hits = ig.metrics.pointing_game(values, place)
    print(f"accuracy on {len(new)} new recordings: {float(accuracy):.1%}")
    print(f"on the extra beat: {float(mass.mean()):.0%} of the attribution, {float(place.double().mean()):.0%} of the time")  # fmt: skip
    print(f"the highest point of the map is on it in {float(hits.mean()):.0%} of {len(ill)} recordings")  # fmt: skip
    draw(*(t[:3].numpy() for t in (ill[:, 0], values, place))).savefig(
        out / "time_series.png", dpi=120
    )


def trained(x: Tensor, y: Tensor) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(1, 12, 9, stride=2, padding=4), nn.ReLU(),
        nn.Conv1d(12, 16, 9, stride=2, padding=4), nn.ReLU(),
        nn.Conv1d(16, 16, 9, stride=2, padding=4), nn.ReLU(),
        nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(16, 2),
    )  # fmt: skip
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(8):
        for rows in torch.randperm(len(x)).split(32):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimiser.step()
    return model.eval()


def draw(signals: np.ndarray, values: np.ndarray, masks: np.ndarray) -> Figure:
    """Recordings in grey, and in orange where the network sees the extra beat."""
    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    time = np.arange(signals.shape[1]) / RATE
    for axes, signal, map_, mask in zip(figure.subplots(len(signals), 1, sharex=True), signals, values, masks, strict=True):  # fmt: skip
        axes.axvspan(time[mask][0], time[mask][-1], color="#eef0f2", linewidth=0)
        points = np.column_stack([time, signal])
        strength = np.clip(np.abs(map_[1:]) / np.quantile(np.abs(map_), 0.995), 0, 1)
        lines = LineCollection(np.stack([points[:-1], points[1:]], 1), linewidths=1 + 2.5 * strength)  # fmt: skip
        lines.set_array(np.where(map_[1:] < 0, -1, 1) * strength)
        lines.set(cmap="coolwarm", clim=(-1, 1))
        axes.plot(time, signal, color="#9aa0a6", linewidth=0.9)
        axes.add_collection(lines)
        axes.set_ylabel("mV")
        axes.spines[["top", "right"]].set_visible(False)
    axes.set(xlabel="seconds", xlim=(0, SECONDS))
    return figure


if __name__ == "__main__":
    main(Path(*sys.argv[1:]))  # the folder for the picture; here unless given
