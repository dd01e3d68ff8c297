"""Activation patching of edges: the model is run, and what is asked for is put in place.

    r_v = r_v(corrupt) + Σ_{u kept for v} ( s_u − s_u(corrupt) )          the input of every sink v

``kept`` (S, V) says which edges carry what their source writes in this very pass; all others carry
what it wrote for the corrupt prompt. With every edge kept this is the clean run, with none the
corrupt one. Everything behind a patched edge follows by the model itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model.autograd import gradients
from .scoring import Contrast, check_finite
from .stream import Hooks, Written, present


@dataclass(eq=False)
class _Pass:
    """A pass of N rows in which every sink reads what ``kept`` lets through.

    Attributes:
        kept: (N, S, V).
        rows: (N,) the pair that each row belongs to.
        corrupt: (N, S, T, D) what every source wrote for the corrupt prompts.
        changed: (N, S, T, D) what every source writes more in this pass.
        mixed: (N, T, H·d) the heads of the layer that runs, before its output projection.
    """

    contrast: Contrast
    rows: Tensor
    kept: Tensor
    corrupt: Tensor
    changed: Tensor
    mixed: Tensor | None = None
    raw: Tensor | None = None

    # --- what is read -------------------------------------------------------------------------------------------------

    def read(self, stream: Tensor, sinks: Sequence[int], before: int) -> Tensor:
        """(J, N, T, D) the input of J sinks, of which ``stream`` (P, T, D) is that of the corrupt
        prompts."""
        kept = self.kept[:, :before][:, :, list(sinks)]
        rows = stream[self.rows.to(stream.device)]
        change = torch.einsum("nsj,nstd->jntd", kept, self.changed[:, :before])
        return rows + change.to(rows)

    def projected(self, layer: int, number: int, output: Tensor) -> Tensor:
        """The output of a projection, each head of which reads an input of its own."""
        contrast = self.contrast
        block = contrast.decoder.blocks[layer]
        heads = contrast.decoder.heads_of(number, output.shape[-1])
        sinks = [
            contrast.graph.sink_of(layer, side, head)
            for side, head in zip(heads.sides, heads.numbers, strict=True)
        ]
        stream = contrast.corrupt.attention_stream[layer]
        inputs = self.read(stream, sinks, contrast.graph.before_attention(layer))
        normed = inputs if block.attention_norm is None else block.attention_norm(inputs)
        module = block.projections[number]
        matrix = contrast.matrices.of(module, stream.shape[-1], stream)
        columns = heads.columns.to(output.device)
        parts = torch.einsum("jntd,jcd->ntjc", normed, matrix[columns])
        patched = torch.empty_like(output)
        patched[..., columns.flatten()] = parts.flatten(2)
        return patched + contrast.matrices.bias(module, stream.shape[-1], stream)

    def mlp_input(self, layer: int) -> Tensor:
        """What an MLP reads, behind its norm."""
        contrast = self.contrast
        sink, before = contrast.graph.mlp_sink(layer), contrast.graph.before_mlp(layer)
        stream = self.read(contrast.corrupt.mlp_stream[layer], [sink], before)[0]
        norm = contrast.decoder.blocks[layer].mlp_norm
        normed: Tensor = stream if norm is None else norm(stream)
        return normed

    def final(self) -> Tensor:
        """What the final norm reads."""
        graph = self.contrast.graph
        stream = present(self.contrast.corrupt.final)
        return self.read(stream, [len(graph.sinks) - 1], len(graph.sources))[0]

    # --- what is written ----------------------------------------------------------------------------------------------

    def wrote(self, sources: slice, parts: Tensor) -> None:
        """Note what sources (N, s, T, D) wrote in this pass."""
        self.changed[:, sources] = parts.to(self.changed) - self.corrupt[:, sources]

    def wrote_heads(self, layer: int) -> None:
        """Note what the heads of a layer wrote."""
        parts = self.contrast.matrices.written(layer, present(self.mixed), present(self.raw))
        self.wrote(self.contrast.graph.heads_at(layer), parts)


@contextmanager
def _patched(state: _Pass) -> Iterator[None]:
    """While this lasts the model runs as ``state`` says."""
    hooks, decoder, graph = Hooks(), state.contrast.decoder, state.contrast.graph

    with hooks.stack:

        def begins(stream: Tensor) -> None:
            state.wrote(graph.group("input", 0), stream[:, None])

        hooks.before(decoder.blocks[0].module, begins)
        for layer in range(graph.layers):
            _patch_block(hooks, state, layer)
        hooks.before(decoder.final_norm, lambda stream: state.final().to(stream))
        yield


def _patch_block(hooks: Hooks, state: _Pass, layer: int) -> None:
    block = state.contrast.decoder.blocks[layer]
    for number, projection in enumerate(block.projections):

        def project(output: Tensor, number: int = number) -> Tensor:
            return state.projected(layer, number, output)

        hooks.after(projection, project)

    def mixes(mixed: Tensor) -> None:
        state.mixed = mixed

    def makes(raw: Tensor) -> None:
        state.raw = raw

    hooks.before(block.attention_output, mixes)
    hooks.after(block.attention_output, makes)
    hooks.after(block.attention_added, lambda output: state.wrote_heads(layer))
    hooks.before(block.mlp, lambda normed: state.mlp_input(layer).to(normed))
    place = state.contrast.graph.group("mlp", layer)
    hooks.after(block.mlp_added, lambda output: state.wrote(place, output[:, None]))


def patched_values(contrast: Contrast, kept: Tensor, batch_size: int) -> Tensor:
    """F (M, P) of every pair with each of M sets of edges kept, and all others corrupt.

    Args:
        kept: (M, S, V).
        batch_size: rows a call, at most.

    Cost:
        M × P forward passes, in which every sink of a layer has an input of its own.

    Raises:
        NonFiniteGradient: where F is not finite.
    """
    pairs, sets = len(contrast.group), len(kept)
    start = present(contrast.corrupt.start)
    values = []
    with gradients(False):
        corrupt = Written(contrast.matrices, contrast.corrupt).at(slice(None))
        for first in range(0, sets * pairs, batch_size):
            numbers = torch.arange(first, min(first + batch_size, sets * pairs))
            rows = numbers % pairs
            written = corrupt[rows.to(corrupt.device)]
            masks = kept[numbers // pairs].to(start)
            state = _Pass(contrast, rows, masks, written, torch.zeros_like(written))
            with _patched(state):
                values.append(contrast.group.at(rows).value().double().cpu())
            contrast.count.forward(len(rows))
    patched = torch.cat(values).reshape(sets, pairs)
    check_finite(patched, "F", contrast.decoder)
    return patched
