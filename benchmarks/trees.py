"""Speed of exact tree shares: 500 trees × 1,000 rows, beside treeig and SHAP's interventional TreeExplainer.

    python -m benchmarks.trees

One reference and sixteen; repeats are interleaved, so that all three meet the same machine, and
every one is warm (compiled, its trees read). Maps are compared too: treeig's must be the same.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

import integrand as ig

TREES, ROWS, FEATURES = 500, 1000, 20


def main(repeats: int = 5) -> None:
    """Print seconds per call, the median of interleaved repeats, and how far maps are apart."""
    import shap
    import treeig
    from sklearn.ensemble import GradientBoostingRegressor

    draws = np.random.default_rng(0)
    data = draws.normal(size=(3000, FEATURES))
    y = data[:, 0] * data[:, 1] + np.sin(3 * data[:, 2]) + data[:, 3:8].sum(1)
    model = GradientBoostingRegressor(
        n_estimators=TREES, max_depth=5, subsample=0.3, random_state=0
    )
    model.fit(data, y)
    rows = draws.normal(size=(ROWS, FEATURES))
    field, x = ig.fields.TreeField(model), torch.from_numpy(rows)
    for count in (1, 16):
        references = data[:count]
        method = ig.methods.generalized(torch.from_numpy(references)[:, None].expand(-1, ROWS, -1))
        peer = treeig.TreeIG(model)
        explainer = shap.TreeExplainer(model, references, feature_perturbation="interventional")
        calls: dict[str, Callable[[], object]] = {
            "integrand": lambda method=method: method(field, x).values.numpy(),
            "treeig": lambda peer=peer, references=references: np.mean(
                [peer.explain(rows, baseline=b).values for b in references], axis=0
            ),
            "shap": lambda explainer=explainer: explainer.shap_values(rows, check_additivity=False),
        }
        maps = {name: np.asarray(call()) for name, call in calls.items()}
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(repeats):
            for name, call in calls.items():
                begin = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - begin)
        medians = {name: statistics.median(times) for name, times in seconds.items()}
        print(f"{TREES} trees, {ROWS} rows, {count} reference(s)")
        for name, median in medians.items():
            apart = np.abs(maps[name] - maps["integrand"]).max()
            print(
                f"  {name:10} {median:8.3f} s   {median / medians['integrand']:5.2f} × ours   "
                f"maps differ by {apart:.1e}"
            )


if __name__ == "__main__":
    main()
