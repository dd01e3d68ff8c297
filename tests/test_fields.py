"""Fields against autograd by hand, and what wraps them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.core.segment import Evaluation, polyline
from integrand.fields.views import CallCount
from tests.problems import (
    PROBLEMS,
    Counting,
    Problem,
    Scaled,
    filled,
    joined,
    softplus_cnn,
    tanh_mlp,
    wave,
)

X = wave(4, 6)


def by_hand(problem: Problem) -> tuple[Tensor, Tensor]:
    """Values and gradients of a problem's target, one example at a time, as a user would write it."""
    values, gradients = [], []
    for b in range(5):
        single = problem.only(b)
        inputs = single.inputs
        leaves = (
            list(inputs.values())
            if isinstance(inputs, dict)
            else list(inputs if isinstance(inputs, tuple) else [inputs])
        )
        leaves = [leaf.clone().requires_grad_() for leaf in leaves]
        named = single.extra if isinstance(single.extra, dict) else {}
        outputs = single.model(*leaves, **named)
        outputs = outputs[0] if isinstance(outputs, tuple) else outputs
        outputs = (
            outputs["logits"] if isinstance(outputs, dict) else getattr(outputs, "logits", outputs)
        )
        one_number = isinstance(single.target, ig.targets.Output)
        scalar = outputs[0] if one_number else outputs[0, int(single.target)]
        gradient = torch.autograd.grad(scalar, leaves)
        values.append(scalar.detach())
        gradients.append(joined(tuple(gradient))[0])
    return torch.stack(values), torch.stack(gradients)


@pytest.mark.parametrize("name", list(PROBLEMS))
def test_torch_field_is_autograd(name: str) -> None:
    problem = PROBLEMS[name]
    field, x = problem.field(), problem.packed()
    value, gradient = by_hand(problem)
    torch.testing.assert_close(field.value(x), value, rtol=0, atol=1e-13)
    torch.testing.assert_close(field.gradient(x).flatten(1), gradient, rtol=0, atol=1e-13)


def test_stacks_of_batches() -> None:
    """(…, B, *s) is B examples over and over: targets and extra arguments follow the last leading axis."""
    classes = torch.tensor([0, 1, 2, 1])
    field = ig.TorchField(filled(Scaled()), classes, extra={"scale": 1 + 0.5 * wave(4)})
    z = wave(3, 2, 4, 4, phase=1)
    value, gradient = field.value(z, 3), field.gradient(z, 3)
    for k, r in itertools.product(range(3), range(2)):
        torch.testing.assert_close(value[k, r], field.value(z[k, r]), rtol=0, atol=1e-14)
        torch.testing.assert_close(gradient[k, r], field.gradient(z[k, r]), rtol=0, atol=1e-14)


def test_rows_of_any_examples() -> None:
    classes = torch.tensor([0, 1, 2, 1])
    model = tanh_mlp()
    field = ig.TorchField(model, classes)
    index = torch.tensor([3, 0, 0, 2, 1, 3])
    z = wave(6, 6, phase=1)
    found = field.rows(z, index)
    with torch.no_grad():
        expected = model(z)[range(6), classes[index]]
    torch.testing.assert_close(found.value, expected, rtol=0, atol=1e-14)
    without = field.rows(z, index, gradient=False)
    torch.testing.assert_close(without.value, expected, rtol=0, atol=1e-14)
    assert without.gradient.numel() == 0
    empty = field.rows(z[:0], index[:0])
    assert empty.value.shape == (0,)
    assert empty.gradient.shape == (0, 6)


def test_results_are_detached() -> None:
    field = ig.TorchField(tanh_mlp(), 0)
    found = field.evaluate(X.clone().requires_grad_(), torch.arange(4))
    assert not found.value.requires_grad
    assert not found.gradient.requires_grad
    leaf = X.clone().requires_grad_()
    made = ig.methods.integrated(ig.baselines.Gaussian(mean="input"))(field, leaf)
    assert leaf.grad is None
    assert not made.values.requires_grad


@pytest.mark.parametrize(
    "extra",
    [
        (torch.arange(1.0, 5.0).double(), 0.3),
        {"scale": torch.arange(1.0, 5.0).double(), "shift": 0.3},
    ],
)
def test_extra_arguments_positional_and_named(extra: Any) -> None:
    model = filled(Scaled())
    field = ig.TorchField(model, 0, extra=extra)
    index = torch.tensor([2, 0, 3])
    z = wave(3, 4, phase=1)
    expected = model(z, torch.tensor([3.0, 1.0, 4.0]).double(), 0.3)[:, 0]
    torch.testing.assert_close(field.rows(z, index).value, expected.detach(), rtol=0, atol=1e-14)


def test_one_extra_argument_may_stand_alone() -> None:
    model = filled(Scaled())
    field = ig.TorchField(model, 0, extra=torch.ones(4).double())
    torch.testing.assert_close(
        field.value(wave(4, 4)), model(wave(4, 4), torch.ones(4).double())[:, 0].detach()
    )


def test_outputs() -> None:
    model = Counting(tanh_mlp())
    field = ig.TorchField(model, 0, batch_size=3)
    with torch.no_grad():
        torch.testing.assert_close(field.outputs(X), model.inner(X), rtol=0, atol=1e-15)
    assert (model.values, model.calls) == (4, 2)


@pytest.mark.parametrize("kind", [ig.baselines.OtherClass, ig.baselines.Relevant])
def test_outputs_of_a_pool_when_the_model_takes_extra_arguments(kind: Any) -> None:
    """Extra arguments belong to the examples; a pool of another length has none of its own: say so, or cope."""
    field = ig.TorchField(filled(Scaled()), 0, extra={"scale": torch.ones(4).double()})
    try:
        references = kind(wave(20, 4, phase=1), 2)(wave(4, 4), field)
    except ig.errors.IntegrandError as error:
        assert "extra" in str(error)  # noqa: PT017
    else:
        assert references.shape == (2, 4, 4)


def test_together_is_both_apart() -> None:
    model = Counting(softplus_cnn())
    field = ig.TorchField(model, torch.tensor([0, 1]), batch_size=100)
    x, goal = 0.5 + 0.5 * wave(2, 3, 8, 8), 0.5 + 0.5 * wave(6, 3, 8, 8, phase=1)
    index, pair = torch.tensor([0, 1, 0, 1, 1, 0]), torch.arange(6)
    distance = field.distance(goal, index, "inner.5")
    z = x[index] + 0.1 * wave(6, 3, 8, 8, phase=2)
    model.reset()
    own, other = field.together(z, index, distance, pair)
    assert (model.calls, model.gradients) == (1, 6)
    expected = field.rows(z, index)
    torch.testing.assert_close(own.value, expected.value, rtol=0, atol=1e-14)
    torch.testing.assert_close(own.gradient, expected.gradient, rtol=0, atol=1e-14)
    apart = field.with_target(distance).rows(z, pair)
    torch.testing.assert_close(other.value, apart.value, rtol=0, atol=1e-14)
    torch.testing.assert_close(other.gradient, apart.gradient, rtol=0, atol=1e-14)


def test_score_is_the_probability() -> None:
    model = tanh_mlp()
    score = ig.TorchField(model, ig.targets.Margin(2, 0)).score()
    torch.testing.assert_close(
        score.value(X), model(X).softmax(1)[:, 2].detach(), rtol=0, atol=1e-14
    )


def test_repr() -> None:
    assert repr(ig.TorchField(tanh_mlp(), 1)) == "TorchField(Sequential, Logit(1))"


# --- Subset and CountedField ---------------------------------------------------------------------------------------------


def gathered() -> tuple[ig.TorchField, ig.fields.Subset, Tensor]:
    field = ig.TorchField(
        filled(Scaled()), torch.tensor([0, 1, 2, 1]), extra={"scale": 1 + 0.5 * wave(4)}
    )
    index = torch.tensor([3, 1, 1, 0, 2])
    return field, ig.fields.Subset(field, index), index


def test_gathered_sees_other_examples_as_its_own() -> None:
    field, some, index = gathered()
    z = wave(5, 4, phase=1)
    expected = field.rows(z, index)
    torch.testing.assert_close(some.value(z), expected.value, rtol=0, atol=0)
    torch.testing.assert_close(some.gradient(z), expected.gradient, rtol=0, atol=0)
    torch.testing.assert_close(
        some.score().value(z), field.score().rows(z, index, gradient=False).value, rtol=0, atol=0
    )
    again = some.at(torch.tensor([4, 4]))
    torch.testing.assert_close(
        again.value(z[:2]), field.rows(z[:2], torch.tensor([2, 2])).value, rtol=0, atol=0
    )


def test_gathered_distance_and_together() -> None:
    field, some, index = gathered()
    goal, z = wave(5, 4, phase=2), wave(5, 4, phase=1)
    mine = some.distance(goal, torch.arange(5), "first")
    theirs = field.distance(goal, index, "first")
    torch.testing.assert_close(mine.goal, theirs.goal, rtol=0, atol=0)
    for one, other in zip(
        some.together(z, torch.arange(5), mine, torch.arange(5)),
        field.together(z, index, theirs, torch.arange(5)),
        strict=True,
    ):
        torch.testing.assert_close(one.value, other.value, rtol=0, atol=0)
        torch.testing.assert_close(one.gradient, other.gradient, rtol=0, atol=0)


def test_gathered_outputs_are_those_of_its_own_examples() -> None:
    field, some, index = gathered()
    x = wave(4, 4)
    torch.testing.assert_close(some.outputs(x[index]), field.outputs(x)[index], rtol=0, atol=0)


def test_metered_counts_what_reaches_the_model() -> None:
    model = Counting(softplus_cnn())
    seen: list[tuple[int, int, int]] = []
    field = ig.fields.CountedField(
        ig.TorchField(model, 0, batch_size=4),
        watch=lambda tally: seen.append((tally.gradients, tally.values, tally.calls)),
    )
    x = 0.5 + 0.5 * wave(3, 3, 8, 8)
    field.value(x)
    field.gradient(x[None].expand(3, -1, -1, -1, -1), 2)
    field.score().value(x)
    field.outputs(x)
    distance = field.distance(x, torch.arange(3), "inner.5")
    field.together(x, torch.arange(3), distance, torch.arange(3))
    assert (
        (field.tally.gradients, field.tally.values)
        == (model.gradients, model.values)
        == (9 + 3, 3 + 3 + 3 + 3)
    )
    assert field.tally.calls == model.calls
    assert seen[-1] == (12, 12, field.tally.calls)
    assert seen == sorted(seen)


def test_metered_calls_are_model_calls_also_when_pools_are_cut() -> None:
    model = Counting(softplus_cnn())
    field = ig.fields.CountedField(ig.TorchField(model, 0, batch_size=2))
    x = 0.5 + 0.5 * wave(5, 3, 8, 8)
    field.outputs(x)
    distance = field.distance(x, torch.arange(5), "inner.5")
    field.together(x, torch.arange(5), distance, torch.arange(5))
    assert field.tally.calls == model.calls == 9


@pytest.mark.parametrize(
    "wrap", [ig.fields.CountedField, lambda field: ig.fields.Subset(field, torch.arange(4))]
)
def test_what_wrappers_hand_on(wrap: Any) -> None:
    inner = ig.fields.Linear(wave(6, phase=1))
    inner.normalisation, inner.packer = ig.Normalisation.imagenet(), ig.fields.BatchSizer(3)
    field = wrap(inner)
    segment = polyline(wave(3, 2, 4, 6))
    assert torch.equal(field.share(segment), inner.share(segment))
    assert (field.normalisation, field.packer) == (inner.normalisation, inner.packer)
    with pytest.raises(ig.errors.TargetError, match=r"Linear has no class outputs"):
        field.outputs(X)
    assert torch.equal(field.score().value(X), inner.value(X))


def test_a_tally_can_go_on() -> None:
    tally = CallCount(gradients=5)
    ig.fields.CountedField(ig.fields.Linear(wave(6)), tally).gradient(X)
    assert tally.gradients == 9


# --- fields with known answers ----------------------------------------------------------------------------------------


def test_linear() -> None:
    weight = wave(6, phase=1)
    field = ig.fields.Linear(weight, 0.5)
    assert field.value(X).tolist() == pytest.approx(
        [sum(float(w * x) for w, x in zip(weight, row, strict=True)) + 0.5 for row in X]
    )
    assert torch.equal(field.gradient(X), weight.expand(4, 6))
    segment = polyline(wave(3, 2, 4, 6))
    assert torch.equal(field.share(segment), segment.step * weight)


@pytest.mark.parametrize("base", [0.0, 0.5])
def test_monomial(base: float) -> None:
    powers = torch.tensor([3, 0, 1, 2])
    field = ig.fields.Monomial(powers, base)
    z = 1.5 + wave(4, 4)
    for b in range(4):
        value = 1.0
        for i in range(4):
            value *= (float(z[b, i]) - base) ** int(powers[i])
        assert float(field.value(z)[b]) == pytest.approx(value, rel=1e-13)
    leaf = z.clone().requires_grad_()
    (expected,) = torch.autograd.grad(((leaf - base) ** powers).prod(1).sum(), leaf)
    torch.testing.assert_close(field.gradient(z), expected, rtol=1e-12, atol=1e-12)
    at_base = torch.full((1, 4), base).double()
    assert bool(torch.isfinite(field.gradient(at_base)).all())


def test_monomial_rule() -> None:
    """Straight from b, feature i gets F(x) m_i / Σ m."""
    powers = torch.tensor([3, 0, 1, 2])
    z = 1.5 + wave(4, 4)
    made = ig.methods.integrated(0.25, rule=ig.rules.GaussLegendre(3))(
        ig.fields.Monomial(powers, 0.25), z
    )
    expected = (z - 0.25).pow(powers).prod(1)[:, None] * powers / 6
    torch.testing.assert_close(made.values, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    "model",
    [lambda z: z.sum(1, keepdim=True), lambda z: z.mean(1, keepdim=True).expand(-1, 3)],
    ids=["sum", "mean"],
)
def test_gradients_that_are_views(model: Any) -> None:
    """Autograd hands out the gradient of a sum as one number seen many times; nobody may write to it."""
    expected = X / 6 if model(X).shape[1] == 3 else X
    torch.testing.assert_close(ig.explain(model, X, target=0).values, expected, rtol=0, atol=1e-14)
    field = ig.fields.Function(lambda z: model(z)[:, 0])
    torch.testing.assert_close(
        ig.methods.integrated()(field, X).values, expected, rtol=0, atol=1e-14
    )


def test_gradients_that_the_field_keeps() -> None:
    """A field may hand out a tensor that it goes on using: rules leave it as it was."""

    class Kept(ig.fields.Field):
        packer = ig.fields.BatchSizer(4)
        slope = wave(4, 6, phase=1)

        def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Any:
            return Evaluation((z * self.slope[: len(z)]).sum(1), self.slope[: len(z)])

    before = Kept.slope.clone()
    made = ig.methods.integrated(rule=ig.rules.Midpoint(3))(Kept(), X)
    assert torch.equal(Kept.slope, before)
    torch.testing.assert_close(made.values, X * before, rtol=0, atol=1e-14)


def test_function_of_more_axes() -> None:
    field = ig.fields.Function(lambda z: z.square().sum((1, 2, 3)))
    x = wave(2, 3, 4, 4)
    torch.testing.assert_close(field.gradient(x), 2 * x)
    assert not field.value(x).requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_functions_know_their_gradient_in_every_mode(mode: Any) -> None:
    field = ig.fields.Function(lambda z: z.square().sum(1))
    with mode():
        torch.testing.assert_close(field.gradient(X), 2 * X)


def test_fields_do_not_share_what_they_learnt() -> None:
    """A row that does not fit in one function says nothing about another."""
    one, other = ig.fields.Function(lambda z: z.sum(1)), ig.fields.Function(lambda z: z.sum(1))
    assert one.packer is not other.packer


# --- what is wrong with a model ---------------------------------------------------------------------------------------


class Detaching(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.last = how, nn.Linear(6, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "detach":
            return self.last(x.detach())
        if self.how == "argmax":
            return self.last(x).argmax(1, keepdim=True).double()
        if self.how == "no_grad":
            with torch.no_grad():
                return self.last(x)
        return self.last(torch.zeros_like(x).requires_grad_())


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("detach", "carries no gradient"),
        ("argmax", "carries no gradient"),
        ("no_grad", "carries no gradient"),
        ("other", "does not depend on the input"),
    ],
)
def test_detached_models(how: str, message: str) -> None:
    with pytest.raises(ig.errors.DetachedModel, match=message):
        ig.TorchField(Detaching(how), 0).gradient(X)


class Breaks(nn.Module):
    """NaN or infinity in a place of choice, for negative inputs only."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.first, self.middle, self.last = (nn.Linear(6, n).double() for n in (6, 6, 3))

    def forward(self, x: Tensor) -> Tensor:
        if self.where == "input":
            x = x.log()
        hidden = self.first(x)
        if self.where == "forward":
            hidden = hidden / 0
        hidden = self.middle(hidden)
        if self.where == "backward":
            hidden = hidden + (hidden * 0).sqrt()
        return self.last(hidden)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("input", "layer 'first' is the first whose output is not finite"),
        ("forward", "layer 'middle' is the first whose output is not finite"),
        ("backward", "right behind layer 'middle'"),
    ],
)
def test_the_first_layer_that_is_not_finite_is_named(where: str, message: str) -> None:
    model = Breaks(where)
    hooks = len(model.first._forward_hooks)
    with pytest.raises(ig.errors.NonFiniteGradient, match=message):
        ig.TorchField(model, 0).gradient(X)
    assert len(model.first._forward_hooks) == hooks == 0


def test_a_target_that_is_not_finite() -> None:
    with pytest.raises(ig.errors.NonFiniteGradient, match=r"the target itself made it so"):
        ig.TorchField(tanh_mlp(), lambda out: out[:, 0] / 0).gradient(X)


def test_not_finite_among_outputs_that_only_the_target_can_read() -> None:
    """The diagnosis does not stumble over outputs in which it finds no tensor."""

    class Pair(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return None, (x.sum(1) - 1e9).sqrt()

    with pytest.raises(ig.errors.NonFiniteGradient, match=r"NaN or infinite on the path"):
        ig.TorchField(Pair(), lambda out: out[1]).gradient(X)


def test_rows_that_were_not_finite_before_the_model() -> None:
    with pytest.raises(ig.errors.NonFiniteGradient, match=r"before it reached the model"):
        ig.TorchField(tanh_mlp(), 0).gradient(X / 0)


def test_large_finite_numbers_are_no_error() -> None:
    """Their sum overflows; each of them does not."""
    field = ig.TorchField(nn.Identity(), lambda out: out[:, 0] * 1e38)
    assert field.value(torch.full((9, 2), 3.0)).tolist() == pytest.approx([3e38] * 9)


def test_what_cannot_be_called() -> None:
    with pytest.raises(ig.errors.InputError, match=r"The model is a int, which cannot be called"):
        ig.TorchField(5, 0)
