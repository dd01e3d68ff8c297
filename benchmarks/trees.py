"""Exact shares of 500 trees on 1,000 rows, beside treeig and SHAP's interventional TreeExplainer.

    python -m benchmarks.trees [--threads 1] [--repeats 7]

treeig computes the same maps, in as many threads as we do; SHAP's explainer has one thread. Trees are read, and walks compiled, before
anything is timed. Ours include the model's outputs at both ends of every way, which the map is held against.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

import integrand as ig

from .side_by_side import Row, arguments, interleaved, ratio, seconds, tell

TREES, ROWS, FEATURES, DEPTH = 500, 1000, 20, 5
REFERENCES = (1, 16)

Floats = NDArray[np.float64]


def problem() -> tuple[object, Floats, Floats]:
    """A boosted model, what it was trained on (M, F), and rows to explain (N, F)."""
    from sklearn.ensemble import GradientBoostingRegressor

    draws = np.random.default_rng(0)
    # Numbers that float32 holds, which is what the model compares: treeig leaves rows unrounded to say when they cross.
    data, explained = (
        draws.normal(size=(count, FEATURES)).astype(np.float32).astype(np.float64)
        for count in (3000, ROWS)
    )
    y = data[:, 0] * data[:, 1] + np.sin(3 * data[:, 2]) + data[:, 3:8].sum(1)
    model = GradientBoostingRegressor(
        n_estimators=TREES, max_depth=DEPTH, subsample=0.3, random_state=0
    )
    return model.fit(data, y), data, explained


def ways(model: object, references: Floats, rows: Floats) -> dict[str, Callable[[], Floats]]:
    """Maps (N, F) by each of the three, as means over references (R, F)."""
    import numba
    import shap
    import treeig

    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
    field, x = ig.fields.TreeField(model), torch.from_numpy(rows)
    method = ig.methods.generalized(torch.from_numpy(references)[:, None].expand(-1, len(rows), -1))
    peer = treeig.TreeIG(model)
    explainer = shap.TreeExplainer(model, references, feature_perturbation="interventional")
    return {
        "integrand": lambda: method(field, x).values.numpy(),
        "treeig": lambda: np.asarray(peer.explain(rows, baseline=references).values),
        "shap": lambda: np.asarray(explainer.shap_values(rows, check_additivity=False)),
    }


def rows(repeats: int) -> list[Row]:
    """The lines of the table."""
    model, data, explained = problem()
    table = []
    for count in REFERENCES:
        runs = ways(model, data[:count], explained)
        apart = float(np.abs(runs["integrand"]() - runs["treeig"]()).max())
        assert apart < 1e-10, f"the two say different things: {apart}"
        times = interleaved(runs, repeats)
        references = "one reference" if count == 1 else f"{count} references"
        line = f"{TREES} trees × {ROWS:,} rows, {references}: "
        note = f"{seconds(times)}; largest difference from treeig {apart:.0e}"
        table += [
            Row(
                line + "time, in times treeig's", *ratio(times, "integrand", "treeig"), 1, note=note
            ),
            Row(
                line + "how much faster than SHAP's interventional TreeExplainer",
                *ratio(times, "shap", "integrand"),
                5,
                more=True,
            ),
        ]
    return table


def main() -> None:
    found = arguments(__doc__, 7)
    tell(rows(found.repeats))


if __name__ == "__main__":
    main()
