"""Attacks as paths: AGI and MFABA restated one step at a time, which class each walk is after, and what all of it costs."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.model.row_independence import ROWS
from tests.problems import PROBLEMS, Counting, filled, softplus_cnn, tanh_mlp, wave

WIDE = (-9.0, 9.0)
SMOOTH = ["softplus cnn", "extra arguments", "dict input"]


@pytest.fixture(autouse=True)
def _calm() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IncompleteWarning)
        yield


def five(classes: int = 5) -> nn.Sequential:
    return filled(nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, classes)), phase=0.7)


X = 1.5 * wave(4, 6, phase=0.3)


def attack(
    model: Any,
    x: Tensor,
    rival: int | None,
    steps: int,
    rate: float,
    norm: str,
    low: float,
    high: float,
) -> list[Tensor]:
    """The paper's loop for one input: up p_rival until it is predicted, or down p of the prediction until that is another."""
    own = int(model(x[None]).argmax(1))
    z, walked = x.clone(), [x.clone()]
    for _ in range(steps):
        leaf = z[None].clone().requires_grad_()
        out = model(leaf)
        now = int(out.argmax(1))
        if now == rival or (rival is None and now != own):
            walked.append(z)
            continue
        (slope,) = torch.autograd.grad(out.softmax(1)[0, own if rival is None else rival], leaf)
        slope = -slope[0] if rival is None else slope[0]
        z = z + rate * (slope.sign() if norm == "sign" else slope / slope.norm())
        z = z.clamp(low, high)
        walked.append(z)
    return walked


def corners(path: Any, field: Any, x: Tensor, references: int = 1) -> Tensor:
    """(K+1, R, B, *s) from the input to the ends."""
    return ig.paths.corners(path, field, x.expand(references, *x.shape), x)[1].flip(0)


def seen(method: Any, model: Any, x: Tensor, target: Any = 0, **options: Any) -> ig.Attribution:
    return ig.explain(model, x, target=target, method=method, **options)


# --- the walk ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["sign", "l2"])
@pytest.mark.parametrize("box", [WIDE, (-1.0, 1.1)])
@pytest.mark.parametrize("rival", [None, 0, 2, 3])
def test_it_is_the_papers_loop(rival: int | None, box: tuple[float, float], norm: str) -> None:
    model, rate, steps = five(), 0.06 if norm == "sign" else 0.15, 25
    x = X.clamp(*box)
    path = ig.paths.Adversarial("away" if rival is None else rival, steps, rate, box, norm)
    found = corners(path, ig.TorchField(model, 1), x)[:, 0]
    arrived = []
    for b in range(len(x)):
        expected = torch.stack(attack(model, x[b], rival, steps, rate, norm, *box))
        torch.testing.assert_close(found[:, b], expected, rtol=0, atol=1e-12)
        arrived.append(bool((expected[-1] == expected[-2]).all()))
    assert any(arrived) == (rival != 3), "class 3 is out of reach"
    assert bool((found[1, :] != found[0, :]).any())


def test_the_note_says_whether_a_walk_arrived() -> None:
    model = five()
    for goal in ("away", 2, "likeliest"):
        made = seen(ig.methods.adversarial(goal, 1, 25, 0.06, WIDE), model, X)
        lead = made.notes["lead"]
        assert lead.shape == (26, 1, 4)
        predicted = model(made.baselines[0]).argmax(1)
        own = model(X).argmax(1)
        there = lead[0, 0] < 0
        if goal == "away":
            assert torch.equal(there, predicted != own)
        elif goal == 2:
            assert torch.equal(there, predicted == 2)
        out = model(made.baselines[0])
        expected = ig.targets.Lead(own if goal == "away" else out.topk(2).indices[:, 0])(
            out, torch.arange(4)
        )
        if goal == "away":
            torch.testing.assert_close(lead[0, 0], expected, rtol=0, atol=1e-12)


def test_confident_models_are_walked_away_from_too() -> None:
    """p is 1 and p_k is 0 to the last bit of float32, and so are their gradients; those of the log-odds are not."""
    model = five().float()
    with torch.no_grad():
        model[-1].weight *= 400
        model[-1].bias *= 400
    x = X.float()
    rival = int(model(x[:1]).argsort(descending=True)[0, -1])
    leaf = x[:1].clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(leaf).softmax(1)[0, rival], leaf)
    assert float(slope.abs().max()) == 0
    for goal in ("away", rival):
        found = corners(ig.paths.Adversarial(goal, 2, 0.1, WIDE), ig.TorchField(model, 0), x[:1])
        assert bool((found[1] != found[0]).any())


def test_the_released_code_of_agi_does_not_move() -> None:
    """Every step is added to the original input: at most one step away, and its sum is not the change of anything."""
    model, rate, steps, rival = five(), 0.06, 25, 3
    field = ig.TorchField(model, ig.targets.Probability(1))
    x = X[:1]
    here, total = x.clone(), torch.zeros_like(x)
    for _ in range(steps):
        leaf = here.clone().requires_grad_()
        out = model(leaf)
        if int(out.argmax(1)) == rival:
            break
        (up,) = torch.autograd.grad(out.softmax(1)[0, rival], leaf, retain_graph=True)
        (own,) = torch.autograd.grad(out.softmax(1)[0, 1], leaf)
        here = (x + rate * up.sign()).clamp(*WIDE)
        total -= own * (here - x)
    assert float((here - x).abs().max()) <= rate + 1e-12
    released = abs(float(total.sum() - (field.value(x) - field.value(here))))
    ours = ig.methods.adversarial(
        rival, steps=steps, rate=rate, clip=WIDE, rule=ig.rules.Simpson(2)
    )(field, x)
    assert float((ours.baselines - x).abs().max()) > 2 * rate
    assert float(ours.residual.abs().max()) < 1e-3 * released


def test_one_step_is_the_released_code() -> None:
    """With a single step there is nothing to go wrong: −∇F(x) ⊙ (z₁ − x)."""
    model = five()
    made = seen(ig.methods.adversarial(3, steps=1, rate=0.06, clip=WIDE), model, X, 1)
    field = ig.TorchField(model, 1)
    end = torch.stack([attack(model, x, 3, 1, 0.06, "sign", *WIDE)[-1] for x in X])
    torch.testing.assert_close(made.values, -field.gradient(X) * (end - X), rtol=0, atol=1e-13)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_decision_function_is_walked_across_from_either_side(sign: float) -> None:
    """A model with one output, which decides whether it is above -.5."""
    model = filled(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)))
    level = lambda out: sign * (out[:, 0] + 0.5)  # noqa: E731
    x = 1.5 * wave(6, 6)
    above = model(x)[:, 0] > -0.5
    assert bool(above.any())
    assert not bool(above.all())
    made = seen(ig.methods.mfaba(level, 60, 0.1, WIDE), model, x, ig.targets.Output())
    assert torch.equal(model(made.baselines[0])[:, 0] > -0.5, ~above)
    assert bool((made.notes["lead"][0] < 0).all())
    assert bool((made.notes["lead"][-1] > 0).all())


def test_a_decision_may_look_at_objects_as_the_model_returns_them() -> None:
    p = PROBLEMS["logits object"]
    one = seen(ig.methods.mfaba(lambda out: out[:, 0] - out[:, 1], 5, 0.1, WIDE), p.model, p.inputs)
    other = seen(ig.methods.mfaba(ig.targets.Margin(0, 1), 5, 0.1, WIDE), p.model, p.inputs)
    torch.testing.assert_close(one.values, other.values, rtol=0, atol=1e-14)


@pytest.mark.parametrize("step", [ig.paths.Shrinking(), ig.paths.Implicit(3)], ids=repr)
def test_other_steps_go_there_too(step: Any) -> None:
    """Shrinking ones never fall back; implicit ones stop at the boundary, where the lead is zero."""
    model = five()
    made = seen(ig.methods.mfaba(steps=40, rate=0.15, clip=WIDE, step=step), model, X)
    lead = made.notes["lead"].flip(0)
    assert bool((lead[1:] <= lead[:-1]).all())
    assert float(lead[-1].max()) < 1e-3 * float(lead[0].min())


# --- which class ------------------------------------------------------------------------------------------------------


def after(goal: Any, model: Any, x: Tensor, references: int, seed: int = 0) -> Tensor:
    """(R, B) the class whose probability the first step raises most, told from the path alone."""
    path = ig.paths.Adversarial(goal, 1, 1e-4, WIDE, "l2", seed=seed)
    found = corners(path, ig.TorchField(model, 0), x, references)
    way = (found[1] - found[0]) / 1e-4
    classes = model(x).shape[1]
    slopes = []
    for k in range(classes):
        leaf = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(leaf).softmax(1)[:, k].sum(), leaf)
        slopes.append(slope / slope.norm(dim=1, keepdim=True))
    alike = torch.einsum("rbi,kbi->rbk", way, torch.stack(slopes))
    assert float((alike.amax(2) - 1).abs().max()) < 1e-6
    return alike.argmax(2)


def test_likeliest_are_the_next_in_rank() -> None:
    model = five()
    expected = model(X).argsort(dim=1, descending=True)[:, 1:].T
    assert torch.equal(after("likeliest", model, X, 4), expected)


def test_drawn_are_others_each_once() -> None:
    model = five()
    own = model(X).argmax(1)
    assert len(own.unique()) > 1
    draws = {seed: after("drawn", model, X, 4, seed) for seed in range(6)}
    for drawn in draws.values():
        for b in range(len(X)):
            assert {*drawn[:, b].tolist(), int(own[b])} == set(range(5))
    assert len({tuple(drawn.flatten().tolist()) for drawn in draws.values()}) > 3
    assert torch.equal(draws[0], after("drawn", model, X, 4, 0))


@pytest.mark.parametrize("goal", ["drawn", "likeliest"])
def test_classes_do_not_depend_on_the_rest_of_the_batch(goal: str) -> None:
    model = five()
    whole = after(goal, model, X, 3)
    for b in range(len(X)):
        assert torch.equal(after(goal, model, X[b : b + 1], 3), whole[:, b : b + 1])
    assert torch.equal(after(goal, model, X.flip(0), 3), whole.flip(1))


def test_named_classes_one_for_each_walk() -> None:
    model = five()
    own = model(X).argmax(1)
    others = [k for k in range(5) if k not in own.tolist()][:2]
    assert after(tuple(others), model, X, 2).tolist() == [[k] * 4 for k in others]
    assert ig.paths.Adversarial([1, 2]) == ig.paths.Adversarial((1, 2))


def test_the_map_is_the_mean_over_classes() -> None:
    model = five()
    method = lambda goal: ig.methods.adversarial(goal, 4, 20, 0.05, WIDE)  # noqa: E731
    whole = seen(method("likeliest"), model, X).values
    for b in range(4):
        order = model(X[b : b + 1]).argsort(dim=1, descending=True)[0, 1:].tolist()
        maps = [seen(method(k), model, X[b : b + 1]).values[0] for k in order]
        torch.testing.assert_close(whole[b], sum(maps) / 4, rtol=0, atol=1e-13)


def test_a_class_that_is_predicted_already() -> None:
    """Nothing to do: it stands still, gets nothing, and its neighbours walk."""
    model = five()
    own = model(X).argmax(1)
    made = seen(ig.methods.adversarial(int(own[0]), steps=5, rate=0.05, clip=WIDE), model, X)
    stood = own == own[0]
    assert not bool(stood.all())
    assert bool((made.values[stood] == 0).all())
    assert bool((made.baselines[0][stood] == X[stood]).all())
    assert bool((made.values[~stood] != 0).any(1).all())
    assert float(made.residual[stood].abs().max()) == 0


def test_references_in_blocks_keep_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = five()
    method = ig.methods.adversarial("drawn", 4, 6, 0.05, WIDE)
    whole = seen(method, model, X)
    monkeypatch.setattr("integrand.core.memory_budget._BLOCK_ELEMENTS", 1)
    blocks = seen(method, model, X)
    torch.testing.assert_close(blocks.values, whole.values, rtol=0, atol=1e-13)
    torch.testing.assert_close(blocks.change, whole.change, rtol=0, atol=1e-13)
    assert blocks.cost.gradients == whole.cost.gradients
    assert blocks.cost.values == whole.cost.values == 4 + ROWS


def test_a_selection_of_references_keeps_its_numbers() -> None:
    """In two stages the second walks those that survived, one by one. Any weights will do."""
    warnings.simplefilter("ignore", ig.errors.FitnessWarning)
    p = PROBLEMS["softplus cnn"]
    path = ig.paths.Adversarial("likeliest", 4, 0.02, (0.0, 1.0))
    weighted = ig.methods.weighted(
        ig.baselines.Rivals(2), path, ig.rules.Midpoint(2), fill=0.0, keep=0.5
    )
    one = ig.explain(p.model, p.inputs, target=p.target, method=weighted)
    two = ig.explain(
        p.model, p.inputs, target=p.target, method=ig.TwoStage(weighted, ig.rules.Midpoint(2))
    )
    assert bool((one.weights[1] > 0).any())
    torch.testing.assert_close(two.values, one.values, rtol=0, atol=1e-13)
    assert float(one.values.abs().max()) > 0


# --- what it adds up to, and costs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", SMOOTH)
@pytest.mark.parametrize("method", ["adversarial", "mfaba"])
def test_maps_add_up_to_where_the_walk_began(method: str, problem: str) -> None:
    p = PROBLEMS[problem]
    build = getattr(ig.methods, method)
    made = ig.explain(
        p.model, p.inputs, target=p.target, extra=p.extra,
        method=build(steps=12, rate=0.05, clip=WIDE, rule=ig.rules.GaussLegendre(8)),
    )  # fmt: skip
    assert float(made.change.abs().max()) > 1e-2
    torch.testing.assert_close(made.residual, torch.zeros(5).double(), rtol=0, atol=1e-8)


def test_a_map_is_that_of_its_corners() -> None:
    """Σ over segments of the integral along each, with many midpoints, by hand."""
    model, target = five(), 1
    made = seen(
        ig.methods.adversarial(3, steps=8, rate=0.1, clip=WIDE, rule=ig.rules.GaussLegendre(12)),
        model,
        X,
        target,
    )
    field = ig.TorchField(model, target)
    points = corners(ig.paths.Adversarial(3, 8, 0.1, WIDE), field, X)[:, 0]
    expected = torch.zeros_like(X)
    for later, earlier in itertools.pairwise(points):
        for q in range(60):
            expected += (
                (later - earlier) * field.gradient(torch.lerp(earlier, later, (q + 0.5) / 60)) / 60
            )
    torch.testing.assert_close(made.values, expected, rtol=0, atol=1e-5)


def test_mfaba_is_its_formula() -> None:
    """−Σ_k (z_{k+1} − z_k) ⊙ ∇F(z_k); with the trapezoid the mean of both ends, at the same cost."""
    model, steps = five(), 25
    target = model(X).argmax(1)
    field = ig.TorchField(model, ig.targets.Probability(target))
    made = ig.methods.mfaba(clip=WIDE, steps=steps)(field, X)
    second = ig.methods.mfaba(clip=WIDE, steps=steps, rule=ig.rules.Trapezoid())(field, X)
    for b in range(4):
        own = ig.TorchField(model, ig.targets.Probability(int(target[b])))
        z = torch.stack(attack(model, X[b], None, steps, 0.1, "l2", *WIDE))
        slopes = own.gradient(z)
        steps_gone = z.diff(dim=0)
        torch.testing.assert_close(
            made.values[b], -(steps_gone * slopes[:-1]).sum(0), rtol=0, atol=1e-12
        )
        both = (slopes[:-1] + slopes[1:]) / 2
        torch.testing.assert_close(
            second.values[b], -(steps_gone * both).sum(0), rtol=0, atol=1e-12
        )
    assert made.cost.gradients == second.cost.gradients
    assert bool((second.residual.abs() < made.residual.abs()).all())


@pytest.mark.parametrize(
    "rule", [ig.rules.Right(), ig.rules.Trapezoid(), ig.rules.Simpson(2), ig.rules.Midpoint(2)]
)
@pytest.mark.parametrize("looks", [1, 3])
def test_walks_that_have_arrived_cost_nothing(rule: Any, looks: int) -> None:
    """Per walk: the first look, one (or ``looks``) for every step up to the arrival, and the rule's nodes inside of these."""
    model = Counting(five())
    step = ig.paths.Fixed() if looks == 1 else ig.paths.Implicit(looks)
    goal: Any = "drawn" if looks == 1 else ig.targets.Custom(lambda out: out[:, 0] - out[:, 1])
    method = ig.methods.adversarial(goal, 3, 30, 0.06, WIDE, rule=rule, step=step)
    made = seen(method, model, X)
    gone = (made.notes["lead"][1:] >= 0).sum(0)
    moved = int(gone.sum())
    inside = sum(0 < node < 1 for node in rule.table()[0])
    frames = corners(method.path, ig.TorchField(model.inner, 0), X, len(made.weights))
    lengths = int((frames[1:] != frames[:-1]).flatten(3).any(3).sum())
    assert lengths <= moved
    assert (
        made.cost.gradients
        == made.weights.numel() + looks * moved + inside * lengths
        == model.gradients
    )
    most = ig.integration.gradients_per_row(method.path, rule) * made.weights.numel()
    assert made.cost.gradients <= most
    if looks == 1:
        assert made.cost.gradients < most
    assert made.cost.values == model.values == len(X) * (goal == "drawn") + ROWS


def test_walks_in_the_same_direction_cost_what_they_say() -> None:
    assert ig.paths.Adversarial(steps=7).gradients == 8
    assert ig.paths.Adversarial(steps=7, step=ig.paths.Implicit(3)).gradients == 22


def test_fewer_classes_than_asked_for() -> None:
    assert len(seen(ig.methods.adversarial(steps=2, clip=WIDE), tanh_mlp(), X).weights) == 2
    assert len(seen(ig.methods.adversarial(count=3, steps=2, clip=WIDE), five(), X).weights) == 3


def test_the_defaults_explain_a_photograph_sized_problem() -> None:
    """Through the front door by name, with images that know their range."""
    x = ig.Normalisation.imagenet().encode(0.5 + 0.5 * wave(2, 3, 8, 8))
    made = ig.explain(
        softplus_cnn(),
        x,
        target="predicted",
        method="adversarial",
        normalisation=ig.Normalisation.imagenet(),
        seed=3,
    )
    low, high = ig.Normalisation.imagenet().range(x)
    assert bool(((made.baselines >= low - 1e-12) & (made.baselines <= high + 1e-12)).all())
    assert float(made.gap.max()) < 0.05
    assert made.method.path.seed != 0


def test_several_targets_share_the_walk() -> None:
    """It depends on the model's outputs, not on which of them is explained."""
    p = PROBLEMS["softplus cnn"]
    every = ig.explain_targets(
        p.model, p.inputs, targets=[0, 1], method="adversarial", steps=4, count=2, clip=WIDE
    )
    for target, made in enumerate(every):
        alone = ig.explain(
            p.model, p.inputs, target=target, method="adversarial", steps=4, count=2, clip=WIDE
        )
        torch.testing.assert_close(made.values, alone.values, rtol=0, atol=1e-12)
        torch.testing.assert_close(made.baselines, alone.baselines, rtol=0, atol=1e-12)


def test_the_command_line_sets_them_up() -> None:
    from integrand.cli import presets as recipes

    setting = recipes.PresetInputs()
    made = recipes.method("adversarial", setting)
    assert made.baseline == ig.baselines.Rivals(5)
    assert made.rule == recipes.method("mfaba", setting).rule == ig.rules.Simpson(2)
    assert recipes.method("adversarial", recipes.PresetInputs(tol=0.1)).rule == ig.rules.Adaptive(
        0.1
    )
    assert isinstance(recipes.method("boundary", setting).baseline, ig.baselines.Boundary)
    assert [recipes.wants(name) for name in ("adversarial", "mfaba", "boundary")] == [None] * 3


def test_at_a_layer() -> None:
    model = softplus_cnn()
    x = 0.5 + 0.5 * wave(2, 3, 8, 8)
    inner = ig.methods.mfaba(steps=6, rate=0.05, clip=(0.0, 1.0), rule=ig.rules.GaussLegendre(4))
    made = ig.explain(model, x, target=0, method=ig.Layered("5", inner))
    assert made.values.shape == (2, 8)
    torch.testing.assert_close(made.residual, torch.zeros(2).double(), rtol=0, atol=1e-8)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        ("up", r"goal is one of 'away', 'drawn', 'likeliest', a class, .* not 'up'"),
        (True, r"not bool"),
        ((), r"not tuple"),
        ((1, 2.5), r"not tuple"),
        (wave(3), r"not Tensor\. The path of an attack chooses its own baseline"),
    ],
)
def test_goals_that_are_none(goal: Any, message: str) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        ig.methods.adversarial(goal)


@pytest.mark.parametrize("method", ["adversarial", "mfaba"])
def test_a_baseline_is_refused(method: str) -> None:
    with pytest.raises(ig.errors.InputError, match=r"chooses for itself where it starts"):
        ig.explain(five(), X, target=0, method=method, baseline="black")
    with pytest.raises(ig.errors.InputError, match=r"chooses for itself where it starts"):
        ig.explain(five(), X, target=0, method=method, baseline=wave(6))


def run(path: Any, model: Any, references: int = 1, x: Tensor = X) -> None:
    corners(
        path,
        model if isinstance(model, ig.fields.Field) else ig.TorchField(model, 0),
        x,
        references,
    )


@pytest.mark.parametrize(
    ("attempt", "error", "message"),
    [
        (
            lambda: ig.paths.Adversarial(steps=0),
            "InputError",
            "An attack takes at least one step, not 0",
        ),
        (lambda: ig.paths.Adversarial(norm="l3"), "InputError", "norm is one of"),
        (lambda: ig.baselines.Itself(0), "BaselineError", "at least one reference"),
        (lambda: ig.baselines.Rivals(0), "BaselineError", "at least one class"),
        (
            lambda: run(ig.paths.Adversarial((1, 2), 2), five(), 3),
            "InputError",
            "2 classes are named, but there are 3",
        ),
        (
            lambda: run(ig.paths.Adversarial("drawn", 2), five(3), 3),
            "InputError",
            "only 2 beside the predicted one",
        ),
        (
            lambda: run(ig.paths.Adversarial(7, 2), five()),
            "TargetError",
            "Target class 7 does not exist",
        ),
        (
            lambda: run(ig.paths.Adversarial("away", 2), five(1)),
            "TargetError",
            "shape 1. An attack looks for another class: for a model without classes give a decision function",
        ),
        (
            lambda: run(ig.paths.Adversarial("away", 2), ig.fields.Linear(wave(6))),
            "TargetError",
            "An attack looks for another class",
        ),
        (
            lambda: run(
                ig.paths.Adversarial(ig.targets.Logit(torch.tensor([0, 1, 2, 0])), 2), five()
            ),
            "TargetError",
            "holds which for each example .* the same for every example",
        ),
    ],
)
def test_refused(attempt: Any, error: str, message: str) -> None:
    with pytest.raises(getattr(ig.errors, error), match=message):
        attempt()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision(dtype: torch.dtype) -> None:
    model = five().to(dtype)
    made = seen(ig.methods.adversarial("likeliest", 2, 6, 0.05, WIDE), model, X.to(dtype))
    assert made.values.dtype == torch.float32
    assert bool(torch.isfinite(made.values).all())
    assert bool((made.values != 0).any(1).all())
