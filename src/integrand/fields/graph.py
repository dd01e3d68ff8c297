"""Models of graphs as fields: a graph is one example, and a call holds many, packed into one.

    examples   (B, n_max, d), (B, e_max …)      what is explained, padded with zeros to one shape
       │ rows of any examples, any number
    one graph  x (Σ n, d), edges (2, Σ e), batch (Σ n)      their disjoint union, for the model

Padding never reaches the model: its gradient is zero, and so is its share. Nodes of different rows
are joined by no edge, so that rows are independent though nodes are not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.segment import Evaluation
from ..core.shapes import describe
from ..errors import InputError, ShapeError
from ..model.layout import Layout
from ..targets import TargetLike
from .base import Field
from .torch import TorchField

NodeType = str | None
Relation = tuple[str, str, str] | None
Key = NodeType | Relation
_ONLY = None  # the type of nodes and the relation of a graph that has one
PARTS = ("x", "weight")


@dataclass(frozen=True, eq=False)
class Graph:
    """One graph.

    Args:
        x: features (n, d); of a heterogeneous graph a dict of them by type of node.
        edges: (2, e), as PyG stores them; a dict of them by relation (source, name, target).
        weight: numbers of edges (e,) or (e, k); a dict of them by relation; None for none.
    """

    x: Tensor | Mapping[Any, Tensor]
    edges: Tensor | Mapping[Any, Tensor]
    weight: Tensor | Mapping[Any, Tensor] | None = None

    @property
    def heterogeneous(self) -> bool:
        """Whether it has several types of nodes, by name."""
        return isinstance(self.x, Mapping)

    def parts(self) -> dict[str, dict[Any, Tensor]]:
        """Features, edges and weights, each by type or relation."""
        return {
            name: dict(value) if isinstance(value, Mapping) else {_ONLY: value}
            for name, value in (("x", self.x), ("edges", self.edges), ("weight", self.weight))
            if value is not None
        }


class GraphField(TorchField):
    """F of graphs of different sizes: a graph is an example, and is never cut.

    Args:
        model: called as ``model(x, edges, batch)``, ``model(x, edges, weight, batch)`` where graphs
            have weights, without ``batch`` where ``node`` is given; dicts take the place of tensors
            for heterogeneous graphs. ``arguments`` says so otherwise.
        graphs: B graphs with the same types, relations and numbers of features.
        target: as in ``explain``; "predicted" is not known here.
        node: (B,) or one for all: the node whose output is explained, of a model that returns one
            for each node. Without it the model returns one for each graph.
        explain: "x", "weight", or both as a tuple: what is explained. The rest stays as it is.
        arguments: what the model is called with, in order: names among "x", "edges", "weight",
            "batch".
        of: which type of nodes the model's outputs are of, for ``node`` in heterogeneous graphs.
        batch_size: graphs per call; found while working unless given.

    Attributes:
        inputs: what is explained, (B, n_max, d) or a dict of such tensors, padded with zeros.

    Raises:
        InputError: for graphs that do not fit together, and parts that they do not have.

    Cost:
        That of the model on the union; as many graphs share a call as is fast.

    Example:
        >>> import torch, integrand as ig
        >>> def sums(x, edges, batch):  # of what neighbours send, over each graph
        ...     sent = torch.zeros_like(x).index_add(0, edges[1], x[edges[0]]).square()
        ...     return x.new_zeros(int(batch.max()) + 1, 1).index_add(0, batch, sent)
        >>> pair = ig.fields.Graph(torch.ones(2, 1), torch.tensor([[0, 1], [1, 0]]))
        >>> star = ig.fields.Graph(torch.ones(3, 1), torch.tensor([[1, 2], [0, 0]]))
        >>> field = ig.fields.GraphField(sums, [pair, star], target=0)
        >>> maps = ig.explain(field, field.inputs).values
        >>> [part.flatten().round(decimals=3).tolist() for part in field.apart(maps)]
        [[1.0, 1.0], [0.0, 2.0, 2.0]]
    """

    def __init__(
        self,
        model: Callable[..., Any],
        graphs: Sequence[Graph],
        target: TargetLike,
        *,
        node: int | Sequence[int] | Tensor | None = None,
        explain: str | tuple[str, ...] = "x",
        arguments: Sequence[str] | None = None,
        of: NodeType = None,
        batch_size: int | None = None,
    ) -> None:
        store = _Store(graphs, (explain,) if isinstance(explain, str) else explain)
        if arguments is None:
            weights = ("weight",) if "weight" in store.keys else ()
            arguments = ("x", "edges", *weights, *(() if node is not None else ("batch",)))
        unknown = set(arguments) - {"x", "edges", "weight", "batch"}
        if unknown or ("weight" in arguments and "weight" not in store.keys):
            raise InputError(
                f"arguments are names among 'x', 'edges', 'weight' (of graphs that have it) and 'batch', not {sorted(unknown) or ['weight']}."
            )
        place = None if node is None else store.checked_nodes(node, of)
        self.store = store
        self.inputs = store.inputs()
        layout = Layout.of(self.inputs)
        call = _caller(model, store, tuple(arguments), place, of)
        number = torch.arange(len(graphs), device=store.device)
        super().__init__(call, target, extra=(number,), batch_size=batch_size, layout=layout)
        self.network.batch = len(graphs)

    def evaluate_chords(self, z: Tensor, index: Tensor, before: Tensor) -> Evaluation:
        # Chords follow rows through the model, whose tensors hold nodes: gradients at both ends.
        return Field.evaluate_chords(self, z, index, before)

    @property
    def gated(self) -> bool:
        return True

    def apart(self, values: Tensor | Mapping[Any, Tensor]) -> list[Any]:
        """Maps (B, …) → one for each graph, without padding: (n, d), or dicts of such tensors."""
        return self.store.apart(values)


class _Store:
    """Graphs laid out: for each type and relation one padded tensor of all graphs, and counts."""

    def __init__(self, graphs: Sequence[Graph], explain: tuple[str, ...]) -> None:
        if not graphs:
            raise InputError("There are no graphs to explain: give one at least.")
        parts = [_checked(graph, number) for number, graph in enumerate(graphs)]
        self.heterogeneous = graphs[0].heterogeneous
        self.keys: dict[str, list[Any]] = {n: list(entries) for n, entries in parts[0].items()}
        for number, other in enumerate(parts):
            _check_alike(parts[0], other, number)
        wrong = [n for n in explain if n not in PARTS or n not in self.keys]
        if wrong or not explain:
            raise InputError(
                f"explain= is 'x', 'weight' or both, whatever the graphs have, not {explain!r}."
            )
        self.explain = explain
        self.padded = {
            (name, key): _padded([entry[name][key] for entry in parts])
            for name, keys in self.keys.items()
            for key in keys
            if name != "edges"
        }
        self.edges = {
            key: _padded([entry["edges"][key].T for entry in parts]) for key in self.keys["edges"]
        }
        self.nodes = {key: _lengths([e["x"][key] for e in parts]) for key in self.keys["x"]}
        self.links = {key: _lengths([e["edges"][key].T for e in parts]) for key in self.edges}
        self.device = next(iter(self.padded.values())).device

    def name(self, part: str, key: Key) -> Any:
        """What a part that is explained is called: "x", or a type or relation."""
        return part if key is _ONLY else key

    def explained(self) -> list[tuple[str, Any]]:
        return [(part, key) for part in self.explain for key in self.keys[part]]

    def inputs(self) -> Any:
        """(B, n_max, d), or a dict of several."""
        named = {self.name(*which): self.padded[which] for which in self.explained()}
        return next(iter(named.values())) if self._single else named

    @property
    def _single(self) -> bool:
        return not self.heterogeneous and len(self.explain) == 1

    def counts(self, part: str, key: Key) -> Tensor:
        """(B,) how many nodes or edges each graph has."""
        return self.nodes[key] if part == "x" else self.links[key]

    def checked_nodes(self, node: int | Sequence[int] | Tensor, of: NodeType) -> Tensor:
        """(B,) one node of each graph, each among its own."""
        if of not in self.nodes:
            raise InputError(
                f"of= is the type of nodes that outputs are of, one of {list(self.nodes)}, not {of!r}."
            )
        counts = self.nodes[of]
        place = torch.as_tensor(node, device=counts.device)
        place = place.expand(len(counts)) if place.ndim == 0 else place
        if place.is_floating_point() or place.shape != counts.shape:
            raise InputError(
                f"node= is a whole number, or one for each of {len(counts)} graphs, not {describe(place.shape)} of {place.dtype}."
            )
        wrong = ((place < 0) | (place >= counts)).nonzero()
        if len(wrong):
            number = int(wrong[0])
            raise InputError(
                f"node={int(place[number])} of graph {number}, which has {int(counts[number])} nodes."
            )
        return place

    def apart(self, values: Tensor | Mapping[Any, Tensor]) -> list[Any]:
        """One entry for each graph, without padding."""
        batch = len(next(iter(self.nodes.values())))
        tensors = {self.name(*self.explained()[0]): values} if self._single else values
        graphs = [
            {
                self.name(*which): tensors[self.name(*which)][b, : int(self.counts(*which)[b])]
                for which in self.explained()
            }
            for b in range(batch)
        ]
        return [next(iter(entry.values())) for entry in graphs] if self._single else graphs

    def union(self, given: Sequence[Tensor], number: Tensor) -> dict[str, dict[Any, Tensor]]:
        """The disjoint union of rows of the graphs ``number`` (N,), with what is ``given`` of each
        in place of its own."""
        parts: dict[str, dict[Any, Tensor]] = {"x": {}, "edges": {}, "weight": {}, "batch": {}}
        rows = dict(zip(self.explained(), given, strict=True))
        for which, padded in self.padded.items():
            part, key = which
            content = rows.get(which)
            content = padded[number] if content is None else content
            parts[part][key] = content[_present(self.counts(part, key)[number], content)]
        for key, counts in self.nodes.items():
            parts["batch"][key] = torch.arange(len(number), device=number.device).repeat_interleave(
                counts[number]
            )
        for key, padded in self.edges.items():
            ends = (key, key) if key is _ONLY else (key[0], key[-1])
            offsets = torch.stack([self.offsets(end, number) for end in ends], 1)
            present = _present(self.links[key][number], padded[number])
            parts["edges"][key] = (padded[number] + offsets[:, None])[present].T
        return parts

    def offsets(self, key: Key, number: Tensor) -> Tensor:
        """(N,) where the nodes of each row begin in the union."""
        counts = self.nodes[key][number]
        return counts.cumsum(0) - counts


def _caller(
    model: Callable[..., Any],
    store: _Store,
    arguments: tuple[str, ...],
    place: Tensor | None,
    of: NodeType,
) -> Callable[..., Any]:
    """A model of rows: (what is explained …, numbers of graphs) → outputs, one for each row."""

    def call(*inputs: Any, **named: Any) -> Any:
        *given, number = inputs
        parts = store.union(given or list(named.values()), number)
        taken = [parts[n] if store.heterogeneous else parts[n][_ONLY] for n in arguments]
        outputs = model(*taken)
        if place is None:
            return outputs
        entries = outputs[of] if isinstance(outputs, Mapping) else outputs
        nodes = int(store.nodes[of][number].sum())
        if len(entries) != nodes:
            raise ShapeError(
                f"node= explains one node, and the model returned {len(entries)} rows for {nodes} nodes: leave node= out for a model that "
                "returns one row for each graph."
            )
        return entries[store.offsets(of, number) + place[number]]

    return call


def _present(counts: Tensor, padded: Tensor) -> Tensor:
    """(N, n_max) which entries are no padding."""
    return torch.arange(padded.shape[1], device=padded.device) < counts[:, None]


def _padded(tensors: Sequence[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(tensors), batch_first=True)


def _lengths(tensors: Sequence[Tensor]) -> Tensor:
    return torch.tensor([len(tensor) for tensor in tensors], device=tensors[0].device)


def _checked(graph: Graph, number: int) -> dict[str, dict[Any, Tensor]]:
    """The parts of a graph, or an error that says what does not fit."""
    if not isinstance(graph, Graph):
        raise InputError(
            f"Graph {number} is a {type(graph).__name__}: give ig.fields.Graph(x, edge_index), which PyG's data hold as .x and .edge_index."
        )
    parts = graph.parts()
    for key, x in parts["x"].items():
        if not x.is_floating_point() or x.ndim < 2 or not len(x):
            raise InputError(
                f"Graph {number} has features of shape {describe(x.shape)} of {x.dtype}{_of(key)}: give numbers (n, d) for n ≥ 1 nodes."
            )
    for key, edges in parts["edges"].items():
        if edges.ndim != 2 or len(edges) != 2 or edges.is_floating_point():
            raise InputError(
                f"The edges of graph {number}{_of(key)} have shape {describe(edges.shape)} of {edges.dtype}; they are whole numbers (2, e)."
            )
        ends = (key, key) if key is _ONLY else (key[0], key[-1])
        for side, end in zip(edges, ends, strict=True):
            if end not in parts["x"]:
                raise InputError(
                    f"Relation {key!r} joins nodes of type {end!r}, which graph {number} does not have."
                )
            count = len(parts["x"][end])
            if side.numel() and (int(side.min()) < 0 or int(side.max()) >= count):
                raise InputError(
                    f"An edge of graph {number}{_of(key)} names node {int(side.max() if int(side.min()) >= 0 else side.min())} of {count}."
                )
    for key, weight in parts.get("weight", {}).items():
        joined = parts["edges"].get(key)
        if joined is None or len(weight) != joined.shape[1] or not weight.is_floating_point():
            raise InputError(
                f"The weights of graph {number}{_of(key)} have shape {describe(weight.shape)} of {weight.dtype}: give one for each edge, as numbers."
            )
    return parts


def _check_alike(
    first: dict[str, dict[Any, Tensor]], other: dict[str, dict[Any, Tensor]], number: int
) -> None:
    if {n: set(p) for n, p in first.items()} != {n: set(p) for n, p in other.items()}:
        raise InputError(
            f"Graph {number} has other types, relations or weights than the first: explain graphs of one kind together."
        )
    for name in ("x", "weight"):
        for key, tensor in first.get(name, {}).items():
            if other[name][key].shape[1:] != tensor.shape[1:]:
                raise ShapeError(
                    f"Graph {number} has {name} of shape {describe(other[name][key].shape)}{_of(key)}, the first {describe(tensor.shape)}: "
                    "numbers of features are the same in all."
                )


def _of(key: Key) -> str:
    return "" if key is _ONLY else f" of {key!r}"
