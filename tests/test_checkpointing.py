"""Models that run parts of themselves again on the way back, or whose weights come and go: the same maps, and left as they were."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import integrand as ig
from tests.problems import wave
from tests.test_model_restored import assert_same, state

# Reentrant checkpoints say so of every pass that nobody wants a gradient of.
pytestmark = pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")

X = wave(4, 6)
ONE = torch.zeros(1, 6, dtype=torch.float64)
WAYS: dict[str, dict[str, Any]] = {
    "adaptive": {},
    "chords": {"rule": ig.rules.Chords(8)},
    "fixed nodes": {"rule": ig.rules.GaussLegendre(8)},
    "ig2": {"method": ig.methods.ig2(ONE, steps=6)},
    "layer": {"method": ig.methods.layer("blocks.0")},
    "optimized": {"optimize": True},
}


class Block(nn.Module):
    """What a transformer's feed-forward part looks like, checkpointed as transformers does it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = (
            nn.LayerNorm(width),
            nn.Linear(width, 12),
            nn.Linear(12, width),
        )
        self.act = nn.ReLU()
        self.checkpointing: Callable[..., Any] | None = None
        self.only_in_training = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        own = super().__call__
        if self.checkpointing is None or (self.only_in_training and not self.training):
            return own(*args, **kwargs)
        return self.checkpointing(functools.partial(own, **kwargs), *args)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.act(self.up(self.norm(x))))


class Stack(nn.Module):
    def __init__(self, width: int = 6) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.blocks, self.head = nn.ModuleList(Block(width) for _ in range(3)), nn.Linear(width, 3)

    def gradient_checkpointing_enable(
        self, use_reentrant: bool, only_in_training: bool = False
    ) -> None:
        for block in self.blocks:
            block.checkpointing = functools.partial(checkpoint, use_reentrant=use_reentrant)
            block.only_in_training = only_in_training

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class TimeFirst(nn.Module):
    """Rows are on the second axis of what is checkpointed."""

    def __init__(self, *, checkpointed: bool) -> None:
        super().__init__()
        self.block, self.head, self.checkpointed = Stack(2).blocks[0], nn.Linear(2, 2), checkpointed

    def forward(self, x: Tensor) -> Tensor:
        h = x.unflatten(1, (3, 2)).transpose(0, 1)
        h = checkpoint(self.block, h, use_reentrant=False) if self.checkpointed else self.block(h)
        return self.head(h).mean(0)


def plain() -> Stack:
    return Stack().double().eval()


def checkpointed(use_reentrant: bool, **options: Any) -> Stack:
    model = plain()
    model.gradient_checkpointing_enable(use_reentrant, **options)
    return model


def explained(model: Any, way: str, **options: Any) -> ig.Attribution:
    return ig.explain(model, X, target=1, **(WAYS[way] | options))


def relative(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", list(WAYS))
def test_a_checkpoint_changes_nothing(way: str, quiet: None) -> None:
    """What runs again on the way back runs with the chords that it first ran with."""
    model = checkpointed(use_reentrant=False)
    before = state(model)
    made, expected = explained(model, way), explained(plain(), way)
    torch.testing.assert_close(made.values, expected.values, rtol=0, atol=1e-12)
    assert made.cost.gradients == expected.cost.gradients
    assert_same(before, state(model))


@pytest.mark.parametrize("way", sorted(set(WAYS) - {"layer", "adaptive", "chords", "optimized"}))
def test_a_reentrant_checkpoint_gives_the_same_gradients(way: str, quiet: None) -> None:
    model = checkpointed(use_reentrant=True)
    before = state(model)
    torch.testing.assert_close(
        explained(model, way).values, explained(plain(), way).values, rtol=0, atol=1e-12
    )
    assert_same(before, state(model))


@pytest.mark.parametrize("way", ["adaptive", "optimized"])
def test_a_reentrant_checkpoint_keeps_the_tolerance_without_chords(way: str, quiet: None) -> None:
    """Its first run is out of autograd's sight, so there are no chords; that is noticed, and gradients do."""
    truth = explained(plain(), "chords", rule=ig.rules.Chords(400)).values
    model = checkpointed(use_reentrant=True)
    before = state(model)
    made = explained(model, way, tol=0.02)
    assert bool(made.converged.all())
    assert relative(made.values, truth) < 0.02
    assert_same(before, state(model))


@pytest.mark.parametrize(
    "rule", [ig.rules.Chords(8), ig.rules.GaussLegendre(8), ig.rules.Adaptive(0.02)]
)
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_several_targets_share_checkpointed_passes(
    use_reentrant: bool, rule: Any, quiet: None
) -> None:
    model = checkpointed(use_reentrant)
    found = ig.explain_targets(model, X, targets=[0, 1, 2], rule=rule)
    exact = not use_reentrant or isinstance(rule, ig.rules.GaussLegendre)
    for target, made in enumerate(found):
        expected = ig.explain(plain() if exact else model, X, target=target, rule=rule)
        # Under a tolerance targets share nodes, so a run for each has others.
        apart = 1e-12 if exact and not isinstance(rule, ig.rules.Adaptive) else 0.05
        assert relative(made.values, expected.values) < apart


def test_what_a_model_checkpoints_in_training_only_is_not(quiet: None) -> None:
    model = checkpointed(use_reentrant=True, only_in_training=True).train()
    made, expected = explained(model, "adaptive"), explained(plain(), "adaptive")
    torch.testing.assert_close(made.values, expected.values, rtol=0, atol=0)
    assert all(module.training for module in model.modules())


def test_rows_on_another_axis_of_what_is_checkpointed(quiet: None) -> None:
    """Where the rows are is lost when a part runs again: its chords are not used, and the tolerance is kept."""
    model, same = (
        TimeFirst(checkpointed=checkpointed).double().eval() for checkpointed in (True, False)
    )
    truth = explained(same, "chords", rule=ig.rules.Chords(400)).values
    made = explained(model, "adaptive", tol=0.02)
    assert bool(made.converged.all())
    assert relative(made.values, truth) < 0.02


@pytest.mark.parametrize("rule", [ig.rules.Chords(8), ig.rules.GaussLegendre(8)])
def test_a_layer_inside_a_checkpoint_is_refused(rule: Any, quiet: None) -> None:
    method = ig.methods.layer("blocks.1.act", rule=rule)
    with pytest.raises(
        ig.errors.ModelError, match=r"'blocks\.1\.act', inside a part that is checkpointed"
    ):
        ig.explain(checkpointed(use_reentrant=False), X, target=1, method=method)
    with pytest.raises(ig.errors.DetachedModel, match="use_reentrant=True"):
        ig.explain(checkpointed(use_reentrant=True), X, target=1, method=method)


def by_id(number: int) -> Any:
    """An object that is found by no name."""
    return next(thing for thing in gc.get_objects() if id(thing) == number)


def test_a_function_that_checkpoints_reentrantly(quiet: None) -> None:
    """Where its module is found its parameters are kept out; where nobody knows them it is refused, and leaves them untouched."""
    model = checkpointed(use_reentrant=True)
    before = state(model)
    made = explained(lambda x: model(x), "fixed nodes")
    torch.testing.assert_close(
        made.values, explained(plain(), "fixed nodes").values, rtol=0, atol=1e-12
    )
    assert_same(before, state(model))
    number = id(model)
    hidden = lambda x: eval("model(x)", {"model": by_id(number), "x": x})  # noqa: E731
    with pytest.raises(ig.errors.ModelError, match="use_reentrant=False"):
        explained(hidden, "fixed nodes")
    assert_same(before, state(model))
    kept = checkpointed(use_reentrant=False)
    made = explained(lambda x: kept(x), "adaptive")
    torch.testing.assert_close(
        made.values, explained(plain(), "adaptive").values, rtol=0, atol=1e-12
    )
    assert all(parameter.grad is None for parameter in kept.parameters())


def test_extra_arguments_get_no_gradient_from_a_reentrant_checkpoint(quiet: None) -> None:
    scale = torch.ones(4, 1, dtype=torch.float64, requires_grad=True)

    class Scaled(Stack):
        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return super().forward(x * scale)

    model = Scaled().double().eval()
    model.gradient_checkpointing_enable(use_reentrant=True)
    made = explained(model, "fixed nodes", extra=(scale,))
    torch.testing.assert_close(
        made.values, explained(plain(), "fixed nodes").values, rtol=0, atol=1e-12
    )
    assert scale.grad is None


# --- weights that come and go -----------------------------------------------------------------------------------------


def offloaded(model: nn.Module) -> nn.Module:
    """As accelerate does it: weights are on no device but while their layer runs; each time the parameters are new ones."""
    for module in model.modules():
        kept = {
            name: parameter.detach()
            for name, parameter in module._parameters.items()
            if parameter is not None
        }
        if not kept:
            continue

        def place(module: nn.Module, weights: dict[str, Tensor]) -> None:
            for name, weight in weights.items():
                wanted = module._parameters[name].requires_grad
                module._parameters[name] = nn.Parameter(weight, requires_grad=wanted)

        def run(
            module: nn.Module, own: Any, kept: dict[str, Tensor], *args: Any, **kwargs: Any
        ) -> Any:
            place(module, kept)
            made = own(*args, **kwargs)
            place(module, {name: weight.to("meta") for name, weight in kept.items()})
            return made

        place(module, {name: weight.to("meta") for name, weight in kept.items()})
        module.forward = functools.partial(run, module, module.forward, kept)
    return model


def where(model: nn.Module) -> dict[str, tuple[Any, ...]]:
    """What a caller may notice of parameters that are new ones every time."""
    return {
        name: (parameter.device, parameter.requires_grad, parameter.grad)
        for name, parameter in model.named_parameters()
    }


@pytest.mark.parametrize("way", list(WAYS))
def test_weights_that_come_and_go(way: str, quiet: None) -> None:
    model = offloaded(plain())
    model.head.weight.requires_grad_(False)
    before = where(model)
    made, expected = explained(model, way), explained(plain(), way)
    torch.testing.assert_close(made.values, expected.values, rtol=0, atol=1e-12)
    assert made.cost.gradients == expected.cost.gradients
    assert where(model) == before
    assert before["blocks.0.up.weight"][:2] == (torch.device("meta"), True)


@pytest.mark.parametrize("way", list(WAYS))
def test_hooks_that_move_inputs_to_their_layer(way: str, quiet: None) -> None:
    """A ``device_map``: in front of every layer its inputs are moved to where it is, by a hook."""
    model = plain()
    moved: list[nn.Module] = []

    def move(module: nn.Module, args: Any, kwargs: Any) -> Any:
        moved.append(module)
        device = next(module.parameters()).device
        return tuple(value.to(device, copy=True) for value in args), kwargs

    for module in (*model.blocks, model.head):
        module.register_forward_pre_hook(move, with_kwargs=True)
    before = state(model)
    made, expected = explained(model, way), explained(plain(), way)
    torch.testing.assert_close(made.values, expected.values, rtol=0, atol=1e-12)
    assert moved
    assert_same(before, state(model))


@pytest.mark.parametrize("kind", ["offload", "dispatch"])
@pytest.mark.parametrize("way", list(WAYS))
def test_models_that_accelerate_dispatches(kind: str, way: str, quiet: None, tmp_path: Any) -> None:
    import accelerate

    model: Any = plain()
    if kind == "offload":
        model = accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    else:
        places = {"blocks.0": "cpu", "blocks.1": "cpu", "blocks.2": "disk", "head": "cpu"}
        model = accelerate.dispatch_model(
            model, device_map=places, main_device="cpu", offload_dir=str(tmp_path), force_hooks=True
        )
    before = where(model)
    made = explained(model, way)
    torch.testing.assert_close(made.values, explained(plain(), way).values, rtol=0, atol=1e-12)
    assert where(model) == before
