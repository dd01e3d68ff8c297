"""Autograd on or off whatever the caller's mode, and gradients of scalars at given tensors."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge
from torch.nn.attention import SDPBackend, sdpa_kernel


class _Way(threading.local):
    back = False


_WAY = _Way()


def going_back() -> bool:
    """Whether this thread is in a backward pass of ``slopes``; any other was asked for by the model
    itself."""
    return _WAY.back


@contextmanager
def _back() -> Iterator[None]:
    before, _WAY.back = _WAY.back, True
    try:
        yield
    finally:
        _WAY.back = before


@contextmanager
def gradients(on: bool) -> Iterator[None]:
    """Record operations for autograd, or do not; also inside the caller's no_grad and
    inference_mode."""
    with torch.inference_mode(False), torch.set_grad_enabled(on):
        yield


def slopes(
    roots: Sequence[Tensor],
    leaves: Sequence[Tensor],
    *,
    keep: bool = False,
    everywhere: bool = False,
) -> list[Tensor | None]:
    """The gradient of the sum of all ``roots`` at each of ``leaves``, None where nothing leads
    there.

    keep        the graph, for another backward pass
    everywhere  go to every leaf there is, not only to these: reentrant checkpoints insist on it
                (``is_reentrant``)
    """
    # Tensors as seeds make torch import sympy, half a second or more: roots of one number need none.
    seeds = [None if root.ndim == 0 else torch.ones_like(root) for root in roots]
    if not everywhere:
        # Given tensors, torch would set modes aside while it goes back, and what a checkpoint then
        # runs again would be run without the chords that it was first run with. Given their places
        # in the graph it does not.
        places, ends = ([get_gradient_edge(tensor) for tensor in side] for side in (roots, leaves))
        with _back():
            return list(
                torch.autograd.grad(places, ends, seeds, retain_graph=keep, allow_unused=True)
            )
    with _back():
        torch.autograd.backward(roots, seeds, retain_graph=keep)
    accumulated = [leaf.grad for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    return accumulated


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """While this lasts, attention runs in operations that have second derivatives; its fused kernels
    have none."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


def hessian_products(scalars: Tensor, leaf: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient (N, \\*s) of each of the ``scalars`` (N,) at its row of ``leaf`` (N, \\*s), and
    its Hessian times each of the ``directions`` (K, N, \\*s) there.

    Raises:
        RuntimeError: where the scalars do not depend on the leaf.
    """
    # Places in the graph, not tensors: see ``slopes``.
    root, place = get_gradient_edge(scalars), get_gradient_edge(leaf)
    with _back():
        (slope,) = torch.autograd.grad(
            [root], [place], [torch.ones_like(scalars)], create_graph=True
        )
        products = torch.zeros_like(directions)
        if not slope.requires_grad:  # F is linear
            return slope.detach(), products
        edge = get_gradient_edge(slope)
        last = len(directions) - 1
        for number, direction in enumerate(directions):
            (product,) = torch.autograd.grad(
                [edge],
                [place],
                [direction.to(slope)],
                retain_graph=number < last,
                allow_unused=True,
            )
            if product is not None:
                products[number] = product
    return slope.detach(), products


def is_reentrant(error: BaseException) -> bool:
    """Whether a backward pass to a few leaves failed because of ``torch.utils.checkpoint(…,
    use_reentrant=True)``."""
    signs = ("compatible with .grad()", "passing an `inputs` parameter to .backward()")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
