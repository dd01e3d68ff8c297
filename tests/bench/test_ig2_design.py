"""The designed experiment on IG2: orthogonality by counting, effects by hand, recipes that are read, an effect that was planted."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

import integrand as ig
from benchmarks import ig2_design
from benchmarks.ig2_design import SETTINGS, contrasts, design, effects, named, recipe, typed
from integrand.bench import suite
from integrand.bench.names import method, metric
from integrand.bench.problems import Examples, Problem
from integrand.bench.problems.digits import DigitNet
from integrand.compare.scores import COSTS, Scores
from integrand.core.normalisation import Normalisation

scipy_stats = pytest.importorskip("scipy.stats")


def test_no_main_effect_is_mixed_up_with_another_or_with_a_pair() -> None:
    """Every level of every factor in 8 runs, every pair of levels in 4, every triple in 2 but those the design is made of."""
    table = design()
    assert table.shape == (16, 7)
    assert len({tuple(row) for row in table.tolist()}) == 16
    for a in range(7):
        assert sorted(table[:, a].tolist()) == [-1.0] * 8 + [1.0] * 8
    for a, b in combinations(range(7), 2):
        assert table[:, a] @ table[:, b] == 0
        for c in range(7):
            if c not in (a, b):
                assert table[:, a] * table[:, b] @ table[:, c] == 0  # resolution IV


def test_effects_are_differences_of_means() -> None:
    values = np.random.default_rng(0).normal(size=(16, 5))
    slow = [
        [
            values[design()[:, f] > 0, e].mean() - values[design()[:, f] < 0, e].mean()
            for e in range(5)
        ]
        for f in range(7)
    ]
    np.testing.assert_allclose(contrasts(values), slow)


def _table(values: np.ndarray, higher: bool) -> Scores:
    nothing = np.zeros((16, values.shape[1]))
    order = np.random.default_rng(1).permutation(16)  # whatever order the methods are stored in
    return Scores(
        values[order][:, None],
        tuple(named(row) for row in design()[order]),
        ("m",),
        (higher,),
        tuple(map(str, range(values.shape[1]))),
        **dict.fromkeys(COSTS, nothing),
    )


@pytest.mark.parametrize("higher", [True, False])
def test_what_was_planted_is_found(higher: bool) -> None:
    """Two factors that act, a pair that acts together, and noise of examples: the two are found, nothing else is."""
    rng = np.random.default_rng(2)
    table = design()
    sign = 1 if higher else -1
    values = (
        1
        + rng.normal(size=(1, 40))
        + sign * 0.1 * table[:, [1]]
        - sign * 0.05 * table[:, [5]]
        + 0.1 * table[:, [0]] * table[:, [2]]
        + 0.05 * rng.normal(size=(16, 40))
    )
    values[3, 7] = np.nan
    found = effects(_table(values, higher), SETTINGS["digits"].factors)
    assert [effect.examples for effect in found] == [39] * 7
    significant = {effect.factor: effect.mean for effect in found if effect.corrected < 0.05}
    assert significant == {
        "rate": pytest.approx(0.2, abs=0.02),
        "rule": pytest.approx(-0.1, abs=0.02),
    }
    assert all(effect.low < effect.mean < effect.high for effect in found)


@pytest.mark.parametrize("name", SETTINGS)
def test_recipes_are_read(name: str) -> None:
    """Every combination differs from every other, and says what its levels are."""
    setting = SETTINGS[name]
    run = suite.parsed("design", recipe(name)).run(name)
    assert len(set(run.methods.values())) == 16
    low, high = (typed(setting, [level] * 7) for level in (-1, 1))
    assert low.startswith("ig2(others(1), representation=None, steps=10, ")
    assert "rule=Right(), step=Fixed()" in low
    assert "rule=Simpson(2), step=Shrinking()" in high
    for factor in setting.factors:
        assert factor.typed[0] in low
        assert factor.typed[1] in high


def _digits() -> Problem:
    """The network of digits, untrained, with the words of its problem that the experiment uses."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = DigitNet().eval().requires_grad_(False)
        net.head.bias.copy_(10 * torch.arange(10.0) % 3)
    x = torch.rand(30, 1, 28, 28, generator=torch.Generator().manual_seed(1)) ** torch.linspace(
        0.2, 5, 30
    ).reshape(-1, 1, 1, 1)
    pool = x[10:]
    return Problem(
        "digits, untrained",
        net,
        tuple(f"d{i}" for i in range(10)),
        lambda numbers: Examples(x[list(numbers)]),
        normalisation=Normalisation.unit(),
        words={
            "pool": pool,
            "zero": ig.baselines.Constant(0.0),
            "mean": ig.baselines.Mean(),
            "blurred": ig.baselines.Blurred(2.0),
            "references": lambda count: ig.baselines.Given(pool[:count]),
            "others": lambda count: ig.baselines.Given(pool[-count:]),
            "low": 0.0,
            "high": 1.0,
        },
    )


@pytest.mark.filterwarnings("ignore::integrand.errors.IncompleteWarning")
def test_the_experiment_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The cheapest and the dearest combination are what they are called; maps that should agree are held against one another."""
    problem, setting = _digits(), SETTINGS["digits"]
    with problem.subject([0, 1]) as subject:
        for level in (-1, 1):
            made = method(typed(setting, [level] * 7), problem.words)(subject.field, subject.x)
            assert made.values.shape == subject.x.shape
            assert made.baselines is not None
            assert len(made.baselines) == (1 if level < 0 else 4)
            assert made.cost.gradients > (20 if level < 0 else 2 * 4 * 41)
        for text in setting.metrics.values():
            metric(text, problem.words)
    families = {
        "IG": ig2_design.STABLE["IG, other baselines"],
        "the same": ("integrated(zero, rule=GaussLegendre(4))",) * 3,
        "IG2": tuple(f"ig2(references(1), steps={n}, rate=rate)" for n in (2, 3)),
    }
    monkeypatch.setattr(ig2_design, "STABLE", families)
    found = ig2_design.stability(problem, "digits", [0, 1])
    assert found.methods == tuple(families)
    np.testing.assert_allclose(found.values[1], 1)
    assert bool((np.abs(found.values) <= 1).all())
    assert found.gradients[:, 0].tolist()[:2] == [25, 4]
    with problem.subject([0, 1]) as subject:  # one pair by hand
        maps = [
            method(text, {**problem.words, "rate": 0.4})(subject.field, subject.x).values.flatten(1)
            for text in families["IG2"]
        ]
    by_hand = scipy_stats.spearmanr(maps[0][1], maps[1][1]).statistic
    assert found.values[2, 0, 1] == pytest.approx(by_hand, abs=1e-4)
    file = tmp_path / "stability.parquet"
    for _ in range(2):
        ig2_design.go_on_stability(problem, "digits", [0], file, None)
    kept = Scores.from_parquet(file)
    assert kept.examples == ("d0",)
    np.testing.assert_allclose(kept.values[..., 0], found.values[..., 0], atol=0.02)
