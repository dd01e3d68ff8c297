"""What tells a malignant tumour from a benign one, in 200 boosted trees?

Trees are steps: their gradient is zero wherever it exists. Generalized Integrated Gradients credits
the jumps instead, each to the feature whose threshold is crossed on the way from the baseline. No
integral is estimated, so the contributions add up to the change of the log-odds to rounding.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import train_test_split

import integrand as ig

MALIGNANT = 0  # as scikit-learn counts the classes


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    x, y = load_breast_cancer(return_X_y=True, as_frame=True)
    known, new, answers, truth = train_test_split(x, y, test_size=0.4, random_state=0, stratify=y)
    model = HistGradientBoostingClassifier(max_iter=200, max_leaf_nodes=8, random_state=0)
    model.fit(known, answers)

    result = ig.explain(model, new, target=MALIGNANT, method="generalized", baseline=known.median())

    missed = float(result.residual.abs().max())
    print(f"accuracy on {len(new)} new tumours: {model.score(new, truth):.1%}")
    print(
        f"largest residual, of log-odds up to {float(result.output.abs().max()):.1f}: {missed:.0e}"
    )

    measured = {}  # every quantity was measured three times: its mean, error and worst value
    for name in x.columns:
        kind = name.removeprefix("mean ").removeprefix("worst ").removesuffix(" error")
        measured.setdefault(kind, []).append(name)
    for name, size in list(zip(*largest(result.grouped(measured)), strict=True))[:3]:
        print(f"{name}: {size:.2f} of log-odds on average")

    figure = result.plot(kind="beeswarm", top=10)
    figure.suptitle("What moves the log-odds of a malignant tumour", fontsize=10)
    figure.savefig(out / "trees.png", dpi=130)


def largest(result: ig.Attribution) -> tuple[list[str], list[float]]:
    ranked = result.importance()
    return list(ranked.names), [float(size) for size in ranked.importance]


if __name__ == "__main__":
    main(Path(*sys.argv[1:]))  # the folder for the picture; here unless given
