"""The front door: what it takes, what it refuses, and how early."""

from __future__ import annotations

import dataclasses
import inspect
import io
from collections import UserDict
from contextlib import redirect_stderr
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from tests.catalogue import WRAPPERS
from tests.catalogue.latent import Codec
from tests.problems import (
    PROBLEMS,
    Counting,
    Output,
    Scaled,
    Two,
    filled,
    softplus_cnn,
    sure,
    tanh_mlp,
    wave,
)

X = wave(5, 6)
LEFT, RIGHT = wave(5, 4), wave(5, 2, 3, phase=1)
CLASSES = torch.tensor([0, 2, 1, 0, 2])


# --- what it takes ----------------------------------------------------------------------------------------------------


class Tagged(Tensor):
    """A tensor of a class of its own, as those of torchvision and of parameters are."""


class Jealous(Tensor):
    """One that keeps its class through every operation."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize("kind", [Tagged, Jealous, nn.Parameter])
@pytest.mark.parametrize("method", ["integrated", "expected", "layer"])
def test_tensors_of_other_classes_are_their_numbers(kind: Any, method: str) -> None:
    def own(t: Tensor) -> Tensor:
        return kind(t) if kind is nn.Parameter else t.as_subclass(kind)

    options: dict[str, Any] = {"site": "0"} if method == "layer" else {}
    references = X[:2] if method == "expected" else X[:1]
    plain = ig.explain(tanh_mlp(), X, target=1, method=method, baseline=references, **options)
    made = ig.explain(
        tanh_mlp(), own(X), target=1, method=method, baseline=own(references), **options
    )
    assert type(made.values) is type(made.inputs) is Tensor
    torch.testing.assert_close(made.values, plain.values, rtol=0, atol=0)
    direct = ig.methods.integrated()(ig.TorchField(tanh_mlp(), 1), own(X))
    torch.testing.assert_close(direct.values, ig.explain(tanh_mlp(), X, target=1).values)


def test_a_tensor() -> None:
    made = ig.explain(tanh_mlp(), X, target=1)
    assert made.values.shape == (5, 6)
    expected = ig.methods.integrated()(ig.TorchField(tanh_mlp(), 1), X)
    torch.testing.assert_close(made.values, expected.values, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    "inputs",
    [
        (LEFT, RIGHT),
        [LEFT, RIGHT],
        {"left": LEFT, "right": RIGHT},
        UserDict(right=RIGHT, left=LEFT),
    ],
    ids=["tuple", "list", "dict", "batch encoding"],
)
def test_several_tensors(inputs: Any) -> None:
    made = ig.explain(filled(Two()), inputs, target=CLASSES)
    named = not isinstance(inputs, tuple | list)
    left, right = (made.values["left"], made.values["right"]) if named else made.values
    joint = nn.Sequential(nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    joint.load_state_dict(
        {
            k.replace("first", "0").replace("last", "2"): v
            for k, v in filled(Two()).state_dict().items()
        }
    )
    expected = ig.explain(joint, torch.cat([LEFT, RIGHT.flatten(1)], 1), target=CLASSES).values
    torch.testing.assert_close(left, expected[:, :4], rtol=0, atol=1e-14)
    torch.testing.assert_close(right, expected[:, 4:].reshape(5, 2, 3), rtol=0, atol=1e-14)
    assert isinstance(made.inputs, dict if named else tuple)


@pytest.mark.parametrize(
    "extra",
    [
        (1 + 0.5 * wave(5),),
        {"scale": 1 + 0.5 * wave(5)},
        {"scale": 1 + 0.5 * wave(5), "shift": 0.0},
    ],
)
def test_extra_arguments(extra: Any) -> None:
    model = filled(Scaled())
    scale = 1 + 0.5 * wave(5)
    made = ig.explain(model, LEFT, target=0, extra=extra, batch_size=3)
    for b in range(5):
        single = ig.explain(
            lambda z, b=b: model(z, scale[b : b + 1].expand(len(z))), LEFT[b : b + 1], target=0
        )
        torch.testing.assert_close(made.values[b], single.values[0], rtol=0, atol=1e-13)


def test_a_dict_of_inputs_with_extra_arguments_by_name() -> None:
    """As transformers are called: embeddings attributed, the mask not."""

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(4, 2)

        def forward(self, inputs_embeds: Tensor, attention_mask: Tensor) -> Any:
            pooled = (inputs_embeds * attention_mask[..., None]).sum(1) / attention_mask.sum(
                1, keepdim=True
            )
            return {"logits": self.last(pooled.tanh())}

    embeddings = wave(3, 5, 4)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]])
    made = ig.explain(
        filled(Encoder()),
        {"inputs_embeds": embeddings},
        target="predicted",
        extra={"attention_mask": mask},
    )
    values = made.values["inputs_embeds"]
    assert values.shape == (3, 5, 4)
    assert bool(((values != 0).any(2) == (mask == 1)).all())


def test_predicted() -> None:
    model = sure(tanh_mlp(), torch.zeros(6).double(), 1.0)
    classes = model(X).argmax(1)
    made = ig.explain(model, X, target="predicted")
    assert made.target == ig.targets.Logit(classes)
    assert len(classes.unique()) > 1
    assert torch.equal(made.values, ig.explain(model, X, target=classes).values)


@pytest.mark.parametrize(
    "one", [lambda z: tanh_mlp()(z)[:, 0], lambda z: tanh_mlp()(z)[:, :1]], ids=["(N,)", "(N, 1)"]
)
def test_predicted_of_a_model_with_one_output(one: Any) -> None:
    """The side of the logit's sign that each row is on: ±F, and one warning that says so."""
    logit = tanh_mlp()(X)[:, 0].detach()
    middle = logit.median()  # rows on either side of it
    turned = torch.where(logit - middle < 0, -1.0, 1.0).double()
    with pytest.warns(ig.errors.OneOutputWarning, match=r"2 of 5 examples.*Output\(\)") as given:
        made = ig.explain(lambda z: one(z) - middle, X, target="predicted")
    assert len(given) == 1
    assert made.target == ig.targets.PredictedSide(turned)
    plain = ig.explain(tanh_mlp(), X, target=0)
    torch.testing.assert_close(made.values, turned[:, None] * plain.values, rtol=0, atol=1e-14)
    torch.testing.assert_close(made.output, (logit - middle).abs())
    torch.testing.assert_close(made.output - made.base, turned * (plain.output - plain.base))
    alone = ig.explain(lambda z: one(z) - middle, X, target=ig.targets.Output())  # no warning
    torch.testing.assert_close(alone.values, plain.values, rtol=0, atol=1e-14)


def test_predicted_of_fields_that_know_they_are_no_classifiers() -> None:
    from sklearn.tree import DecisionTreeRegressor

    numbers = X.numpy()
    tree = DecisionTreeRegressor(random_state=0).fit(numbers, -np.arange(5.0) - 1)
    made = ig.explain(tree, numbers, target="predicted")
    assert made.target == ig.targets.Output()
    np.testing.assert_allclose(made.output.numpy(), tree.predict(numbers))


@pytest.mark.parametrize(
    "target",
    [CLASSES, CLASSES.int(), CLASSES.tolist(), CLASSES.numpy(), ig.targets.Logit(CLASSES)],
    ids=["tensor", "int32", "list", "numpy", "target"],
)
def test_a_class_for_every_example(target: Any) -> None:
    made = ig.explain(tanh_mlp(), X, target=target, batch_size=7)
    for b in range(5):
        single = ig.explain(tanh_mlp(), X[b : b + 1], target=int(CLASSES[b]))
        torch.testing.assert_close(made.values[b], single.values[0], rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    "target", [np.int64(1), torch.tensor(1), -2], ids=["numpy", "scalar tensor", "negative"]
)
def test_one_class_in_other_clothes(target: Any) -> None:
    torch.testing.assert_close(
        ig.explain(tanh_mlp(), X, target=target).values, ig.explain(tanh_mlp(), X, target=1).values
    )


def test_a_callable_target() -> None:
    made = ig.explain(tanh_mlp(), X, target=lambda out: out[:, 0] - out[:, 1:].logsumexp(1))
    torch.testing.assert_close(
        made.values,
        ig.explain(tanh_mlp(), X, target=ig.targets.LogOdds(0)).values,
        rtol=0,
        atol=1e-13,
    )


@pytest.mark.parametrize("kind", ["object", "tuple", "dict"])
def test_outputs_of_every_kind(kind: str) -> None:
    made = ig.explain(Output(kind).eval(), LEFT, target="predicted")
    plain = ig.explain(tanh_mlp(4), LEFT, target="predicted")
    torch.testing.assert_close(made.values, plain.values, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("baseline", "reference"),
    [
        (None, torch.zeros(6)),
        (0.5, torch.full((6,), 0.5)),
        ("zero", torch.zeros(6)),
        (torch.arange(6.0), torch.arange(6.0)),
        (X + 1, X + 1),
        (ig.baselines.Constant(2.0), torch.full((6,), 2.0)),
        (lambda x, field: x[None] * 0 + 1, torch.ones(6)),
    ],
    ids=["none", "number", "name", "one example", "one for each", "part", "function"],
)
def test_baselines(baseline: Any, reference: Tensor) -> None:
    made = ig.explain(tanh_mlp(), X, target=0, baseline=baseline)
    assert torch.equal(made.baselines[0], reference.double().expand(5, 6))


@pytest.mark.parametrize(
    "baseline",
    [
        (torch.ones(4), torch.zeros(2, 3)),
        {"left": torch.ones(4), "right": torch.zeros(2, 3)},
        {"left": 1.0, "right": torch.zeros(5, 2, 3)},
    ],
)
def test_baselines_for_several_inputs(baseline: Any) -> None:
    inputs: Any = (LEFT, RIGHT) if isinstance(baseline, tuple) else {"left": LEFT, "right": RIGHT}
    made = ig.explain(filled(Two()), inputs, target=0, baseline=baseline)
    left, right = made.baselines if isinstance(baseline, tuple) else made.baselines.values()
    assert torch.equal(left, torch.ones(1, 5, 4).double())
    assert torch.equal(right, torch.zeros(1, 5, 2, 3).double())


@pytest.mark.parametrize("count", [3, 5])
@pytest.mark.parametrize("method", ["expected", "weighted", "ig2"])
def test_references_for_several_inputs(method: str, count: int, quiet: None) -> None:
    """R references shared by all examples, also when R happens to be the batch size."""
    references = (wave(count, 4, phase=2), wave(count, 2, 3, phase=3))
    options = {"weighted": {"fill": 0.0}, "ig2": {"steps": 3}}.get(method, {})
    made = ig.explain(
        filled(Two()), (LEFT, RIGHT), target=0, method=method, baseline=references, **options
    )
    assert made.weights.shape == (count, 5)
    if method != "ig2":
        assert torch.equal(made.baselines[1], references[1][:, None].expand(count, 5, 2, 3))


@pytest.mark.parametrize("method", ["expected", "weighted"])
@pytest.mark.parametrize(
    ("references", "count"),
    [
        ((0.0, 1.0), 1),
        ((torch.zeros(4), torch.ones(2, 3)), 1),
        ((wave(3, 4), 1.0), 3),
        ((wave(3, 4), torch.ones(2, 3)), 3),
        ((wave(3, 4), wave(1, 2, 3)), 3),
    ],
    ids=["numbers", "one example", "with a number", "with one example", "with one reference"],
)
def test_references_of_several_inputs_broadcast(
    method: str, references: Any, count: int, quiet: None
) -> None:
    """A number or a single example for one of the inputs is one reference, or goes with every reference of the others."""
    options = {"weighted": {"fill": 0.0}}.get(method, {})
    made = ig.explain(
        filled(Two()), (LEFT, RIGHT), target=0, method=method, baseline=references, **options
    )
    assert made.weights.shape == (count, 5)
    assert made.baselines[0].shape == (count, 5, 4)
    assert torch.equal(
        made.baselines[0][:, 0], torch.as_tensor(references[0]).double().expand(count, 4)
    )


def test_references_of_several_inputs_that_do_not_go_together() -> None:
    with pytest.raises(ig.errors.BaselineError, match=r"3.*2|2.*3"):
        ig.explain(
            filled(Two()),
            (LEFT, RIGHT),
            target=0,
            method="weighted",
            baseline=(wave(3, 4), wave(2, 2, 3)),
            fill=0.0,
        )


def test_numpy_baselines() -> None:
    """A NumPy array is read as the tensor it is, or refused with what to do."""
    try:
        made = ig.explain(tanh_mlp(), X, target=0, baseline=np.full(6, 0.5))
    except ig.errors.BaselineError as error:
        assert "a tensor" in str(error)  # noqa: PT017
    else:
        assert torch.equal(made.baselines[0], torch.full((5, 6), 0.5).double())


@pytest.mark.parametrize(
    "name",
    [
        n
        for n in ig.methods.known()
        if n not in WRAPPERS | {"blur", "spectral", "graph", "gaussian_process"}
    ],
)
def test_every_method_by_name(name: str, quiet: None) -> None:
    options: dict[str, Any] = {
        "weighted": {"fill": 0.0},
        "ig2": {"steps": 3},
        "layer": {"site": "1"},
        "conductance": {"site": "1"},
        "region_neurons": {"site": "1"},
        **{key: {"codec": Codec(6)} for key in ("latent_guided", "latent", "manifold")},
        "geodesic": {"points": wave(9, 6, phase=5)},
        "discretized": {"table": torch.cat([X, wave(9, 6, phase=5)]), "steps": 3},
        "geometric": {"steps": 3, "iterations": 2},
        "adversarial": {"steps": 3, "count": 2},
        "mfaba": {"steps": 3},
        "boundary": {"clip": (-9.0, 9.0)},
        "pattern_guided": {"patterns": ig.fields.Patterns.fit(tanh_mlp(), X)},
    }.get(name, {})
    accepted = inspect.signature(ig.methods.about(name).build).parameters
    first = next(
        (given for given in ("baseline", "baselines", "references") if given in accepted), None
    )
    references = 0.25 if first == "baseline" else None if first is None else wave(3, 6, phase=1)
    made = ig.explain(tanh_mlp(), X, target=0, method=name, baseline=references, **options)
    given = {} if first is None else {first: references}
    by_hand = ig.methods.about(name).build(**given, **options)(ig.TorchField(tanh_mlp(), 0), X)
    torch.testing.assert_close(made.values, by_hand.values, rtol=0, atol=1e-13)
    if first in ("baselines", "references"):
        again = ig.explain(tanh_mlp(), X, target=0, method=name, **{first: references}, **options)
        torch.testing.assert_close(again.values, made.values, rtol=0, atol=1e-13)


def test_methods_of_images_by_name() -> None:
    x, field = 0.5 + 0.5 * wave(2, 3, 8, 8), ig.TorchField(softplus_cnn(), 0)
    for name, baseline, by_hand in (
        ("blur", None, ig.methods.blur(steps=3)),
        ("spectral", 0.25, ig.methods.spectral(0.25, 3)),
    ):
        made = ig.explain(softplus_cnn(), x, target=0, method=name, baseline=baseline, steps=3)
        assert torch.equal(made.values, by_hand(field, x).values)


def test_method_values(quiet: None) -> None:
    own = ig.Method(ig.baselines.Constant(0.25), rule=ig.rules.Midpoint(3))
    field = ig.TorchField(tanh_mlp(), 0)
    assert torch.equal(ig.explain(tanh_mlp(), X, target=0, method=own).values, own(field, X).values)
    replaced = ig.explain(tanh_mlp(), X, target=0, method=own, baseline=0.5)
    assert replaced.method == ig.Method(ig.baselines.Constant(0.5), rule=ig.rules.Midpoint(3))
    staged = ig.methods.weighted([0.0, 1.0], fill=0.0, keep=0.5, scout=2)
    assert ig.explain(
        tanh_mlp(), X, target=0, method=staged, baseline=[0.0, 0.5]
    ).method.method.baseline == ig.baselines.Union(
        (ig.baselines.Constant(0.0), ig.baselines.Constant(0.5))
    )


def test_a_method_of_ones_own() -> None:
    def twice(field: Any, x: Tensor, *, watch: Any = None) -> ig.Attribution:
        made = ig.methods.integrated()(field, x, watch=watch)
        return dataclasses.replace(made, values=2 * made.values)

    made = ig.explain(tanh_mlp(), X, target=0, method=twice)
    torch.testing.assert_close(made.values, 2 * ig.explain(tanh_mlp(), X, target=0).values)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_types(dtype: torch.dtype) -> None:
    """The model sees its own type; the map is float32 at least."""
    seen = []

    def model(z: Tensor) -> Tensor:
        seen.append(z.dtype)
        return z.square()

    made = ig.explain(model, torch.ones(2, 3, dtype=dtype), target=0)
    assert set(seen) == {dtype}
    assert made.values.dtype == torch.promote_types(dtype, torch.float32)
    tolerance = {torch.float16: 1e-2, torch.bfloat16: 5e-2}.get(dtype, 1e-5)
    torch.testing.assert_close(
        made.values[0], torch.tensor([1.0, 0, 0], dtype=made.values.dtype), rtol=0, atol=tolerance
    )


def test_integration_is_in_float32_also_without_explain() -> None:
    """DESIGN 2.7: float32 at least, whichever door is taken."""
    made = ig.methods.integrated()(
        ig.TorchField(nn.Linear(3, 2).bfloat16(), 0), torch.ones(2, 3, dtype=torch.bfloat16)
    )
    assert made.values.dtype == torch.float32


def test_progress() -> None:
    seen: list[tuple[int, int | None]] = []
    ig.explain(
        tanh_mlp(),
        X,
        target=0,
        rule=ig.rules.GaussLegendre(50),
        batch_size=25,
        progress=lambda tally: seen.append((tally.gradients, tally.expected)),
    )
    assert {expected for _, expected in seen} == {250}
    assert list(dict.fromkeys(done for done, _ in seen))[:10] == list(range(25, 251, 25))


@pytest.mark.parametrize("method", ["integrated", "weighted", "ig2"])
def test_progress_is_one_line(method: str, quiet: None) -> None:
    options: dict[str, Any] = {"weighted": {"fill": 0.0}, "ig2": {"steps": 3}}.get(method, {})
    baseline = 0.0 if method == "integrated" else wave(3, 6, phase=1)
    error = io.StringIO()
    with redirect_stderr(error):
        ig.explain(
            tanh_mlp(), X, target=0, method=method, baseline=baseline, progress=True, **options
        )
    text = error.getvalue()
    assert "gradients" in text
    assert text.endswith("\n")
    assert text.count("\n") == 1


def test_silent_by_default() -> None:
    error = io.StringIO()
    with redirect_stderr(error):
        ig.explain(tanh_mlp(), X, target=0)
    assert error.getvalue() == ""


def test_normalisation_reaches_baselines_and_result() -> None:
    n = ig.Normalisation.imagenet()
    x = n.encode(0.5 + 0.5 * wave(2, 3, 8, 8))
    made = ig.explain(softplus_cnn(), x, target=0, baseline="black", normalisation=n)
    assert made.normalisation == n
    assert float(n.decode(made.baselines[0]).abs().max()) < 1e-12


# --- what it refuses --------------------------------------------------------------------------------------------------


def nan_in(x: Tensor, *places: tuple[int, ...]) -> Tensor:
    x = x.clone()
    for place in places:
        x[place] = float("nan")
    return x


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "integer input": (
        dict(inputs=torch.ones(5, 6, dtype=torch.long)),
        ig.errors.IntegerInput,
        r"holds int64.*\.float\(\).*extra=",
    ),
    "NaN": (
        dict(inputs=nan_in(X, (1, 2), (1, 3), (4, 0))),
        ig.errors.NonFiniteInput,
        r"Example 1 holds 2 NaN or infinite numbers \(2 of 5 examples do\)",
    ),
    "infinity": (
        dict(inputs=X / torch.tensor([1.0, 1, 1, 1, 1, 0])),
        ig.errors.NonFiniteInput,
        "Example 0 holds 1 NaN or infinite number ",
    ),
    "no batch axis": (
        dict(inputs=torch.tensor(1.0)),
        ig.errors.ShapeError,
        r"add it with x\[None\]",
    ),
    "no tensor": (dict(inputs="text"), ig.errors.InputError, "got str"),
    "unknown method": (
        dict(method="integratd"),
        ig.errors.UnknownName,
        "no method named 'integratd'. Did you mean 'integrated'",
    ),
    "unknown option": (
        dict(rul=1),
        ig.errors.UnknownName,
        "no option of method 'integrated' named 'rul'. Did you mean 'rule'",
    ),
    "option beside a method": (
        dict(method=ig.methods.integrated(), rule=1),
        ig.errors.UnknownName,
        "option beside method=Method.* named 'rule'",
    ),
    "no references": (
        dict(method="weighted"),
        ig.errors.InputError,
        "Method 'weighted' starts from baselines: give baseline=",
    ),
    "unknown baseline": (
        dict(baseline="balck"),
        ig.errors.UnknownName,
        "no baseline named 'balck'. Did you mean 'black'",
    ),
    "baseline of no kind": (
        dict(baseline={1: 2}),
        ig.errors.BaselineError,
        "a number, a tensor, a list",
    ),
    "an empty name of a method": (
        dict(method=""),
        ig.errors.UnknownName,
        "'integrand methods' lists them",
    ),
    "a factory in place of a method": (
        dict(method=ig.methods.guided),
        ig.errors.InputError,
        r"guided is the function that makes one: write guided\(…\)",
    ),
    "a factory inside of a wrapper": (
        dict(method="smoothgrad", of=ig.methods.expected),
        ig.errors.InputError,
        r"expected is the function that makes one: write expected\(…\)",
    ),
    "a factory in place of a baseline": (
        dict(baseline=ig.baselines.grey),
        ig.errors.InputError,
        r"A baseline is a value, and grey is the function that makes one",
    ),
    "a tolerance of a method that has none": (
        dict(method="generalized", tol=0.1),
        ig.errors.InputError,
        "'generalized' takes no tol=",
    ),
    "a truth value as baseline": (dict(baseline=True), ig.errors.BaselineError, "got True"),
    "truth values as baselines": (
        dict(baseline=[0.0, np.bool_(False)]),
        ig.errors.BaselineError,
        "got False",
    ),
    "a word as normalisation": (
        dict(normalisation="imagenet"),
        ig.errors.InputError,
        r"such as ig.Normalisation.imagenet\(\) .* not 'imagenet'",
    ),
    "numbers as normalisation": (
        dict(normalisation=(0.5, 0.5)),
        ig.errors.InputError,
        r"is an ig.Normalisation, .* not \(0.5, 0.5\)",
    ),
    "baseline that does not broadcast": (
        dict(baseline=torch.zeros(7)),
        ig.errors.BaselineError,
        r"shape 7 does not fit inputs of shape 5x6: give a number",
    ),
    "several references as one for each": (
        dict(baseline=torch.zeros(3, 6)),
        ig.errors.BaselineError,
        "use ig.baselines.Given",
    ),
    "baseline of NaN": (
        dict(baseline=float("nan")),
        ig.errors.BaselineError,
        "holds NaN or infinity",
    ),
    "black without knowing": (
        dict(baseline="black"),
        ig.errors.BaselineError,
        "pass normalisation=",
    ),
    "extra of another length": (
        dict(extra=(torch.zeros(4),)),
        ig.errors.ShapeError,
        r"Extra argument 0 has shape 4, but there are 5 examples.*lambda x: model\(x, shared\)",
    ),
    "unknown target": (
        dict(target="best"),
        ig.errors.TargetError,
        "Target 'best' is not known here",
    ),
    "target of no kind": (dict(target=1.5), ig.errors.TargetError, "1.5 is not a class"),
    "wrong number of classes": (
        dict(target=torch.tensor([0, 1])),
        ig.errors.TargetError,
        "names 2 classes for 5 examples",
    ),
    "wrong number of second classes": (
        dict(target=ig.targets.Margin(0, torch.tensor([0, 1]))),
        ig.errors.TargetError,
        "names 2 classes for 5 examples",
    ),
    "data of another length": (
        dict(target=ig.targets.Custom(lambda out, own: out[:, 0] * own, torch.ones(4))),
        ig.errors.TargetError,
        "data has 4 entries for 5 examples",
    ),
    "tol": (dict(tol=1.5), ig.errors.InputError, "tol is a relative error between 0 and 1"),
    "tol and a rule": (
        dict(tol=0.1, rule=ig.rules.Left()),
        ig.errors.InputError,
        "give one of them",
    ),
    "model": (dict(model=3), ig.errors.InputError, "The model is a int"),
    "rows per call": (dict(batch_size=0), ig.errors.InputError, "at least one row"),
    "method of no kind": (dict(method=5), ig.errors.InputError, "method"),
    "references twice": (
        dict(method="weighted", baseline=[0.0], baselines=[1.0]),
        ig.errors.InputError,
        "baseline",
    ),
    "baseline beside a method with its own": (
        dict(method=lambda field, x, watch: None, baseline=0.0),
        ig.errors.InputError,
        "which has its own",
    ),
}


@pytest.mark.parametrize("kind", list(REFUSED))
def test_refused_before_the_model_is_asked_anything(kind: str) -> None:
    changed, error, message = REFUSED[kind]
    model = Counting(tanh_mlp())
    with pytest.raises(error, match=message):
        ig.explain(**({"model": model, "inputs": X, "target": 0} | changed))
    assert model.calls == 0


@pytest.mark.filterwarnings("ignore::integrand.errors.IncompleteWarning")  # six random positions
@pytest.mark.parametrize("references", [0.0, "zero"])
def test_expected_takes_what_other_methods_take(references: Any) -> None:
    """weighted(0.0) and ig2("zero") are one reference each; so is expected's."""
    with pytest.warns(
        ig.errors.IncompleteWarning, match="standard errors"
    ):  # six random points are few
        made = ig.explain(tanh_mlp(), X, target=0, method="expected", baseline=references, draws=6)
    assert made.weights.shape == (1, 5)
    assert made.cost.gradients == 6 * 5


LATER: dict[str, tuple[dict[str, Any], type[Exception], str, int]] = {
    "class out of range": (
        dict(target=3),
        ig.errors.TargetError,
        "class 3 does not exist: the model has 3 classes, 0 to 2",
        1,
    ),
    "a class of one example out of range": (
        dict(target=torch.tensor([0, 1, 2, 3, 0])),
        ig.errors.TargetError,
        "class 3",
        1,
    ),
    "output instead of a class": (
        dict(target=ig.targets.Output()),
        ig.errors.TargetError,
        "Name a class: target=3",
        1,
    ),
    "a position too many": (dict(target=(0, 1)), ig.errors.TargetError, "give 1", 1),
    "unknown layer": (
        dict(method="ig2", baseline=X[:2], representation="inner.10"),
        ig.errors.UnknownName,
        "no layer named 'inner.10'. Did you mean 'inner.1'",
        0,
    ),
}


@pytest.mark.parametrize("kind", list(LATER))
def test_refused_at_the_first_look_at_the_model(kind: str) -> None:
    """These need an output of the model, and no more than one call for it."""
    changed, error, message, calls = LATER[kind]
    model = Counting(tanh_mlp())
    with pytest.raises(error, match=message):
        ig.explain(**({"model": model, "inputs": X, "target": 0} | changed))
    assert model.calls <= calls


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        (dict(fill="corners"), ig.errors.BaselineError, "corner colour needs images.*fill="),
        (dict(fill=torch.zeros(4)), ig.errors.BaselineError, "shape 4"),
        (dict(fill=lambda x, field: torch.zeros(1, 5, 4)), ig.errors.BaselineError, "1x5x4"),
        (dict(fill=float("nan")), ig.errors.BaselineError, "NaN"),
        (dict(fill=0.0, features="pixels"), ig.errors.ShapeError, "'pixels' does not fit"),
        (
            dict(fill=0.0, features=torch.zeros(4, 4, dtype=torch.long)),
            ig.errors.ShapeError,
            "label map of shape 4x4",
        ),
    ],
    ids=[
        "corners of a table",
        "fill",
        "fill of a function",
        "fill of NaN",
        "features",
        "label map",
    ],
)
def test_what_weighing_needs_is_checked_before_gradients(
    changed: Any, error: Any, message: str
) -> None:
    """Before any long work: a fill for images only says so at once."""
    model = Counting(tanh_mlp())
    with pytest.raises(error, match=message):
        ig.explain(model, X, target=0, method="weighted", baseline=[0.0, 1.0], **changed)
    assert model.gradients == 0


def test_a_score_that_cannot_be_taken_is_found_before_gradients() -> None:
    """One logit has no softmax; weighted needs one."""
    model = Counting(lambda z: tanh_mlp()(z)[:, :1])
    with pytest.raises(ig.errors.TargetError, match=r"softmax over one class .*sigmoid"):
        ig.explain(model, X, target=0, method="weighted", baseline=[0.0, 1.0], fill=0.0)
    assert model.gradients == 0


def test_the_default_fill_of_a_table(quiet: None) -> None:
    """weighted without fill= works on tables."""
    made = ig.explain(tanh_mlp(), X, target="predicted", method="weighted", baseline=[0.0, 1.0])
    assert "fill: mean of the references" in made.criterion
    assert bool(torch.isfinite(made.values).all())


@pytest.mark.parametrize("how", ["detach", "constant"])
def test_models_without_a_gradient(how: str) -> None:
    model = Counting(
        (lambda z: tanh_mlp()(z.detach()))
        if how == "detach"
        else (lambda z: torch.ones(len(z), 3).double())
    )
    with pytest.raises(
        ig.errors.DetachedModel, match=r"carries no gradient|does not depend on the input"
    ):
        ig.explain(model, X, target=0)
    assert model.calls == 1


def test_a_gradient_that_is_not_finite() -> None:
    model = nn.Sequential(tanh_mlp(), nn.Sequential(nn.Softmax(1)))
    with pytest.raises(
        ig.errors.NonFiniteGradient, match=r"the target itself.*Try another baseline, or float32"
    ):
        ig.explain(model, X, target=lambda out: (out[:, 0] - 2).log())


def test_a_model_that_is_not_finite_outside_its_layers_is_not_blamed_on_the_target() -> None:
    """A norm of zero in the model's own code, behind its last layer."""

    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(6, 3, bias=False).double()

        def forward(self, z: Tensor) -> Tensor:
            out = self.last(z)
            return out / out.norm(dim=1, keepdim=True)

    with pytest.raises(ig.errors.NonFiniteGradient) as caught:
        ig.explain(Normalised(), X, target=0, rule=ig.rules.Left())
    assert "target itself" not in str(caught.value)
    assert "model's own code" in str(caught.value)


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        ((0.0,), r"baselines are for \['0'\], the inputs are \['0', '1'\]"),
        ({"left": 0.0}, r"baselines are for \['left'\]"),
        (
            (torch.zeros(5), torch.zeros(2, 3)),
            "baseline for input 0 has shape 5, which does not broadcast to 5x4",
        ),
    ],
)
def test_baselines_that_do_not_fit_several_inputs(baseline: Any, message: str) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        ig.explain(filled(Two()), (LEFT, RIGHT), target=0, baseline=baseline)


def test_predicted_needs_classes() -> None:
    with pytest.raises(
        ig.errors.TargetError,
        match=r"'predicted' needs outputs \(rows, classes\), but one output has shape 3x1",
    ):
        ig.explain(lambda z: tanh_mlp()(z)[:, :, None], X, target="predicted")


def test_the_model_says_what_went_wrong_in_its_own_words() -> None:
    """An error inside the model is the model's."""
    with pytest.raises(RuntimeError, match=r"shapes cannot be multiplied"):
        ig.explain(tanh_mlp(), wave(5, 7), target=0)


def test_explain_names_its_options() -> None:
    with pytest.raises(ig.errors.TargetError, match="give target="):
        ig.explain(tanh_mlp(), X)


@pytest.mark.parametrize("problem", list(PROBLEMS))
def test_inputs_are_not_modified(problem: str, quiet: None) -> None:
    p = PROBLEMS[problem]
    before = p.packed().clone()
    ig.explain(p.model, p.inputs, target=p.target, extra=p.extra, rule=ig.rules.GaussLegendre(8))
    assert torch.equal(p.packed(), before)
