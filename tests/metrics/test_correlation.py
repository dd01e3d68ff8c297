"""Pearson and Spearman against NumPy and SciPy, and where they are undefined."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from integrand.core.correlation import pearson, spearman

ROWS = hnp.arrays(
    np.float64, (2, 3, 7), elements=st.integers(-3, 3).map(float)
)  # small integers: many ties


@given(ROWS)
def test_rows_are_correlated_as_scipy_does(pair: np.ndarray) -> None:
    a, b = torch.from_numpy(pair)
    found, ranked = pearson(a, b), spearman(a, b)
    for row in range(3):
        if len(set(pair[0, row])) == 1 or len(set(pair[1, row])) == 1:
            assert bool(found[row].isnan() and ranked[row].isnan())
            continue
        assert float(found[row]) == pytest.approx(stats.pearsonr(*pair[:, row])[0], abs=1e-12)
        assert float(ranked[row]) == pytest.approx(stats.spearmanr(*pair[:, row])[0], abs=1e-12)


def test_small_numbers_are_numbers() -> None:
    a, b = torch.randn(2, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(pearson(1e-200 * a, 1e-250 * b), pearson(a, b))


def test_absent_entries_do_not_count() -> None:
    random = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 4, 9, generator=random, dtype=torch.float64)
    present = torch.arange(9) < torch.tensor([9, 6, 3, 1])[:, None]
    for by in (pearson, spearman):
        found = by(a, b, present)
        for row, count in enumerate((9, 6, 3)):
            torch.testing.assert_close(found[row], by(a[row, :count], b[row, :count]))
        assert bool(found[3].isnan())


def test_rounding_is_no_variation() -> None:
    """0.1 added up in another order differs in its last digit; its correlation with anything is noise."""
    nearly = torch.tensor([0.1 + 0.2, 0.3, 0.3, 0.1 + 0.2], dtype=torch.float64)
    assert len(nearly.unique()) == 2
    assert bool(pearson(nearly, torch.arange(4.0, dtype=torch.float64)).isnan())
    assert bool(spearman(nearly, torch.arange(4.0, dtype=torch.float64)).isnan())
    small = torch.tensor([1.0, 1.0 + 1e-5, 1.0, 1.0 - 1e-5], dtype=torch.float64)
    assert bool(pearson(small, torch.arange(4.0, dtype=torch.float64)).isfinite())
    assert bool(pearson(small, small, noise=(None, torch.tensor(1e-4))).isnan())
