"""The axioms as a tool: the straight line keeps all of them, each control breaks the ones it is known to break, and no others."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.metrics.axioms.checks import CATALOGUE
from tests.problems import filled, softplus_cnn, wave

FINE = ig.rules.GaussLegendre(12)
AXIOMS = set(CATALOGUE)
PATH_AXIOMS = {"tied features move together", "within the box", "monotone"}


def broken(given: Any, **options: Any) -> set[str]:
    return {
        verdict.axiom for verdict in ig.metrics.axioms(given, **options) if verdict.holds is False
    }


def test_the_straight_line_keeps_all() -> None:
    found = ig.metrics.axioms(ig.methods.integrated(rule=FINE))
    assert set(found.kept) == AXIOMS
    assert all(verdict.gap < 1e-6 for verdict in found)
    assert broken(ig.paths.Straight(3)) == set()


@pytest.mark.parametrize(
    "rule", [ig.rules.Adaptive(0.001), ig.rules.Simpson(40), ig.rules.Chords(60)]
)
def test_rules_err_by_less_than_the_tolerance(rule: Any) -> None:
    assert broken(ig.methods.integrated(rule=rule), tolerance=0.01) == set()


# --- controls: what breaks what -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Corner:
    """One feature after the other, in this order."""

    order: tuple[int, ...] = (0, 1, 2, 3)

    def __call__(self, field: Any, start: Tensor, end: Tensor) -> Iterator[ig.Segment]:
        at = start.expand(start.shape[0], *end.shape)
        for step, feature in enumerate(self.order):
            there = at.clone()
            there[..., feature] = end[..., feature]
            clock = torch.tensor([step, step + 1]).double() / len(self.order)
            yield ig.Segment(at[None], there[None], (clock[:1], clock[1:]))
            at = there


def corner(order: tuple[int, ...]) -> Any:
    return lambda field, x, references: (
        ig.Method(ig.baselines.Given(references[:1]), Corner(order), FINE)(field, x).values
    )


def gradient_times_input(field: Any, x: Tensor, references: Tensor) -> Tensor:
    return field.gradient(x) * x


def baseline_shapley(field: Any, x: Tensor, references: Tensor) -> Tensor:
    """All orders of the features, equally often."""
    orders = list(itertools.permutations(range(4)))
    return sum(corner(order)(field, x, references) for order in orders) / len(orders)


def signed_mixture(field: Any, x: Tensor, references: Tensor) -> Tensor:
    """2 A^γ − A^δ: complete, linear, dummy, and no average of paths."""
    return 2 * corner((0, 1, 2, 3))(field, x, references) - corner((3, 2, 1, 0))(
        field, x, references
    )


@dataclass(frozen=True)
class Eight:
    """Lerma and Lucas: around one side of the diagonal, back along it, around the other. Not tied, and symmetric all the same."""

    def __call__(self, field: Any, start: Tensor, end: Tensor) -> Iterator[ig.Segment]:
        end = end.expand_as(start)

        def at(*moved: int) -> Tensor:
            point = start.clone()
            point[..., list(moved)] = end[..., list(moved)]
            return point

        points = [start, at(0), at(0, 1), start, at(1), at(0, 1), end]
        yield ig.segments.polyline(torch.stack(points))


CONTROLS: dict[str, tuple[Any, set[str]]] = {
    "gradient × input": (
        gradient_times_input,
        {"complete", "affine scale invariant", "monomial rule"},
    ),
    "corner path": (
        Corner(),
        {
            "symmetric",
            "proportional",
            "symmetric monotonicity",
            "monomial rule",
            "permutation-equivariant",
            "tied features move together",
        },
    ),
    "Baseline-Shapley": (
        baseline_shapley,
        {"proportional", "symmetric monotonicity", "monomial rule"},
    ),
    "signed mixture": (
        signed_mixture,
        {
            "symmetric",
            "non-decreasing positivity",
            "proportional",
            "symmetric monotonicity",
            "monomial rule",
            "permutation-equivariant",
        },
    ),
    "figure of eight": (
        Eight(),
        {
            "monotone",
            "proportional",
            "symmetric monotonicity",
            "monomial rule",
            "permutation-equivariant",
        }
        | {"tied features move together"},
    ),
}


@pytest.mark.parametrize("name", list(CONTROLS))
def test_what_controls_break(name: str) -> None:
    control, expected = CONTROLS[name]
    assert broken(control) == expected


@pytest.mark.parametrize("axiom", sorted(AXIOMS))
def test_every_axiom_can_be_broken(axiom: str) -> None:
    """Somebody breaks each; what no control above does is done here."""
    others: dict[str, Any] = {
        "dummy": lambda field, x, refs: corner((0, 1, 2, 3))(field, x, refs).roll(1, 1),
        "linear": lambda field, x, refs: corner((0, 1, 2, 3))(field, x, refs).square(),
        "implementation-invariant": reads_weights,
        "within the box": ig.paths.Descent(
            lambda z: torch.stack([z.sum(1), z.square().sum(1)], 1),
            8,
            0.3,
            (-9.0, 9.0),
            step=ig.paths.Fixed(),
        ),
    }
    control = others.get(axiom) or next(c for c, axioms in CONTROLS.values() if axiom in axioms)
    assert axiom in broken(control)


def reads_weights(field: Any, x: Tensor, references: Tensor) -> Tensor:
    if not isinstance(field, ig.TorchField):
        return field.gradient(x)
    return next(iter(field.network.model.parameters())).abs().sum(0) * x


# --- methods with more than a path --------------------------------------------------------------------------------------


def test_weights_that_read_the_function_are_not_linear() -> None:
    found = ig.metrics.axioms(ig.methods.weighted([0.0, 1.0], rule=FINE, fill=0.0))
    assert found["linear"].holds is False
    assert found["complete"].holds
    assert found["dummy"].holds


def test_wrappers_get_the_references_too() -> None:
    staged = ig.methods.weighted([0.0, 1.0], rule=FINE, fill=0.0, keep=0.5, scout=4)
    plain = ig.methods.weighted([0.0, 1.0], rule=FINE, fill=0.0, keep=0.5)
    one, other = ig.metrics.axioms(staged), ig.metrics.axioms(plain)
    assert one["affine scale invariant"].gap == pytest.approx(
        other["affine scale invariant"].gap, rel=0.2, abs=1e-6
    )


def test_what_cannot_be_asked_is_said() -> None:
    found = ig.metrics.axioms(ig.methods.integrated(rule=ig.rules.Exact()))
    assert found["complete"].holds is None
    assert "no exact share" in found["complete"].why
    assert "–" in str(found)
    assert ig.metrics.axioms(gradient_times_input)["monotone"].why == "it has no path"


# --- on a model of one's own --------------------------------------------------------------------------------------------


def test_on_a_model(quiet: None) -> None:
    model, x = softplus_cnn(), wave(2, 3, 8, 8)
    found = ig.metrics.axioms(ig.methods.integrated(0.1, FINE), model, x, target=1)
    own = [verdict for verdict in found if "your model" in verdict.axiom]
    assert [verdict.holds for verdict in own] == [True] * 3
    poor = ig.metrics.axioms(ig.methods.integrated(0.1, ig.rules.Right()), model, x, target=1)
    assert not poor["complete, on your model"].holds
    assert poor["dummy, on your model"].holds


def test_the_model_is_left_as_it_was() -> None:
    model = filled(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))).train()
    ig.metrics.axioms(ig.paths.Straight(), model, wave(3, 4))
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_path_on_a_model_starts_from_zero() -> None:
    model = filled(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)))
    found = ig.metrics.axioms(Corner(), model, wave(3, 4))
    assert found["complete, on your model"].holds


# --- words --------------------------------------------------------------------------------------------------------------


def test_it_prints_as_a_table() -> None:
    text = str(ig.metrics.axioms(Corner()))
    assert text.splitlines()[0] == "Axioms of Corner(order=(0, 1, 2, 3))"
    assert "✗ symmetric" in text
    assert "off by" in text
    assert "✓ complete" in text
    assert len(text.splitlines()) == 1 + len(AXIOMS)


def test_verdicts_by_name() -> None:
    found = ig.metrics.axioms(ig.paths.Straight())
    assert found["complete"].axiom == "complete"
    with pytest.raises(
        ig.errors.UnknownName, match=r"no axiom named 'completeness'. Did you mean 'complete'"
    ):
        found["completeness"]


@pytest.mark.parametrize(
    ("given", "options", "match"),
    [
        (3, {}, "takes a method, a path"),
        (lambda z: z, {}, "takes a method, a path"),
        (
            gradient_times_input,
            {"model": nn.Linear(4, 2), "x": torch.zeros(1, 4)},
            "takes a method or a path, and inputs",
        ),
        (ig.paths.Straight(), {"model": nn.Linear(4, 2)}, "and inputs"),
    ],
)
def test_bad_questions(given: Any, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ig.errors.InputError, match=match):
        ig.metrics.axioms(given, **options)


def test_frozen_verdicts() -> None:
    verdict = ig.metrics.axioms(ig.paths.Straight())["dummy"]
    assert replace(verdict, gap=1.0) != verdict
