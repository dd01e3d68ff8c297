"""Check of baselines."""

from __future__ import annotations

import torch
from torch import Tensor

from ..baselines.base import Baseline, label_of
from ..core.shapes import describe
from ..fields import Field, Function
from .assertions import as_called, close, say, untouched
from .problem import smooth, waves


def check_baseline(
    baseline: Baseline, x: Tensor | None = None, *, field: Field | None = None
) -> None:
    """A baseline (x (B, \\*s), field) → references (R, B, \\*s).

    * R ≥ 1 references shaped, typed and placed like the inputs, all finite; ``count`` and ``size``,
      where the baseline says them, are R.
    * The same call gives the same references, also for each example alone, and leaves the inputs
      and the global generators alone.
    * It has a name for reports.

    Args:
        baseline: what is checked.
        x: inputs; a few rows of numbers unless given.
        field: what it may ask; a small network unless given.

    Raises:
        AssertionError: with what was promised, and what came instead.

    Example:
        >>> import integrand as ig
        >>> ig.testing.check_baseline(ig.baselines.Constant(0.5))
    """
    x = waves(3, 4) if x is None else x
    field = field or Function(smooth)
    with as_called(field), untouched("The baseline", "the inputs", x):
        with untouched("The baseline", "the inputs", x):
            references = baseline(x, field)
        _check_references(baseline, x, references)
        close(
            baseline(x, field),
            references,
            "A second call gives other references; take randomness from a seed",
        )
        _check_each(baseline, field, x, references)
    say(bool(label_of(baseline)), "The baseline has no name; give it a label.")


def _check_references(baseline: Baseline, x: Tensor, references: Tensor) -> None:
    say(
        isinstance(references, Tensor),
        f"The baseline returned {type(references).__name__}, not a tensor.",
    )
    say(
        references.shape[1:] == x.shape and len(references) > 0,
        f"References have shape {describe(references.shape)}; for these inputs they must be R x {describe(x.shape)} (R, B, *s).",
    )
    say(references.dtype == x.dtype, f"References are {references.dtype}, the inputs {x.dtype}.")
    say(
        references.device == x.device,
        f"References are on {references.device}, the inputs on {x.device}.",
    )
    say(bool(torch.isfinite(references).all()), "References hold NaN or infinity.")
    for name in ("count", "size"):
        claimed = getattr(baseline, name, None)
        say(
            not isinstance(claimed, int) or claimed == len(references),
            f"{name} says {claimed} references, but {len(references)} came.",
        )


def _check_each(baseline: Baseline, field: Field, x: Tensor, references: Tensor) -> None:
    """Every example alone has the references that it has in its batch."""
    for example in range(len(x)):
        single = slice(example, example + 1)
        alone = baseline(x[single], field.at(torch.tensor([example], device=x.device)))
        say(
            len(alone) == len(references),
            f"Example {example} alone has {len(alone)} references, in the batch {len(references)}.",
        )
        close(
            alone,
            references[:, single],
            f"References of example {example} depend on the other examples of its batch",
        )
