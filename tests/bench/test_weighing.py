"""The study of weightings on a toy: areas by loops and by the library's own metrics, weights by their formulas, resuming, and no peeking."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from benchmarks.weighing import best, candidates, choose, judge, rivals, study
from benchmarks.weighing.candidates import CANDIDATES, Evidence
from benchmarks.weighing.evidence import Photograph, taken
from integrand.bench.problems import Examples, Problem
from integrand.bench.suite import SuiteRun
from integrand.compare.scores import COSTS, Scores
from integrand.core.normalisation import Normalisation

SIDE = 10  # 100 pixels: shares are whole numbers of them
NODES = 3


@pytest.fixture(scope="module")
def problem() -> Problem:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 64, 5))
    x = torch.rand(60, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return Problem(
        "toy",
        net.eval().requires_grad_(False),
        tuple(f"p{i}" for i in range(60)),
        lambda numbers: Examples(x[list(numbers)]),
        normalisation=Normalisation.imagenet(),
        words={"several": [ig.baselines.black(), ig.baselines.white(), ig.baselines.Uniform()]},
    )


@pytest.fixture
def photograph(problem: Problem) -> Iterator[Photograph]:
    with taken(problem, 0, problem.model, nodes=NODES) as photograph:
        yield photograph


def test_the_frozen_network_says_the_same(problem: Problem) -> None:
    x = problem.load(range(5)).x
    torch.testing.assert_close(judge.frozen(problem.model, x)(x), problem.model(x))


def _probability(net: nn.Module, row: Tensor, target: int) -> float:
    logits = [float(v) for v in net(row[None])[0]]
    return math.exp(logits[target]) / sum(math.exp(v) for v in logits)


def test_maps_are_integrals_of_their_baselines(problem: Problem, photograph: Photograph) -> None:
    """By plain autograd at the nodes of Gauss and Legendre, baseline by baseline; EG is their mean."""
    x = problem.load([0]).x
    field = ig.TorchField(problem.model, 0, normalisation=problem.normalisation)
    target = photograph.judge.target
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    for r, baseline in enumerate(problem.words["several"]):
        start = baseline(x, field)[0]
        total = torch.zeros_like(x)
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            point = (start + float(node) * (x - start)).requires_grad_()
            total += float(weight) * torch.autograd.grad(problem.model(point)[0, target], point)[0]
        torch.testing.assert_close(
            photograph.shares[r], ((x - start) * total)[0], rtol=1e-3, atol=1e-5
        )
    torch.testing.assert_close(
        photograph.map(torch.full((1, 3), 1 / 3))[0], photograph.shares.mean(0)
    )


@pytest.mark.parametrize("rank", judge.RANKS)
def test_areas_are_sums_over_pixels_replaced_one_by_one(
    problem: Problem, photograph: Photograph, rank: str
) -> None:
    """Trapezoids by hand, of rows built pixel by pixel."""
    net, x, target = problem.model, problem.load([0]).x[0], photograph.judge.target
    field = ig.TorchField(net, 0, normalisation=problem.normalisation)
    blank = judge.FILLS["corners"](x[None], field)[0, 0]
    values = photograph.shares[1]
    merit = (values if rank == "signed" else values.abs()).sum(0).flatten()
    order = sorted(range(SIDE * SIDE), key=lambda i: -float(merit[i]))

    def row(gone: list[int]) -> Tensor:
        result = x.clone()
        for i in gone:
            result[:, i // SIDE, i % SIDE] = blank[:, i // SIDE, i % SIDE]
        return result

    def area(shares: list[float], heights: list[float]) -> float:
        return sum(
            (b - a) * (p + q) / 2
            for a, b, p, q in zip(shares, shares[1:], heights, heights[1:], strict=False)
        )

    gone = [0.0, *judge.DELETED, 1.0]
    kept = [0.0, *judge.KEPT, 1.0]
    deletion = area(gone, [_probability(net, row(order[: round(s * 100)]), target) for s in gone])
    insertion = area(kept, [_probability(net, row(order[round(s * 100) :]), target) for s in kept])
    whole = float(net(x[None])[0, target])
    ratios = [
        float(net(row(order[100 - round(r * 100) :])[None])[0, target]) / whole
        - float(net(row(order[: round(r * 100)])[None])[0, target]) / whole
        for r in judge.BOTH
    ]
    measured = photograph.judge.measured(photograph.shares[:2], "corners", rank)
    assert float(measured.values["deletion"][1]) == pytest.approx(deletion, rel=1e-4)
    assert float(measured.values["insertion"][1]) == pytest.approx(insertion, rel=1e-4)
    assert float(measured.values["DiffID"][1]) == pytest.approx(sum(ratios) / 4, rel=1e-3, abs=1e-5)
    assert measured.curves["deletion"][1, 0] == pytest.approx(
        _probability(net, x, target), rel=1e-4
    )


@pytest.mark.parametrize("fill", judge.FILLS)
def test_numbers_are_those_of_the_library_s_metrics(
    problem: Problem, photograph: Photograph, fill: str
) -> None:
    """DiffID under every fill, ROAD in both directions: by the metrics anybody can call."""
    measured = photograph.judge.measured(photograph.shares, fill, "signed").values
    by = {
        "DiffID": ig.metrics.DiffID(shares=judge.BOTH, fill=judge.FILLS[fill], rank="signed"),
        "deletion": ig.metrics.ROAD(shares=judge.BOTH, fill=judge.FILLS[fill]),
        "insertion": ig.metrics.ROADLeRF(shares=judge.BOTH, fill=judge.FILLS[fill]),
    }
    field = ig.TorchField(
        problem.model,
        ig.targets.Logit(photograph.judge.target),
        normalisation=problem.normalisation,
    )
    x = problem.load([0]).x
    for direction, metric in by.items():
        if direction != "DiffID" and fill != judge.IMPUTED:
            continue
        theirs = ig.metrics.judge(field, x, list(photograph.shares[:, None]), metric)[:, 0]
        torch.testing.assert_close(
            measured[direction].float(), theirs.float(), rtol=1e-3, atol=1e-4
        )


def test_a_perfect_order_beats_its_reverse(photograph: Photograph) -> None:
    """Deletion falls and insertion rises when a map is read the right way round."""
    maps = torch.stack([photograph.shares.mean(0), -photograph.shares.mean(0)])
    measured = photograph.judge.measured(maps, "grey", "signed").values
    assert measured["deletion"][0] < measured["deletion"][1]
    assert measured["insertion"][0] > measured["insertion"][1]
    assert measured["DiffID"][0] > 0 > measured["DiffID"][1]


# --- weights ----------------------------------------------------------------------------------------------------------


def _evidence() -> Evidence:
    return Evidence(
        fitness={"corners": torch.tensor([10.0, 40.0]), "grey": torch.tensor([50.0, 50.0]), "blur": torch.tensor([5.0, 20.0])},
        removal={"corners": torch.tensor([0.1, 0.3]), "grey": torch.tensor([0.2, 0.2]), "blur": torch.tensor([0.0, 0.5])},
        insertion={"corners": torch.tensor([0.5, 0.4]), "grey": torch.tensor([0.3, 0.2]), "blur": torch.tensor([0.6, 0.6])},
        probability=torch.tensor([0.001, 0.001 * math.e]),
        classes=1000,
        scores=torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "judged", "weights"),
    [
        ("EG", "grey", (0.5, 0.5)),
        ("WG", "grey", (0.8, 0.2)),  # 1/10 : 1/40
        ("WG, grey", "grey", (0.5, 0.5)),
        ("1/D, other fills", "corners", (0.65, 0.35)),  # (.5 + .8)/2
        ("1/D, other fills", "grey", (0.8, 0.2)),
        ("1/D, other fills", "ROAD", (0.7, 0.3)),  # (.8 + .5 + .8)/3
        ("1/D, shrunk", "grey", (0.8, 0.2)),  # log D the same but for a factor
        ("1/D, shrunk", "corners", (0.5, 0.5)),  # grey says nothing
        ("agreement", "grey", (0.5, 0.5)),  # of two maps the cosine is mutual
        ("calibration", "grey", (2 / 3, 1 / 3)),  # e times the uninformed probability
    ],
)
def test_weights_by_hand(name: str, judged: str, weights: tuple[float, ...]) -> None:
    candidate = CANDIDATES[name]
    seen = candidate.sees(judged, ("corners", "grey", "blur"))
    assert candidate.weigh(_evidence(), seen).tolist() == pytest.approx(weights)


def test_weights_by_areas() -> None:
    """exp of the mean of insertion − removal over the two other fills, ten times."""
    seen = CANDIDATES["areas, other fills"].sees("blur", ("corners", "grey", "blur"))
    a, b = math.exp(10 * (0.4 + 0.1) / 2), math.exp(10 * (0.1 + 0.0) / 2)
    weights = candidates.by_areas(_evidence(), seen)
    assert weights.tolist() == pytest.approx([a / (a + b), b / (a + b)])


def test_no_candidate_sees_the_judge_s_fill_but_those_that_say_so(photograph: Photograph) -> None:
    """Changing what is known under a fill changes no weights that are judged by it."""
    fills = ("corners", "grey", "blur")
    known = photograph.evidence
    for judged in fills:
        other = Evidence(
            {**known.fitness, judged: known.fitness[judged].flip(0) + 3},
            {**known.removal, judged: known.removal[judged].flip(0) + 1},
            {**known.insertion, judged: known.insertion[judged].flip(0)},
            known.probability,
            known.classes,
            known.scores,
        )
        for name, candidate in CANDIDATES.items():
            if candidate.seen is not None and judged in candidate.seen:
                continue
            seen = candidate.sees(judged, fills)
            assert candidate.weigh(known, seen).equal(candidate.weigh(other, seen)), name


@pytest.mark.parametrize("name", CANDIDATES)
def test_weights_stay_on_the_simplex_at_the_extremes(name: str) -> None:
    """Ties, a fitness of 1 beside the worst, maps of zero, a reference of probability 0, a single reference."""
    ties = torch.full((3,), 7.0)
    for count in (1, 3):
        evidence = Evidence(
            {"corners": ties[:count], "grey": torch.tensor([1.0, 50176.0, 50176.0])[:count], "blur": ties[:count]},
            dict.fromkeys(("corners", "grey", "blur"), torch.zeros(count)),
            dict.fromkeys(("corners", "grey", "blur"), torch.tensor([0.0, 1.0, 50.0])[:count]),
            torch.tensor([0.0, 1.0, 0.5])[:count],
            1000,
            torch.zeros(count, 4),
        )  # fmt: skip
        for judged in ("corners", "grey", "ROAD"):
            weights = CANDIDATES[name].weigh(
                evidence, CANDIDATES[name].sees(judged, ("corners", "grey", "blur"))
            )
            assert weights.shape == (count,)
            assert bool((weights >= 0).all())
            assert float(weights.sum()) == pytest.approx(1)


# --- running ----------------------------------------------------------------------------------------------------------


def test_the_study_goes_on_where_it_stopped(problem: Problem, tmp_path: Path) -> None:
    few = {name: CANDIDATES[name] for name in ("EG", "WG", "areas, other fills")}
    whole = study.go_on(
        problem, [0, 1], tmp_path / "whole.parquet", few, fast=problem.model, nodes=NODES
    )
    file = tmp_path / "parts.parquet"
    study.go_on(problem, [0], file, few, fast=problem.model, nodes=NODES, scratch=tmp_path / "maps")
    first = file.stat().st_mtime_ns
    study.go_on(problem, [0], file, few, fast=problem.model, nodes=NODES)
    assert file.stat().st_mtime_ns == first
    again = study.go_on(
        problem, [0, 1], file, few, fast=problem.model, nodes=NODES, scratch=tmp_path / "maps"
    )
    assert whole is not None
    assert again is not None
    assert again.examples == ("p0", "p1")
    np.testing.assert_allclose(again.values, whole.values)
    assert again.gradients[0].tolist() == [3 * NODES] * 2
    assert again.rows[1, 0] == again.about["p0"]["costs"]["fitness, corners"]["rows"] > 0
    stopped = study.go_on(problem, [0, 1, 2], file, few, minutes=0.0)
    assert stopped is not None
    assert len(stopped) == 2


def test_the_second_half_waits_for_the_choice(tmp_path: Path) -> None:
    with pytest.raises(ig.errors.InputError, match="does not say what that is yet"):
        study.judged(tmp_path / "choice.json")
    (tmp_path / "choice.json").write_text(json.dumps({"chosen": "agreement"}))
    assert list(study.judged(tmp_path / "choice.json")) == ["EG", "WG", "agreement"]


# --- the best weights there are ---------------------------------------------------------------------------------------


def test_the_lattice_of_the_simplex() -> None:
    points = best.lattice(3)
    assert len(points) == 3 + 3 + 1
    assert bool((points >= 0).all())
    torch.testing.assert_close(points.sum(1), torch.ones(7, dtype=torch.float64))
    assert sorted(points.max(1).values.tolist()) == pytest.approx([1 / 3, 0.5, 0.5, 0.5, 1, 1, 1])
    assert len(best.lattice(1)) == 1
    torch.testing.assert_close(
        best.around(torch.tensor([1.0, 0.0]).double()),
        torch.tensor([[1.0, 0.0], [2 / 3, 1 / 3]]).double(),
    )


def test_the_best_weights_are_the_best_of_all_that_were_tried(photograph: Photograph) -> None:
    """Everything that was looked at, measured again one map at a time: none is better by the criterion it was searched by."""
    starts = {"EG": torch.full((3,), 1 / 3).double(), "WG": torch.tensor([0.2, 0.3, 0.5]).double()}
    found, table = best.searched(photograph, starts)
    assert set(found) == {
        best.chosen_on(d, f) for d in best.SEARCHED for f in ("corners", "grey", "blur")
    }
    for fill in ("corners", "blur"):
        looked = list(table.known[fill])
        assert len(looked) > 8
        again = {
            key: photograph.judge.measured(
                photograph.map(torch.tensor([key], dtype=torch.float64)), fill, "signed"
            ).values
            for key in looked
        }
        for direction in best.SEARCHED:
            sign = 1 if direction == "insertion" else -1
            reached = photograph.judge.measured(
                photograph.map(found[best.chosen_on(direction, fill)][None]), fill, "signed"
            ).values[direction]
            most = max(sign * float(values[direction]) for values in again.values())
            assert sign * float(reached) == pytest.approx(most, abs=1e-7)


def test_the_search_goes_on_where_it_stopped(problem: Problem, tmp_path: Path) -> None:
    """What it takes from the study is what the study wrote; the table says what weights of its own come to by other criteria."""
    study_scores = study.go_on(
        problem, [0, 1], tmp_path / "scores.parquet", CANDIDATES, fast=problem.model, nodes=NODES
    )
    assert study_scores is not None
    file = tmp_path / "best.parquet"
    for _ in range(2):
        found = best.go_on(problem, [0, 1, 2], study_scores, file, fast=problem.model, nodes=NODES)
    assert found is not None
    assert found.examples == ("p0", "p1")
    assert len(found.metrics) == 12
    shared = [m for m in found.metrics if m in study_scores.metrics]
    for label in best.STARTS:
        np.testing.assert_allclose(
            found.select(methods=[label], metrics=shared).values,
            study_scores.select(methods=[label], metrics=shared).values,
            atol=1e-6,
        )
    ours, theirs = (
        found.of("deletion, grey, signed")[found.methods.index(name)]
        for name in (best.chosen_on("deletion", "grey"), "EG")
    )
    assert bool((ours <= theirs).all())


# --- choosing ---------------------------------------------------------------------------------------------------------


def _scores(shift: dict[str, float], examples: int = 30) -> Scores:
    """Scores of all candidates that differ from EG's by a share, in the direction of better, and noise."""
    rng = np.random.default_rng(3)
    level = {metric: 0.2 + 0.1 * i for i, metric in enumerate(study.METRICS)}
    values = np.stack(
        [
            [
                level[metric]
                * (
                    1
                    + (1 if higher else -1) * shift.get(name, 0.0)
                    + 0.01 * rng.normal(size=examples)
                )
                for metric, higher in study.METRICS.items()
            ]
            for name in CANDIDATES
        ]
    )
    nothing = np.zeros((len(CANDIDATES), examples))
    return Scores(
        values,
        tuple(CANDIDATES),
        tuple(study.METRICS),
        tuple(study.METRICS.values()),
        tuple(f"p{i}" for i in range(examples)),
        **dict.fromkeys(COSTS, nothing),
    )


def test_the_best_on_unseen_fills_is_chosen_and_never_before_the_half_is_complete() -> None:
    scores = _scores({"agreement": 0.05, "areas, other fills": 0.1, "WG": 0.3})
    assert choose.chosen(scores, 30) == "areas, other fills"  # WG is not ours
    best_gain = choose.table(scores)[1]
    assert best_gain.mean == pytest.approx(0.1, abs=0.01)
    assert best_gain.low < 0.1 < best_gain.high
    assert best_gain.p < 0.05
    for half in (31, 0):
        with pytest.raises(ig.errors.InputError, match="second look"):
            choose.chosen(scores, half)


def test_gains_leave_out_fills_that_were_seen() -> None:
    """WG by grey is judged by 6 criteria, others by 8; a gain under grey alone is none for it."""
    assert len(choose.unseen(CANDIDATES["WG, grey"])) == 6
    assert len(choose.unseen(CANDIDATES["areas, other fills"])) == 8
    scores = _scores({})
    at = scores.metrics.index("deletion, grey, signed")
    scores.values[scores.methods.index("WG, grey"), at] = 0
    scores.values[scores.methods.index("agreement"), at] = 0
    rows = {row.name: row.mean for row in choose.table(scores)}
    assert rows["WG, grey"] == pytest.approx(0, abs=0.01)
    assert rows["agreement"] == pytest.approx(1 / 8, abs=0.01)
    slow = np.mean(
        [
            (1 if scores.is_higher(m) else -1)
            * (
                scores.of(m)[scores.methods.index("agreement")].mean()
                / scores.of(m)[scores.methods.index("EG")].mean()
                - 1
            )
            for m in choose.unseen(CANDIDATES["agreement"])
        ]
    )
    assert rows["agreement"] == pytest.approx(slow)


def test_rivals_are_the_suite_s_methods_judged_by_this_judge(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IG of the table is the library's, its numbers are the judge's; a map that fails has none; a second run adds what is missing."""
    recipe = SuiteRun(
        "photographs",
        "toy",
        {
            "IG": "integrated(one, rule=GaussLegendre(4))",
            "broken": "integrated(nothing)",
            "IG2, shrinking steps": "integrated(one)",
            "random map": "RandomMap()",
        },
        {"DiffID": "diffid()"},
        reference="IG",
    )
    black = ig.baselines.black()
    nothing = torch.full((3, SIDE, SIDE), torch.nan)
    words = {**problem.words, "one": black, "nothing": nothing}
    toy = dataclasses.replace(problem, words=words)
    monkeypatch.setattr(rivals.suite, "suite", lambda name: _Suite(recipe))
    file = tmp_path / "rivals.parquet"
    rivals.go_on("lite0", toy, file, 1)
    scores = rivals.go_on("lite0", toy, file, 2)
    assert scores is not None
    assert scores.methods == ("IG", "broken", "random map")
    assert scores.controls == ("random map",)
    assert len(scores) == 2
    assert len(Scores.from_parquet(file)) == 2
    assert np.isnan(scores.values[1]).all()
    assert "NaN" in scores.reasons["broken", "p1"]
    x = problem.load([1]).x
    target = ig.targets.Logit(int(problem.model(x).argmax()))
    field = ig.TorchField(problem.model, target, normalisation=problem.normalisation)
    attribution = ig.methods.integrated(black, rule=ig.rules.GaussLegendre(4))(field, x)
    with rivals.judging(toy, 1, problem.model) as subject_judge:
        measured = subject_judge.measured(attribution.values, "blur", "magnitude").values
    for direction, value in measured.items():
        stored = scores.of(judge.criterion(direction, "blur", "magnitude"))[0, 1]
        assert stored == pytest.approx(float(value[0]), rel=1e-3, abs=1e-5)
    assert scores.gradients[0].tolist() == [4, 4]


@dataclasses.dataclass(frozen=True)
class _Suite:
    recipe: SuiteRun

    def run(self, name: str) -> SuiteRun:
        assert name == "photographs"
        return self.recipe
