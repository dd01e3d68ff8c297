"""Several targets at once: the numbers of single runs, and one forward pass for all of them."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from tests.problems import PROBLEMS, Counting, filled, relu_mlp, softplus_cnn, tanh_mlp, wave

CLASSES = torch.tensor([0, 2, 1, 0, 2])
IMAGES = 0.5 + 0.5 * wave(5, 3, 8, 8)
FEW, FEW_CLASSES = IMAGES[:3], CLASSES[:3]
"""Of tests that run every method for every target: three examples differ as much as five."""
REFERENCES = 0.5 + 0.5 * wave(3, 3, 8, 8, phase=1)
TARGETS: list[Any] = [
    0,
    "predicted",
    ig.targets.Margin(1, FEW_CLASSES),
    FEW_CLASSES,
    ig.targets.Custom(lambda out, weight: out[:, 0] * weight, wave(3)),
    lambda out: out.square().sum(1),
]
FINE = ig.rules.GaussLegendre(7)

METHODS: dict[str, dict[str, Any]] = {
    "integrated": dict(baseline=0.25, rule=FINE),
    "a baseline each": dict(baseline=FEW.flip(0), rule=FINE),
    "several baselines": dict(baseline=[0.0, FEW.flip(0), "mean"], rule=FINE),
    "expected": dict(method="expected", baseline=REFERENCES, draws=12),
    "sampled": dict(method="expected", baseline=REFERENCES, draws=60, tol=0.3),
    "weighted": dict(method="weighted", baseline=list(REFERENCES), fill=0.0, rule=FINE),
    "superpixels": dict(
        method="weighted",
        baseline=list(REFERENCES),
        fill=FEW.flip(0),
        rule=FINE,
        features=(torch.arange(64).reshape(1, 8, 8) // torch.tensor([7, 9, 11])[:, None, None]),
    ),
    "staged": dict(
        method="weighted", baseline=list(REFERENCES), fill=0.0, rule=FINE, keep=0.9, scout=2
    ),
    "ig2": dict(method="ig2", baseline=REFERENCES[:2], steps=4),
    "references of other classes": dict(
        method="ig2", baseline=ig.baselines.OtherClass(8 * wave(30, 3, 8, 8), 1), steps=3
    ),
    "a tolerance": dict(baseline=0.25, tol=0.01),
    "chords": dict(baseline=0.25, rule=ig.rules.Chords(4)),
    "layer": dict(method="layer", site="1", baseline=0.25, rule=FINE),
    "conductance": dict(method="conductance", site="3", baseline=0.25, steps=3),
    "a weighted layer": dict(
        method=ig.Layered(
            "1", ig.methods.weighted(list(REFERENCES), fill=0.0, rule=FINE, features="elements")
        )
    ),
}


@pytest.fixture(autouse=True)
def _quiet(quiet: None) -> None:
    """This file is about numbers."""


@pytest.mark.parametrize("batch_size", [None, 4, 7])
@pytest.mark.parametrize("name", list(METHODS))
def test_each_is_what_a_run_of_its_own_gives(name: str, batch_size: int | None) -> None:
    model, options = softplus_cnn(), METHODS[name]
    together = ig.explain_targets(model, FEW, targets=TARGETS, batch_size=batch_size, **options)
    assert len(together) == len(TARGETS)
    for target, made in zip(TARGETS, together, strict=True):
        alone = ig.explain(model, FEW, target=target, batch_size=batch_size, **options)
        for field in (
            "values",
            "inputs",
            "output",
            "weights",
            "change",
            "residual",
            "baselines",
            "shares",
            "fitness",
        ):
            torch.testing.assert_close(
                getattr(made, field), getattr(alone, field), rtol=0, atol=1e-9
            )
        assert torch.equal(made.converged, alone.converged)
        assert made.names == alone.names
        assert repr(made.method) == repr(alone.method)
        assert repr(made.target) == repr(alone.target)
        assert made.reasons == alone.reasons
        for note in alone.notes:
            torch.testing.assert_close(made.notes[note], alone.notes[note], rtol=0, atol=1e-9)


@pytest.mark.parametrize("around", [False, True])
def test_skip_connections_around_a_layer(around: bool) -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.inner, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.tanh(self.first(x))
            return self.last(torch.tanh(h * around + self.inner(h)))

    model, x = filled(Skip()), wave(5, 6)
    for method in (
        ig.methods.layer("inner", [0.0, 0.3]),
        ig.methods.conductance("inner", [0.0, 0.3], 4),
    ):
        for target, made in zip(
            [0, 2], ig.explain_targets(model, x, targets=[0, 2], method=method), strict=True
        ):
            alone = ig.explain(model, x, target=target, method=method)
            torch.testing.assert_close(made.values, alone.values, rtol=0, atol=1e-12)
            torch.testing.assert_close(made.residual, alone.residual, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "problem", ["tuple input", "dict input", "extra arguments", "logits object", "dict output"]
)
def test_inputs_and_outputs_of_every_kind(problem: str) -> None:
    p = PROBLEMS[problem]
    together = ig.explain_targets(p.model, p.inputs, targets=[0, 2], extra=p.extra, rule=FINE)
    for target, made in zip([0, 2], together, strict=True):
        alone = ig.explain(p.model, p.inputs, target=target, extra=p.extra, rule=FINE)
        assert type(made.values) is type(alone.values)
        parts = made.values if isinstance(made.values, tuple) else (made.values,)
        others = alone.values if isinstance(alone.values, tuple) else (alone.values,)
        if isinstance(made.values, dict):
            parts, others = tuple(made.values.values()), tuple(alone.values.values())
        for one, other in zip(parts, others, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


# --- what it costs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 1, 3, 4])
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("name", ["integrated", "several baselines", "weighted", "ig2"])
def test_the_forward_rows_are_those_of_one_run(
    name: str, count: int, batch_size: int | None
) -> None:
    model, options = Counting(softplus_cnn()), METHODS[name]
    targets = [0, 2, 1, FEW_CLASSES, ig.targets.Margin(0, 1)][:count]
    ig.explain(model, FEW, target=0, batch_size=batch_size, **options)
    alone, values = model.gradients, model.values
    model.reset()
    together = ig.explain_targets(model, FEW, targets=targets, batch_size=batch_size, **options)
    assert model.gradients == alone
    assert batch_size is None or model.largest <= batch_size
    assert together[0].cost.gradients == alone
    if (
        name != "weighted"
    ):  # whose search for what can be taken away goes its own way for each target
        assert model.values == values


@pytest.mark.parametrize("count", [2, 5])
def test_chords_share_their_forward_rows(count: int) -> None:
    model = Counting(softplus_cnn())
    options = dict(baseline=[0.0, 0.5], rule=ig.rules.Chords(4), batch_size=1000)
    ig.explain(model, IMAGES, target=0, **options)
    alone = model.gradients
    model.reset()
    ig.explain_targets(
        model, IMAGES, targets=[0, 2, 1, CLASSES, ig.targets.Margin(0, 1)][:count], **options
    )
    assert model.gradients == alone == 2 * 5 * 5


# --- a tolerance ------------------------------------------------------------------------------------------------------


def kinked_cnn() -> nn.Module:
    """Convolutions, kinks and a pool: a network that a tolerance has work with."""
    layers = (
        nn.Conv2d(3, 8, 3),
        nn.ReLU6(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
    )
    return filled(nn.Sequential(*layers, nn.Linear(32, 3)))


def flat_for_one() -> nn.Module:
    """Class 0 is linear; the others have kinks."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kinked, self.linear = kinked_cnn(), nn.Linear(192, 3)

        def forward(self, x: Tensor) -> Tensor:
            first = self.linear(x.flatten(1)).select(1, 0)
            return torch.cat([first[:, None], self.kinked(x)[:, 1:]], 1)

    return filled(Mixed())


class CountingBoth(Counting):
    """Counts the rows of backward passes, too."""

    def reset(self) -> None:
        super().reset()
        self.backward_rows = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        outputs = super().forward(*args, **kwargs)
        if torch.is_grad_enabled():
            outputs = _Noted.apply(outputs, self)
        return outputs


class _Noted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, outputs: Tensor, model: CountingBoth) -> Tensor:
        ctx.model = model
        return outputs.view_as(outputs)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        ctx.model.backward_rows += len(slope)
        return slope, None


TOLERANT: dict[str, dict[str, Any]] = {
    "integrated": dict(baseline=0.25, tol=0.003),
    "several baselines": dict(baseline=[0.0, 1.0], tol=0.003),
    "corners": dict(
        method=ig.Method(
            ig.baselines.Constant(0.0), ig.paths.Straight(3), ig.rules.Adaptive(0.003)
        ),
    ),
    "weighted": dict(method="weighted", baseline=list(REFERENCES), fill=0.0, tol=0.003),
    "weighted, kept waiting": dict(
        method="weighted", baseline=list(REFERENCES), fill=0.0, tol=0.05
    ),
    "staged": dict(
        method="weighted", baseline=list(REFERENCES), fill=0.0, tol=0.003, keep=0.9, scout=2
    ),
    "layer": dict(method="layer", site="inner.0", baseline=0.25, tol=0.003),
    "conductance": dict(
        method="conductance", site="inner.0", baseline=0.25, steps=3, rule=ig.rules.Adaptive(0.003)
    ),
}


@pytest.mark.parametrize("classes", [[1], [0, 1, 2], [0, 2, 1, CLASSES, ig.targets.Margin(0, 1)]])
@pytest.mark.parametrize("name", list(TOLERANT))
def test_a_tolerance_is_met_on_common_nodes(name: str, classes: list[Any]) -> None:
    model, options = CountingBoth(kinked_cnn()), {**TOLERANT[name], "batch_size": 1000}
    most = every = 0
    alone = []
    for target in classes:
        model.reset()
        alone.append(ig.explain(model, IMAGES, target=target, **options))
        most, every = max(most, model.gradients), every + model.gradients
    model.reset()
    together = ig.explain_targets(model, IMAGES, targets=classes, **options)
    # The union of what each target needs is somewhat more than what the most demanding needs.
    assert model.gradients <= most * (1 if len(classes) == 1 else 1.4)
    assert model.backward_rows <= every * (1 if len(classes) == 1 else 1.4)
    tol = options.get("tol", 0.003)
    for made, one in zip(together, alone, strict=True):
        assert bool(made.converged.all())
        far = (made.values - one.values).flatten(1).norm(dim=1) / one.values.flatten(1).norm(dim=1)
        assert float(far.max()) <= (3 * tol if len(classes) > 1 else 1e-12)


@pytest.mark.parametrize("tol", [0.01, 0.003])
def test_each_target_meets_its_own_tolerance(tol: float) -> None:
    """By the estimate; in truth, too, as far as a run for each does."""
    model, classes, worst = kinked_cnn(), [0, CLASSES, 2], [0.0, 0.0]
    together = ig.explain_targets(model, IMAGES, targets=classes, baseline=0.25, tol=tol)
    for target, made in zip(classes, together, strict=True):
        assert bool((made.error <= tol).all())
        exact = ig.explain(
            model, IMAGES, target=target, baseline=0.25, rule=ig.rules.Chords(2000, grade=1.0)
        ).values
        alone = ig.explain(model, IMAGES, target=target, baseline=0.25, tol=tol)
        for which, one in enumerate((made, alone)):
            far = (one.values - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
            worst[which] = max(worst[which], float(far.max()))
    assert worst[0] <= max(tol, 1.1 * worst[1])


def test_targets_that_are_done_go_backward_no_more() -> None:
    model, options = CountingBoth(flat_for_one()), dict(baseline=0.25, tol=0.003, batch_size=1000)
    rows = []
    for target in (0, 1):
        model.reset()
        ig.explain(model, IMAGES, target=target, **options)
        rows.append(model.gradients)
    assert rows[0] == 5 * 7 < rows[1]  # a first look, and two into its longest intervals
    model.reset()
    ig.explain_targets(model, IMAGES, targets=[0, 1], **options)
    # What the flat one is looked into for is not asked of the other, which has nodes there.
    assert (model.gradients, model.backward_rows) == (rows[1] + 5 * 2, sum(rows))


@pytest.mark.parametrize("name", ["integrated", "several baselines", "weighted", "layer"])
def test_common_nodes_do_not_depend_on_how_calls_are_cut(name: str) -> None:
    targets, options = [0, 1, CLASSES], {**TOLERANT[name], "tol": 0.02}
    whole = ig.explain_targets(
        Counting(kinked_cnn()), IMAGES, targets=targets, batch_size=1000, **options
    )
    for rows in (2, 7):
        model = Counting(kinked_cnn())
        cut = ig.explain_targets(model, IMAGES, targets=targets, batch_size=rows, **options)
        for made, other in zip(cut, whole, strict=True):
            torch.testing.assert_close(made.values, other.values, rtol=0, atol=1e-11)
        assert model.largest <= rows + 1  # a run that is cut takes one point along


def test_blocks_keep_companions_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large inputs are refined a few paths at a time; the paths of one point go together."""
    options = dict(
        method="weighted", baseline=list(REFERENCES), fill=0.0, tol=0.003, batch_size=1000
    )
    forward = []
    for block in (1 << 25, 7 * 32 * 192):
        monkeypatch.setattr("integrand.rules.adaptive.adaptive._BLOCK_ELEMENTS", block)
        model = Counting(kinked_cnn())
        ig.explain_targets(model, IMAGES, targets=[0, 1, 2], **options)
        forward.append(model.gradients)
    assert forward[1] <= 1.3 * forward[0]


def test_chords_that_some_targets_ask_for() -> None:
    """Each row's chord is its own target's; rows that are alike are run once for every set of targets that asks."""
    model = Counting(kinked_cnn())
    inner = ig.TorchField(model, 0)
    targets = [ig.targets.Logit(0), ig.targets.Logit(CLASSES), ig.targets.Logit(2)]
    several = ig.fields.MultiTarget(inner, targets)
    points = torch.lerp(
        torch.zeros_like(IMAGES[:1]),
        IMAGES[:1],
        torch.linspace(0, 1, 4).double()[:, None, None, None],
    )
    row = torch.tensor(
        [0, 0, 0, 1, 1, 2, 2, 3]
    )  # the point each is at: all ask at the first, two at the next, one at the last
    index = torch.tensor([0, 1, 2, 0, 2, 0, 2, 2])
    before = torch.tensor([0, 1, 2, 0, 2, 3, 4, 6])
    found = several.evaluate_chords(points[row], index, before)
    assert model.gradients == 1 + 3 + 2  # with what is before them
    for i in range(len(row)):
        own = inner.with_target(targets[int(index[i])])
        pair = torch.stack([points[row[before[i]]], points[row[i]]])
        one = own.evaluate_chords(pair, torch.zeros(2, dtype=torch.long), torch.tensor([0, 0]))
        torch.testing.assert_close(found.gradient[i], one.gradient[1], rtol=0, atol=1e-13)


def test_a_path_of_its_own_for_every_target() -> None:
    options = dict(method="ig2", baseline=REFERENCES[:2], steps=4, rule=ig.rules.Adaptive(0.01))
    for target, made in zip(
        [0, 1], ig.explain_targets(kinked_cnn(), IMAGES, targets=[0, 1], **options), strict=True
    ):
        alone = ig.explain(kinked_cnn(), IMAGES, target=target, **options)
        torch.testing.assert_close(made.values, alone.values, rtol=0, atol=1e-9)


def test_rows_that_may_be_one_point() -> None:
    inner = ig.TorchField(softplus_cnn(), 0)
    several = ig.fields.MultiTarget(
        inner, [ig.targets.Logit(0), ig.targets.Logit(1), ig.targets.Logit(2)]
    )
    index = torch.tensor([0, 1, 2, 0, 2, 3, 4, 2, 1])
    expected = [0, 0, 0, 1, 1, 2, 2, 3, 4]
    assert several.points(index).tolist() == expected
    assert ig.fields.Subset(several, index).points(torch.arange(9)).tolist() == expected
    assert inner.points(index).tolist() == list(range(9))


def test_chords_that_do_not_add_up_are_given_up_for_their_target_alone() -> None:
    """A norm is no sum of chords: its target falls back on gradients, the other keeps its chords."""
    model, targets = softplus_cnn(), [0, lambda out: torch.linalg.vector_norm(out, dim=1) ** 3]
    options = dict(baseline=0.25, rule=ig.rules.Chords(4))
    for target, made in zip(
        targets, ig.explain_targets(model, IMAGES, targets=targets, **options), strict=True
    ):
        alone = ig.explain(model, IMAGES, target=target, **options)
        torch.testing.assert_close(made.values, alone.values, rtol=0, atol=1e-12)


def test_only_what_is_asked_goes_backward() -> None:
    backward = []

    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, out: Tensor) -> Tensor:
            return out.clone()

        @staticmethod
        def backward(ctx: Any, slope: Tensor) -> Tensor:
            backward.append(len(slope))
            return slope

    inner = relu_mlp()
    several = ig.fields.MultiTarget(
        ig.TorchField(lambda z: Watched.apply(inner(z)), 0),
        [ig.targets.Logit(0), ig.targets.Logit(1), ig.targets.Logit(2)],
    )
    z = wave(4, 6).repeat_interleave(3, 0)
    index = torch.arange(12)
    several.evaluate(z, index)
    assert backward == [4, 4, 4]
    backward.clear()
    several.evaluate(z[index % 3 == 1], index[index % 3 == 1])
    assert backward == [4]
    backward.clear()
    several.evaluate(z, index, gradient=False)
    assert backward == []


# --- the field --------------------------------------------------------------------------------------------------------


def test_rows_in_any_order() -> None:
    """Shuffled rows, repeats, gaps: whatever is asked, every row gets its own target's answer."""
    inner = ig.TorchField(softplus_cnn(), 0)
    targets = [ig.targets.Logit(CLASSES), ig.targets.Logit(1)]
    several = ig.fields.MultiTarget(inner, targets)
    index = torch.tensor([3, 2, 2, 9, 0, 1, 1, 8, 4, 4, 5])
    z = IMAGES[index // 2] + 0.1 * wave(11, 1, 1, 1)
    z[2], z[9], z[5] = z[1], z[8], z[4]
    for found, gradient in (
        (several.evaluate(z, index), True),
        (several.evaluate(z, index, gradient=False), False),
    ):
        for row in range(11):
            own = inner.with_target(targets[int(index[row]) % 2])
            alone = own.evaluate(z[row : row + 1], index[row : row + 1] // 2)
            torch.testing.assert_close(found.value[row], alone.value[0], rtol=0, atol=1e-13)
            if gradient:
                torch.testing.assert_close(
                    found.gradient[row], alone.gradient[0], rtol=0, atol=1e-13
                )


def test_it_keeps_the_promises_of_a_field() -> None:
    inner = ig.TorchField(softplus_cnn(), 0)
    several = ig.fields.MultiTarget(inner, [ig.targets.Logit(CLASSES), ig.targets.Margin(0, 1)])
    ig_testing().check_field(several, IMAGES.repeat_interleave(2, 0))
    assert repr(several) == f"MultiTarget({inner!r}, [Logit(tensor<5>), Margin(0, 1)])"
    assert (
        repr(several.score()) == f"MultiTarget({inner!r}, [Probability(tensor<5>), Probability(0)])"
    )


def ig_testing() -> Any:
    from integrand import testing

    return testing


def test_a_layers_field_keeps_them_too() -> None:
    field = ig.TorchField(softplus_cnn(), CLASSES).behind("1")
    lifted = field.lift(IMAGES, torch.arange(5))
    field.hold(lifted)
    ig_testing().check_field(field, lifted.points)


def test_two_goals_at_one_point_are_two_points() -> None:
    """A representation distance is shared only where the goal is the same."""
    inner = ig.TorchField(relu_mlp(), 0)
    several = ig.fields.MultiTarget(inner, [ig.targets.Logit(0), ig.targets.Logit(1)])
    z, index = wave(2, 6).repeat_interleave(2, 0), torch.arange(4)
    with inner.ready():
        for goals in (wave(4, 6, phase=2), wave(2, 6, phase=2).repeat_interleave(2, 0)):
            goal = several.distance(goals, index)
            own, driver = several.evaluate_both(z, index, goal, index)
            for row in range(4):
                alone = inner.with_target(row % 2).evaluate_both(
                    z[row : row + 1], index[:1], goal, index[row : row + 1]
                )
                for found, other in zip((own, driver), alone, strict=True):
                    torch.testing.assert_close(found.value[row], other.value[0], rtol=0, atol=1e-13)
                    torch.testing.assert_close(
                        found.gradient[row], other.gradient[0], rtol=0, atol=1e-13
                    )


# --- misuse -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            dict(targets=3),
            r"targets= is a list of targets, not int; for one target call ig.explain",
        ),
        (dict(targets="predicted"), r"not str"),
        (dict(targets=CLASSES), r"not Tensor"),
        (dict(targets=[]), r"targets= is empty"),
        (dict(targets=[0], target=1), r"Give the targets as targets="),
        (dict(targets=[0, torch.tensor([0, 1])]), r"names 2 classes for 5 examples"),
        (dict(targets=[0, 7]), r"Target class 7 does not exist"),
        (
            dict(targets=[0, 1], ruel=FINE),
            r"no option of method 'integrated' named 'ruel'. Did you mean 'rule'",
        ),
    ],
)
def test_misuse(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ig.errors.IntegrandError, match=message):
        ig.explain_targets(softplus_cnn(), IMAGES, **options)


def test_a_path_that_depends_on_the_target_is_not_shared_at_a_layer() -> None:
    class Uphill:
        """One step up the gradient, then on to the input."""

        def __call__(self, field: Any, start: Tensor, end: Tensor) -> Any:
            slope = field.gradient(end)
            yield ig.segments.polyline(torch.stack([start, start + slope, end.expand_as(start)]))

    method = ig.Method(path=Uphill(), rule=FINE)
    for target, made in zip(
        [0, 1],
        ig.explain_targets(relu_mlp(), wave(5, 6), targets=[0, 1], method=method),
        strict=True,
    ):
        alone = ig.explain(relu_mlp(), wave(5, 6), target=target, method=method)
        torch.testing.assert_close(made.values, alone.values, rtol=0, atol=1e-12)
    with pytest.raises(
        ig.errors.InputError, match=r"one that depends on the target needs a run for each"
    ):
        ig.explain_targets(relu_mlp(), wave(5, 6), targets=[0, 1], method=ig.Layered("1", method))


def test_seeds_and_progress_go_through() -> None:
    tallies: list[int] = []
    options = dict(method="expected", baseline=REFERENCES, draws=6, seed=3)
    made = ig.explain_targets(
        softplus_cnn(),
        IMAGES,
        targets=[0, 1],
        progress=lambda tally: tallies.append(tally.gradients),
        **options,
    )
    assert tallies[-1] == 2 * made[0].cost.gradients
    torch.testing.assert_close(
        made[1].values,
        ig.explain(softplus_cnn(), IMAGES, target=1, **options).values,
        rtol=0,
        atol=1e-12,
    )


def test_warnings_are_given_once() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ig.explain_targets(
            lambda z: z**5, 1 + wave(3, 2).abs(), targets=[0, 1], rule=ig.rules.Midpoint()
        )
    assert len(caught) == 1
    assert caught[0].filename == __file__


# --- what is said of them ----------------------------------------------------------------------------------------------


def test_warnings_name_the_example_and_the_target() -> None:
    """Row 2 alone has a kink on its way, and only for the target that sees it."""

    class Kinked(torch.nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return torch.stack([z[:, 0], 50 * (z[:, 1] - 0.9).relu() + z[:, 0]], 1)

    x = torch.tensor([[1.0, 0.1], [1.0, 0.2], [1.0, 1.0]])
    with pytest.warns(
        ig.errors.IncompleteWarning,
        match=r"1 of 6 maps .* example 2 of target 1 \(Logit\(1\)\) adds up",
    ):
        ig.explain_targets(Kinked(), x, targets=[0, 1], rule=ig.rules.Left(1))


def test_errors_name_the_example_and_the_target() -> None:
    class Root(torch.nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return torch.stack([z.sum(1), 1 / z[:, 0]], 1)

    x = torch.tensor([[1.0, 0.1], [0.0, 0.2]])
    with pytest.raises(
        ig.errors.NonFiniteGradient, match=r"example 1 of target 1 \(Logit\(1\)\) itself"
    ):
        ig.explain_targets(Root(), x, targets=[0, 1], baseline=1.0, rule=ig.rules.Left(1))


def test_examples_of_a_batch_of_some_are_named_as_in_the_whole() -> None:
    field = ig.fields.Subset(ig.TorchField(tanh_mlp(), 0), torch.tensor([4, 2]))
    assert [field.example_name(i) for i in range(2)] == ["example 4", "example 2"]
    both = field.with_targets([ig.targets.Logit(0), ig.targets.Margin(1, 2)])
    assert both.example_name(3) == "example 2 of target 1 (Margin(1, 2))"
