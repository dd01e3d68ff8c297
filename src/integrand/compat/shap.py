"""Attributions as what SHAP's plots read, a ``shap.Explanation``.

    base_values + Σ values = F(x)

SHAP takes this for granted, and prints the left side as what the model says. What maps of columns miss
of it is therefore a last feature, "not explained", wherever it is more than rounding.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.frames import Cell
from ..core.optional import optional
from ..core.shapes import describe, total
from ..errors import IncompleteWarning, InputError, ShapeError, warn
from ..integration.attribution import Attribution, rounding
from ..tables.results import feature_values

MISSED = "not explained"
"""What the feature is called that holds what maps miss."""


def explanation(
    attributions: Sequence[Attribution],
    names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> Any:
    """A ``shap.Explanation`` of one attribution, or of several targets of the same inputs.

    Args:
        attributions: of one target each, such as ``ig.explain_targets`` returns; one alone has
            values (B, N), T of them (B, N, T).
        names: (N,) of the features of examples (N,); their own unless given.
        output_names: (T,) of the targets; as they print unless given.

    Returns:
        The explanation. ``data`` holds the numbers that stand beside the values, NaN for words;
        where there are words ``display_data`` holds these too.

    Raises:
        MissingExtra: without shap.
        InputError: for several inputs, and for names that do not fit.
        ShapeError: for attributions of other shapes.

    Example:
        >>> import torch, integrand as ig
        >>> from integrand.compat.shap import explanation
        >>> model = torch.nn.Linear(4, 3)
        >>> several = ig.explain_targets(model, torch.randn(5, 4), targets=[0, 2])
        >>> explanation(several).shape
        (5, 4, 2)
    """
    with warnings.catch_warnings():  # of matplotlib, as shap is imported for the first time
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        shap = optional("shap", extra="shap", needs="to_shap()")
    _check(attributions)
    first = attributions[0]
    columns = first.values.ndim == 2
    names = first.feature_names or None if names is None else names
    if names is not None and not (columns and len(names) == first.values.shape[1]):
        raise InputError(
            f"There are {len(names)} names for values of shape {describe(first.values.shape)}: give one for each column."
        )
    labels = None if names is None else [str(name) for name in names]
    values, missed = _values(attributions), _missed(attributions)
    data, display = _data(first)
    if missed is not None and not columns:
        warn(
            f"SHAP prints base + Σ values as what the model says, and these maps miss up to {float(missed.abs().max()):.3g} of it: "
            "ask for a smaller tol, or read F(x) off result.output.",
            IncompleteWarning,
        )
    elif missed is not None:
        values = torch.cat([values, missed[:, None]], 1)
        data = torch.cat([data, torch.full_like(data[:, :1], torch.nan)], 1)
        if display is not None:
            display = np.concatenate([display, np.full((len(display), 1), "", dtype=object)], 1)
        labels = [*(labels or map(str, range(values.shape[1] - 1))), MISSED]
    base = torch.stack([attribution.base for attribution in attributions], 1)
    several = len(attributions) > 1
    arrays = [values, base] if several else [values[..., 0], base[:, 0]]
    options = {
        "feature_names": labels,
        "display_data": display,
        "output_names": _output_names(attributions, output_names) if several else None,
    }
    return shap.Explanation(
        *(t.detach().cpu().numpy() for t in (*arrays, data)),
        **{name: option for name, option in options.items() if option is not None},
    )


def _check(attributions: Sequence[Attribution]) -> None:
    if not attributions:
        raise InputError("There is nothing to show: give one attribution at least.")
    for attribution in attributions:
        if not isinstance(attribution.values, Tensor):
            raise InputError(
                "to_shap() takes one input tensor; this attribution has several: build one Explanation for each."
            )
        if attribution.values.shape != attributions[0].values.shape:
            shapes = " and ".join(
                describe(some.values.shape) for some in (attributions[0], attribution)
            )
            raise ShapeError(
                f"Attributions of several targets are of the same inputs; these have values of shape {shapes}."
            )


def _values(attributions: Sequence[Attribution]) -> Tensor:
    """(B, \\*s, T) values of all targets."""
    return torch.stack([attribution.values for attribution in attributions], -1)


def _missed(attributions: Sequence[Attribution]) -> Tensor | None:
    """(B, T) what the maps miss of F(x); None where that is rounding."""
    missed, floors = [], []
    for attribution in attributions:
        missed.append(attribution.output - attribution.base - total(attribution.values, 1))
        size = total(attribution.values.abs(), 1)
        floors.append(rounding(attribution.output, attribution.base, size, attribution.resolution))
    if bool((torch.stack(missed).abs() <= torch.stack(floors)).all()):
        return None
    return torch.stack(missed, 1)


def _data(attribution: Attribution) -> tuple[Tensor, Any]:
    """The numbers at each value, NaN where there are none, as in layers; and an array with the
    words among them, None where there are no words."""
    values, inputs = attribution.values, attribution.inputs
    if attribution.table is None:
        fits = isinstance(inputs, Tensor) and inputs.shape == values.shape
        return inputs if fits else torch.full_like(values, torch.nan), None
    cells = list(feature_values(attribution).values())
    rows = [[_number(cell) for cell in column] for column in cells]
    data = torch.tensor(rows, dtype=torch.float64).T
    words = any(isinstance(cell, str) for column in cells for cell in column)
    if not words:
        return data, None
    shown = np.empty(values.shape, dtype=object)
    for place, column in enumerate(cells):
        shown[:, place] = ["" if cell is None else cell for cell in column]
    return data, shown


def _number(cell: Cell) -> float:
    return cell if isinstance(cell, float | int) else float("nan")


def _output_names(
    attributions: Sequence[Attribution], output_names: Sequence[str] | None
) -> list[str]:
    if output_names is None:
        return [str(attribution.target) for attribution in attributions]
    if len(output_names) != len(attributions):
        raise InputError(
            f"There are {len(output_names)} output names for {len(attributions)} targets."
        )
    return list(map(str, output_names))
