"""How many gradients does a map need? Relative L2 error against gradients, rule by rule, on networks of several kinds.

    python -m benchmarks.work_precision [FOLDER of photographs] [--images 6] [--out curves.png]

Error is ‖map − reference‖ / ‖map of the reference‖, the reference being 512 chords graded like t²
(3000 graded like t¹⁴ where everything happens next to the baseline). Small networks are trained here on
synthetic data, from seeds; EfficientNet-Lite0 is explained from black, logit of the predicted class. Cost counts rows with a forward and a
backward pass. For every rule: gradients until the error stays below 10 % and 5 %, median and 95th percentile over examples.
``Adaptive`` stops by itself, so its own error and estimate are shown.
"""

from __future__ import annotations

import argparse
import dataclasses
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import integrand as ig
from integrand.vision import load_model, pictures

COUNTS = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
TOLERANCES = (0.1, 0.05)


@dataclass(frozen=True)
class Graded:
    """The midpoint rule with nodes at t = s²: what a fixed rule can do about a degenerate baseline."""

    n: int

    def __call__(self, field: ig.fields.Field, segment: ig.Segment) -> Tensor:
        s = (torch.arange(self.n, dtype=torch.float64) + 0.5) / self.n
        return segment.step * ig.rules.mean_gradient(
            field, segment, (s**2).to(segment.start), (2 * s / self.n).to(segment.start)
        )


RULES: dict[str, tuple[Callable[[int], ig.rules.Rule], int]] = {
    "GaussLegendre (Captum's default)": (ig.rules.GaussLegendre, 0),
    "Midpoint": (ig.rules.Midpoint, 0),
    "Midpoint, graded t²": (Graded, 0),
    "Trapezoid": (ig.rules.Trapezoid, 1),
    "Chords, graded t²": (ig.rules.Chords, 1),
}


@dataclass(frozen=True)
class Problem:
    """A network, inputs and where their paths start."""

    name: str
    field: ig.fields.Field
    x: Tensor
    start: ig.baselines.Baseline
    truth: ig.rules.Chords = ig.rules.Chords(512)


def trained(model: nn.Module, x: Tensor, steps: int = 400) -> nn.Module:
    """The model, fitted to classes that a random teacher gives the data."""
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 32), nn.Tanh(), nn.Linear(32, 4))
    with torch.no_grad():
        labels = teacher(x * 2).argmax(1)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimiser.step()
    return model.eval()


class Block(nn.Module):
    """A pre-RMSNorm transformer block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.two = nn.RMSNorm(width), nn.RMSNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.one(x)
        x = x + self.attention(h, h, h, need_weights=False)[0]
        return x + self.down(nn.functional.gelu(self.up(self.two(x))))


def small_problems(examples: int = 40) -> Iterator[Problem]:
    """Networks that train in seconds."""
    torch.manual_seed(0)
    table, images, tokens = torch.randn(512, 20), torch.rand(512, 1, 12, 12), torch.randn(512, 8, 32)
    act = {"ReLU MLP": nn.ReLU, "GELU MLP": nn.GELU}
    for name, kind in act.items():
        mlp = nn.Sequential(nn.Linear(20, 128), kind(), nn.Linear(128, 128), kind(), nn.Linear(128, 4))
        yield problem(name, trained(mlp, table), table[:examples], ig.baselines.Constant(0.0))
    cnn = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU6(), nn.Conv2d(16, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU6(),
        nn.Flatten(), nn.Linear(512, 4),
    )  # fmt: skip
    yield problem("ReLU6 CNN, batch norm", trained(cnn, images), images[:examples], ig.baselines.Constant(0.0))
    former = nn.Sequential(Block(32), Block(32), nn.RMSNorm(32), nn.Flatten(), nn.Linear(256, 4))
    trained(former, tokens, 150)
    # From exactly zero the whole normalisation happens within t < 1e-7; the truth needs nodes there.
    zero = problem("RMSNorm transformer from zero", former, tokens[:examples], ig.baselines.Constant(0.0))
    yield dataclasses.replace(zero, truth=ig.rules.Chords(3000, grade=14.0))
    mean = ig.baselines.Given(tokens.mean(0, keepdim=True) + 0.1)
    yield problem("RMSNorm transformer from the mean", former, tokens[:examples], mean)


def problem(name: str, model: nn.Module, x: Tensor, start: ig.baselines.Baseline) -> Problem:
    model = model.double()
    x = x.double()
    with torch.no_grad():
        target = ig.targets.Logit(model(x).argmax(1))
    return Problem(name, ig.TorchField(model, target), x, start)


def photographs(folder: Path, images: int) -> Iterator[Problem]:
    net = load_model("efficientnet-lite0")
    paths = pictures(folder)
    x = net.prepare(*(paths[int(i)] for i in torch.linspace(0, len(paths) - 1, images)))
    with torch.no_grad():
        target = ig.targets.Logit(net.module(x).argmax(1))
    field = ig.TorchField(net.module, target, normalisation=net.normalisation)
    yield Problem("EfficientNet-Lite0 from black", field, x, ig.baselines.black())


def relative(values: Tensor, reference: Tensor) -> Tensor:
    return (values - reference).flatten(1).norm(dim=1) / reference.flatten(1).norm(dim=1)


def measure(p: Problem, most: int = COUNTS[-1]) -> dict[str, tuple[list[int], Tensor]]:
    """For every rule: gradients (n,), errors (n, B); Adaptive's by tolerance."""
    reference = ig.Method(p.start, rule=p.truth)(p.field, p.x).values
    curves = {}
    for name, (rule, more) in RULES.items():
        counts = [n for n in COUNTS if n <= most]
        found = [relative(ig.Method(p.start, rule=rule(n))(p.field, p.x).values, reference) for n in counts]
        curves[name] = ([n + more for n in counts], torch.stack(found))
    return curves | {"reference": ([512], reference[None])}


def needed(counts: list[int], found: Tensor, tolerance: float) -> Tensor:
    """Gradients (B,) from which on the error stays below the tolerance; infinity if it never does."""
    below = found <= tolerance
    stays = below.flip(0).cummin(0).values.flip(0)
    table = torch.tensor(counts, dtype=torch.float64)[:, None].expand_as(found)
    return table.masked_fill(~stays, float("inf")).amin(0)


def report(p: Problem) -> dict[str, tuple[list[int], Tensor]]:
    curves = measure(p)
    reference = curves.pop("reference")[1][0]
    print(f"\n{p.name} ({len(p.x)} examples): gradients to stay below 10 % and 5 %, median (95th percentile)")
    for name, (counts, found) in curves.items():
        cells = []
        for tolerance in TOLERANCES:
            n = needed(counts, found, tolerance)
            cells.append(f"{n.median():.0f} ({n.sort().values[int(0.95 * (len(n) - 1))]:.0f})")
        print(f"  {name:34s} {cells[0]:>14s} {cells[1]:>14s}")
    for tolerance in TOLERANCES:
        singles = [
            ig.Method(p.start, rule=ig.rules.Adaptive(tolerance))(p.field.at(torch.tensor([i])), p.x[i : i + 1])
            for i in range(len(p.x))
        ]
        spent = torch.tensor([float(made.cost.gradients) for made in singles])
        true = torch.cat([relative(made.values, reference[i : i + 1]) for i, made in enumerate(singles)])
        estimate = torch.cat([made.error for made in singles])
        print(
            f"  Adaptive({tolerance}): {spent.median():.0f} ({spent.sort().values[int(0.95 * (len(spent) - 1))]:.0f}) gradients, true error "
            f"median {true.median():.3f}, worst {true.max():.3f}; below its estimate in {(true <= estimate).double().mean():.0%}"
        )
    return curves


def draw(all_curves: dict[str, dict[str, tuple[list[int], Tensor]]], path: Path) -> None:
    from matplotlib.figure import Figure

    columns = min(3, len(all_curves))
    rows = -(-len(all_curves) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.3 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat[len(all_curves) :]:
        ax.set_axis_off()
    for ax, (title, curves) in zip(axes.flat, all_curves.items(), strict=False):
        for name, (counts, found) in curves.items():
            ax.loglog(counts, found.median(1).values, marker="o", markersize=3, label=name)
        ax.axhline(0.05, color="0.8", linewidth=1, zorder=0)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("gradients")
        ax.set_ylabel("relative L2 error, median")
    axes.flat[0].legend(fontsize=7)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore", ig.errors.IncompleteWarning)
    curves = {p.name: report(p) for p in small_problems()}
    if arguments.folder:
        curves |= {p.name: report(p) for p in photographs(arguments.folder, arguments.images)}
    if arguments.out:
        draw(curves, arguments.out)


if __name__ == "__main__":
    main()
