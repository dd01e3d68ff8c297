"""Baselines whose values are given: constants, tensors, sets of references."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from ..core.shapes import carried, describe
from ..core.values import part
from ..errors import BaselineError
from ..fields import Field
from .base import Baseline


def as_numbers(value: Tensor, x: Tensor) -> Tensor:
    """A baseline's numbers where the input is, and in its type; whole ones that this would round
    are refused, and complex ones."""
    if value.is_complex():
        raise BaselineError("The baseline holds complex numbers: give real ones.")
    return (
        carried(value.to(x.device), x.dtype, "The baseline")
        if x.dtype == torch.float64
        else value.to(x)
    )


def one_example(value: Tensor, x: Tensor) -> Tensor | None:
    """``value`` broadcast to one example of ``x`` (B, \\*s) → (\\*s); three numbers are the
    channels of an image; else None."""
    value = as_numbers(value, x)
    shape = x.shape[1:]
    if value.ndim == 1 and len(shape) == 3 and len(value) == shape[0]:
        value = value[:, None, None]
    try:
        return value.expand(shape)
    except RuntimeError:
        return None


@part
class Constant(Baseline):
    """One reference: a number, or a tensor that broadcasts to an example.

    A tensor (C,) colours an image (C, H, W).

    Args:
        content: a number, or a tensor that broadcasts to an example; zero unless given.
        label: what reports call it.

    Example:
        >>> import torch, integrand as ig
        >>> start = ig.baselines.Constant(torch.tensor([0.0, 1.0]))
        >>> start(torch.ones(3, 2), ig.fields.Linear(torch.ones(2))).shape
        torch.Size([1, 3, 2])
    """

    content: float | Tensor = 0.0
    label: str = "constant"
    count: ClassVar[int] = 1

    single: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.content, Tensor) and not math.isfinite(self.content):
            raise BaselineError(
                f"The baseline {self.label!r} holds NaN or infinity. Fill missing values before explaining."
            )

    def __call__(self, x: Tensor, field: Field) -> Tensor:
        value = torch.as_tensor(self.content, dtype=x.dtype)
        reference = one_example(value, x)
        if reference is None:
            raise BaselineError(
                f"A constant baseline of shape {describe(value.shape)} does not broadcast to an example of shape "
                f"{describe(x.shape[1:])}."
            )
        return reference.expand(1, *x.shape)


@part
class Given(Baseline):
    """A given set of references.

    Args:
        references: (R, \\*s) for all examples alike, or (R, B, \\*s) with their own for each.
        label: what reports call it.
        names: what each reference is called; their numbers unless given.

    Example:
        >>> import torch, integrand as ig
        >>> pool = ig.baselines.Given(torch.randn(4, 2))
        >>> pool(torch.ones(3, 2), ig.fields.Linear(torch.ones(2))).shape
        torch.Size([4, 3, 2])
    """

    references: Tensor
    label: str = "given"
    names: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return len(self.references)

    def __call__(self, x: Tensor, field: Field) -> Tensor:
        references = as_numbers(self.references, x)
        if references.shape[1:] == x.shape:
            return references
        if references.shape[1:] == x.shape[1:]:
            return references[:, None].expand(-1, len(x), *x.shape[1:])
        raise BaselineError(
            f"Given references have shape {describe(references.shape)}; for inputs of shape {describe(x.shape)} they must be "
            f"R x {describe(x.shape[1:])} (the same for all) or R x {describe(x.shape)} (their own for each example)."
        )


@part
class Plain(Baseline):
    """A bare tensor as a baseline; its shape says for which examples.

    A constant if it broadcasts to one example, else one baseline per example (B, \\*s), or (R, B,
    \\*s).

    Shapes decide, and a tensor (R, \\*s) of references shared by all examples is refused rather
    than taken for one per example when R happens to equal B: say ``Given``.

    Args:
        content: the tensor: what broadcasts to one example, (B, \\*s), or (R, B, \\*s).
        label: what reports call it.

    Raises:
        BaselineError: for other shapes.

    Example:
        >>> import torch, integrand as ig
        >>> start = ig.baselines.Plain(torch.zeros(3, 2))
        >>> start(torch.ones(3, 2), ig.fields.Linear(torch.ones(2))).shape
        torch.Size([1, 3, 2])
    """

    content: Tensor
    label: str = "given"

    single: ClassVar[bool] = True
    """Nearly always; shapes decide."""

    def __call__(self, x: Tensor, field: Field) -> Tensor:
        content = as_numbers(self.content, x)
        if content.ndim < x.ndim and one_example(content, x) is not None:
            return Constant(content)(x, field)
        if content.shape == x.shape:
            return content[None]
        if content.ndim == x.ndim and len(content) == 1 and content.shape[1:] == x.shape[1:]:
            return content.expand(1, *x.shape)
        if content.shape[1:] == x.shape:
            return content
        raise BaselineError(
            f"A baseline of shape {describe(content.shape)} does not fit inputs of shape {describe(x.shape)}: give a number, "
            f"something that broadcasts to one example ({describe(x.shape[1:])}), or one baseline per example "
            f"({describe(x.shape)}). For several references shared by all examples use ig.baselines.Given(references)."
        )
