"""Equal budgets: every method takes what was asked for or a little less, as it claims and as it is counted."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import integrand as ig
from integrand.compare.budget import claimed, fitted, tolerant
from integrand.compare.evaluate import explained

pytestmark = pytest.mark.usefixtures("quiet")
M = ig.methods


def pool(count: int = 12) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(3))


def quarters(picture: torch.Tensor) -> torch.Tensor:
    return (torch.arange(64).reshape(1, 8, 8)) // 16


METHODS: dict[str, tuple[Callable[[], Any], int]] = {
    # method, and how far below a budget of 60 it may stay
    "integrated": (lambda: M.integrated(), 0),
    "fixed": (lambda: M.integrated(rule=ig.rules.Simpson(3)), 1),
    "pieces": (lambda: M.integrated(path=ig.paths.Straight(20), rule=ig.rules.Midpoint()), 0),
    "two": (lambda: M.integrated([0.0, 1.0]), 0),
    "expected": (lambda: M.expected(pool(), draws=5), 0),
    "drawn": (lambda: M.expected(pool(), tol=0.1), 0),
    "many": (lambda: M.expected(ig.baselines.Sample(pool(200)), rule=ig.rules.Midpoint()), 0),
    "weighted": (lambda: M.weighted(pool(5)), 0),
    "scout": (lambda: M.weighted(pool(5), keep=0.25, scout=3), 4),
    "ig2": (lambda: M.ig2(pool(2)), 8),
    "published": (lambda: M.ig2(pool(1), rate=0.1), 0),
    "guided": (lambda: M.guided(), 0),
    "blur": (lambda: M.blur(3.0), 3),
    "spectral": (lambda: M.spectral(), 1),
    "relaxed": (lambda: M.relaxed(), 3),
    "nonuniform": (lambda: M.nonuniform(), 0),
    "idgi": (lambda: M.idgi(), 0),
    "decision": (lambda: M.decision(), 0),
    "path_weighted": (lambda: M.path_weighted(), 0),
    "left": (lambda: M.left(above=None), 0),
    "geometric": (lambda: M.geometric(), 0),
    "greedy_pig": (lambda: M.greedy_pig(), 0),
    "smoothgrad": (lambda: M.smoothgrad(draws=20), 0),
    "xrai": (lambda: M.xrai(segments=quarters), 0),
    "guided_relu": (
        lambda: ig.Backward(ig.fields.GuidedReLU(), M.integrated(rule=ig.rules.Midpoint(20))),
        0,
    ),
}


@pytest.fixture
def subject() -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 64, 5)
    )
    with ig.metrics.Subject.of(model, torch.randn(2, 3, 8, 8), 1) as subject:
        yield subject


@pytest.mark.parametrize("name", list(METHODS))
def test_what_is_spent(name: str, subject: Any) -> None:
    build, slack = METHODS[name]
    fit = fitted(build(), 60, subject)
    spent = explained(subject, {name: fit.method}).gradients[0]
    assert 60 - slack <= spent[0] <= 60, (fit, spent)
    assert spent[0] <= fit.gradients <= 60
    assert fit.note


@pytest.mark.parametrize("name", ["integrated", "weighted", "smoothgrad", "guided", "idgi"])
def test_claims_are_what_is_counted(name: str, subject: Any) -> None:
    fit = fitted(METHODS[name][0](), 40, subject)
    assert claimed(fit.method) == explained(subject, {name: fit.method}).gradients[0, 0] <= 40


def test_what_is_claimed_is_not_tried_out(subject: Any) -> None:
    rows: list[int] = []
    subject.field.network.module.register_forward_pre_hook(
        lambda module, args: rows.append(len(args[0]))
    )
    noises = [ig.baselines.Uniform(), ig.baselines.Blurred(), 0.0, ig.baselines.Mean(), pool(1)[0]]
    assert claimed(fitted(M.weighted(noises[:4]), 40, subject).method) == 40
    fitted(M.ig2(ig.baselines.OtherClass(pool(), 2)), 40, subject)
    assert rows == []
    assert claimed(M.boundary()) is None
    assert fitted(M.boundary(rule=ig.rules.Midpoint()), 5, subject).gradients > 5
    assert rows


def test_one_more_would_be_too_much(subject: Any) -> None:
    """What is found is the largest that fits, also where cost is only known by counting."""
    fit = fitted(M.greedy_pig(rounds=7), 60, subject)
    assert fit.method.method.rule == ig.rules.GaussLegendre(8)  # 7 · 8 ≤ 60 < 7 · 9
    assert fit.gradients == 56


def test_walks_that_end_on_arrival_are_not_lengthened_for_nothing(subject: Any) -> None:
    fit = fitted(M.adversarial(count=3, steps=12), 500, subject)
    assert fit.method.path.steps == 12
    assert fit.gradients < 500


def test_a_shorter_descent_goes_as_far(subject: Any) -> None:
    fit = fitted(M.ig2(pool(1), steps=40, rate=0.1), 21, subject)
    assert fit.method.path.steps == 20
    assert fit.method.path.rate == pytest.approx(0.2)
    assert fit.note == "20 steps, 2 times as long"


def test_what_is_too_dear_is_run_at_its_cheapest_and_says_so(subject: Any) -> None:
    fit = fitted(M.weighted(pool(8)), 5, subject)
    assert fit.gradients == 8
    assert "above the budget at its cheapest" in fit.note
    fewer = fitted(M.smoothgrad(draws=20), 8, subject)  # then the next dial is turned
    assert fewer.method.draws == 8
    with pytest.raises(ig.errors.InputError, match="at least one gradient"):
        fitted(M.blur(), 0, subject)


def test_something_else_has_nothing_to_turn(subject: Any) -> None:
    def own(field: Any, x: torch.Tensor, *, watch: Any = None) -> ig.Attribution:
        return M.integrated(rule=ig.rules.Midpoint(7))(field, x)

    fit = fitted(own, 60, subject)
    assert fit.method is own
    assert (fit.gradients, fit.note) == (7, "has nothing to turn")
    assert tolerant(own, 0.1).method is own


def test_a_method_that_fails_on_what_it_is_tried_on(subject: Any) -> None:
    def picky(field: Any, x: torch.Tensor, *, watch: Any = None) -> ig.Attribution:
        if torch.equal(x, subject.x[:1]):
            raise ig.errors.BaselineError("Not this one.")
        return M.integrated(rule=ig.rules.Midpoint(7))(field, x)

    assert fitted(picky, 60, subject, (0, 1)).gradients == 7
    hopeless = fitted(picky, 60, subject, (0,))
    assert math.isnan(hopeless.gradients)
    assert hopeless.note == "as it is: it cannot be tried out (Not this one.)"


def test_one_tolerance_for_all() -> None:
    assert tolerant(M.integrated(rule=ig.rules.Midpoint(7)), 0.1).method == M.integrated(
        rule=ig.rules.Adaptive(0.1)
    )
    kept = tolerant(M.integrated(rule=ig.rules.Adaptive(0.3, 77)), 0.1).method
    assert kept.rule == ig.rules.Adaptive(0.1, 77)
    assert tolerant(M.smoothgrad(), 0.1).method.method.rule == ig.rules.Adaptive(0.1)
    assert tolerant(M.expected(pool(), tol=0.3), 0.1).method.tol == 0.1
    left = tolerant(M.idgi(), 0.1)
    assert left.method == M.idgi()
    assert left.note == "IDGI knows no tolerance: as it is"
