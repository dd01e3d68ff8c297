"""Data frames in: the same numbers as the tensor of them, their names and row labels with the result."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

import integrand as ig
from integrand.errors import BaselineError, InputError, MissingExtra, NonFiniteInput

COLUMNS = ["age", "fare", "alone", "rooms"]


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.normal(size=5),
            "fare": rng.normal(size=5).astype(np.float32),
            "alone": [True, False, True, True, False],
            "rooms": pd.array([1, 2, 3, 4, 5], dtype="Int64"),
        },
        index=[7, 3, 9, 1, 4],
    )


@pytest.fixture
def net() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)).eval()


def tensor_of(frame: pd.DataFrame) -> torch.Tensor:
    """Column by column, by hand."""
    return torch.tensor([[float(v) for v in row] for row in frame.itertuples(index=False)])


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow"])
def test_a_frame_is_explained_as_its_numbers(
    frame: pd.DataFrame, net: torch.nn.Module, kind: str
) -> None:
    given: Any = {
        "pandas": frame,
        "polars": pl.DataFrame({name: frame[name].tolist() for name in frame}),
        "pyarrow": pa.table({name: frame[name].tolist() for name in frame}),
    }[kind]
    result = ig.explain(net, given, target=1)
    expected = ig.explain(net, tensor_of(frame), target=1)
    torch.testing.assert_close(result.values, expected.values, rtol=0, atol=0)
    assert result.feature_names == tuple(COLUMNS)
    assert result.values.dtype == torch.float32  # as the weights of the model


def test_frames_and_float64_arrays_have_the_type_of_the_weights(
    frame: pd.DataFrame, net: torch.nn.Module
) -> None:
    array = tensor_of(frame).double().numpy()
    for dtype in (torch.float32, torch.float64):
        model = net.to(dtype)
        for inputs in (frame, array):
            assert ig.explain(model, inputs, target=0).values.dtype == dtype
        field = ig.TorchField(model, 0)
        assert ig.explain(field, frame).values.dtype == dtype


def test_baselines_that_are_frames_are_read_by_column_name(
    frame: pd.DataFrame, net: torch.nn.Module
) -> None:
    x = tensor_of(frame)
    turned = frame[COLUMNS[::-1]]
    torch.testing.assert_close(
        ig.explain(net, frame, target=0, baseline=turned.iloc[:1]).values,
        ig.explain(net, x, target=0, baseline=x[:1]).values,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IntegrandWarning)  # five rows tell little
        for method in ("expected", "weighted"):
            torch.testing.assert_close(
                ig.explain(net, frame, target=0, method=method, baseline=turned).values,
                ig.explain(net, x, target=0, method=method, baseline=x).values,
            )
    means = frame.astype(float).mean()
    result = ig.explain(net, frame, target=0, baseline=means[COLUMNS[::-1]])
    torch.testing.assert_close(
        result.values, ig.explain(net, x, target=0, baseline=x.mean(0)).values, rtol=1e-5, atol=1e-6
    )


def test_several_frames_are_several_inputs(frame: pd.DataFrame) -> None:
    layer = torch.nn.Linear(4, 1)

    def model(numbers: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
        return layer(torch.cat([numbers, rest], 1))

    parts = {"numbers": frame[["age", "fare"]], "rest": frame[["alone", "rooms"]]}
    result = ig.explain(model, parts, target=0)
    assert result.table["rest"].names == ("alone", "rooms")
    assert result.feature_names == tuple(COLUMNS)
    grouped = result.grouped({"home": ["alone", "rooms"]})
    torch.testing.assert_close(grouped.values[:, 2], result.values["rest"].sum(1))
    assert list(result.to_pandas().columns) == COLUMNS


def test_row_labels_go_with_the_result(frame: pd.DataFrame, net: torch.nn.Module) -> None:
    result = ig.explain(net, frame, target=0)
    assert list(result.to_pandas().index) == [7, 3, 9, 1, 4]
    assert list(result[1:3].to_pandas("examples").index) == [3, 9]
    assert list(ig.explain(net, frame.reset_index(drop=True), target=0).to_pandas().index) == [
        *range(5)
    ]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"name": list("abcde")}, InputError, "'name' (String)"),
        ({"when": pd.to_datetime(["2020-01-01"] * 5)}, InputError, "'when' (Datetime"),
        ({"age": [1.0, None, 2.0, 3.0, 4.0]}, NonFiniteInput, "'age'"),
    ],
)
def test_what_is_no_number_is_refused_by_name(
    frame: pd.DataFrame, net: torch.nn.Module, change: dict[str, Any], error: type, words: str
) -> None:
    with pytest.raises(error) as raised:
        ig.explain(net, frame.assign(**change), target=0)
    assert words in str(raised.value)


def test_frames_that_do_not_fit_are_refused(frame: pd.DataFrame, net: torch.nn.Module) -> None:
    with pytest.raises(InputError, match="lacks 'age'"):
        ig.explain(net, frame, target=0, baseline=frame.drop(columns="age"))
    with pytest.raises(InputError, match="several columns called 'x'"):
        ig.explain(net, pd.DataFrame(np.zeros((2, 2)), columns=["x", "x"]), target=0)
    with pytest.raises((InputError, BaselineError)):
        ig.explain(net, frame, target=0, baseline=frame.iloc[:3])
    with pytest.raises(InputError, match="3 feature names"):
        ig.explain(net, tensor_of(frame), target=0, feature_names=["a", "b", "c"])


def test_without_narwhals_a_frame_says_what_to_install(
    frame: pd.DataFrame, net: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "narwhals", None)
    with pytest.raises(MissingExtra, match="tables"):
        ig.explain(net, frame, target=0)


def test_explaining_tensors_imports_no_library_of_frames() -> None:
    code = (
        "import sys, torch, integrand as ig\n"
        "ig.explain(torch.nn.Linear(3, 1), torch.ones(2, 3), target=0)\n"
        "assert not {'pandas', 'polars', 'narwhals'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
