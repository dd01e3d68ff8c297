"""The table of raw results: reading, selecting, merging, and going to disk and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import integrand as ig
from integrand.compare.scores import COSTS, Scores


def table(
    methods: str = "ab",
    metrics: str = "xyz",
    examples: str = "12345",
    seed: int = 0,
    **more: object,
) -> Scores:
    rng = np.random.default_rng(seed)
    m, q, e = len(methods), len(metrics), len(examples)
    values = rng.normal(size=(m, q, e))
    values[0, :, 1:2] = np.nan
    return Scores(
        values=values,
        methods=tuple(methods),
        metrics=tuple(metrics),
        higher=tuple(i % 2 == 0 for i in range(q)),
        examples=tuple(examples),
        **{name: rng.uniform(size=(m, e)) for name in COSTS},
        reasons={(methods[0], examples[1]): "none"} if e > 1 else {},
        curves={metrics[0]: rng.normal(size=(m, e, 4))},
        controls=(methods[0],),
        about={"seed": 3},
        **more,
    )


def assert_same(one: Scores, other: Scores) -> None:
    for name in ("values", *COSTS):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in ("methods", "metrics", "higher", "examples", "reasons", "controls", "about"):
        assert getattr(one, name) == getattr(other, name), name
    assert set(one.curves) == set(other.curves)
    for name, curve in one.curves.items():
        np.testing.assert_array_equal(curve, other.curves[name])


def test_reading() -> None:
    scores = table()
    np.testing.assert_array_equal(scores.of("y"), scores.values[:, 1])
    assert not scores.is_higher("y")
    assert len(scores) == 5
    assert "2 methods by 3 metrics on 5 examples, 3 without a value" in repr(scores)
    with pytest.raises(ig.errors.UnknownName, match="metric named 'yy'"):
        scores.of("yy")


def test_select_keeps_names_and_numbers_together() -> None:
    scores = table()
    some = scores.select(methods="b", metrics="zx", examples="52")
    assert (some.methods, some.metrics, some.examples) == (("b",), ("z", "x"), ("5", "2"))
    np.testing.assert_array_equal(some.values[0], scores.values[1][[2, 0]][:, [4, 1]])
    np.testing.assert_array_equal(some.gradients, scores.gradients[1:, [4, 1]])
    np.testing.assert_array_equal(some.curves["x"], scores.curves["x"][1:][:, [4, 1]])
    assert some.reasons == {}
    assert some.controls == ()
    assert scores.select(examples="2").reasons == {("a", "2"): "none"}


@pytest.mark.parametrize("axis", ["methods", "metrics", "examples"])
def test_what_was_taken_apart_merges_to_what_it_was(axis: str) -> None:
    scores = table("abcd", "wxyz", "1234")
    names = getattr(scores, axis)
    left, right = scores.select(**{axis: names[:1]}), scores.select(**{axis: names[1:]})
    assert_same(left.merge(right), scores)
    # Other orders of the shared names do not matter.
    others = {
        one: getattr(right, one)[::-1] for one in ("methods", "metrics", "examples") if one != axis
    }
    assert_same(left.merge(right.select(**others)), scores)


def test_merging_is_associative_and_changes_nothing() -> None:
    scores = table(examples="123456")
    parts = [scores.select(examples=two) for two in ("12", "34", "56")]
    before = parts[0].values.copy()
    assert_same(parts[0].merge(parts[1]).merge(parts[2]), parts[0].merge(parts[1].merge(parts[2])))
    assert_same(Scores.merged(parts), scores)
    np.testing.assert_array_equal(parts[0].values, before)
    with pytest.raises(ig.errors.InputError, match="no scores"):
        Scores.merged([])


def test_curves_of_other_lengths_are_left_out_and_values_are_not() -> None:
    import dataclasses

    one, other = table(examples="12"), table(examples="34")
    other = dataclasses.replace(other, curves={"x": np.zeros((2, 2, 7))})
    merged = one.merge(other)
    assert merged.curves == {}
    assert merged.values.shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (table(examples="56789"), "hold examples '5'"),
        (table(), "about the same"),
        (table("ac", examples="678"), "differ in methods and examples"),
    ],
)
def test_tables_that_do_not_merge(other: Scores, message: str) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        table().merge(other)


def test_names_and_shapes_are_checked() -> None:
    with pytest.raises(ig.errors.InputError, match="two methods called 'a'"):
        table("aa")
    with pytest.raises(ig.errors.InputError, match="not those of"):
        table(metrics="xyz").__class__(**{**vars(table()), "values": np.zeros((2, 3, 4))})


def test_to_disk_and_back(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    scores = table()
    scores.to_parquet(tmp_path / "scores.parquet")
    assert_same(Scores.from_parquet(tmp_path / "scores.parquet"), scores)
    rows = parquet.read_table(tmp_path / "scores.parquet").to_pylist()
    assert len(rows) == 2 * 3 * 5  # one row per method, metric and example
    row = next(r for r in rows if (r["method"], r["metric"], r["example"]) == ("b", "y", "3"))
    assert row["value"] == scores.values[1, 1, 2]
    assert row["seconds"] == scores.seconds[1, 2]
    assert row["higher_is_better"] is False
    assert row["curve"] is None


def test_files_that_hold_no_scores(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(arrow.table({"a": [1]}), tmp_path / "other.parquet")
    (tmp_path / "words.parquet").write_text("no table")
    for name, message in (
        ("other", "holds no scores"),
        ("words", "cannot be read"),
        ("gone", "no file"),
    ):
        with pytest.raises(ig.errors.InputError, match=message):
            Scores.from_parquet(tmp_path / f"{name}.parquet")
