"""Shapes used throughout, and helpers that reshape and convert tensors.

    K   segments of a path, stacked         B    examples of a batch
    R   references (draws, other paths:     *s   the shape of one example
        whatever is averaged over)

    x            (B, *s)          the inputs
    references   (R, B, *s)       where paths start
    corners      (K+1, R, B, *s)  the points of a polyline
    shares       (R, B, *s)       one map per reference, before weighting
    weights      (R, B)           how references are weighed; columns add up to one
    values       (B, *s)          the attribution

Rows. A model only ever sees flat rows ``(N, *s)`` beside an ``index`` ``(N,)`` that says which
example each row belongs to. Targets and extra arguments are looked up by that index, so per-example
classes need no expansion anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import BaselineError, InputError, IntegerInput

EXACT = 2**53
"""Whole numbers up to this size are exact in float64, whatever number they are."""

ROUNDING = 64
"""What a difference of two values of F may be off by, in units of their last place: a forward pass
rounds at every one of some dozens of operations."""


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type integration is done in: float32 at least, float64 for float64 inputs."""
    return torch.promote_types(dtype, torch.float32)


def carrier(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The type that carries numbers of this type unchanged: that of the integration, and float64
    for integers too long for float32."""
    wide = not dtype.is_floating_point and not dtype.is_complex and dtype.itemsize > 2
    return (
        torch.float64 if wide and device.type != "mps" else state_dtype(dtype)
    )  # which has no float64


def carried(t: Tensor, dtype: torch.dtype, who: str) -> Tensor:
    """``t`` as numbers of ``dtype``; whole numbers that it cannot hold exactly are refused, for
    they are names of things."""
    converted = t.to(dtype)
    if t.is_floating_point() or t.dtype.itemsize <= 2 or not t.numel():
        return converted
    most = EXACT if dtype == torch.float64 else 2**24
    if bool((converted.abs() > most).any()) or not torch.equal(converted.to(t.dtype), t):
        raise IntegerInput(
            f"{who} holds whole numbers beyond {most:,}, which would be rounded on their way to the model. Map such ids to smaller "
            "ones first (ids % buckets, or their place in a vocabulary)."
        )
    return converted


def flattened(maps: Tensor, leading: int) -> Tensor:
    """``maps`` (L…, \\*s) with everything behind the first ``leading`` axes in one axis; examples
    of one number get one."""
    return maps.flatten(leading) if maps.ndim > leading else maps[..., None]


def over(weights: Tensor, maps: Tensor) -> Tensor:
    """``weights`` (L…) with trailing axes added, ready to multiply ``maps`` (L…, \\*s)."""
    return weights.reshape(weights.shape + (1,) * (maps.ndim - weights.ndim))


def total(maps: Tensor, leading: int) -> Tensor:
    """The sum over everything behind the first ``leading`` axes."""
    return maps.flatten(leading).sum(-1) if maps.ndim > leading else maps


def norm(maps: Tensor, leading: int = 1) -> Tensor:
    """The L2 norm of everything behind the first ``leading`` axes, also where squares are too small
    or too large for the type."""
    flat = maps.flatten(leading) if maps.ndim > leading else maps[..., None]
    norms: Tensor = torch.linalg.vector_norm(flat, dim=-1)
    limits = torch.finfo(flat.dtype)
    low, high = (limits.tiny / limits.eps) ** 0.5, limits.max**0.5 * limits.eps
    if not norms.numel() or (float(norms.amin()) > low and float(norms.amax()) < high):
        return norms
    extreme = ~((norms > low) & (norms < high))
    if flat.shape[-1]:
        rows = flat[extreme]
        largest = rows.abs().amax(-1)
        scale = torch.where((largest > 0) & largest.isfinite(), largest, 1)
        norms[extreme] = (rows / scale[..., None]).norm(dim=-1) * scale
    return norms


def unravelled(places: Tensor, shape: Sequence[int]) -> tuple[Tensor, ...]:
    """``torch.unravel_index``, which would import sympy (half a second or more) to check its types.

    Example:
        >>> [axis.tolist() for axis in unravelled(torch.tensor([0, 5]), (2, 3))]
        [[0, 1], [0, 2]]
    """
    axes = []
    for length in reversed(shape):
        axes.append(places % length)
        places = places // length
    return tuple(reversed(axes))


def first_alike(numbers: Tensor) -> Tensor:
    """For each of ``numbers`` (N,) or rows of numbers (N, C) the place of the first that is the
    same (N,)."""
    group = torch.unique(numbers, dim=None if numbers.ndim == 1 else 0, return_inverse=True)[1]
    place = torch.arange(len(numbers), device=numbers.device)
    return torch.full_like(place, len(numbers)).scatter_reduce_(0, group, place, "amin")[group]


def checked_references(references: object, x: Tensor, who: str, *, missing: bool = False) -> Tensor:
    """References (R, B, \\*s) that are what a baseline promised, or an error that says what they
    are instead; values may be ``missing`` (NaN) where the field takes that."""
    if not isinstance(references, Tensor):
        raise BaselineError(f"{who} returned {type(references).__name__}, not a tensor.")
    if references.shape[1:] != x.shape:
        raise BaselineError(
            f"{who} returned shape {describe(references.shape)}; for inputs of shape {describe(x.shape)} it must be "
            f"R x {describe(x.shape)}."
        )
    if len(references) == 0:
        raise BaselineError(f"{who} returned no references.")
    # A sum is finite only if every term is, and takes no memory; only the rare infinite sum is
    # looked at term by term.
    if not bool(torch.isfinite(references.sum())) and not bool(
        (torch.isfinite(references) | (references.isnan() & missing)).all()
    ):
        raise BaselineError(f"{who} holds NaN or infinity. Fill missing values before explaining.")
    return plain(references).to(x.dtype)


def tensor_of(numbers: object, refusal: str) -> Tensor:
    """Numbers as a tensor: those of arrays, of lists and of a frame's columns are copied.

    Raises:
        InputError: with the ``refusal`` as its message, for what are no numbers.
    """
    if isinstance(numbers, Tensor):
        return numbers
    try:
        return torch.as_tensor(np.array(numbers))
    except (TypeError, ValueError, RuntimeError):
        raise InputError(refusal) from None


def plain(t: Tensor) -> Tensor:
    """``t`` apart from any graph and from classes of its user's own, and fit for autograd also if
    it was made in inference mode."""
    t = as_tensor(t)
    return t.clone() if t.is_inference() else t.detach()


def as_tensor(t: Tensor) -> Tensor:
    """The numbers of a tensor of a class of its own (``torchvision.tv_tensors``, a parameter) as a
    tensor like others: gradients lead to no other.

    Classes that do what operations do themselves (``__torch_dispatch__``), such as tensors that lie
    on several machines, stay what they are.
    """
    if type(t) is Tensor or type(t).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return t
    return t.as_subclass(Tensor)


def copied(t: Tensor) -> Tensor:
    """``t`` in memory of its own; what was only expanded stays so."""
    thin = t
    for axis, (stride, size) in enumerate(zip(t.stride(), t.shape, strict=True)):
        if stride == 0 and size > 1:
            thin = thin.narrow(axis, 0, 1)
    return thin.clone().expand(t.shape)


def describe(shape: Sequence[int]) -> str:
    """A shape in the form ``3x224x224``; a scalar is ``()``."""
    return "x".join(str(int(n)) for n in shape) or "()"
