"""What was once taken without a word, or failed deep inside, is refused at the door in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import integrand as ig

X = torch.linspace(-1, 1, 24).reshape(6, 4)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def explain(**options: Any) -> ig.Attribution:
    return ig.explain(model(), X, **{"target": 0, **options})


def compare(**options: Any) -> Any:
    given = {"methods": ["integrated"], "metrics": ["sparseness"], "controls": False}
    return ig.compare(model(), X, **{"target": 0, **given, **options})


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "names that come twice": (lambda: explain(feature_names=list("aabb")), "'a' more than once"),
    "names without order": (lambda: explain(feature_names=set("abcd")), "in their order"),
    "names in one word": (lambda: explain(feature_names="abcd"), "not a str"),
    "named twice": (lambda: explain().named(list("aaaa")), "more than once"),
    "masked arrays": (
        lambda: ig.explain(model(), np.ma.masked_greater(X.numpy(), 0.9), target=0),
        "masked entries",
    ),
    "positions of fractions": (lambda: explain(target=(0.9,)), "tuple of ints"),
    "positions of words": (lambda: explain(target=("a",)), "tuple of ints"),
    "no extra": (lambda: explain(extra=None), "extra="),
    "extra that is a number": (lambda: explain(extra=3), "extra=\\(argument,\\)"),
    "extra of a comparison": (lambda: compare(extra=None), "extra="),
    "optimize in words": (lambda: explain(optimize="no"), "True or False"),
    "complex baselines": (lambda: explain(baseline=torch.full((4,), 1 + 1j)), "complex"),
    "methods that return something else": (
        lambda: explain(method=lambda field, x, watch=None: 3),
        "returns an Attribution",
    ),
    "lazy models": (
        lambda: ig.explain(nn.Sequential(nn.LazyLinear(3)), X, target=0),
        "no weights yet",
    ),
    "groups that are none": (
        lambda: explain(feature_names=list("abcd")).grouped(None),  # type: ignore[arg-type]
        "dict of lists",
    ),
    "masks of another size": (lambda: explain()[torch.tensor([True])], "mask of 6"),
    "nested choices": (lambda: explain()[torch.tensor([[1]])], "by numbers"),
    "budgets in words": (lambda: compare(gradients="a"), "whole number"),
    "options that are no dict": (lambda: compare(options={"integrated": [1]}), "dict of options"),
    "baselines that are no list": (
        lambda: compare(vary_baseline=3),
        "in a list such as .* or a dict",
    ),
    "masks for other examples": (lambda: compare(masks=torch.zeros(2, 4)), "each of 6"),
    "masks in words": (lambda: compare(masks="a"), "masks="),
    "classes that nobody has": (lambda: compare(target=9), "class 9 does not exist"),
    "outcomes in words": (
        lambda: ig.correlate(model(), [(X, ["a"] * 6)], target=0),
        "no numbers",
    ),
    "lengths in words": (
        lambda: ig.fields.GPField(X, X[:, 0], lengthscale="a", variance=1.0, noise=0.1),  # type: ignore[arg-type]
        "made of numbers",
    ),
    "graphs of another library": (
        lambda: ig.fields.GraphField(model(), [{"x": X}], target=0),  # type: ignore[list-item]
        "ig.fields.Graph",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_in_a_sentence(case: str) -> None:
    call, match = REFUSED[case]
    with pytest.raises(ig.errors.IntegrandError, match=match):
        call()


# --- loaders ----------------------------------------------------------------------------------------------------------


def test_targets_for_each_example_go_with_loaders_in_order_only() -> None:
    target = torch.tensor([0, 1, 2, 0, 1, 2])
    net = model()
    whole = ig.explain(net, X, target=target)
    batches = ig.explain(net, DataLoader(X, batch_size=4), target=target)
    torch.testing.assert_close(batches.values, whole.values, atol=1e-6, rtol=0)
    with pytest.raises(ig.errors.InputError, match="shuffle=False"):
        ig.explain(net, DataLoader(X, batch_size=4, shuffle=True), target=target)
    for wrong in (target[:5], torch.cat([target, target])):
        with pytest.raises(ig.errors.TargetError, match=f"for {len(wrong)} examples"):
            ig.explain(net, DataLoader(X, batch_size=4), target=wrong)
    shuffled = ig.explain(net, DataLoader(X, batch_size=4, shuffle=True), target=1)
    assert len(shuffled) == 6  # the same for all, in whatever order


def test_baselines_for_each_example_do_not_go_with_loaders() -> None:
    net, own = model(), X[:3] / 2
    with pytest.raises(ig.errors.InputError, match="one for each example"):
        ig.explain(net, DataLoader(X, batch_size=3), target=0, baseline=own)
    shared = ig.explain(net, DataLoader(X, batch_size=3), target=0, baseline=own[:1])
    torch.testing.assert_close(
        shared.values, ig.explain(net, X, target=0, baseline=own[:1]).values, atol=1e-6, rtol=0
    )
    expected = {"method": "expected", "rule": ig.rules.GaussLegendre(5), "target": 0}
    pool = ig.explain(net, DataLoader(X, batch_size=3), baseline=own, **expected)
    assert pool.weights.shape == (3, 6)  # references, which all examples share


def test_an_empty_loader_is_said_to_be_empty() -> None:
    with pytest.raises(ig.errors.InputError, match="empty"):
        ig.explain(model(), DataLoader(X[:0]), target=0)


# --- what is taken now ------------------------------------------------------------------------------------------------


def test_slices_may_go_backwards() -> None:
    result = explain()
    assert torch.equal(result[::-1].values, result.values.flip(0))
    assert torch.equal(result[4:1:-2].output, result.output[[4, 2]])
    assert len(result[3:3]) == 0


def test_groups_may_be_called_by_numbers(tmp_path: Any) -> None:
    pytest.importorskip("safetensors")
    grouped = explain(feature_names=list("abcd")).grouped({1: ["a", "b"]})  # type: ignore[dict-item]
    grouped.save(tmp_path / "a.safetensors")
    assert ig.load(tmp_path / "a.safetensors").feature_names == ("1", "c", "d")


def test_whole_numbers_are_numbers_to_a_forest() -> None:
    ensemble = pytest.importorskip("sklearn.ensemble")
    rows = (X * 9).int().numpy()
    forest = ensemble.RandomForestRegressor(3, random_state=0).fit(rows, rows[:, 0])
    result = ig.explain(forest, rows)
    assert torch.equal(result.values, ig.explain(forest, rows.astype(float)).values)
