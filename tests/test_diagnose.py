"""The warning that explains: a normalisation that a baseline starves is named, and something better is proposed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.model import diagnose
from integrand.model.diagnose import degenerate
from integrand.model.network import Network
from tests.problems import Counting, filled, wave

B = 4
HEALTHY = wave(6, phase=2)


class LlamaRMSNorm(nn.Module):
    """As written by hand in many a model: of no class that torch knows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, u: Tensor) -> Tensor:
        return self.weight * u * torch.rsqrt(u.square().mean(-1, keepdim=True) + 1e-6)


class Normalize(nn.Module):
    """Preprocessing: fixed numbers, whatever it is fed."""

    def forward(self, u: Tensor) -> Tensor:
        return (u - 0.4) / 0.2


class T5LayerNorm(nn.Module):
    """An RMS norm that says otherwise."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.variance_epsilon = eps

    def forward(self, hidden_states: Tensor) -> Tensor:
        variance = hidden_states.pow(2).mean(-1, keepdim=True)
        return self.weight * hidden_states * torch.rsqrt(variance + self.variance_epsilon)


class LayerNorm2d(nn.Module):
    """ConvNeXt's: over the channels of every place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, u: Tensor) -> Tensor:
        mean = u.mean(1, keepdim=True)
        scaled = (u - mean) / torch.sqrt((u - mean).square().mean(1, keepdim=True) + 1e-6)
        return self.weight[:, None, None] * scaled + self.bias[:, None, None]


NORMS: dict[str, Callable[[], nn.Module]] = {
    "LayerNorm": lambda: nn.LayerNorm(6),
    "RMSNorm": lambda: nn.RMSNorm(6, eps=1e-6),
    "LlamaRMSNorm": lambda: LlamaRMSNorm(6),
    "T5LayerNorm": lambda: T5LayerNorm(6),
    "GroupNorm": lambda: nn.GroupNorm(1, 6),
}
"""Layers that divide by the spread of what they are fed."""

RIDGES = wave(1, 4, 5, phase=0.4)[:, :, :, None].expand(1, 4, 5, 5)
COLUMNS = wave(1, 4, phase=0.4)[:, :, None, None].expand(1, 4, 5, 5)
SPATIAL: dict[str, tuple[Callable[[], nn.Module], Tensor, Tensor]] = {
    # What it is, something (1, C, H, W) that starves it, and something even along some axes that does not.
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(4), COLUMNS, RIDGES),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), COLUMNS[:, :1].expand(1, 4, 5, 5), COLUMNS),
    "LayerNorm": (lambda: nn.LayerNorm((4, 5, 5)), torch.full((1, 4, 5, 5), 0.7).double(), COLUMNS),
    "LayerNorm2d": (lambda: LayerNorm2d(4), RIDGES[:, :1].expand(1, 4, 5, 5), COLUMNS),
}


def behind(norm: nn.Module) -> nn.Module:
    """Features – normalisation – a curve – three classes: nothing moves behind a zero baseline until the norm wakes up."""
    top = filled(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)))
    return nn.Sequential(nn.Identity(), norm.double(), top).eval()


def told(model: nn.Module, **options: Any) -> list[str]:
    """The IncompleteWarnings that an explanation gave."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ig.explain(model, wave(B, 6, phase=0.3), target=0, **options)
    assert all(w.category is ig.errors.IncompleteWarning for w in caught)
    return [str(w.message) for w in caught]


COARSE = {
    "fixed nodes": dict(rule=ig.rules.Midpoint(4)),
    "a tolerance": dict(rule=ig.rules.Adaptive(1e-6, max_gradients=12)),
}


@pytest.mark.parametrize("rule", list(COARSE))
@pytest.mark.parametrize("name", list(NORMS))
def test_the_layer_is_named_and_baselines_proposed(name: str, rule: str) -> None:
    said = told(behind(NORMS[name]()), baseline=0.0, **COARSE[rule])
    assert len(said) == 1
    assert f"starves layer '1' ({name})" in said[0]
    for proposed in ("Sample(data, 8)", "mean", "'blurred'"):
        assert proposed in said[0]
    assert "max_gradients" not in said[0]


@pytest.mark.parametrize("name", ["LayerNorm", "GroupNorm"])
def test_any_constant_starves_what_centres(name: str) -> None:
    assert "starves" in told(behind(NORMS[name]()), baseline=0.7, rule=ig.rules.Midpoint(2))[0]


@pytest.mark.parametrize("name", ["RMSNorm", "LlamaRMSNorm", "T5LayerNorm"])
def test_a_constant_feeds_what_does_not_centre(name: str) -> None:
    said = told(behind(NORMS[name]()), baseline=0.7, rule=ig.rules.Adaptive(1e-9, max_gradients=10))
    assert len(said) == 1
    assert "starves" not in said[0]


@pytest.mark.parametrize("name", list(SPATIAL))
def test_over_the_axes_that_the_layer_looks_at(name: str) -> None:
    make, starving, feeding = SPATIAL[name]
    model = nn.Sequential(nn.Identity(), make().double()).eval()
    x = wave(1, 4, 5, 5, phase=2)
    first = torch.tensor([0])
    network = Network(model)
    assert f"starves layer '1' ({name})" in str(degenerate(network, starving, x, first))
    assert degenerate(network, feeding, x, first) is None
    assert degenerate(network, wave(1, 4, 5, 5, phase=1), x, first) is None


@pytest.mark.parametrize("axes", [1, 3])
def test_instance_norms_of_other_axes(axes: int) -> None:
    shape = (1, 4, *(6,) * axes)
    model = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)[axes - 1](
        4, affine=True
    ).double()
    x, first = wave(*shape, phase=2), torch.tensor([0])
    even = wave(1, 4).reshape(1, 4, *(1,) * axes).expand(shape)
    model = nn.Sequential(model).eval()
    assert "InstanceNorm" in str(degenerate(Network(model), even, x, first))
    assert degenerate(Network(model), wave(*shape, phase=1), x, first) is None


@pytest.mark.parametrize("eps", [1e-12, 1e-6, 1e-5])
def test_how_near_to_the_baseline(eps: float) -> None:
    """From zero, half of what a norm does is done where the spread is √eps: as far on the way as √(eps / variance at the input)."""
    x = wave(1, 6, phase=0.3)
    said = str(
        degenerate(
            Network(nn.Sequential(T5LayerNorm(6, eps)).double()),
            torch.zeros_like(x),
            x,
            torch.tensor([0]),
        )
    )
    width = float((eps / (x.square().mean() + eps)).sqrt())
    told = float(said.split("within ")[1].split(" of the path")[0])
    assert told == pytest.approx(width, rel=0.5)


def test_a_norm_that_divides_by_nothing() -> None:
    class ScaleNorm(nn.Module):
        def forward(self, u: Tensor) -> Tensor:
            return u / u.norm(dim=-1, keepdim=True).clamp_min(1e-12)

    model = nn.Sequential(ScaleNorm())
    x, first = wave(1, 6), torch.tensor([0])
    said = str(degenerate(Network(model), torch.zeros_like(x), x, first))
    assert "happens right next to the baseline" in said
    assert "0e+00" not in said
    assert degenerate(Network(model), 0.5 + x, x, first) is None


def test_weights_of_zero_say_nothing() -> None:
    model = nn.Sequential(nn.LayerNorm(6)).double()
    with torch.no_grad():
        model[0].weight.zero_()
    assert (
        degenerate(Network(model), torch.zeros(1, 6).double(), wave(1, 6), torch.tensor([0]))
        is None
    )


def test_a_faster_copy_does_not_hide_the_layer() -> None:
    said = told(behind(nn.LayerNorm(6)), baseline=0.0, rule=ig.rules.Midpoint(4), optimize=True)
    assert "starves layer '1' (LayerNorm)" in said[0]


@pytest.mark.parametrize("name", list(NORMS))
def test_healthy_baselines_are_not_accused(name: str) -> None:
    """Other trouble gets other advice."""
    model = behind(NORMS[name]())
    said = told(model, baseline=HEALTHY, rule=ig.rules.Adaptive(1e-9, max_gradients=10))
    assert len(said) == 1
    assert "starves" not in said[0]
    assert "max_gradients" in said[0]
    assert told(model, baseline=HEALTHY) == []


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm1d(6), Normalize()], ids=["batch norm", "preprocessing"]
)
def test_fixed_numbers_are_not_accused(layer: nn.Module) -> None:
    """What divides by numbers of its own does not mind what it is fed."""
    said = told(behind(layer), baseline=0.0, rule=ig.rules.Adaptive(1e-9, max_gradients=10))
    assert len(said) == 1
    assert "starves" not in said[0]


def test_the_spread_is_that_of_the_layer_not_of_the_input() -> None:
    """A bias in front of the normalisation feeds it, also where the input is zero."""
    first = filled(nn.Linear(6, 6))
    top = behind(nn.LayerNorm(6))
    said = told(
        nn.Sequential(first, *top), baseline=0.0, rule=ig.rules.Adaptive(1e-9, max_gradients=10)
    )
    assert "starves" not in said[0]
    with torch.no_grad():
        first.bias.zero_()
    said = told(
        nn.Sequential(first, *top), baseline=0.0, rule=ig.rules.Adaptive(1e-9, max_gradients=10)
    )
    assert "starves layer '2' (LayerNorm)" in said[0]


def test_the_baseline_that_counts_most_is_looked_at() -> None:
    """Of several, the worst example's own: the healthy one is not spoken of."""
    model = behind(nn.LayerNorm(6))
    both = torch.stack([torch.zeros(6).double(), HEALTHY])
    said = told(model, method="expected", baseline=both[:1], rule=ig.rules.Midpoint(2))
    assert "starves" in said[0]
    field = ig.TorchField(model, 0)
    x, first = wave(1, 6, phase=0.3), torch.tensor([0])
    assert "starves" in str(field.trouble(both[:1], x, first))
    assert field.trouble(both[1:], x, first) is None


def test_extra_arguments_come_along() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = behind(nn.LayerNorm(6))

        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return self.inner(x) * scale[:, None]

    said = told(
        Scaled().eval(), baseline=0.0, rule=ig.rules.Midpoint(2), extra={"scale": 1 + 0.1 * wave(B)}
    )
    assert "starves layer 'inner.1' (LayerNorm)" in said[0]


def test_models_without_normalisations_are_not_run_again() -> None:
    model = Counting(filled(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))))
    assert (
        degenerate(Network(model), torch.zeros(1, 6).double(), wave(1, 6), torch.tensor([0]))
        is None
    )
    assert model.calls == 0
    plain = ig.TorchField(lambda z: z, 0)
    assert plain.trouble(torch.zeros(1, 6).double(), wave(1, 6), torch.tensor([0])) is None


# --- what is left behind ----------------------------------------------------------------------------------------------


def hooks(model: nn.Module) -> int:
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks)
        for m in model.modules()
    )


@pytest.mark.parametrize("name", list(NORMS))
def test_nothing_is_left_on_the_model(name: str) -> None:
    model = behind(NORMS[name]()).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert told(model, baseline=0.0, rule=ig.rules.Midpoint(2))
    assert hooks(model) == 0
    assert all(module.training for module in model.modules())
    assert all(
        parameter.requires_grad and parameter.grad is None for parameter in model.parameters()
    )
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_nothing_is_left_when_the_model_fails() -> None:
    class Fragile(nn.Module):
        def forward(self, u: Tensor) -> Tensor:
            raise RuntimeError("inside")

    model = nn.Sequential(nn.LayerNorm(6), Fragile()).double().train()
    field = ig.TorchField(model, 0)
    with pytest.raises(RuntimeError, match="inside"):
        field.trouble(torch.zeros(1, 6).double(), wave(1, 6), torch.tensor([0]))
    assert hooks(model) == 0
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


class TimeFirst(nn.Module):
    """Rows on the second axis: (N, 6) is read as six steps of N rows."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm.double()

    def forward(self, z: Tensor) -> Tensor:
        steps = z[:, :, None].expand(-1, -1, 3).transpose(0, 1) * torch.tensor([1.0, 2.0, 4.0])
        return self.norm(steps).sum((0, 2))[:, None]


def rows_of_calls(model: nn.Module) -> list[int]:
    calls: list[int] = []
    model.register_forward_hook(lambda _, passed, __: calls.append(len(passed[0])))
    return calls


@pytest.mark.parametrize("baseline", [0.0, 0.5])
@pytest.mark.parametrize("name", list(NORMS))
def test_both_rows_share_a_call_where_they_can_be_told_apart(name: str, baseline: float) -> None:
    """And what is said is what two calls say."""
    x, first = wave(1, 6, phase=0.3), torch.tensor([0])
    start = baseline * wave(1, 6, phase=2)
    model = behind(NORMS[name]())
    calls = rows_of_calls(model)
    together = degenerate(Network(model), start, x, first)
    assert calls == [2]
    assert together == degenerate(Network(model), start, x, first, together=False)
    assert calls == [2, 1, 1]
    assert (together is None) == bool(baseline)


def test_rows_that_a_layer_holds_elsewhere_are_asked_about_apart() -> None:
    x, first = wave(1, 6, phase=0.3), torch.tensor([0])
    model = TimeFirst(nn.LayerNorm(3))
    calls = rows_of_calls(model)
    assert "starves" in str(degenerate(Network(model), torch.zeros_like(x), x, first))
    assert calls == [2, 1, 1]


def test_rows_that_a_model_takes_one_by_one() -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = behind(nn.LayerNorm(6))

        def forward(self, z: Tensor) -> Tensor:
            return self.inner(z.reshape(6))[None]

    x, first = wave(1, 6, phase=0.3), torch.tensor([0])
    assert "starves" in str(degenerate(Network(One()), torch.zeros_like(x), x, first))


def test_few_of_many_slopes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a hundred layers and four thousand tokens, all would be gigabytes; a few tell the same, whatever the width."""
    model = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 64), nn.LayerNorm(64)).double()
    filled(model)
    x, first = wave(1, 40, 64, phase=0.3), torch.tensor([0])
    kept: list[Tensor] = []
    width = diagnose._width

    def watched(start: Tensor, end: Tensor) -> float:
        kept.extend((start, end))
        return width(start, end)

    monkeypatch.setattr(diagnose, "_width", watched)
    for most, count in ((1 << 16, 40 * 64), (256, len(range(0, 40 * 64, 11)))):
        monkeypatch.setattr(diagnose, "_SLOPES", most)
        kept.clear()
        assert "starves layer '0'" in str(degenerate(Network(model), 1e-4 * x, x, first))
        assert {len(slopes) for slopes in kept} == {count}
        assert degenerate(Network(model), 0.9 * x + 0.1, x, first) is None
    assert {number % 64 for number in range(0, 40 * 64, 11)} == set(range(64))  # every channel
