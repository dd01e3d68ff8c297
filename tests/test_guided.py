"""Greedy paths: Guided IG against its published numbers and its definition, slowly; SAMP, Composed, Reversed."""

from __future__ import annotations

import ast
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import integrand as ig
from integrand import testing
from integrand.core.segment import Evaluation
from integrand.integration import gradients_per_row
from integrand.model.row_independence import ROWS
from tests.problems import (
    PROBLEMS,
    T6_INPUT,
    Counting,
    filled,
    img,
    img_input,
    relu_mlp,
    t6,
    tanh_mlp,
    wave,
)
from tests.test_references import PATHS as PUBLISHED

Gradient = Callable[[Tensor], Tensor]


def gradient_of(f: Callable[[Tensor], Tensor]) -> Gradient:
    """∇F of a function of rows, at one point (n,)."""

    def gradient(z: Tensor) -> Tensor:
        leaf = z[None].clone().requires_grad_()
        return torch.autograd.grad(f(leaf).sum(), leaf)[0][0]

    return gradient


# --- the definitions, slowly ------------------------------------------------------------------------------------------


def guided_by_hand(
    gradient: Gradient, x: Tensor, b: Tensor, steps: int, fraction: float, stray: float
) -> tuple[Tensor, Tensor]:
    """One example, coordinate by coordinate, in the input's own units: (corners (K+1, n), map (n,))."""
    n = len(x)
    way, p, a = x - b, b.clone(), torch.zeros_like(x)
    whole = float(way.abs().sum())
    corners = [p.clone()]
    for k in range(1, steps + 1):
        g = gradient(p)
        low, high = max(k / steps - stray, 0.0), min(k / steps + stray, 1.0)
        floor, ceiling = b + low * way, b + high * way
        rank = [abs(float(v)) for v in g]
        target = whole * (1 - k / steps)
        gamma = math.inf
        while gamma > 1:
            old = p.clone()
            for i in range(n):
                if way[i] != 0 and (p[i] - b[i]) / way[i] < low:
                    p[i] = floor[i]
            rest = float((p - x).abs().sum())
            if math.isclose(rest, target, rel_tol=1e-9, abs_tol=1e-9):
                a += (p - old) * g
                break
            for i in range(n):
                if p[i] == ceiling[i]:
                    rank[i] = math.inf
            limit = sorted(rank)[math.floor(fraction * (n - 1))]
            chosen = [i for i in range(n) if rank[i] <= limit and rank[i] < math.inf]
            room = sum(abs(float(ceiling[i] - p[i])) for i in chosen)
            gamma = (rest - target) / room if room > 0 else math.inf
            for i in chosen:
                p[i] = ceiling[i] if gamma > 1 else p[i] + gamma * (ceiling[i] - p[i])
            a += (p - old) * g
        corners.append(p.clone())
    return torch.stack(corners), a


def salient_by_hand(
    gradient: Gradient, x: Tensor, b: Tensor, steps: int, fraction: float, sign: float, tie: float
) -> Tensor:
    """One example: the corners (K+1, n). ``sign`` +1 raises F first, −1 lowers it first."""
    n = len(x)
    there = [bool(x[i] == b[i]) for i in range(n)]
    p = b.clone()
    each = float((x - b).abs().sum()) / steps
    corners = [p.clone()]
    for _ in range(steps):
        merit = sign * gradient(p) * (x - p)
        rest = each
        moved = list(there)
        while rest > 1e-12 and not all(moved):
            open_ = sorted((float(merit[i]) for i in range(n) if not moved[i]), reverse=True)
            limit = open_[min(math.floor(fraction * (n - 1)), len(open_) - 1)]
            chosen = [
                i for i in range(n) if not moved[i] and float(merit[i]) >= limit - tie * abs(limit)
            ]
            room = sum(abs(float(x[i] - p[i])) for i in chosen)
            part = min(rest / room, 1.0)
            for i in chosen:
                moved[i] = True
                if part == 1.0:
                    p[i], there[i] = x[i], True
                else:
                    p[i] = p[i] + part * (x[i] - p[i])
            rest -= part * room
        corners.append(p.clone())
    return torch.stack(corners)


def corners_of(path: Any, f: Any, x: Tensor, b: Tensor) -> Tensor:
    """(K+1, B, n) from one reference each."""
    return ig.paths.corners(path, ig.fields.Function(f), b[None], x)[1][:, 0]


def fine(path: Any, steps_rule: Any = ig.rules.GaussLegendre(8)) -> Any:
    return ig.Method(ig.baselines.Constant(0.0), path, steps_rule)


# --- published numbers ------------------------------------------------------------------------------------------------

OFFICIAL = {
    ast.literal_eval(name.removeprefix("GIG ")): case
    for name, case in PUBLISHED.items()
    if name.startswith("GIG ")
}


def test_all_five_are_here() -> None:
    assert len(OFFICIAL) == 5


@pytest.mark.parametrize("settings", list(OFFICIAL), ids=str)
def test_the_published_numbers(settings: tuple[int, float, float], quiet: None) -> None:
    """The authors' own code on T6, to rounding."""
    steps, fraction, stray = settings
    method = ig.methods.guided(0.0, steps, fraction, stray, rule=ig.rules.Left())
    made = ig.explain(t6, T6_INPUT, target=ig.targets.Output(), method=method)
    official = torch.tensor(OFFICIAL[settings]["official"], dtype=torch.float64)
    torch.testing.assert_close(made.values[0], official, rtol=0, atol=1e-12)
    assert made.cost.gradients == steps


@pytest.mark.parametrize("settings", list(OFFICIAL), ids=str)
def test_the_published_numbers_by_hand(settings: tuple[int, float, float]) -> None:
    """So that what the other tests hold the path against is the published definition."""
    _, values = guided_by_hand(gradient_of(t6), T6_INPUT[0], torch.zeros(6).double(), *settings)
    official = torch.tensor(OFFICIAL[settings]["official"], dtype=torch.float64)
    torch.testing.assert_close(values, official, rtol=0, atol=1e-12)


def test_the_defaults_are_published() -> None:
    """But for the rule: see docs/design/0006-guided-rule.md."""
    assert ig.methods.guided() == ig.Method(
        path=ig.paths.Guided(200, 0.25, 0.02), rule=ig.rules.Trapezoid()
    )


# --- the unit tests of the official suite -----------------------------------------------------------------------------


def explained(f: Any, x: list[float], b: list[float], **options: Any) -> Tensor:
    options = {"rule": ig.rules.Left()} | options
    method = ig.methods.guided(torch.tensor(b, dtype=torch.float64), **options)
    return method(ig.fields.Function(f), torch.tensor([x], dtype=torch.float64)).values[0]


def squared(z: Tensor) -> Tensor:
    return (2 * z[:, 0] + z[:, 1]) ** 2


def test_a_linear_function() -> None:
    found = explained(lambda z: 2 * z[:, 0] + z[:, 1], [10, 5], [-1, -3], steps=200)
    torch.testing.assert_close(found, torch.tensor([22.0, 8.0]).double(), rtol=0, atol=1e-12)


def test_the_square_of_a_sum() -> None:
    straight = ig.methods.integrated(rule=ig.rules.Midpoint(100))(
        ig.fields.Function(squared), torch.full((1, 2), 3.0).double()
    )
    torch.testing.assert_close(
        straight.values[0], torch.tensor([54.0, 27.0]).double(), rtol=1e-10, atol=0
    )
    free = explained(squared, [3, 3], [0, 0], steps=1000, fraction=0.1, stray=1.0)
    torch.testing.assert_close(free, torch.tensor([72.0, 9.0]).double(), rtol=1e-2, atol=0)
    bounded = explained(squared, [3, 3], [0, 0], steps=1000, fraction=0.1, stray=0.2)
    assert float(bounded.sum()) == pytest.approx(81, rel=1e-2)
    assert 55 < float(bounded[0]) < 71


# --- the definition on other problems ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stray", [0.0, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("fraction", [0.01, 0.25, 0.6, 1.0])
@pytest.mark.parametrize("steps", [1, 7, 20])
def test_the_corners_are_those_of_the_definition(steps: int, fraction: float, stray: float) -> None:
    """48 features of a smooth network and 6 of one with kinks; some have no way to go."""
    blank = torch.full((1, 3, 4, 4), 0.4).double()
    x = img_input()
    x[0, 1, 2] = 0.4
    flat = lambda z: img(z.reshape(-1, 3, 4, 4))[:, 0]  # noqa: E731
    kinked, picture = relu_mlp(), wave(1, 6, phase=0.3)
    for f, end, start in (
        (flat, x.flatten(1), blank.flatten(1)),
        (lambda z: kinked(z)[:, 0], picture, 0.2 - picture),
    ):
        found = corners_of(ig.paths.Guided(steps, fraction, stray), f, end, start)[:, 0]
        expected, _ = guided_by_hand(gradient_of(f), end[0], start[0], steps, fraction, stray)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("first", ["highest", "lowest"])
def test_salient_corners_are_those_of_the_definition(first: str, fraction: float) -> None:
    x, start = img_input().flatten(1), torch.full((1, 48), 0.4).double()
    x[0, 20:24] = 0.4
    f = lambda z: img(z.reshape(-1, 3, 4, 4))[:, 0]  # noqa: E731
    sign = {"highest": 1.0, "lowest": -1.0}[first]
    for tie in (0.0, 1e-6, 0.3):
        found = corners_of(ig.paths.SAMP(11, fraction, first, tie), f, x, start)[:, 0]
        expected = salient_by_hand(gradient_of(f), x[0], start[0], 11, fraction, sign, tie)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_salient_rises_sooner_and_guided_later(quiet: None) -> None:
    """What the two are for: F along the way, against the straight line; and the lowest first falls."""
    x, start = torch.cat([T6_INPUT, wave(4, 6, phase=0.3)]), torch.zeros(5, 6).double()

    def area(path: Any) -> Tensor:
        points = corners_of(path, t6, x, start)
        return torch.stack([t6(p) for p in points]).mean(0)

    straight = area(ig.paths.Straight(40))
    assert bool((area(ig.paths.SAMP(40, 0.1)) > straight).all())
    assert bool((area(ig.paths.SAMP(40, 0.1, "lowest")) < straight).all())


def test_backwards_takes_away_what_counts_first(quiet: None) -> None:
    """Deletion: from the input to the baseline, by hand, the other way round."""
    x, start = img_input().flatten(1), torch.full((1, 48), 0.4).double()
    f = lambda z: img(z.reshape(-1, 3, 4, 4))[:, 0]  # noqa: E731
    method = ig.methods.samp(start, 11, 0.1, walk="deletion")
    expected = salient_by_hand(gradient_of(f), start[0], x[0], 11, 0.1, -1.0, 1e-6)
    found = corners_of(method.path, f, x, start)[:, 0]
    torch.testing.assert_close(found, expected.flip(0), rtol=0, atol=1e-12)
    # As published: minus the sum of step ⊙ gradient where the step begins.
    gradient = gradient_of(f)
    deleted = sum((p - o) * gradient(o) for o, p in itertools.pairwise(expected))
    made = method(ig.fields.Function(f), x)
    torch.testing.assert_close(made.values[0], -deleted, rtol=0, atol=1e-12)
    assert made.cost.gradients == 11


@pytest.mark.parametrize("stray", [0.05, 1.0])
def test_float32_models_are_walked_in_float64(stray: float) -> None:
    """As the published code does: else one rounded place makes another path, and soon another map."""
    model = filled(
        torch.nn.Sequential(torch.nn.Linear(40, 30), torch.nn.Tanh(), torch.nn.Linear(30, 3))
    ).float()
    f = lambda z: model(z)[:, 0]  # noqa: E731
    x, start = wave(5, 40, phase=0.3).float(), wave(5, 40, phase=2).float()
    found = corners_of(ig.paths.Guided(40, 0.1, stray), f, x, start)
    assert found.dtype == torch.float32
    gradient = gradient_of(f)
    for b in range(5):
        alone = corners_of(ig.paths.Guided(40, 0.1, stray), f, x[b : b + 1], start[b : b + 1])[:, 0]
        torch.testing.assert_close(alone, found[:, b], rtol=0, atol=2e-6)
        single = lambda z: gradient(z.float()).double()  # noqa: E731
        expected, _ = guided_by_hand(single, x[b].double(), start[b].double(), 40, 0.1, stray)
        torch.testing.assert_close(alone.double(), expected, rtol=0, atol=1e-6)


# --- properties -------------------------------------------------------------------------------------------------------


def test_without_stray_it_is_the_left_rule(quiet: None) -> None:
    """δ = 0: K gradients on the straight line."""
    for problem in ("t6", "relu mlp", "softplus cnn"):
        p = PROBLEMS[problem]
        field, x, baseline = p.field(), p.packed(), ig.baselines.Given(p.references)
        found = ig.Method(baseline, ig.paths.Guided(17, stray=0.0), ig.rules.Left())(field, x)
        expected = ig.methods.integrated(baseline, ig.rules.Left(17))(field, x)
        torch.testing.assert_close(found.values, expected.values, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "path", [ig.paths.Guided(30, stray=1.0), ig.paths.Guided(30, 0.1, 0.1), ig.paths.SAMP(30)]
)
def test_symmetric_features_move_together(path: Any) -> None:
    """F = x₁x₂: equal shares, though a group is one coordinate."""
    f = lambda z: z[:, 0] * z[:, 1] + 0.1 * z[:, 2]  # noqa: E731
    x = torch.tensor([[3.0, 3.0, 1.0]]).double()
    points = corners_of(path, f, x, torch.zeros(1, 3).double())[:, 0]
    assert torch.equal(points[:, 0], points[:, 1])
    values = fine(path)(ig.fields.Function(f), x).values[0]
    torch.testing.assert_close(
        values, torch.tensor([4.5, 4.5, 0.1], dtype=torch.float64), rtol=0, atol=1e-12
    )


def test_ties_within_rounding_are_ties_for_salient() -> None:
    """The tolerance is relative: gradients of 1e-9 are told apart as gradients of 1 are."""
    x = torch.ones(1, 4).double()
    weight = torch.tensor([1.0, 1.0 + 1e-9, 0.4, 0.3], dtype=torch.float64)
    for scale in (1.0, 1e-9, 1e9):
        points = corners_of(
            ig.paths.SAMP(4), lambda z, c=scale: z @ (c * weight), x, torch.zeros(1, 4).double()
        )[:, 0]
        torch.testing.assert_close(
            points[1:4].T,
            torch.tensor([[0.5, 1, 1], [0.5, 1, 1], [0, 0, 1], [0, 0, 0]]).double(),
            rtol=0,
            atol=1e-12,
        )
    strict = corners_of(
        ig.paths.SAMP(4, tie=0.0), lambda z: z @ weight, x, torch.zeros(1, 4).double()
    )[:, 0]
    assert strict[1].tolist() == pytest.approx([0, 1, 0, 0])


@pytest.mark.parametrize("unit", [1e-12, 1e-3, 1e6])
@pytest.mark.parametrize(
    "path", [ig.paths.Guided(12), ig.paths.Guided(12, 0.1, 1.0), ig.paths.SAMP(12, 0.1)]
)
def test_units_do_not_matter(path: Any, unit: float) -> None:
    """The published code compares distances to 1e-9 absolutely; here inputs of any size are walked alike."""
    x, start = wave(3, 6, phase=0.3), wave(3, 6, phase=2)
    whole = corners_of(path, t6, x, start)
    small = corners_of(path, lambda z: t6(z / unit), unit * x, unit * start)
    torch.testing.assert_close(small / unit, whole, rtol=0, atol=1e-11)


@given(
    steps=st.integers(1, 12),
    fraction=st.floats(0.001, 1),
    stray=st.floats(0, 1),
    shape=st.sampled_from([(1,), (7,), (2, 3, 3)]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    phase=st.floats(0, 6),
)
def test_every_step_covers_its_part_of_the_way(
    steps: int,
    fraction: float,
    stray: float,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    phase: float,
) -> None:
    """Monotone, in the box, in the band; a K-th of the L1 distance each; from the reference to the input exactly."""
    x, start = wave(2, *shape, phase=phase).to(dtype), wave(2, *shape, phase=phase + 2).to(dtype)
    weight = wave(math.prod(shape), phase=phase + 1).to(dtype)
    f = lambda z: torch.tanh(z.flatten(1) @ weight) + z.flatten(1).sin().sum(1)  # noqa: E731
    loose = 1e-12 if dtype == torch.float64 else 1e-5
    for path, bound in (
        (ig.paths.Guided(steps, fraction, stray), stray),
        (ig.paths.SAMP(steps, fraction), 1.0),
    ):
        points = corners_of(path, f, x, start).flatten(2)
        way = (x - start).flatten(1)
        assert torch.equal(points[0], start.flatten(1))
        assert torch.equal(points[-1], x.flatten(1))
        along = (points - points[0]) * way.sign()
        assert bool((along.diff(dim=0) >= -loose).all())
        assert bool(((along >= -loose) & (along <= way.abs() + loose)).all())
        clock = (torch.arange(steps + 1).double() / steps).to(dtype)[:, None, None]
        assert bool(((along - clock * way.abs()).abs() <= bound * way.abs() + loose).all())
        left = (points[-1] - points).abs().sum(2)
        expected = (1 - clock[..., 0]) * way.abs().sum(1)
        torch.testing.assert_close(
            left, expected, rtol=0, atol=10 * loose * max(1.0, float(left.max()))
        )


def test_a_dummy_moves_first_and_gets_nothing(quiet: None) -> None:
    f = lambda z: z[:, 0] ** 2 * z[:, 1]  # noqa: E731
    x = torch.ones(1, 3).double()
    path = ig.paths.Guided(9, stray=1.0)
    points = corners_of(path, f, x, torch.full((1, 3), 0.5).double())[:, 0]
    assert points[1].tolist() == pytest.approx([0.5, 0.5, 0.5 + 0.5 * 3 / 9])
    made = ig.Method(ig.baselines.Constant(0.5), path, ig.rules.Left())(ig.fields.Function(f), x)
    assert float(made.values[0, 2]) == 0


@pytest.mark.parametrize("rule", [ig.rules.GaussLegendre(8), ig.rules.Adaptive(1e-4)])
def test_complete_to_what_the_rule_says(rule: Any) -> None:
    """The path is the same for every rule, and the published one errs like 1/K."""
    x = torch.cat([T6_INPUT, wave(4, 6, phase=0.3)])
    field = ig.fields.Function(t6)
    made = ig.methods.guided(steps=50, rule=rule)(field, x)
    torch.testing.assert_close(
        made.residual, torch.zeros(5).double(), rtol=0, atol=1e-4 if rule != FINE else 1e-9
    )
    rough, better = (
        float(ig.methods.guided(steps=steps, rule=ig.rules.Left())(field, T6_INPUT).residual.abs())
        for steps in (50, 200)
    )
    assert 3.5 < rough / better < 4.5
    assert rough == pytest.approx(1.7916 - 1.7453, abs=1e-4)


FINE = ig.rules.GaussLegendre(8)


def test_adaptive_uses_what_the_walk_has_paid_for() -> None:
    """Both ends of every step are known but the last, where F is asked once; nodes go between."""
    model = Counting(tanh_mlp())
    x = wave(3, 6, phase=0.3)
    made = ig.methods.guided(steps=20, rule=ig.rules.Adaptive(0.5))(ig.TorchField(model, 1), x)
    assert model.gradients == made.cost.gradients == 3 * (20 + 1 + 20)
    assert bool(made.converged.all())
    assert bool((made.error < 0.5).all())
    assert (
        model.values == ROWS
    )  # of the check; F at the baseline and at the input came with the gradients


def test_what_simpson_costs_and_is_worth(quiet: None) -> None:
    x, field = wave(3, 6, phase=0.3), ig.TorchField(tanh_mlp(), 1)
    exact = ig.methods.guided(steps=20, rule=ig.rules.GaussLegendre(12))(field, x).values
    costs, errors = [], []
    for rule in (ig.rules.Left(), ig.rules.Trapezoid(), ig.rules.Simpson()):
        made = ig.methods.guided(steps=20, rule=rule)(field, x)
        costs.append(made.cost.gradients // 3)
        errors.append(float((made.values - exact).norm() / exact.norm()))
    assert costs == [20, 21, 41]
    assert errors[0] > 5 * errors[1] > 25 * errors[2]


def test_a_batch_is_its_examples(quiet: None) -> None:
    """Rows that are done wait; some have nothing to do at all."""
    x = wave(8, 6, phase=0.3)
    start = wave(2, 8, 6, phase=2)
    start[0, 3] = x[3]
    start[1, 5, :4] = x[5, :4]
    field = ig.TorchField(relu_mlp(), torch.arange(8) % 3)
    for path in (
        ig.paths.Guided(9, 0.3, 0.2),
        ig.paths.SAMP(9),
        ig.paths.Composed(ig.paths.Guided(9), 2),
    ):
        method = ig.Method(ig.baselines.Given(start), path, ig.rules.Left(), record=("shares",))
        whole = method(field, x)
        assert bool((whole.shares[0, 3] == 0).all())
        for r, b in itertools.product(range(2), range(8)):
            one = ig.Method(ig.baselines.Given(start[r : r + 1, b : b + 1]), path, ig.rules.Left())
            alone = one(field.at(torch.tensor([b])), x[b : b + 1])
            torch.testing.assert_close(alone.values[0], whole.shares[r, b], rtol=0, atol=1e-13)


def test_nothing_to_walk() -> None:
    """A baseline that is the input: no way, no share, no endless search."""
    x = wave(2, 4)
    made = ig.methods.guided(x.clone(), steps=5)(ig.fields.Function(lambda z: z.sum(1)), x)
    assert bool((made.values == 0).all())


def test_a_flat_model() -> None:
    """All gradients zero: all coordinates tie, and the path is the straight line."""
    x, start = wave(2, 5), wave(2, 5, phase=2)
    points = corners_of(ig.paths.Guided(6, 0.2, 1.0), lambda z: 0 * z.sum(1), x, start)
    for k in range(7):
        torch.testing.assert_close(points[k], start + k / 6 * (x - start), rtol=0, atol=1e-13)


def test_selection_without_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other devices select with torch; the numbers are the same."""
    from integrand.paths import greedy_step as cheapest

    numbers = wave(3, 50)
    numbers[1, 10:] = torch.inf
    for k in (1, 7, 50):
        found = cheapest._smallest(numbers, k)
        assert found.shape == (3, 1)
        torch.testing.assert_close(found, numbers.sort(1).values[:, k - 1 : k], rtol=0, atol=0)
        torch.testing.assert_close(found, cheapest._selected(numbers, k), rtol=0, atol=0)


# --- Between ----------------------------------------------------------------------------------------------------------


def test_between_is_the_path_from_anchor_to_anchor() -> None:
    """The research's recipe: guided_ig from b + j/(m+1) Δ to b + (j+1)/(m+1) Δ, unbounded, K/(m+1) steps each."""
    x, start = wave(3, 6, phase=0.3), wave(2, 3, 6, phase=2)
    field = ig.fields.Function(t6)
    clock, found = ig.paths.corners(
        ig.paths.Composed(ig.paths.Guided(12, stray=1.0), 3), field, start, x
    )
    torch.testing.assert_close(clock, torch.arange(13).double() / 12)
    for r, b in itertools.product(range(2), range(3)):
        way = x[b] - start[r, b]
        for j in range(4):
            low, high = start[r, b] + j / 4 * way, start[r, b] + (j + 1) / 4 * way
            expected, _ = guided_by_hand(gradient_of(t6), high, low, 3, 0.25, 1.0)
            torch.testing.assert_close(found[3 * j : 3 * j + 4, r, b], expected, rtol=0, atol=1e-12)


def test_steps_are_divided_evenly() -> None:
    path = ig.paths.Composed(ig.paths.Guided(50, stray=1.0), 20)
    assert (path.segments, path.gradients, path.unpaid) == (50, 50, (1.0,))
    counts = [stretch.steps for stretch in path._stretches()]
    assert len(counts) == 21
    assert set(counts) == {2, 3}
    assert ig.paths.Composed(ig.paths.Straight(50), 20).gradients == 0


def test_no_anchors_is_the_path_itself() -> None:
    x, start = wave(3, 6, phase=0.3), wave(2, 3, 6, phase=2)
    field = ig.fields.Function(t6)
    for path in (ig.paths.Guided(7), ig.paths.Straight(5)):
        one = ig.paths.corners(ig.paths.Composed(path, 0), field, start, x)
        for a, b in zip(one, ig.paths.corners(path, field, start, x), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-14)


def test_many_anchors_lead_to_the_straight_line(quiet: None) -> None:
    x = torch.cat([T6_INPUT, wave(4, 6, phase=0.3)])
    field = ig.fields.Function(t6)
    straight = ig.methods.integrated(rule=ig.rules.GaussLegendre(40))(field, x).values
    gaps = [
        float(
            (
                ig.methods.guided(steps=200, anchors=m, rule=ig.rules.Simpson())(field, x).values
                - straight
            ).norm()
        )
        for m in (1, 10, 99)
    ]
    assert gaps[0] > 4 * gaps[1] > 16 * gaps[2]


class Stacked:
    """An open-loop path of somebody's own, three pieces, that counts nothing."""

    def __call__(self, field: Any, start: Tensor, end: Tensor) -> Any:
        assert end.shape == start.shape[1:]
        bent = torch.stack([start, start + 0.2, end - 0.1 * start, end.expand_as(start)])
        yield ig.segments.polyline(bent)


def test_between_takes_any_path() -> None:
    testing.check_path(ig.paths.Composed(Stacked(), 2))
    testing.check_path(ig.paths.Reversed(Stacked()))
    testing.check_path(ig.paths.Reversed(ig.paths.Composed(ig.paths.Guided(5), 2)))
    testing.check_path(ig.paths.Composed(ig.paths.Reversed(ig.paths.Guided(3)), 2))
    assert (
        ig.paths.Composed(Stacked(), 2).segments is None
    )  # nine, as it happens: one that counts nothing is not known


def test_anchors_of_a_method() -> None:
    assert ig.methods.guided(anchors=20).path == ig.paths.Composed(ig.paths.Guided(stray=1.0), 20)
    assert ig.methods.guided(stray=0.1, anchors=3).path == ig.paths.Composed(
        ig.paths.Guided(stray=0.1), 3
    )


def test_evaluations_are_shared_at_anchors() -> None:
    """What the next stretch sees where it begins is known to the last piece of the one before."""
    field = ig.fields.Function(t6)
    x, start = wave(3, 6, phase=0.3), wave(2, 3, 6, phase=2)
    segments = list(ig.paths.Composed(ig.paths.Guided(6, stray=1.0), 2)(field, start, x))
    assert [segment.at_end is None for segment in segments] == [False] * 5 + [True]
    for one, other in itertools.pairwise(segments):
        assert isinstance(one.at_end, Evaluation)
        assert torch.equal(one.at_end.gradient, other.at_start.gradient)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ig.paths.Guided(0), "at least one step, not 0"),
        (lambda: ig.paths.SAMP(0), "at least one step, not 0"),
        (
            lambda: ig.paths.Guided(fraction=0.0),
            "fraction is a fraction of the coordinates, above 0 and at most 1, not 0.0",
        ),
        (lambda: ig.paths.SAMP(fraction=1.5), "fraction is .* not 1.5"),
        (
            lambda: ig.paths.Guided(stray=-0.1),
            r"between 0 \(the straight line\) and 1 \(no bound\), not -0.1",
        ),
        (lambda: ig.paths.Guided(stray=2), "stray is .* not 2"),
        (lambda: ig.paths.SAMP(first="best"), "first is one of 'highest', 'lowest', not 'best'"),
        (
            lambda: ig.paths.SAMP(tie=1.0),
            "tie is a relative distance, at least 0 and below 1, not 1.0",
        ),
        (lambda: ig.paths.Composed(ig.paths.Straight(3), -1), "no fewer than 0 anchors, not -1"),
        (lambda: ig.methods.guided(steps=10), None),
        (
            lambda: ig.methods.guided(steps=10, anchors=20),
            r"Guided\(10, stray=1.0\) has steps=10 to divide over 21 stretches: give it steps=21 at least, or take fewer",
        ),
        (lambda: ig.paths.Composed(ig.paths.Straight()), "segments=1 to divide over 21 stretches"),
        (
            lambda: ig.methods.samp(walk="both"),
            "walk is one of 'insertion', 'deletion', not 'both'",
        ),
    ],
)
def test_refused(make: Any, message: str | None) -> None:
    if message is None:
        make()
        return
    with pytest.raises(ig.errors.InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (
            lambda path: ig.paths.Composed(path, 2),
            "from anchor to anchor, but Descent chooses where it begins",
        ),
        (ig.paths.Reversed, "from the input to the reference, but Descent chooses where it begins"),
    ],
)
def test_paths_with_a_start_of_their_own_are_refused(wrap: Any, message: str) -> None:
    path = wrap(ig.paths.Descent(torch.tanh, 6, 0.05, (-9.0, 9.0)))
    with pytest.raises(ig.errors.InputError, match=message):
        list(path(ig.fields.Function(t6), wave(2, 3, 6, phase=2), wave(3, 6)))


class EndsElsewhere:
    def __call__(self, field: Any, start: Tensor, end: Tensor) -> Any:
        yield ig.segments.polyline(torch.stack([start, end.expand_as(start) + 1]))


def test_paths_that_miss_the_anchor_are_refused() -> None:
    path = ig.paths.Composed(EndsElsewhere(), 2)
    with pytest.raises(ig.errors.InputError, match="EndsElsewhere chooses where it ends"):
        list(path(ig.fields.Function(t6), wave(2, 3, 6, phase=2), wave(3, 6)))


# --- costs ------------------------------------------------------------------------------------------------------------

GUIDED = ig.paths.Guided(9, stray=0.3)


def test_claimed_costs() -> None:
    guided = ig.paths.Guided(50)
    assert gradients_per_row(guided, ig.rules.Left()) == 50
    assert gradients_per_row(guided, ig.rules.Right()) == 51
    assert gradients_per_row(guided, ig.rules.Simpson(2)) == 51 + 150
    assert gradients_per_row(ig.paths.Reversed(guided), ig.rules.Left()) == 51
    assert gradients_per_row(ig.paths.Reversed(guided), ig.rules.Right()) == 50


def test_claims_of_paths_inside() -> None:
    """What a path takes to be found, and that it cannot tell, are true of what is made of it."""
    relaxed, geodesic = ig.paths.ElasticBand(3, iterations=2), ig.paths.Geodesic(wave(9, 6), 3)
    for path, stretches in ((ig.paths.Composed(relaxed, 2), 3), (ig.paths.Reversed(relaxed), 1)):
        assert path.scouted == stretches * relaxed.scouted
        assert gradients_per_row(path, ig.rules.Left()) == stretches * (relaxed.scouted + 4)
    for path in (ig.paths.Composed(geodesic, 2), ig.paths.Reversed(geodesic)):
        assert path.segments is None
        assert path.gradients is None
        assert gradients_per_row(path, ig.rules.Left()) is None


@pytest.mark.parametrize(
    "rule", [ig.rules.Left(), ig.rules.Right(), ig.rules.Trapezoid(), ig.rules.IDGI()]
)
def test_anchors_are_paid_for_once_whichever_way_stretches_are_walked(
    rule: Any, quiet: None
) -> None:
    x, start = wave(2, 6), wave(3, 2, 6, phase=2)
    for path in (
        ig.paths.Composed(ig.paths.Reversed(GUIDED), 2),
        ig.paths.Reversed(ig.paths.Composed(GUIDED, 2)),
    ):
        model = Counting(t6)
        made = ig.Method(ig.baselines.Given(start), path, rule)(
            ig.TorchField(model, ig.targets.Output()), x
        )
        assert model.gradients == made.cost.gradients == 6 * gradients_per_row(path, rule)
        assert gradients_per_row(path, rule) == path.gradients + (rule.table()[0][0] == 0)


def test_memory_is_flat_in_steps() -> None:
    """The path holds one segment back, whatever the number of steps."""
    x, start = wave(1, 6), wave(1, 1, 6, phase=2)
    alive: list[Any] = []
    import weakref

    for segment in ig.paths.Guided(200)(ig.fields.Function(t6), start, x):
        alive.append(weakref.ref(segment.end))
        del segment
        assert sum(ref() is not None for ref in alive) <= 3
    assert len(alive) == 200


def test_the_walk_is_the_same_for_every_rule(quiet: None) -> None:
    x = wave(2, 6, phase=0.3)
    paths = []
    for rule in (ig.rules.Left(), ig.rules.Midpoint(2), ig.rules.Adaptive(0.01)):
        made = ig.methods.guided(steps=10, rule=rule, record=("path",))(ig.fields.Function(t6), x)
        paths.append(made.frames.points)
    assert all(torch.equal(paths[0], other) for other in paths[1:])


def test_layers_and_filled_models() -> None:
    """A closed loop in a layer's space: conductance along the guided path is nobody's paper, and free."""
    model = filled(
        torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    )
    method = ig.methods.guided(steps=12, rule=ig.rules.GaussLegendre(4))
    made = ig.Layered("0", method)(ig.TorchField(model, 0), wave(3, 6))
    torch.testing.assert_close(made.residual, torch.zeros(3).double(), rtol=0, atol=1e-6)
