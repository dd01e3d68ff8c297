"""Along the paths of a graph: graph. Its inputs are nodes with features; tests/test_graph.py has its problems."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

import integrand as ig

BUILD: dict[str, object] = {}


class Nodes(ig.fields.Field):
    """A function of n features as one of n nodes with a feature each."""

    def __init__(self, inner: ig.fields.Field) -> None:
        self.inner = inner

    def evaluate(
        self, z: Tensor, index: Tensor, *, gradient: bool = True
    ) -> ig.segments.Evaluation:
        made = self.inner.evaluate(z[..., 0], index, gradient=gradient)
        return replace(made, gradient=made.gradient[..., None]) if gradient else made


def ring(nodes: int) -> Tensor:
    """Nodes in a circle."""
    return torch.stack([torch.arange(nodes), (torch.arange(nodes) + 1) % nodes])


AXIOMATIC = {
    "graph": lambda field, x, refs: ig.methods.graph(ring(x.shape[1]), node=0, reading="integral")(
        Nodes(field), x[..., None]
    ).values[..., 0]
}
