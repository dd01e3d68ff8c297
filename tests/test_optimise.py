"""The faster copy: it says what the model says, and the model knows nothing of it."""

from __future__ import annotations

import copy
import functools
import gc
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import integrand as ig
from integrand.model.fusion import OptimisedCopy
from tests.problems import filled, tanh_mlp, wave


@pytest.fixture(autouse=True)
def _asked_for(request: pytest.FixtureRequest) -> None:
    """These tests compare the two, so they choose themselves."""
    if request.config.getoption("--optimize"):
        pytest.skip("chooses optimize= itself")


def lived(model: nn.Module) -> nn.Module:
    """The model in float64 and eval mode, its batch norms with statistics as if it had been trained."""
    filled(model.double().eval())
    for number, module in enumerate(model.modules()):
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            channels = len(module.running_mean)
            module.running_mean.copy_(wave(channels, phase=number))
            module.running_var.copy_(1.5 + wave(channels, phase=number + 1))
    return model


def copy_of(field: ig.TorchField, x: Tensor) -> OptimisedCopy | None:
    field.outputs(x)
    return field.network.optimiser and field.network.optimiser._optimised


def folded(model: Any, x: Tensor, target: Any = 0) -> int:
    """How many batch norms are folded; the copy's value and gradient are checked against the model's own."""
    plain, fast = ig.TorchField(model, target), ig.TorchField(model, target, optimize=True)
    torch.testing.assert_close(fast.value(x), plain.value(x), rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(fast.gradient(x), plain.gradient(x), rtol=1e-10, atol=1e-12)
    optimised = copy_of(fast, x)
    assert optimised is not None
    return len(optimised.folds)


IMAGE, TABLE, SOUND = wave(3, 4, 9, 9), wave(3, 6), wave(3, 4, 12)

FOLDABLE: dict[str, tuple[Callable[[], nn.Module], Tensor, int]] = {
    "conv": (lambda: nn.Sequential(nn.Conv2d(4, 5, 3, bias=False), nn.BatchNorm2d(5)), IMAGE, 1),
    "conv with bias": (lambda: nn.Sequential(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5)), IMAGE, 1),
    "depthwise": (lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), nn.BatchNorm2d(8)), IMAGE, 1),
    "not affine": (lambda: nn.Sequential(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5, affine=False)), IMAGE, 1),
    "reflected edges": (
        lambda: nn.Sequential(nn.Conv2d(4, 5, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(5)), IMAGE, 1,
    ),
    "transposed": (lambda: nn.Sequential(nn.ConvTranspose2d(4, 5, 3), nn.BatchNorm2d(5)), IMAGE, 1),
    "transposed in groups": (lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)), IMAGE, 0),
    "sound": (lambda: nn.Sequential(nn.Conv1d(4, 5, 3), nn.BatchNorm1d(5), nn.Tanh(), nn.Flatten()), SOUND, 1),
    "linear": (lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)), TABLE, 1),
    "two, nested": (
        lambda: nn.Sequential(
            nn.Sequential(nn.Conv2d(4, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(inplace=True))),
            nn.Sequential(nn.Sequential(nn.Conv2d(4, 5, 3)), nn.BatchNorm2d(5)),
        ), IMAGE, 2,
    ),
    "something between": (lambda: nn.Sequential(nn.Conv2d(4, 5, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(5)), IMAGE, 0),
    "norm first": (lambda: nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3)), IMAGE, 0),
    "another norm": (lambda: nn.Sequential(nn.Conv2d(4, 5, 3), nn.InstanceNorm2d(5, affine=True)), IMAGE, 0),
    "no statistics": (
        lambda: nn.Sequential(nn.Conv2d(4, 5, 3), nn.GroupNorm(5, 5), nn.Conv2d(5, 5, 1)), IMAGE, 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(FOLDABLE))
def test_what_is_folded(name: str) -> None:
    make, x, count = FOLDABLE[name]
    assert folded(lived(make()), x, target=lambda outputs: outputs.flatten(1).sin().sum(1)) == count


class Branching(nn.Module):
    """A convolution whose output goes two ways, as ``how`` says."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv, self.norm, self.last = nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.Linear(5, 3)
        self.kept = [self.norm]  # found here too, which no list of children knows
        self.seen: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        u = self.conv(x)
        v = self.kept[0](u)
        if self.how == "also used":
            v = v + u
        elif self.how == "conv twice":
            v = v + self.conv(x / 2)
        elif self.how == "norm twice":
            v = v + self.norm(v)
        elif self.how == "looked at":
            v = v * u.mean().item()
        elif self.how == "weight used":
            v = v * self.conv.weight.mean()
        return self.last(v.tanh().mean((2, 3)))


BRANCHES = {
    "plain": 1,
    "also used": 0,
    "conv twice": 0,
    "norm twice": 0,
    "weight used": 0,
}


@pytest.mark.parametrize("how", list(BRANCHES))
def test_nothing_is_folded_that_something_else_sees(how: str) -> None:
    assert folded(lived(Branching(how)), IMAGE) == BRANCHES[how]


def test_numbers_read_out_are_seen() -> None:
    """``.item()`` leaves no tensor behind, but looks."""
    model = lived(Branching("looked at"))
    fast = ig.TorchField(model, 0, optimize=True)
    torch.testing.assert_close(fast.value(IMAGE[:1]), ig.TorchField(model, 0).value(IMAGE[:1]))
    optimised = copy_of(fast, IMAGE[:1])
    assert optimised is not None
    assert optimised.folds == []


@pytest.mark.parametrize("kind", ["weight norm", "old weight norm", "tied"])
def test_weights_that_are_not_the_layers_own_are_left_alone(kind: str) -> None:
    conv = nn.Conv2d(4, 4, 3, padding=1)
    other = nn.Conv2d(4, 4, 3, padding=1)
    model = nn.Sequential(conv, nn.BatchNorm2d(4), nn.Tanh(), other, nn.Flatten())
    lived(model)
    if kind == "weight norm":
        parametrizations.weight_norm(conv)
    elif kind == "old weight norm":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            nn.utils.weight_norm(conv)
    else:
        other.weight = conv.weight
    assert folded(model, IMAGE, lambda outputs: outputs.square().sum(1)) == 0


class Changing(nn.Conv2d):
    """A convolution that does more with its weight than convolve."""

    def forward(self, x: Tensor) -> Tensor:
        centred = self.weight - 0.5
        return nn.functional.conv2d(x, self.weight, self.bias) + centred.sum()


class Sneaky(nn.Conv2d):
    """A convolution that forgets its bias where it was made without one, whatever it is given later."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight)


def test_a_pair_that_says_something_else_when_folded_is_left_alone_and_the_others_are_folded() -> (
    None
):
    model = lived(
        nn.Sequential(
            nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), Sneaky(4, 4, 2), nn.BatchNorm2d(4), nn.Tanh(),
            nn.Conv2d(4, 4, 2), nn.BatchNorm2d(4), Changing(4, 4, 1), nn.BatchNorm2d(4), nn.Flatten(),
        )
    )  # fmt: skip
    assert folded(model, IMAGE, lambda outputs: outputs.square().sum(1)) == 2


# --- layers -----------------------------------------------------------------------------------------------------------


def stem() -> nn.Module:
    pooled = (nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 3))
    return lived(nn.Sequential(nn.Sequential(nn.Conv2d(4, 5, 3)), nn.BatchNorm2d(5), *pooled))


@pytest.mark.parametrize("given", ["name", "module"])
@pytest.mark.parametrize("layer", ["0", "0.0", "1", "2", "5"])
def test_layers_show_what_the_models_own_show(layer: str, given: str) -> None:
    """Also those that are folded: who looks between a convolution and its batch norm sees what is there in the model."""
    model = stem()
    plain, fast = ig.TorchField(model, 0), ig.TorchField(model, 0, optimize=True)
    optimised = copy_of(fast, IMAGE)
    assert optimised is not None
    assert len(optimised.folds) == 1
    named: Any = layer if given == "name" else model.get_submodule(layer)
    index = torch.arange(3)
    seen = [f.look(IMAGE, index, f.site(named, IMAGE, index)) for f in (plain, fast)]
    torch.testing.assert_close(seen[1], seen[0], rtol=1e-11, atol=1e-12)
    assert len(optimised.folds) == (0 if layer in ("0", "0.0") else 1)
    torch.testing.assert_close(fast.gradient(IMAGE), plain.gradient(IMAGE), rtol=1e-10, atol=1e-12)


def test_a_descent_by_a_folded_layer(quiet: None) -> None:
    model = stem()
    run = lambda **options: ig.explain(  # noqa: E731
        model,
        IMAGE,
        target=0,
        method="ig2",
        baseline=wave(2, 4, 9, 9, phase=1),
        representation="0.0",
        steps=4,
        **options,
    )
    torch.testing.assert_close(run(optimize=True).values, run().values, rtol=1e-9, atol=1e-12)


# --- the user's model -------------------------------------------------------------------------------------------------


def test_the_copy_shares_memory_and_the_model_is_untouched() -> None:
    model = lived(
        nn.Sequential(
            nn.Conv2d(4, 5, 3),
            nn.BatchNorm2d(5),
            nn.Conv2d(5, 2, 3),
            nn.Flatten(),
            nn.Linear(50, 3),
        )
    )
    model.train()
    model.unrelated = torch.zeros(1000)
    before = {
        name: (id(t), t._version, t.requires_grad, t.clone())
        for name, t in model.state_dict(keep_vars=True).items()
    }
    field = ig.TorchField(model, 0, optimize=True)
    with pytest.warns(ig.errors.TrainingModeWarning):
        field.gradient(IMAGE)
    optimised = copy_of_quietly(field)
    shared = {t.data_ptr() for t in model.state_dict().values()}
    own = {name for name, t in optimised.module.state_dict().items() if t.data_ptr() not in shared}
    # What was folded, and the other convolution's weight, whose channels are innermost now.
    assert own == {"0.weight", "0.bias", "2.weight"}
    assert optimised.module.unrelated.data_ptr() == model.unrelated.data_ptr()
    assert not any(p.requires_grad for p in optimised.module.parameters())
    assert all(module.training for module in model.modules())
    for name, tensor in model.state_dict(keep_vars=True).items():
        same, version, wanted, value = before[name]
        assert (id(tensor), tensor._version, tensor.requires_grad) == (same, version, wanted)
        assert torch.equal(tensor, value)
    assert type(model[1]) is nn.BatchNorm2d


def copy_of_quietly(field: ig.TorchField) -> OptimisedCopy:
    assert field.network.optimiser is not None
    assert field.network.optimiser._optimised is not None
    return field.network.optimiser._optimised


def test_a_model_in_training_mode_is_explained_in_eval_mode() -> None:
    model = lived(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(), nn.Linear(5, 3)))
    expected = ig.TorchField(model, 0).gradient(TABLE)
    model.train()
    with pytest.warns(ig.errors.TrainingModeWarning):
        found = ig.TorchField(model, 0, optimize=True).gradient(TABLE)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    assert all(module.training for module in model.modules())


def step(model: nn.Module) -> None:
    with torch.no_grad():
        model[0].weight.mul_(2)


CHANGES: dict[str, Callable[[nn.Module], Any]] = {
    "a step of training": step,
    "statistics": lambda model: model[1].running_mean.add_(1),
    "another layer": lambda model: model.__setitem__(3, lived(nn.Linear(5, 3))),
    "another weight": lambda model: setattr(
        model[3], "weight", nn.Parameter(model[3].weight.detach() * 2)
    ),
    "a number": lambda model: setattr(model[1], "eps", 0.5),
    "a hook": lambda model: model[2].register_forward_hook(lambda module, args, output: output * 2),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_model_that_has_changed_gets_a_new_copy(change: str) -> None:
    model = lived(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)))
    field = ig.TorchField(model, 0, optimize=True)
    before = field.gradient(TABLE)
    old = copy_of_quietly(field)
    torch.testing.assert_close(field.gradient(TABLE), before, rtol=0, atol=0)
    assert copy_of_quietly(field) is old
    CHANGES[change](model)
    found = field.gradient(TABLE)
    torch.testing.assert_close(
        found, ig.TorchField(model, 0).gradient(TABLE), rtol=1e-11, atol=1e-12
    )
    assert not torch.allclose(found, before)


def test_a_hook_on_a_layer_sees_what_it_would_see() -> None:
    """A layer that somebody listens to is not folded."""
    model = lived(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)))
    heard: list[Tensor] = []
    model[0].register_forward_hook(lambda module, args, output: heard.append(output))
    field = ig.TorchField(model, 0, optimize=True)
    field.value(TABLE)
    torch.testing.assert_close(
        heard[-1], nn.functional.linear(TABLE, model[0].weight, model[0].bias)
    )
    assert copy_of_quietly(field).folds == []


def test_models_are_not_kept_alive() -> None:
    model = lived(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)))
    alive = weakref.ref(model)
    ig.explain(model, TABLE, target=0, optimize=True)
    del model
    gc.collect()
    assert alive() is None


# --- channels last ----------------------------------------------------------------------------------------------------


class Viewing(nn.Module):
    """Cuts images up as they lie in memory, which channels last does not allow for more than one row."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(4, 5, 3), nn.Linear(5 * 49, 3)

    def forward(self, x: Tensor) -> Tensor:
        u = self.conv(x)
        return self.last(u.view(len(u) * 5, 7, 7).reshape(len(u), -1))


@pytest.mark.parametrize(
    ("make", "last"),
    [(Viewing, False), (lambda: nn.Sequential(nn.Conv2d(4, 2, 3), nn.Flatten()), True)],
)
def test_channels_last_where_the_model_takes_it(make: Callable[[], nn.Module], last: bool) -> None:
    model = lived(make())
    field = ig.TorchField(model, lambda outputs: outputs.tanh().sum(1), optimize=True)
    assert folded(model, IMAGE, lambda outputs: outputs.tanh().sum(1)) == 0
    assert copy_of(field, IMAGE[:1]) is not None
    assert copy_of_quietly(field).channels_last is last


# --- what has no copy -----------------------------------------------------------------------------------------------


class Uncopyable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(6, 3)

    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("there is only one of me")

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x)


WITHOUT: dict[str, tuple[Callable[[], Any], str]] = {
    "function": (lambda: lambda x: x.sin(), "plain function"),
    "uncopyable": (lambda: Uncopyable().double(), "cannot be copied .there is only one of me"),
}


@pytest.mark.parametrize("name", list(WITHOUT))
def test_a_model_without_a_copy_is_run_as_it_is_and_a_warning_says_so(name: str) -> None:
    make, words = WITHOUT[name]
    model = make()
    with pytest.warns(ig.errors.OptimizeWarning, match=words):
        made = ig.explain(model, TABLE, target=0, optimize=True)
    torch.testing.assert_close(
        made.values, ig.explain(model, TABLE, target=0).values, rtol=0, atol=0
    )


@pytest.mark.parametrize("kind", ["method", "partial"])
def test_methods_and_partials_of_a_module_are_those_of_its_copy(kind: str) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(
                nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)
            )

        def forward(self, x: Tensor, times: float = 1.0) -> Tensor:
            return self.inner(x) * times

        def features(self, x: Tensor) -> Tensor:
            return self.inner[:2](x)

    model = lived(Twice())
    assert (
        folded(model.features if kind == "method" else functools.partial(model, times=2.0), TABLE)
        == 1
    )


def test_a_model_that_fails_is_heard_itself() -> None:
    model = tanh_mlp()
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        ig.explain(model, wave(3, 5), target=0, optimize=True)
    # And a copy is made when there is something to try it with.
    field = ig.TorchField(model, 0, optimize=True)
    with pytest.raises(RuntimeError):
        field.value(wave(3, 5))
    assert copy_of(field, TABLE) is not None


def test_recurrent_networks() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.last = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.cell(x)[0][:, -1])

    assert folded(lived(Recurrent()), wave(3, 7, 4)) == 0


def test_dicts_extra_arguments_and_nested_outputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.last = nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.Linear(6, 3)

        def forward(self, image: Tensor, number: Tensor, scale: Tensor) -> dict[str, Tensor]:
            u = self.norm(self.conv(image)).tanh().mean((2, 3))
            return {"logits": self.last(torch.cat([u, number], 1)) * scale[:, None]}

    model = lived(Two())
    inputs = {"image": IMAGE, "number": wave(3, 1)}
    options: dict[str, Any] = dict(
        target=1, extra={"scale": torch.tensor([1.0, 2.0, 3.0]).double()}
    )
    plain, fast = (
        ig.explain(model, inputs, **options, optimize=optimize) for optimize in (False, True)
    )
    for key in inputs:
        torch.testing.assert_close(fast.values[key], plain.values[key], rtol=1e-10, atol=1e-12)


def test_a_copied_model_has_its_own_copy() -> None:
    model = lived(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)))
    field = ig.TorchField(model, 0, optimize=True)
    field.value(TABLE)
    other = copy.deepcopy(model)
    step(other)
    assert folded(other, TABLE) == 1
    torch.testing.assert_close(
        field.value(TABLE), ig.TorchField(model, 0).value(TABLE), rtol=1e-11, atol=1e-12
    )


@pytest.mark.slow
def test_efficientnet() -> None:
    """All 49 batch norms; maps agree to 10⁻¹⁰ in float64, and in float32 to what switched kinks leave (see docs/benchmarks.md)."""
    from integrand.images import load_model

    net = load_model("efficientnet-lite0")
    x = net.prepare("sample:chelsea")
    method = ig.methods.integrated(rule=ig.rules.GaussLegendre(6))
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 2e-2)):
        model = net.module.to(dtype)
        plain, fast = (ig.TorchField(model, 285, batch_size=2, optimize=o) for o in (False, True))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ig.errors.IncompleteWarning)
            a, b = method(plain, x.to(dtype)).values, method(fast, x.to(dtype)).values
        assert len(copy_of_quietly(fast).folds) == 49
        assert float((a - b).norm() / a.norm()) < tolerance
