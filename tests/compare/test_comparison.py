"""``ig.compare`` and what comes out of it."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.compare.evaluate import explained
from integrand.compare.map_agreement import MapAgreement, agreement, correlation, overlap
from integrand.compare.statistics import Inference
from integrand.core.ranks import average_ranks

pytestmark = pytest.mark.usefixtures("quiet")
QUICK = Inference(draws=199)
METRICS = [ig.metrics.Deletion(steps=6), ig.metrics.Insertion(steps=6)]


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 5)
    )


@pytest.fixture
def x() -> Tensor:
    return torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def compared(
    model: Any, x: Any, methods: Any = ("integrated", "blur"), **options: Any
) -> ig.Comparison:
    defaults: dict[str, Any] = {"metrics": METRICS, "inference": QUICK, "gradients": 12}
    return ig.compare(model, x, methods=methods, **{**defaults, **options})


# --- the door ---------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_explaining_and_judging(model: nn.Module, x: Tensor) -> None:
    made = compared(model, x, target=2, controls=False)
    method = ig.methods.integrated(rule=ig.rules.GaussLegendre(12))
    found = ig.explain(model, x, target=2, method=method)
    for q, metric in enumerate(METRICS):
        expected = ig.metrics.judge(model, x, found, metric, target=2)
        np.testing.assert_allclose(made.scores.values[0, q], expected, atol=1e-6)
    assert made.scores.gradients[0].tolist() == [12] * 6
    assert made.notes == {"integrated": "fixed nodes for a tolerance, 12 nodes", "blur": "12 steps"}
    assert made.reference == "integrated"
    assert made.scores.about["gradients"] == 12


def test_controls_run_beside(model: nn.Module, x: Tensor) -> None:
    made = compared(model, x)
    assert made.scores.methods == (
        "integrated",
        "blur",
        "random",
        "edges",
        "gradient",
        "input × gradient",
    )
    assert made.scores.controls == made.scores.methods[2:]
    assert made.scores.gradients[2:, 0].tolist() == [0, 0, 1, 1]
    assert compared(model, x, controls=["gradient"]).scores.controls == ("gradient",)
    with pytest.raises(ig.errors.InputError, match="a control called 'gradient'"):
        compared(model, x, {"gradient": "blur"})


def test_blocks_of_examples_change_nothing(
    model: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(4))
    options: dict[str, Any] = {
        "methods": {"one": ig.methods.integrated(own), "many": "weighted"},
        "references": [0.0, 1.0],
        "target": torch.tensor([0, 1, 2, 3, 4, 0]),
        "vary_baseline": ["zero", "mean"],
        "metrics": [ig.metrics.Deletion(steps=6, fill=own)],
        "masks": torch.ones(6, 8, 8),
    }
    whole = compared(model, x, **options)
    monkeypatch.setattr(sys.modules["integrand.compare.api"], "_HELD_ELEMENTS", 6 * 192 * 4)
    counted: list[tuple[int, int]] = []
    blocks = compared(
        model, x, **options, progress=lambda done, total: counted.append((done, total))
    )
    np.testing.assert_allclose(blocks.scores.values, whole.scores.values, atol=1e-6)
    assert blocks.scores.examples == whole.scores.examples
    assert blocks.agreement is not None
    assert whole.agreement is not None
    np.testing.assert_allclose(blocks.agreement.ranks, whole.agreement.ranks, atol=1e-3)
    assert blocks.sensitivity is not None
    assert whole.sensitivity is not None
    np.testing.assert_allclose(blocks.sensitivity.ranks, whole.sensitivity.ranks, atol=1e-3)
    assert counted[-1] == (counted[-1][1],) * 2 == ((2 + 4 + 2) * 6,) * 2


def test_names_are_built_with_what_they_start_from(model: nn.Module, x: Tensor) -> None:
    references = torch.randn(3, 3, 8, 8)
    made = compared(
        model,
        x,
        {"a": "integrated", "b": "weighted", "c": "blur"},
        baseline=1.0,
        references=references,
        options={"c": {"sigma": 2.0}},
        gradients=None,
        tol=0.2,
    )
    said = made.scores.about["methods"]
    assert "Plain" in said["a"] or "Constant(1.0)" in said["a"]
    assert "Given(tensor<3x3x8x8>)" in said["b"]
    assert "Blur(2.0" in said["c"]
    assert made.notes["a"] == "to a tolerance of 0.2"


def test_a_field_without_a_target() -> None:
    field = ig.fields.Function(lambda z: (z**3).sum(1))
    made = ig.compare(
        field, torch.randn(4, 5), methods=["integrated"], metrics=["deletion"], controls=["random"]
    )
    assert made.scores.values.shape == (2, 1, 4)


def test_several_inputs() -> None:
    class Both(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return torch.stack([(a.sum((1, 2)) * b[:, 0]).tanh(), b.sum(1)], 1)

    made = compared(
        Both(), (torch.randn(5, 2, 2), torch.randn(5, 3)), ["integrated", "idgi"], target=0
    )
    assert not np.isnan(made.scores.values).any()
    assert made.shown == {}


def test_seeds(model: nn.Module, x: Tensor) -> None:
    first, same, other = (
        compared(model, x, ["integrated"], seed=seed).scores.of("deletion") for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, same)
    np.testing.assert_allclose(first[0], other[0], atol=1e-6)  # nothing random in it
    drawn = [
        compared(model, x, {"e": ig.methods.expected(torch.randn(50, 3, 8, 8, generator=torch.Generator().manual_seed(0)), draws=10)}, seed=seed)
        for seed in (1, 2)
    ]  # fmt: skip
    assert not np.allclose(drawn[0].scores.of("deletion")[0], drawn[1].scores.of("deletion")[0])


def test_one_example(model: nn.Module, x: Tensor) -> None:
    made = compared(model, x[:1])
    assert made.winner("deletion") is None
    assert made.verdict("deletion").words == "no winner: one example says nothing"
    row = made.table()[0]
    assert math.isnan(row["low"])
    assert "one example says nothing" in str(made)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tol": 0.1}, ig.errors.InputError, "give one of them"),
        ({"methods": []}, ig.errors.InputError, "no methods"),
        ({"methods": ["integratd"]}, ig.errors.UnknownName, "integrated"),
        (
            {"methods": ["weighted"]},
            ig.errors.InputError,
            "weighted starts from baselines: give references=",
        ),
        (
            {"methods": ["layer"], "options": {"layer": {"site": "0"}}},
            ig.errors.InputError,
            "explains a layer",
        ),
        ({"metrics": []}, ig.errors.InputError, "no metrics"),
        ({"options": {"guided": {}}}, ig.errors.UnknownName, "guided"),
        (
            {"methods": [ig.methods.blur()], "options": {"Method": {}}},
            ig.errors.UnknownName,
            "options",
        ),
        ({"compare_to": "guided"}, ig.errors.UnknownName, "compare with"),
        ({"ids": ["a"]}, ig.errors.InputError, "each of the 6 examples"),
        ({"vary_baseline": ["zero"]}, ig.errors.InputError, "at least two"),
        ({"vary_baseline": "zero"}, ig.errors.InputError, r"in a list such as .* not 'zero' alone"),
        ({"vary_baseline": torch.zeros(3)}, ig.errors.InputError, "not one Tensor alone"),
        ({"vary_baseline": 0.5}, ig.errors.InputError, "not 0.5 alone"),
        ({"vary_baseline": ["zero", "zero"]}, ig.errors.InputError, "vary_baseline= have the same"),
        ({"normalisation": "imagenet"}, ig.errors.InputError, r"Normalisation.imagenet\(\)"),
        ({"target": 7}, ig.errors.TargetError, "7"),
    ],
)
def test_what_cannot_be_compared(
    model: nn.Module, x: Tensor, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        compared(model, x, **options)


def test_the_model_is_given_back_as_it_was(model: nn.Module, x: Tensor) -> None:
    model.train()
    compared(model, x)
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


# --- the result -------------------------------------------------------------------------------------------------------


def test_the_table_is_the_statistics(model: nn.Module, x: Tensor) -> None:
    made = compared(model, x)
    rows = made.table()
    assert [(row["metric"], row["method"]) for row in rows[:2]] == [
        ("deletion", "integrated"),
        ("deletion", "blur"),
    ]
    assert len(rows) == 2 * 6
    blur = rows[1]
    own = made.scores.of("deletion")
    assert blur["mean"] == pytest.approx(own[1].mean())
    assert blur["difference"] == pytest.approx((own[1] - own[0]).mean())
    assert blur["wins"] == np.mean(own[1] < own[0])
    assert rows[0]["difference"] is None
    assert blur["gradients"] == 12
    assert blur["incomplete"] == (made.scores.gap[1] > 0.1).sum()
    assert made.against("blur").table()[0]["difference"] == pytest.approx(-blur["difference"])
    json.dumps(rows[1])


def test_it_prints(model: nn.Module, x: Tensor) -> None:
    made = compared(model, x)
    lines = str(made).splitlines()
    assert lines[0] == "deletion (lower is better), 6 examples"
    assert lines[2].startswith("integrated ")
    assert "edges (control)" in str(made)
    assert made.verdict("insertion").words == lines[-1]
    assert repr(made) == (
        "<Comparison of integrated, blur, random, edges, gradient, input × gradient by deletion, insertion on 6 examples>"
    )


def test_to_disk_and_back(model: nn.Module, x: Tensor, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    made = compared(model, x, vary_baseline=["zero", "mean"])
    made.save(tmp_path / "here", page=False)
    back = ig.Comparison.load(tmp_path / "here")
    assert str(back) == str(made)
    assert (back.reference, back.sure, back.notes) == (made.reference, made.sure, made.notes)
    assert back.agreement is not None
    assert made.agreement is not None
    np.testing.assert_allclose(back.agreement.ranks, made.agreement.ranks)
    assert back.sensitivity is not None
    assert made.sensitivity is not None
    assert back.sensitivity.alike() == made.sensitivity.alike()
    assert back.sensitivity.means("deletion") == made.sensitivity.means("deletion")
    header = json.loads((tmp_path / "here/comparison.json").read_text())
    assert header["verdicts"][0]["words"] == made.verdict("deletion").words
    with pytest.raises(ig.errors.InputError, match="no comparison"):
        ig.Comparison.load(tmp_path)


# --- agreement --------------------------------------------------------------------------------------------------------


def test_rank_correlations_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    rows = np.round(rng.normal(size=(4, 50)), 1)  # with ties
    found = correlation(average_ranks(torch.from_numpy(rows)).numpy())
    np.testing.assert_allclose(found, stats.spearmanr(rows, axis=1).statistic, atol=1e-12)
    flat = correlation(np.stack([np.ones(5), np.arange(5.0)]))
    np.testing.assert_array_equal(np.isnan(flat), [[True, True], [True, False]])


def test_the_first_features_in_common() -> None:
    scores = np.array(
        [[5.0, 4, 3, 2, 1, 0], [4, 5, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5], [1, 1, 1, 1, 1, 1]]
    )
    found = overlap(scores, 1 / 3)
    np.testing.assert_array_equal(found[:3, :3], [[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    assert np.isnan(found[3]).all()


def test_agreement_of_methods(model: nn.Module, x: Tensor) -> None:
    def reverse(field: Any, x: Tensor, *, watch: Any = None) -> ig.Attribution:
        made = ig.methods.integrated()(field, x)
        made.values.neg_()
        return made

    def lost(field: Any, x: Tensor, *, watch: Any = None) -> ig.Attribution:
        raise ig.errors.BaselineError("never")

    methods = {
        "integrated": ig.methods.integrated(),
        "again": ig.methods.integrated(),
        "reverse": reverse,
        "lost": lost,
    }
    with ig.metrics.Subject.of(model, x, 1) as subject:
        found = agreement(explained(subject, methods))
    ranks, first = found.mean()
    np.testing.assert_allclose(ranks[:3, :3], [[1, 1, -1], [1, 1, -1], [-1, -1, 1]], atol=1e-6)
    np.testing.assert_allclose(first[:2, :2], 1)
    assert (first[2, :2] == 0).all()
    assert np.isnan(ranks[3]).all()
    merged = found.merge(found)
    assert merged.ranks.shape == (4, 4, 12)
    with pytest.raises(ig.errors.InputError, match="other methods"):
        found.merge(MapAgreement(("a",), np.ones((1, 1, 2)), np.ones((1, 1, 2))))


# --- sensitivity ------------------------------------------------------------------------------------------------------


def test_sensitivity_to_the_baseline(model: nn.Module, x: Tensor) -> None:
    methods = {"integrated": "integrated", "blur": "blur", "weighted": "weighted"}
    made = compared(
        model,
        x,
        methods,
        references=[0.0, 1.0],
        vary_baseline={"zero": 0.0, "one": 1.0},
        gradients=20,
    )
    found = made.sensitivity
    assert found is not None
    assert found.methods == ("integrated", "blur")  # several baselines are not moved
    assert found.scores.methods == (
        "integrated from zero",
        "integrated from one",
        "blur from zero",
        "blur from one",
    )
    alike = found.alike()
    assert alike["integrated"] < 0.999
    assert alike["blur"] == pytest.approx(1)  # it starts from the blurred input, whatever one says
    np.testing.assert_allclose(
        found.scores.select(methods=["integrated from zero"]).values[0],
        made.scores.values[0],
        atol=1e-6,
    )
    means = found.means("insertion")["integrated"]
    assert means["zero"] == pytest.approx(made.scores.of("insertion")[0].mean(), abs=1e-6)
    assert means["one"] != means["zero"]
