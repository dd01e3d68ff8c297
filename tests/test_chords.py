"""Chords: complete between two points wherever they claim to be, and never silently wrong where they do not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import integrand as ig
from integrand.core.segment import Evaluation
from integrand.fields import CountedField, Subset
from tests.problems import Counting, Cube, filled, wave

STARTS, ENDS = wave(6, 6, phase=0.7, scale=1.5), wave(6, 6, phase=2.9, scale=1.5)
IMAGE_STARTS, IMAGE_ENDS = wave(4, 3, 6, 6, phase=0.4), wave(4, 3, 6, 6, phase=2.2)


def grown(make: Callable[[], nn.Module], seed: int = 3) -> nn.Module:
    """A model with its ordinary initialisation, louder, the same on every run."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 1.5
    return model


def between(
    field: ig.fields.Field, start: Tensor, end: Tensor, index: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The chord of every pair (B, *s), and the change of F along it, all in one call."""
    count = len(start)
    z = torch.stack([start, end], 1).flatten(0, 1)
    place = torch.arange(2 * count)
    examples = torch.arange(count) if index is None else index
    found = field.evaluate_chords(z, examples.repeat_interleave(2), place - place % 2)
    return found.gradient[1::2], found.value[1::2] - found.value[::2]


def defect(field: ig.fields.Field, start: Tensor, end: Tensor) -> float:
    chord, change = between(field, start, end)
    assert float(change.abs().amax()) > 1e-3, "nothing happens here, the test would say nothing"
    return float(((chord * (end - start)).flatten(1).sum(1) - change).abs().max())


def chain(field: ig.fields.Field, start: Tensor, end: Tensor, n: int, mean: bool = False) -> Tensor:
    """The mean of n chords (or of the end gradients) along straight lines (B, *s)."""
    count = len(start)
    t = (
        torch.linspace(0, 1, n + 1, dtype=start.dtype)
        .repeat(count)
        .reshape(-1, *(1,) * (start.ndim - 1))
    )
    begin, finish = (side.repeat_interleave(n + 1, 0) for side in (start, end))
    z = begin + t * (finish - begin)
    index = torch.arange(count).repeat_interleave(n + 1)
    place = torch.arange(len(z))
    before = torch.where(place % (n + 1) == 0, place, place - 1)
    if mean:
        slope = field.evaluate(z, index).gradient
        slope = (slope + slope[before]) / 2
    else:
        slope = field.evaluate_chords(z, index, before).gradient
    return slope.reshape(count, n + 1, *start.shape[1:])[:, 1:].mean(1)


def fine(field: ig.fields.Field, start: Tensor, end: Tensor, nodes: int = 4000) -> Tensor:
    """The mean gradient by brute force."""
    rule = ig.rules.Midpoint(nodes)
    share = rule(field, ig.segments.polyline(torch.stack([start, end])[:, None]))[0, 0]
    return share / (end - start)


def off(found: Tensor, truth: Tensor, step: Tensor) -> Tensor:
    """Relative L2 errors of attributions."""
    return ((found - truth) * step).flatten(1).norm(dim=1) / (truth * step).flatten(1).norm(dim=1)


# --- completeness -----------------------------------------------------------------------------------------------------


class Called(nn.Module):
    """A two-layer network around any function."""

    def __init__(
        self, function: Callable[[Tensor], Tensor], features: int = 6, hidden: int = 10
    ) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(features, hidden), nn.Linear(hidden, 3)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x)))


MODULES = {
    "ReLU": nn.ReLU,
    "ReLU in place": lambda: nn.ReLU(inplace=True),
    "ReLU6": nn.ReLU6,
    "LeakyReLU": lambda: nn.LeakyReLU(0.2),
    "LeakyReLU in place": lambda: nn.LeakyReLU(0.2, inplace=True),
    "GELU": nn.GELU,
    "GELU tanh": lambda: nn.GELU(approximate="tanh"),
    "SiLU": nn.SiLU,
    "SiLU in place": lambda: nn.SiLU(inplace=True),
    "Mish": nn.Mish,
    "Tanh": nn.Tanh,
    "Sigmoid": nn.Sigmoid,
    "Softplus": nn.Softplus,
    "Hardswish": nn.Hardswish,
    "Hardswish in place": lambda: nn.Hardswish(inplace=True),
    "Hardsigmoid": nn.Hardsigmoid,
    "Hardtanh": nn.Hardtanh,
    "ELU": nn.ELU,
    "ELU in place": lambda: nn.ELU(inplace=True),
    "SELU": nn.SELU,
    "CELU": nn.CELU,
    "Softsign": nn.Softsign,
    "LogSigmoid": nn.LogSigmoid,
    "Threshold": lambda: nn.Threshold(0.0, 0.0),
}

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "F.relu": F.relu,
    "F.relu(x, True)": lambda u: F.relu(u, True),
    "F.relu(inplace=True)": lambda u: F.relu(u, inplace=True),
    "F.relu(input=x)": lambda u: F.relu(input=u),
    "F.relu_": F.relu_,
    "torch.sigmoid(input=x)": lambda u: torch.sigmoid(input=u),
    "torch.clamp(input=x)": lambda u: torch.clamp(input=u, min=0),
    "x.relu()": lambda u: u.relu(),
    "x.relu_()": lambda u: u.relu_(),
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "F.relu6(x, True)": lambda u: F.relu6(u, True),
    "F.leaky_relu(x, .1, True)": lambda u: F.leaky_relu(u, 0.1, True),
    "F.elu(x, 1.2, True)": lambda u: F.elu(u, 1.2, True),
    "F.selu(x, True)": lambda u: F.selu(u, True),
    "F.celu(x, .7, True)": lambda u: F.celu(u, 0.7, True),
    "F.hardswish(x, True)": lambda u: F.hardswish(u, True),
    "F.silu(x, True)": lambda u: F.silu(u, True),
    "F.hardtanh(x, -.5, .5, True)": lambda u: F.hardtanh(u, -0.5, 0.5, True),
    "F.threshold(x, .1, 0, True)": lambda u: F.threshold(u, 0.1, 0.0, True),
    "F.gelu": F.gelu,
    "F.softplus(x, 2)": lambda u: F.softplus(u, 2),
    "F.sigmoid": torch.sigmoid,
    "x.sigmoid_()": lambda u: u.sigmoid_(),
    "x.tanh()": lambda u: u.tanh(),
    "x.tanh_()": lambda u: u.tanh_(),
    "torch.clamp": lambda u: torch.clamp(u, -0.3, 0.6),
    "clamp(min=0)": lambda u: u.clamp(min=0),
    "clamp_": lambda u: u.clamp_(0, 1),
    "clamp_min": lambda u: u.clamp_min(0.1),
    "exp": torch.exp,
    "abs": lambda u: u.abs(),
    "square": lambda u: u.square(),
    "sqrt of softplus": lambda u: F.softplus(u).sqrt(),
    "swish by hand": lambda u: u * torch.sigmoid(u),
    "swish, other order": lambda u: torch.sigmoid(u).mul(u),
    "torch.mul": lambda u: torch.mul(u, u.tanh()),
    "u * u": lambda u: u * u,
    "2 * u * u.T": lambda u: 2 * u * u.flip(1),
    "gate (N, 1)": lambda u: u * torch.sigmoid(u.mean(1, keepdim=True)),
    "gate first": lambda u: torch.sigmoid(u.mean(1, keepdim=True)) * u,
    "residual": lambda u: u + F.relu(u),
    "in place, then used again": lambda u: (lambda v: v + u.flip(1))(F.relu(u, inplace=True)),
    "concatenation": lambda u: torch.cat([F.relu(u[:, :5]), torch.tanh(u[:, 5:])], 1),
    "chunks": lambda u: torch.cat([u[:, :5] * torch.sigmoid(u[:, 5:]), u[:, :5]], 1),
    "tokens folded": lambda u: F.gelu(u.reshape(-1, 5)).reshape(-1, 10),
    "in place on a view": lambda u: (F.relu_(u[:, :5]), u)[1],
    "constants": lambda u: F.relu(u) * torch.linspace(-1, 1, 10, dtype=torch.float64) / 3 - 1,
}


@pytest.mark.parametrize("name", list(MODULES))
def test_complete_for_modules(name: str) -> None:
    field = ig.TorchField(
        grown(lambda: nn.Sequential(nn.Linear(6, 9), MODULES[name](), nn.Linear(9, 3))), 1
    )
    assert defect(field, STARTS, ENDS) < 1e-10
    assert field.chordal


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_complete_for_functions(name: str) -> None:
    field = ig.TorchField(grown(lambda: Called(FUNCTIONS[name])), 2)
    assert defect(field, STARTS, ENDS) < 1e-10
    assert field.chordal


@pytest.mark.parametrize("name", [*MODULES, *FUNCTIONS])
def test_values_are_those_of_the_model(name: str) -> None:
    function = MODULES[name]() if name in MODULES else FUNCTIONS[name]
    model = grown(lambda: Called(function))
    with torch.no_grad():
        expected = model(ENDS)[:, 1]
    place = torch.arange(len(ENDS))
    found = ig.TorchField(model, 1).evaluate_chords(ENDS, place, place)
    torch.testing.assert_close(found.value, expected, rtol=0, atol=1e-14)


class Block(nn.Module):
    """Convolution, batch norm, ReLU in place, squeeze and excite, a residual, a concatenation, average pools."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.act = nn.ReLU(inplace=True)
        self.down, self.up = nn.Conv2d(6, 2, 1), nn.Conv2d(2, 6, 1)
        self.depth = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.pool, self.head = nn.AvgPool2d(2), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.stem(x)))
        gate = F.hardsigmoid(self.up(F.silu(self.down(F.adaptive_avg_pool2d(x, 1)))))
        y = x * gate
        y = x + F.hardswish(self.depth(y))
        both = torch.cat([y, F.gelu(x)], 1)
        return self.head(self.pool(both).mean((2, 3)))


def test_complete_for_a_convolutional_network() -> None:
    model = grown(Block)
    with torch.no_grad():
        model.norm.running_mean.copy_(wave(6, scale=0.2))
        model.norm.running_var.copy_(1 + wave(6, phase=1, scale=0.4))
    field = ig.TorchField(model, 2)
    assert defect(field, IMAGE_STARTS, IMAGE_ENDS) < 1e-10
    assert field.chordal


@pytest.mark.parametrize("act", [nn.ReLU, nn.GELU, nn.Tanh, nn.Hardswish])
def test_complete_when_deep(act: Callable[[], nn.Module]) -> None:
    layers = [layer for _ in range(5) for layer in (nn.Linear(6, 6), act())]
    field = ig.TorchField(grown(lambda: nn.Sequential(*layers, nn.Linear(6, 2))), 0)
    assert defect(field, STARTS, ENDS) < 1e-10
    assert field.chordal


@pytest.mark.parametrize(
    "target",
    [
        ig.targets.Logit(1),
        torch.tensor([0, 1, 2, 2, 1, 0]),
        ig.targets.Margin(0, 2),
        lambda out: out[:, 0] * out[:, 1],
        lambda out: torch.sigmoid(out[:, 0]) - out[:, 2].square(),
    ],
    ids=["logit", "logit each", "margin", "product", "sigmoid"],
)
def test_complete_for_targets(target: Any) -> None:
    field = ig.TorchField(
        filled(nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))), target
    )
    assert defect(field, STARTS, ENDS) < 1e-10
    assert field.chordal


def test_custom_data_belongs_to_its_example() -> None:
    field = ig.TorchField(
        filled(nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))),
        ig.targets.Custom(lambda out, w: (out * w).sum(1), wave(6, 3, phase=4)),
    )
    assert defect(field, STARTS, ENDS) < 1e-10
    turned = torch.tensor([3, 3, 0, 5, 1, 2])
    chord, _ = between(Subset(field, turned), STARTS, ENDS)
    direct, _ = between(field, STARTS, ENDS, turned)
    torch.testing.assert_close(chord, direct, rtol=0, atol=0)
    assert not torch.allclose(chord, between(field, STARTS, ENDS)[0])


# --- what a chord is --------------------------------------------------------------------------------------------------


def test_the_secant_by_hand() -> None:
    """c = V diag((φ(u_b) − φ(u_a)) / (u_b − u_a)) W, written out for a two-layer ReLU network."""
    model = filled(nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)))
    chord, _ = between(ig.TorchField(model, 2), STARTS, ENDS)
    first, last = model.requires_grad_(False)[0], model[2]
    on_the_way = 0
    for a, b, c in zip(STARTS, ENDS, chord, strict=True):
        expected = torch.zeros(6).double()
        for h in range(12):
            ua, ub = (float(first.weight[h] @ z + first.bias[h]) for z in (a, b))
            slope = (max(ub, 0.0) - max(ua, 0.0)) / (ub - ua)
            on_the_way += 0 < slope < 1
            expected += float(last.weight[2, h]) * slope * first.weight[h]
        torch.testing.assert_close(c, expected, rtol=0, atol=1e-13)
    assert on_the_way > 10


def test_the_product_by_hand() -> None:
    """Δ(uv) = v̄ Δu + ū Δv."""
    chord, _ = between(
        ig.TorchField(lambda z: z[:, 0] * z[:, 1], ig.targets.Output()), STARTS, ENDS
    )
    middle = (STARTS + ENDS) / 2
    torch.testing.assert_close(chord[:, :2], middle[:, [1, 0]], rtol=0, atol=1e-14)
    assert not chord[:, 2:].any()


@pytest.mark.parametrize("act", [nn.Tanh, nn.GELU, nn.Softplus, nn.SiLU])
def test_becomes_the_gradient(act: Callable[[], nn.Module]) -> None:
    """|c − ∇F(b)| falls like the step, down to steps where rounding would spoil a naive quotient."""
    field = ig.TorchField(filled(nn.Sequential(nn.Linear(6, 12), act(), nn.Linear(12, 3))), 1)
    gradient = field.gradient(ENDS)
    gaps = []
    for exponent in (1, 2, 3, 5, 7, 9, 12):
        step = 10.0**-exponent
        chord, _ = between(field, ENDS - step * wave(6, 6, phase=5), ENDS)
        gaps.append(float((chord - gradient).abs().max()))
        assert gaps[-1] < 3 * step + 1e-11
    assert gaps[0] > 1e-4


def test_a_row_before_itself_is_its_gradient() -> None:
    model = grown(Block)
    field, place = ig.TorchField(model, 0), torch.arange(4)
    found = field.evaluate_chords(IMAGE_ENDS, place, place)
    torch.testing.assert_close(found.gradient, field.gradient(IMAGE_ENDS), rtol=0, atol=1e-13)


def test_kinks_away_from_zero() -> None:
    """ReLU6 bends at 6, where a step of 0.003 is relatively small, and its chord is still not its derivative."""
    field = ig.TorchField(lambda z: nn.functional.relu6(z).sum(1), ig.targets.Output())
    start, end = torch.full((1, 3), 5.998).double(), torch.full((1, 3), 6.001).double()
    assert defect(field, start, end) < 1e-10
    assert field.chordal


def slope_of(errors: dict[int, float]) -> float:
    x, y = (torch.tensor(list(side)).double().log() for side in (errors.keys(), errors.values()))
    x, y = x - x.mean(), y - y.mean()
    return float(-(x * y).sum() / (x * x).sum())


@pytest.mark.parametrize("act", [nn.Tanh, nn.GELU, nn.Softplus])
def test_second_order(act: Callable[[], nn.Module]) -> None:
    model = filled(nn.Sequential(nn.Linear(6, 12), act(), nn.Linear(12, 8), act(), nn.Linear(8, 3)))
    field = ig.TorchField(model, 1)
    truth = fine(field, STARTS, ENDS, 20000)
    step = ENDS - STARTS
    errors = {
        n: float(off(chain(field, STARTS, ENDS, n), truth, step).mean()) for n in (8, 16, 32, 64)
    }
    assert slope_of(errors) == pytest.approx(2, abs=0.25)
    assert errors[64] < 1e-3


def test_better_than_the_trapezoid_at_kinks() -> None:
    def make():
        return nn.Sequential(
            nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 3)
        )

    ratios = []
    for seed in range(4):
        field = ig.TorchField(grown(make, seed), 1)
        truth, step = fine(field, STARTS, ENDS), ENDS - STARTS
        chords = off(chain(field, STARTS, ENDS, 8), truth, step).mean()
        ends = off(chain(field, STARTS, ENDS, 8, mean=True), truth, step).mean()
        ratios.append(float(ends / chords))
    assert math.prod(ratios) ** (1 / 4) >= 3, ratios
    assert min(ratios) > 1.5, ratios


# --- what chords do not know ------------------------------------------------------------------------------------------


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out, self.head = nn.Linear(3, 15), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x.reshape(-1, 6, 3)).chunk(3, -1)
        mixed = torch.softmax(2 * q @ k.transpose(1, 2), -1) @ v
        return self.head(self.out(mixed).mean(1))


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(6, 10), nn.LayerNorm(10), nn.GELU(), nn.Linear(10, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRU(2, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(3 * x.reshape(-1, 3, 2))[0][:, -1])


def pooled() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(3, 1), nn.Flatten(), nn.Linear(16, 3)
    )


STRANGERS: dict[str, tuple[Callable[[], nn.Module], Tensor, Tensor]] = {
    "layer norm": (Normed, STARTS, ENDS),
    "attention": (Attention, wave(4, 18, phase=0.6), wave(4, 18, phase=3.1)),
    "overlapping max pool": (pooled, IMAGE_STARTS, IMAGE_ENDS),
    "custom function": (lambda: Called(Cube.apply), STARTS, ENDS),
    "recurrent": (Recurrent, STARTS, ENDS),
    "jump": (lambda: Called(lambda u: torch.where(u > 0.3, 2 + u, -u)), STARTS, ENDS),
    "where": (lambda: Called(lambda u: torch.where(u > 0, u, 0.1 * u)), STARTS, ENDS),
    "power": (lambda: Called(lambda u: u**3), STARTS, ENDS),
    "division": (lambda: Called(lambda u: u / (1 + u.square().sum(1, keepdim=True))), STARTS, ENDS),
    "maximum": (lambda: Called(lambda u: torch.maximum(u, u.flip(1))), STARTS, ENDS),
    "bilinear": (
        lambda: Called(lambda u: torch.einsum("ni,ni->n", u, u.flip(1))[:, None] * u),
        STARTS,
        ENDS,
    ),
    "product in place": (lambda: Called(lambda u: (1 * u).mul_(torch.sigmoid(u))), STARTS, ENDS),
    "glu": (lambda: Called(lambda u: F.glu(torch.cat([u, u.flip(1)], 1))), STARTS, ENDS),
    "clamp by a tensor": (lambda: Called(lambda u: torch.clamp(u, min=u.flip(1))), STARTS, ENDS),
    "rows along the second axis": (
        lambda: Called(
            lambda u: F.relu(u.reshape(-1, 5, 2).transpose(0, 1)).transpose(0, 1).reshape(-1, 10)
        ),
        STARTS,
        ENDS,
    ),
    "tokens before rows": (
        lambda: Called(lambda u: F.gelu(u.T.reshape(-1, 1)).reshape(10, -1).T),
        STARTS,
        ENDS,
    ),
}


@pytest.mark.parametrize("name", list(STRANGERS))
def test_never_silently_wrong(name: str) -> None:
    """Either chords give way to the mean of end gradients, or they integrate rightly all the same."""
    make, start, end = STRANGERS[name]
    field = ig.TorchField(grown(make), 1)
    truth = fine(field, start, end)
    found = chain(field, start, end, 64)
    assert float(off(found, truth, end - start).max()) < 0.03
    if not field.chordal:
        torch.testing.assert_close(
            found, chain(field, start, end, 64, mean=True), rtol=0, atol=1e-14
        )


@pytest.mark.parametrize("name", ["custom function", "recurrent", "jump"])
def test_falls_back_for_good(name: str) -> None:
    make, start, end = STRANGERS[name]
    field = ig.TorchField(grown(make), 1)
    chord, _ = between(field, start, end)
    assert not field.chordal
    expected = (field.gradient(start) + field.gradient(end)) / 2
    torch.testing.assert_close(chord, expected, rtol=0, atol=1e-13)
    counted = Counting(field.network.model)
    field.network.model, field.network.optimiser = counted, None
    between(field, start, end)
    assert (counted.calls, counted.gradients) == (1, 2 * len(start))


def test_probability_is_integrated_rightly() -> None:
    model = grown(lambda: nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)))
    field = ig.TorchField(model, ig.targets.Probability(1))
    truth = fine(field, STARTS, ENDS)
    assert float(off(chain(field, STARTS, ENDS, 64), truth, ENDS - STARTS).max()) < 0.03


def test_fields_without_chords_give_the_mean_of_ends() -> None:
    field = ig.fields.Function(lambda z: torch.sin(z).prod(1))
    chord, _ = between(field, STARTS, ENDS)
    expected = (field.gradient(STARTS) + field.gradient(ENDS)) / 2
    torch.testing.assert_close(chord, expected, rtol=0, atol=1e-15)


# --- streaming --------------------------------------------------------------------------------------------------------

RUNS = [5, 1, 2, 9, 3, 1, 4]  # rows of each run; runs belong to examples in this order
OF = [0, 0, 1, 2, 2, 3, 0]


def streamed(
    field: ig.fields.Field, dtype: torch.dtype = torch.float64
) -> tuple[Evaluation, Tensor, Tensor, Tensor]:
    """Chords along several runs: what is found, the rows, which begin, and whose they are."""
    begins = torch.cat([torch.arange(n) == 0 for n in RUNS])
    index = torch.tensor(OF).repeat_interleave(torch.tensor(RUNS))
    z = wave(sum(RUNS), 6, phase=1.3, scale=1.5).to(dtype)
    value, slope = z.new_full((len(z),), float("nan")), torch.full_like(z, float("nan"))

    def use(part: slice, found: Evaluation) -> None:
        value[part], slope[part] = found.value, found.gradient

    before = torch.arange(len(z)) - (~begins).long()
    field.stream_chords(index, before, lambda rows: z[rows], use, z[0])
    return Evaluation(value, slope), z, begins, index


def by_example(rows: int | None = None, model: nn.Module | None = None) -> ig.TorchField:
    made = model or filled(nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)))
    return ig.TorchField(made, torch.tensor([0, 2, 1, 2]), batch_size=rows)


@pytest.mark.parametrize("rows", [2, 3, 7, 64, None])
def test_streams_are_the_same_however_cut(rows: int | None) -> None:
    found, z, begins, index = streamed(by_example(rows))
    field = by_example()
    for i in range(len(z)):
        before = z[i] if begins[i] else z[i - 1]
        pair = torch.stack([before, z[i]])
        own = field.evaluate_chords(pair, index[[i, i]], torch.tensor([0, 0]))
        torch.testing.assert_close(found.gradient[i], own.gradient[1], rtol=0, atol=1e-13)
        torch.testing.assert_close(found.value[i], own.value[1], rtol=0, atol=1e-13)


@pytest.mark.parametrize("rows", [2, 3, 64])
def test_streams_of_models_without_chords_are_the_same_however_cut(rows: int) -> None:
    found = streamed(by_example(rows, grown(Normed)))[0]
    whole = streamed(by_example(64, grown(Normed)))[0]
    torch.testing.assert_close(found.value, whole.value, rtol=0, atol=1e-13)
    torch.testing.assert_close(found.gradient, whole.gradient, rtol=0, atol=1e-12)


def test_streams_a_row_at_a_time_are_gradients_at_both_ends() -> None:
    """Of one row there is no chord; every gradient is asked for once."""
    model = Counting(filled(nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))))
    found, z, begins, index = streamed(by_example(1, model))
    assert (model.gradients, model.largest) == (len(z), 1)
    whole = by_example().evaluate(z, index)
    before = torch.where(begins[:, None], whole.gradient, whole.gradient.roll(1, 0))
    torch.testing.assert_close(found.gradient, (whole.gradient + before) / 2, rtol=0, atol=1e-13)
    torch.testing.assert_close(found.value, whole.value, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("rows", "most"), [(64, 25), (5, 31), (2, 43)])
def test_metered(rows: int, most: int) -> None:
    """Every row is paid for once, and again only where a cut goes through a run; no call holds more than were allowed."""
    counted = Counting(filled(nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))))
    meter = CountedField(by_example(rows, counted))
    plain = streamed(by_example(rows))[0]
    found = streamed(meter)[0]
    torch.testing.assert_close(found.gradient, plain.gradient, rtol=0, atol=0)
    assert meter.tally.gradients == counted.gradients
    assert sum(RUNS) <= meter.tally.gradients <= most
    assert meter.tally.values == 0
    assert meter.tally.calls == counted.calls >= math.ceil(sum(RUNS) / rows)
    assert counted.largest <= rows


def test_float32() -> None:
    """Neither neighbours that almost touch nor large steps lose more than single precision must."""
    model = filled(
        nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3))
    )
    exact = ig.TorchField(model, 1)
    steps = [1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-6]
    truths = [between(exact, ENDS - s * (ENDS - STARTS), ENDS)[0] for s in steps]
    single = ig.TorchField(model.float(), 1)
    for step, truth in zip(steps, truths, strict=True):
        chord, _ = between(single, (ENDS - step * (ENDS - STARTS)).float(), ENDS.float())
        assert chord.dtype == torch.float32
        assert float((chord - truth).norm() / truth.norm()) < 2e-3, step
    assert single.chordal


# --- manners ----------------------------------------------------------------------------------------------------------


def test_the_model_is_given_back() -> None:
    model = grown(Block).requires_grad_()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    start, end = IMAGE_STARTS.clone(), IMAGE_ENDS.clone()
    between(ig.TorchField(model, 0), start, end)
    assert torch.equal(start, IMAGE_STARTS)
    assert torch.equal(end, IMAGE_ENDS)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(
        parameter.requires_grad and parameter.grad is None for parameter in model.parameters()
    )
    assert not any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules()
    )


def test_a_model_that_works_in_place_on_its_input() -> None:
    z = torch.cat([STARTS, ENDS])
    kept, model = z.clone(), grown(lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 3)))
    place = torch.arange(12)
    found = ig.TorchField(model, 0).evaluate_chords(z, place % 6, place % 6)
    assert torch.equal(z, kept)
    moved = (found.gradient * (z - z[place % 6])).sum(1)
    torch.testing.assert_close(moved, found.value - found.value[place % 6], rtol=0, atol=1e-12)


def test_nothing_leaks_after_an_exception() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ZeroDivisionError("inside the model")

    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), Broken()).double().eval()
    depth = torch._C._len_torch_function_stack()
    with pytest.raises(ig.errors.ModelError, match="ZeroDivisionError: inside the model"):
        between(ig.TorchField(model, 0), STARTS, ENDS)
    assert torch._C._len_torch_function_stack() == depth
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.is_grad_enabled()
    u = torch.tensor([-1.0, 2.0], requires_grad=True)
    (slope,) = torch.autograd.grad(F.relu(u).sum(), u)
    assert slope.tolist() == [0, 1]


def test_under_no_grad_and_inference_mode() -> None:
    field = by_example()
    expected = streamed(field)[0].gradient
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            found = streamed(field)[0].gradient
        torch.testing.assert_close(found.clone(), expected, rtol=0, atol=1e-13)
