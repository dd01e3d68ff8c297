"""Error messages for failures of the user's model: the rows it was called with and what to try.

A model is called with rows of several examples and several points of their paths. Where it cannot
be, its error speaks of shapes that nobody gave; it is chained to one that says what the call was,
and what to try.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.checkpoint import CheckpointError

from ..core.shapes import describe
from ..errors import DetachedModel, IntegrandError, ModelError
from .autograd import gradients, is_reentrant
from .batching import is_out_of_memory
from .layout import Layout

_GRAPH = (
    "If rows are the nodes of one graph or the steps of one sequence, make the whole of it one example: "
    "lambda z: torch.stack([model(g) for g in z]), with x[None]; graphs of several sizes: ig.fields.GraphField(model, graphs, target)."
)
_SAID = (
    ("enforce_sorted", "Rows come in another order than the examples, and their lengths with them: "
     "pack_padded_sequence(…, enforce_sorted=False), or batch_size=1."),
    ("more than 1 value per channel", "A normalisation takes its statistics from the rows of the call, which says nothing of one row: "
     "let it keep running ones (track_running_stats=True), and call .eval()."),
    ("same dtype", "Give the inputs in the type of the model's parameters, such as x.float()."),
    ("should be the same", "Give the inputs in the type, and on the device, of the model's parameters, such as x.float()."),
    ("flexattention does not support backward", "Load the model with attn_implementation='sdpa', whose kernels have a backward pass here."),
    ("index out of range", _GRAPH),
    ("out of bounds", _GRAPH),
)  # fmt: skip
"""What torch's own words most often mean here."""

Call = Callable[..., Any]


def tells_of_rows(call: Call) -> Call:
    """A network's call (network, z, index, …), whose model's errors say which rows they were raised
    for.

    Models that differentiate themselves, and leave recording to their caller, are given what they
    need: also where values alone are asked for.
    """

    @functools.wraps(call)
    def told(network: Any, z: Tensor, *rest: Any) -> Any:
        recording = torch.is_grad_enabled()
        try:
            if network.differentiates and not recording:
                return _recorded(call, network, z, *rest)
            try:
                return call(network, z, *rest)
            except RuntimeError as error:
                if recording or "does not require grad" not in str(error):
                    raise
                network.differentiates = True
                return _recorded(call, network, z, *rest)
        except Exception as error:
            if (
                isinstance(error, IntegrandError | Warning | CheckpointError)
                or is_reentrant(error)
                or is_out_of_memory(error)
            ):
                raise
            raise refusal(error, z, network.layout, network.batch) from error

    return told


def _recorded(call: Call, network: object, z: Tensor, *rest: Any) -> Any:
    """The call under autograd, its outputs apart from the graph."""
    with gradients(True):
        leaf = (z.clone() if z.is_inference() else z.detach()).requires_grad_(z.is_floating_point())
        outputs = call(network, leaf.clone(), *rest)
    return tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, outputs)


def refusal(error: Exception, z: Tensor, layout: Layout | None, batch: int | None) -> ModelError:
    """The model's error, with the rows ``z`` (N, \\*s) that it was raised for and what to try."""
    words = str(error).strip().split("\n")[0] or "no words"
    if "Can't call numpy()" in words:
        return DetachedModel(
            "The model leaves torch for NumPy, and no gradient comes back from there; .detach() would only hide that. Compute this "
            "part with torch functions."
        )
    rows = len(z)
    origin = (
        ""
        if batch is None or batch == rows
        else f", points on the paths of your {batch} example{'s' * (batch != 1)},"
    )
    head = f"The model failed on {rows} row{'s' * (rows != 1)} of {_shapes(z, layout)}{origin} with {type(error).__name__}: {words}"
    return ModelError(f"{head.rstrip('.')}. {_advice(error, z, layout, batch)}")


def _shapes(z: Tensor, layout: Layout | None) -> str:
    """The shape of one row as the model is given it: of every input where there are several."""
    if layout is None or layout.single:
        return f"shape {describe(z.shape[1:])}" if z.ndim > 1 else "one number"
    names = layout.names if layout.names is not None else range(len(layout.shapes))
    return "inputs " + ", ".join(
        f"{name!r} {describe(s)}" for name, s in zip(names, layout.shapes, strict=True)
    )


def _advice(error: Exception, z: Tensor, layout: Layout | None, batch: int | None) -> str:
    words = str(error)
    several = layout is not None and not layout.single
    named = layout is not None and layout.names is not None
    if isinstance(error, TypeError) and several and not named and "argument" in words:
        return "Inputs are passed as model(*inputs): for a model that takes one list, lambda *xs: model(list(xs))."
    for sign, meaning in _SAID:
        if sign in words.lower():
            return meaning
    if isinstance(error, IndexError):
        return _GRAPH
    if not several and z.ndim == 3 and batch in (1, 3, 4) and "channel" in words.lower():
        return f"If the input is one picture with {batch} channels, give it a batch axis: x[None]."
    if (
        batch is not None
        and batch != len(z)
        and all(str(number) in words for number in (batch, len(z)))
    ):
        return f"It seems to need the {batch} rows it was given. {_GRAPH}"
    if len(z) == 1:
        return "The first axis of its inputs is the batch, here of one row."
    return "A call holds any number of rows, in any order, each an input of its own; batch_size=1 asks about one at a time."
