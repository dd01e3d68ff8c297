"""Scores of edges and nodes: what was written, times the mean gradient of who reads it.

    score(u → v) = Σ_td (s_u(clean) − s_u(corrupt))_td · ∫₀¹ ∂F/∂r_v,td (α) dα        r_v: the input of sink v
    score(u)     = Σ_td (s_u(clean) − s_u(corrupt))_td · ∫₀¹ ∂F/∂s_u,td (α) dα  =  Σ_v score(u → v)

Gradients are those of whole layers; single heads are told apart afterwards, for a few tokens at a
time, since projections and norms act on each token by itself. So memory holds sources × tokens ×
width and readers of a layer × tokens × width of these few, and never sources × sinks × width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..backprop.modified.base import During
from ..errors import DetachedModel, NonFiniteGradient
from ..model.autograd import gradients, slopes
from .architectures import Decoder
from .graph import CircuitGraph
from .pairs import Group
from .stream import (
    ATTENTION,
    INPUT,
    MLP,
    Branch,
    Matrices,
    StreamRecording,
    Written,
    present,
    pulled_back,
    recorded,
)

_NUMBERS = 2**24
"""How many numbers the sources and readers of some tokens may be at once."""


@dataclass(frozen=True, eq=False)
class PathNodes:
    """Places on a path and their weights, with those of a coarser rule on some of the same places.

    Attributes:
        places: (n,) in [0, 1], from corrupt to clean.
        weights: (2, n): of the rule, and of the coarser one, whose difference is the estimated
            error; NaN there where there are too few places.
    """

    places: Tensor
    weights: Tensor

    @classmethod
    def of(cls, table: tuple[Sequence[float], Sequence[float]]) -> PathNodes:
        """Those of a quadrature rule."""
        places, weights = (torch.tensor(entries, dtype=torch.float64) for entries in table)
        return cls(places, torch.stack([weights, coarser(places)]))


def coarser(places: Tensor) -> Tensor:
    """Weights (n,) of a rule on every second of some places: of those that are exact for as high a
    degree, up to 7, the smallest."""
    kept = places[::2]
    if len(places) < 3:
        return torch.full_like(places, float("nan"))
    degree = min(len(kept) - 1, 7)
    rows = np.polynomial.legendre.legvander(2 * kept.numpy() - 1, degree).T
    moments = np.zeros(degree + 1)
    moments[0] = 1.0  # of Legendre polynomials on [0, 1], all others are 0
    solved, *_ = np.linalg.lstsq(rows, moments, rcond=None)
    weights = torch.zeros_like(places)
    weights[::2] = torch.from_numpy(solved)
    return weights


@dataclass(eq=False)
class Count:
    """What has been asked of the model: rows with a gradient, rows without, calls."""

    gradients: int = 0
    values: int = 0
    calls: int = 0

    def forward(self, rows: int) -> None:
        """A call without gradients."""
        self.values += rows
        self.calls += 1

    def backward(self, rows: int) -> None:
        """A call with gradients."""
        self.gradients += rows
        self.calls += 1


@dataclass(frozen=True, eq=False)
class Contrast:
    """P pairs of one length, and what their prompts wrote into the stream.

    Attributes:
        clean, corrupt: recordings of P rows.
        values: (2, P) F of the clean and of the corrupt prompts.
        during: makes backward passes follow a rule.
    """

    decoder: Decoder
    graph: CircuitGraph
    group: Group
    matrices: Matrices
    clean: StreamRecording
    corrupt: StreamRecording
    values: Tensor
    count: Count
    during: During = nullcontext

    def written(self, tokens: slice) -> Tensor:
        """(P, S, t, D) what every source wrote more for the clean prompt than for the corrupt one,
        at some tokens."""
        first, second = (
            Written(self.matrices, record).at(tokens) for record in (self.clean, self.corrupt)
        )
        return first - second

    def difference(self, branch: Branch) -> Tensor:
        """The same (P, T, D) of a whole branch."""
        return self.clean.branch(branch) - self.corrupt.branch(branch)

    @property
    def accumulator(self) -> torch.dtype:
        """The type that scores are added up in."""
        dtype = present(self.clean.start).dtype
        return dtype if dtype == torch.float64 else torch.float32


def contrast_of(
    decoder: Decoder,
    graph: CircuitGraph,
    group: Group,
    matrices: Matrices,
    count: Count,
    during: During = nullcontext,
) -> Contrast:
    """Run both prompts of every pair.

    Raises:
        NonFiniteGradient: where F of one of them is not finite.
    """
    with gradients(False), recorded(decoder) as clean:
        value = group.value().double().cpu()
    with gradients(False), recorded(decoder) as corrupt:
        other = group.value(corrupt=True).double().cpu()
    for _ in (clean, corrupt):
        count.forward(len(group))
    values = torch.stack([value, other])
    check_finite(values, "F", decoder)
    return Contrast(decoder, graph, group, matrices, clean, corrupt, values, count, during)


def check_finite(numbers: Tensor, what: str, decoder: Decoder) -> None:
    """Check that numbers that were made of a model's logits are finite.

    Raises:
        NonFiniteGradient: where they are not.
    """
    if not bool(numbers.isfinite().all()):
        raise NonFiniteGradient(
            f"{what} of {decoder.model.name} {'is' if what == 'F' else 'are'} not finite: its logits, or what the metric makes of them and of "
            "their gradients, hold NaN or infinity."
        )


# --- gradients along a path -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Sloped:
    """A pass of P·n rows, the n places of each pair one after the other, with gradients of F.

    Attributes:
        weights: (2, n) of the places.
        record: what was in the stream.
        slopes: the gradient at each tensor of the record that F depends on, by its id.
    """

    pairs: int
    weights: Tensor
    record: StreamRecording
    slopes: dict[int, Tensor]

    def at(self, tensor: Tensor) -> Tensor | None:
        """The gradient (P, n, T, …) at a recorded tensor; None where F does not depend on it."""
        slope = self.slopes.get(id(tensor))
        return None if slope is None else slope.reshape(self.pairs, -1, *slope.shape[1:])

    def rows(self, tensor: Tensor) -> Tensor:
        """A recorded tensor (P, n, T, …)."""
        return tensor.detach().reshape(self.pairs, -1, *tensor.shape[1:])

    def mean(self, slope: Tensor, axis: int) -> Tensor:
        """Both weighted sums over the places, which lie along ``axis``, in front: (2, …)."""
        mean: Tensor = torch.tensordot(self.weights.to(slope), slope, ([1], [axis]))
        return mean


def along(
    contrast: Contrast, branch: Branch, nodes: PathNodes, batch_size: int, *, edges: bool
) -> Iterator[Sloped]:
    """The path on which a branch goes from what it wrote for the corrupt prompt to what it wrote for
    the clean one, ``batch_size`` rows at a time.

    Args:
        edges: whether gradients are wanted at what is read, or at what is written.
    """
    pairs = len(contrast.group)
    at_once = max(1, batch_size // pairs)
    start, difference = contrast.corrupt.branch(branch), contrast.difference(branch)
    end = contrast.clean.branch(branch)
    for first in range(0, len(nodes.places), at_once):
        places = nodes.places[first : first + at_once]
        times = places.to(start)[:, None, None]
        points = torch.where(times == 1, end[:, None], start[:, None] + times * difference[:, None])
        points = points.flatten(0, 1).requires_grad_()
        rows = torch.arange(pairs).repeat_interleave(len(places))
        with gradients(True), recorded(contrast.decoder, branch, points) as record:
            value = contrast.group.at(rows).value(during=contrast.during)
            wanted = _wanted(record, edges=edges)
            if not value.requires_grad:
                raise DetachedModel(
                    f"No gradient leads from the metric to the {branch[0]} of layer {branch[1]}: it has to be a differentiable function of the "
                    "logits (no argmax, no item())."
                )
            wanted_slopes = slopes([value.sum()], wanted)
        contrast.count.backward(len(rows))
        known = {
            id(tensor): slope
            for tensor, slope in zip(wanted, wanted_slopes, strict=True)
            if slope is not None
        }
        yield Sloped(pairs, nodes.weights[:, first : first + at_once], record, known)


def _wanted(record: StreamRecording, *, edges: bool) -> list[Tensor]:
    if edges:
        projected = [tensor for layer in record.projected for tensor in layer]
        tensors = [*projected, *record.mlp_input, present(record.final)]
    else:
        tensors = [present(record.start), *record.attention, *record.mlp]
    return [tensor for tensor in tensors if tensor.requires_grad]


# --- contraction ------------------------------------------------------------------------------------------------------


def edge_scores(
    contrast: Contrast, branches: Sequence[Branch], sloped: Sloped, into: Tensor
) -> None:
    """Add the scores of all edges that leave some branches, one behind the other in the stream, to
    ``into`` (2, P, S, V)."""
    graph, record = contrast.graph, sloped.record
    leaving = slice(graph.group(*branches[0]).start, graph.group(*branches[-1]).stop)
    places = sloped.weights.shape[1]
    width = present(record.start).shape[-1]
    readers = max(len(layer) for layer in record.projected) * graph.heads + 1
    at_once = sloped.pairs * width * (len(graph.sources) + 2 * places * readers)
    step = max(1, _NUMBERS // at_once)
    for first in range(0, contrast.group.tokens, step):
        tokens = slice(first, first + step)
        written = contrast.written(tokens)[:, leaving].to(into.dtype)
        for sinks, before, mean in _read(contrast, sloped, tokens):
            count = min(before, leaving.stop) - leaving.start
            if count <= 0:
                continue
            # One sum over tokens and width for each pair of a source and a sink.
            scores = torch.einsum("pstd,kjptd->kpsj", written[:, :count], mean.to(written))
            chosen = slice(leaving.start, leaving.start + count)
            into[:, :, chosen, sinks] += scores


def _read(
    contrast: Contrast, sloped: Sloped, tokens: slice
) -> Iterator[tuple[list[int], int, Tensor]]:
    """Sinks that read the stream at one place: their numbers (J), how many sources they read, and
    both weighted means (2, J, P, t, D) of their gradients at some tokens."""
    graph, record = contrast.graph, sloped.record
    for layer, block in enumerate(contrast.decoder.blocks):
        stream = sloped.rows(record.attention_stream[layer])[:, :, tokens]
        for number, output in enumerate(record.projected[layer]):
            slope = sloped.at(output)
            if slope is None:
                continue
            heads = contrast.decoder.heads_of(number, output.shape[-1])
            matrix = contrast.matrices.of(block.projections[number], stream.shape[-1], stream)
            columns = heads.columns.to(slope.device)
            behind = torch.einsum(
                "pntjc,jcd->jpntd", slope[:, :, tokens][..., columns], matrix[columns].to(slope)
            )
            with contrast.during():
                back = pulled_back(block.attention_norm, stream, behind)
            mean = sloped.mean(back, 2)
            sinks = [
                graph.sink_of(layer, side, head)
                for side, head in zip(heads.sides, heads.numbers, strict=True)
            ]
            yield sinks, graph.before_attention(layer), mean
        slope = sloped.at(record.mlp_input[layer])
        if slope is not None:
            stream = sloped.rows(record.mlp_stream[layer])[:, :, tokens]
            with contrast.during():
                behind = pulled_back(block.mlp_norm, stream, slope[None, :, :, tokens])
            yield [graph.mlp_sink(layer)], graph.before_mlp(layer), sloped.mean(behind, 2)
    slope = sloped.at(present(record.final))
    if slope is not None:
        yield [len(graph.sinks) - 1], len(graph.sources), sloped.mean(slope[None, :, :, tokens], 2)


def node_scores(
    contrast: Contrast, branches: Sequence[Branch], sloped: Sloped, into: Tensor
) -> None:
    """Add the scores of the nodes of some branches to ``into`` (2, P, S)."""
    graph, record = contrast.graph, sloped.record
    for kind, layer in branches:
        slope = sloped.at(record.branch((kind, layer)))
        if slope is None:
            continue
        mean = sloped.mean(slope, 1).to(into.dtype)  # (2, P, T, D)
        if kind == ATTENTION:
            first, second = (
                contrast.matrices.written(layer, prompts.mixed[layer], prompts.raw[layer])
                for prompts in (contrast.clean, contrast.corrupt)
            )
            written = first - second
        else:
            written = contrast.difference((kind, layer))[:, None]
        scores = torch.einsum("pstd,kptd->kps", written.to(mean), mean)
        into[:, :, graph.group(kind, layer)] += scores.to(into)


def branches_of(graph: CircuitGraph) -> Iterator[Branch]:
    """All branches, in the order of the stream."""
    yield INPUT, 0
    for layer in range(graph.layers):
        yield ATTENTION, layer
        yield MLP, layer
