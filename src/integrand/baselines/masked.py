"""Baselines that keep some positions of the input: special tokens, padding, features known not
to matter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.shapes import describe
from ..core.values import part
from ..errors import BaselineError
from ..fields import Field
from .adopt import as_baseline
from .base import Baseline, checked, count_of, label_of


@part
class Masked(Baseline):
    """A baseline that keeps some positions of the input.

    Nothing moves there, and they get no credit.

        references = x where kept, the baseline elsewhere

    Args:
        baseline: any baseline, a number or a tensor (such as the vector of a mask or padding
            token).
        positions: numbers along an example's first axis, negative ones from its end: ``(0, -1)``
            are the first and the last word of sentences (n, d). Or a mask of booleans: (n,) for all
            examples, (B, n) with its own for each; it may have more of an example's axes, in order.

    Raises:
        BaselineError: for positions that an example does not have.

    Cost:
        The baseline's.

    Example:
        >>> import torch, integrand as ig
        >>> kept = ig.baselines.Masked(0.0, (0, -1))
        >>> kept(torch.ones(1, 4, 2), ig.fields.Linear(torch.ones(4, 2)))[0, 0, :, 0].tolist()
        [1.0, 0.0, 0.0, 1.0]
    """

    baseline: Any
    positions: Sequence[int] | Tensor

    def __post_init__(self) -> None:
        if isinstance(self.baseline, str):
            raise BaselineError(
                f"Masked takes a baseline, a number or a tensor, not the name {self.baseline!r}."
            )

    @property
    def count(self) -> int | None:
        return count_of(as_baseline(self.baseline))

    @property
    def label(self) -> str:
        return label_of(as_baseline(self.baseline))

    def __call__(self, x: Tensor, field: Field) -> Tensor:
        inner = as_baseline(self.baseline)
        return torch.where(self._mask(x), x, checked(inner(x, field), x, inner, field))

    def _mask(self, x: Tensor) -> Tensor:
        """What is kept, broadcasting to (B, \\*s)."""
        positions = torch.as_tensor(self.positions, device=x.device)
        shape = x.shape[1:]
        if positions.dtype == torch.bool:
            per_example = positions.ndim > 1
            fits = positions.ndim > 0 and positions.shape == (
                x.shape[: positions.ndim] if per_example else shape[:1]
            )
            if not fits:
                raise BaselineError(
                    f"A mask of shape {describe(positions.shape)} does not fit inputs of shape {describe(x.shape)}: it is "
                    f"{describe(shape[:1])} for all examples, or {describe(x.shape[:2])} with its own for each."
                )
            mask = positions if per_example else positions[None]
        else:
            mask = _mask_at(positions, shape, x.device)[None]
        return mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))


def _mask_at(positions: Tensor, shape: torch.Size, device: torch.device) -> Tensor:
    """A mask (n,) of some numbers along an example's first axis."""
    length = shape[0] if shape else 0
    if positions.numel() and positions.is_floating_point():
        raise BaselineError(
            f"Positions are whole numbers or a mask of booleans, not {positions.dtype}."
        )
    wrong = [place for place in positions.reshape(-1).tolist() if not -length <= place < length]
    if wrong:
        raise BaselineError(
            f"There is no position {wrong[0]} to keep: an example of shape {describe(shape)} has {length} along its first axis, "
            f"numbered 0 to {length - 1}, or -{length} to -1 from the end."
        )
    mask = torch.zeros(length, dtype=torch.bool, device=device)
    mask[positions.reshape(-1).long()] = True
    return mask
