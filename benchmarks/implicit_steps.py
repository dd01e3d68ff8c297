"""Does a descent oscillate around its end? The representation distance along fixed, shrinking and implicit steps.

    python -m benchmarks.implicit_steps [--photograph sample:chelsea] [--save docs/images/implicit-steps.png]

The small network is a tanh classifier of 12 features trained here; with ``--photograph`` EfficientNet-Lite0 is walked too. Curves are drawn
over joint evaluations (one forward and two backward passes), so an implicit step of three looks takes three; all walks of a panel
are given the same number of them, the same length of a step, and the same reference.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

import integrand as ig

from .problems import trained

STEPS: dict[str, ig.paths.StepRule] = {
    "Fixed()": ig.paths.Fixed(),
    "Shrinking()": ig.paths.Shrinking(),
    "Implicit(2)": ig.paths.Implicit(2),
    "Implicit(3)": ig.paths.Implicit(3),
}
COLOURS = dict(zip(STEPS, ("0.6", "tab:orange", "tab:green", "tab:blue"), strict=True))

Curve = tuple[Tensor, Tensor]
"""Joint evaluations, and the distance relative to that of the input."""


def curve(
    field: ig.fields.Field,
    x: Tensor,
    reference: Tensor,
    step: ig.paths.StepRule,
    looks: int,
    rate: object,
) -> Curve:
    """One walk of about ``looks`` joint evaluations."""
    path = ig.paths.Descent(None, looks // step.looks, rate, step=step)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IncompleteWarning)
        made = ig.Method(ig.baselines.Given(reference), path, ig.rules.Right())(field, x)
    distance = made.notes["distance"][:, 0, 0].flip(0)
    return 1 + step.looks * torch.arange(len(distance)), distance / distance[0]


def network() -> tuple[ig.TorchField, Tensor, Tensor]:
    """A trained network, an input, and a reference of another class."""
    torch.manual_seed(0)
    data = torch.randn(512, 12)
    model = trained(
        nn.Sequential(nn.Linear(12, 48), nn.Tanh(), nn.Linear(48, 24), nn.Tanh(), nn.Linear(24, 4)),
        data,
    )
    field = ig.TorchField(model, int(model(data[:1]).argmax()))
    return field, data[:1], ig.baselines.OtherClass(data[1:], 1)(data[:1], field)


def photograph(source: str) -> tuple[ig.TorchField, Tensor, Tensor]:
    """EfficientNet-Lite0, a photograph, and another of another class as the reference."""
    from integrand.images import load_model, pictures

    model = load_model("efficientnet-lite0")
    x = model.prepare(*pictures(source))[:1]
    other = model.prepare(*pictures("sample:coffee"))[:1]
    field = ig.TorchField(
        model.module, int(model.module(x).argmax()), normalisation=model.normalisation
    )
    return field, x, other[None]


def tell(name: str, curves: dict[str, Curve]) -> None:
    """Where each walk ended, and how much of its last third it spent going up."""
    print(name)
    for kind, (_, distance) in curves.items():
        last = distance[-max(3, len(distance) // 3) :]
        ups = int((last.diff() > 0).sum())
        print(
            f"  {kind:12s} ends at {float(distance[-1]):.2e}, lowest {float(distance.min()):.2e}, "
            f"goes up in {ups} of its last {len(last) - 1} steps",
            flush=True,
        )


def draw(panels: dict[str, dict[str, Curve]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4 * len(panels), 3.6), layout="constrained")
    for ax, (title, curves) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        for kind, (looks, distance) in curves.items():
            ax.semilogy(
                looks, distance.clamp_min(1e-8), label=kind, color=COLOURS[kind], linewidth=1.4
            )
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("joint evaluations")
        ax.set_ylabel("‖φ(z) − φ(reference)‖², relative")
        ax.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--photograph",
        help="also walk EfficientNet-Lite0 from this photograph, such as sample:chelsea",
    )
    parser.add_argument(
        "--looks", type=int, default=60, help="joint evaluations of each walk on the photograph"
    )
    parser.add_argument("--save", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    panels: dict[str, dict[str, Curve]] = {}
    for rate in (0.2, 1.0):
        name = f"tanh network, steps of {rate}"
        panels[name] = {kind: curve(*network(), step, 120, rate) for kind, step in STEPS.items()}
        tell(name, panels[name])
    if asked.photograph:
        name = "EfficientNet-Lite0, Relative(0.01)"
        problem = photograph(asked.photograph)
        rate = ig.paths.Relative(0.01)
        panels[name] = {
            kind: curve(*problem, step, asked.looks, rate) for kind, step in STEPS.items()
        }
        tell(name, panels[name])
    if asked.save:
        draw(panels, asked.save)


if __name__ == "__main__":
    main()
