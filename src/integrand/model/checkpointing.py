"""Memory for time: the repeated blocks of a model run again on the way back, and what that saves.

    forward     block by block; each keeps what went into it, and nothing of what it computed
    backward    the last block first: it runs again, and its activations live while the gradient passes it

    kept without     all activations                        time  forward + backward
    kept with        inputs of all blocks + activations of one    2 forward + backward

Blocks are what the model itself declares to be repeated: modules of one class in an ``nn.ModuleList``. They are run
again in eval mode as in training mode, and give the same numbers to the last bit, because the same operations run on the
same inputs.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from .autograd import gradients
from .turns import undone


def repeated_blocks(root: nn.Module, without: nn.Module | None = None) -> list[nn.Module]:
    """The modules that a model repeats, in its order: those of one class in a list of modules.

    Lists inside a block belong to it. Modules without parts of their own are no blocks: running them
    again saves nothing. Nor are those around ``without``, which something else is put in the place
    of.
    """
    blocks: list[nn.Module] = []
    if isinstance(root, nn.ModuleList):
        classes = Counter(type(entry) for entry in root)
        for entry in root:
            held_out = without is not None and any(part is without for part in entry.modules())
            repeated = classes[type(entry)] > 1 and any(entry.children()) and not held_out
            blocks += [entry] if repeated else repeated_blocks(entry, without)
    else:
        for child in root.children():
            blocks += repeated_blocks(child, without)
    # A block that several lists hold is one.
    return list({id(block): block for block in blocks}.values())


@contextmanager
def recomputed(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """While this lasts, blocks that run under autograd keep only what goes into them, and run again
    on the way back, which may come later."""
    with ExitStack() as stack:
        for block in blocks:
            if not isinstance(block, torch.jit.ScriptModule):  # has no forward that could change
                stack.enter_context(undone(_run_again(block)))
        yield


def _run_again(block: nn.Module) -> Callable[[], None]:
    """Exchange the forward of a block; returns how to undo it."""
    before = vars(block).get("forward")  # what others have put there, such as loaders of weights
    run = block.forward

    @functools.wraps(run)
    def forward(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return run(*args, **kwargs)
        return checkpoint(run, *args, use_reentrant=False, **kwargs)

    vars(block)["forward"] = forward

    def give_back() -> None:
        if before is None:
            del vars(block)["forward"]
        else:
            vars(block)["forward"] = before

    return give_back


# --- what is kept -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class KeptBytes:
    """Bytes that autograd keeps of a forward pass, beside weights.

    Attributes:
        plain: as it runs.
        recomputed: with its blocks run again: what goes into each, and the activations of the
            largest.
    """

    plain: float
    recomputed: float


def kept_bytes(root: nn.Module, blocks: Sequence[nn.Module], run: Callable[[], Any]) -> KeptBytes:
    """What autograd keeps of ``run``, a forward pass of ``root``.

    Counted are the storages that operations save for their backward passes, each once. What a
    function of its own keeps in another way is not seen, nor what lives for a moment only.

    Cost:
        one forward pass, and its memory.
    """
    meter = _Meter(root)
    with ExitStack() as stack:
        for block in blocks:
            before = block.register_forward_pre_hook(meter.enter, with_kwargs=True)
            stack.enter_context(undone(before.remove))
            stack.enter_context(undone(block.register_forward_hook(meter.leave).remove))
        with gradients(True), saved_tensors_hooks(meter.pack, lambda tensor: tensor):
            outputs = run()
    del outputs
    return meter.kept


class _Meter:
    """Counts storages that are saved, apart for every run of a block."""

    def __init__(self, root: nn.Module) -> None:
        tensors = [*root.parameters(), *root.buffers()]
        self.weights = {_storage(tensor)[0] for tensor in tensors}
        self.outside: dict[int, int] = {}
        self.inputs: dict[int, int] = {}
        self._alive: list[Tensor] = []  # or another tensor might get the place of an input
        self.runs: list[dict[int, int]] = []
        self.inside = False

    def pack(self, tensor: Tensor) -> Tensor:
        self._note(self.runs[-1] if self.inside else self.outside, tensor)
        return tensor

    def enter(self, block: nn.Module, args: Any, kwargs: Any) -> None:
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                self._note(self.inputs, leaf)
                self._alive.append(leaf)
        self.runs.append({})
        self.inside = True

    def leave(self, block: nn.Module, args: Any, outputs: Any) -> None:
        self.inside = False

    def _note(self, storages: dict[int, int], tensor: Tensor) -> None:
        place, size = _storage(tensor)
        if place not in self.weights:
            storages[place] = size

    @property
    def kept(self) -> KeptBytes:
        plain = dict(self.outside)
        for run in self.runs:
            plain |= run
        largest = max((sum(run.values()) for run in self.runs), default=0)
        outside = self.outside | self.inputs
        return KeptBytes(sum(plain.values()), sum(outside.values()) + largest)


def _storage(tensor: Tensor) -> tuple[int, int]:
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.nbytes()


def kept_at(length: int, measure: Callable[[int], KeptBytes]) -> KeptBytes:
    """What is kept of a sequence, from what is kept of two short ones.

        bytes(T) = a T + b T²        linear layers and attention

    Args:
        length: T.
        measure: bytes of a sequence of some tokens.
    """
    if length <= _SHORT:
        return measure(length)
    first = max(length // 8, _SHORT // 2)
    small, larger = measure(first), measure(2 * first)

    def extended(one: float, two: float) -> float:
        square = (two - 2 * one) / 2  # b first²
        times = length / first
        return (one - square) * times + square * times**2

    return KeptBytes(
        extended(small.plain, larger.plain), extended(small.recomputed, larger.recomputed)
    )


_SHORT = 64  # tokens up to which nothing is gained by looking at fewer
