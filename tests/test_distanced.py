"""Gradient artificial distancing: what supports learn, what is kept of a map, and that nothing of the user's is touched."""

from __future__ import annotations

import copy
import random
import warnings
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from tests.problems import Counting, Observed, filled, wave

PLAIN = ig.methods.integrated(rule=ig.rules.Midpoint(8))
DATA = wave(60, 6, phase=0.7, scale=1.5)
X = wave(4, 6, phase=0.2)


@cache
def model() -> nn.Module:
    """Three classes of six features."""
    return filled(nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)), phase=0.3)


def method(**options: Any) -> ig.ArtificialDistancing:
    given = dict(distances=(0.5, 1.0), epochs=30, rate=3e-3, keep=0.5) | options
    return ig.ArtificialDistancing(
        given.pop("method", PLAIN), given.pop("data", DATA), given.pop("classes", (0, 1)), **given
    )


def field(target: Any = 0) -> ig.TorchField:
    return ig.TorchField(model(), target)


@cache
def trained() -> ig.ArtificialDistancing:
    return method().trained(field())


def sides(classes: tuple[int, int] = (0, 1)) -> tuple[Tensor, Tensor]:
    """What the model says of the data (N, 3), and +1 or −1 for the class it is taken to be in."""
    with torch.no_grad():
        said = model()(DATA)
    return said, torch.where(said[:, classes[0]] >= said[:, classes[1]], 1.0, -1.0).double()


# --- the supports -----------------------------------------------------------------------------------------------------


def test_supports_say_what_they_should() -> None:
    """f ± τ u, τ in units of the gap between the classes' means along u; better than the model itself, on what was held out."""
    supports = trained().supports
    said, side = sides()
    way = torch.tensor([1.0, -1.0, 0.0]).double() / 2**0.5
    gap = float((said @ way)[side > 0].mean() - (said @ way)[side < 0].mean())
    for support, fit, distance in zip(supports.models, supports.fit, (0.5, 1.0), strict=True):
        goal = said + distance * gap * side[:, None] * way
        with torch.no_grad():
            found = support(DATA)
        ours = float((found - goal).square().mean())
        before = float((said - goal).square().mean())
        assert ours < 0.3 * before
        assert 0.8 < fit <= 1
    # The further apart, the further apart.
    apart = []
    for support in (model(), *supports.models):
        with torch.no_grad():
            along = support(DATA) @ way
        apart.append(float(along[side > 0].mean() - along[side < 0].mean()))
    assert apart == sorted(apart)
    assert apart[1] == pytest.approx(2 * gap, rel=0.2)
    assert apart[2] == pytest.approx(3 * gap, rel=0.2)


def test_fit_is_r_squared_on_what_was_held_out() -> None:
    """Found by trying: exactly one fifth of each class was never learnt from, and R² on it is what is reported."""
    own = method(distances=(1.0,))
    lesson = own._training_set(field())
    said, side = sides()
    learnt, held = lesson.learnt.tolist(), lesson.held_out.tolist()
    assert sorted(learnt + held) == list(range(60))
    for sign in (1, -1):
        of_class = int((side == sign).sum())
        assert sum(float(side[i]) == sign for i in held) == max(1, round(0.2 * of_class))
    made = own.trained(field()).supports
    way = torch.tensor([1.0, -1.0, 0.0]).double() / 2**0.5
    gap = float((said @ way)[side > 0].mean() - (said @ way)[side < 0].mean())
    wanted = ((said @ way) + gap * side)[held]
    with torch.no_grad():
        found = (made.models[0](DATA) @ way)[held]
    r2 = 1 - (found - wanted).square().sum() / (wanted - wanted.mean()).square().sum()
    assert made.fit[0] == pytest.approx(float(r2), abs=1e-9)
    assert made.rows == 30 * len(learnt)


def test_poor_fits_are_warned_of() -> None:
    with pytest.warns(
        ig.errors.SupportWarning,
        match=r"2 of 2 support regressors have not learnt .* at distance 0\.5, ",
    ) as caught:
        made = method(epochs=1, rate=1e-9).trained(field())
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert max(made.supports.fit) < 0.8
    with pytest.warns(ig.errors.SupportWarning):
        method(epochs=1, rate=1e-9)(field(), X)


def test_labels_decide_who_is_pushed_where() -> None:
    """Turned around, classes are pushed through each other."""
    _, side = sides()
    own = method(labels=torch.where(side > 0, 1, 0), distances=(1.0,), epochs=60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.SupportWarning)
        (support,) = own.trained(field()).supports.models
    way = torch.tensor([1.0, -1.0, 0.0]).double()
    with torch.no_grad():
        along = support(DATA) @ way
        before = model()(DATA) @ way
    assert float((along - before)[side > 0].mean()) < 0 < float((along - before)[side < 0].mean())


def test_examples_of_other_classes_are_left_out() -> None:
    said, _ = sides()
    labels = said.argmax(1)
    lesson = method(labels=labels)._training_set(field())
    assert len(lesson.examples) == int((labels < 2).sum()) < 60


def loader(**options: Any) -> torch.utils.data.DataLoader[Any]:
    _, side = sides()
    return torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(DATA, torch.where(side > 0, 0, 1)), batch_size=7, **options
    )


@pytest.mark.parametrize("kind", ["dataset", "loader", "list"])
def test_data_comes_in_many_ways(kind: str) -> None:
    data: Any = {"dataset": loader().dataset, "loader": loader(), "list": list(DATA)}[kind]
    made = method(data=data).trained(field()).supports
    for one, other in zip(made.models, trained().supports.models, strict=True):
        for p, q in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(p, q)


# --- the map ----------------------------------------------------------------------------------------------------------


def test_what_persists_keeps_what_the_method_gives_it() -> None:
    own = trained()
    made = own(field(), X)
    maps = [PLAIN(ig.TorchField(one, 0), X).values for one in (model(), *own.supports.models)]
    for b in range(4):
        kept = set(range(6))
        for one in maps:
            kept &= set(sorted(range(6), key=lambda i: -abs(float(one[b, i])))[:3])
        for i in range(6):
            assert float(made.values[b, i]) == (float(maps[0][b, i]) if i in kept else 0.0)
        assert float(made.notes["kept"][0, 0, b]) == pytest.approx(len(kept) / 6)
    assert 0 < float(made.notes["kept"].mean()) < 0.5  # the supports disagree somewhere
    torch.testing.assert_close(
        made.values.sum(1) + made.residual, made.output - made.base, rtol=0, atol=1e-12
    )
    assert made.notes["fit"][:, 0, 0].tolist() == pytest.approx(list(own.supports.fit))


def test_keeping_all_is_the_method() -> None:
    made = method(keep=1.0, supports=trained().supports)(field(), X)
    assert torch.equal(made.values, PLAIN(field(), X).values)


def test_a_training_in_the_call_is_a_training_before() -> None:
    whole = method()(field(), X)
    assert torch.equal(whole.values, trained()(field(), X).values)
    for b in range(4):
        alone = trained()(field(), X[b : b + 1])
        torch.testing.assert_close(alone.values[0], whole.values[b], rtol=0, atol=1e-12)
        assert torch.equal(alone.notes["fit"], whole[b].notes["fit"])


def test_seeds() -> None:
    other = method(seed=1)(field(), X)
    assert other.notes["fit"].tolist() != method()(field(), X).notes["fit"].tolist()


def test_cost_counts_the_maps_and_not_the_training() -> None:
    counting = Counting(model())
    tallies: list[Any] = []
    own = method(epochs=2, fit=-100.0)
    supports = own.trained(ig.TorchField(counting, 0)).supports
    counting.reset()
    for support in supports.models:
        support.reset()
    with_supports = method(epochs=2, supports=supports)
    made = with_supports(
        ig.TorchField(counting, 0),
        X,
        watch=lambda tally: tallies.append((tally.gradients, tally.expected)),
    )
    each = PLAIN(field(), X).cost.gradients
    assert made.cost.gradients == 3 * each == 3 * 8 * 4
    assert counting.gradients == each
    assert [one.gradients for one in supports.models] == [each, each]
    assert tallies[-1] == (3 * each, 3 * each)
    assert supports.rows == 2 * 2 * 48


# --- the user's things ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_not_touched(training: bool) -> None:
    own = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 3)
    ).double()
    own.train(training)
    own[0].weight.requires_grad_(False)
    before = copy.deepcopy(own.state_dict())
    flags = [p.requires_grad for p in own.parameters()]
    states = torch.random.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
        made = ig.explain(own, X, target=0, method=method(data=loader(shuffle=True), epochs=2))
    assert made.values.shape == X.shape
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())
    assert [p.requires_grad for p in own.parameters()] == flags
    assert all(p.grad is None for p in own.parameters())
    assert own.training is training
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert random.getstate() == states[2]


def test_also_without_gradients() -> None:
    with torch.no_grad():
        one = method(epochs=2, fit=-100.0)(field(), X)
    with torch.inference_mode():
        other = method(epochs=2, fit=-100.0)(field(), X)
    assert torch.equal(one.values, other.values)


# --- with other parts -------------------------------------------------------------------------------------------------


def test_images_by_pixels() -> None:
    cnn = filled(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(144, 2)))
    images = 0.5 + 0.5 * wave(30, 3, 8, 8)
    labels = torch.arange(30) % 2
    made = ig.explain(
        cnn,
        images[:2],
        target="predicted",
        method="artificial_distancing",
        data=images,
        classes=(0, 1),
        labels=labels,
        baseline=0.25,
        rule=ig.rules.Midpoint(3),
        epochs=2,
        distances=(1.0,),
        fit=-1e9,
    )
    gone = made.values == 0
    assert torch.equal(gone.all(1), gone.any(1))  # whole pixels
    assert int((~gone[:, 0]).flatten(1).sum(1).max()) <= 16  # a quarter of them at most
    assert made.method.method == ig.methods.integrated(0.25, ig.rules.Midpoint(3))


def test_around_and_inside_other_wrappers() -> None:
    smooth = ig.methods.smoothgrad(PLAIN, 2)
    made = method(method=smooth, supports=trained().supports)(field(), X)
    assert made.cost.gradients == 3 * 2 * 8 * 4
    made = ig.SmoothGrad(trained(), 2)(field(), X)
    assert made.cost.gradients == 3 * 2 * 8 * 4


def test_it_prints_as_it_was_typed() -> None:
    assert repr(method()) == (
        "ArtificialDistancing(Method(rule=Midpoint(8)), tensor<60x6>, (0, 1), distances=(0.5, 1.0), epochs=30, rate=0.003, keep=0.5)"
    )
    assert repr(trained()).endswith("keep=0.5, supports=Supports<2>)")


def test_a_margin_is_explained_too() -> None:
    made = method(epochs=2, fit=-100.0)(field(ig.targets.Margin(0, 1)), X)
    assert bool(made.values.any())


@pytest.mark.parametrize("targets", [[0, 1], ["predicted", 2], [ig.targets.Margin(0, 1), 0]])
def test_several_targets_are_those_of_single_calls(targets: list[Any]) -> None:
    several = ig.explain_targets(model(), X, targets=targets, method=trained())
    for target, made in zip(targets, several, strict=True):
        alone = ig.explain(model(), X, target=target, method=trained())
        torch.testing.assert_close(made.values, alone.values, rtol=0, atol=1e-12)
        for name in ("fit", "kept"):
            torch.testing.assert_close(made.notes[name], alone.notes[name], rtol=0, atol=0)


def test_several_targets_share_one_training() -> None:
    watched = Counting(copy.deepcopy(model()))
    short = method(epochs=1, fit=-100.0, distances=(0.5,))
    ig.explain(watched, X, target=0, method=short)
    once = watched.calls
    watched.calls = 0
    made = ig.explain_targets(watched, X, targets=[0, 1], method=short)
    assert [one.values.shape for one in made] == [X.shape, X.shape]
    assert watched.calls <= once + 1


def test_copies_follow_the_same_backward_rule() -> None:
    """ReLUs let only positive gradients back, in the copies too."""
    relu = filled(nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)), phase=0.3)
    short = method(epochs=1, fit=-100.0, distances=(0.5,), keep=1.0)
    ruled = ig.TorchField(relu, 0, backward=ig.fields.GuidedReLU())
    supports = short.trained(ruled).supports
    seen: list[Any] = []

    class Watched(ig.Method):
        def __call__(self, field: Any, x: Tensor, *, watch: Any = None) -> ig.Attribution:
            seen.append(field)
            return super().__call__(field, x, watch=watch)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
        method(method=Watched(rule=ig.rules.Midpoint(4)), supports=supports, keep=1.0)(ruled, X)
    assert [one.backward for one in seen] == [ig.fields.GuidedReLU()] * 2
    assert seen[1].network.module is supports.models[0]


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: method(method="integrated"), r"ArtificialDistancing wraps a Method"),
        (lambda: method(method=ig.methods.layer("0")), r"ArtificialDistancing explains the inputs"),
        (lambda: method(classes=(1, 1)), r"two different outputs \(A, B\), not \(1, 1\)"),
        (lambda: method(distances=()), r"one or more positive numbers, not \(\)"),
        (lambda: method(distances=(0.0,)), r"one or more positive numbers, not \(0\.0,\)"),
        (lambda: method(epochs=0), r"epochs and batch are 1 or more"),
        (lambda: method(held=1.0), r"held out, between 0 and 1, not 1\.0"),
        (lambda: method(keep=0.0), r"keep is the fraction .* not 0\.0"),
    ],
)
def test_nonsense_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": DATA[:0]}, r"is empty"),
        ({"data": []}, r"is empty"),
        (
            {"labels": torch.zeros(60).long()},
            r"60 examples of class 0 and 0 of class 1: give at least 5 of each",
        ),
        (
            {"labels": torch.zeros(59).long()},
            r"60 examples and labels of shape 59: give one for each",
        ),
        (
            {"classes": (0, 7)},
            r"classes=\(0, 7\) are two outputs of a model with a class axis; this one returns 3",
        ),
        ({"data": torch.ones(60, 6).long()}, r"The data holds torch\.int64: convert it"),
    ],
)
def test_data_that_does_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        method(**options)(field(), X)


def test_models_that_cannot_be_taught() -> None:
    def function(z: Tensor) -> Tensor:
        return z[:, :3].square()

    with pytest.raises(
        ig.errors.ModelError, match=r"a function has no parameters: give the nn\.Module"
    ):
        method()(ig.TorchField(function, 0), X)
    with pytest.raises(ig.errors.ModelError, match=r"has no parameters, so that no support"):
        method()(ig.TorchField(nn.Sequential(nn.Tanh(), nn.Softmax(1)), 0), X)
    with pytest.raises(ig.errors.InputError, match=r"which a Function is not"):
        method()(ig.fields.Function(lambda z: z.sum(1)), X)

    class Stubborn(Observed, nn.Linear):
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("there is only one of me")

    with pytest.raises(ig.errors.ModelError, match=r"cannot be copied: there is only one of me"):
        method()(ig.TorchField(Stubborn(6, 3).double(), 0), X)


def test_trained_supports_take_arguments_for_each_example() -> None:
    """Trained with one that holds for all of the data, as the error says."""

    class Scaled(nn.Linear):
        def forward(self, z: Tensor, scale: Any) -> Tensor:
            return super().forward(z) * torch.as_tensor(scale).reshape(-1, 1)

    scaled, scales = filled(Scaled(6, 3)), torch.tensor([0.5, 1.0, 2.0, 4.0]).double()
    supports = method(epochs=2, fit=-100.0).trained(ig.TorchField(scaled, 0, extra=(2.0,))).supports
    made = method(supports=supports)(ig.TorchField(scaled, 0, extra=(scales,)), X)
    for b in range(4):
        alone = method(supports=supports)(
            ig.TorchField(scaled, 0, extra=(float(scales[b]),)), X[b : b + 1]
        )
        torch.testing.assert_close(alone.values[0], made.values[b], rtol=0, atol=1e-12)


def test_arguments_for_each_example_are_refused() -> None:
    class Scaled(nn.Linear):
        def forward(self, z: Tensor, scale: Tensor) -> Tensor:
            return super().forward(z) * scale[:, None]

    own = ig.TorchField(Scaled(6, 3).double(), 0, extra=(torch.ones(4).double(),))
    with pytest.raises(
        ig.errors.InputError, match=r"some of its extra arguments are for each example"
    ):
        method()(own, X)
    several = dict(left=X[:, :2], right=X[:, 2:])

    class Joined(nn.Linear):
        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return super().forward(torch.cat([left, right], 1))

    with pytest.raises(ig.errors.InputError, match=r"models with one input"):
        ig.explain(Joined(6, 3).double(), several, target=0, method=method())
    with pytest.raises(ig.errors.InputError, match=r"'artificial_distancing' needs data="):
        ig.explain(model(), X, target=0, method="artificial_distancing")
