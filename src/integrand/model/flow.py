"""How a move of the input reaches a scalar through the units of layers: one forward pass with
tangents and one backward pass for all units at once.

    flow_j = ∂F/∂h_j · (J_h v)_j          v: the direction rows move in

The tangent J_h v of every layer rides along in forward-mode autograd; ∂F/∂h of every layer comes
from a single backward pass. A model with an operation that has no forward derivative is
differentiated backwards twice instead: J v is the slope of u ↦ uᵀJ v, for which one more pass back
suffices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..core.shapes import describe
from ..errors import DetachedModel, ModelError
from .network import Site
from .turns import undone

# Its functions have no types.
forward_ad: Any = import_module("torch.autograd.forward_ad")


@dataclass(frozen=True, eq=False)
class LayerFlow:
    """What passes through layers as rows move.

    value (N,) F      gradient (N, \\*s) ∇F at the rows
    activations       for each tensor of each site, what is there (N, \\*L)
    shares            for each of them ∂F/∂h ⊙ J_h v (N, \\*L)
    """

    value: Tensor
    gradient: Tensor
    activations: tuple[Tensor, ...]
    shares: tuple[Tensor, ...]

    def to(self, dtype: torch.dtype) -> LayerFlow:
        """The same numbers in another type."""
        return LayerFlow(
            self.value.to(dtype),
            self.gradient.to(dtype),
            tuple(t.to(dtype) for t in self.activations),
            tuple(t.to(dtype) for t in self.shares),
        )


Scalar = Callable[[Tensor, Tensor], Tensor]
"""Rows (N, \\*s), and which of the call's rows they are like (N,) → F (N,); runs the model."""

Axes = dict[int, tuple[int | None, ...]]
"""Which axis holds the rows, for each tensor of each site; None where none does."""


class _UnclearRows(Exception):
    """Shapes of one pass do not tell which axis of a tensor holds the rows."""


@dataclass(eq=False)
class _Mark:
    """A tensor at a site that the model goes on with, and the axis of it that holds the rows."""

    tensor: Tensor
    axis: int


@dataclass(eq=False)
class _Marks:
    """What was at each site, by its place among them."""

    axes: Axes
    at: dict[int, list[_Mark]]
    unclear: bool = False


def layer_flow(
    scalar: Scalar, z: Tensor, direction: Tensor, sites: Sequence[Site], axes: Axes
) -> LayerFlow:
    """The flow through ``sites`` as rows ``z`` (N, \\*s) move in a ``direction`` (N, \\*s).

    ``axes`` is filled in where shapes alone do not tell which axis of a tensor holds the rows; two
    passes of few rows find out.

    Raises:
        ModelError: for layers that do not run once, or give nothing with one entry per row.
        DetachedModel: where no gradient leads from F to a layer.
    """
    try:
        return _flow(scalar, z, direction, sites, axes)
    except _UnclearRows:
        axes.update(_axes_of_rows(scalar, z, sites))
    return _flow(scalar, z, direction, sites, axes)


def _flow(
    scalar: Scalar, z: Tensor, direction: Tensor, sites: Sequence[Site], axes: Axes
) -> LayerFlow:
    # Of its own memory: rows that are expanded carry no tangents.
    leaf = z.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    every = torch.arange(len(z), device=z.device)
    try:
        with forward_ad.dual_level(), _marks(sites, len(z), axes) as marks:
            dual = forward_ad.make_dual(leaf, direction.to(leaf).contiguous())
            value = scalar(dual.clone(), every)
            tangents = [forward_ad.unpack_dual(m.tensor).tangent for m in _listed(marks, sites)]
            tangents = [None if tangent is None else tangent.detach() for tangent in tangents]
            return _joined(leaf, forward_ad.unpack_dual(value).primal, marks, sites, tangents)
    except (NotImplementedError, RuntimeError) as error:
        # What torch says of operations that have no forward derivative; a model's failure quotes it.
        if "forward mode AD" not in str(error) and "forward AD" not in str(error):
            raise
    with _marks(sites, len(z), axes) as marks:
        value = scalar(leaf.clone(), every)
        tangents = [_twice_back(m.tensor, leaf, direction) for m in _listed(marks, sites)]
        return _joined(leaf, value, marks, sites, tangents)


def _axes_of_rows(scalar: Scalar, z: Tensor, sites: Sequence[Site]) -> Axes:
    """The one axis of each tensor that grows with the number of rows."""
    shapes: list[dict[int, list[torch.Size]]] = []
    for count in (2, 3):
        seen: dict[int, list[torch.Size]] = {}
        with ExitStack() as stack:
            for place, site in enumerate(sites):
                stack.enter_context(undone(_listen_for_shapes(place, site, seen)))
            like = torch.zeros(count, dtype=torch.long, device=z.device)
            scalar(z.detach()[like].requires_grad_(), like)
        shapes.append(seen)
    few, many = shapes
    return {
        place: tuple(
            next((axis for axis, (a, b) in enumerate(zip(*pair, strict=True)) if a + 1 == b), None)
            if len(pair[0]) == len(pair[1])
            else None
            for pair in zip(few[place], many[place], strict=False)
        )
        for place in few.keys() & many.keys()
    }


def _listen_for_shapes(
    place: int, site: Site, seen: dict[int, list[torch.Size]]
) -> Callable[[], None]:
    run = -1

    def note(passed: Any) -> None:
        nonlocal run
        run += 1
        if site.run is None or run == site.run:
            leaves = tree_flatten(passed)[0]
            seen[place] = [leaves[number].shape for number in _chosen(leaves, site)]

    return _hooked(site, note)


def _twice_back(mark: Tensor, leaf: Tensor, direction: Tensor) -> Tensor | None:
    """J v from uᵀJ, which is linear in u."""
    if not mark.requires_grad:
        return None
    unit = torch.zeros_like(mark, requires_grad=True)
    (back,) = torch.autograd.grad(mark, leaf, unit, create_graph=True, allow_unused=True)
    if back is None or not back.requires_grad:
        return None
    (tangent,) = torch.autograd.grad(
        back, unit, direction.to(back), retain_graph=True, allow_unused=True
    )
    return None if tangent is None else tangent.detach()


def _joined(
    leaf: Tensor,
    value: Tensor,
    marks: _Marks,
    sites: Sequence[Site],
    tangents: list[Tensor | None],
) -> LayerFlow:
    listed = _listed(marks, sites)
    if not value.requires_grad:
        raise DetachedModel(
            "The model's output carries no gradient: something detaches it. Return a differentiable score."
        )
    followed = [number for number, mark in enumerate(listed) if mark.tensor.requires_grad]
    slopes = torch.autograd.grad(
        value.sum(), [leaf, *(listed[number].tensor for number in followed)], allow_unused=True
    )
    by_place = dict(zip(followed, slopes[1:], strict=True))
    activations, shares = [], []
    for number, (mark, tangent) in enumerate(zip(listed, tangents, strict=True)):
        slope = by_place.get(number)
        none = slope is None or tangent is None
        share = torch.zeros_like(mark.tensor) if none else slope * tangent  # type: ignore[operator]
        activations.append(mark.tensor.detach().movedim(mark.axis, 0))
        shares.append(share.detach().movedim(mark.axis, 0))
    gradient = torch.zeros_like(leaf) if slopes[0] is None else slopes[0]
    return LayerFlow(value.detach(), gradient.detach(), tuple(activations), tuple(shares))


def _listed(marks: _Marks, sites: Sequence[Site]) -> list[_Mark]:
    """Every tensor of every site, in their order."""
    absent = next((site for place, site in enumerate(sites) if place not in marks.at), None)
    if absent is not None:
        raise ModelError(
            f"{absent} was not met: the layer does not run when the model does.".capitalize()
        )
    if marks.unclear:
        raise _UnclearRows
    return [mark for place in range(len(sites)) for mark in marks.at[place]]


@contextmanager
def _marks(sites: Sequence[Site], rows: int, axes: Axes) -> Iterator[_Marks]:
    """What is at each site while the model runs: the tensors that the model goes on with, so that
    gradients lead to them."""
    marks = _Marks(axes, {})
    with ExitStack() as stack:
        for place, site in enumerate(sites):
            stack.enter_context(undone(_hook(place, site, rows, marks)))
        yield marks


def _hook(place: int, site: Site, rows: int, marks: _Marks) -> Callable[[], None]:
    run = -1

    def through(passed: Any) -> Any:
        nonlocal run
        run += 1
        if site.run is not None and run != site.run:
            return passed
        if place in marks.at:
            raise ModelError(
                f"{site} runs several times in one forward pass: name one of its runs, ig.fields.Site({site.name!r}, run=0).".capitalize()
            )
        leaves, spec = tree_flatten(passed)
        chosen = _chosen(leaves, site)
        fitting = _fitting([leaves[number].shape for number in chosen], place, rows, marks)
        if not fitting:
            shapes = ", ".join(describe(leaves[number].shape) for number in chosen) or "none"
            raise ModelError(
                f"{site} gives no tensor with one entry for each of {rows} rows (tensors there: {shapes}): name another layer.".capitalize()
            )
        marks.at[place] = []
        for position, axis in fitting.items():
            number = chosen[position]
            mark = leaves[number].view_as(leaves[number])
            marks.at[place].append(_Mark(mark, axis))
            # What works in place further on works on a copy.
            leaves[number] = mark.clone()
        return tree_unflatten(leaves, spec)

    return _hooked(site, through)


def _chosen(leaves: Sequence[Any], site: Site) -> list[int]:
    """The numbers of the tensors at a site that may be meant."""
    numbers = [
        number
        for number, leaf in enumerate(leaves)
        if isinstance(leaf, Tensor) and leaf.is_floating_point()
    ]
    return numbers if site.tensor is None else numbers[site.tensor : site.tensor + 1]


def _fitting(shapes: Sequence[torch.Size], place: int, rows: int, marks: _Marks) -> dict[int, int]:
    """The tensors with one entry per row, by their positions, and the axis of each that holds the
    rows. One tensor with one axis of that length is clear; anything else is looked into."""
    known = marks.axes.get(place)
    if known is not None:
        return {
            position: axis
            for position, axis in enumerate(known)
            if axis is not None and position < len(shapes)
        }
    candidates = [[axis for axis, size in enumerate(s) if size == rows] for s in shapes]
    marks.unclear |= len(shapes) > 1 or any(len(axes) > 1 for axes in candidates)
    return {position: axes[0] for position, axes in enumerate(candidates) if axes}


def _hooked(site: Site, function: Callable[[Any], Any]) -> Callable[[], None]:
    """``function`` sees what passes a site, and may put something else in its place; returns how to
    stop that."""
    if site.side == "output":
        return site.module.register_forward_hook(lambda _, __, output: function(output)).remove
    return site.module.register_forward_pre_hook(
        lambda _, args, named: function((args, named)), with_kwargs=True
    ).remove
