"""A circuit as a page: its strongest edges drawn from the input up to the logits, and listed.

Orange raises F, blue lowers it; the wider, the more. Names are escaped, and there is no script.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

from ..circuits import Circuit, Edge
from ..circuits.graph import INPUT, LOGITS
from ..core.files import whole
from ..core.formatting import number, percent
from ..core.visible import visible
from .html import environment

_ACROSS, _UP = 74, 58  # between nodes, in pixels
_RAISES, _LOWERS = "#cf5b17", "#2b74c9"


@dataclass(frozen=True)
class DrawnNode:
    """A node of the picture, and where its middle is."""

    name: str
    x: float
    y: float


@dataclass(frozen=True)
class DrawnEdge:
    """An edge of the picture: a curve, its colour and width, and what it says when it is pointed at."""

    curve: str
    colour: str
    width: float
    words: str


def page(circuit: Circuit, path: str | Path | None, count: int) -> str:
    """A circuit as one self-contained HTML file.

    Raises:
        MissingExtra: without jinja2.
        OSError: where the disk refuses.
    """
    strongest = [edge for edge in circuit.top(count) if edge.score]
    nodes, edges = drawn(circuit, strongest)
    largest = max((abs(edge.score) for edge in strongest), default=1.0)
    text: str = (
        environment()
        .get_template("circuit.html.j2")
        .render(
            metric=visible(circuit.metric),
            method=visible(circuit.method),
            clean=number(float(circuit.clean.mean())),
            corrupt=number(float(circuit.corrupt.mean())),
            pairs=len(circuit.clean),
            gap=percent(circuit.gap),
            error=percent(circuit.error),
            total=circuit.graph.edge_count,
            nodes=list(nodes.values()),
            edges=edges,
            width=max((node.x for node in nodes.values()), default=0) + _ACROSS,
            height=max((node.y for node in nodes.values()), default=0) + _UP,
            listed=[
                (
                    edge.source,
                    edge.target,
                    number(edge.score, signed=True),
                    50 * edge.score / largest,
                )
                for edge in strongest
            ],
            versions={"integrand": metadata.version("integrand"), "torch": torch.__version__},
        )
    )
    if path is not None:
        with whole(path) as partial:
            partial.write_text(text, "utf-8")
    return text


def drawn(circuit: Circuit, edges: Sequence[Edge]) -> tuple[dict[str, DrawnNode], list[DrawnEdge]]:
    """Where the nodes of some edges stand, by name, and the edges between them: a line of heads for
    each layer, and above it its MLP to the right of all heads; the input below, the logits on
    top."""
    lines = list(dict.fromkeys(_line(name) for name in (INPUT, *circuit.graph.sinks)))
    used = {name for edge in edges for name in (edge.source, _node(edge.target))}
    kept = [line for line in lines if any(_line(name) == line for name in used)]
    nodes: dict[str, DrawnNode] = {}
    order = (*circuit.graph.sources, *dict.fromkeys(map(_node, circuit.graph.sinks)))
    stands = {
        line: [name for name in dict.fromkeys(order) if name in used and _line(name) == line]
        for line in kept
    }
    widest = max(map(len, stands.values()), default=1)
    for height, line in enumerate(reversed(kept)):
        names = stands[line]
        left = widest if line.startswith("m") else (widest - len(names)) / 2
        for place, name in enumerate(names):
            x, y = _ACROSS * (left + place + 0.75), _UP * (height + 0.6)
            nodes[name] = DrawnNode(name, round(x, 1), round(y, 1))
    largest = max((abs(edge.score) for edge in edges), default=1.0)
    return nodes, [_curve(edge, nodes, largest) for edge in edges]


def _node(sink: str) -> str:
    """The node that a sink is an input of."""
    return sink.partition("<")[0]


def _line(name: str) -> str:
    return name if name in (INPUT, LOGITS) else _node(name).partition(".")[0]


def _curve(edge: Edge, nodes: dict[str, DrawnNode], largest: float) -> DrawnEdge:
    start, end = nodes[edge.source], nodes[_node(edge.target)]
    middle = (start.y + end.y) / 2
    curve = (
        f"M{start.x:.1f} {start.y - 11:.1f} C{start.x:.1f} {middle:.1f} "
        f"{end.x:.1f} {middle:.1f} {end.x:.1f} {end.y + 11:.1f}"
    )
    colour = _RAISES if edge.score > 0 else _LOWERS
    width = 0.6 + 5 * abs(edge.score) / largest
    words = f"{edge.source} → {edge.target}: {number(edge.score, signed=True)}"
    return DrawnEdge(curve, colour, round(width, 2), words)
