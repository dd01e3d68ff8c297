"""Every published method meets every known problem; what its card claims is checked, and each check is shown to be able to fail."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.baselines.base import checked
from integrand.integration import gradients_per_row
from integrand.methods.citations import BIBTEX, bibtex
from tests.catalogue import AXIOMATIC, BEGINS, BUILD, NEEDS, WRAPPERS, Explains, fits
from tests.catalogue import COSTS as MORE_COSTS
from tests.catalogue.counterfactual import phi
from tests.catalogue.latent import codec
from tests.problems import PROBLEMS, Counting, Problem, R, filled, joined, sure, wave

FINE = ig.rules.GaussLegendre(12)

AT_LAYERS = {"layer", "conductance", "region_neurons"}
"""Their maps have a layer's shape; they meet their own problems in tests/test_layers.py and tests/test_neurons.py."""

OTHERWISE = {"idgi", "decision", "path_sampled", "left", "geometric"}
"""They give other credit than displacement times gradient; tests/test_credit.py and tests/test_geometric.py say what."""

OF_MODELS = {"pattern_guided", "graph", "gaussian_process"}
"""They explain layers' weights, graphs and Gaussian processes, and nothing that is a mere function of features; they meet their
own problems in tests/test_patterns.py, test_graph.py and test_gaussian_process.py."""

CARDS = list(ig.methods.known())
NAMES = [name for name in CARDS if name not in AT_LAYERS | WRAPPERS | OF_MODELS]


def test_every_published_method_is_here() -> None:
    assert set(CARDS) == set(BUILD) | AT_LAYERS | OF_MODELS
    assert set(BUILD) >= WRAPPERS


def run(problem: Problem, method: Any, **options: Any) -> ig.Attribution:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
        return ig.explain(
            problem.model,
            problem.inputs,
            target=problem.target,
            extra=problem.extra,
            method=method,
            **options,
        )


PAIRS = [
    (name, problem)
    for name, problem in itertools.product(NAMES, PROBLEMS)
    if fits(name, PROBLEMS[problem])
]
EVERY = pytest.mark.parametrize(("name", "problem"), PAIRS)


def test_inputs_that_a_method_is_not_for_are_refused() -> None:
    others = [pair for pair in itertools.product(NAMES, PROBLEMS) if pair not in PAIRS]
    assert {name for name, _ in others} == set(NEEDS)
    for name, problem in others:
        p = PROBLEMS[problem]
        with pytest.raises(ig.errors.InputError, match="an example has"):
            run(p, BUILD[name](p))


@EVERY
def test_runs_and_is_complete(name: str, problem: str) -> None:
    p = PROBLEMS[problem]
    made = run(p, BUILD[name](p))
    assert type(made.values) is type(p.inputs)
    values = joined(made.values)
    assert values.shape == joined(p.inputs).shape
    assert bool(torch.isfinite(values).all())
    assert bool((values != 0).any(1).all())
    torch.testing.assert_close(
        values.sum(1) + made.residual, made.output - made.base, rtol=0, atol=1e-12
    )
    if ig.methods.about(name).axioms["complete"] and p.smooth:
        torch.testing.assert_close(made.residual, torch.zeros(5).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(made.weights.sum(0), torch.ones(5).double(), rtol=0, atol=1e-14)


@EVERY
def test_five_at_once_are_five_alone(name: str, problem: str) -> None:
    p = PROBLEMS[problem]
    whole = run(p, BUILD[name](p))
    for b in range(5):
        alone = run(p.only(b), BUILD[name](p))
        torch.testing.assert_close(
            joined(alone.values)[0], joined(whole.values)[b], rtol=0, atol=1e-10
        )
        torch.testing.assert_close(alone.weights[:, 0], whole.weights[:, b], rtol=0, atol=1e-10)
        torch.testing.assert_close(alone.residual[0], whole.residual[b], rtol=0, atol=1e-10)


@pytest.mark.parametrize("batch_size", [1, 7])
@EVERY
def test_rows_per_call_do_not_matter(name: str, problem: str, batch_size: int) -> None:
    p = PROBLEMS[problem].only(0)
    one, other = (
        run(p, BUILD[name](p), batch_size=512),
        run(p, BUILD[name](p), batch_size=batch_size),
    )
    torch.testing.assert_close(joined(one.values), joined(other.values), rtol=0, atol=1e-12)


# --- against the formulas ---------------------------------------------------------------------------------------------


def integrated_by_hand(problem: Problem, b: int, start: Tensor, n: int = 200) -> Tensor:
    """(x − b) ⊙ the mean gradient at n midpoints, in the packed space."""
    field, x = problem.field(), problem.packed()[b : b + 1]
    total = torch.zeros_like(x)
    for q in range(n):
        point = start + (q + 0.5) / n * (x - start)
        total += field.rows(point, torch.tensor([b])).gradient / n
    return ((x - start) * total)[0]


@pytest.mark.parametrize("problem", ["t6", "softplus cnn", "dict input", "extra arguments"])
def test_expected_is_the_mean_of_integrated_gradients(problem: str) -> None:
    p = PROBLEMS[problem]
    values = joined(run(p, BUILD["expected"](p)).values)
    for b in (0, 4):
        maps = [integrated_by_hand(p, b, start[None]) for start in p.references]
        torch.testing.assert_close(values[b], (sum(maps) / R).flatten(), rtol=0, atol=2e-5)


def weighted_by_hand(p: Problem, b: int) -> tuple[list[int], Tensor]:
    """The paper, slowly, on a table of features: IG per baseline, D by trying every k, w = (1/D)/Σ(1/D)."""
    x, field = p.packed()[b : b + 1], p.field()
    maps = [integrated_by_hand(p, b, start[None]) for start in p.references]
    score = lambda z: float(field.score().rows(z, torch.tensor([b]), gradient=False).value)  # noqa: E731
    whole = score(x)
    counts = []
    for one in maps:
        order = sorted(range(x.shape[1]), key=lambda i: -float(one[i]))
        without = x.clone()
        d = x.shape[1]
        for k, feature in enumerate(order, 1):
            without[0, feature] = 0
            if score(without) <= whole / 2:
                d = k
                break
        counts.append(d)
    merit = torch.tensor([1 / d for d in counts], dtype=torch.float64)
    weights = merit / merit.sum()
    return counts, sum(w * one for w, one in zip(weights, maps, strict=True))


def test_weighted_is_the_papers_definition() -> None:
    model = filled(nn.Sequential(nn.Linear(6, 3)))
    p = replace(PROBLEMS["relu mlp"], model=sure(model, torch.zeros(6).double(), 4.0))
    p = replace(p, target=model(p.inputs).argmax(1), inputs=2 * p.inputs)
    made = run(p, BUILD["weighted"](p))
    seen = set()
    for b in range(5):
        counts, values = weighted_by_hand(p, b)
        assert made.fitness[:, b].tolist() == counts
        torch.testing.assert_close(made.values[b], values, rtol=0, atol=1e-10)
        seen |= set(counts)
    assert len(seen) > 1


@pytest.mark.parametrize(
    "name", [name for name, problem in PAIRS if problem == "linear" and name not in OTHERWISE]
)
def test_linear_models(name: str) -> None:
    """w ⊙ (x − start), weighted over references, wherever the path began."""
    p = PROBLEMS["linear"]
    made = run(p, BUILD[name](p))
    weight = p.model.weight[p.target].detach()
    expected = torch.einsum("rb,rbi->bi", made.weights, weight * (p.inputs - made.baselines))
    torch.testing.assert_close(made.values, expected, rtol=0, atol=1e-13)


# --- costs ------------------------------------------------------------------------------------------------------------

COSTS: dict[str, list[Callable[[Problem], Any]]] = {
    "integrated": [
        lambda p: ig.methods.integrated(0.25, ig.rules.Trapezoid(5)),
        lambda p: ig.methods.integrated([0.25, -0.5], ig.rules.Simpson(2), ig.paths.Straight(3)),
    ],
    "expected": [
        lambda p: ig.methods.expected(ig.baselines.Given(p.references), draws=9),
        lambda p: ig.methods.expected(ig.baselines.Given(p.references), rule=ig.rules.Left(4)),
    ],
    "latent_guided": [
        lambda p: ig.methods.latent_guided(
            codec(p.packed()), ig.baselines.Given(p.references), 5, 0.3, ends=2
        ),
        *(
            lambda p, rule=rule: ig.methods.latent_guided(
                codec(p.packed()), 0.25, 5, 0.3, ends=2, rule=rule
            )
            for rule in (
                ig.rules.Left(),
                ig.rules.Midpoint(2),
                ig.rules.Simpson(),
                ig.rules.MonteCarlo(2),
            )
        ),
    ],
    "latent": [
        lambda p: ig.methods.latent(
            codec(p.packed()), ig.baselines.Given(p.references), 4, ends=2, rule=ig.rules.Midpoint()
        )
    ],
    "manifold": [
        lambda p: ig.methods.manifold(
            codec(p.packed()),
            ig.baselines.Given(p.references),
            4,
            ends=2,
            rule=ig.rules.Trapezoid(),
        )
    ],
    "weighted": [
        lambda p: ig.methods.weighted(
            ig.baselines.Given(p.references), rule=ig.rules.Midpoint(4), fill=0.0
        )
    ],
    "idgi": [
        lambda p: ig.methods.idgi(ig.baselines.Given(p.references), 5),
        lambda p: ig.methods.idgi(0.25, 2, ig.paths.Straight(3)),
    ],
    "decision": [
        lambda p: ig.methods.decision(ig.baselines.Given(p.references), 5, 4),
        lambda p: ig.methods.decision(0.25, 3, 2, ig.paths.Straight(3)),
    ],
    "path_weighted": [
        lambda p: ig.methods.path_weighted(ig.baselines.Given(p.references), "sqrt", 4),
        lambda p: ig.methods.path_weighted(0.25, "beta22", 2, ig.paths.Straight(3)),
    ],
    "path_sampled": [lambda p: ig.methods.path_sampled(ig.baselines.Given(p.references), steps=5)],
    "left": [
        lambda p: ig.methods.left(
            ig.baselines.Given(p.references), 0.5, None, 6, ig.rules.Midpoint(5)
        ),
        lambda p: ig.methods.left(0.25, 0.5, None, 6, ig.rules.Trapezoid(2)),
    ],
    "geometric": [lambda p: ig.methods.geometric(ig.baselines.Given(p.references), 3, 2, 0.01)],
    "ig2": [
        lambda p: ig.methods.ig2(
            ig.baselines.Given(p.references), p.representation, 4, 0.01, (-9.0, 9.0)
        ),
        *(
            lambda p, rule=rule: ig.methods.ig2(
                ig.baselines.Given(p.references), p.representation, 4, 0.01, (-9.0, 9.0), rule=rule
            )
            for rule in (
                ig.rules.Left(),
                ig.rules.Midpoint(2),
                ig.rules.Trapezoid(),
                ig.rules.Simpson(),
                ig.rules.MonteCarlo(2),
            )
        ),
    ],
    **MORE_COSTS,
    "geodesic": [
        lambda p: ig.methods.geodesic(0.25, wave(9, *p.packed().shape[1:], phase=5), 3, 2)
    ],
    "relaxed": [
        lambda p: ig.methods.relaxed(0.25, 4, iterations=3),
        lambda p: ig.methods.relaxed([0.25, -0.5], 3, iterations=2, rule=ig.rules.Simpson()),
    ],
    "nonuniform": [
        lambda p: ig.methods.nonuniform(0.25, 7, 5),
        lambda p: ig.methods.nonuniform([0.25, -0.5], 6, 5, "midpoint", rule=ig.rules.Trapezoid()),
    ],
    "guided": [
        lambda p: ig.methods.guided(ig.baselines.Given(p.references), 4),
        *(
            lambda p, rule=rule, anchors=anchors: ig.methods.guided(
                [0.25, -0.5], 4, anchors=anchors, rule=rule
            )
            for rule in (
                ig.rules.Right(),
                ig.rules.Trapezoid(2),
                ig.rules.Simpson(),
                ig.rules.GaussLegendre(2),
                ig.rules.MonteCarlo(2),
            )
            for anchors in (0, 2)
        ),
    ],
    "samp": [
        lambda p: ig.methods.samp(ig.baselines.Given(p.references), 4),
        *(
            lambda p, rule=rule: ig.methods.samp(0.25, 4, walk="deletion", rule=rule)
            for rule in (None, ig.rules.Left(), ig.rules.Trapezoid(), ig.rules.Midpoint())
        ),
    ],
}


@pytest.mark.parametrize(
    ("name", "which", "problem"),
    [
        (name, i, problem)
        for name, problem in PAIRS
        for i in range(len(COSTS[name]))
        if problem in ("t6", "softplus cnn", "extra arguments")
    ],
)
def test_gradients_are_what_the_parts_say(name: str, which: int, problem: str) -> None:
    """Counted where they reach the model: gradients_per_row(path, rule) · R · B beside what a baseline is searched with."""
    p = PROBLEMS[problem]
    method = COSTS[name][which](p)
    model = Counting(p.model)
    tallies: list[int | None] = []
    named = f"inner.{p.representation}" if isinstance(p.representation, str) else p.representation
    if name == "ig2":
        method = replace(method, path=replace(method.path, representation=named))
    made = run(
        replace(p, model=model), method, progress=lambda tally: tallies.append(tally.expected)
    )
    search = ig.fields.CountedField(p.field())
    method.baseline(p.packed(), search)
    claimed = gradients_per_row(method.path, method.rule)
    assert model.values == made.cost.values
    if claimed is None:  # it depends on the data: counted in tests/test_geodesic.py
        assert model.gradients == made.cost.gradients
        assert set(tallies) == {None}
        return
    assert (
        model.gradients
        == made.cost.gradients
        == search.tally.gradients + claimed * len(made.weights) * 5
    )
    assert set(tallies) - ({None} if search.tally.calls else set()) == {model.gradients}


def test_the_published_ig2_costs_steps_plus_one() -> None:
    assert gradients_per_row(ig.paths.Descent(steps=50), ig.rules.Right()) == 51
    assert gradients_per_row(ig.paths.Descent(steps=50), ig.rules.Midpoint(4)) == 51 + 200
    assert gradients_per_row(ig.paths.Straight(10), ig.rules.Trapezoid(2)) == 30


@pytest.mark.parametrize(
    "path", [ig.paths.Straight(), ig.paths.Guided(5), ig.paths.Composed(ig.paths.Guided(5), 1)]
)
@pytest.mark.parametrize("rule", [ig.rules.Adaptive(), lambda field, segment: segment.step])
def test_what_a_rule_does_not_say_is_not_known(path: Any, rule: Any, quiet: None) -> None:
    """A tolerance takes what it takes: a progress bar that knew better would be full from the start."""
    assert gradients_per_row(path, rule) is None
    tallies: list[int | None] = []
    p = PROBLEMS["t6"]
    run(p, ig.Method(path=path, rule=rule), progress=lambda tally: tallies.append(tally.expected))
    assert set(tallies) == {None}


@pytest.mark.parametrize("draws", [1, 7, 20, 50])
@pytest.mark.parametrize("pool", ["a tensor", "a sampler", "a dataset", "given references"])
def test_expected_costs_draws(pool: str, draws: int) -> None:
    """``draws`` pairs of reference and position, whatever the references came as; rounded up to a whole number for each."""
    data = wave(20, 6, phase=1)
    references = {
        "a tensor": data,
        "a sampler": ig.baselines.Sample(data),
        "a dataset": torch.utils.data.TensorDataset(data),
        "given references": ig.baselines.Given(data),
    }[pool]
    p = PROBLEMS["relu mlp"].only(0)
    made = run(p, ig.methods.expected(references, draws))
    many = draws if pool in ("a tensor", "a dataset") and draws < 20 else 20
    assert len(made.weights) == many
    assert made.cost.gradients == many * -(-draws // many)


def test_expected_gradients_are_unbiased() -> None:
    """The mean over 300 seeds of four draws is the exact map over the whole pool, within four standard errors."""
    p, pool = PROBLEMS["t6"].only(0), wave(8, 6, phase=1)
    exact = run(p, ig.methods.expected(pool, rule=FINE)).values[0]
    maps = torch.stack(
        [run(p, ig.methods.expected(pool, 4), seed=s, batch_size=64).values[0] for s in range(300)]
    )
    assert bool(((maps.mean(0) - exact).abs() < 4 * maps.std(0) / 300**0.5).all())
    assert float(maps.std(0).min()) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_references_in_blocks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """References are taken in blocks when their maps need not be kept; that may not change the result."""
    p = PROBLEMS["relu mlp" if (name, "relu mlp") in PAIRS else "softplus cnn"]
    method = (COSTS[name] or [BUILD[name]])[0](p)
    whole = run(p, method, batch_size=64)
    monkeypatch.setattr("integrand.core.memory_budget._BLOCK_ELEMENTS", 2 * p.packed().numel())
    blocks = run(p, method, batch_size=64)
    torch.testing.assert_close(blocks.values, whole.values, rtol=0, atol=1e-13)
    torch.testing.assert_close(blocks.change, whole.change, rtol=0, atol=1e-13)
    torch.testing.assert_close(blocks.weights, whole.weights, rtol=0, atol=1e-14)
    assert blocks.cost.gradients == whole.cost.gradients
    # F(x) is not asked again for every block; IG2 looks for its representation anew in each.
    assert name == "ig2" or blocks.cost.values == whole.cost.values
    assert blocks.names == whole.names
    for key in whole.notes:
        torch.testing.assert_close(blocks.notes[key], whole.notes[key], rtol=0, atol=1e-13)


def test_ig2_in_blocks_with_its_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """The box and the step that are left to the data may not depend on which references share a block."""
    p = PROBLEMS["relu mlp"]
    method = ig.methods.ig2(p.references, steps=5)
    whole = run(p, method)
    monkeypatch.setattr("integrand.core.memory_budget._BLOCK_ELEMENTS", 1)
    torch.testing.assert_close(run(p, method).values, whole.values, rtol=0, atol=1e-12)


# --- Staged -----------------------------------------------------------------------------------------------------------


def staged_problem() -> Problem:
    p = PROBLEMS["softplus cnn"]
    model = sure(
        filled(nn.Sequential(*list(p.model)[:-1], nn.Linear(8, 3)), 0.9),
        torch.zeros(3, 8, 8).double(),
        150.0,
    )
    return replace(p, model=model, target=model(p.inputs).argmax(1))


def test_staged_saves_gradients() -> None:
    p = staged_problem()
    model = Counting(p.model)
    scout, fine = ig.rules.Midpoint(2), ig.rules.Midpoint(16)
    references = torch.cat(
        [p.references, p.references.flip(0) * 0.5, torch.ones(1, 3, 8, 8).double()]
    )
    filtered = ig.methods.weighted(references, rule=fine, fill=0.0, keep=0.9)
    two = run(replace(p, model=model), ig.TwoStage(filtered, scout))
    survivors = int((two.weights > 0).sum())
    assert 5 <= survivors < 7 * 5
    assert model.gradients == two.cost.gradients == 2 * 7 * 5 + 16 * survivors < 16 * 7 * 5
    # The weights are the scout's, the maps of the survivors the fine rule's.
    rough = run(p, replace(filtered, rule=scout))
    assert torch.equal(two.weights, rough.weights)
    assert torch.equal(two.fitness, rough.fitness)
    accurate = run(p, filtered)
    torch.testing.assert_close(
        two.shares[two.weights > 0], accurate.shares[two.weights > 0], rtol=0, atol=1e-13
    )
    torch.testing.assert_close(
        two.values, torch.einsum("rb,rbcij->bcij", two.weights, accurate.shares), rtol=0, atol=1e-13
    )
    torch.testing.assert_close(two.change, accurate.change, rtol=0, atol=1e-13)


def test_staged_equals_filtered_where_the_scout_is_the_rule() -> None:
    p = staged_problem()
    filtered = ig.methods.weighted(p.references, rule=ig.rules.Midpoint(8), fill=0.0, keep=0.9)
    one, two = run(p, filtered), run(p, ig.TwoStage(filtered, ig.rules.Midpoint(8)))
    for name in ("values", "weights", "fitness", "change", "residual", "shares"):
        torch.testing.assert_close(getattr(two, name), getattr(one, name), rtol=0, atol=1e-13)
    assert two.names == one.names
    assert two.reasons == one.reasons


def test_staged_walks_descents_too() -> None:
    p = staged_problem()
    path = ig.paths.Descent("5", 4, 0.3, (0.0, 1.0))
    filtered = ig.methods.weighted(p.references, path, ig.rules.Midpoint(4), fill=0.0, keep=0.5)
    one, two = run(p, filtered), run(p, ig.TwoStage(filtered, ig.rules.Midpoint(4)))
    torch.testing.assert_close(two.values, one.values, rtol=0, atol=1e-13)
    torch.testing.assert_close(two.baselines, one.baselines, rtol=0, atol=1e-13)


def test_scout_is_short_for_staged() -> None:
    method = ig.methods.weighted([0.0, 1.0], keep=0.25, scout=3)
    assert isinstance(method, ig.TwoStage)
    assert method.scout == ig.rules.GaussLegendre(3)
    assert (
        ig.methods.weighted([0.0, 1.0], keep=0.25, scout=ig.rules.Left()).scout == ig.rules.Left()
    )
    with pytest.raises(ig.errors.InputError, match=r"say which with keep="):
        ig.methods.weighted([0.0, 1.0], scout=3)


# --- axioms -----------------------------------------------------------------------------------------------------------

"""(field, x (B, F), references (R, F)) → values (B, F)."""


def gradient_times_input(field: Any, x: Tensor, refs: Tensor) -> Tensor:
    """Not a path method: no baseline, no integral."""
    return field.gradient(x) * x


class OneByOne:
    """The path that moves one feature at a time, in order: complete and linear, but not symmetric."""

    segments = None

    def __call__(self, field: Any, start: Tensor, end: Tensor) -> Any:
        count = end.shape[1]
        corner = start
        for i in range(count):
            following = corner.clone()
            following[..., i] = end[..., i]
            clock = torch.tensor([i / count, (i + 1) / count], dtype=torch.float64)
            yield ig.Segment(corner[None], following[None], (clock[:1], clock[1:]))
            corner = following


def one_by_one(field: Any, x: Tensor, refs: Tensor) -> Tensor:
    return ig.Method(ig.baselines.Given(refs[:1]), OneByOne(), FINE)(field, x).values


def smoothed(field: Any, x: Tensor, refs: Tensor) -> Tensor:
    """Integrated gradients spread over neighbours: complete, but not dummy."""
    values = AXIOMATIC["integrated"](field, x, refs)
    return (values + values.roll(1, 1)) / 2


def squared(field: Any, x: Tensor, refs: Tensor) -> Tensor:
    """Not linear in F."""
    return AXIOMATIC["integrated"](field, x, refs).square()


def weight_reading(field: Any, x: Tensor, refs: Tensor) -> Tensor:
    """What reads the implementation, not the function: the first layer's weights."""
    return field.network.model[0].weight.detach().abs().sum(0) * (x - refs[0])


def f(z: Tensor) -> Tensor:
    """Smooth, positive, symmetric in features 0 and 1, blind to feature 3; halved when all is replaced by zero."""
    return torch.exp(z[:, 0] * z[:, 1] + 0.5 * (z[:, 0] + z[:, 1]) + 0.8 * z[:, 2]) - 0.9


def g(z: Tensor) -> Tensor:
    return (z[:, 0] + 2 * z[:, 1]) ** 2 + z[:, 2] * z[:, 0]


POINTS = torch.tensor([[0.9, 0.9, 0.7, 1.3], [1.1, 1.1, 0.4, 0.6]], dtype=torch.float64)
STARTS = torch.tensor(
    [[0.1, 0.1, -0.2, 0.5], [0.3, 0.3, 0.2, -0.4], [-0.1, -0.1, 0.1, 0.0]], dtype=torch.float64
)


def near(found: Tensor, expected: Tensor, tolerance: float = 1e-7) -> None:
    assert float((found - expected).abs().max()) <= tolerance


def check_complete(explains: Explains) -> None:
    field = ig.fields.Function(f)
    values = explains(field, POINTS, STARTS[:1])
    if explains is AXIOMATIC["ig2"]:
        path = ig.paths.Descent(phi, 8, 0.05, (-9.0, 9.0))
        start = ig.paths.corners(path, field, STARTS[:1, None].expand(1, 2, 4), POINTS)[1][0, 0]
    else:
        begins = [BEGINS[name] for name in BEGINS if AXIOMATIC[name] is explains]
        start = begins[0](field, POINTS, STARTS) if begins else STARTS[0].expand(2, 4)
    near(values.sum(1), f(POINTS) - f(start))


def check_dummy(explains: Explains) -> None:
    values = explains(ig.fields.Function(f), POINTS, STARTS)
    assert bool((values[:, 3] == 0).all())
    assert bool((values[:, :3] != 0).all())


def check_symmetric(explains: Explains) -> None:
    values = explains(ig.fields.Function(f), POINTS, STARTS)
    near(values[:, 0], values[:, 1])


def check_linear(explains: Explains) -> None:
    a, c = 1.5, -0.7
    both = ig.fields.Function(lambda z: a * f(z) + c * g(z))
    apart = a * explains(ig.fields.Function(f), POINTS, STARTS) + c * explains(
        ig.fields.Function(g), POINTS, STARTS
    )
    near(explains(both, POINTS, STARTS), apart)


def check_implementation_invariant(explains: Explains) -> None:
    """The same function twice: hidden units permuted and rescaled."""
    one = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    filled(one)
    other = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    order, scale = (
        torch.tensor([3, 0, 5, 1, 2, 4]),
        torch.tensor([2.0, 0.5, 3.0, 1.0, 0.1, 4.0]).double(),
    )
    with torch.no_grad():
        other[0].weight.copy_(one[0].weight[order] * scale[:, None])
        other[0].bias.copy_(one[0].bias[order] * scale)
        other[2].weight.copy_(one[2].weight[:, order] / scale)
        other[2].bias.copy_(one[2].bias)
    assert torch.allclose(one(POINTS), other(POINTS), rtol=0, atol=1e-14)
    near(
        explains(ig.TorchField(one, 0), POINTS, STARTS),
        explains(ig.TorchField(other, 0), POINTS, STARTS),
    )


def check_affine_scale(explains: Explains) -> None:
    """A(Tx, Tb, F ∘ T⁻¹) = A(x, b, F) for T(z) = c ⊙ z + d, also with negative c."""
    c, d = (
        torch.tensor([2.0, -3.0, 0.5, -1.0]).double(),
        torch.tensor([1.0, -2.0, 0.3, 4.0]).double(),
    )
    stretched = ig.fields.Function(lambda z: f((z - d) / c))
    near(
        explains(stretched, c * POINTS + d, c * STARTS + d),
        explains(ig.fields.Function(f), POINTS, STARTS),
    )


def check_monomial(explains: Explains) -> None:
    """F = Π (z_i − b_i)^m_i: feature i gets F(x) m_i / Σ m."""
    powers = torch.tensor([3, 1, 2, 0])
    field = ig.fields.Monomial(powers, STARTS[0])
    expected = field.value(POINTS)[:, None] * powers / powers.sum()
    near(explains(field, POINTS, STARTS[:1]), expected)


def check_proportional(explains: Explains) -> None:
    """F = G(Σ z): with b = 0 every feature gets its part of x."""
    field = ig.fields.Function(lambda z: torch.exp(0.3 * z.sum(1)))
    values = explains(field, POINTS, torch.zeros(1, 4).double())
    ratio = values / POINTS
    near(ratio, ratio[:, :1].expand_as(ratio))


CHECKS: dict[str, Callable[[Explains], None]] = {
    "complete": check_complete,
    "dummy": check_dummy,
    "symmetric": check_symmetric,
    "linear": check_linear,
    "implementation-invariant": check_implementation_invariant,
}

CLAIMED = [
    (name, axiom)
    for name in [*NAMES, *sorted((WRAPPERS | {"graph"}) & set(AXIOMATIC))]
    for axiom in CHECKS
    if ig.methods.about(name).axioms[axiom]
]


@pytest.mark.parametrize(("name", "axiom"), CLAIMED)
def test_what_is_claimed_holds(name: str, axiom: str, quiet: None) -> None:
    if name == "ig2" and axiom == "implementation-invariant":
        pytest.fail("IG2 walks in the model's representation: it cannot be invariant")
    CHECKS[axiom](AXIOMATIC[name])


def corners_of(name: str, problem: str) -> tuple[Tensor, Tensor] | None:
    """The corners (K+1, R, B, *s) of a method's path on a problem, and where the input lies; None where it has no path."""
    p = PROBLEMS[problem]
    method = BUILD[name](p)
    core = getattr(method, "method", method)
    if not hasattr(core, "path"):
        return None
    field, x = p.field(), p.packed()
    start = checked(core.baseline(x, field), x, core.baseline, field)
    return ig.paths.corners(core.path, field, start, x)[1], x


def check_inside(points: Tensor, x: Tensor) -> None:
    """Every point lies in the box between where the path began and the input."""
    begin = points[0]
    low, high = torch.minimum(begin, x), torch.maximum(begin, x)
    room = 1e-9 * (1 + (high - low).abs().amax())
    assert bool(((points >= low - room) & (points <= high + room)).all())


def check_monotone(points: Tensor, x: Tensor) -> None:
    """No coordinate ever turns back."""
    steps = points.diff(dim=0)
    room = 1e-9 * (1 + steps.abs().amax())
    assert bool(((steps >= -room).all(0) | (steps <= room).all(0)).all())


PATH_CHECKS: dict[str, Callable[[Tensor, Tensor], None]] = {
    "within the box": check_inside,
    "monotone": check_monotone,
}


@pytest.mark.parametrize("axiom", list(PATH_CHECKS))
@pytest.mark.parametrize(
    ("name", "problem"), [pair for pair in PAIRS if pair[1] in ("relu mlp", "softplus cnn")]
)
def test_where_paths_lead(name: str, axiom: str, problem: str, quiet: None) -> None:
    found = corners_of(name, problem)
    if found is not None and ig.methods.about(name).axioms[axiom]:
        PATH_CHECKS[axiom](*found)


@pytest.mark.parametrize("name", ["ig2", "blur", "spectral"])
def test_paths_that_leave_the_box_are_seen(name: str, quiet: None) -> None:
    found = corners_of(name, "softplus cnn")
    assert found is not None
    for check in PATH_CHECKS.values():
        with pytest.raises(AssertionError):
            check(*found)


def test_every_claim_has_a_check() -> None:
    for name in CARDS:
        assert set(ig.methods.about(name).axioms) == set(CHECKS) | set(PATH_CHECKS)


@pytest.mark.parametrize(
    ("axiom", "control"),
    [
        ("complete", gradient_times_input),
        ("dummy", smoothed),
        ("symmetric", one_by_one),
        ("linear", squared),
        ("implementation-invariant", weight_reading),
    ],
)
def test_checks_can_fail(axiom: str, control: Explains) -> None:
    with pytest.raises(AssertionError):
        CHECKS[axiom](control)


def ig2_by_layer(field: Any, x: Tensor, refs: Tensor) -> Tensor:
    return ig.methods.ig2(
        ig.baselines.Given(refs), "1", 8, 0.05, (-9.0, 9.0), rule=ig.rules.Midpoint(4)
    )(field, x).values


def ig2_by_model(field: Any, x: Tensor, refs: Tensor) -> Tensor:
    """A representation that is the function itself: then linearity is what fails."""
    own = lambda z: field.function(z)[:, None]  # noqa: E731
    return ig.methods.ig2(
        ig.baselines.Given(refs), own, 8, 0.05, (-9.0, 9.0), rule=ig.rules.Midpoint(4)
    )(field, x).values


@pytest.mark.parametrize(
    ("axiom", "explains"),
    [("implementation-invariant", ig2_by_layer), ("linear", ig2_by_model)],
    ids=["ig2 is not implementation-invariant", "ig2 is not linear"],
)
def test_what_is_not_claimed_does_not_hold(axiom: str, explains: Explains, quiet: None) -> None:
    with pytest.raises(AssertionError):
        CHECKS[axiom](explains)


def test_weighted_is_not_linear(quiet: None) -> None:
    """Weights depend on F: they differ between two linear functions and their sum."""
    x, refs = torch.ones(1, 8).double(), wave(4, 8, phase=1)
    first, second = 1.1 + wave(8, phase=2), 1.1 + wave(8, phase=3)
    one, two, both = (
        AXIOMATIC["weighted"](ig.fields.Linear(w), x, refs) for w in (first, second, first + second)
    )
    assert float((both - one - two).abs().max()) > 1e-3


@pytest.mark.parametrize("name", ["integrated", "expected"])
def test_affine_scale_invariance(name: str) -> None:
    check_affine_scale(AXIOMATIC[name])


@pytest.mark.parametrize("check", [check_monomial, check_proportional])
@pytest.mark.parametrize("name", ["integrated", "expected", "weighted"])
def test_characterisations_of_the_straight_line(name: str, check: Any, quiet: None) -> None:
    """One reference: on the straight line these hold exactly."""
    check(AXIOMATIC[name])


@pytest.mark.parametrize("check", [check_affine_scale, check_monomial])
def test_gradient_times_input_fails_them(check: Any) -> None:
    with pytest.raises(AssertionError):
        check(gradient_times_input)


def test_the_one_by_one_path_fails_proportionality() -> None:
    with pytest.raises(AssertionError):
        check_proportional(one_by_one)
    check_complete(one_by_one)
    check_affine_scale(one_by_one)


def test_descent_is_equivariant_under_permutations(quiet: None) -> None:
    """Permuting inputs, references and the model's coordinates permutes the map."""
    order = torch.tensor([2, 0, 3, 1])
    back = order.argsort()
    one = AXIOMATIC["ig2"](ig.fields.Function(f), POINTS, STARTS)
    other = AXIOMATIC["ig2"](
        ig.fields.Function(lambda z: f(z[:, back])), POINTS[:, order], STARTS[:, order]
    )
    near(other, one[:, order])


# --- cards ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CARDS)
def test_cards(name: str) -> None:
    card = ig.methods.about(name)
    assert card.name == name
    assert card.build is getattr(ig.methods, name)
    assert card.title
    assert card.formula
    assert card.cost
    assert card.citation.startswith("@")
    assert card.key in card.citation
    assert card.citation.count("{") == card.citation.count("}")
    assert "References:" in (card.build.__doc__ or "")
    assert "Cost:" in (card.build.__doc__ or "")


def test_citations_are_used() -> None:
    # GPLinkField, ig.correlate, ig.interactions
    of_functions = {"seitz2022gradient", "lelievre2024integrated", "janizek2021explaining"}
    assert set(BIBTEX) == {ig.methods.about(name).key for name in CARDS} | of_functions
    with pytest.raises(ig.errors.UnknownName, match=r"no citation named 'zhuo'. Did you mean"):
        bibtex("zhuo")


def test_known_is_a_copy() -> None:
    ig.methods.known().clear()
    assert ig.methods.known()


# --- methods by hand --------------------------------------------------------------------------------------------------


def test_any_path_goes_with_any_rule_and_weighting(quiet: None) -> None:
    """Nobody's paper, and free: three paths × four rules × two weightings."""
    p = PROBLEMS["relu mlp"]
    field, x = p.field(), p.packed()
    paths = [ig.paths.Straight(), ig.paths.Straight(5), ig.paths.Descent("1", 5, 0.05, (-9.0, 9.0))]
    rules = [
        ig.rules.Midpoint(8),
        ig.rules.Simpson(2),
        ig.rules.GaussLegendre(8),
        ig.rules.MonteCarlo(8),
    ]
    weightings = [ig.weightings.Uniform(), ig.weightings.Fitness(ig.baselines.Constant(0.0))]
    for path, rule, weighting in itertools.product(paths, rules, weightings):
        made = ig.Method(ig.baselines.Given(p.references), path, rule, weighting)(field, x)
        assert bool(torch.isfinite(made.values).all())
        assert bool((made.gap < 0.5).all())


def test_a_path_without_segments() -> None:
    with pytest.raises(ig.errors.InputError, match=r"The path made no segments"):
        ig.Method(path=lambda field, start, end: iter(()))(
            ig.fields.Linear(torch.ones(3)), torch.ones(1, 3)
        )


def test_a_path_of_ones_own() -> None:
    """Ten lines: the one-feature-at-a-time path of this file, on every problem with a table of features."""
    p = PROBLEMS["t6"]
    made = ig.Method(ig.baselines.Given(p.references[:1]), OneByOne(), FINE)(p.field(), p.packed())
    torch.testing.assert_close(made.residual, torch.zeros(5).double(), rtol=0, atol=1e-9)


def test_incomplete_maps_warn() -> None:
    field = ig.fields.Function(lambda z: z[:, 0] ** 5)
    with pytest.warns(
        ig.errors.IncompleteWarning, match=r"2 of 2 maps miss more than a tenth .* or more nodes"
    ) as caught:
        made = ig.methods.integrated(rule=ig.rules.Midpoint())(field, torch.ones(2, 1).double())
    assert made.converged.tolist() == [False, False]
    assert len(caught) == 1
    with pytest.warns(
        ig.errors.IncompleteWarning, match=r"rule=ig\.rules\.\w+\(\d\)\), or take shorter steps"
    ):
        ig.methods.ig2(torch.zeros(1, 1).double(), lambda z: z, 2, 0.5, (0.0, 1.0))(
            field, torch.ones(2, 1).double()
        )


def test_random_rules_say_how_far_chance_may_have_led_them() -> None:
    """They are complete only in expectation; what a map of three draws misses is told, in its standard errors."""
    with pytest.warns(
        ig.errors.IncompleteWarning,
        match=r"of its standard errors, and chance\. Some [\d,]+ more draws",
    ):
        made = ig.methods.expected(torch.zeros(3, 1).double(), 3)(
            ig.fields.Function(lambda z: z[:, 0] ** 9), torch.ones(2, 1).double()
        )
    assert made.converged.tolist() == [False, False]


@pytest.mark.parametrize("through", ["explain", "method"])
def test_warnings_point_at_the_caller(through: str) -> None:
    model = lambda z: z[:, :1] ** 5  # noqa: E731
    x = torch.ones(1, 1).double()
    method = ig.methods.integrated(rule=ig.rules.Midpoint())
    if through == "explain":
        with pytest.warns(ig.errors.IncompleteWarning) as caught:
            ig.explain(model, x, target=0, method=method)
    else:
        with pytest.warns(ig.errors.IncompleteWarning) as caught:
            method(ig.TorchField(model, 0), x)
    assert caught[0].filename == __file__
