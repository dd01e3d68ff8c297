"""The user's model is borrowed: it comes back as it was, whatever happened."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from tests.problems import filled, tanh_mlp, wave

X = wave(4, 6)


class Fickle(nn.Module):
    """Batch norm, dropout, in-place layers, frozen and free parameters, hooks, a buffer that nobody may touch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.drop = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)
        self.relu, self.last = nn.ReLU(inplace=True), nn.Linear(8, 3)
        self.register_buffer("scale", torch.ones(1))
        self.fail: BaseException | None = None
        self.countdown = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.fail is not None:
            self.countdown -= 1
            if self.countdown < 0:
                raise self.fail
        return self.last(self.relu(self.drop(self.norm(self.first(x))))) * self.scale


def fickle(training: str) -> Fickle:
    torch.manual_seed(0)
    model = Fickle().double()
    model.train(training != "eval")
    if training == "mixed":
        model.norm.eval()
    model.last.weight.requires_grad_(False)
    model.first.bias.requires_grad_(False)
    model.first.weight.grad = torch.full_like(model.first.weight, 7.0)
    model.first.register_forward_hook(lambda *_: None)
    model.last.register_full_backward_hook(lambda *_: None)
    return model


def state(model: nn.Module) -> dict[str, Any]:
    """Everything about a model that a caller could notice."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        found[f"{name}.training"] = module.training
        for kind in (
            "_forward_hooks",
            "_forward_pre_hooks",
            "_backward_hooks",
            "_backward_pre_hooks",
        ):
            found[f"{name}.{kind}"] = list(getattr(module, kind).items())
        found[f"{name}.attributes"] = sorted(vars(module))
    for name, parameter in model.named_parameters():
        found[f"{name}.requires_grad"] = parameter.requires_grad
        found[f"{name}.version"] = parameter._version
        found[f"{name}.value"] = parameter.detach().clone()
        found[f"{name}.grad"] = None if parameter.grad is None else parameter.grad.clone()
        found[f"{name}.parameter hooks"] = copy.copy(parameter._backward_hooks)
    for name, buffer in model.named_buffers():
        found[name] = buffer.clone()
    return found


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert before.keys() == after.keys()
    for key in before:
        if isinstance(before[key], Tensor):
            assert torch.equal(before[key], after[key]), key
        else:
            assert before[key] == after[key], key


def work(model: nn.Module, method: str) -> None:
    options: dict[str, dict[str, Any]] = {
        "integrated": dict(rule=ig.rules.Midpoint(4)),
        "expected": dict(baseline=wave(3, 6, phase=1), draws=6),
        "weighted": dict(baseline=[0.0, 1.0], fill=0.0, rule=ig.rules.Midpoint(4)),
        "ig2": dict(baseline=wave(2, 6, phase=1), steps=3),
        "by layer": dict(
            baseline=wave(2, 6, phase=1), steps=3, representation="norm", method="ig2"
        ),
        "layer": dict(site="norm", rule=ig.rules.Midpoint(4)),
        "conductance": dict(site="first", steps=3),
        "relevant": dict(
            baseline=ig.baselines.OtherClass(10 * wave(30, 6, phase=1), 1), steps=3, method="ig2"
        ),
    }
    ig.explain(
        model, X, **({"target": "predicted", "method": method, "batch_size": 3} | options[method])
    )


METHODS = [
    "integrated",
    "expected",
    "weighted",
    "ig2",
    "by layer",
    "layer",
    "conductance",
    "relevant",
]


@pytest.mark.filterwarnings("ignore::integrand.errors.IntegrandWarning")
@pytest.mark.parametrize("training", ["train", "eval", "mixed"])
@pytest.mark.parametrize("method", METHODS)
def test_after_success(method: str, training: str) -> None:
    model = fickle(training)
    before = state(model)
    work(model, method)
    assert_same(before, state(model))


@pytest.mark.filterwarnings("ignore::integrand.errors.IntegrandWarning")
@pytest.mark.parametrize("countdown", [0, 1, 3])
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("broken"),
        KeyboardInterrupt(),
        SystemExit(),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_after_an_error_or_ctrl_c_inside_forward(
    method: str, error: BaseException, countdown: int
) -> None:
    model = fickle("train")
    before = state(model)
    model.fail, model.countdown = error, countdown
    expected = ig.errors.ModelTooLarge if isinstance(error, torch.OutOfMemoryError) else type(error)
    with pytest.raises(expected):
        work(model, method)
    model.fail = None
    assert_same(before, state(model))
    # And it can be explained afterwards.
    work(model, method)
    assert_same(before, state(model))


@pytest.mark.filterwarnings("ignore::integrand.errors.IntegrandWarning")
@pytest.mark.parametrize("where", ["target", "representation", "progress", "baseline"])
def test_after_an_error_in_the_users_own_functions(where: str) -> None:
    model = fickle("train")
    before = state(model)

    def broken(*_: Any) -> Any:
        raise KeyboardInterrupt

    options: dict[str, Any] = {where: broken}
    if where == "representation":
        options |= dict(method="ig2", baseline=wave(2, 6, phase=1))
    with pytest.raises(KeyboardInterrupt):
        ig.explain(model, X, **({"target": 0} | options))
    assert_same(before, state(model))


def test_after_a_layer_that_gives_no_rows() -> None:
    model = (
        nn.Sequential(nn.Linear(6, 4), nn.Flatten(0), nn.Unflatten(0, (-1, 4)), nn.Linear(4, 2))
        .double()
        .eval()
    )
    before = state(model)
    with pytest.raises(ig.errors.ModelError, match=r"one entry per row"):
        ig.explain(model, X, target=0, method="ig2", baseline=X[:1], representation="1")
    assert_same(before, state(model))


def test_diagnosing_leaves_no_hooks() -> None:
    model = fickle("eval")
    with torch.no_grad():
        model.scale.fill_(float("inf"))
    before = state(model)
    with pytest.raises(ig.errors.NonFiniteGradient):
        ig.explain(model, X, target=0)
    assert_same(before, state(model))


@pytest.mark.parametrize("before", [True, False])
def test_the_grad_mode_is_as_it_was(before: bool) -> None:
    with torch.set_grad_enabled(before):
        ig.explain(tanh_mlp(), X, target="predicted")
        assert torch.is_grad_enabled() is before
        with pytest.raises(ig.errors.TargetError):
            ig.explain(tanh_mlp(), X, target=9)
        assert torch.is_grad_enabled() is before


# --- training mode ----------------------------------------------------------------------------------------------------


def test_training_mode_is_warned_of_and_evaluated_in_eval_mode() -> None:
    model = fickle("train")
    with pytest.warns(
        ig.errors.TrainingModeWarning,
        match=r"has BatchNorm1d, Dropout; it is explained in eval mode",
    ) as caught:
        made = ig.explain(model, X, target=0)
    assert len(caught) == 1
    assert model.training
    expected = ig.explain(model.eval(), X, target=0)
    assert torch.equal(made.values, expected.values)


def test_the_warning_points_at_the_caller() -> None:
    with pytest.warns(ig.errors.TrainingModeWarning) as caught:
        ig.explain(fickle("train"), X, target=0)
    assert caught[0].filename == __file__


def test_training_mode_without_consequences_is_no_matter() -> None:
    model = tanh_mlp().train()
    ig.explain(model, X, target=0)
    assert model.training


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm1d(6),
        nn.Dropout(0.1),
        nn.AlphaDropout(0.1),
        nn.BatchNorm1d(6, track_running_stats=True),
    ],
)
def test_layers_that_mind(layer: nn.Module) -> None:
    with pytest.warns(ig.errors.TrainingModeWarning, match=type(layer).__name__):
        ig.explain(nn.Sequential(layer, nn.Linear(6, 2)).double().train(), X, target=0)


def test_a_function_that_closes_over_a_model() -> None:
    """Nothing is known of the module inside; its parameters get no gradients all the same."""
    model = fickle("eval")
    before = state(model)
    ig.explain(lambda z: model(z), X, target=0)
    assert_same(before, state(model))


# --- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::integrand.errors.IntegrandWarning")
@pytest.mark.parametrize("method", METHODS)
def test_no_gradient_is_computed_for_parameters(method: str) -> None:
    """A linear layer whose weight gradient would be asked for raises: nobody asks."""
    asked: list[tuple[bool, ...]] = []

    class Spy(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
            ctx.save_for_backward(weight)
            return x @ weight.T

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
            asked.append(ctx.needs_input_grad)
            (weight,) = ctx.saved_tensors
            return gradient @ weight, None

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(wave(6, 6))

        def forward(self, x: Tensor) -> Tensor:
            return Spy.apply(x, self.weight)

    class Whole(Fickle):
        def __init__(self) -> None:
            super().__init__()
            self.spy = Layer()

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.spy(x))

    work(Whole().double().eval(), method)
    if method in ("layer", "conductance"):  # it stands before the layer: nobody asks anything
        assert not asked
        return
    assert asked
    assert set(asked) == {(True, False)}


def test_gradients_already_there_are_left_alone() -> None:
    model = tanh_mlp()
    model(X).sum().backward()
    before = [p.grad.clone() for p in model.parameters()]
    ig.explain(model, X, target=0)
    assert all(torch.equal(p.grad, b) for p, b in zip(model.parameters(), before, strict=True))


# --- modes of the caller ----------------------------------------------------------------------------------------------


def ways() -> dict[str, Callable[[nn.Module, Tensor], Tensor]]:
    refs, other = wave(2, 6, phase=1), filled(nn.Linear(6, 4))
    return {
        "integrated": lambda m, x: ig.explain(m, x, target="predicted").values,
        "expected": lambda m, x: (
            ig.explain(m, x, target=0, method="expected", baseline=refs, draws=4).values
        ),
        "weighted": lambda m, x: (
            ig.explain(m, x, target=0, method="weighted", baseline=refs, fill=0.0).values
        ),
        "ig2": lambda m, x: ig.explain(m, x, target=0, method="ig2", baseline=refs, steps=3).values,
        "ig2 by function": lambda m, x: (
            ig.explain(
                m,
                x,
                target=0,
                method="ig2",
                baseline=refs,
                steps=3,
                representation=lambda z: z.square(),
            ).values
        ),
        "ig2 by another module": lambda m, x: (
            ig.explain(
                m, x, target=0, method="ig2", baseline=refs, steps=3, representation=other
            ).values
        ),
    }


@pytest.mark.filterwarnings("ignore::integrand.errors.IntegrandWarning")
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("way", list(ways()))
def test_works_in_every_mode(way: str, mode: Any) -> None:
    model, explained = tanh_mlp(), ways()[way]
    expected = explained(model, X)
    with mode():
        found = explained(model, X.clone())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


def test_inputs_made_in_inference_mode() -> None:
    with torch.inference_mode():
        x = X.clone()
    assert torch.equal(
        ig.explain(tanh_mlp(), x, target=0).values, ig.explain(tanh_mlp(), X, target=0).values
    )


@pytest.mark.parametrize("mode", [nullcontext, torch.no_grad])
def test_inputs_that_ask_for_gradients(mode: Any) -> None:
    leaf = X.clone().requires_grad_()
    with mode():
        made = ig.explain(tanh_mlp(), leaf, target=0, baseline=ig.baselines.Gaussian(mean="input"))
    assert leaf.grad is None
    assert leaf.requires_grad
    assert not made.values.requires_grad
    assert not made.residual.requires_grad


@pytest.mark.parametrize("method", ["integrated", "weighted", "ig2"])
def test_models_that_work_in_place_on_their_input(method: str, quiet: None) -> None:
    """ReLU(inplace=True) first: the caller's inputs, baselines and the path's own points stay what they were."""

    def model(inplace: bool) -> nn.Module:
        return filled(
            nn.Sequential(
                nn.ReLU(inplace=inplace), nn.Linear(6, 8), nn.ReLU(inplace=inplace), nn.Linear(8, 3)
            )
        )

    x, references = X.clone(), wave(2, 6, phase=1)
    before = references.clone()
    options: dict[str, Any] = {"weighted": {"fill": 0.0}, "ig2": {"steps": 4}}.get(method, {})
    baseline = references if method != "integrated" else ig.baselines.Given(references)

    def run(m, x):
        return ig.explain(m, x, target="predicted", method=method, baseline=baseline, **options)

    found, expected = run(model(True), x), run(model(False), X)
    assert torch.equal(x, X)
    assert torch.equal(references, before)
    assert torch.equal(found.inputs, X)
    torch.testing.assert_close(found.values, expected.values, rtol=0, atol=1e-14)


def test_recurrent_layers() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.reader, self.last = (
                nn.GRU(3, 5, batch_first=True, dropout=0.2, num_layers=2),
                nn.Linear(5, 2),
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.reader(x)[0][:, -1])

    model = filled(Reader()).train()
    with pytest.warns(ig.errors.TrainingModeWarning, match=r"GRU"):
        made = ig.explain(model, wave(2, 4, 3), target="predicted")
    assert model.training
    assert bool(made.converged.all())


# --- models of other kinds --------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TorchScript
@pytest.mark.parametrize("frozen", [torch.jit.freeze, torch.jit.optimize_for_inference])
def test_frozen_scripts(frozen: Any) -> None:
    """Whose modules have no mode and no parameters left: the map is that of the model they were made from."""
    model = tanh_mlp().eval()
    script = frozen(torch.jit.script(model))
    for asked in (script, lambda z: script(z)):
        made = ig.explain(asked, X, target=1, rule=ig.rules.GaussLegendre(8))
        expected = ig.explain(model, X, target=1, rule=ig.rules.GaussLegendre(8))
        torch.testing.assert_close(made.values, expected.values, rtol=0, atol=1e-13)
    with pytest.raises(ig.errors.IntegrandError):
        ig.explain(script, X, target=1, method="layer", site="1")


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.filterwarnings("ignore::integrand.errors.TrainingModeWarning")
def test_models_made_in_inference_mode(training: bool, quiet: None) -> None:
    """Autograd cannot go back through their tensors: copies stand in for them, and the tensors come back."""
    with torch.inference_mode():
        model = filled(
            nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
        )
    model.train(training)
    plain = copy.deepcopy(model.eval())
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        owner, _, key = name.rpartition(".")
        store = plain.get_submodule(owner)
        with torch.no_grad():
            kind = nn.Parameter if isinstance(tensor, nn.Parameter) else lambda t: t
            setattr(store, key, kind(tensor.clone()))
    model.train(training)
    held = [*model.parameters(), *model.buffers()]
    asks = [tensor.requires_grad for tensor in held]
    for method, options in (
        ("integrated", {}),
        ("layer", {"site": "2"}),
        ("ig2", {"baseline": X[:1], "steps": 3}),
    ):
        made = ig.explain(model, X, target=1, method=method, **options)
        expected = ig.explain(plain, X, target=1, method=method, **options)
        torch.testing.assert_close(made.values, expected.values, rtol=0, atol=1e-13)
    assert all(a is b for a, b in zip(held, [*model.parameters(), *model.buffers()], strict=True))
    assert [tensor.requires_grad for tensor in held] == asks
    assert all(module.training is training for module in model.modules())


class Encoder(nn.Module):
    """PyTorch's own encoder, which in eval mode runs as one kernel, over tensors of ragged rows where a mask is given."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor, pad: Tensor) -> Tensor:
        return self.out(self.enc(x, src_key_padding_mask=pad).mean(1))


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize(
    "site", ["enc.layers.0", "enc.layers.0.self_attn", "enc.layers.1.linear1", "enc"]
)
def test_fused_attention_is_switched_off_and_given_back(
    site: str, enabled: bool, quiet: None
) -> None:
    model = filled(Encoder()).eval()
    x, pad = wave(2, 5, 8), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    options = {
        "target": 1,
        "extra": (pad,),
        "method": "layer",
        "site": site,
        "rule": ig.rules.GaussLegendre(6),
    }
    torch.backends.mha.set_fastpath_enabled(enabled)
    try:
        made = ig.explain(model, x, **options)
        assert torch.backends.mha.get_fastpath_enabled() is enabled
        with pytest.raises(ig.errors.TargetError):
            ig.explain(model, x, **(options | {"target": 9}))
        assert torch.backends.mha.get_fastpath_enabled() is enabled
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    # By hand, with autograd watching, where PyTorch takes the plain way of itself.
    module = model.get_submodule(site)
    points: list[Tensor] = []

    def at(value: Tensor | None, z: Tensor) -> Tensor:
        def hook(_: Any, __: Any, output: Any) -> Any:
            first = output[0] if isinstance(output, tuple) else output
            points.append(first.detach())
            if value is None:
                return None
            return (value, *output[1:]) if isinstance(output, tuple) else value

        handle = module.register_forward_hook(hook)
        try:
            return model(z.clone().requires_grad_(), pad)
        finally:
            handle.remove()

    at(None, torch.zeros_like(x))
    at(None, x)
    start, end = points[:2]
    nodes, weights = (
        torch.tensor(ig.rules.GaussLegendre(6).table()[0]),
        torch.tensor(ig.rules.GaussLegendre(6).table()[1]),
    )
    total = torch.zeros_like(end)
    for t, w in zip(nodes.tolist(), weights.tolist(), strict=True):
        h = (start + t * (end - start)).requires_grad_()
        total += w * torch.autograd.grad(at(h, x)[:, 1].sum(), h)[0]
    torch.testing.assert_close(made.values, (end - start) * total, rtol=0, atol=1e-10)
