"""What a run holds is what ``ig.explain`` says of its rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch

import integrand as ig
from integrand.errors import InputError
from integrand.run import Local, Recipe
from integrand.run.reduce import Reduction
from integrand.run.shard import PreparedRecipe
from tests.run.models import load

Build = Callable[..., Recipe]


def test_a_run_says_what_explain_says(recipe: Build, inputs: np.ndarray, tmp_path: Path) -> None:
    results = ig.run.run(
        recipe(method={"metrics": {"gini": "sparseness()"}}), tmp_path / "out", base=tmp_path, engine=Local(1),
    )  # fmt: skip
    x = torch.from_numpy(inputs)
    expected = ig.explain(
        load(), x, target="predicted", method=ig.methods.integrated(0.0, ig.rules.GaussLegendre(8))
    )
    np.testing.assert_allclose(results.values[:], expected.values, rtol=1e-4, atol=1e-6)
    table = results.table
    assert table["id"].to_pylist() == [str(n) for n in range(50)]
    np.testing.assert_allclose(table["output"], expected.output, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        table["change"], expected.output - expected.base, rtol=1e-4, atol=1e-6
    )
    scores = ig.metrics.judge(load(), x, expected, "sparseness", target="predicted")
    np.testing.assert_allclose(table["gini"], scores, rtol=1e-4)
    assert results.status.gradients == 50 * 8
    torch.testing.assert_close(results.maps([3, 40]), torch.from_numpy(results.values[:][[3, 40]]))


@pytest.mark.filterwarnings("ignore::integrand.errors.FitnessWarning")  # of one row
def test_a_run_weighs_by_areas(recipe: Build, inputs: np.ndarray, tmp_path: Path) -> None:
    areas = ig.weightings.Areas([ig.baselines.Constant(0.0), ig.baselines.Constant(0.5)])
    starts = ig.baselines.Union((ig.baselines.Constant(0.0), ig.baselines.Constant(1.0)))
    method = ig.Method(starts, rule=ig.rules.GaussLegendre(8), weighting=areas)
    results = ig.run.run(
        recipe(method={"method": repr(method)}), tmp_path / "out", base=tmp_path, engine=Local(1)
    )
    expected = ig.explain(load(), torch.from_numpy(inputs), target="predicted", method=method)
    assert set(results.table["status"].to_pylist()) == {"ok"}
    np.testing.assert_allclose(results.values[:], expected.values, rtol=1e-4, atol=1e-6)
    equal = ig.explain(
        load(), torch.from_numpy(inputs), target="predicted",
        method=ig.Method(starts, rule=ig.rules.GaussLegendre(8)),
    )  # fmt: skip
    assert np.abs(results.values[:] - equal.values.numpy()).max() > 0.01  # weights do something


def test_kinds_of_data_hold_the_same_rows(
    recipe: Build, inputs: np.ndarray, tmp_path: Path
) -> None:
    names = ("a", "b", "c", "d", "e", "f")
    columns = {name: inputs[:, i] for i, name in enumerate(names)}
    table = pa.table({"who": [f"row {n}" for n in range(50)], **columns})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    pyarrow.csv.write_csv(table, tmp_path / "t.csv")
    zarr = pytest.importorskip("zarr")
    zarr.create_array(tmp_path / "t.zarr", data=inputs)
    plain = PreparedRecipe.of(recipe(), tmp_path).source
    for kind in ("parquet", "csv", "zarr"):
        section: dict[str, object] = {"kind": kind, "path": f"t.{kind}"}
        if kind != "zarr":
            section["id"] = "who"
        source = PreparedRecipe.of(recipe(data=section), tmp_path).source
        assert len(source) == 50
        read, expected = source.read([4, 5, 9]), plain.read([4, 5, 9])
        torch.testing.assert_close(read.x, expected.x, check_dtype=False, rtol=1e-6, atol=1e-7)
        assert source.ids([4]) == (["4"] if kind == "zarr" else ["row 4"])
    chosen = PreparedRecipe.of(recipe(data={"kind": "parquet", "path": "t.parquet", "columns": ("b", "a", "c", "d", "e", "f")}), tmp_path)  # fmt: skip
    assert chosen.source.feature_names == ("b", "a", "c", "d", "e", "f")
    torch.testing.assert_close(chosen.source.read([0]).x[0, 1], plain.read([0]).x[0, 0])


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({"path": "none.npy"}, "There is no data"),
        ({"kind": "csv", "path": "t.csv", "columns": ("a", "z")}, "no column 'z'; it has 'a'"),
        (
            {"kind": "csv", "path": "t.csv", "columns": ("word",)},
            "'word' holds string, not numbers",
        ),
        ({"kind": "npy", "path": "objects.npy"}, "cannot be read as npy"),
        ({"kind": "npy", "path": "flat.npy"}, "the first axis is rows"),
        ({"kind": "images", "path": "."}, "holds no pictures"),
        ({"kind": "parquet", "path": "t.csv"}, "cannot be read as parquet"),
        ({"kind": "csv", "path": "none.csv"}, r"data at .*none.csv' are empty: there is no row"),
        ({"kind": "npy", "path": "no_rows.npy"}, r"no_rows.npy' are empty"),
    ],
)
def test_data_that_does_not_fit(
    recipe: Build, tmp_path: Path, section: dict[str, object], sentence: str
) -> None:
    (tmp_path / "t.csv").write_text("a,word\n1.5,x\n2.5,y\n")
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object))
    np.save(tmp_path / "flat.npy", np.zeros(5))
    (tmp_path / "none.csv").write_text("a,b\n")
    np.save(tmp_path / "no_rows.npy", np.zeros((0, 6)))
    with pytest.raises(InputError, match=sentence):
        ig.run.run(recipe(data=section), tmp_path / "out", base=tmp_path)
    assert not (tmp_path / "out").exists()


def test_rows_that_are_none(recipe: Build, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="The data are empty"):
        ig.run.run(recipe(), np.zeros((0, 6), np.float32), tmp_path / "out", base=tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["integrated(", "nothing()", "__import__('os')", "integrated(rule=open('x'))"])  # fmt: skip
def test_methods_that_are_none_run_nothing(recipe: Build, tmp_path: Path, text: str) -> None:
    with pytest.raises(ig.errors.IntegrandError):
        ig.run.run(recipe(method={"method": text}), tmp_path / "out", base=tmp_path)
    assert not (tmp_path / "out").exists()


def test_reductions_are_sums() -> None:
    maps = torch.randn(4, 3, 8, 12, dtype=torch.float64)
    kept = Reduction((3, 8, 12), torch.float64, "sum", 4)
    assert kept.kept_shape == (4, 4)
    blocks = maps.sum(1)
    expected = torch.stack(
        [
            torch.stack([blocks[:, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3].sum((1, 2)) for j in range(4)], -1)
            for i in range(4)
        ],
        1,
    )  # fmt: skip
    torch.testing.assert_close(kept(maps).values, expected)
    small = Reduction((3, 8, 12), torch.float64, stored=torch.int8)
    reduced = small(maps)
    assert reduced.scale is not None
    restored = reduced.values.double() * reduced.scale.double()[:, None, None, None]
    worst = (restored - maps).abs().flatten(1).amax(1)
    assert bool((worst <= maps.abs().flatten(1).amax(1) / 127 * 0.501).all())
    assert bool((small(torch.zeros(1, 3, 8, 12)).values == 0).all())
    with pytest.raises(InputError, match="does not divide"):
        Reduction((3, 8, 12), torch.float64, pool=5)
    with pytest.raises(InputError, match="needs rows with channels"):
        Reduction((8,), torch.float64, channels="sum")
