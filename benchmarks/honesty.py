"""Does a map that says it has converged keep its tolerance, where functions hide from it and on networks of many kinds?

    python -m benchmarks.honesty [--seeds 4] [--rows 6] [--list]

``functions``: 86 functions made to deceive a first look at t = 0, 1/16, 1/4, 9/16 and 1: windows, gates and oscillations that act between
these and cancel in the sum (z1 − z2), stretches on which nothing moves, steps, clamps. ``networks``: small networks of 20 families
with random weights, which nobody made to deceive. The truth is a quadrature of its own: plain autograd in float64 at many evenly spaced
nodes. A map is dishonest where it is ``converged`` and its true error is above the tolerance.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import integrand as ig

TOLERANCES = (0.05, 0.01)
NODES = 100_000
Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Trap:
    """A function of rows (N, n) → (N,), asked at x (1, n) from zero."""

    kind: str
    name: str
    function: Function
    x: Tensor


@dataclass(frozen=True)
class Honesty:
    """One map: the error it claims, the true one, and on what part of the path what it misses acts."""

    kind: str
    name: str
    claimed: float
    true: float
    converged: bool
    gradients: float
    part: float = math.nan

    def dishonest(self, tol: float) -> bool:
        return self.converged and not self.true <= tol


# --- functions that hide ----------------------------------------------------------------------------------------------


def _gated(
    gate: Function, strength: float, kind: str, name: str, x: tuple[float, ...] = (1.0, 3.0, 3.0)
) -> Trap:
    """z0 + a plain part, and an interaction gate(z0) · (z1 − z2) that the sum does not see where z1 = z2."""

    def function(z: Tensor) -> Tensor:
        return z[:, 0] + 0.1 * z[:, 1] + strength * gate(z[:, 0]) * (z[:, 1] - z[:, 2])

    return Trap(kind, name, function, torch.tensor([x], dtype=torch.float64))


def _windows() -> Iterator[Trap]:
    for width, begins in (
        (0.35, (0.6, 0.28)),
        (0.25, (0.65, 0.29)),
        (0.2, (0.6, 0.75)),
        (0.15, (0.34, 0.8)),
        (0.1, (0.6, 0.85)),
        (0.05, (0.45, 0.72)),
        (0.02, (0.14, 0.9)),
    ):
        for a in begins:

            def gate(t: Tensor, a: float = a, b: float = a + width) -> Tensor:
                return torch.relu(t - a) * torch.relu(b - t)

            # As high as makes half of the map, whatever the width.
            yield _gated(
                gate, 0.5 / (width**3 / 6) / 3, "window", f"relu·relu on [{a:g}, {a + width:g}]"
            )


def _gates() -> Iterator[Trap]:
    for sigma in (0.1, 0.05, 0.03, 0.02, 0.01):
        for one, other in ((0.8, 0.9), (0.4, 0.7), (0.15, 0.35)):

            def function(z: Tensor, s: float = sigma, a: float = one, b: float = other) -> Tensor:
                at, to = (
                    torch.exp(-(((z[:, 0] - a) / s) ** 2)),
                    torch.exp(-(((z[:, 0] - b) / s) ** 2)),
                )
                return at * z[:, 1] - to * z[:, 2] + 0.05 * z[:, 0]

            yield Trap(
                "gate",
                f"Gaussian, {sigma:g} wide at {one:g} and {other:g}",
                function,
                torch.ones(1, 3).double(),
            )


def _waves() -> Iterator[Trap]:
    for k in (8, 10, 16, 32, 33, 48, 64, 96, 128, 160):
        yield Trap(
            "wave",
            f"cos({k} π z0)(z1 − z2)",
            lambda z, k=k: torch.cos(k * math.pi * z[:, 0]) * (z[:, 1] - z[:, 2]) + 0.5 * z.sum(1),
            torch.tensor([[1.0, 2.0, 2.0]]).double(),
        )
    for k in (16, 32):
        yield _gated(
            lambda t, k=k: torch.sin(k * math.pi * t) ** 2, 0.4, "wave", f"sin²({k} π z0)(z1 − z2)"
        )


def _plateaus() -> Iterator[Trap]:
    for c in (1.0, 1.4, 1.7, 1.9):
        yield Trap(
            "plateau",
            f"relu(z0² − {c:g} z1)",
            lambda z, c=c: torch.relu(z[:, 0] ** 2 - c * z[:, 1]),
            torch.tensor([[2.0, 2.0]]).double(),
        )
    for c in (0.3, 0.6, 0.75, 0.9):
        yield Trap(
            "plateau",
            f"relu(z0 − {c:g}) z1²",
            lambda z, c=c: torch.relu(z[:, 0] - c) * z[:, 1] ** 2,
            torch.tensor([[1.0, 2.0]]).double(),
        )


def _dead() -> Iterator[Trap]:
    for seed in range(12):
        net = drawn(lambda: mlp(6, [8, 8], 1, nn.ReLU, nn.ReLU), seed, 1.6)
        x = generated(seed, 64, 6, scale=1.5)
        alive = net(x)[:, 0]
        best = int(alive.argmax())
        yield Trap(
            "dead",
            f"a network with a ReLU output, {seed}",
            lambda z, m=net: m(z)[:, 0],
            x[best : best + 1],
        )


def _sigmoids() -> Iterator[Trap]:
    for steep, a, b in (
        (20, 0.3, 0.5),
        (20, 0.65, 0.9),
        (50, 0.3, 0.5),
        (50, 0.65, 0.95),
        (200, 0.6, 0.9),
        (200, 0.7, 0.8),
        (200, 0.3, 0.5),
        (1000, 0.6, 0.7),
        (1000, 0.3, 0.35),
        (1000, 0.07, 0.24),
    ):

        def gate(t: Tensor, s: float = steep, a: float = a, b: float = b) -> Tensor:
            return torch.sigmoid(s * (t - a)) - torch.sigmoid(s * (t - b))

        yield _gated(gate, 0.15 / (b - a), "sigmoid", f"sigmoids {steep} steep on [{a:g}, {b:g}]")


def _clamps() -> Iterator[Trap]:
    for k, a in ((5, 0.6), (20, 0.6), (5, 0.3)):

        def gate(t: Tensor, k: float = k, a: float = a) -> Tensor:
            return torch.clamp(k * (t - a), 0, 1) - torch.clamp(k * (t - a - 0.3), 0, 1)

        yield _gated(gate, 0.5, "clamp", f"clamped ramps {k} steep from {a:g}")
    for k, a in ((4, 0.7), (10, 0.5), (40, 0.8)):
        yield Trap(
            "clamp",
            f"clamp({k}(z0 − {a:g})) z1 + z2",
            lambda z, k=k, a=a: torch.clamp(k * (z[:, 0] - a), 0, 1) * z[:, 1] + 0.2 * z[:, 2],
            torch.tensor([[1.0, 1.0, 1.0]]).double(),
        )


def _steps() -> Iterator[Trap]:
    for height, a in ((0.02, 0.35), (0.05, 0.7), (0.1, 0.85), (0.2, 0.45), (0.5, 0.65)):
        yield Trap(
            "step",
            f"a step of {height:g} at {a:g}",
            lambda z, h=height, a=a: z[:, 1] + 0.5 * z[:, 2] + h * torch.tanh(300 * (z[:, 0] - a)),
            torch.tensor([[1.0, 1.0, 1.0]]).double(),
        )


def _oscillations() -> Iterator[Trap]:
    for k in (7, 20, 45, 100):
        yield Trap(
            "oscillation",
            f"sin({k} z0) z1 + z2",
            lambda z, k=k: torch.sin(k * z[:, 0]) * z[:, 1] + z[:, 2],
            torch.tensor([[1.0, 1.0, 0.5]]).double(),
        )


def functions() -> list[Trap]:
    """The 86."""
    makers = (_windows, _gates, _waves, _plateaus, _dead, _sigmoids, _clamps, _steps, _oscillations)
    return [trap for make in makers for trap in make()]


# --- networks that do not ---------------------------------------------------------------------------------------------


def generated(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def drawn(make: Callable[[], nn.Module], seed: int, gain: float = 1.5) -> nn.Module:
    """A network with its ordinary initialisation, louder, the same on every run."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = make().double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter *= gain
            parameter.requires_grad_(False)
    return net


def mlp(
    features: int,
    widths: list[int],
    classes: int,
    act: type[nn.Module],
    out: type[nn.Module] | None = None,
) -> nn.Module:
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(features, width), act()]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, classes), *([out()] if out else []))


class Recurrent(nn.Module):
    def __init__(self, cell: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cell, self.head = cell(2, 12, batch_first=True), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        head: Tensor = self.head(self.cell(x.reshape(-1, 4, 2))[0][:, -1])
        return head


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(-1, 4, 8)
        head: Tensor = self.head(
            torch.tanh(x + self.attend(x, x, x, need_weights=False)[0]).mean(1)
        )
        return head


def _cnn(act: type[nn.Module], pool: type[nn.Module], norm: bool) -> nn.Module:
    layers = [nn.Conv2d(1, 6, 3, padding=1), *([nn.BatchNorm2d(6)] if norm else []), act(), pool(2)]
    return nn.Sequential(*layers, nn.Conv2d(6, 8, 3), act(), nn.Flatten(), nn.Linear(8, 3))


FAMILIES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "ReLU 2": (lambda: mlp(8, [2], 3, nn.ReLU), (8,)),
    "ReLU 4-4": (lambda: mlp(8, [4, 4], 3, nn.ReLU), (8,)),
    "ReLU 8-8": (lambda: mlp(8, [8, 8], 3, nn.ReLU), (8,)),
    "ReLU 64-64": (lambda: mlp(8, [64, 64], 3, nn.ReLU), (8,)),
    "ReLU 16-16-16-16": (lambda: mlp(8, [16] * 4, 3, nn.ReLU), (8,)),
    "ReLU output": (lambda: mlp(8, [16, 16], 3, nn.ReLU, nn.ReLU), (8,)),
    "leaky ReLU": (lambda: mlp(8, [16, 16], 3, nn.LeakyReLU), (8,)),
    "ReLU6": (lambda: mlp(8, [16, 16], 3, nn.ReLU6), (8,)),
    "hardtanh": (lambda: mlp(8, [12, 12], 3, nn.Hardtanh), (8,)),
    "GELU": (lambda: mlp(8, [16, 16], 3, nn.GELU), (8,)),
    "SiLU": (lambda: mlp(8, [16, 16], 3, nn.SiLU), (8,)),
    "tanh": (lambda: mlp(8, [16, 16], 3, nn.Tanh), (8,)),
    "sigmoid output": (lambda: mlp(8, [16, 16], 3, nn.Tanh, nn.Sigmoid), (8,)),
    "softmax output": (lambda: nn.Sequential(mlp(8, [16, 16], 3, nn.ReLU), nn.Softmax(1)), (8,)),
    "layer norm": (
        lambda: nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 3)),
        (8,),
    ),
    "CNN, max pool": (lambda: _cnn(nn.ReLU, nn.MaxPool2d, False), (1, 6, 6)),
    "CNN, batch norm": (lambda: _cnn(nn.ReLU6, nn.AvgPool2d, True), (1, 6, 6)),
    "LSTM": (lambda: Recurrent(nn.LSTM), (8,)),
    "GRU": (lambda: Recurrent(nn.GRU), (8,)),
    "attention": (Attention, (32,)),
}
"""Name: how a network is made, and the shape of one example."""


# --- measured ---------------------------------------------------------------------------------------------------------


def gradients_along(
    function: Function, x: Tensor, nodes: int, start: float | Tensor = 0.0
) -> Tensor:
    """∇F ⊙ (x − start) at the middles of ``nodes`` even steps (nodes, \\*s), by plain autograd."""
    found = []
    start = torch.as_tensor(start, dtype=x.dtype)
    for t in ((torch.arange(nodes, dtype=torch.float64) + 0.5) / nodes).split(1 << 14):
        z = torch.lerp(start.expand_as(x), x, t.reshape(-1, *(1,) * (x.ndim - 1))).requires_grad_()
        found.append(torch.autograd.grad(function(z).sum(), z)[0] * (x - start))
    return torch.cat(found)


def relative(values: Tensor, exact: Tensor) -> float:
    """How wrong a map is; a map that is zero is wrong only by what it says."""
    wrong, size = float((values - exact).norm()), float(exact.norm())
    return wrong / size if size > 0 else (0.0 if wrong < 1e-12 else math.inf)


def asked(trap: Trap, tol: float, nodes: int = NODES, **options: object) -> Honesty:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = ig.explain(trap.function, trap.x, target=ig.targets.Output(), tol=tol, **options)
    along = gradients_along(trap.function, trap.x, nodes)
    exact = along.mean(0)
    off = (along - along.median(0).values).flatten(1).norm(dim=1)
    part = float((off > 0.1 * off.max()).double().mean()) if float(off.max()) > 0 else 0.0
    return Honesty(
        trap.kind, trap.name, float(made.error[0]), relative(made.values[0], exact), bool(made.converged[0]),
        made.cost.gradients, part,
    )  # fmt: skip


def family(
    name: str, seed: int, rows: int, tol: float, nodes: int = 4000, method: str = "integrated"
) -> list[Honesty]:
    """Maps of one random network, explained as users would: in one call."""
    make, shape = FAMILIES[name]
    net = drawn(make, seed)
    x = generated(1000 + seed, rows, *shape, scale=1.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = ig.explain(net, x, target="predicted", method=method, tol=tol)
    classes = net(x).argmax(1)
    found = []
    for i in range(rows):
        exact = gradients_along(lambda z, i=i: net(z)[:, classes[i]], x[i : i + 1], nodes).mean(0)
        found.append(
            Honesty(
                name, f"{seed}, {i}", float(made.error[i]), relative(made.values[i], exact), bool(made.converged[i]),
                made.cost.gradients / rows,
            )
        )  # fmt: skip
    return found


def table(found: list[Honesty], tol: float) -> None:
    """A line for each kind."""
    print(
        f"\n| {tol:g} | maps | converged | NaN | converged, true > tol | > 2 tol | worst of them | true > estimate | gradients |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for kind in [*dict.fromkeys(one.kind for one in found), "all"]:
        some = [one for one in found if kind in (one.kind, "all")]
        bad = [one for one in some if one.dishonest(tol)]
        print(
            f"| {kind} | {len(some)} | {sum(one.converged for one in some)} | {sum(math.isnan(one.claimed) for one in some)} "
            f"| {len(bad)} | {sum(one.true > 2 * tol for one in bad)} | {max((one.true for one in bad), default=0):.3f} "
            f"| {sum(not one.true <= one.claimed + 1e-9 for one in some)} "
            f"| {sum(one.gradients for one in some) / len(some):.1f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4, help="networks of each family")
    parser.add_argument("--rows", type=int, default=6, help="maps of each network")
    parser.add_argument(
        "--list", action="store_true", help="every dishonest map of the 86 functions"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    for tol in TOLERANCES:
        found = [asked(trap, tol) for trap in functions()]
        table(found, tol)
        for one in found:
            if arguments.list and one.dishonest(tol):
                print(
                    f"  {one.name}: true {one.true:.3f}, claimed {one.claimed:.2g}, {one.gradients:.0f} gradients, on {one.part:.2f} of the path"
                )
    for tol in TOLERANCES:
        table(
            [
                one
                for name in FAMILIES
                for seed in range(arguments.seeds)
                for one in family(name, seed, arguments.rows, tol)
            ],
            tol,
        )
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
