"""Expected Gradients of 32 rows × 200 draws: against shap.GradientExplainer at the same standard error.

    python -m benchmarks.expected_gradients [--threads 1] [--repeats 7]

The standard error is the root mean square, over rows and columns, of the deviation between runs with different seeds. SHAP's draws are
independent, so its error falls like 1/√n: the n at which it reaches Integrand's is worked out from runs at 200, and checked. Needs shap.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

import integrand as ig

from .side_by_side import Row, arguments, interleaved, ratio, seconds, tell
from .tabular import COLUMNS, network

EXAMPLES, DRAWS, BACKGROUND = 32, 200, 200
SEEDS = 24


def spread(run: Callable[[int], Tensor]) -> float:
    """The standard error of one run (seed) → (B, \\*s)."""
    return float(torch.stack([run(seed) for seed in range(SEEDS)]).var(0).mean().sqrt())


def rows(repeats: int) -> list[Row]:
    """The lines of the table."""
    import shap

    net = network().requires_grad_(False)
    stream = torch.Generator().manual_seed(1)
    x, data = (
        torch.randn(EXAMPLES, COLUMNS, generator=stream),
        torch.randn(BACKGROUND, COLUMNS, generator=stream),
    )
    # One output, so that SHAP need not explain them all.
    first = torch.nn.Sequential(*net, Only(0))
    explainer = shap.GradientExplainer(first, data)

    def theirs(draws: int, seed: int) -> Tensor:
        return torch.as_tensor(explainer.shap_values(x, nsamples=draws, rseed=seed)).reshape(
            x.shape
        )

    def ours(seed: int) -> Tensor:
        return ig.explain(
            net, x, target=0, method="expected", baseline=data, draws=DRAWS, seed=seed
        ).values

    error, their_error = spread(ours), spread(partial(theirs, DRAWS))
    needed = math.ceil(DRAWS * (their_error / error) ** 2)
    checked = spread(partial(theirs, needed))
    exact = ig.explain(
        net, x, target=0, method="expected", baseline=data, rule=ig.rules.Midpoint(200)
    ).values
    means = [
        torch.stack([run(seed) for seed in range(SEEDS)]).mean(0)
        for run in (ours, partial(theirs, needed))
    ]
    bias = [float((mean - exact).square().mean().sqrt()) for mean in means]
    assert max(bias) < error, (
        f"the two mean different things: {bias} with a standard error of {error}"
    )
    ways = {
        "shap": lambda: theirs(needed, 0),
        f"shap, {DRAWS} draws": lambda: theirs(DRAWS, 0),
        "integrand": lambda: ours(0),
    }
    times = interleaved(ways, repeats, warm=2, apart=True)
    line = f"Expected Gradients, {EXAMPLES} rows × {DRAWS} draws: how much faster than SHAP at equal standard error"
    note = f"{seconds(times)}; standard errors {error:.3g} and {checked:.3g}, for which SHAP takes {needed} draws"
    return [
        Row(line, *ratio(times, "shap", "integrand"), 20, more=True, note=note),
        Row(
            f"the same, than SHAP at {DRAWS} draws (standard error {their_error / error:.2g} times as large)",
            *ratio(times, f"shap, {DRAWS} draws", "integrand"),
        ),
    ]


class Only(torch.nn.Module):
    """One column of the outputs."""

    def __init__(self, column: int) -> None:
        super().__init__()
        self.column = column

    def forward(self, outputs: Tensor) -> Tensor:
        return outputs[:, self.column, None]


def main() -> None:
    found = arguments(__doc__, 7)
    tell(rows(found.repeats))


if __name__ == "__main__":
    main()
