"""Every method on every example: what is counted, what fails, and what that does to the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.compare.evaluate import methods_by_name, metrics_by_name, scored
from integrand.compare.scores import Scores
from integrand.task import Task

pytestmark = pytest.mark.usefixtures("quiet")
METRICS = [ig.metrics.Deletion(steps=8), ig.metrics.Insertion(steps=8)]


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 5)
    ).double()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double()


def picky(field: Any, x: Tensor, *, watch: Any = None) -> ig.Attribution:
    """Refuses inputs whose first number is positive, as a method does that finds no baseline for some."""
    if bool((x[:, 0, 0, 0] > 0).any()):
        raise ig.errors.BaselineError("The corner is positive.")
    return ig.methods.integrated()(field, x)


def lost(field: Any, x: Tensor, *, watch: Any = None) -> ig.Attribution:
    """NaN for the second example."""
    made = ig.methods.integrated()(field, x)
    if len(x) > 1:
        made.values[1] = torch.nan
    return made


def judged(model: nn.Module, x: Tensor, methods: dict[str, Any], **options: Any) -> Scores:
    return scored(Task.of(model, x, "predicted"), methods, METRICS, **options)


def test_scores_are_those_of_the_doors(model: nn.Module, x: Tensor) -> None:
    methods = {"integrated": ig.methods.integrated(), "blur": ig.methods.blur(3.0, 10)}
    found = judged(model, x, methods, ids=list("abcd"))
    assert (found.methods, found.metrics, found.examples) == (
        ("integrated", "blur"),
        ("deletion", "insertion"),
        tuple("abcd"),
    )
    assert found.higher == (False, True)
    target = model(x).argmax(1)
    for m, method in enumerate(methods.values()):
        made = ig.explain(model, x, target=target, method=method)
        for q, metric in enumerate(METRICS):
            np.testing.assert_allclose(
                found.values[m, q],
                ig.metrics.judge(model, x, made, metric, target=target),
                rtol=0,
                atol=1e-12,
            )
        np.testing.assert_allclose(found.gap[m], made.gap, atol=1e-12)
        np.testing.assert_allclose(found.error[m], made.error, atol=1e-12)
        assert found.gradients[m].sum() == made.cost.gradients
    np.testing.assert_allclose(
        found.curves["deletion"][0, :, 0], model(x).softmax(1).amax(1).detach()
    )


def test_a_metric_is_judged_by_under_its_name(model: nn.Module, x: Tensor) -> None:
    result = ig.explain(model, x, target=0)
    named = ig.metrics.judge(model, x, result, "sparseness", target=0)
    assert torch.equal(named, ig.metrics.judge(model, x, result, ig.metrics.Sparseness(), target=0))
    with pytest.raises(ig.errors.UnknownName, match="sparsenes"):
        ig.metrics.judge(model, x, result, "sparsenes", target=0)


def test_every_example_is_counted_alone(model: nn.Module, x: Tensor) -> None:
    """Adaptive rules spend what an example needs; each is charged for what it would have cost by itself."""
    methods = {"integrated": ig.methods.integrated(rule=ig.rules.Adaptive(0.004))}
    whole = judged(model, x * torch.tensor([0.1, 1, 3, 10]).double().reshape(-1, 1, 1, 1), methods)
    assert len(set(whole.gradients[0])) > 1
    for b, factor in enumerate((0.1, 1, 3, 10)):
        alone = judged(model, x[b : b + 1] * factor, methods)
        assert alone.gradients[0, 0] == whole.gradients[0, b]


def test_rows_of_all_are_shared_out(model: nn.Module, x: Tensor) -> None:
    """References that all examples share are asked once: their rows belong to every example in equal parts."""
    pool = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(5)).double()
    method = ig.methods.expected(ig.baselines.Given(pool), rule=ig.rules.GaussLegendre(2))
    found = judged(model, x, {"expected": method})
    made = ig.explain(model, x, target="predicted", method=method)
    assert found.gradients[0].tolist() == [12.0] * 4
    assert found.rows[0].sum() == pytest.approx(made.cost.values)
    assert len(set(found.rows[0])) == 1


def test_an_example_that_fails_costs_the_others_nothing(model: nn.Module, x: Tensor) -> None:
    x[:, 0, 0, 0] = torch.tensor([1.0, -1.0, 1.0, -2.0]).double()
    found = judged(model, x, {"integrated": ig.methods.integrated(), "picky": picky})
    assert np.isnan(found.values[1, :, [0, 2]]).all()
    np.testing.assert_allclose(found.values[1, :, [1, 3]], found.values[0, :, [1, 3]], rtol=1e-12)
    assert not np.isnan(found.values[0]).any()
    said = "BaselineError: The corner is positive."
    assert found.reasons == {("picky", "0"): said, ("picky", "2"): said}
    assert found.gradients[1].tolist() == [0, *found.gradients[0, 1:2], 0, *found.gradients[0, 3:]]
    assert np.isnan(found.gap[1, [0, 2]]).all()
    assert np.isnan(found.curves["deletion"][1, 0]).all()


def test_a_map_of_nan_has_no_score_and_a_reason(model: nn.Module, x: Tensor) -> None:
    found = judged(model, x, {"lost": lost, "integrated": ig.methods.integrated()})
    assert np.isnan(found.values[0, :, 1]).all()
    assert not np.isnan(np.delete(found.values[0], 1, axis=1)).any()
    assert not np.isnan(found.values[1]).any()
    assert found.reasons == {("lost", "1"): "the map holds NaN or infinity"}


def test_nothing_that_works_at_all(model: nn.Module, x: Tensor) -> None:
    x[:, 0, 0, 0] = 1
    found = judged(model, x, {"picky": picky})
    assert np.isnan(found.values).all()
    assert len(found.reasons) == 4


def test_methods_and_metrics_that_hold_something_for_each_example(
    model: nn.Module, x: Tensor
) -> None:
    """When a batch is taken apart, baselines, fills and label maps of the examples' own go with them."""
    own = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(7)).double()
    several = torch.stack([own, own.flip(0)])
    labels = torch.arange(64).reshape(8, 8) // torch.tensor([1, 2, 4, 8]).reshape(-1, 1, 1)
    methods = {
        "one": ig.methods.integrated(own),
        "several": ig.methods.weighted(several, rule=ig.rules.GaussLegendre(3), features=labels),
        "given": ig.methods.smoothgrad(draws=2, baseline=ig.baselines.Given(own[None])),
    }
    metric = ig.metrics.Deletion(steps=4, fill=own, features=labels)
    x[:, 0, 0, 0] = 0
    x[2, 0, 0, 0] = 1
    with ig.metrics.Subject.of(model, x, 1) as subject:
        reference = scored(subject, methods, [metric])
        apart = scored(subject, {**methods, "picky": picky}, [metric])
    assert np.isnan(apart.values[3]).tolist() == [[False, False, True, False]]
    np.testing.assert_allclose(apart.values[:3], reference.values, rtol=1e-12)

    failing = {
        name: _failing(method) for name, method in methods.items()
    }  # so that the batch itself is taken apart
    with ig.metrics.Subject.of(model, x, 1) as subject:
        single = scored(subject, failing, [metric])
    np.testing.assert_allclose(single.values, reference.values, rtol=1e-12)


def _failing(method: Any) -> Any:
    """The method, which refuses more than one example at a time."""
    import dataclasses

    @dataclasses.dataclass(frozen=True)
    class Single:
        method: Any

        def __call__(self, field: Any, x: Tensor, *, watch: Any = None) -> ig.Attribution:
            if len(x) > 1:
                raise ig.errors.InputError("one at a time")
            return self.method(field, x, watch=watch)

    return Single(method)


def test_what_cannot_be_compared(model: nn.Module, x: Tensor) -> None:
    with pytest.raises(ig.errors.InputError, match="'layer' explains a layer"):
        judged(model, x, {"layer": ig.methods.layer("0")})
    found = judged(
        model, x, {"words": lambda field, x: "words", "integrated": ig.methods.integrated()}
    )
    assert np.isnan(found.values[0]).all()
    assert found.reasons["words", "0"] == "InputError: it returned str, not an Attribution"
    assert not np.isnan(found.values[1]).any()


def test_methods_with_a_backward_pass_of_their_own(model: nn.Module, x: Tensor) -> None:
    guided = ig.Backward(ig.fields.GuidedReLU(), ig.methods.integrated(rule=ig.rules.Midpoint(4)))
    found = judged(model, x, {"guided": guided})
    made = ig.explain(model, x, target="predicted", method=guided)
    np.testing.assert_allclose(
        found.values[0, 0],
        ig.metrics.judge(model, x, made, METRICS[0], target="predicted"),
        atol=1e-12,
    )
    assert found.gradients[0].tolist() == [4] * 4


def test_inputs_in_several_parts() -> None:
    class Both(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return torch.stack([(a.sum((1, 2)) * b[:, 0]).tanh(), b.sum(1)], 1)

    inputs = (torch.randn(3, 2, 2), torch.randn(3, 4))
    found = scored(
        Task.of(Both(), inputs, 0), {"integrated": ig.methods.integrated()}, ["deletion"]
    )
    assert found.values.shape == (1, 1, 3)
    assert not np.isnan(found.values).any()


def test_errors_of_metrics_are_raised(model: nn.Module, x: Tensor) -> None:
    with pytest.raises(ig.errors.InputError, match="normalise"):
        scored(
            Task.of(model, x, 1),
            {"a": ig.methods.integrated()},
            [ig.metrics.Deletion(normalise="max")],
        )
    with pytest.raises(ig.errors.InputError, match="3 ids for 4 examples"):
        judged(model, x, {"a": ig.methods.integrated()}, ids=list("abc"))


def test_names() -> None:
    assert list(metrics_by_name(["deletion", ig.metrics.insertion])) == ["deletion", "insertion"]
    two = [ig.metrics.Deletion(), ig.metrics.Deletion(fill="blurred")]
    assert list(metrics_by_name(two)) == ["Deletion()", "Deletion('blurred')"]
    assert list(metrics_by_name({"black": two[0]})) == ["black"]
    assert list(methods_by_name(["integrated", ig.methods.integrated()])) == [
        "integrated",
        "Method()",
    ]
    for names, message in (
        (["blur", "blur"], "given twice"),
        ([], "no methods"),
        ("blur", "a list of names"),
    ):
        with pytest.raises(ig.errors.InputError, match=message):
            methods_by_name(names)
    with pytest.raises(ig.errors.UnknownName, match="deletion"):
        metrics_by_name(["delation"])


def test_a_class_is_known_within_a_comparison(model: nn.Module, x: Tensor) -> None:
    """Metrics that ask whether the class is predicted find it out for some examples of a batch as for all of them."""
    metrics = [ig.metrics.DiffID(score="accuracy"), ig.metrics.Deletion(score="loss", steps=4)]
    methods = {"picky": picky, "all": ig.methods.integrated()}
    target = torch.tensor([0, 1, 2, 3])
    found = scored(Task.of(model, x, target), methods, metrics)
    made = ig.explain(model, x, target=target)
    for q, metric in enumerate(metrics):
        alone = ig.metrics.judge(model, x, made, metric, target=target)
        np.testing.assert_allclose(found.values[1, q], alone.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("sizes differ"),
        ZeroDivisionError(),
        AttributeError("no such"),
        AssertionError("of the user's"),
    ],
)
def test_whatever_a_method_raises_is_a_reason_and_the_others_are_judged(error: Exception) -> None:
    """On some examples or on all: those it fails on have no score and a reason, everything else has its numbers."""

    def always(field: Any, x: Any, watch: Any = None) -> Any:
        raise error

    def sometimes(field: Any, x: Any, watch: Any = None) -> Any:
        if bool((x[:, 0] > 1).any()):
            raise error
        return ig.methods.integrated()(field, x)

    x = torch.tensor([[0.5, 1.0, 2.0], [3.0, 1.0, 0.0], [0.2, 0.1, 0.4]], dtype=torch.float64)
    model = torch.nn.Linear(3, 2).double()
    made = ig.compare(model, x, target=0, methods={"a": "integrated", "b": always, "c": sometimes}, metrics=["deletion"], controls=False)  # fmt: skip
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    assert made.scores.reasons == {**{("b", str(i)): said for i in range(3)}, ("c", "1"): said}
    values = made.scores.of("deletion")
    assert np.isnan(values[1]).all()
    assert np.isnan(values[2]).tolist() == [False, True, False]
    alone = ig.compare(
        model, x, target=0, methods={"a": "integrated"}, metrics=["deletion"], controls=False
    )
    np.testing.assert_array_equal(values[0], alone.scores.of("deletion")[0])


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(3), MemoryError()])
def test_what_is_no_fault_of_a_method_ends_the_comparison(stop: BaseException) -> None:
    def stopped(field: Any, x: Any, watch: Any = None) -> Any:
        raise stop

    with pytest.raises(type(stop)):
        ig.compare(torch.nn.Linear(3, 2), torch.ones(2, 3), target=0, methods={"a": stopped}, metrics=["deletion"], controls=False)  # fmt: skip
