"""Whether maps are meant to add up: what results say is what the cards say, and nobody is blamed for what he did not claim."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

import integrand as ig
from integrand.integration.attribution import as_explainer
from integrand.report import fragment
from integrand.report.formatting import headline, incomplete
from integrand.report.views import summary
from tests.catalogue import BUILD, fits
from tests.problems import PROBLEMS

OTHER_CHANGE = {"sequential"}
"""Not complete for F(x) − F(b), but their results hold them against the change that they are complete for."""


def built(name: str) -> Any:
    if name in ("layer", "conductance", "region_neurons"):
        return getattr(ig.methods, name)("features.3")
    if name == "gaussian_process":
        return ig.methods.gaussian_process()
    if name == "graph":
        return ig.methods.graph(torch.tensor([[0], [1]]), node=0)
    if name == "pattern_guided":
        return ig.methods.pattern_guided(
            ig.fields.Patterns.fit(torch.nn.Linear(3, 2), torch.ones(3, 3))
        )
    problem = next(p for key in ("softplus cnn", "t6") if fits(name, p := PROBLEMS[key]))
    return BUILD[name](problem)


@pytest.mark.parametrize("name", list(ig.methods.known()))
def test_methods_claim_what_their_cards_say(name: str) -> None:
    assert as_explainer(built(name)).complete == (
        ig.methods.about(name).axioms["complete"] or name in OTHER_CHANGE
    )


@pytest.mark.parametrize(
    ("method", "claimed"),
    [
        (ig.methods.expected(torch.zeros(4, 2), draws=8), True),
        (ig.methods.expected(torch.zeros(4, 2), tol=0.1), True),
        (ig.methods.weighted(["black", "white"], keep=0.5, scout=2), True),
        (ig.Method(rule=ig.rules.Rescaled(ig.rules.IntegratedDecisionGradients())), True),
        (ig.XRAI(ig.methods.integrated(), channels="sum"), True),
        (ig.XRAI(ig.methods.decision(), channels="sum"), False),
        (
            ig.TwoStage(ig.Method(rule=ig.rules.IntegratedDecisionGradients()), ig.rules.Left()),
            False,
        ),
        ("a name", True),
        (None, True),
    ],
    ids=str,
)
def test_wrappers_claim_what_they_wrap_does(method: Any, claimed: bool) -> None:
    assert as_explainer(method).complete is claimed


@pytest.fixture(scope="module")
def squared() -> ig.Attribution:
    """Integrated Decision Gradients, in squared units of F: far from adding up."""
    return ig.explain(
        lambda z: 3 * z.sum(1),
        torch.ones(2, 4),
        target=ig.targets.Output(),
        method="decision",
        steps=4,
        pilot=4,
    )


def test_what_is_not_claimed_is_not_marked(squared: ig.Attribution) -> None:
    assert float(squared.gap.min()) > 1
    assert not incomplete(squared, 0)
    assert "adds up: not claimed" in repr(squared)
    assert "adds up: not claimed" in headline(squared, 0)
    shown = fragment(squared)
    assert "not claimed" in shown
    assert "incomplete" not in shown
    row = summary("decision", "IDG", squared)
    assert (row.residual, row.gap, row.claimed, row.incomplete) == (
        "–",
        "not claimed",
        False,
        False,
    )


def test_the_same_numbers_of_a_method_that_claims_are_marked(squared: ig.Attribution) -> None:
    blamed = dataclasses.replace(squared, method=ig.methods.integrated())
    assert incomplete(blamed, 0)
    assert "▲ incomplete" in headline(blamed, 0)
    assert "▲ incomplete" in fragment(blamed)
    assert summary("integrated", "IG", blamed).incomplete


def test_files_remember_it(squared: ig.Attribution, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    for made, claimed in (
        (squared, False),
        (dataclasses.replace(squared, method=ig.methods.integrated()), True),
    ):
        made.save(tmp_path / "map.safetensors")
        found = ig.load(tmp_path / "map.safetensors")
        assert found.claims_completeness is claimed
        assert repr(found.method) == repr(made.method)
