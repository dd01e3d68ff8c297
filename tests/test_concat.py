"""Attributions of batches, joined, are those of all examples at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import integrand as ig
from integrand.errors import InputError
from integrand.integration.attribution import Attribution
from tests.problems import tanh_mlp, wave

pytestmark = pytest.mark.filterwarnings("ignore::integrand.errors.IntegrandWarning")

X = wave(7, 6)
FINE: dict[str, Any] = {"rule": ig.rules.GaussLegendre(5)}
CASES: dict[str, dict[str, Any]] = {
    "one": {"target": 1, **FINE},
    "predicted": {"target": "predicted", **FINE},
    "expected": {
        "target": 0,
        "method": "expected",
        "baseline": wave(3, 6, phase=4),
        "record": ("shares", "path"),
        **FINE,
    },
    "weighted": {
        "target": 2,
        "method": "weighted",
        "baseline": ig.baselines.Given(wave(3, 6, phase=4)),
        "fill": 0.0,
        **FINE,
    },
    "ig2": {"target": 2, "method": "ig2", "references": wave(3, 6, phase=4), "steps": 3},
}


def same(a: Any, b: Any) -> None:
    if a is None or b is None:
        assert a is b
    else:
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sizes", [[7], [3, 4], [1] * 7])
@pytest.mark.parametrize("case", CASES)
def test_batches_joined_are_all_at_once(case: str, sizes: list[int]) -> None:
    model = tanh_mlp()
    whole = ig.explain(model, X, **CASES[case])
    parts = [ig.explain(model, x, **CASES[case]) for x in X.split(sizes)]
    joined = ig.concat(parts)
    for name in (
        "values", "inputs", "output", "weights", "change", "residual", "error", "converged",
        "shares", "baselines", "fitness",
    ):  # fmt: skip
        got, want = getattr(joined, name), getattr(whole, name)
        if name == "error" and bool(want.isnan().all()):
            assert bool(got.isnan().all())
        else:
            same(got, want)
    assert (joined.target, joined.method, joined.names) == (
        whole.target,
        whole.method,
        whole.names,
    )
    assert set(joined.notes) == set(whole.notes)
    for name, note in whole.notes.items():
        same(joined.notes[name], note)
    if whole.frames:
        same(joined.frames.points, whole.frames.points)  # type: ignore[union-attr]
    assert joined.cost.gradients == sum(part.cost.gradients for part in parts)
    assert joined.cost.values == sum(part.cost.values for part in parts)
    assert len(joined[[2, 5]]) == 2


def test_dicts_are_joined_by_name() -> None:
    inputs = {"a": wave(4, 3), "b": wave(4, 2)}
    model = lambda a, b: torch.stack([a.sum(1) * b.sum(1), a[:, 0]], 1)  # noqa: E731
    whole = ig.explain(model, inputs, target=0, **FINE)
    parts = [
        ig.explain(model, {n: t[rows] for n, t in inputs.items()}, target=0, **FINE)
        for rows in (slice(3), slice(3, 4))
    ]
    joined = ig.concat(parts)
    for name in "ab":
        same(joined.values[name], whole.values[name])


def test_what_only_some_have_kept_is_left_out() -> None:
    field = ig.fields.Linear(torch.ones(6).double())
    method = ig.methods.expected(wave(3, 6), rule=ig.rules.Midpoint())
    keeping = ig.methods.expected(wave(3, 6), rule=ig.rules.Midpoint())
    parts = [method(field, X[:3]), keeping(field, X[3:])]
    shares = ig.methods.integrated(record=("shares",))(field, X)
    assert shares.shares is not None
    assert ig.concat(parts).shares is None


def attribution(**options: Any) -> Attribution:
    return ig.explain(tanh_mlp(), X, **{"target": 0, **FINE, **options})


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"target": 1}, "several questions are not joined"),
        ({"target": "predicted"}, "several questions are not joined"),
        ({"rule": ig.rules.Midpoint(3)}, "different methods"),
        ({"baseline": 0.5}, "different methods"),
    ],
)
def test_different_questions_and_methods_are_refused(other: dict[str, Any], words: str) -> None:
    with pytest.raises(ig.errors.InputError, match=words):
        ig.concat([attribution(), attribution(**other)])


def test_different_shapes_nothing_and_strangers_are_refused() -> None:
    sums = ig.fields.Function(lambda z: z.square().sum(1))
    method = ig.methods.integrated(rule=ig.rules.Midpoint(2))
    with pytest.raises(ig.errors.ShapeError, match="examples of one shape"):
        ig.concat([method(sums, wave(2, 3)), method(sums, wave(2, 4))])
    with pytest.raises(ig.errors.ShapeError, match="examples of one shape"):
        ig.concat([method(sums, wave(2, 3)), method(sums, wave(2, 3).float())])
    with pytest.raises(ig.errors.InputError, match="no attributions to join"):
        ig.concat([])
    with pytest.raises(ig.errors.InputError, match="entry 1 is a Tensor"):
        ig.concat([method(sums, wave(2, 3)), wave(2, 3)])  # type: ignore[list-item]


@pytest.mark.parametrize("sizes", [[7], [3, 4], [3, 3, 1], [1] * 7])
@pytest.mark.parametrize("case", ["one", "predicted"])
def test_what_was_saved_is_joined_as_well(tmp_path: Path, case: str, sizes: list[int]) -> None:
    """Targets are texts then, which say of how many examples they hold something."""
    pytest.importorskip("safetensors")
    loaded = []
    for number, part in enumerate(X.split(sizes)):
        ig.explain(tanh_mlp(), part, **CASES[case]).save(tmp_path / f"{number}.safetensors")
        loaded.append(ig.load(tmp_path / f"{number}.safetensors"))
    joined = ig.concat(loaded)
    same(joined.values, ig.explain(tanh_mlp(), X, **CASES[case]).values)
    assert repr(joined.target) == ("Logit(1)" if case == "one" else "Logit(tensor<7>)")


def test_other_questions_that_were_saved_are_not_joined(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    for number, target in enumerate((0, 1)):
        ig.explain(tanh_mlp(), X[:2], target=target, **FINE).save(
            tmp_path / f"{number}.safetensors"
        )
    with pytest.raises(InputError, match="several questions"):
        ig.concat([ig.load(tmp_path / f"{number}.safetensors") for number in range(2)])


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_slices_cost_their_part_and_joined_again_the_whole(rows: int) -> None:
    """7 examples of 37 gradients: no slice is given all of them, and none is lost or counted twice."""
    batch = ig.explain(tanh_mlp(), X, target=1, tol=1e-3)
    assert batch.cost.gradients % 7
    slices = [batch[start : start + rows] for start in range(0, 7, rows)]
    joined = ig.concat(slices)
    for name in ("gradients", "values", "calls", "peak_bytes"):
        assert getattr(joined.cost, name) == getattr(batch.cost, name)
    assert joined.cost.seconds == pytest.approx(batch.cost.seconds)
    for part in slices:
        fair = batch.cost.gradients * len(part) / 7
        assert abs(part.cost.gradients - fair) < 1
    assert batch[[]].cost.gradients == 0
    assert sum(part[0].cost.gradients for part in batch[2:4]) == batch[2:4].cost.gradients


@pytest.mark.parametrize("target", [1, torch.tensor([0, 2, 1, 0, 2, 1, 1])])
@pytest.mark.parametrize("loaded", [(0,), (1,), (0, 1)])
def test_maps_of_files_and_of_this_process_are_joined(
    target: Any, loaded: tuple[int, ...], tmp_path: Path
) -> None:
    batch = ig.explain(tanh_mlp(), X, target=target, **FINE)
    parts = [batch[:3], batch[3:]]
    for number in loaded:
        parts[number].save(tmp_path / f"{number}.safetensors")
        parts[number] = ig.load(tmp_path / f"{number}.safetensors")
    joined = ig.concat(parts)
    same(joined.values, batch.values)
    assert repr(joined.method) == repr(batch.method)
    assert repr(joined.target) == repr(batch.target)
    assert joined.claims_completeness
    other = ig.explain(tanh_mlp(), X, target=target, rule=ig.rules.Midpoint(9))
    with pytest.raises(InputError, match="different methods"):
        ig.concat([parts[loaded[0]], other])


def test_methods_that_only_print_alike_are_told_apart() -> None:
    first, second = (ig.explain(tanh_mlp(), X, target=1, baseline=X + b, **FINE) for b in (1, 2))
    with pytest.raises(InputError, match="not printed, such as those of a tensor"):
        ig.concat([first, second])


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("classes", [[2] * 5, [2, 2, 2, 1, 1], [0, 0, 1, 1, 0]])
def test_batches_whose_examples_are_all_of_one_class(classes: list[int], size: int) -> None:
    """A batch of equal classes has a class for each example like any other."""
    model = tanh_mlp()
    targets = torch.tensor(classes).split(size)
    parts = [
        ig.explain(model, x, target=target, **FINE)
        for x, target in zip(X[:5].split(size), targets, strict=True)
    ]
    assert torch.as_tensor(ig.concat(parts).target.which).expand(5).tolist() == classes
    with torch.no_grad():  # and those that the model predicts
        model[-1].bias += torch.tensor([0.0, 0.0, 1e3])
    loader: Any = torch.utils.data.DataLoader(X[:5], batch_size=size)  # type: ignore[arg-type]
    made = ig.explain(model, loader, target="predicted", **FINE)
    assert torch.as_tensor(made.target.which).expand(5).tolist() == [2] * 5
