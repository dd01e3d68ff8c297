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


def layer_flow(
    scalar: Callable[[Tensor], Tensor], z: Tensor, direction: Tensor, sites: Sequence[Site]
) -> LayerFlow:
    """The flow through ``sites`` as rows ``z`` (N, \\*s) move in a ``direction`` (N, \\*s);
    ``scalar`` runs the model.

    Raises:
        ModelError: for layers that do not run once, or give nothing with one entry per row.
        DetachedModel: where no gradient leads from F to a layer.
    """
    # Of its own memory: rows that are expanded carry no tangents.
    leaf = z.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    try:
        with forward_ad.dual_level(), _marks(sites, len(z)) as marks:
            value = scalar(forward_ad.make_dual(leaf, direction.to(leaf).contiguous()).clone())
            tangents = [forward_ad.unpack_dual(mark).tangent for mark in _listed(marks, sites)]
            tangents = [None if tangent is None else tangent.detach() for tangent in tangents]
            return _joined(leaf, forward_ad.unpack_dual(value).primal, marks, sites, tangents)
    except (NotImplementedError, RuntimeError) as error:
        # What torch says of operations that have no forward derivative; a model's failure quotes it.
        if "forward mode AD" not in str(error) and "forward AD" not in str(error):
            raise
    with _marks(sites, len(z)) as marks:
        value = scalar(leaf.clone())
        tangents = [_twice_back(mark, leaf, direction) for mark in _listed(marks, sites)]
        return _joined(leaf, value, marks, sites, tangents)


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
    marks: dict[int, list[Tensor]],
    sites: Sequence[Site],
    tangents: list[Tensor | None],
) -> LayerFlow:
    primals = _listed(marks, sites)
    if not value.requires_grad:
        raise DetachedModel(
            "The model's output carries no gradient: something detaches it. Return a differentiable score."
        )
    followed = [number for number, primal in enumerate(primals) if primal.requires_grad]
    slopes = torch.autograd.grad(
        value.sum(), [leaf, *(primals[number] for number in followed)], allow_unused=True
    )
    by_place = dict(zip(followed, slopes[1:], strict=True))
    shares = []
    for number, (primal, tangent) in enumerate(zip(primals, tangents, strict=True)):
        slope = by_place.get(number)
        none = slope is None or tangent is None
        shares.append(torch.zeros_like(primal) if none else slope * tangent)  # type: ignore[operator]
    gradient = torch.zeros_like(leaf) if slopes[0] is None else slopes[0]
    return LayerFlow(
        value.detach(),
        gradient.detach(),
        tuple(primal.detach() for primal in primals),
        tuple(share.detach() for share in shares),
    )


def _listed(marks: dict[int, list[Tensor]], sites: Sequence[Site]) -> list[Tensor]:
    """Every tensor of every site, in their order."""
    absent = next((site for place, site in enumerate(sites) if place not in marks), None)
    if absent is not None:
        raise ModelError(
            f"{absent} was not met: the layer does not run when the model does.".capitalize()
        )
    return [mark for place in range(len(sites)) for mark in marks[place]]


@contextmanager
def _marks(sites: Sequence[Site], rows: int) -> Iterator[dict[int, list[Tensor]]]:
    """What is at each site while the model runs: the tensors that the model goes on with, so that
    gradients lead to them."""
    marks: dict[int, list[Tensor]] = {}
    with ExitStack() as stack:
        for place, site in enumerate(sites):
            stack.enter_context(undone(_hook(place, site, rows, marks)))
        yield marks


def _hook(place: int, site: Site, rows: int, marks: dict[int, list[Tensor]]) -> Callable[[], None]:
    run = -1

    def through(passed: Any) -> Any:
        nonlocal run
        run += 1
        if site.run is not None and run != site.run:
            return passed
        if place in marks:
            raise ModelError(
                f"{site} runs several times in one forward pass: name one of its runs, ig.fields.Site({site.name!r}, run=0).".capitalize()
            )
        leaves, spec = tree_flatten(passed)
        chosen = [
            number
            for number, leaf in enumerate(leaves)
            if isinstance(leaf, Tensor) and leaf.is_floating_point()
        ]
        chosen = chosen if site.tensor is None else chosen[site.tensor : site.tensor + 1]
        fitting = [number for number in chosen if leaves[number].shape[:1] == (rows,)]
        if not fitting:
            shapes = ", ".join(describe(leaves[number].shape) for number in chosen) or "none"
            raise ModelError(
                f"{site} gives no tensor with one entry for each of {rows} rows (tensors there: {shapes}): name another layer.".capitalize()
            )
        marks[place] = []
        for number in fitting:
            mark = leaves[number].view_as(leaves[number])
            marks[place].append(mark)
            # What works in place further on works on a copy.
            leaves[number] = mark.clone()
        return tree_unflatten(leaves, spec)

    if site.side == "output":
        return site.module.register_forward_hook(lambda _, __, output: through(output)).remove
    return site.module.register_forward_pre_hook(
        lambda _, args, named: through((args, named)), with_kwargs=True
    ).remove
