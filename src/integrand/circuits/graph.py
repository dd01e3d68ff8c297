"""Nodes of a decoder and the edges between them, by number and by name.

    sources   input · a0.h0 … a0.h(H−1) · m0 · a1.h0 … · m(L−1)              what writes into the stream
    sinks     a0.h0<q> … · a0.h0<k> … · a0.h0<v> … · m0 · … · logits         what reads it

A sink reads all that was written before it, so that its input is the sum of these sources and
constants (biases). Keys and values of grouped queries belong to key-value heads, ``a0.kv0<k>``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..errors import UnknownName

INPUT = "input"
LOGITS = "logits"


@dataclass(frozen=True)
class CircuitGraph:
    """The nodes of a decoder of L layers with H heads and K key-value heads each.

    Attributes:
        layers: L.
        heads: H.
        key_value_heads: K; as many as heads where queries are not grouped.
        parallel: whether an MLP does not read the heads of its own layer.
    """

    layers: int
    heads: int
    key_value_heads: int
    parallel: bool = False

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """(S,) the names of what writes into the stream, in its order."""
        names = [INPUT]
        for layer in range(self.layers):
            names += [f"a{layer}.h{head}" for head in range(self.heads)] + [f"m{layer}"]
        return tuple(names)

    @cached_property
    def sinks(self) -> tuple[str, ...]:
        """(V,) the names of what reads the stream, in its order."""
        grouped = "kv" if self.key_value_heads != self.heads else "h"
        names = []
        for layer in range(self.layers):
            names += [f"a{layer}.h{head}<q>" for head in range(self.heads)]
            for side in ("k", "v"):
                names += [
                    f"a{layer}.{grouped}{head}<{side}>" for head in range(self.key_value_heads)
                ]
            names.append(f"m{layer}")
        return (*names, LOGITS)

    # --- places -------------------------------------------------------------------------------------------------------

    def heads_at(self, layer: int) -> slice:
        """Where the heads of a layer stand among the sources."""
        first = self.before_attention(layer)
        return slice(first, first + self.heads)

    def mlp_at(self, layer: int) -> int:
        """Where the MLP of a layer stands among the sources."""
        return self.before_attention(layer) + self.heads

    def group(self, kind: str, layer: int) -> slice:
        """The sources that one branch of a layer writes: "input", "attention" or "mlp"."""
        if kind == "attention":
            return self.heads_at(layer)
        first = 0 if kind == "input" else self.mlp_at(layer)
        return slice(first, first + 1)

    def sink_of(self, layer: int, side: str, head: int) -> int:
        """Where the queries, keys or values of a head stand among the sinks."""
        per_side = {"q": 0, "k": self.heads, "v": self.heads + self.key_value_heads}
        return layer * self._sinks_a_layer + per_side[side] + head

    def mlp_sink(self, layer: int) -> int:
        """Where the MLP of a layer stands among the sinks."""
        return (layer + 1) * self._sinks_a_layer - 1

    @property
    def _sinks_a_layer(self) -> int:
        return self.heads + 2 * self.key_value_heads + 1

    def before_attention(self, layer: int) -> int:
        """How many sources the attention of a layer reads."""
        return 1 + layer * (self.heads + 1)

    def before_mlp(self, layer: int) -> int:
        """How many sources the MLP of a layer reads."""
        return self.before_attention(layer) if self.parallel else self.mlp_at(layer)

    # --- edges --------------------------------------------------------------------------------------------------------

    @cached_property
    def edges(self) -> Tensor:
        """(S, V) whether there is an edge from a source to a sink."""
        reads = torch.zeros(len(self.sinks), dtype=torch.long)
        for layer in range(self.layers):
            last = self.mlp_sink(layer)
            reads[layer * self._sinks_a_layer : last] = self.before_attention(layer)
            reads[last] = self.before_mlp(layer)
        reads[-1] = len(self.sources)
        return torch.arange(len(self.sources))[:, None] < reads

    @property
    def edge_count(self) -> int:
        """How many edges there are."""
        return int(self.edges.sum())

    def source(self, name: str) -> int:
        """The number of a source.

        Raises:
            UnknownName: where there is none of this name.
        """
        if name not in self.sources:
            raise UnknownName("node that writes into the stream", name, self.sources)
        return self.sources.index(name)

    def edge(self, source: str, sink: str) -> tuple[int, int]:
        """The numbers of an edge.

        Raises:
            UnknownName: where there is none.
        """
        if sink not in self.sinks:
            raise UnknownName("node that reads the stream", sink, self.sinks)
        pair = self.source(source), self.sinks.index(sink)
        if not self.edges[pair]:
            raise UnknownName("edge", f"{source}->{sink}", (), f"{sink} reads nothing of {source}.")
        return pair
