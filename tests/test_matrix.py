"""Every path with every rule, every kind of baselines and every known problem: it runs, adds up as far as both promise, costs what they say.

    paths      all of tests/catalogue/paths.py
    rules      Left, GaussLegendre(2), Adaptive, Important
    baselines  one; several, weighed alike; several, weighed by their fitness
    problems   all of tests/problems.py

A cell is one combination. What runs and what is refused is told by one table; how many of each there are is asserted.

A path is walked once by itself, at a model that counts, and its pieces are put together again here: every map is compared with the
formula of its rule on these pieces, and what it misses of the change of F with a bound that no rule of its kind may exceed,

    |∫ φ' − Σ_q w_q φ'(t_q)|  ≤  D · V,    V the variation of φ' on a piece, D the discrepancy of the rule       (Koksma)

which holds with kinks as well; that residuals fall as fast as they should where there are none is tested below.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor

import integrand as ig
from integrand.core.segment import Segment
from integrand.fields import CountedField
from integrand.integration import gradients_per_row
from integrand.model.autograd import gradients
from tests.catalogue.paths import COMBINED, NO_PATHS, PATHS, REFUSALS, Way, refusal
from tests.problems import PROBLEMS, Counting, Problem, R, joined

RULES: dict[str, Any] = {
    "left": ig.rules.Left(),
    "gauss": ig.rules.GaussLegendre(2),
    "adaptive": ig.rules.Adaptive(),
    "idgi": ig.rules.IDGI(),
}

BASELINES = {"one": 1, "several": R, "weighted": R}

WAYS = PATHS | COMBINED

CELLS = list(itertools.product(PATHS, RULES, BASELINES, PROBLEMS))
REFUSED = [cell for cell in CELLS if refusal(cell[0], PROBLEMS[cell[3]], BASELINES[cell[2]])]
RUN = [cell for cell in CELLS if cell not in set(REFUSED)]

GAUSS = ig.rules.GaussLegendre(2).table()[0]

EXACT = 1e-10  # sums that are put together in another order, relative to what is added up


def method(path: Any, rule: Any, baselines: str, p: Problem) -> ig.Method:
    weighting = (
        ig.weightings.Fitness(ig.baselines.Constant(0.0))
        if baselines == "weighted"
        else ig.weightings.Uniform()
    )
    return ig.Method(
        ig.baselines.Given(p.references[: BASELINES[baselines]]), path, rule, weighting
    )


def explained(p: Problem, model: Any, asked: Any) -> ig.Attribution:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
        return ig.explain(model, p.inputs, target=p.target, extra=p.extra, method=asked)


# --- the table --------------------------------------------------------------------------------------------------------


def test_nothing_is_left_out() -> None:
    """Every class in ``ig.paths`` that is a path; every cell once; and so many of them run, so many are refused."""
    known = {
        name
        for name in dir(ig.paths)
        if not name.startswith("_") and callable(getattr(ig.paths, name))
    }
    walked = {type(PATHS[name].build(PROBLEMS["img"])).__name__ for name in PATHS}
    assert known == walked | NO_PATHS
    assert not walked & NO_PATHS
    assert len(CELLS) == len(set(CELLS)) == len(PATHS) * 4 * 3 * 13 == 25 * 4 * 3 * 13
    assert len(RUN) + len(REFUSED) == len(CELLS)
    assert (len(RUN), len(REFUSED)) == (3124, 776)


@pytest.mark.parametrize("which", range(len(REFUSALS)))
def test_refusals_are_refused(which: int) -> None:
    """With an ``InputError`` that says what to do, before the model is asked for a gradient."""
    asked = REFUSALS[which]
    cells = [
        cell for cell in REFUSED if refusal(cell[0], PROBLEMS[cell[3]], BASELINES[cell[2]]) is asked
    ]
    assert cells
    for name, rule, baselines, problem in cells:
        p = PROBLEMS[problem]
        model = Counting(p.model)
        with pytest.raises(ig.errors.InputError, match=asked.says):
            explained(p, model, method(PATHS[name].build(p), RULES[rule], baselines, p))
        assert model.gradients == 0


# --- a path by itself -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Walk:
    """The pieces of a path (K, R, B, *s) as they came, what finding them took, and what F does on them.

    sides      per piece which ends were paid for, "start" and "end"
    gradients  that the path took at the model
    change     of F (K, R, B)
    slopes     ∇F at some places t of every piece: t -> (K, R, B, *s)
    variation  of φ' (K, R, B), V
    """

    path: Any
    start: Tensor
    end: Tensor
    sides: list[set[str]]
    gradients: int
    change: Tensor
    slopes: dict[float, Tensor]
    variation: Tensor

    @property
    def step(self) -> Tensor:
        return self.end - self.start

    @property
    def moving(self) -> Tensor:
        """(K,) how many rows of every piece have a length."""
        return (self.step != 0).flatten(3).any(3).sum((1, 2))


@lru_cache(maxsize=4)
def walked(name: str, problem: str, references: int) -> Walk:
    """The path, walked by itself; that its pieces are a way from where it begins to the input is checked in passing."""
    p = PROBLEMS[problem]
    way, model = WAYS[name], Counting(p.model)
    path = way.build(p)
    field, x = CountedField(replace(p, model=model).field()), p.packed()
    begin = p.references[:references, None].expand(-1, *x.shape)
    with field.ready(), gradients(False):
        segments = list(path(field, begin, x))
    taken = model.gradients
    pieces = [piece for segment in segments for piece in single(segment)]
    pieces.sort(key=lambda piece: piece[0])
    clocks = [(begins, ends) for begins, ends, _, _, _ in pieces]
    assert clocks[0][0] == 0
    assert clocks[-1][1] == 1
    assert all(one[1] == other[0] for one, other in itertools.pairwise(clocks))
    start, end = (torch.stack([piece[i] for piece in pieces]) for i in (2, 3))
    assert torch.equal(start[1:], end[:-1])
    assert torch.equal(end[-1], x.expand_as(begin))
    assert way.own_start or torch.equal(start[0], begin)

    own = p.field()
    value = torch.cat([own.value(start, 3), own.value(end[-1:], 3)])
    nodes = torch.tensor(sorted({*grid(p), *GAUSS, *truth(p).table()[0]}), dtype=torch.float64)
    points = torch.lerp(start, end, nodes.reshape(-1, *(1,) * start.ndim))
    slopes = dict(zip(nodes.tolist(), own.gradient(points, 4), strict=True))
    along = torch.stack([(slopes[t] * (end - start)).flatten(3).sum(3) for t in grid(p)])
    sides = [piece[4] for piece in pieces]
    return Walk(
        path, start, end, sides, taken, value.diff(dim=0), slopes, along.diff(dim=0).abs().sum(0)
    )


def single(segment: Segment) -> Iterator[tuple[float, float, Tensor, Tensor, set[str]]]:
    paid = {side for side in ("start", "end") if getattr(segment, f"at_{side}") is not None}
    for k in range(len(segment.start)):
        yield (*(float(side[k]) for side in segment.clock), segment.start[k], segment.end[k], paid)  # type: ignore[misc]


def grid(p: Problem) -> list[float]:
    """Where φ' is looked at for its variation: densely where there are kinks."""
    cells = 16 if p.smooth else 64
    return sorted({*(q / cells for q in range(cells + 1)), *GAUSS})


def truth(p: Problem) -> Any:
    """Many more nodes than any rule here takes."""
    return ig.rules.GaussLegendre(8) if p.smooth else ig.rules.Midpoint(128)


# --- what a rule makes of it ------------------------------------------------------------------------------------------


def by_left(w: Walk) -> Tensor:
    """(K, R, B, *s): displacement times the gradient at the start of each piece."""
    return w.step * w.slopes[0.0]


def by_gauss(w: Walk) -> Tensor:
    """Displacement times the mean gradient at ½ ± 1/√12 of each piece."""
    assert (
        max(abs(t - 0.5 + side / 12**0.5) for t, side in zip(GAUSS, (1, -1), strict=True)) < 1e-15
    )
    return w.step * (w.slopes[GAUSS[0]] + w.slopes[GAUSS[1]]) / 2


def by_importance(w: Walk) -> Tensor:
    """What F changes by, shared out by the squares of the gradient at the start; nothing where that is zero."""
    squares = w.slopes[0.0].square()
    whole = squares.flatten(3).sum(3)
    part_of = torch.where(whole > 0, w.change / torch.where(whole > 0, whole, 1), 0)
    return squares * part_of.reshape(*whole.shape, *(1,) * (squares.ndim - 3))


FORMULAS: dict[str, Callable[[Walk], Tensor]] = {
    "left": by_left,
    "gauss": by_gauss,
    "idgi": by_importance,
}


def integral(w: Walk, p: Problem) -> Tensor:
    """(R, B, *s): what all rules but ``IDGI`` converge to."""
    nodes, weights = truth(p).table()
    return sum((c * w.step * w.slopes[t]).sum(0) for t, c in zip(nodes, weights, strict=True))  # type: ignore[return-value]


def discrepancy(rule: Any) -> float:
    """sup_t |t − Σ_{nodes up to t} w|: 1 for Left, 0.289 for two Gauss–Legendre nodes."""
    below, most = 0.0, 0.0
    for node, weight in zip(*rule.table(), strict=True):
        most = max(most, abs(node - below), abs(node - below - weight))
        below += weight
    return max(most, abs(1 - below))


def weighed(made: ig.Attribution, numbers: Tensor) -> Tensor:
    """Σ_r w_r of numbers (R, B, …)."""
    return torch.einsum("rb,rb...->b...", made.weights, numbers)


# --- the cells --------------------------------------------------------------------------------------------------------


def check_cell(name: str, rule: str, baselines: str, problem: str) -> None:
    p, w = PROBLEMS[problem], walked(name, problem, BASELINES[baselines])
    model = Counting(p.model)
    made = explained(p, model, method(w.path, RULES[rule], baselines, p))
    check_what_is_measured(made, w, p)
    check_cost(made, model, w, rule)
    if rule == "adaptive":
        check_tolerance(made, integral(w, p), RULES[rule].tol, w)
    else:
        check_formula(made, w, rule)


def check_what_is_measured(made: ig.Attribution, w: Walk, p: Problem) -> None:
    """The map is finite and of the inputs' shape; what it says it misses is what it misses of the change of F."""
    values = joined(made.values)
    assert values.shape == joined(p.inputs).shape
    assert bool(torch.isfinite(values).all()), "the map is not finite"
    assert made.weights.shape == w.change.shape[1:]
    torch.testing.assert_close(
        made.weights.sum(0), torch.ones_like(made.residual), rtol=0, atol=1e-12
    )
    torch.testing.assert_close(made.change, w.change.sum(0), rtol=EXACT, atol=EXACT)
    missed = weighed(made, w.change.sum(0)) - values.sum(1)
    torch.testing.assert_close(made.residual, missed, rtol=EXACT, atol=EXACT)


def check_formula(made: ig.Attribution, w: Walk, rule: str) -> None:
    pieces = FORMULAS[rule](w)
    expected = weighed(made, pieces.sum(0)).flatten(1)
    scale = float(pieces.abs().max())
    torch.testing.assert_close(joined(made.values), expected, rtol=EXACT, atol=EXACT * scale)
    if rule == "idgi":
        nowhere = (w.slopes[0.0] == 0).flatten(3).all(3)
        promised = weighed(made, torch.where(nowhere, w.change, 0).sum(0))
        torch.testing.assert_close(made.residual, promised, rtol=EXACT, atol=EXACT)
    else:
        most = discrepancy(RULES[rule]) * weighed(made, w.variation.sum(0))
        assert bool((made.residual.abs() <= most + EXACT).all()), (
            f"misses {made.residual}, at most {most}"
        )


def check_tolerance(made: ig.Attribution, truth: Tensor, tol: float, w: Walk) -> None:
    """Within the relative error that was asked for, or, on a path whose steps are integrated one by one, within the one that it says
    it came to; and so is the residual, by Cauchy and Schwarz.

    References' errors are taken as independent. Where all of them go the same way they are the same, and the sum's is larger.
    """
    closed, together = (
        any(w.sides),
        bool((w.start == w.start[:, :1]).all()) * (len(made.weights) - 1) + 1,
    )
    values, exact = joined(made.values), weighed(made, truth).flatten(1)
    assert torch.equal(made.converged, made.error <= tol)
    assert closed or bool(made.converged.all()), "did not converge"
    wrong, size = (values - exact).norm(dim=1), values.norm(dim=1)
    assert bool((wrong <= made.error.clamp_min(tol) * size + EXACT).all()), (
        f"wrong by {wrong / size}, said {made.error}"
    )
    most = made.error * size * (together * values.shape[1]) ** 0.5
    assert bool((made.residual.abs() <= most + EXACT).all()), f"misses {made.residual}, said {most}"


def check_cost(made: ig.Attribution, model: Counting, w: Walk, rule: str) -> None:
    """Rows that reached the model are those that were counted; they are what the walk took, and the rule's nodes nobody had paid for."""
    assert (made.cost.gradients, made.cost.values) == (model.gradients, model.values)
    claimed, rows = gradients_per_row(w.path, RULES[rule]), made.weights.numel()
    if rule == "adaptive":
        assert claimed is None
        return
    nodes = RULES[rule].table()[0]
    unpaid = [
        sum({0.0: "start", 1.0: "end"}.get(node) not in sides for node in nodes)
        for sides in w.sides
    ]
    by_rule = sum(each * int(many) for each, many in zip(unpaid, w.moving, strict=True))
    assert model.gradients == w.gradients + by_rule
    if getattr(w.path, "gradients", 0) is None:
        assert claimed is None
        return
    # Pieces of no length cost nothing, and walks that have arrived rest.
    still = sum(each * (rows - int(many)) for each, many in zip(unpaid, w.moving, strict=True))
    assert model.gradients == claimed * rows - still - rested(w)


def rested(w: Walk) -> int:
    """Gradients that walks did not take because they had arrived."""
    if not isinstance(w.path, ig.paths.Adversarial):
        return 0
    return w.path.step.looks * int(w.change[0].numel() * len(w.start) - w.moving.sum())


@pytest.mark.parametrize(("name", "problem"), sorted({(cell[0], cell[3]) for cell in RUN}))
def test_cells(name: str, problem: str) -> None:
    wrong = []
    for cell in RUN:
        if (cell[0], cell[3]) == (name, problem):
            try:
                check_cell(*cell)
            except AssertionError as error:
                wrong.append(f"{cell[1]} × {cell[2]}: {error}")
    assert not wrong, "\n".join(wrong)


# --- paths made of paths ----------------------------------------------------------------------------------------------

WRAPPED = [
    (name, problem)
    for name in COMBINED
    for problem in ("t6", "img")
    if not refusal(name, PROBLEMS[problem], R)
]


def test_every_path_is_wrapped_in_every_wrapper() -> None:
    refused = [
        (name, problem)
        for name in COMBINED
        for problem in ("t6", "img")
        if (name, problem) not in WRAPPED
    ]
    assert len(COMBINED) == 2 * len(PATHS) == 50
    assert (4 * len(WRAPPED), 4 * len(refused)) == (232, 168)
    for name, problem in refused:
        p = PROBLEMS[problem]
        reason = refusal(name, p, R)
        assert reason
        for rule in RULES:
            with pytest.raises(ig.errors.InputError, match=reason.says):
                explained(p, p.model, method(COMBINED[name].build(p), RULES[rule], "several", p))


@pytest.mark.parametrize(("name", "problem"), WRAPPED)
def test_paths_made_of_paths(name: str, problem: str) -> None:
    """They add up and cost what they say with every path inside, whatever that knows beforehand."""
    for rule in RULES:
        check_cell(name, rule, "several", problem)


# --- nowhere to go ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(PATHS))
def test_a_reference_that_is_the_input(name: str) -> None:
    """Of a batch one, and of a batch of one the only one: nothing is credited, nothing fails, and the others are as they were."""
    p = PROBLEMS["img"]  # which no path refuses
    path, x = PATHS[name].build(p), p.packed()
    apart = p.references[:1, None].expand(-1, *x.shape).clone()
    among = apart.clone()
    among[0, 1] = x[1]
    for rule in RULES.values():
        found, other = (
            explained(p, p.model, ig.Method(ig.baselines.Given(b), path, rule))
            for b in (among, apart)
        )
        alone = explained(p.only(1), p.model, ig.Method(ig.baselines.Given(x[1:2]), path, rule))
        for b in (0, 2, 3, 4):
            torch.testing.assert_close(found.values[b], other.values[b], rtol=0, atol=1e-12)
        torch.testing.assert_close(found.values[1], alone.values[0], rtol=0, atol=1e-12)
        assert bool(torch.isfinite(alone.values).all())
        if not PATHS[name].own_start:
            assert alone.change.abs().max() < 1e-12
        if not PATHS[name].own_start and not name.startswith(
            ("latent", "neighbours")
        ):  # those make an excursion
            assert alone.values.abs().max() == 0


# --- how fast residuals fall ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rule", "order"), [("left", 1), ("gauss", 4)])
@pytest.mark.parametrize("name", list(PATHS))
def test_residuals_fall_as_fast_as_they_should(name: str, rule: str, order: int) -> None:
    """The pieces of a path of a smooth model cut in 2, 4, 8 and 16: what is missed falls like the cuts to the rule's order."""
    p = PROBLEMS["img"]
    w, field = walked(name, "img", 1), p.field()
    missed = []
    for cuts in (2, 4, 8, 16):
        found = torch.zeros_like(w.change)
        for j in range(cuts):
            start, end = (torch.lerp(w.start, w.end, (j + side) / cuts) for side in (0, 1))
            clock = torch.linspace(0, 1, len(start) + 1, dtype=torch.float64)
            found += (
                RULES[rule](field, Segment(start, end, (clock[:-1], clock[1:]))).flatten(3).sum(3)
            )
        missed.append(float((w.change - found).norm()))
    # As fine as rounding lets be seen.
    coarse, fine = [pair for pair in itertools.pairwise(missed) if pair[1] > 1e-12][-1]
    assert order - 0.2 < torch.tensor(coarse / fine).log2() < order + 0.5


# --- that cells can fail ----------------------------------------------------------------------------------------------


class Underpriced(ig.paths.Guided):
    """Says that it pays for one gradient less than it does."""

    @property
    def gradients(self) -> int:
        return self.steps - 1


class Wasteful(ig.paths.Straight):
    """Asks for a gradient and throws it away."""

    def __call__(self, field: Any, start: Tensor, end: Tensor) -> Iterator[Segment]:
        field.gradient(end)
        return super().__call__(field, start, end)


class Holey(ig.paths.Straight):
    """Leaves out its second piece."""

    def __call__(self, field: Any, start: Tensor, end: Tensor) -> Iterator[Segment]:
        for whole in super().__call__(field, start, end):
            for k in (0, 2):
                some = slice(k, k + 1)
                yield Segment(
                    whole.start[some], whole.end[some], (whole.clock[0][some], whole.clock[1][some])
                )


class Lossy(ig.rules.Left):
    """Weights that sum to 0.99."""

    def table(self) -> Any:
        nodes, weights = super().table()
        return nodes, tuple(0.99 * weight for weight in weights)


class Believing(ig.rules.Adaptive):
    """A rule that says of two nodes that they are enough."""

    def __call__(self, field: Any, segment: Segment) -> Any:
        share = ig.rules.Trapezoid()(field, segment)
        error = torch.zeros_like(share.flatten(3).sum(3))
        return ig.rules.Integrated(share, error)

    look = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("rule", "broken"),
    [
        ("left", ig.rules.Right()),
        ("left", Lossy()),
        ("gauss", ig.rules.Trapezoid()),
        ("adaptive", Believing()),
    ],
)
def test_other_rules_are_told_apart(
    rule: str, broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_cell("straight", rule, "several", "t6")
    monkeypatch.setitem(RULES, rule, broken)
    with pytest.raises(AssertionError):
        check_cell("straight", rule, "several", "t6")


@pytest.mark.parametrize("path", [Underpriced(4), Wasteful(3), Holey(3)])
def test_broken_paths_are_told(path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WAYS, "broken", Way(lambda p: path))
    walked.cache_clear()
    with pytest.raises(AssertionError):
        check_cell("broken", "left", "several", "t6")
    walked.cache_clear()
