"""Old names are found, and say what they are called now."""

from __future__ import annotations

import pytest
import torch

import integrand as ig
from integrand.methods.hints import formal

OLD = [
    (ig, "Distanced", "ArtificialDistancing"),
    (ig, "Greedy", "GreedyPIG"),
    (ig, "Regions", "XRAI"),
    (ig, "Sampled", "UntilTolerance"),
    (ig, "Smoothed", "SmoothGrad"),
    (ig, "Staged", "TwoStage"),
    (ig.rules, "Important", "IDGI"),
    (ig.rules, "Decision", "IntegratedDecisionGradients"),
    (ig.rules, "Weighted", "PathWeighted"),
    (ig.rules, "Until", "SaturationCutoff"),
    (ig.paths, "Salient", "SAMP"),
    (ig.paths, "Relaxed", "ElasticBand"),
    (ig.paths, "Respaced", "NonUniform"),
    (ig.paths, "Between", "Composed"),
    (ig.paths, "Backwards", "Reversed"),
    (ig.baselines, "Several", "Union"),
    (ig.baselines, "Kept", "Masked"),
    (ig.fields, "Gathered", "Subset"),
    (ig.fields, "Metered", "CountedField"),
    (ig.fields, "Several", "MultiTarget"),
    (ig.fields, "SiteField", "LayerField"),
    (ig.paths, "Step", "StepRule"),
    (ig.metrics, "Verdict", "AxiomVerdict"),
    (ig.metrics, "Result", "BatchScores"),
]


@pytest.mark.parametrize(
    ("module", "old", "new"), OLD, ids=[f"{module.__name__}.{old}" for module, old, _ in OLD]
)
def test_old_names_are_found(module: object, old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{old} is called {new} now"):
        assert getattr(module, old) is getattr(module, new)
    assert old not in dir(module)


@pytest.mark.parametrize("module", [ig, ig.rules, ig.paths], ids=lambda module: module.__name__)
def test_other_names_are_not(module: object) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        module.Nothing  # noqa: B018


METHODS = ["important", "salient", "regions", "smooth", "distanced", "greedy"]


@pytest.mark.parametrize("old", METHODS)
def test_old_names_of_methods_are_found(old: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"The method '{old}' is called '\w+' now"):
        new = ig.methods.about(old)
    with pytest.warns(DeprecationWarning, match=f"{old} is called {new.name} now"):
        assert getattr(ig.methods, old) is new.build
    assert formal(old) == new.name


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("IDGI", "idgi"),
        ("SmoothGrad", "smoothgrad"),
        ("XRAI", "xrai"),
        ("GAD", "artificial_distancing"),
        ("Left-IG", "left"),
    ],
)
def test_acronyms_are_found(typed: str, name: str) -> None:
    assert formal(typed) == name
    assert name in ig.methods.known()


def test_old_arguments_of_compare_are_taken() -> None:
    model, x = torch.nn.Linear(3, 2), torch.ones(2, 3)
    options = {"target": 0, "methods": ["integrated"], "metrics": ["sparseness"]}
    with pytest.warns(DeprecationWarning, match="reference= of compare is called compare_to= now"):
        made = ig.compare(model, x, reference="random", **options)
    assert (
        made.reference == ig.compare(model, x, compare_to="random", **options).reference == "random"
    )
    with pytest.raises(ig.errors.InputError, match="both reference= and compare_to="):
        ig.compare(model, x, reference="random", compare_to="random", **options)
    with pytest.warns(
        DeprecationWarning, match="baselines= of compare is called vary_baseline= now"
    ):
        assert ig.compare(model, x, baselines=[0.0, 1.0], **options).sensitivity is not None
