"""Attributions that are trained on: ``create_graph=True`` gives the maps it gave, and their exact derivatives in the parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from tests.problems import filled, wave

X = wave(3, 4, phase=0.4)
DATA = wave(9, 4, phase=2.0)
NODES = ig.rules.GaussLegendre(5)


def tanh_net() -> nn.Module:
    return filled(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)))


def relu_net() -> nn.Module:
    return filled(
        nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.LeakyReLU(), nn.Linear(5, 3))
    )


def linear() -> nn.Module:
    return filled(nn.Linear(4, 3))


class Picture(nn.Module):
    """Convolution, batch norm and dropout, over columns seen as a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(1, 2, 2), nn.BatchNorm1d(2)
        self.drop, self.last = nn.Dropout(0.5), nn.Linear(6, 3)

    def forward(self, z: Tensor) -> Tensor:
        return self.last(self.drop(self.norm(self.conv(z[:, None])).sigmoid()).flatten(1))


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.last = nn.LSTM(2, 3, batch_first=True), nn.Linear(3, 3)

    def forward(self, z: Tensor) -> Tensor:
        states, _ = self.lstm(z.reshape(-1, 2, 2))
        mixed = torch.nn.functional.scaled_dot_product_attention(states, states, states)
        return self.last(mixed.mean(1))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "tanh": tanh_net,
    "relu": relu_net,
    "linear": linear,
    "convolution": lambda: filled(Picture()),
    "recurrent": lambda: filled(Reader()),
}

METHODS: dict[str, dict[str, Any]] = {
    "integrated": {"baseline": 0.3, "rule": NODES},
    "corners": {"baseline": 0.3, "rule": ig.rules.Midpoint(2), "path": ig.paths.Straight(3)},
    "several": {"baseline": [0.0, DATA[0], 0.5], "rule": ig.rules.Trapezoid(2)},
    "expected": {"method": "expected", "baseline": DATA, "draws": 6, "seed": 5},
    "expected, all": {"method": "expected", "baseline": DATA, "rule": NODES},
}


def loss_of(values: Tensor) -> Tensor:
    """Smooth, and different for every entry."""
    return (values * wave(*values.shape, phase=3.0)).sum() + values.square().sum()


@pytest.mark.filterwarnings("ignore::integrand.errors.IntegrandWarning")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("build", MODELS)
def test_values_are_those_without_a_graph_and_slopes_are_finite_differences(
    build: str, method: str
) -> None:
    model, options = MODELS[build](), METHODS[method]

    def plain() -> Tensor:
        return ig.explain(model, X, target=1, **options).values

    made = ig.explain(model, X, target=1, create_graph=True, **options)
    torch.testing.assert_close(made.values.detach(), plain(), rtol=1e-11, atol=1e-13)
    parameters = list(model.parameters())
    slopes = torch.autograd.grad(loss_of(made.values), parameters, allow_unused=True)
    assert any(slope is not None for slope in slopes)
    step = 1e-6
    for parameter, slope in zip(parameters, slopes, strict=True):
        entry = parameter.numel() // 2
        flat = parameter.detach().view(-1)  # the same memory
        before = float(flat[entry])
        sides = []
        for sign in (1, -1):
            flat[entry] = before + sign * step
            sides.append(float(loss_of(plain())))
        flat[entry] = before
        expected = (sides[0] - sides[1]) / (2 * step)
        own = 0.0 if slope is None else float(slope.reshape(-1)[entry])
        assert own == pytest.approx(expected, rel=2e-5, abs=2e-8)


def test_it_is_the_formula_written_out() -> None:
    """(x − b) ⊙ Σ_q w_q ∇F, every gradient by autograd with its graph."""
    model = tanh_net()
    nodes, weights = NODES.table()
    values = torch.zeros_like(X)
    for t, w in zip(nodes, weights, strict=True):
        z = (0.3 + t * (X - 0.3)).requires_grad_()
        (slope,) = torch.autograd.grad(model(z)[:, 1].sum(), z, create_graph=True)
        values = values + w * (X - 0.3) * slope
    expected = torch.autograd.grad(loss_of(values), list(model.parameters())[:3])
    made = ig.explain(model, X, target=1, baseline=0.3, rule=NODES, create_graph=True)
    slopes = torch.autograd.grad(loss_of(made.values), list(model.parameters())[:3])
    for one, other in zip(slopes, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_how_rows_are_cut_into_calls_does_not_matter(batch_size: int) -> None:
    model = tanh_net()
    whole = ig.explain(model, X, target=1, rule=NODES, create_graph=True)
    cut = ig.explain(model, X, target=1, rule=NODES, create_graph=True, batch_size=batch_size)
    torch.testing.assert_close(cut.values, whole.values, rtol=1e-12, atol=1e-14)
    for one, other in zip(
        torch.autograd.grad(loss_of(cut.values), list(model.parameters())[:3]),
        torch.autograd.grad(loss_of(whole.values), list(model.parameters())[:3]),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)


def test_everything_else_is_plain_numbers() -> None:
    made = ig.explain(tanh_net(), X, target=1, rule=ig.rules.GaussLegendre(20), create_graph=True)
    assert made.values.requires_grad
    plain = ig.explain(tanh_net(), X, target=1, rule=ig.rules.GaussLegendre(20))
    for name in ("output", "change", "residual", "weights", "converged", "gap", "baselines"):
        number = getattr(made, name)
        assert not number.requires_grad
        torch.testing.assert_close(number, getattr(plain, name), rtol=1e-6, atol=1e-12)
    assert made.names == plain.names
    assert made.target == plain.target
    assert "worst gap 0.00%" in repr(made)
    assert made.cost.gradients == plain.cost.gradients


def test_several_inputs_and_targets_of_each_example() -> None:
    model = tanh_net()

    def two(a: Tensor, b: Tensor) -> Tensor:
        return model(torch.cat([a, b], 1))

    targets = torch.tensor([0, 2, 1])
    made = ig.explain(
        two, {"a": X[:, :3], "b": X[:, 3:]}, target=targets, rule=NODES, create_graph=True
    )
    joint = ig.explain(model, X, target=targets, rule=NODES, create_graph=True)
    torch.testing.assert_close(made.values["a"], joint.values[:, :3])
    (slope,) = torch.autograd.grad(made.values["b"].sum(), model[0].weight)
    (expected,) = torch.autograd.grad(joint.values[:, 3:].sum(), model[0].weight)
    torch.testing.assert_close(slope, expected)


def test_predicted_classes_and_frames() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X.numpy(), columns=list("abcd"))
    made = ig.explain(tanh_net(), frame, target="predicted", rule=NODES, create_graph=True)
    assert made.feature_names == ("a", "b", "c", "d")
    assert made.grouped({"both": ["a", "b"]}).values.requires_grad


def test_a_smoothed_model_is_trained_on_its_own_maps() -> None:
    model = relu_net()
    field = ig.TorchField(model, 1, softplus=5.0)
    made = ig.explain(field, X, rule=NODES, create_graph=True)
    plain = ig.explain(field, X, rule=NODES)
    torch.testing.assert_close(made.values.detach(), plain.values, rtol=1e-11, atol=1e-13)
    assert torch.autograd.grad(made.values.sum(), model[0].bias)[0].abs().sum() > 0


@pytest.mark.filterwarnings("error")
def test_a_model_in_training_stays_in_training_and_nothing_is_warned_of() -> None:
    """Batch norm and dropout are run as in eval mode; what is done before and after them goes on."""
    torch.manual_seed(0)
    model = Picture().double().train()
    outputs = model(X)  # first: it changes the running statistics that maps depend on
    running = model.norm.running_mean.clone()
    made = ig.explain(model, X, target=1, rule=ig.rules.Midpoint(1), create_graph=True)
    assert model.training
    assert model.drop.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(model.norm.running_mean, running)
    (outputs.square().mean() + made.values.square().mean()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_functions_around_tensors_are_trained() -> None:
    weight = wave(4, 3).requires_grad_()
    field = ig.fields.Function(lambda z: (z @ weight).tanh().sum(1))
    for model, target in (((lambda z: (z @ weight).tanh().sum(1, keepdim=True)), 0), (field, None)):
        made = ig.explain(model, X, target=target, rule=NODES, create_graph=True)
        (slope,) = torch.autograd.grad(made.values[:, 0].sum(), weight)
        assert slope.abs().sum() > 0


def test_frozen_parameters_stay_frozen() -> None:
    model = tanh_net()
    model[0].requires_grad_(False)
    made = ig.explain(model, X, target=1, rule=NODES, create_graph=True)
    made.values.sum().backward()
    assert model[0].weight.grad is None
    assert model[2].weight.grad is not None


def test_each_example_may_have_a_reference_of_its_own() -> None:
    """Expected Gradients as in the paper's training: one draw for each example."""
    model = tanh_net()
    starts = DATA[:3]
    rule = ig.rules.MonteCarlo(1, seed=3)
    made = ig.explain(model, X, target=1, baseline=starts, rule=rule, create_graph=True)
    for i in range(3):
        alone = ig.explain(
            model, X[i : i + 1], target=1, baseline=starts[i], rule=rule, create_graph=True
        )
        torch.testing.assert_close(made.values[i], alone.values[0])


def refused(message: str, **options: Any) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        ig.explain(tanh_net(), X, target=1, create_graph=True, **options)


def test_what_is_not_followed_is_refused() -> None:
    refused("Adaptive takes nodes that depend on what it finds")
    refused("Adaptive takes nodes", tol=0.01)
    refused("IDGI takes nodes", method="idgi")
    refused("finds its way with gradients", method="guided")
    refused("weighs references by their maps", method="weighted", baseline=DATA, rule=NODES)
    refused("searches for its references", method="boundary", rule=NODES)
    refused("no maps that could be trained on", method="smoothgrad")
    refused("no maps that could be trained on", method="layer", site="0")
    refused("no maps that could be trained on", method="expected", baseline=DATA, tol=0.1)


def test_where_nothing_can_be_trained_is_told() -> None:
    frozen = tanh_net().requires_grad_(False)
    with pytest.raises(ig.errors.ModelError, match="No parameter of the model"):
        ig.explain(frozen, X, target=1, rule=NODES, create_graph=True)
    with pytest.raises(ig.errors.ModelError, match="No parameter of the model"):
        ig.explain(lambda z: z.sin(), X, target=1, rule=NODES, create_graph=True)
    with torch.no_grad(), pytest.raises(ig.errors.InputError, match="leads nowhere"):
        ig.explain(tanh_net(), X, target=1, rule=NODES, create_graph=True)
    with torch.inference_mode(), pytest.raises(ig.errors.InputError, match="leads nowhere"):
        ig.explain(tanh_net(), X, target=1, rule=NODES, create_graph=True)
    loader = torch.utils.data.DataLoader(X, 2)
    with pytest.raises(ig.errors.InputError, match="a batch at a time"):
        ig.explain(tanh_net(), loader, target=1, rule=NODES, create_graph=True)
    with pytest.raises(ig.errors.ModelError, match="no parameters that could be trained"):
        ig.explain(ig.fields.Monomial(torch.ones(4).double()), X, rule=NODES, create_graph=True)
    guided = ig.TorchField(relu_net(), 1, backward=ig.fields.GuidedReLU())
    with pytest.raises(ig.errors.NoHessian, match="not those of F"):
        ig.explain(guided, X, rule=NODES, create_graph=True)


def test_the_model_is_given_back_after_a_failure() -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.fails = tanh_net(), False

        def forward(self, z: Tensor) -> Tensor:
            if self.fails and torch.is_grad_enabled():
                raise ValueError("on request")
            return self.inner(z)

    model = Fails().train()
    model.fails = True
    with pytest.raises(ig.errors.ModelError, match="on request"):
        ig.explain(model, X, target=1, rule=NODES, create_graph=True)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_prior_turns_a_model_away_from_a_column() -> None:
    """Two columns that say the same in training; the one that is penalised is not used."""
    torch.manual_seed(0)
    signal = torch.randn(200, 1)
    x = torch.cat([signal + 0.1 * torch.randn(200, 1), signal], 1)
    y = (signal[:, 0] > 0).long()
    shares = {}
    for weight in (0.0, 3.0):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
        steps = torch.optim.Adam(model.parameters(), lr=0.05)
        for step in range(40):
            steps.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            if weight:
                maps = ig.explain(
                    model, x, target=1, method="expected", baseline=x, draws=4, seed=step,
                    create_graph=True,
                )  # fmt: skip
                loss = loss + weight * maps.values[:, 1].abs().mean()
            loss.backward()
            steps.step()
        size = ig.explain(model, x, target=1, rule=NODES).values.abs().mean(0)
        shares[weight] = float(size[1] / size.sum())
    assert shares[0.0] > 0.4
    assert shares[3.0] < 0.1
