"""Explainers of other libraries: their numbers by brute force, and that they leave nothing behind."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import integrand as ig
from integrand.bench import names as vocabulary
from integrand.bench.peers import PermutationSHAP, TreeSHAP, global_seed
from integrand.bench.problems import ProblemOptions, problem_named
from integrand.compare.evaluate import scored

FEATURES = 4


def shapley(value: Callable[[Tensor], Tensor], x: Tensor, references: Tensor) -> Tensor:
    """Shapley values (N,) of one example: the mean over references of the marginal contributions,
    every coalition written out."""
    n = len(x)
    values = torch.zeros(n, dtype=torch.float64)
    for player in range(n):
        others = [i for i in range(n) if i != player]
        for size in range(n):
            weight = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
            for coalition in itertools.combinations(others, size):
                without, inside = references.clone(), list(coalition)
                without[:, inside] = x[inside]
                with_player = without.clone()
                with_player[:, player] = x[player]
                values[player] += weight * (value(with_player) - value(without)).mean()
    return values


def pairs(z: Tensor) -> Tensor:
    """No more than two columns in a product: permutations forward and backward are exact."""
    return z[:, 0] * z[:, 1] + z[:, 2].sin() - z[:, 3] * z[:, 0]


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(0)
    return (
        torch.randn(3, FEATURES, generator=stream).double(),
        torch.randn(6, FEATURES, generator=stream).double(),
    )


@pytest.mark.usefixtures("shap")
def test_permutations_are_shapley_values(data: tuple[Tensor, Tensor]) -> None:
    x, references = data
    peer = PermutationSHAP(ig.baselines.Sample(references))
    result = ig.explain(ig.fields.Function(pairs), x, method=peer)
    for values, example in zip(result.values, x, strict=True):
        torch.testing.assert_close(values, shapley(pairs, example, references), atol=1e-9, rtol=0)
    torch.testing.assert_close(result.change[0], pairs(x) - pairs(references).mean())
    assert float(result.gap.max()) < 1e-9
    assert result.cost.gradients == 0
    assert result.cost.values > 0


@pytest.mark.usefixtures("shap")
@pytest.mark.parametrize("kind", ["forest", "boosting", "three classes"])
def test_trees_have_their_shapley_values(kind: str) -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, FEATURES)).astype(np.float32).astype(np.float64)
    score = rows[:, 0] * rows[:, 1] + rows[:, 2]
    y = np.digitize(score, [-0.5, 0.5]) if kind == "three classes" else (score > 0).astype(int)
    model = (
        RandomForestClassifier(5, max_depth=4, random_state=0)
        if kind != "boosting"
        else HistGradientBoostingClassifier(max_iter=8, random_state=0)
    ).fit(rows, y)
    x, references = torch.from_numpy(rows[:6]), torch.from_numpy(rows[100:106])
    peer = TreeSHAP(model, ig.baselines.Sample(references))
    result = ig.explain(model, x, target="predicted", method=peer)
    classes = torch.from_numpy(model.predict(x.numpy()))
    assert len(set(classes.tolist())) > 1
    for values, example, label in zip(result.values, x, classes, strict=True):

        def value(z: Tensor, label: int = int(label)) -> Tensor:
            if kind == "boosting":
                margin = torch.from_numpy(model.decision_function(z.numpy()))
                return margin if label == 1 else -margin
            return torch.from_numpy(model.predict_proba(z.numpy())[:, label])

        torch.testing.assert_close(values, shapley(value, example, references), atol=1e-6, rtol=0)
    assert float(result.gap.max()) < 1e-5


@pytest.mark.usefixtures("shap")
def test_what_does_not_fit_is_said(data: tuple[Tensor, Tensor]) -> None:
    x, references = data
    peer = PermutationSHAP(ig.baselines.Sample(references[:, :, None]))
    with pytest.raises(ig.errors.InputError, match="rows of columns"):
        ig.explain(ig.fields.Function(lambda z: z.flatten(1).sum(1)), x[:, :, None], method=peer)
    own = TreeSHAP(None, x)  # a reference of its own for each example
    with pytest.raises(ig.errors.InputError, match="share"):
        ig.explain(ig.fields.Function(pairs), x, method=own)


def test_a_peer_that_is_not_installed_costs_its_own_row_alone(
    data: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "shap", None)
    x, references = data
    words = {"several": ig.baselines.Sample(references)}
    methods = {
        "IG": vocabulary.method("integrated(0.0)", words),
        "SHAP": vocabulary.method("PermutationSHAP(several)", words),
    }
    with ig.metrics.Subject.of(ig.fields.Function(pairs), x) as subject:
        scores = scored(subject, methods, ["completeness_gap"])
    assert bool(np.isfinite(scores.values[0]).all())
    assert bool(np.isnan(scores.values[1]).all())
    assert {name for name, _ in scores.reasons} == {"SHAP"}
    assert all("integrand[shap]" in reason for reason in scores.reasons.values())


def test_global_generators_are_seeded_inside_and_given_back() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    drawn: list[tuple[Tensor, np.ndarray]] = []

    def draw() -> None:
        with global_seed(3):
            drawn.append((torch.rand(2), np.random.rand(2)))
            raise ValueError("inside")

    for _ in range(2):
        with pytest.raises(ValueError, match="inside"):
            draw()
    assert torch.equal(drawn[0][0], drawn[1][0])
    assert np.array_equal(drawn[0][1], drawn[1][1])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


def test_captums_map_of_edges_is_ours(tmp_path: Path) -> None:
    """PyG's Captum explainer masks messages; ours weighs them. The integral is the same."""
    pytest.importorskip("torch_geometric")
    problem = problem_named("motif_graphs")(ProblemOptions(None, tmp_path), train=20, epochs=1)
    examples = problem.load([0])
    ours = vocabulary.method("integrated(one, rule=GaussLegendre(64))", problem.words)
    captum = examples.words["CaptumIG"]()
    again = examples.words["GNNExplainer"](epochs=4)
    before = torch.get_rng_state()
    with problem.subject_of(examples) as subject:
        expected = ours(subject.field, subject.x).values
        found = captum(subject.field, subject.x)
        masks = [again(subject.field, subject.x).values for _ in range(2)]
    scale = float(expected.abs().max())
    assert float((found.values - expected).abs().max()) < 0.05 * scale
    assert torch.equal(masks[0], masks[1])
    assert masks[0].shape == expected.shape
    assert bool(((masks[0] >= 0) & (masks[0] <= 1)).all())
    assert torch.equal(torch.get_rng_state(), before)
    assert all(not parameter.requires_grad for parameter in problem.model.parameters())
