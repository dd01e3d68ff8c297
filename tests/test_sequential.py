"""Sequential Integrated Gradients: against the official numbers, and against one run for each word."""

from __future__ import annotations

import gc
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import integrand as ig
from integrand.core.features import feature_map
from integrand.integration import Explainer, core, with_core
from integrand.model.row_independence import ROWS
from tests.memory import held_bytes
from tests.problems import PROBLEMS, Counting, Problem, filled, pick, wave
from tests.test_discretized import FIELD, MODEL, PAD, SENTENCES, TABLE, E, X, three_words

OFFICIAL = json.loads((Path(__file__).parent / "references" / "paths.json").read_text())
FINE = ig.rules.GaussLegendre(12)
WORDS = TABLE[SENTENCES]  # three sentences of five words of four numbers


def near(found: Tensor, expected: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(found, expected.to(found), rtol=0, atol=tolerance)


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


# --- the official numbers ---------------------------------------------------------------------------------------------


def test_official() -> None:
    """50 Gauss–Legendre nodes; the official ones are float32, which is all of the 3e-10 that are left."""
    method = ig.methods.sequential(baseline=E[PAD], rule=ig.rules.GaussLegendre(50))
    made = ig.explain(three_words, X, target=ig.targets.Output(), method=method)
    official = torch.tensor(OFFICIAL["Sequential IG (tint)"]["official"], dtype=torch.float64)
    near(made.values.flatten(), official, 4e-10)
    # Each word adds up to what F loses without it, and all of them not to what it loses without all.
    without = X.repeat(3, 1, 1)
    without[range(3), range(3)] = E[PAD]
    near(made.values[0].sum(1), FIELD.value(X) - FIELD.value(without), 1e-13)
    assert (
        abs(float(made.values.sum() - FIELD.value(X) + FIELD.value(E[PAD].expand(1, 3, 5)))) > 0.01
    )


# --- the definition ---------------------------------------------------------------------------------------------------


def by_hand(p: Problem, b: int, groups: Tensor, n: int = 50) -> tuple[Tensor, Tensor]:
    """The map of an example and its features' effects: each feature from every reference, 50 midpoints, the mean of references."""
    field, x = p.field(), p.packed()[b : b + 1]
    index = torch.tensor([b])
    values, effects = torch.zeros_like(x), []
    for feature in range(int(groups.max()) + 1):
        effect = 0.0
        for reference in p.references:
            start = torch.where(groups == feature, reference, x)
            mean = (
                sum(
                    field.rows(start + (q + 0.5) / n * (x - start), index).gradient
                    for q in range(n)
                )
                / n
            )
            values += (x - start) * mean / len(p.references)
            ends = field.rows(torch.cat([x, start]), index.expand(2), gradient=False).value
            effect += float(ends[0] - ends[1]) / len(p.references)
        effects.append(effect)
    return values[0], torch.tensor(effects, dtype=torch.float64)


@pytest.mark.parametrize(
    ("problem", "features"),
    [
        ("t6", "auto"),
        ("img", "auto"),
        ("img", 2),
        ("softplus cnn", 3),
        ("extra arguments", "auto"),
        ("dict input", "auto"),
    ],
)
def test_by_hand(problem: str, features: Any, quiet: None) -> None:
    p = PROBLEMS[problem]
    rule = ig.rules.Midpoint(50)
    method = ig.methods.sequential(
        features=features, baseline=ig.baselines.Given(p.references), rule=rule
    )
    packed = method(p.field(), p.packed())
    groups = feature_map(features, p.packed())
    for b in (0, 3):
        values, effects = by_hand(p, b, groups)
        near(packed.values[b], values, 1e-12)
        near(packed.notes["effect"][0, 0, b], effects, 1e-13)
    assert type(run(p, method).values) is type(p.inputs)


@pytest.mark.parametrize("problem", list(PROBLEMS))
def test_every_problem(problem: str, quiet: None) -> None:
    """Complete feature by feature; five at once are five alone; rows per call do not matter."""
    p = PROBLEMS[problem]
    method = ig.methods.sequential(baseline=ig.baselines.Given(p.references), rule=FINE)
    whole = method(p.field(), p.packed())
    near(whole.values.flatten(1).sum(1) + whole.residual, whole.output - whole.base)
    near(whole.notes["missed"][0, 0].sum(1), whole.residual)
    near(whole.notes["effect"][0, 0].sum(1), whole.change[0])
    assert torch.equal(whole.weights, torch.ones(1, 5).double())
    if p.smooth:
        near(whole.notes["missed"], torch.zeros_like(whole.notes["missed"]), 1e-5)
    for b in range(5):
        only = p.only(b)
        alone = method(only.field(), only.packed())
        for name in ("values", "residual", "output"):
            near(getattr(alone, name)[0], getattr(whole, name)[b], 1e-11)
        near(alone.notes["effect"][:, :, 0], whole.notes["effect"][:, :, b], 1e-11)
    near(run(p.only(1), method, batch_size=3).residual, whole.residual[1:2], 1e-11)


def test_words_are_what_moves_in_a_sentence() -> None:
    by_default, tokens = (
        ig.explain(
            MODEL,
            WORDS,
            target=0,
            method=ig.methods.sequential(features=features, baseline=TABLE[14], rule=FINE),
        )
        for features in ("auto", "tokens")
    )
    assert torch.equal(by_default.values, tokens.values)
    assert tokens.notes["effect"].shape == (1, 1, 3, 5)
    # Numbers one by one are another question.
    single = ig.explain(
        MODEL,
        WORDS,
        target=0,
        method=ig.methods.sequential(features="elements", baseline=TABLE[14]),
    )
    assert single.notes["effect"].shape == (1, 1, 3, 20)
    assert float((single.values - tokens.values).abs().max()) > 1e-3


def test_label_maps_of_their_own() -> None:
    p = PROBLEMS["softplus cnn"]
    maps = (
        torch.arange(5)[:, None, None] + torch.arange(8)[:, None] // 2 + torch.arange(8) // 4
    ) % 4
    method = ig.methods.sequential(
        features=maps, baseline=ig.baselines.Given(p.references[:1]), rule=FINE
    )
    whole = run(p, method)
    for b in range(5):
        own = run(p.only(b), replace(method, features=maps[b : b + 1]))
        near(own.values[0], whole.values[b], 1e-12)


# --- what it costs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [(), (0, -1)])
def test_gradients_and_values_are_counted(kept: tuple[int, ...]) -> None:
    """n · R · nodes gradients for each example, n · R + 1 values; words that are kept cost nothing."""
    model = Counting(MODEL)
    baselines = ig.baselines.Masked([ig.baselines.Constant(TABLE[14]), 0.1], kept)
    method = ig.methods.sequential(baseline=baselines, rule=ig.rules.GaussLegendre(7))
    made = ig.explain(model, WORDS, target=0, method=method)
    words = 5 - len(kept)
    assert model.gradients == made.cost.gradients == 3 * words * 2 * 7
    assert model.values == made.cost.values == 3 * (words * 2 + 1) + ROWS
    if kept:
        assert bool((made.values[:, [0, -1]] == 0).all())
        assert bool((made.notes["effect"][0, 0][:, [0, -1]] == 0).all())
    assert bool((made.values[:, 1:-1] != 0).all())


def test_words_of_each_example_that_are_kept() -> None:
    """Sentences of different lengths: what is padding is kept, and a sentence has the map it has alone."""
    mask = torch.arange(5) >= torch.tensor([5, 3, 1])[:, None]
    model = Counting(MODEL)
    rule = ig.rules.GaussLegendre(7)
    made = ig.explain(
        model,
        WORDS,
        target=0,
        method=ig.methods.sequential(baseline=ig.baselines.Masked(0.0, mask), rule=rule),
    )
    assert model.gradients == 9 * 7
    assert bool((made.values[mask] == 0).all())
    assert bool((made.values[~mask] != 0).all())
    for b in range(3):
        own = ig.baselines.Masked(0.0, mask[b : b + 1])
        alone = ig.explain(
            MODEL, WORDS[b : b + 1], target=0, method=ig.methods.sequential(baseline=own, rule=rule)
        )
        near(alone.values[0], made.values[b])


def test_nothing_moves_where_all_is_kept() -> None:
    made = ig.explain(
        MODEL,
        WORDS,
        target=0,
        method=ig.methods.sequential(baseline=ig.baselines.Masked(0.0, range(5))),
    )
    assert torch.equal(made.values, torch.zeros_like(WORDS))
    assert made.cost.gradients == 0
    assert bool(made.converged.all())
    near(made.output, MODEL(WORDS)[:, 0].detach())


@pytest.mark.parametrize("most", [1, 2, 7])
def test_it_does_not_depend_on_the_size_of_batches(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And progress is shown against all of the work, whatever part of it is under way."""
    method = ig.methods.sequential(baseline=ig.baselines.Given(wave(2, 5, 4)), rule=FINE)
    whole = ig.explain(MODEL, WORDS, target=0, method=method)
    monkeypatch.setattr("integrand.core.memory_budget._BLOCK_ON_CPU", most * 2 * 20)
    shown: list[tuple[int, int | None]] = []
    again = ig.explain(
        MODEL,
        WORDS,
        target=0,
        method=method,
        progress=lambda tally: shown.append((tally.gradients, tally.expected)),
    )
    near(again.values, whole.values, 1e-14)
    near(again.residual, whole.residual, 1e-14)
    assert again.cost.calls > whole.cost.calls
    assert again.cost.gradients == whole.cost.gradients == 15 * 2 * 12
    assert {expected for _, expected in shown} == {15 * 2 * 12}
    assert shown[-1][0] == 15 * 2 * 12


def test_memory_is_flat_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five times as many words: five times as large a map, not 25 times."""
    monkeypatch.setattr("integrand.core.memory_budget._BLOCK_ON_CPU", 1 << 12)
    most: list[int] = []

    class Watched(ig.fields.Function):
        calls = 0

        def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Any:
            self.calls += gradient
            if gradient and self.calls in (2, 5):
                most[-1] = max(most[-1], held_bytes())
            return super().evaluate(z, index, gradient=gradient)

    for words in (16, 80):
        x = wave(1, words, 64)
        gc.collect()
        before = held_bytes()
        most.append(0)
        ig.methods.sequential(rule=ig.rules.Midpoint(4))(
            Watched(lambda z: torch.tanh(z).flatten(1).mean(1)), x
        )
        most[-1] -= before
    assert most[1] < 64 * 80 * 64 * 8  # a map for each of the words would be 80
    assert most[1] - most[0] < 40 * 64 * 64 * 8


# --- around methods ---------------------------------------------------------------------------------------------------

AROUND: dict[str, Explainer] = {
    "discretized": ig.methods.discretized(TABLE, TABLE[14], 10, 5, rule=FINE),
    "guided": ig.methods.guided(TABLE[14], 10, rule=ig.rules.GaussLegendre(4)),
    "expected": ig.methods.expected(wave(3, 5, 4, phase=2), rule=FINE),
    "weighted": ig.methods.weighted(wave(3, 5, 4, phase=2), rule=FINE, fill=0.0),
    "smoothgrad": ig.methods.smoothgrad(draws=3, baseline=TABLE[14], rule=FINE),
}


@pytest.mark.parametrize("name", list(AROUND))
def test_around_any_method(name: str, quiet: None) -> None:
    """One run for each word, its own part of the map and no other."""
    method = AROUND[name]
    field = ig.TorchField(MODEL, 0)
    made = ig.Sequential(method)(field, WORDS)
    references = core(method).baseline(WORDS, field)
    for n in range(5):
        start = WORDS.expand_as(references).clone()
        start[:, :, n] = references[:, :, n]
        given = ig.baselines.Given(start)
        from_there = with_core(method, lambda one, given=given: replace(one, baseline=given))(
            field, WORDS
        )
        near(made.values[:, n], from_there.values[:, n], 1e-11)
        near(
            made.notes["effect"][0, 0, :, n], (from_there.weights * from_there.change).sum(0), 1e-12
        )
    assert made.method == ig.Sequential(method)


def test_set_up_by_name() -> None:
    made = ig.explain(
        MODEL, WORDS, target=0, method="sequential", of="integrated", baseline=TABLE[14], rule=FINE
    )
    by_hand = ig.Sequential(ig.methods.integrated(TABLE[14], FINE))
    assert torch.equal(made.values, ig.explain(MODEL, WORDS, target=0, method=by_hand).values)
    again = ig.explain(
        MODEL, WORDS, target=0, method=ig.methods.sequential(), baseline=TABLE[14], tol=1e-3
    )
    assert bool((again.error <= 1e-3).all())
    assert bool(again.converged.all())
    assert float(again.error.min()) > 0
    real = (again.values - made.values).flatten(1).norm(dim=1) / made.values.flatten(1).norm(dim=1)
    assert bool((real <= 1e-3).all())
    with pytest.raises(ig.errors.InputError, match=r"needs table=: .* of=ig.methods.discretized"):
        ig.methods.sequential("discretized")


def test_a_rule_that_estimates_no_error() -> None:
    made = ig.explain(
        MODEL, WORDS, target=0, method=ig.methods.sequential(baseline=TABLE[14], rule=FINE)
    )
    assert bool(made.error.isnan().all())
    assert bool(made.converged.all())


def test_maps_that_miss_their_effect_are_told() -> None:
    steep = ig.fields.Function(lambda z: torch.sigmoid(40 * (z[:, 0, 0] - 0.5)) + z[:, 1, 0])
    x = torch.tensor([[[1.0], [1.0]], [[0.1], [1.0]]]).double()
    message = r"2 of 4 features miss .*: feature 0 of example 0 adds up to \S+ where F changes by 1 without it\. Ask for a tolerance"
    with pytest.warns(ig.errors.IncompleteWarning, match=message) as caught:
        made = ig.methods.sequential(rule=ig.rules.Midpoint(2))(steep, x)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert made.converged.tolist() == [False, False]  # of a change by 1e-7 all is missed, too
    assert abs(float(made.notes["missed"][0, 0, 0, 0])) > 0.5
    near(made.notes["missed"][0, 0, :, 1], torch.zeros(2))


def test_the_path_stays_between_each_words_baseline_and_the_input() -> None:
    """Other words are as they are in the input, to the last digit, wherever the model is asked."""
    seen: list[Tensor] = []

    def noting(z: Tensor) -> Tensor:
        seen.append(z.detach().clone())
        return three_words(z)

    ig.methods.sequential(baseline=E[PAD], rule=ig.rules.Midpoint(3))(ig.fields.Function(noting), X)
    rows = torch.cat(seen)
    moved = (rows != X).any(2)
    assert int(moved.sum(1).max()) == 1
    assert bool((moved.sum(0) >= 3).all())
    low, high = torch.minimum(X, E[PAD]), torch.maximum(X, E[PAD])
    assert bool(((rows >= low) & (rows <= high)).all())


def test_several_targets() -> None:
    method = ig.methods.sequential(baseline=TABLE[14], rule=FINE)
    several = ig.explain_targets(MODEL, WORDS, targets=[0, 2], method=method)
    for made, target in zip(several, (0, 2), strict=True):
        near(made.values, ig.explain(MODEL, WORDS, target=target, method=method).values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_precision(dtype: torch.dtype, quiet: None) -> None:
    method = ig.methods.sequential(
        baseline=ig.baselines.Constant(TABLE[14]), rule=ig.rules.GaussLegendre(4)
    )
    exact = ig.explain(MODEL, WORDS, target=0, method=method)
    made = ig.explain(filled(type(MODEL)()).to(dtype), WORDS.to(dtype), target=0, method=method)
    assert made.values.dtype == torch.float32
    near(made.values, exact.values, {torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype])


def test_results_are_kept_and_cut(tmp_path: Path) -> None:
    made = ig.explain(
        MODEL, WORDS, target=0, method=ig.methods.sequential(baseline=TABLE[14], rule=FINE)
    )
    made.save(tmp_path / "map.safetensors")
    again = ig.load(tmp_path / "map.safetensors")
    assert torch.equal(again.values, made.values)
    assert torch.equal(again.notes["effect"], made.notes["effect"])
    one = made[1]
    assert torch.equal(one.notes["effect"], made.notes["effect"][:, :, 1:2])
    assert torch.equal(pick(made.values, 1), one.values)


# --- errors -----------------------------------------------------------------------------------------------------------


def test_paths_that_choose_their_own_start_are_refused(quiet: None) -> None:
    method = ig.methods.ig2(wave(2, 5, 4), representation=lambda z: z.flatten(1), steps=3)
    with pytest.raises(
        ig.errors.InputError,
        match=r"this method chooses its own start: wrap one .* such as ig.methods.integrated",
    ):
        ig.Sequential(method)(ig.TorchField(MODEL, 0), WORDS)


def test_what_is_refused() -> None:
    with pytest.raises(
        ig.errors.InputError, match=r"Sequential explains the inputs, and .* a layer"
    ):
        ig.Sequential(ig.methods.layer("first"))
    with pytest.raises(ig.errors.InputError, match=r"Sequential wraps a Method, .* not int"):
        ig.Sequential(3)
    with pytest.raises(
        ig.errors.ShapeError, match=r"features='pixels' does not fit examples of shape 5x4"
    ):
        ig.methods.sequential(features="pixels")(ig.TorchField(MODEL, 0), WORDS)
    with pytest.raises(ig.errors.IntegerInput):
        ig.methods.sequential()(
            ig.fields.Function(lambda z: z.sum((1, 2))), torch.ones(1, 2, 3, dtype=torch.long)
        )
    with pytest.raises(
        ig.errors.BaselineError, match=r"no position 9 to keep: an example of shape 5x4"
    ):
        ig.explain(
            MODEL,
            WORDS,
            target=0,
            method=ig.methods.sequential(baseline=ig.baselines.Masked(0.0, (9,))),
        )
