"""The result: what its numbers mean, and choosing examples from it."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import integrand as ig
from integrand.core.values import part
from integrand.rules.quadrature import Quadrature
from tests.problems import PROBLEMS, Two, filled, joined, softplus_cnn, tanh_mlp, wave

X = wave(5, 6)
REFERENCES = wave(3, 6, phase=1)
CLASSES = torch.tensor([0, 2, 1, 0, 2])
MODEL = tanh_mlp()


@part
class At(Quadrature):
    """One node, wherever it is."""

    node: float

    def table(self) -> Any:
        return (self.node,), (1.0,)


def everything() -> ig.Attribution:
    """An attribution in which every field holds something."""
    return ig.explain(
        MODEL,
        X,
        target=CLASSES,
        method=ig.methods.weighted(
            REFERENCES,
            path=ig.paths.Descent("1", 6, 0.05, (-9.0, 9.0)),
            rule=ig.rules.Midpoint(2),
            fill=0.0,
            record=("path",),
        ),
        normalisation=ig.Normalisation.symmetric(),
    )


@pytest.fixture(scope="module")
def made() -> ig.Attribution:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
        return everything()


def test_the_definition(made: ig.Attribution) -> None:
    """values = Σ_r w_r shares_r;   Σ values + residual = F(x) − Σ_r w_r F(start_r);   base = Σ_r w_r F(start_r)."""
    with torch.no_grad():
        output = MODEL(X)[range(5), CLASSES]
        starts = torch.stack([MODEL(made.baselines[r])[range(5), CLASSES] for r in range(3)])
    torch.testing.assert_close(made.output, output, rtol=0, atol=1e-14)
    torch.testing.assert_close(made.change, output - starts, rtol=0, atol=1e-14)
    torch.testing.assert_close(made.weights.sum(0), torch.ones(5).double(), rtol=0, atol=1e-14)
    for b in range(5):
        values = sum(made.weights[r, b] * made.shares[r, b] for r in range(3))
        base = sum(made.weights[r, b] * starts[r, b] for r in range(3))
        torch.testing.assert_close(made.values[b], values, rtol=0, atol=1e-14)
        torch.testing.assert_close(made.base[b], base, rtol=0, atol=1e-14)
        torch.testing.assert_close(
            made.values[b].sum() + made.residual[b], output[b] - base, rtol=0, atol=1e-14
        )
        gap = made.residual[b].abs() / (output[b] - base).abs()
        torch.testing.assert_close(made.gap[b], gap, rtol=1e-12, atol=0)
    assert made.converged.tolist() == (made.gap <= 0.1).tolist()
    assert bool(made.error.isnan().all())


def test_what_is_kept(made: ig.Attribution) -> None:
    assert made.values.shape == made.inputs.shape == (5, 6)
    assert made.shares.shape == made.baselines.shape == (3, 5, 6)
    assert made.weights.shape == made.change.shape == made.fitness.shape == (3, 5)
    assert made.notes["distance"].shape == (7, 3, 5)
    assert made.frames.points.shape == (9, 3, 5, 6)
    assert made.frames.clock.tolist() == pytest.approx([i / 8 for i in range(9)])
    assert len(made.reasons) == 5
    assert made.names == ("given 1", "given 2", "given 3")
    assert made.target == ig.targets.Logit(CLASSES)
    assert torch.equal(made.inputs, X)
    assert made.cost.gradients > 0 < made.cost.seconds
    assert made.cost.peak_bytes > 0


def test_frames_lie_on_the_path(made: ig.Attribution) -> None:
    assert torch.equal(made.frames.points[0], made.baselines)
    assert torch.equal(made.frames.points[-1], X.expand(3, 5, 6))
    _, corners = ig.paths.corners(
        made.method.path, ig.TorchField(MODEL, CLASSES), REFERENCES[:, None].expand(3, 5, 6), X
    )
    for frame in range(9):
        place = frame / 8 * 6
        low = min(int(place), 5)
        expected = torch.lerp(corners[low], corners[low + 1], place - low)
        torch.testing.assert_close(made.frames.points[frame], expected, rtol=0, atol=1e-13)


def test_frames_of_a_straight_line() -> None:
    made = ig.methods.integrated(0.5, record=("path",))(ig.TorchField(MODEL, 0), X)
    for frame, clock in enumerate(made.frames.clock.tolist()):
        torch.testing.assert_close(
            made.frames.points[frame, 0], 0.5 + clock * (X - 0.5), rtol=0, atol=1e-14
        )


def test_gap_of_a_change_that_is_only_rounding() -> None:
    """Where F(x) = F(b) up to rounding, the gap is measured against the values, not against 1e-17."""
    field = ig.fields.Function(lambda z: 1e3 + 1.3e-13 * z.square().sum(1))
    made = ig.methods.integrated(1.0, ig.rules.GaussLegendre(50))(field, X)
    assert bool((made.residual != 0).any())
    ends = torch.maximum(made.output.abs(), made.base.abs())
    assert bool(((made.output - made.base).abs() < 64 * 2.0**-52 * ends).all())
    torch.testing.assert_close(
        made.gap, made.residual.abs() / (64 * 2.0**-52 * ends), rtol=1e-6, atol=0
    )
    assert bool((made.gap < 0.1).all())
    assert bool(made.converged.all())


def test_gap_of_a_small_change_of_a_large_value() -> None:
    """A map of nothing, of a price of 250,000 that changes by 2: by hand (1.2, 0.8), so all of it is missed, and float64 can tell."""
    field = ig.fields.Function(lambda z: 250_000 + 1.2 * z[:, 0] ** 3 + 0.8 * z[:, 1] ** 2)
    with pytest.warns(ig.errors.IncompleteWarning, match="adds up to 0 where F changes by 2"):
        made = ig.methods.integrated(rule=ig.rules.Left(1))(field, torch.ones(1, 2).double())
    assert float(made.gap) == pytest.approx(1)
    assert made.converged.tolist() == [False]
    assert float(ig.metrics.completeness_gap(made)) == pytest.approx(float(made.gap), rel=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gap_has_no_scale(scale: float, dtype: torch.dtype) -> None:
    """z² by its gradient at z = 0.75, 1.5 of a change of 1: the gap is a half, whatever F is measured in."""
    field = ig.fields.Function(lambda z: scale * z[:, 0].square())
    with pytest.warns(ig.errors.IncompleteWarning):
        made = ig.methods.integrated(rule=At(0.75))(field, torch.ones(1, 1, dtype=dtype))
    assert float(made.gap) == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_gap_of_no_change_at_all(shift: float) -> None:
    """F(x) = F(b), and the parts of the map cancel but for rounding: what is left is no gap of 1e11."""
    weight = wave(1, 400).float() * 7
    field = ig.fields.Function(
        lambda z: ((z * weight).sum(1)).cos() * 0 + (z[:, :200] - z[:, 200:]).sum(1).sinh() + shift
    )
    x = wave(3, 200, phase=0.4).float().repeat(1, 2)
    made = ig.methods.integrated(rule=ig.rules.GaussLegendre(7))(field, x)
    assert bool((made.gap < 0.1).all())
    assert bool(made.converged.all())


@pytest.mark.parametrize(("dtype", "eps"), [(torch.float16, 2.0**-10), (torch.bfloat16, 2.0**-7)])
def test_gap_knows_what_the_model_computed_in(dtype: torch.dtype, eps: float) -> None:
    """A change of three units in the last place of half precision is rounding there, and none in float32."""
    model = torch.nn.Linear(4, 1).to(dtype)
    with torch.no_grad():
        model.weight.fill_(0.75 * eps), model.bias.fill_(1.0)
    made = ig.explain(model, torch.ones(2, 4, dtype=dtype), target=0, rule=ig.rules.Midpoint(2))
    assert made.resolution == eps
    assert bool((made.gap < 0.1).all())
    assert made.output.dtype == torch.float32


def test_gap_of_a_model_under_autocast() -> None:
    model = torch.nn.Linear(4, 1)
    with torch.autocast("cpu", torch.bfloat16):
        made = ig.explain(
            lambda z: model(z).float(), torch.ones(2, 4), target=0, rule=ig.rules.Midpoint(2)
        )
    assert made.resolution == 2.0**-7
    assert ig.explain(model, torch.ones(2, 4), target=0).resolution == 2.0**-23


def test_a_gap_that_is_not_a_number_is_infinite(made: ig.Attribution) -> None:
    broken = dataclasses.replace(
        made, residual=torch.tensor([0.1, float("nan"), 0.0, float("inf"), 0.0]).double()
    )
    assert broken.gap.isinf().tolist() == [False, True, False, True, False]


def test_gap_of_a_change_that_cancels() -> None:
    """Shares of ±1 cancel to a change of 0.001; missing 0.01 of it is not complete."""
    field = ig.fields.Function(lambda z: torch.where(z[:, 0] > 0.5, 0.01, 0.0) + 0.001 * z[:, 0])
    with pytest.warns(
        ig.errors.IncompleteWarning,
        match=r"1 of 1 maps miss .* example 0 adds up to 0.001 where F changes by 0.011",
    ):
        made = ig.methods.integrated(rule=ig.rules.GaussLegendre(50))(
            field, torch.ones(1, 1).double()
        )
    assert made.converged.tolist() == [False]
    assert float(made.gap) == pytest.approx(0.01 / 0.011)


@pytest.mark.parametrize("which", [0, -1, 3])
def test_one_example(made: ig.Attribution, which: int) -> None:
    check(made[which], made, [which % 5])


@pytest.mark.parametrize(
    ("which", "numbers"),
    [
        (slice(1, 4), [1, 2, 3]),
        (slice(None, None, 2), [0, 2, 4]),
        ([3, 0], [3, 0]),
        (torch.tensor([4, 4]), [4, 4]),
        (torch.tensor([True, False, False, True, False]), [0, 3]),
        (torch.tensor(2), [2]),
        (np.int64(2), [2]),
        (np.array([3, 1]), [3, 1]),
    ],
    ids=[
        "slice",
        "step",
        "list",
        "tensor",
        "mask",
        "scalar tensor",
        "numpy integer",
        "numpy array",
    ],
)
def test_some_examples(made: ig.Attribution, which: Any, numbers: list[int]) -> None:
    check(made[which], made, numbers)


def check(some: ig.Attribution, whole: ig.Attribution, numbers: list[int]) -> None:
    assert len(some) == len(numbers)
    for name in ("values", "inputs", "output", "residual", "error", "converged"):
        assert torch.equal(
            getattr(some, name).nan_to_num(), getattr(whole, name)[numbers].nan_to_num()
        ), name
    for name in ("weights", "change", "shares", "baselines", "fitness"):
        assert torch.equal(getattr(some, name), getattr(whole, name)[:, numbers]), name
    assert torch.equal(some.notes["distance"], whole.notes["distance"][:, :, numbers])
    assert torch.equal(some.frames.points, whole.frames.points[:, :, numbers])
    assert some.reasons == tuple(whole.reasons[i] for i in numbers)
    assert some.target == ig.targets.Logit(CLASSES[numbers])
    assert torch.equal(some.gap, whole.gap[numbers])
    assert some.names == whole.names


def test_no_such_example(made: ig.Attribution) -> None:
    for which in (5, -6):
        with pytest.raises(IndexError, match=f"no example {which} among 5"):
            made[which]


def test_iteration(made: ig.Attribution) -> None:
    singles = list(made)
    assert [len(single) for single in singles] == [1] * 5
    assert torch.equal(torch.cat([single.values for single in singles]), made.values)


def test_several_inputs_are_indexed_together() -> None:
    inputs = {"left": wave(5, 4), "right": wave(5, 2, 3, phase=1)}
    made = ig.explain(
        filled(Two()), inputs, target=0, baseline=[0.0, 1.0], method=ig.Method(record=("shares",))
    )
    assert {k: tuple(v.shape) for k, v in made.shares.items()} == {
        "left": (2, 5, 4),
        "right": (2, 5, 2, 3),
    }
    assert {k: tuple(v.shape) for k, v in made.baselines.items()} == {
        "left": (2, 5, 4),
        "right": (2, 5, 2, 3),
    }
    some = made[1:3]
    assert torch.equal(some.values["right"], made.values["right"][1:3])
    assert torch.equal(some.shares["left"], made.shares["left"][:, 1:3])
    torch.testing.assert_close(
        joined(some.values).sum(1) + some.residual, some.output - some.base, rtol=0, atol=1e-14
    )


def test_shares_are_kept_when_asked_for_or_needed() -> None:
    field = ig.TorchField(MODEL, 0)
    assert ig.methods.expected(REFERENCES, rule=ig.rules.Midpoint(9))(field, X).shares is None
    asked = ig.methods.expected(REFERENCES, rule=ig.rules.Midpoint(9), record=("shares",))(field, X)
    torch.testing.assert_close(asked.shares.mean(0), asked.values)
    with pytest.raises(ig.errors.InputError, match=r"record takes 'shares', 'path'; got 'maps'"):
        ig.methods.integrated(record=("maps",))


def test_repr(made: ig.Attribution) -> None:
    text = repr(made)
    assert text.startswith("<Attribution of 5 examples, values (5, 6), by Method(")
    assert f"worst gap {float(made.gap.max()):.2%}" in text
    assert "1 example," in repr(made[0])


def test_names_of_every_field_are_documented() -> None:
    words = re.findall(r"\w+", inspect.getdoc(ig.Attribution))
    undocumented = {f.name for f in dataclasses.fields(ig.Attribution)} - set(words)
    assert undocumented <= {"cost", "method", "target", "normalisation"}


def test_to_shap_without_shap(made: ig.Attribution, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shap", None)
    with pytest.raises(ig.errors.MissingExtra, match=r"to_shap\(\) needs the package 'shap'"):
        made.to_shap()


def test_to_shap(made: ig.Attribution, monkeypatch: pytest.MonkeyPatch) -> None:
    """The three arrays that shap.Explanation takes; the package itself is not needed to see that they are right."""
    monkeypatch.setitem(sys.modules, "shap", SimpleNamespace(Explanation=lambda *arrays: arrays))
    close = ig.explain(MODEL, X, target=0, rule=ig.rules.GaussLegendre(40))
    values, base, data = close.to_shap()
    assert np.array_equal(values, close.values.numpy())
    assert np.array_equal(base, close.base.numpy())
    assert np.array_equal(data, X.numpy())


class Explanation:
    """What SHAP's plots read: f(x) is not stored, they add it up."""

    def __init__(
        self, values: Any, base_values: Any = None, data: Any = None, feature_names: Any = None
    ) -> None:
        self.values, self.base_values, self.data, self.feature_names = (
            values,
            base_values,
            data,
            feature_names,
        )

    @property
    def said(self) -> Any:
        return self.base_values + self.values.sum(-1)


@pytest.mark.parametrize("options", [{"rule": ig.rules.Left(2)}, {"method": "expected", "baseline": REFERENCES, "rule": ig.rules.MonteCarlo(1)}])  # fmt: skip
def test_shap_prints_what_the_model_says(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, quiet: None
) -> None:
    """f(x) = base + Σ values is the model's output, whatever the map misses: that is a feature of its own."""
    monkeypatch.setitem(sys.modules, "shap", SimpleNamespace(Explanation=Explanation))
    made = ig.explain(MODEL, X, target=0, **options)
    with torch.no_grad():
        output = MODEL(X)[:, 0].numpy()
    assert (
        np.abs(output - (made.base + made.values.sum(1)).numpy()).max() > 1e-3
    )  # the maps alone do not say it
    told = made.to_shap([f"column {i}" for i in range(6)])
    np.testing.assert_allclose(told.said, output, rtol=1e-9)
    assert told.feature_names == [*(f"column {i}" for i in range(6)), "not explained"]
    assert np.array_equal(told.values[:, :6], made.values.numpy())
    assert np.isnan(told.data[:, 6]).all()
    assert made.to_shap().feature_names == ["0", "1", "2", "3", "4", "5", "not explained"]


def test_shap_of_maps_that_add_up_has_the_features_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shap", SimpleNamespace(Explanation=Explanation))
    told = ig.explain(MODEL, X, target=0).to_shap(list("abcdef"))
    assert told.feature_names == list("abcdef")
    with pytest.raises(
        ig.errors.InputError, match=r"2 names for values of shape 5x6: give one for each column"
    ):
        ig.explain(MODEL, X, target=0).to_shap(["a", "b"])


def test_shap_of_images_that_do_not_add_up_warns(
    monkeypatch: pytest.MonkeyPatch, quiet: None
) -> None:
    monkeypatch.setitem(sys.modules, "shap", SimpleNamespace(Explanation=Explanation))
    images = PROBLEMS["softplus cnn"]
    made = ig.explain(images.model, images.inputs, target=0, rule=ig.rules.Left(1))
    with pytest.warns(
        ig.errors.IncompleteWarning, match=r"SHAP prints base \+ Σ values as what the model says"
    ):
        made.to_shap()


def test_of_no_examples_there_is_a_repr(made: ig.Attribution) -> None:
    assert "0 examples" in repr(made[0:0])


def test_a_map_that_adds_up_without_claiming_it_says_so() -> None:
    """A layer that everything passes through leaves nothing out; one that is passed by does, and claims nothing."""
    made = ig.explain(MODEL, X, target=0, method="layer", site="0")
    assert not made.claims_completeness
    assert float(made.gap.max()) < 0.01
    assert f"worst gap {float(made.gap.max()):.2%}" in repr(made)


def test_to_shap_of_several_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shap", SimpleNamespace(Explanation=None))
    made = ig.explain(filled(Two()), (wave(2, 4), wave(2, 2, 3)), target=0)
    with pytest.raises(
        (TypeError, ig.errors.InputError), match=r"one input tensor; this attribution has several"
    ):
        made.to_shap()


@pytest.mark.parametrize("name", ["t6", "softplus cnn", "dict input", "logits object"])
def test_the_change_is_measured_not_assumed(name: str) -> None:
    """One left-hand node: the residual is what the map misses, to the last digit."""
    problem = PROBLEMS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IncompleteWarning)
        made = ig.explain(
            problem.model,
            problem.inputs,
            target=problem.target,
            extra=problem.extra,
            rule=ig.rules.Left(),
            baseline=0.25,
        )
    field, x = problem.field(), problem.packed()
    change = field.value(x) - field.value(torch.full_like(x, 0.25))
    torch.testing.assert_close(
        made.residual, change - joined(made.values).sum(1), rtol=0, atol=1e-12
    )
    assert float(made.residual.abs().max()) > 1e-3


def test_values_of_an_image_keep_its_shape() -> None:
    x = 0.5 + 0.5 * wave(2, 3, 8, 8)
    made = ig.explain(softplus_cnn(), x, target=0)
    assert made.values.shape == x.shape
    assert isinstance(made.values, Tensor)
