"""Bookkeeping of rows: which row precedes which, and which axis of a tensor holds them.

A chord needs the value that its input had one row earlier. Rows come first in what a model is
given, and stay first, alone or folded with what follows them (N·T, …), in nearly everything models
do; a reshape never changes that. What does is a transposition: (N, T, E) → (T, N, E) for models
that want time first, or the (3, N, H, T, D) of queries, keys and values. So tensors are seen as

    (P, N, Q)        P numbers of axes before the rows, rows, whatever follows, in the order of
                     their elements

and P is followed through transpositions, slices, stacks, sums and everything that keeps the axes. P
= 1 is not written down. Where P cannot be told, P = 0: the tensor is left alone by chords and keeps
its ordinary gradient. A model that moves rows by a way not seen here (an in-place copy, a gather)
is taken to have them first; its chords then do not add up, and that is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from math import prod
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from ...core.torch_calls import Arguments, Function, Keywords

_TAG = "_integrand_outer"  # on tensors of one pass: their P, where it is not 1


def outer(u: Tensor) -> int:
    axes: int = getattr(u, _TAG, 1)
    return axes


class Context(FunctionCtx):
    """What ``forward`` leaves for ``backward``; chords that leave more than tensors declare it in a
    class of their own."""

    saved_tensors: tuple[Tensor, ...]


class Chord(torch.autograd.Function):
    """A function with a chord for a derivative. It has no second one, and says so instead of taking
    the chord for a constant."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.backward = staticmethod(once_differentiable(cls.backward))  # type: ignore[assignment]


class Rows:
    """Rows and the row ``before`` each (N,)."""

    def __init__(self, before: Tensor) -> None:
        self.before = before
        self.count = len(before)
        place = torch.arange(self.count, device=before.device)
        first = before == place
        # Rows that begin a run, if every other row comes right after the one before it, as rows of
        # a path do.
        self.first = first.nonzero()[:, 0] if bool((first | (before == place - 1)).all()) else None
        self.moved = False  # whether the rows of anything were seen elsewhere than first

    def moves(self, value: object) -> TypeGuard[Tensor]:
        """Whether a value depends on the rows in a way that chords can follow. (A leaf is a
        parameter, not a row.)"""
        return (
            isinstance(value, Tensor)
            and value.grad_fn is not None
            and self.place(value) is not None
        )

    def previous(self, u: Tensor, axes: int | None = None) -> Tensor:
        """What every row's predecessor has in its place; ``axes`` is P, for tensors made inside a
        chord."""
        axes = outer(u) if axes is None else axes
        if axes == 1:
            return u.reshape(self.count, -1).index_select(0, self.before).view(u.shape)
        return u.reshape(axes, self.count, -1).index_select(1, self.before).view(u.shape)

    def mean(self, u: Tensor) -> Tensor:
        """(u_a + u_b) / 2."""
        return self.previous(u).lerp_(u, 0.5)

    def apply(self, function: type[Chord], *arguments: Any) -> Tensor:
        """A ``torch.autograd.Function`` whose first argument is these rows."""
        output: Tensor = function.apply(self, *arguments)  # type: ignore[no-untyped-call]
        return output

    def with_rows_of(self, output: Tensor, u: Tensor) -> Tensor:
        """``output`` inside a chord, with its rows where those of ``u`` are."""
        if outer(u) != 1:
            setattr(output, _TAG, outer(u))
        return output

    def place(self, u: Tensor) -> tuple[int, int] | None:
        """The axis that holds the rows, and how much of it comes before them."""
        return place(u.shape, outer(u), self.count)

    def axes(self, u: Tensor, shape: Sequence[int]) -> int:
        """P of a tensor of this ``shape``, whose rows are on the same axis as those of ``u``."""
        axis, folded = self.place(u) or (0, 1)
        return prod(shape[:axis]) * folded

    # --- following ------------------------------------------------------------------------------------------------

    def follow(self, func: Function, args: Arguments, kwargs: Keywords, output: object) -> None:
        """Note where the rows are in what an operation made."""
        moves = _move_of(func)
        if not (moves or self.moved) or self.count == 1:
            return
        if not isinstance(output, (Tensor, tuple, list)):  # far faster than a union
            return
        sources = [
            u for u in tensors((*args, *kwargs.values())) if u.grad_fn is not None and u.ndim
        ]
        if not sources or not (moves or any(outer(u) != 1 for u in sources)):
            return
        for u in [output] if isinstance(output, Tensor) else output:
            if isinstance(u, Tensor) and u.grad_fn is not None:
                axes = (moves or _axes_by_default)(self, sources, args, kwargs, u)
                if axes != outer(u):
                    setattr(u, _TAG, axes)
                    self.moved = True


def place(shape: Sequence[int], axes: int, count: int) -> tuple[int, int] | None:
    """The axis that holds ``count`` rows behind ``axes`` numbers, and how many of those are folded
    into it."""
    lead = 1
    if axes and 0 not in shape:
        for axis, size in enumerate(shape):
            if axes % lead == 0 and size % (axes // lead * count) == 0:
                return axis, axes // lead
            lead *= size
    return None


def _function_name(func: Function) -> str:
    name: str = getattr(func, "__name__", "")
    # Properties such as u.T come as the getter of a descriptor.
    return getattr(getattr(func, "__self__", None), "__name__", "") if name == "__get__" else name


def tensors(values: Iterable[object]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from tensors(value)


Follow = Callable[[Rows, list[Tensor], Arguments, Keywords, Tensor], int]


def _same_axes(
    rows: Rows, sources: list[Tensor], args: Arguments, kwargs: Keywords, output: Tensor
) -> int:
    return outer(sources[0])


def _axes_of_view(
    rows: Rows, sources: list[Tensor], args: Arguments, kwargs: Keywords, output: Tensor
) -> int:
    """A view: the axis of the rows is known by its stride."""
    source = sources[0]
    place = rows.place(source)
    if place is None:
        return 0
    axis, folded = place
    for position, (size, stride) in enumerate(zip(output.shape, output.stride(), strict=True)):
        if size == source.shape[axis] and stride == source.stride(axis):
            return prod(output.shape[:position]) * folded
    return 0


def _axes_by_default(
    rows: Rows, sources: list[Tensor], args: Arguments, kwargs: Keywords, output: Tensor
) -> int:
    """Any other operation: rows stay on their axis, or on what is left of it after a sum over
    others."""
    moved = [u for u in sources if outer(u) != 1]
    source = next((u for u in moved if u.ndim == output.ndim), (moved or sources)[0])
    place = rows.place(source)
    if place is None:
        return 0
    axis, folded = place
    if output.ndim == source.ndim and output.shape[axis] == source.shape[axis]:
        return prod(output.shape[:axis]) * folded
    if _shares_storage(output, source):
        return _axes_of_view(rows, sources, args, kwargs, output)
    dims = kwargs.get("dim", args[1] if len(args) > 1 else None)
    dims = (dims,) if isinstance(dims, int) else dims
    if (
        output.ndim < source.ndim
        and isinstance(dims, tuple | list)
        and all(isinstance(d, int) for d in dims)
    ):
        reduced = {d % source.ndim for d in dims}
        return prod(size for d, size in enumerate(source.shape[:axis]) if d not in reduced) * folded
    return 0


def _dim(args: Arguments, kwargs: Keywords, output: Tensor) -> int:
    """The axis that tensors are put together along."""
    dim = kwargs["dim"] if "dim" in kwargs else args[1] if len(args) > 1 else 0
    return int(dim) % output.ndim


def _axes_of_stack(
    rows: Rows, sources: list[Tensor], args: Arguments, kwargs: Keywords, output: Tensor
) -> int:
    place = rows.place(sources[0])
    if place is None:
        return 0
    axis, folded = place
    dim = _dim(args, kwargs, output)
    return prod(output.shape[: axis + (dim <= axis)]) * folded


def _axes_of_cat(
    rows: Rows, sources: list[Tensor], args: Arguments, kwargs: Keywords, output: Tensor
) -> int:
    place = rows.place(sources[0])
    if place is None:
        return 0
    axis, folded = place
    dim = _dim(args, kwargs, output)
    if dim != axis:
        return prod(output.shape[:axis]) * folded
    parts = args[0] if args else kwargs["tensors"]
    alike = folded == 1 and all(
        rows.place(u) == place and u.shape == sources[0].shape for u in parts
    )
    return prod(output.shape[:axis]) * len(parts) if alike else 0


def _axes_of_einsum(
    rows: Rows, sources: list[Tensor], args: Arguments, kwargs: Keywords, output: Tensor
) -> int:
    """The letter of the rows says where they go."""
    equation = args[0]
    listed = len(args) == 2 and isinstance(args[1], tuple | list)
    operands: Sequence[Tensor] = args[1] if listed else args[1:]
    place = rows.place(sources[0])
    if place is None or not isinstance(equation, str) or "->" not in equation:
        return _axes_by_default(rows, sources, args, kwargs, output)
    left, right = equation.replace(" ", "").split("->")
    letters = left.split(",")[next(i for i, u in enumerate(operands) if u is sources[0])]
    if "." in equation or letters[place[0]] not in right:
        return _axes_by_default(rows, sources, args, kwargs, output)
    return prod(output.shape[: right.index(letters[place[0]])]) * place[1]


def _shares_storage(output: Tensor, source: Tensor) -> bool:
    return output.untyped_storage().data_ptr() == source.untyped_storage().data_ptr()


# What may change P, and what surely does not although axes come and go; everything else is followed
# only where P is not 1.
_FOLLOWED: dict[str, Follow] = {
    **dict.fromkeys(
        ["transpose", "permute", "movedim", "moveaxis", "swapaxes", "swapdims", "t", "T", "mT", "H", "mH", "adjoint",
         "expand", "expand_as", "broadcast_to"],
        _axes_of_view,
    ),
    **dict.fromkeys(
        ["reshape", "view", "flatten", "unflatten", "ravel", "reshape_as", "view_as", "squeeze", "unsqueeze", "contiguous"],
        _same_axes,
    ),
    **dict.fromkeys(["cat", "concat", "concatenate"], _axes_of_cat),
    "stack": _axes_of_stack,
    "einsum": _axes_of_einsum,
}  # fmt: skip


@lru_cache(4096)
def _move_of(func: Function) -> Follow | None:
    """What becomes of the place of rows in a function that may change it; None for others."""
    return _FOLLOWED.get(_function_name(func))
