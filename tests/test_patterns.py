"""Patterns: fitted by the formula, sample by sample; refused for other models; what comes back through them, restated."""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

import integrand as ig
from integrand.backprop.modified import fit_patterns as fitting
from integrand.backprop.modified.patterns import Pattern
from tests.problems import Counting, Observed, filled, softplus_cnn, wave
from tests.test_checkpointing import offloaded

REFERENCES = json.loads((Path(__file__).parent / "references" / "paths.json").read_text())
Patterns = ig.fields.Patterns


def values(patterns: ig.fields.Patterns) -> dict[str, Tensor]:
    return {one.name: one.values for one in patterns.each}


def mlp() -> nn.Sequential:
    return filled(
        nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
    )


def cnn() -> nn.Sequential:
    """conv – ReLU – max pool – strided grouped conv – ReLU – linear, for 3×8×8 images."""
    return filled(
        nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(24, 3),
        ),
        phase=0.7,
    )


FLAT = 0.3 + wave(50, 6, phase=0.2)
IMAGES = 0.5 + 0.5 * wave(20, 3, 8, 8, phase=0.1)


# --- the authors' experiment ------------------------------------------------------------------------------------------


def synthetic() -> tuple[nn.Sequential, Tensor]:
    """F(x) = 1 − ReLU(1 − w·x), w = (1, −1), and 400 rows z (1, 0) + N(0, .3) (1, 1), z from −2 to 2."""
    model = nn.Sequential(nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 1)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[-1.0, 1.0]]))
        model[0].bias.fill_(1)
        model[2].weight.fill_(-1)
        model[2].bias.fill_(1)
    z = np.arange(-2, 2, 0.01)
    noise = np.random.RandomState(42).normal(0, 0.3, len(z))
    return model, torch.tensor(np.outer(z, [1, 0]) + np.outer(noise, [1, 1]))


def test_the_authors_numbers_with_the_formula_of_the_paper() -> None:
    model, data = synthetic()
    patterns = Patterns.fit(model, data)
    a = values(patterns)["0"][0]
    torch.testing.assert_close(
        a, torch.tensor([-1.0170675, -0.0170675], dtype=torch.float64), rtol=0, atol=5e-8
    )
    expected = torch.tensor(REFERENCES["PGIG Kindermans pattern"], dtype=torch.float64)
    made = ig.explain(
        model,
        data[:5],
        target=0,
        method="pattern_guided",
        patterns=patterns,
        rule=ig.rules.Right(100),
    )
    torch.testing.assert_close(made.values, expected, rtol=0, atol=1e-8)


def test_the_authors_numbers_with_the_formula_of_their_code() -> None:
    """There E₊[h y] is E₊[h] E₊[y], by a slip of broadcasting, and the pattern E₊[h] / (w · E₊[h])."""
    model, data = synthetic()
    right = Patterns.fit(model, data)
    active = data[model(data)[:, 0] < 1]  # ReLU(…) > 0
    mean = active.mean(0)
    slip = (mean / (model[0].weight[0] @ mean)).detach()
    torch.testing.assert_close(
        slip, torch.tensor([-1.0032962, -0.0032962], dtype=torch.float64), rtol=0, atol=5e-8
    )
    first = Pattern("0", slip[None], right.each[0].fingerprint, right.each[0].rounding)
    expected = torch.tensor(REFERENCES["PGIG bug-compatible pattern"], dtype=torch.float64)
    made = ig.explain(
        model,
        data[:5],
        target=0,
        method=ig.methods.pattern_guided(
            Patterns((first, right.each[1])), rule=ig.rules.Right(100)
        ),
    )
    torch.testing.assert_close(made.values, expected, rtol=0, atol=1e-8)
    # The slip is not the formula: the two maps differ visibly.
    wrong = torch.tensor(REFERENCES["PGIG Kindermans pattern"], dtype=torch.float64)
    assert float((made.values - wrong).abs().max()) > 0.01


def test_the_mean_before_the_relu_gives_another_pattern() -> None:
    """Kindermans et al. take E[y] of w·x itself; the authors' numbers are with E[ReLU(y)]."""
    model, data = synthetic()
    a = values(Patterns.fit(model, data, "two-component"))["0"][0]
    torch.testing.assert_close(
        a, torch.tensor([-1.01620905, -0.01620905], dtype=torch.float64), rtol=0, atol=5e-9
    )


# --- estimators, sample by sample -------------------------------------------------------------------------------------


def by_hand(h: Tensor, y: Tensor, weight: Tensor, estimator: str, *, rectified: bool) -> Tensor:
    """Samples h (N, D) and y (N,) of one unit with weight (D,), one after the other."""
    chosen = [n for n in range(len(y)) if estimator == "linear" or y[n] > 0]
    if not chosen:
        return torch.zeros_like(weight)
    mean_y = sum(
        max(float(v), 0.0) if rectified and estimator == "positive" else float(v) for v in y
    ) / len(y)
    mean_hy = sum(h[n] * y[n] for n in chosen) / len(chosen)
    mean_h = sum(h[n] for n in chosen) / len(chosen)
    top = mean_hy - mean_h * mean_y
    return top / (weight @ top)


@pytest.mark.parametrize("estimator", ["positive", "two-component", "linear"])
def test_linear_layers(estimator: str) -> None:
    model = mlp()
    found = values(Patterns.fit(model, FLAT, estimator))
    assert list(found) == ["0", "2", "4"]
    h = FLAT
    with torch.no_grad():
        for name, layer in (("0", model[0]), ("2", model[2]), ("4", model[4])):
            y = layer(h)
            for unit in range(len(layer.weight)):
                expected = by_hand(
                    h, y[:, unit], layer.weight[unit], estimator, rectified=name != "4"
                )
                torch.testing.assert_close(found[name][unit], expected, rtol=1e-8, atol=1e-9)
            h = y.relu()


def test_the_linear_estimator_is_covariance_over_variance() -> None:
    layer = filled(nn.Linear(6, 2))
    found = values(Patterns.fit(layer, FLAT, "linear"))["weight"]
    y = layer(FLAT).detach()
    for unit in range(2):
        both = torch.cov(torch.cat([FLAT, y[:, unit : unit + 1]], 1).T, correction=0)
        torch.testing.assert_close(found[unit], both[:6, 6] / both[6, 6], rtol=0, atol=1e-12)


CONVOLUTIONS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "conv1d": lambda: (nn.Conv1d(2, 3, 3), wave(4, 2, 9)),
    "conv1d, dilated and strided": lambda: (nn.Conv1d(4, 4, 3, 2, 2, 2, groups=2), wave(4, 4, 11)),
    "conv2d, padded": lambda: (nn.Conv2d(2, 3, 3, padding=1), wave(3, 2, 5, 4)),
    "conv2d, 1x1": lambda: (nn.Conv2d(3, 2, 1), wave(3, 3, 4, 4)),
    "conv2d, oblong": lambda: (
        nn.Conv2d(2, 2, (3, 2), (2, 1), (0, 1), bias=False),
        wave(3, 2, 6, 5),
    ),
    "conv2d, a channel each": lambda: (nn.Conv2d(4, 8, 3, groups=4), wave(3, 4, 5, 5)),
    "conv2d, same": lambda: (
        nn.Conv2d(2, 2, (2, 3), padding="same", dilation=(1, 2)),
        wave(3, 2, 5, 6),
    ),
    "conv2d, valid": lambda: (nn.Conv2d(2, 2, 2, padding="valid"), wave(3, 2, 4, 4)),
    "conv2d, circular": lambda: (
        nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"),
        wave(3, 2, 5, 5),
    ),
    "conv3d": lambda: (nn.Conv3d(2, 2, 2, padding=1), wave(2, 2, 3, 4, 3)),
}


SAME = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
"""What torch says of the model itself, once."""


def windows(layer: Any, h: Tensor, unit: int) -> Tensor:
    """What one unit's weights are multiplied with, (samples, weights): a kernel that is one at a single place shows it."""
    columns = []
    kept = layer.weight.clone()
    for place in itertools.product(*(range(n) for n in layer.weight.shape[1:])):
        with torch.no_grad():
            layer.weight.zero_()
            layer.weight[(unit, *place)] = 1
            shown = layer(h)[:, unit] - (0 if layer.bias is None else layer.bias[unit])
        columns.append(shown.flatten())
    with torch.no_grad():
        layer.weight.copy_(kept)
    return torch.stack(columns, 1)


@SAME
@pytest.mark.parametrize("estimator", ["positive", "linear"])
@pytest.mark.parametrize("kind", list(CONVOLUTIONS))
def test_convolutions(kind: str, estimator: str) -> None:
    """Every place of every input is a sample."""
    made, h = CONVOLUTIONS[kind]()
    layer = filled(made)
    found = values(Patterns.fit(nn.Sequential(layer, nn.ReLU()), h, estimator))["0"]
    assert found.shape == layer.weight.shape
    y = layer(h).detach()
    for unit in range(len(layer.weight)):
        seen = windows(layer, h, unit)
        weight = layer.weight[unit].detach().flatten()
        expected = by_hand(seen, y[:, unit].flatten(), weight, estimator, rectified=True)
        torch.testing.assert_close(found[unit].flatten(), expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("estimator", ["positive", "two-component", "linear"])
def test_weights_times_pattern_is_one(estimator: str) -> None:
    model = cnn()
    for name, a in values(Patterns.fit(model, IMAGES, estimator)).items():
        weight = model.get_submodule(name).weight.detach()
        sums = (weight * a).flatten(1).sum(1)
        alive = a.flatten(1).any(1)
        assert bool(alive.any())
        torch.testing.assert_close(sums[alive], torch.ones_like(sums[alive]), rtol=0, atol=1e-9)


def test_units_that_say_nothing_have_no_pattern() -> None:
    layer = filled(nn.Linear(6, 4))
    with torch.no_grad():
        layer.bias[1] = -100  # never active
        layer.weight[2] = 0  # always the same
    a = values(Patterns.fit(layer, FLAT))["weight"]
    assert bool((a[1:3] == 0).all())
    assert bool(a[[0, 3]].all())
    field = ig.TorchField(layer, 1, backward=Patterns.fit(layer, FLAT))
    assert bool((field.gradient(FLAT) == 0).all())


def test_a_mean_far_from_zero() -> None:
    """Covariances are differences of large sums; float64 leaves enough of them for float32 data."""
    layer = filled(nn.Linear(6, 2)).float()
    near, far = FLAT.float(), (FLAT + 1000).float()
    one, other = (values(Patterns.fit(layer, data, "linear"))["weight"] for data in (near, far))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-3)


# --- data -------------------------------------------------------------------------------------------------------------


class Loud:
    """A dataset of pairs."""

    def __len__(self) -> int:
        return len(FLAT)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return FLAT[i], i


DATA: dict[str, Callable[[], Any]] = {
    "one batch": lambda: [FLAT],
    "a loader": lambda: DataLoader(TensorDataset(FLAT, torch.arange(50)), 7),
    "a shuffled loader": lambda: DataLoader(
        TensorDataset(FLAT), 8, shuffle=True, generator=torch.Generator()
    ),
    "a dataset": lambda: TensorDataset(FLAT),
    "a dataset of pairs": Loud,
    "a generator": lambda: (FLAT[n : n + 9] for n in range(0, 50, 9)),
    "dicts": lambda: [{"input": FLAT[:20]}, {"input": FLAT[20:]}],
    "tuples of arguments": lambda: [((FLAT[:20],), 3), ((FLAT[20:],), 4)],
}


@pytest.mark.parametrize("kind", list(DATA))
def test_how_data_comes_does_not_matter(kind: str) -> None:
    model, data = mlp(), DATA[kind]()
    expected = values(Patterns.fit(model, FLAT))
    state = torch.random.get_rng_state()
    found = values(Patterns.fit(model, data))
    if kind not in (
        "a loader",
        "a shuffled loader",
    ):  # those draw a seed for their workers themselves
        assert torch.equal(torch.random.get_rng_state(), state)
    for name, a in expected.items():
        torch.testing.assert_close(found[name], a, rtol=0, atol=1e-11)


@given(size=st.integers(1, 60), chunk=st.sampled_from([1, 17, 1 << 22]))
def test_batches_and_chunks_do_not_matter(size: int, chunk: int) -> None:
    data = IMAGES[:6]
    expected = values(Patterns.fit(cnn(), data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "_CHUNK_ELEMENTS", chunk)
        found = values(Patterns.fit(cnn(), data, batch_size=size))
    for name, a in expected.items():
        torch.testing.assert_close(found[name], a, rtol=1e-9, atol=1e-10)


def test_float32_models_get_float32_patterns_from_float64_sums() -> None:
    one, other = Patterns.fit(mlp(), FLAT), Patterns.fit(mlp().float(), FLAT.float())
    for name, a in values(other).items():
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.double(), values(one)[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "empty"),
        (torch.zeros(0, 6).double(), "empty"),
        (torch.zeros(6), r"\(N, \*s\)"),
        ("words", "not on str"),
        (3, "not on int"),
        ([3], "holds int"),
        ([FLAT.clone().fill_(float("nan"))], "NaN"),
    ],
)
def test_data_that_is_none(data: Any, message: str) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        Patterns.fit(mlp(), data)


@pytest.mark.filterwarnings("ignore:.torch.jit.trace")
def test_fitting_refuses_what_has_no_layers() -> None:
    with pytest.raises(ig.errors.ModelError, match=r"give an nn.Module, not function"):
        Patterns.fit(lambda z: z, FLAT)  # type: ignore[arg-type]
    with pytest.raises(ig.errors.ModelError, match="No layer with a weight"):
        Patterns.fit(nn.Tanh(), FLAT)
    with pytest.raises(ig.errors.ModelError, match="scripted"):
        Patterns.fit(torch.jit.trace(mlp(), FLAT), FLAT)
    with pytest.raises(ig.errors.InputError, match="'positive'"):
        Patterns.fit(mlp(), FLAT, "relu")
    with pytest.raises(ig.errors.InputError, match="batch_size"):
        Patterns.fit(mlp(), FLAT, batch_size=0)


# --- whose weights ----------------------------------------------------------------------------------------------------


class Shared(nn.Module):
    """One layer twice, a weight without a layer, and two names for one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Linear(6, 6)
        self.loose = nn.Parameter(torch.zeros(5, 6))
        self.up, self.down = nn.Linear(5, 4), nn.Linear(5, 4)
        self.down.weight = self.up.weight

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.twice(F.relu(self.twice(x))))
        h = F.linear(h, self.loose)
        return self.up(h) + self.down(-h)


def test_weights_name_their_layers() -> None:
    model = filled(Shared())
    patterns = Patterns.fit(model, FLAT)
    assert [one.name for one in patterns.each] == ["twice", "loose", "up"]
    with torch.no_grad():
        first = model.twice(FLAT)
        second = model.twice(first.relu())
    h, y = torch.cat([FLAT, first.relu()]), torch.cat([first, second])
    for unit in range(6):
        expected = by_hand(
            h, y[:, unit], model.twice.weight[unit].detach(), "positive", rectified=True
        )
        torch.testing.assert_close(values(patterns)["twice"][unit], expected, rtol=1e-8, atol=1e-9)
    assert ig.TorchField(model, 0, backward=patterns).gradient(FLAT).shape == FLAT.shape


def normed(model: nn.Sequential, how: str) -> nn.Sequential:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        norm = (
            nn.utils.parametrizations.weight_norm if how == "parametrized" else nn.utils.weight_norm
        )
        norm(model[0])
        norm(model[2])
    return model


@pytest.mark.parametrize("how", ["parametrized", "hooked"])
def test_weights_that_are_computed(how: str) -> None:
    plain, model = mlp(), normed(mlp(), how)
    torch.testing.assert_close(model(FLAT), plain(FLAT), rtol=0, atol=1e-12)
    expected, found = Patterns.fit(plain, FLAT), Patterns.fit(model, FLAT)
    before = {id(m): set(vars(m)) for m in model.modules()}
    assert [one.name for one in found.each] == ["0", "2", "4"]
    for name, a in values(expected).items():
        torch.testing.assert_close(values(found)[name], a, rtol=1e-8, atol=1e-9)
    one = ig.TorchField(plain, 1, backward=expected).gradient(FLAT)
    other = ig.TorchField(model, 1, backward=found).gradient(FLAT)
    torch.testing.assert_close(other, one, rtol=1e-8, atol=1e-9)
    assert {id(m): set(vars(m)) for m in model.modules()} == before


@pytest.mark.parametrize("how", ["by hand", "by accelerate"])
def test_weights_that_are_kept_elsewhere(how: str) -> None:
    """Parameters are new ones with every call, and on no device between."""
    if how == "by hand":
        model: Any = offloaded(mlp())
    else:
        import accelerate

        model = accelerate.cpu_offload(mlp(), execution_device=torch.device("cpu"))
    expected, found = Patterns.fit(mlp(), FLAT), Patterns.fit(model, FLAT)
    assert found == expected
    one, other = (ig.TorchField(m, 1, backward=expected).gradient(FLAT) for m in (mlp(), model))
    torch.testing.assert_close(other, one, rtol=0, atol=1e-12)
    assert all(parameter.is_meta for parameter in model.parameters())


class Unasked(nn.Module):
    """What torch does inside one call is not seen, nor are products that are no layers."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.back = nn.ConvTranspose1d(2, 2, 3)
        self.head = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = x.reshape(-1, 2, 6)
        h = self.attention(h, h, h, need_weights=False)[0]
        return self.head(self.back(h).flatten(1))


def test_what_is_not_covered_keeps_its_derivative() -> None:
    model = filled(Unasked())
    data = wave(30, 12)
    patterns = Patterns.fit(model, data)
    assert [one.name for one in patterns.each] == ["head"]
    x = data[:3].clone().requires_grad_()
    h = model.back(model.attention(*[x.reshape(-1, 2, 6)] * 3, need_weights=False)[0]).flatten(1)
    back = (model.head.weight * values(patterns)["head"])[1]
    (expected,) = torch.autograd.grad((h @ back).sum(), x)
    torch.testing.assert_close(
        ig.TorchField(model, 1, backward=patterns).gradient(data[:3]), expected, rtol=0, atol=1e-12
    )


# --- the way back -----------------------------------------------------------------------------------------------------


def restated(
    model: nn.Sequential, patterns: ig.fields.Patterns, x: Tensor, target: int, kind: str
) -> Tensor:
    """Every layer's own value, and the gradient of the same layer with other weights."""
    a = values(patterns)
    x = x.clone().requires_grad_()
    h = x
    for name, layer in model.named_children():
        if name in a:
            own = layer(h).detach()
            kept = layer.weight
            factor = a[name] * kept if kind == "attribution" else a[name]
            made = torch.func.functional_call(layer, {"weight": factor.detach()}, (h,))
            h = own + made - made.detach()
        else:
            h = layer(h)
    return torch.autograd.grad(h[:, target].sum(), x)[0]


@pytest.mark.parametrize("kind", ["attribution", "signal"])
@pytest.mark.parametrize(("build", "data"), [(mlp, FLAT), (cnn, IMAGES), (softplus_cnn, IMAGES)])
def test_what_comes_back(build: Callable[[], nn.Sequential], data: Tensor, kind: str) -> None:
    model = build()
    patterns = Patterns.fit(model, data)
    patterns = Patterns(patterns.each, patterns.estimator, kind)
    field = ig.TorchField(model, 2, backward=patterns)
    torch.testing.assert_close(
        field.gradient(data[:5]),
        restated(model, patterns, data[:5], 2, kind),
        rtol=1e-9,
        atol=1e-10,
    )
    plain = ig.TorchField(model, 2)
    own = model(data[:5])[:, 2].detach()
    torch.testing.assert_close(field.value(data[:5]), own, rtol=0, atol=1e-13)
    index = torch.arange(5)
    torch.testing.assert_close(field.evaluate(data[:5], index).value, own, rtol=0, atol=1e-13)
    assert float((field.gradient(data[:5]) - plain.gradient(data[:5])).abs().max()) > 1e-3


@SAME
@pytest.mark.parametrize("kind", list(CONVOLUTIONS))
def test_what_comes_back_through_convolutions(kind: str) -> None:
    made, h = CONVOLUTIONS[kind]()
    model = filled(nn.Sequential(made, nn.ReLU(), nn.Flatten()))
    patterns = Patterns.fit(model, h)
    found = ig.TorchField(model, 0, backward=patterns).gradient(h)
    torch.testing.assert_close(
        found, restated(model, patterns, h, 0, "attribution"), rtol=1e-9, atol=1e-10
    )


class OneByOne(nn.Module):
    """A convolution that is given its inputs without a batch axis."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.inner(one) for one in x]).flatten(1)


def test_without_a_batch_axis() -> None:
    conv = nn.Conv2d(2, 3, 3, padding=1)
    h = wave(4, 2, 5, 5)
    one, other = filled(nn.Sequential(conv, nn.Flatten())), OneByOne(conv)
    found, alone = Patterns.fit(one, h), Patterns.fit(other, h)
    torch.testing.assert_close(values(alone)["inner"], values(found)["0"], rtol=0, atol=1e-11)
    torch.testing.assert_close(
        ig.TorchField(other, 0, backward=alone).gradient(h),
        ig.TorchField(one, 0, backward=found).gradient(h),
        rtol=0,
        atol=1e-12,
    )


def test_it_follows_weights_that_change_between_calls() -> None:
    """What is kept in the weights' place is made anew; that they are other weights is said when the rule is bound."""
    model = mlp()
    patterns = Patterns.fit(model, FLAT)
    field = ig.TorchField(model, 0, backward=patterns)
    before = field.gradient(FLAT)
    with torch.no_grad():
        model[4].weight.mul_(2)
    torch.testing.assert_close(field.gradient(FLAT), 2 * before, rtol=0, atol=1e-12)
    with pytest.raises(ig.errors.InputError, match=r"layer '4' has other weights"):
        field.with_backward(patterns)


def test_a_layer_that_did_not_run_before() -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.low, self.high = nn.Linear(6, 2), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.high(x) if bool((x > 50).any()) else self.low(x)

    model = filled(Gate())
    field = ig.TorchField(model, 0, backward=Patterns.fit(model, FLAT))
    assert field.gradient(FLAT).shape == FLAT.shape
    with pytest.raises(ig.errors.ModelError, match=r"Layer 'high' runs, but has no pattern"):
        field.gradient(FLAT + 100)


def test_not_implementation_invariant() -> None:
    """One function twice, one map each: the first layer split into two that do the same together."""
    one = filled(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)))
    other = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    turn = torch.eye(6).double() + 0.3 * wave(6, 6)
    with torch.no_grad():
        other[0].weight.copy_(turn)
        other[0].bias.zero_()
        other[1].weight.copy_(one[0].weight @ torch.linalg.inv(turn))
        other[1].bias.copy_(one[0].bias)
        other[3].load_state_dict(one[2].state_dict())
    torch.testing.assert_close(one(FLAT), other(FLAT), rtol=0, atol=1e-12)
    maps = [
        ig.explain(
            m, FLAT[:4], target=0, method="pattern_guided", patterns=Patterns.fit(m, FLAT)
        ).values
        for m in (one, other)
    ]
    assert float((maps[0] - maps[1]).abs().max()) > 1e-3


# --- as a method ------------------------------------------------------------------------------------------------------


def test_the_mean_of_what_comes_back() -> None:
    model, x = cnn(), IMAGES[:4]
    patterns = Patterns.fit(model, IMAGES)
    made = ig.explain(model, x, target=1, method="pattern_guided", patterns=patterns, baseline=0.25)
    expected = torch.zeros_like(x)
    for k in range(1, 26):
        point = 0.25 + k / 25 * (x - 0.25)
        expected += (x - 0.25) * restated(model, patterns, point, 1, "attribution") / 25
    torch.testing.assert_close(made.values, expected, rtol=0, atol=1e-10)
    change = model(x)[:, 1] - model(torch.full_like(x, 0.25))[:, 1]
    torch.testing.assert_close(
        made.residual, change.detach() - made.values.flatten(1).sum(1), rtol=0, atol=1e-10
    )
    assert made.cost.gradients == 25 * 4
    assert repr(made.method) == repr(ig.methods.pattern_guided(patterns, 0.25))


@pytest.mark.parametrize("batch_size", [1, 3, None])
def test_five_at_once_are_five_alone(batch_size: int | None) -> None:
    model, x = cnn(), IMAGES[:5]
    method = ig.methods.pattern_guided(Patterns.fit(model, IMAGES), rule=ig.rules.Right(6))
    whole = ig.explain(
        model, x, target=torch.tensor([0, 2, 1, 0, 2]), method=method, batch_size=batch_size
    )
    for b, target in enumerate([0, 2, 1, 0, 2]):
        alone = ig.explain(model, x[b : b + 1], target=target, method=method)
        torch.testing.assert_close(alone.values[0], whole.values[b], rtol=0, atol=1e-12)


def test_the_target_is_what_comes_back_first() -> None:
    model, x = mlp(), FLAT[:3]
    patterns = Patterns.fit(model, FLAT)
    logits = [ig.TorchField(model, c, backward=patterns).gradient(x) for c in range(3)]
    p = model(x).softmax(1).detach()
    expected = p[:, :1] * (logits[0] - sum(p[:, c : c + 1] * logits[c] for c in range(3)))
    found = ig.TorchField(model, ig.targets.Probability(0), backward=patterns).gradient(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_it_costs_what_it_says() -> None:
    inner = mlp()
    model = Counting(inner)
    patterns = Patterns.fit(model, FLAT)
    model.reset()
    made = ig.explain(
        model,
        FLAT[:5],
        target=0,
        method="pattern_guided",
        patterns=patterns,
        rule=ig.rules.Right(7),
    )
    assert model.gradients == made.cost.gradients == 7 * 5
    assert model.values == made.cost.values


@pytest.mark.parametrize("how", ["a rule", "a tolerance", "look"])
def test_no_tolerance(how: str) -> None:
    model = mlp()
    patterns = Patterns.fit(model, FLAT)
    weighted = ig.Backward(patterns, ig.methods.weighted(ig.baselines.Given(FLAT[:3]), fill=0.0))
    runs = {
        "look": lambda: weighted(ig.TorchField(model, 0), FLAT[:2]),
        "a rule": lambda: ig.methods.integrated()(
            ig.TorchField(model, 0, backward=patterns), FLAT[:2]
        ),
        "a tolerance": lambda: ig.explain(
            model, FLAT[:2], target=0, method="pattern_guided", patterns=patterns, tol=0.05
        ),
    }
    with pytest.raises(ig.errors.InputError, match=r"add up to nothing: give fixed nodes"):
        runs[how]()


def test_chords_are_the_trapezoid_of_what_comes_back() -> None:
    """The chords of F are none of these gradients'."""
    model = mlp()
    field = ig.TorchField(model, 0, backward=Patterns.fit(model, FLAT))
    chords = ig.Method(ig.baselines.Constant(0.0), rule=ig.rules.Chords(8, 1.0))(field, FLAT[:2])
    trapezoid = ig.Method(ig.baselines.Constant(0.0), rule=ig.rules.Trapezoid(8))(field, FLAT[:2])
    torch.testing.assert_close(chords.values, trapezoid.values, rtol=0, atol=1e-12)
    again = field.with_target(1)
    assert not again.conservative
    assert not again.chordal


def test_needs_patterns() -> None:
    with pytest.raises(ig.errors.InputError, match="needs patterns="):
        ig.explain(mlp(), FLAT[:2], target=0, method="pattern_guided")
    with pytest.raises(
        ig.errors.InputError, match=r"Patterns.fit\(model, data\) or .* gives, not str"
    ):
        ig.methods.pattern_guided("patterns.safetensors")  # type: ignore[arg-type]
    with pytest.raises(ig.errors.InputError, match="'attribution', 'signal'"):
        Patterns(Patterns.fit(mlp(), FLAT).each, kind="net")
    with pytest.raises(ig.errors.ModelError, match=r"explain the nn.Module itself"):
        ig.explain(
            lambda z: z,
            FLAT[:2],
            target=0,
            method="pattern_guided",
            patterns=Patterns.fit(mlp(), FLAT),
        )


# --- with everything else ---------------------------------------------------------------------------------------------


def test_several_targets() -> None:
    model, x = cnn(), IMAGES[:3]
    method = ig.methods.pattern_guided(Patterns.fit(model, IMAGES), [0.0, 0.5], ig.rules.Right(4))
    targets = [0, "predicted", ig.targets.Margin(1, 2)]
    several = ig.explain_targets(model, x, targets=targets, method=method)
    for target, found in zip(targets, several, strict=True):
        alone = ig.explain(model, x, target=target, method=method)
        torch.testing.assert_close(found.values, alone.values, rtol=0, atol=1e-12)
        torch.testing.assert_close(found.residual, alone.residual, rtol=0, atol=1e-12)


def test_at_a_layer() -> None:
    """Behind the layer the same rule holds; before it nothing goes back."""
    model, x = mlp(), FLAT[:4]
    patterns = Patterns.fit(model, FLAT)
    method = ig.Backward(patterns, ig.methods.layer("1", rule=ig.rules.Right(5)))
    made = ig.explain(model, x, target=2, method=method)
    h = model[:2](x).detach()
    start = model[:2](torch.zeros_like(x)).detach()
    behind = nn.Sequential(*list(model)[2:])
    own = Patterns(
        tuple(
            Pattern(name, one.values, one.fingerprint, one.rounding)
            for name, one in zip(("0", "2"), patterns.each[1:], strict=True)
        )
    )
    expected = sum(
        (h - start) * restated(behind, own, start + k / 5 * (h - start), 2, "attribution") / 5
        for k in range(1, 6)
    )
    torch.testing.assert_close(made.values, expected, rtol=0, atol=1e-11)
    conductance = ig.Backward(patterns, ig.methods.conductance("1", steps=4))
    assert ig.explain(model, x, target=2, method=conductance).values.shape == (4, 12)
    several = ig.explain_targets(model, x, targets=[2, 0], method=method)
    torch.testing.assert_close(several[0].values, made.values, rtol=0, atol=1e-12)


def with_norm() -> nn.Sequential:
    model = filled(
        nn.Sequential(
            nn.Conv2d(3, 4, 3, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(144, 3),
        )
    )
    with torch.no_grad():
        model[1].running_mean.copy_(wave(4))
        model[1].running_var.copy_(1.5 + wave(4))
    return model


def test_optimize_runs_the_model_itself() -> None:
    model = with_norm()
    patterns = Patterns.fit(model, IMAGES)
    options: dict[str, Any] = {
        "target": 1,
        "method": ig.methods.pattern_guided(patterns, rule=ig.rules.Right(3)),
    }
    plain = ig.explain(model, IMAGES[:3], **options)
    fast = ig.explain(model, IMAGES[:3], optimize=True, **options)
    assert torch.equal(fast.values, plain.values)
    # The double is there for a field without the rule, made of the same one.
    field = ig.TorchField(model, 1, optimize=True)
    changed = field.with_backward(patterns)
    assert field.network.optimiser is not None
    assert changed.network.optimiser is None
    model.train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.TrainingModeWarning)
        torch.testing.assert_close(
            changed.gradient(IMAGES[:2]), field.with_backward(patterns).gradient(IMAGES[:2])
        )
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints(reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self, inner: nn.Sequential) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            h = checkpoint(self.inner[:2], x, use_reentrant=reentrant)
            return self.inner[4](checkpoint(self.inner[2:4], h, use_reentrant=reentrant))

    inner = mlp()
    patterns = Patterns.fit(inner, FLAT)
    expected = ig.TorchField(inner, 0, backward=patterns).gradient(FLAT)
    model = Checkpointed(inner)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # a reentrant checkpoint of inputs without gradients, while fitting
        found = Patterns.fit(model, FLAT)
        torch.testing.assert_close(
            ig.TorchField(model, 0, backward=found).gradient(FLAT), expected, rtol=0, atol=1e-12
        )


def test_half_precision() -> None:
    model = mlp()
    patterns = Patterns.fit(model, FLAT)
    expected = ig.TorchField(model, 0, backward=patterns).gradient(FLAT)
    field = ig.TorchField(mlp().bfloat16(), 0, backward=patterns)
    found = field.gradient(FLAT.bfloat16())
    assert found.dtype == torch.bfloat16
    assert float((found - expected).norm() / expected.norm()) < 0.2


# --- the model is given back ------------------------------------------------------------------------------------------


class Fails(Observed):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.fails = False

    def forward(self, x: Tensor) -> Tensor:
        made = self.inner(x)
        if self.fails:
            raise KeyError("the model's own")
        return made


def state_of(model: nn.Module) -> list[Any]:
    found: list[Any] = []
    for module in model.modules():
        found += [module.training, sorted(vars(module)), type(module)]
        found += [
            len(module._forward_hooks),
            len(module._forward_pre_hooks),
            len(module._backward_hooks),
        ]
        found += [(id(p), p._version, p.requires_grad, p.grad) for p in module._parameters.values()]
    return found


@pytest.mark.parametrize("hooked", [False, True])
def test_the_model_is_given_back(hooked: bool) -> None:
    model = Fails(normed(mlp(), "parametrized") if hooked else mlp())
    model.train()
    before = state_of(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patterns = Patterns.fit(model, FLAT)
        assert state_of(model) == before
        field = ig.TorchField(model, 0, backward=patterns)
        field.gradient(FLAT)
        assert state_of(model) == before
        model.fails = True
        for broken in (lambda: Patterns.fit(model, FLAT), lambda: field.gradient(FLAT)):
            with pytest.raises((KeyError, ig.errors.ModelError), match="the model's own"):
                broken()
        model.fails = False
        assert state_of(model) == before
    # No mode is left behind either: gradients are the model's own again.
    x = FLAT.clone().requires_grad_()
    (own,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
    torch.testing.assert_close(ig.TorchField(mlp(), 0).gradient(FLAT), own, rtol=0, atol=1e-12)


# --- files ------------------------------------------------------------------------------------------------------------


def test_there_and_back(tmp_path: Path) -> None:
    model, file = cnn(), tmp_path / "patterns.safetensors"
    for patterns in (
        Patterns.fit(model, IMAGES),
        Patterns(Patterns.fit(model, IMAGES).each, "linear", "signal"),
        Patterns.fit(model.float(), IMAGES.float()),
    ):
        patterns.save(file)
        again = Patterns.load(file, model)
        assert again == patterns
        assert repr(again) == repr(patterns)
        assert all(
            torch.equal(a.values, b.values) for a, b in zip(again.each, patterns.each, strict=True)
        )
    assert Patterns.fit(mlp(), FLAT) != Patterns.fit(mlp(), FLAT + 0.01)


def other_weights(model: nn.Sequential) -> nn.Sequential:
    with torch.no_grad():
        model[2].weight[3, 5] *= 1.01
    return model


def swapped(model: nn.Sequential) -> nn.Sequential:
    """The same numbers in another order."""
    with torch.no_grad():
        model[4].weight.copy_(model[4].weight.flip(1))
    return model


OTHERS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "no such layer": (
        lambda: nn.Sequential(*list(mlp())[:3]),
        r"have a layer '4' \(3x8\), which this Sequential has not",
    ),
    "another shape": (
        lambda: filled(
            nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 3))
        ),
        r"layer '2' is 8x12, the layer's weight 9x12",
    ),
    "other weights": (lambda: other_weights(mlp()), r"layer '2' has other weights"),
    "another order": (lambda: swapped(mlp()), r"layer '4' has other weights"),
}


@pytest.mark.parametrize("which", list(OTHERS))
def test_patterns_for_another_model(which: str, tmp_path: Path) -> None:
    """The first mismatch is named: when a file is read for a model, and when a model is explained."""
    build, message = OTHERS[which]
    model, file = build(), tmp_path / "patterns.safetensors"
    Patterns.fit(mlp(), FLAT).save(file)
    with pytest.raises(ig.errors.InputError, match=f"another model: .*{message}"):
        Patterns.load(file, model)
    with pytest.raises(ig.errors.InputError, match=message):
        ig.explain(model, FLAT[:2], target=0, method="pattern_guided", patterns=Patterns.load(file))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rounded_weights_are_the_same_weights(dtype: torch.dtype) -> None:
    """A model that was fitted in one type is known again in another, both ways."""
    Patterns.fit(mlp(), FLAT).check(mlp().to(dtype))
    Patterns.fit(mlp().to(dtype).float(), FLAT.float()).check(mlp().to(dtype).float())


def test_files_that_hold_no_patterns(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "x.safetensors"
    with pytest.raises(ig.errors.InputError, match="There is no file"):
        Patterns.load(file)
    file.write_text("no tensors")
    with pytest.raises(ig.errors.InputError, match="cannot be read"):
        Patterns.load(file)
    save_file({"a": torch.zeros(2)}, str(file))
    with pytest.raises(ig.errors.InputError, match="holds tensors, but no patterns"):
        Patterns.load(file)
    for words, message in (
        ("[1]", "not that of patterns"),
        ("{", "not that of patterns"),
        ('{"format": 9, "integrand": "9.0"}', "newer format"),
        (json.dumps({"format": 1, "layers": [{"name": "b"}]}), "not that of patterns"),
        (json.dumps({"format": 1, "layers": [{"name": "a", "shape": [3]}]}), "was changed"),
    ):
        save_file({"a": torch.zeros(2)}, str(file), metadata={"patterns": words})
        with pytest.raises(ig.errors.InputError, match=message):
            Patterns.load(file)


def test_without_safetensors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    patterns = Patterns.fit(mlp(), FLAT)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ig.errors.MissingExtra, match=r"integrand\[save\]"):
        patterns.save(tmp_path / "x")
    with pytest.raises(ig.errors.MissingExtra, match=r"integrand\[save\]"):
        Patterns.load(tmp_path / "x")
