"""Backward rules: GuidedReLU restated and against a peer; rules with methods, layers, several targets; the model is given back."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import integrand as ig
from integrand.fields.views import Cast, CountedField, Subset
from tests.problems import PROBLEMS, filled, joined, relu_mlp, wave

GUIDED = ig.fields.GuidedReLU()
X = wave(7, 6, phase=0.3)


def two_layers() -> tuple[Tensor, Tensor, Tensor]:
    return wave(9, 6, phase=1, scale=0.8), wave(9, phase=2), wave(3, 9, phase=3)


def by_hand(x: Tensor, target: int, ceiling: float = float("inf")) -> Tensor:
    """g · 1[0 < u < ceiling] · 1[g > 0], one number after the other."""
    weight, bias, top = two_layers()
    found = torch.zeros_like(x)
    for row in range(len(x)):
        for unit in range(9):
            u = float(weight[unit] @ x[row] + bias[unit])
            g = float(top[target, unit])
            if 0 < u < ceiling and g > 0:
                found[row] += g * weight[unit]
    return found


class Of(nn.Module):
    """top · f(weight x + bias), for any way to write a ReLU."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        weight, bias, top = two_layers()
        self.function = function
        self.weight, self.bias, self.top = (
            nn.Parameter(weight),
            nn.Parameter(bias),
            nn.Parameter(top),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x @ self.weight.T + self.bias) @ self.top.T


RELUS: dict[str, Callable[[Tensor], Tensor]] = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU in place": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu in place": lambda u: F.relu(u, inplace=True),
    "F.relu by name": lambda u: F.relu(input=u),
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "F.relu_": F.relu_,
    "Tensor.relu": lambda u: u.relu(),
    "Tensor.relu_": lambda u: u.relu_(),
}
CEILINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "nn.ReLU6": nn.ReLU6(),
    "nn.ReLU6 in place": nn.ReLU6(inplace=True),
    "F.relu6": F.relu6,
    "F.hardtanh": lambda u: F.hardtanh(u, 0.0, 6.0),
    "F.hardtanh by name": lambda u: F.hardtanh(u, min_val=0, max_val=6),
    "F.hardtanh_": lambda u: F.hardtanh_(u, 0.0, 6.0),
}
OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "silu": F.silu,
    "leaky relu": F.leaky_relu,
    "elu": F.elu,
    "tanh": torch.tanh,
    "softplus": F.softplus,
    "hard tanh": F.hardtanh,
    "clamp": lambda u: u.clamp(min=0),
    "maximum": lambda u: torch.maximum(u, torch.zeros_like(u)),
}


@pytest.mark.parametrize("way", list(RELUS))
def test_relus(way: str) -> None:
    field = ig.TorchField(Of(RELUS[way]), 1, backward=GUIDED)
    torch.testing.assert_close(field.gradient(X), by_hand(X, 1), rtol=0, atol=1e-13)
    plain = ig.TorchField(Of(RELUS[way]), 1)
    assert torch.equal(field.value(X), plain.value(X))
    assert float((field.gradient(X) - plain.gradient(X)).abs().max()) > 0.1


@pytest.mark.parametrize("way", list(CEILINGS))
def test_relus_with_a_ceiling(way: str) -> None:
    x = 4 * X
    field = ig.TorchField(Of(CEILINGS[way]), 1, backward=GUIDED)
    expected = by_hand(x, 1, 6.0)
    torch.testing.assert_close(field.gradient(x), expected, rtol=0, atol=1e-13)
    assert float((expected - by_hand(x, 1)).abs().max()) > 0.1


@pytest.mark.parametrize("way", list(OTHERS))
def test_others_keep_their_derivative(way: str) -> None:
    model = Of(OTHERS[way])
    assert torch.equal(
        ig.TorchField(model, 1, backward=GUIDED).gradient(X), ig.TorchField(model, 1).gradient(X)
    )


def test_recurrent_relus_are_one_kernel() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.RNN(3, 4, nonlinearity="relu", batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x.reshape(-1, 2, 3))[0][:, -1]

    model = filled(Recurrent())
    torch.testing.assert_close(
        ig.TorchField(model, 1, backward=GUIDED).gradient(X),
        ig.TorchField(model, 1).gradient(X),
        rtol=0,
        atol=0,
    )


def test_an_output_used_twice() -> None:
    """All that comes back to a ReLU's output is summed before its sign is looked at."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(wave(6, phase=1)), nn.Parameter(wave(6, phase=2))

        def forward(self, x: Tensor) -> Tensor:
            h = F.relu(x)
            return ((h * self.a).sum(1) + (h * self.b).sum(1))[:, None]

    model = Twice().double()
    expected = ((model.a + model.b).clamp_min(0) * (X > 0)).detach()
    torch.testing.assert_close(
        ig.TorchField(model, 0, backward=GUIDED).gradient(X), expected, rtol=0, atol=1e-14
    )


def test_against_captum() -> None:
    captum = pytest.importorskip("captum.attr")
    model = relu_mlp()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = captum.GuidedBackprop(model).attribute(X.clone(), target=2)
    torch.testing.assert_close(
        ig.TorchField(model, 2, backward=GUIDED).gradient(X), expected, rtol=0, atol=1e-13
    )


# --- as a method ------------------------------------------------------------------------------------------------------


def guided(rule: Any = ig.rules.Midpoint(6), **options: Any) -> ig.Backward:
    return ig.Backward(GUIDED, ig.methods.integrated(rule=rule, **options))


def test_integrated() -> None:
    model = Of(F.relu)
    made = ig.explain(model, X, target=1, method=guided())
    expected = sum(X * by_hand((q + 0.5) / 6 * X, 1) for q in range(6)) / 6
    torch.testing.assert_close(made.values, expected, rtol=0, atol=1e-13)
    change = (model(X) - model(torch.zeros_like(X)))[:, 1].detach()
    torch.testing.assert_close(made.residual, change - expected.sum(1), rtol=0, atol=1e-13)
    assert float(made.gap.max()) > 0.1  # nothing was promised, so nothing is warned of
    assert made.cost.gradients == 6 * 7
    assert repr(made.method) == "Backward(GuidedReLU(), Method(rule=Midpoint(6)))"


@pytest.mark.parametrize("problem", list(PROBLEMS))
def test_every_problem(problem: str, quiet: None) -> None:
    """Runs on all of them; five at once are five alone; without ReLUs it is the method itself."""
    p = PROBLEMS[problem]
    options: dict[str, Any] = {"target": p.target, "extra": p.extra}
    own = ig.methods.integrated(ig.baselines.Given(p.references), ig.rules.GaussLegendre(12))
    method = ig.Backward(GUIDED, own)
    whole = ig.explain(p.model, p.inputs, method=method, **options)
    plain = ig.explain(p.model, p.inputs, method=own, **options)
    assert torch.equal(joined(whole.values), joined(plain.values)) is (problem != "relu mlp")
    for b in (0, 3):
        one = p.only(b)
        alone = ig.explain(one.model, one.inputs, target=one.target, extra=one.extra, method=method)
        torch.testing.assert_close(
            joined(alone.values)[0], joined(whole.values)[b], rtol=0, atol=1e-12
        )


def test_with_weights_and_paths(quiet: None) -> None:
    """Any method with fixed nodes: weights of references, and paths that look at what they meet."""
    model, refs = relu_mlp(), ig.baselines.Given(wave(3, 6, phase=1))
    for method in (
        ig.methods.weighted(refs, rule=ig.rules.Midpoint(4), fill=0.0),
        ig.methods.expected(refs, rule=ig.rules.Midpoint(4)),
        ig.methods.expected(wave(20, 6, phase=1), tol=0.3),
        ig.methods.weighted(refs, rule=ig.rules.Midpoint(4), fill=0.0, keep=0.5, scout=2),
        ig.methods.ig2(refs, "1", 4, 0.05, (-9.0, 9.0)),
    ):
        made = ig.Backward(GUIDED, method)(ig.TorchField(model, 0), X[:3])
        assert bool(torch.isfinite(made.values).all())
        assert not torch.equal(made.values, method(ig.TorchField(model, 0), X[:3]).values)


def test_door() -> None:
    """explain's baseline= reaches the method inside; a tolerance does not go with it."""
    model = relu_mlp()
    made = ig.explain(model, X, target=0, method=guided(), baseline=0.5)
    expected = ig.explain(model, X, target=0, method=guided(baseline=0.5))
    assert torch.equal(made.values, expected.values)
    with pytest.raises(ig.errors.InputError, match="give fixed nodes"):
        ig.explain(model, X, target=0, method=guided(), tol=0.05)
    with pytest.raises(ig.errors.InputError, match="give fixed nodes"):
        ig.explain(model, X, target=0, method=ig.Backward(GUIDED, ig.methods.integrated()))
    with pytest.raises(ig.errors.InputError, match="give fixed nodes"):
        ig.explain(model, X, target=0, method=ig.Backward(GUIDED, ig.methods.layer("1")))


def test_several_targets_and_layers() -> None:
    model, targets = relu_mlp(), [0, 2, "predicted"]
    for method in (guided(), ig.Backward(GUIDED, ig.methods.layer("1", rule=ig.rules.Midpoint(4)))):
        several = ig.explain_targets(model, X, targets=targets, method=method)
        for target, found in zip(targets, several, strict=True):
            alone = ig.explain(model, X, target=target, method=method)
            torch.testing.assert_close(found.values, alone.values, rtol=0, atol=1e-13)


def test_at_a_layer() -> None:
    """Behind layer "1" there is one ReLU more; with it the gradient is another."""
    model = relu_mlp()
    made = ig.explain(
        model,
        X,
        target=1,
        method=ig.Backward(GUIDED, ig.methods.layer("1", rule=ig.rules.Midpoint(5))),
    )
    h, start = (model[:2](z).detach() for z in (X, torch.zeros_like(X)))
    behind = ig.TorchField(nn.Sequential(*list(model)[2:]), 1, backward=GUIDED)
    expected = (
        sum((h - start) * behind.gradient(start + (q + 0.5) / 5 * (h - start)) for q in range(5))
        / 5
    )
    torch.testing.assert_close(made.values, expected, rtol=0, atol=1e-13)


class Skipped(nn.Module):
    """Much of the change passes the layer "inner" by."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(0.1 * self.inner(x) + 2 * x))


def test_no_warning_at_layers_either() -> None:
    model, method = filled(Skipped()), ig.methods.conductance("inner", steps=4)
    with pytest.warns(ig.errors.IncompleteWarning, match="passes the layer by"):
        ig.explain(model, X, target=0, method=method)
    made = ig.explain(model, X, target=0, method=ig.Backward(GUIDED, method))
    assert float(made.gap.max()) > 0.1


def test_a_copy_serves_as_well() -> None:
    """ReLUs are the copy's too: it is run, and the map is the same."""
    model = filled(
        nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
        )
    )
    images = wave(4, 3, 8, 8)
    plain = ig.TorchField(model, 0, backward=GUIDED)
    fast = ig.TorchField(model, 0, optimize=True, backward=GUIDED)
    torch.testing.assert_close(fast.gradient(images), plain.gradient(images), rtol=0, atol=1e-12)
    assert fast.network.optimiser is not None


# --- fields -----------------------------------------------------------------------------------------------------------


def test_fields_with_a_rule() -> None:
    model = relu_mlp()
    field = ig.TorchField(model, 0)
    ruled = field.with_backward(GUIDED)
    assert field.conservative
    assert not ruled.conservative
    assert repr(ruled) == "TorchField(Sequential, Logit(0), backward=GuidedReLU())"
    assert not torch.equal(field.gradient(X), ruled.gradient(X))
    torch.testing.assert_close(
        ruled.with_target(2).gradient(X), ig.TorchField(model, 2, backward=GUIDED).gradient(X)
    )
    for wrapped in (
        CountedField(ruled),
        Subset(ruled, torch.arange(7)),
        Cast(ruled, torch.float64),
        ruled.score(),
        ruled.behind("1"),
        ig.fields.MultiTarget(ruled, [ig.targets.Logit(0)]),
    ):
        assert not wrapped.conservative
    # No field is asked for chords of what is no gradient.
    with ruled.ready():
        ends = ruled.evaluate_chords(X, torch.arange(7), torch.arange(7).sub(1).clamp_min(0))
    slope = ruled.gradient(X)
    torch.testing.assert_close(ends.gradient[1:], (slope[1:] + slope[:-1]) / 2, rtol=0, atol=1e-14)


def test_fields_without_operations() -> None:
    for field in (ig.fields.Linear(torch.ones(3)), ig.fields.Function(lambda z: z.sum(1))):
        assert field.conservative
        with pytest.raises(ig.errors.ModelError, match=f"{type(field).__name__} has no operations"):
            guided()(field, torch.ones(1, 3))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: ig.TorchField(relu_mlp(), 0, backward="guided"),
            ig.errors.InputError,
            "GuidedReLU.*not str",
        ),
        (
            lambda: ig.Backward("guided", ig.methods.integrated()),
            ig.errors.InputError,
            "GuidedReLU.*not str",
        ),
        (
            lambda: ig.Backward(GUIDED, "integrated"),
            ig.errors.InputError,
            "takes a method.*not str",
        ),
        (
            lambda: ig.TorchField(torch.jit.trace(relu_mlp(), X), 0, backward=GUIDED),
            ig.errors.ModelError,
            "the model is scripted",
        ),
        (
            lambda: ig.TorchField(
                nn.Sequential(torch.jit.trace(relu_mlp(), X)), 0, backward=GUIDED
            ),
            ig.errors.ModelError,
            "layer '0' is scripted",
        ),
        (
            lambda: ig.TorchField(torch.compile(relu_mlp(), backend="eager"), 0, backward=GUIDED),
            ig.errors.ModelError,
            "the model is compiled",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.torch.jit.trace")
def test_bad_input(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints(reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = relu_mlp()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner[4](checkpoint(self.inner[:4], x, use_reentrant=reentrant))

    expected = ig.TorchField(relu_mlp(), 0, backward=GUIDED).gradient(X)
    found = ig.TorchField(Checkpointed(), 0, backward=GUIDED).gradient(X)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


def test_nothing_is_left_behind() -> None:
    """Not on the model, and no mode: also where the model, or the target, fails."""
    model = relu_mlp()
    before = [(id(p), p._version, p.requires_grad, p.grad) for p in model.parameters()]
    plain = ig.TorchField(model, 0).gradient(X)

    def fails(outputs: Tensor) -> Tensor:
        raise KeyError("the target's own")

    with pytest.raises(KeyError, match="the target's own"):
        ig.TorchField(model, fails, backward=GUIDED).gradient(X)
    ig.TorchField(model, 0, backward=GUIDED).gradient(X)
    assert [(id(p), p._version, p.requires_grad, p.grad) for p in model.parameters()] == before
    assert all(
        not m._forward_hooks and not m._backward_hooks and "forward" not in vars(m)
        for m in model.modules()
    )
    assert torch.equal(ig.TorchField(model, 0).gradient(X), plain)


def test_a_targets_own_relu_is_not_the_models() -> None:
    field = ig.TorchField(relu_mlp(), lambda outputs: -F.relu(outputs[:, 0] + 100), backward=GUIDED)
    below = ig.TorchField(relu_mlp(), lambda outputs: -outputs[:, 0], backward=GUIDED)
    torch.testing.assert_close(field.gradient(X), below.gradient(X), rtol=0, atol=1e-14)
    assert bool((below.gradient(X) != 0).any())


class Doubling:
    """A rule of a user's own."""

    layers = False

    def bound(self, module: Any) -> Any:
        from integrand.backprop.modified.base import Changed

        def change(func: Any, args: Any, kwargs: Any) -> Any:
            if func is not F.linear:
                return NotImplemented
            made = func(*args, **kwargs)
            made.register_hook(lambda g: 2 * g)
            return made

        return lambda: Changed(change)


def test_a_rule_of_ones_own() -> None:
    model = relu_mlp()
    own = ig.Backward(Doubling(), ig.methods.integrated(rule=ig.rules.Midpoint(3)))
    found = ig.explain(model, X, target=0, method=own)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
        plain = ig.explain(model, X, target=0, method=own.method)
    torch.testing.assert_close(found.values, 8 * plain.values, rtol=0, atol=1e-13)
