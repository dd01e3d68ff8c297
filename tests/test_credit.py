"""Credit that is not displacement times gradient: IDGI, IDG and what makes any rule add up."""

from __future__ import annotations

import gc
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import integrand as ig
from integrand import testing
from integrand.core.segment import Evaluation, polyline
from integrand.model.row_independence import ROWS
from tests.memory import held_bytes
from tests.problems import PROBLEMS, T6_INPUT, Counting, img, img_input, relu_mlp, t6, wave

PATHS = json.loads((Path(__file__).parent / "references" / "paths.json").read_text())
DESCENT = ig.paths.Descent(torch.tanh, 6, 0.05, (-9.0, 9.0))
STRAIGHT = ig.paths.Straight()
Given = ig.baselines.Given


def smooth(z: Tensor) -> Tensor:
    return torch.exp(0.4 * z @ wave(4, phase=0.5).to(z)) + torch.sin(z).prod(1)


FIELD = ig.fields.Function(smooth)
X, STARTS = 1 + 0.5 * wave(3, 4), wave(2, 3, 4, phase=2)


def near(found: Tensor, expected: Any, tolerance: float = 1e-12) -> None:
    expected = torch.as_tensor(expected, dtype=found.dtype)
    torch.testing.assert_close(found, expected.reshape(found.shape), rtol=0, atol=tolerance)


def mapped(
    rule: Any, path: Any = STRAIGHT, field: Any = FIELD, x: Tensor = X, starts: Tensor = STARTS
) -> Any:
    """All references' maps."""
    return ig.Method(Given(starts), path, rule, record=("shares",))(field, x)


def corners_of(path: Any, x: Tensor = X, starts: Tensor = STARTS) -> Tensor:
    return ig.paths.corners(path, FIELD, starts, x)[1]


def img_logit() -> ig.TorchField:
    return ig.TorchField(img, 0)


# --- Important --------------------------------------------------------------------------------------------------------


def important_by_hand(field: Any, points: list[Tensor]) -> Tensor:
    """The paper, slowly, for the points (*s) of one path."""
    share = torch.zeros_like(points[0])
    for here, there in itertools.pairwise(points):
        gradient = field.gradient(here[None])[0]
        change = float(field.value(there[None]) - field.value(here[None]))
        share += gradient**2 / gradient.square().sum() * change
    return share


def cut(points: Tensor, n: int) -> list[Tensor]:
    """Corners (K+1, *s), each piece cut into n."""
    found = [a + q / n * (b - a) for a, b in itertools.pairwise(points) for q in range(n)]
    return [*found, points[-1]]


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize(
    "path", [STRAIGHT, ig.paths.Straight(5), DESCENT], ids=["one", "five", "descent"]
)
def test_important_is_the_papers_definition(path: Any, n: int, quiet: None) -> None:
    made = mapped(ig.rules.IDGI(n), path)
    points = corners_of(path)
    for r in range(2):
        for b in range(3):
            near(made.shares[r, b], important_by_hand(FIELD, cut(points[:, r, b], n)))


def test_important_matches_the_reference_values() -> None:
    """50 steps on the line of IMG, logit."""
    made = ig.methods.idgi()(img_logit(), img_input())
    near(made.values[0], PATHS["IDGI"], 1e-8)
    near(made.values.sum(), PATHS["IMG_dF_logit"], 1e-12)


def test_pieces_of_a_segment_are_segments() -> None:
    one = mapped(ig.rules.IDGI(12)).values
    for pieces in (3, 12):
        near(mapped(ig.rules.IDGI(12 // pieces), ig.paths.Straight(pieces)).values, one)


@given(
    n=st.integers(1, 9),
    pieces=st.integers(1, 5),
    phase=st.floats(0, 6),
    model=st.sampled_from([smooth, lambda z: relu_mlp()(torch.cat([z, z[:, :2]], 1))[:, 0]]),
    half=st.booleans(),
)
def test_important_adds_up_exactly(
    n: int, pieces: int, phase: float, model: Any, half: bool
) -> None:
    """By telescoping: however few pieces, and with kinks too."""
    x, starts = wave(3, 4, phase=phase), wave(2, 3, 4, phase=phase + 1)
    made = mapped(ig.rules.IDGI(n), ig.paths.Straight(pieces), ig.fields.Function(model), x, starts)
    near(made.residual, torch.zeros(3), 1e-12)
    if half:
        rough = mapped(
            ig.rules.IDGI(n),
            ig.paths.Straight(pieces),
            ig.fields.Function(smooth),
            x.float(),
            starts.float(),
        )
        assert rough.values.dtype == torch.float32
        near(rough.residual, torch.zeros(3), 1e-4)


def test_within_a_piece_all_features_have_one_sign() -> None:
    shares = mapped(ig.rules.IDGI()).shares.flatten(2)
    change = mapped(ig.rules.IDGI()).change
    assert bool((shares * change[..., None] >= 0).all())
    signs = mapped(ig.rules.Midpoint(20)).shares.flatten(2).sign()
    assert bool((signs.amin(2) != signs.amax(2)).any())  # the integral itself has both


def test_a_zero_gradient_gives_no_credit() -> None:
    """F = z² from 0: at the first corner there is no direction, and what F changes by until the second is the residual."""
    field = ig.fields.Function(lambda z: z.square().sum(1))
    x = torch.tensor([[1.0, 2.0]]).double()
    made = ig.methods.idgi(0.0, 4)(field, x)
    near(made.residual, [5 / 16])
    near(made.values, (5 - 5 / 16) * torch.tensor([1 / 5, 4 / 5]))
    dead = ig.methods.idgi(0.0, 4)(ig.fields.Function(lambda z: (z - 5).relu().sum(1)), x)
    assert torch.equal(dead.values, torch.zeros(1, 2).double())


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e15])
def test_small_and_large_gradients_count(scale: float) -> None:
    """The square of a float32 gradient of 1e-30 is zero, its direction is not."""
    x = X.float()
    big = ig.methods.idgi(0.0, 6)(ig.fields.Function(lambda z: smooth(z) * scale), x).values / scale
    torch.testing.assert_close(big, ig.methods.idgi(0.0, 6)(FIELD, x).values, rtol=1e-3, atol=1e-4)


class Paid:
    """A straight line in pieces, one at a time, whose gradients the path has looked at: at the starts, the ends, or both."""

    def __init__(
        self, segments: int, sides: str, *, backwards: bool = False, together: bool = False
    ) -> None:
        self.segments, self.sides, self.backwards, self.together = (
            segments,
            sides,
            backwards,
            together,
        )

    def __call__(self, field: Any, start: Tensor, end: Tensor) -> Iterator[ig.Segment]:
        times = torch.linspace(0, 1, self.segments + 1, dtype=torch.float64)
        line = polyline(
            torch.stack([torch.lerp(start, end.expand_as(start), t) for t in times]), times
        )
        order = list(range(self.segments))[:: -1 if self.backwards else 1]
        groups = [order] if self.together else [[k] for k in order]
        for which in groups:
            begin, finish = line.start[which], line.end[which]
            yield ig.Segment(
                begin,
                finish,
                (line.clock[0][which], line.clock[1][which]),
                at_start=self.look(field, begin) if "start" in self.sides else None,
                at_end=self.look(field, finish) if "end" in self.sides else None,
            )

    def look(self, field: Any, points: Tensor) -> Evaluation:
        leading = points.shape[:3]
        index = torch.arange(leading[2]).expand(leading).reshape(-1)
        return field.rows(points.flatten(0, 2), index).reshape(*leading)


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "in a stack"])
@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("sides", ["", "start", "end", "start end"])
@pytest.mark.parametrize("n", [1, 3])
def test_what_is_paid_for_is_used(sides: str, backwards: bool, together: bool, n: int) -> None:
    """However segments come and whatever is known at their ends: the same map, and not a row more than needed."""
    pieces, rows = 4, 6
    expected = mapped(ig.rules.IDGI(n), ig.paths.Straight(pieces))
    made = mapped(ig.rules.IDGI(n), Paid(pieces, sides, backwards=backwards, together=together))
    near(made.values, expected.values)
    near(made.change, expected.change)
    looked = pieces * rows * len(sides.split())
    assert made.cost.gradients == looked + pieces * rows * (n - ("start" in sides))
    # F at the end of a piece: paid for; or it comes with the gradient at the start of the next, if that is in the stack.
    ends = 0 if "end" in sides else rows if together and not backwards else pieces * rows
    assert made.cost.values == ends


def test_a_path_of_one_that_does_not_move() -> None:
    """One example, one reference, and that is the input."""
    for steps in (1, 4):
        for path in (ig.paths.Straight(), ig.paths.Straight(3), ig.paths.Guided(2)):
            made = ig.methods.idgi(Given(X[:1]), steps, path)(FIELD, X[:1])
            assert made.values.tolist() == [[0.0] * X.shape[1]]
            near(made.change, [[0.0]])


def test_walks_that_have_all_arrived() -> None:
    """Steps that nobody takes any more, at the ends of which the path has looked."""
    path = ig.paths.Adversarial(lambda out: out - smooth(X).min() + 1e-3, 4, 10.0, (-9.0, 9.0))
    made = ig.Method(Given(X[:1]), path, ig.rules.IDGI())(
        ig.TorchField(smooth, ig.targets.Output()), X
    )
    near(made.residual, torch.zeros(len(X)).double())


def test_pieces_that_do_not_move_cost_nothing() -> None:
    """Rows that stand still for a while (a descent that has arrived): the next piece that moves says what F is there."""
    corners = wave(5, 2, 3, 4, phase=1)
    corners[2, 0, 1] = corners[1, 0, 1]
    corners[3:, 1, 2] = corners[2, 1, 2]
    corners[1:, 1, 0] = corners[0, 1, 0]
    segment = polyline(corners)
    field = ig.fields.CountedField(FIELD)
    found = ig.rules.IDGI(2)(field, segment)
    moving = int((segment.start != segment.end).any(-1).sum())
    assert field.tally.gradients == 2 * moving
    assert field.tally.values == 5  # one for every path that moves at all
    for r in range(2):
        for b in range(3):
            for k in range(4):
                if torch.equal(corners[k, r, b], corners[k + 1, r, b]):
                    assert torch.equal(found.share[k, r, b], torch.zeros(4).double())
                else:
                    near(
                        found.share[k, r, b],
                        important_by_hand(FIELD, cut(corners[k : k + 2, r, b], 2)),
                    )
                    near(found.begin[k, r, b], smooth(corners[k, r, b][None])[0])
                    near(found.end[k, r, b], smooth(corners[k + 1, r, b][None])[0])


@pytest.mark.parametrize(
    "weighting",
    [ig.weightings.Uniform(), ig.weightings.Fitness(ig.baselines.Constant(0.0))],
    ids=["uniform", "fitness"],
)
@pytest.mark.parametrize("problem", ["relu mlp", "softplus cnn", "extra arguments"])
def test_important_goes_with_any_path_and_weighting(
    problem: str, weighting: Any, quiet: None
) -> None:
    p = PROBLEMS[problem]
    for path in (STRAIGHT, ig.paths.Straight(3), ig.paths.Descent(None, 4, 0.05, (-9.0, 9.0))):
        if problem == "extra arguments" and isinstance(path, ig.paths.Descent):
            continue
        made = ig.Method(Given(p.references), path, ig.rules.IDGI(3), weighting)(
            p.field(), p.packed()
        )
        near(made.residual, torch.zeros(5), 1e-10)


def test_descent_and_important_cost_the_walk_alone() -> None:
    model = Counting(t6)
    field = ig.TorchField(model, ig.targets.Output())
    path = ig.paths.Descent(lambda z: z.square(), 7, 0.05, (-9.0, 9.0))
    made = ig.Method(Given(wave(2, 6)), path, ig.rules.IDGI())(field, T6_INPUT)
    assert made.cost.gradients == 2 * 8
    assert ig.integration.gradients_per_row(path, ig.rules.IDGI()) == 8
    assert ig.integration.gradients_per_row(path, ig.rules.IDGI(3)) == 8 + 2 * 7
    near(made.residual, [0.0], 1e-12)


# --- Decision ---------------------------------------------------------------------------------------------------------


def decision_by_hand(
    field: Any, x: Tensor, start: Tensor, nodes: list[float], weights: list[float]
) -> Tensor:
    """Δ ⊙ Σ w_q (g_q · Δ) g_q for one example (*s)."""
    step = x - start
    points = torch.stack([start + node * step for node in nodes])
    share = torch.zeros_like(x)
    for gradient, weight in zip(field.gradient(points[:, None], 2)[:, 0], weights, strict=True):
        share += weight * (gradient * step).sum() * gradient
    return step * share


def published_allocation(values: list[float], steps: int) -> tuple[list[float], list[float]]:
    """As many midpoints in each cell as it has of Σ|ΔF|, rounded down, and at least one."""
    cells = len(values) - 1
    changes = [abs(b - a) for a, b in itertools.pairwise(values)]
    nodes, weights = [], []
    for j, change in enumerate(changes):
        many = max(1, math.floor(steps * change / sum(changes)))
        nodes += [(j + (r + 0.5) / many) / cells for r in range(many)]
        weights += [1 / (cells * many)] * many
    return nodes, weights


@pytest.mark.parametrize("steps", [10, 50])
def test_decision_and_the_reference_values(steps: int) -> None:
    case, x = PATHS[f"IDG_{steps}"], img_input()[0]
    field, zero = img_logit(), torch.zeros(3, 4, 4).double()
    values = [float(field.value((j / steps * x)[None])) for j in range(steps + 1)]
    near(
        decision_by_hand(field, x, zero, *published_allocation(values, steps)),
        case["restated"],
        1e-8,
    )
    fine = [(q + 0.5) / 4000 for q in range(4000)]
    near(decision_by_hand(field, x, zero, fine, [1 / 4000] * 4000), case["ref"], 1e-8)
    # The library's own sampler comes to the same integral, with a node less for each.
    made = ig.methods.decision(0.0, steps, steps)(field, x[None])
    largest = max(map(abs, case["ref"]))
    near(made.values[0] / largest, torch.tensor(case["ref"]) / largest, 2e-2 / steps)
    assert made.cost.gradients == steps
    assert made.cost.values == steps + 1 + ROWS


def official_sampler(values: list[float], steps: int) -> list[float]:
    """Where the authors' code puts its steps, restated: slopes scaled to [0, 1], truncated, and empty cells skipped in place."""
    slopes = [0.0] + [(b - a) * (steps - 1) for a, b in itertools.pairwise(values)]
    low, high = min(slopes), max(slopes)
    scaled = [0.0, *[(s - low) / (high - low) for s in slopes[1:]]]
    exact = [steps * s / sum(scaled) for s in scaled]
    counts = [int(e) for e in exact]
    spare = steps - sum(counts)
    order = sorted((i for i, c in enumerate(counts) if c == 0), key=lambda i: -exact[i])
    for i in order[:spare]:
        counts[i] = 1
    places, at = [], 0.0
    for count in counts:
        if count == 0:
            continue  # the slip: the position should move on
        places += [at + r / (steps - 1) / count for r in range(count)]
        at += 1 / (steps - 1)
    return places


@pytest.mark.parametrize("steps", [10, 50])
def test_the_authors_code_restated(steps: int) -> None:
    """Backward differences of F for φ', each times the step before it, and a mean where a sum belongs: float32, N times too small."""
    case, x, field = PATHS[f"IDG_{steps}"], img_input()[0], img_logit()
    values = field.value(torch.stack([j / (steps - 1) * x for j in range(steps)])[:, None], 2)[:, 0]
    places = official_sampler(values.tolist(), steps)
    points = torch.stack([at * x for at in places])[:, None]
    changes = field.value(points, 2)[:, 0].diff()  # φ' · step, and nothing for the first
    total = x * torch.einsum("q,qcij->cij", changes, field.gradient(points, 2)[1:, 0])
    official = torch.tensor(case["official"], dtype=torch.float64).reshape(total.shape)
    near((total / steps - official) / official.abs().max(), torch.zeros_like(total), 1e-6)
    # N times it is an estimate of what the library integrates, here where F changes all the way.
    made = ig.methods.decision(0.0, steps, steps)(field, x[None]).values[0]
    near((total - made) / made.abs().max(), torch.zeros_like(total), 0.5 / steps)


def late(z: Tensor) -> Tensor:
    """A decision at 70 % of the way along the first feature, and nothing elsewhere."""
    return (40 * (z[:, 0] - 0.7)).sigmoid() + 0 * z[:, 1]


def test_a_late_decision_is_found() -> None:
    """Σ = ∫ φ'² = 40/6 but for the tails: the authors' sampler puts every step before the decision and sees none of it."""
    field, x = ig.fields.Function(late), torch.ones(1, 2).double()
    made = ig.methods.decision()(field, x)
    near(made.values.sum(), 40 / 6, 2e-2)
    values = [float(late((j / 49 * x).double())) for j in range(50)]
    assert max(official_sampler(values, 50)) < 0.4
    missed = decision_by_hand(
        field, x[0], torch.zeros(2).double(), official_sampler(values, 50), [1 / 50] * 50
    )
    assert float(missed.abs().sum()) < 1e-3
    even = ig.methods.decision(0.0, 10, 1)(field, x).values.sum()
    placed = ig.methods.decision(0.0, 10, 50)(field, x).values.sum()
    assert abs(float(placed) - 40 / 6) < 0.2 * abs(float(even) - 40 / 6)


def test_decision_adds_up_to_the_squared_slope() -> None:
    """Σ = ∫ φ'² dα ≥ (ΔF)², equal for linear F."""
    made = mapped(ig.rules.IntegratedDecisionGradients(400, 100))
    nodes, weights = ig.rules.GaussLegendre(40).table()
    for r in range(2):
        for b in range(3):
            step = X[b] - STARTS[r, b]
            slopes = [
                float((FIELD.gradient((STARTS[r, b] + t * step)[None])[0] * step).sum())
                for t in nodes
            ]
            squared = sum(w * s * s for w, s in zip(weights, slopes, strict=True))
            near(made.shares[r, b].sum(), squared, 1e-4 * squared)
            assert squared > float(made.change[r, b]) ** 2
    weight = wave(4, phase=3)
    linear = mapped(ig.rules.IntegratedDecisionGradients(3, 2), field=ig.fields.Linear(weight))
    near(linear.shares.sum(-1), linear.change**2)
    near(linear.shares, (X - STARTS) * weight * linear.change[..., None])


@given(
    scale=st.floats(-20, 20).filter(lambda c: abs(c) > 0.01),
    steps=st.integers(1, 12),
    cells=st.integers(1, 9),
)
def test_decision_is_quadratic_in_f(scale: float, steps: int, cells: int) -> None:
    one = mapped(ig.rules.IntegratedDecisionGradients(steps, cells)).values
    other = mapped(
        ig.rules.IntegratedDecisionGradients(steps, cells),
        field=ig.fields.Function(lambda z: scale * smooth(z)),
    ).values
    near(other / scale**2, one, 1e-10)


@pytest.mark.parametrize("order", [1.8])
def test_decision_converges_on_any_number_of_segments(order: float) -> None:
    """dF/dα is one of the path's clock: pieces of it have steep slopes, and short clocks."""
    exact = mapped(ig.rules.IntegratedDecisionGradients(600, 60)).values
    errors = [
        float(
            (
                mapped(ig.rules.IntegratedDecisionGradients(4, 4), ig.paths.Straight(k)).values
                - exact
            )
            .abs()
            .max()
        )
        for k in (4, 16)
    ]
    assert errors[1] < errors[0] / 4**order
    near(
        mapped(ig.rules.IntegratedDecisionGradients(20, 5), ig.paths.Straight(10)).values,
        exact,
        1e-3,
    )


def test_decision_needs_no_direction() -> None:
    """F that does not move along the line: no decision, no map, and no NaN."""
    made = mapped(
        ig.rules.IntegratedDecisionGradients(5, 4),
        field=ig.fields.Function(lambda z: 0 * z.sum(1) + 3),
    )
    assert torch.equal(made.values, torch.zeros_like(made.values))


# --- Rescaled ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    [
        ig.rules.IntegratedDecisionGradients(6, 4),
        ig.rules.PathWeighted("sqrt", ig.rules.Midpoint(5)),
        ig.rules.Left(),
        ig.rules.IDGI(2),
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    "path", [STRAIGHT, ig.paths.Straight(4), DESCENT], ids=["one", "four", "descent"]
)
def test_rescaled_adds_up(rule: Any, path: Any, quiet: None) -> None:
    made = mapped(ig.rules.Rescaled(rule), path)
    near(made.residual, torch.zeros(3), 1e-11)
    if path == STRAIGHT:  # one number for the whole map
        own = mapped(rule)
        factor = own.change / own.shares.sum(-1)
        near(made.shares, own.shares * factor[..., None], 1e-11)


def test_rescaled_decision_carries_the_sign() -> None:
    """Decision itself cannot tell evidence for from evidence against: it is the same for F and −F."""
    against = ig.fields.Function(lambda z: -smooth(z))
    near(
        mapped(ig.rules.IntegratedDecisionGradients()).values,
        mapped(ig.rules.IntegratedDecisionGradients(), field=against).values,
    )
    near(mapped(ig.rules.Rescaled()).values, -mapped(ig.rules.Rescaled(), field=against).values)


def test_rescaled_where_there_is_nothing_to_scale() -> None:
    """F = z₀² − z₁² on the diagonal: shares cancel and F does not change. Gradient 0 at a node: shares 0 though F changes."""
    cancels = ig.fields.Function(lambda z: z[:, 0] ** 2 - z[:, 1] ** 2)
    x = torch.ones(1, 2).double()
    made = ig.Method(rule=ig.rules.Rescaled(ig.rules.Midpoint(4)))(cancels, x)
    near(made.values, [1.0, -1.0])
    with pytest.warns(ig.errors.IncompleteWarning):
        blind = ig.Method(rule=ig.rules.Rescaled(ig.rules.Left()))(
            ig.fields.Function(lambda z: z[:, 0] ** 2), x
        )
    near(blind.values, [0.0, 0.0])
    near(blind.residual, [1.0])


def test_rescaled_errors_scale_along() -> None:
    rule = ig.rules.Adaptive(0.1)
    segment = polyline(torch.stack([STARTS, X.expand_as(STARTS)]))
    own, made = rule(FIELD, segment), ig.rules.Rescaled(rule)(FIELD, segment)
    near(made.error / own.error, made.share.sum(-1) / own.share.sum(-1))


@pytest.mark.parametrize("sides", ["", "start", "end", "start end"])
@pytest.mark.parametrize("together", [False, True], ids=["one by one", "in a stack"])
def test_rescaled_asks_f_only_where_nobody_knows_it(sides: str, together: bool) -> None:
    pieces, rows = 4, 6
    made = mapped(ig.rules.Rescaled(ig.rules.Midpoint(2)), Paid(pieces, sides, together=together))
    near(made.residual, torch.zeros(3), 1e-12)
    unknown = 2 - len(sides.split())
    apart = unknown * pieces * rows
    # In a stack neighbours share a corner: what is known of one end is known of the other's beginning.
    shared = {2: (pieces + 1) * rows, 1: rows, 0: 0}[unknown]
    assert made.cost.values == (shared if together else apart)


# --- conformance and errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        (ig.rules.IDGI(), {"linear": False}),
        (ig.rules.IDGI(3), {"linear": False}),
        (ig.rules.IntegratedDecisionGradients(5, 3), {"linear": False}),
        (ig.rules.Rescaled(ig.rules.IntegratedDecisionGradients(5, 3)), {"linear": False}),
        (ig.rules.Rescaled(ig.rules.Midpoint()), {}),
        (ig.rules.PathWeighted("beta22", ig.rules.Midpoint(3)), {"linear": False}),
        (
            ig.rules.PathWeighted(lambda a: torch.ones_like(a), ig.rules.Midpoint(3)),
            {"complete": True, "order": 2},
        ),
        (ig.rules.SaturationCutoff(0.7, ig.rules.Midpoint(3)), {"linear": False}),
        (ig.rules.SaturationCutoff(1.0, ig.rules.Midpoint()), {"complete": True, "order": 2}),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_rules_keep_their_promises(rule: Any, options: dict[str, Any]) -> None:
    testing.check_rule(rule, **options)


@pytest.mark.parametrize(
    "rule",
    [
        ig.rules.IntegratedDecisionGradients(3),
        ig.rules.PathWeighted("sqrt"),
        ig.rules.SaturationCutoff(0.9, ig.rules.Left(3)),
    ],
    ids=repr,
)
def test_what_is_not_complete_says_so(rule: Any) -> None:
    assert rule.complete is False
    with pytest.raises(AssertionError, match="miss the change of F"):
        testing.check_rule(rule, complete=True, linear=False)


@pytest.mark.parametrize(
    "rule", [ig.rules.IDGI(), ig.rules.IntegratedDecisionGradients(3)], ids=repr
)
def test_they_are_not_displacement_times_gradient(rule: Any) -> None:
    with pytest.raises(AssertionError, match="On a linear field"):
        testing.check_rule(rule)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ig.rules.IDGI(0), r"at least one piece, not 0"),
        (lambda: ig.rules.IntegratedDecisionGradients(0), r"at least one step, not 0"),
        (
            lambda: ig.rules.IntegratedDecisionGradients(5, 0),
            r"not 0; with pilot=1 the steps are even",
        ),
        (lambda: ig.methods.idgi(steps=-1), r"at least one piece, not -1"),
    ],
)
def test_nonsense_is_refused(build: Any, message: str) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        build()


def test_no_warning_for_what_is_not_meant_to_add_up(recwarn: pytest.WarningsRecorder) -> None:
    for name in ("decision", "path_sampled", "left"):
        ig.explain(t6, T6_INPUT, target=ig.targets.Output(), method=name)
    assert [one for one in recwarn if issubclass(one.category, ig.errors.IncompleteWarning)] == []


class Watched(ig.fields.Function):
    """Notes how many bytes are alive in tensors at every thirty-second call with gradients, and at the last of 16."""

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        self.calls, self.most = 0, 0
        self.packer = ig.fields.BatchSizer(2)

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        self.calls += gradient
        if gradient and (self.calls == 16 or self.calls % 32 == 0):
            self.most = max(self.most, held_bytes())
        return super().evaluate(z, index, gradient=gradient)


def hoarding(n: int) -> Any:
    """A rule that keeps its gradients, to be seen."""

    def rule(field: Any, segment: ig.Segment) -> Tensor:
        kept = [field.gradient(torch.lerp(segment.start, segment.end, q / n), 3) for q in range(n)]
        return segment.step * sum(kept) / n

    return rule


RULES_OF_N = {
    "idgi": ig.rules.IDGI,
    "decision": lambda n: ig.rules.IntegratedDecisionGradients(n, n),
    "weighted": lambda n: ig.rules.PathWeighted("sqrt", ig.rules.Midpoint(n)),
    "until": lambda n: ig.rules.SaturationCutoff(
        ig.rules.Saturation(pilot=n), ig.rules.Midpoint(n)
    ),
    "rescaled": lambda n: ig.rules.Rescaled(ig.rules.Midpoint(n)),
    "hoarding": hoarding,
}


@pytest.mark.parametrize("name", list(RULES_OF_N))
def test_memory_is_flat_in_steps(name: str) -> None:
    """Eight times as many nodes, and no map more than before is alive."""
    x, start = wave(2, 3, 40, 40), wave(1, 2, 3, 40, 40, phase=1)
    most = []
    for n in (16, 128):
        gc.collect()
        field = Watched(lambda z: torch.tanh(z.flatten(1)).sum(1))
        RULES_OF_N[name](n)(field, polyline(torch.stack([start, x.expand_as(start)])))
        most.append(field.most)
    grown = (most[1] - most[0]) / x.nbytes
    assert grown > 50 if name == "hoarding" else grown < 0.5


# --- what linear functions get ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 4])
def test_linear_functions(steps: int) -> None:
    """F = w·z, Δ = x − b: w² w·Δ / ‖w‖² for IDGI, w ⊙ Δ times w·Δ for IDG, half of w ⊙ Δ for PS-IG, what F rises by for Left-IG."""
    weight = wave(4, phase=2)
    field, step = ig.fields.Linear(weight), X - STARTS[0]
    change = step @ weight
    baseline = Given(STARTS[:1])
    near(
        ig.methods.idgi(baseline, steps)(field, X).values,
        torch.outer(change, weight**2 / weight.square().sum()),
    )
    near(
        ig.methods.decision(baseline, steps, steps)(field, X).values,
        weight * step * change[:, None],
    )
    near(ig.methods.path_sampled(baseline, steps=steps)(field, X).values, weight * step / 2)
    part = torch.where(change > 0, 0.9, 1.0)[:, None]
    assert 0 < int((change > 0).sum()) < 3
    near(
        ig.methods.left(baseline, above=None, pilot=steps)(field, X).values,
        part * weight * step,
        1e-7,
    )
