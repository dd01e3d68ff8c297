"""``batch_size=n`` is at most n rows in a call, whoever asks."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import integrand as ig
from integrand.errors import ModelError
from tests.catalogue import BUILD, fits
from tests.problems import PROBLEMS, Counting, Problem, relu_mlp, tanh_mlp, wave

X = wave(3, 6)
LIFTS = 2
"""Rows of the first look at a layer, which shows which axes grow with them; no fewer tell."""
RULES: dict[str, Any] = {
    "default": None,
    "chords": ig.rules.Chords(5),
    "nodes": ig.rules.GaussLegendre(4),
    "left": ig.rules.Left(),
    "trapezoid": ig.rules.Trapezoid(3),
}


def largest(p: Problem, sizes: list[int]) -> Problem:
    """The problem, its model noting the rows of every call."""
    model = copy.deepcopy(p.model)
    model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    return replace(p, model=model)


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize(
    "name", sorted(set(BUILD) - {"artificial_distancing"})
)  # which trains regressors, on batches of their own
def test_no_method_sends_more_rows(name: str, rows: int, quiet: None) -> None:
    sizes: list[int] = []
    problems = [p for p in ("relu mlp", "softplus cnn") if fits(name, PROBLEMS[p])]
    p = largest(PROBLEMS[problems[-1 if name in ("spectral", "xrai") else 0]], sizes)
    method = BUILD[name](p)
    sizes.clear()  # what a method learns before it is called is its own affair
    ig.explain(p.model, p.inputs, target=p.target, extra=p.extra, method=method, batch_size=rows)
    assert max(sizes) <= (max(rows, LIFTS) if name in ("layer", "conductance") else rows)


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
@pytest.mark.parametrize("rule", RULES)
def test_no_rule_sends_more_rows(rule: str, rows: int, quiet: None) -> None:
    model = Counting(relu_mlp())
    options = {} if RULES[rule] is None else {"rule": RULES[rule]}
    ig.explain(model, X, target=1, batch_size=rows, **options)
    assert model.largest <= rows


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_several_targets_send_no_more_rows(rows: int, quiet: None) -> None:
    """Also where they need other nodes, so that a point has several rows before it."""
    model = Counting(relu_mlp())
    ig.explain_targets(model, X, targets=[0, "predicted"], tol=0.1, batch_size=rows)
    ig.explain_targets(
        model, X, targets=[0, 1], method="guided", steps=5, rule=ig.rules.Chords(3), batch_size=rows
    )
    assert model.largest <= rows


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_the_map_is_as_good(rows: int) -> None:
    """Against a dense quadrature by autograd alone, within the tolerance that was asked for."""
    model = tanh_mlp()
    right = torch.zeros_like(X)
    for t in (torch.arange(400).double() + 0.5) / 400:
        point = (t * X).requires_grad_()
        right += X * torch.autograd.grad(model(point)[:, 1].sum(), point)[0] / 400
    made = ig.explain(model, X, target=1, tol=0.01, batch_size=rows)
    assert bool(made.converged.all())
    assert float(((made.values - right).norm(dim=1) / right.norm(dim=1)).max()) < 0.01


def test_chords_of_one_row_are_gradients_at_both_ends(quiet: None) -> None:
    """The trapezoid of end gradients, one gradient for each point and none twice."""
    model, n = Counting(relu_mlp()), 6
    made = ig.explain(model, X, target=1, rule=ig.rules.Chords(n, grade=1.0), batch_size=1)
    assert model.gradients == (n + 1) * len(X)
    points = [(t * X).requires_grad_() for t in torch.linspace(0, 1, n + 1).double()]
    slopes = [torch.autograd.grad(model.inner(point)[:, 1].sum(), point)[0] for point in points]
    right = X * sum((a + b) / 2 / n for a, b in pairwise(slopes))
    torch.testing.assert_close(made.values, right, rtol=1e-10, atol=1e-12)


def test_rows_that_are_meant_alone() -> None:
    """A model of which a row alone is meant: F(x) is that of each row alone, and nothing is warned of."""
    model = lambda z: torch.tanh(z) * torch.tanh(z).mean(0)  # noqa: E731
    x = torch.tensor([[0.5], [1.0], [2.0]], dtype=torch.float64)
    made = ig.explain(model, x, target=0, batch_size=1)
    torch.testing.assert_close(made.output, torch.tanh(x[:, 0]).square(), rtol=0, atol=1e-12)
    torch.testing.assert_close(made.values, torch.tanh(x).square(), rtol=0.05, atol=0)
    assert float(made.gap.max()) < 0.05


@pytest.mark.parametrize("method", ["integrated", "guided", "smoothgrad"])
def test_a_model_made_for_one_row(method: str, quiet: None) -> None:
    inner = tanh_mlp()

    def model(z: Tensor) -> Tensor:
        assert z.shape == (1, 6)
        out: Tensor = inner(z)
        return out

    one = ig.explain(model, X, target=1, method=method, batch_size=1)
    torch.testing.assert_close(
        one.values, ig.explain(inner, X, target=1, method=method).values, rtol=0.1, atol=0.02
    )
    with pytest.raises(ModelError, match="batch_size=1 asks about one at a time") as caught:
        ig.explain(model, X, target=1, method=method)
    assert isinstance(caught.value.__cause__, AssertionError)


def test_a_model_made_for_several_rows_is_padded_by_its_user(quiet: None) -> None:
    """As the questions page says."""
    inner, n = tanh_mlp(), 4

    def model(z: Tensor) -> Tensor:
        assert len(z) == n
        out: Tensor = inner(z)
        return out

    padded = lambda z: model(torch.cat([z, z[-1:].expand(n - len(z), *z.shape[1:])]))[: len(z)]  # noqa: E731
    made = ig.explain(padded, X, target=1, batch_size=n)
    torch.testing.assert_close(
        made.values, ig.explain(inner, X, target=1).values, rtol=0.05, atol=0.01
    )


def test_a_check_fits_a_model_made_for_as_many_rows_as_it_gets() -> None:
    """Three examples, two nodes, six rows to a call: no call holds another number, the check and that of both ends neither."""
    sizes: list[int] = []
    inner = tanh_mlp()

    def model(z: Tensor) -> Tensor:
        sizes.append(len(z))
        assert len(z) in (3, 6)
        out: Tensor = inner(z)
        return out

    baseline = wave(3, 6, phase=1)
    ig.explain(model, X, target=1, baseline=baseline, rule=ig.rules.GaussLegendre(2), batch_size=6)
    assert set(sizes) == {2, 6}  # F at the examples and at where paths begin is asked of six, too
