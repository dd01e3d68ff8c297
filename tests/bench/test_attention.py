"""Attention as a map: rollout written out slowly, and where the output is read."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import integrand as ig
from integrand.bench import names as vocabulary
from integrand.bench.attention import Attention, AttentionRollout, LastAttention, rollout
from integrand.compare.controls import Control

BATCH, LAYERS, HEADS, POSITIONS, WIDTH = 2, 3, 4, 5, 6


def weights() -> tuple[Tensor, ...]:
    """Attention of each layer, rows that add up to 1."""
    stream = torch.Generator().manual_seed(0)
    return tuple(
        torch.rand(BATCH, HEADS, POSITIONS, POSITIONS, generator=stream, dtype=torch.float64)
        .exp()
        .softmax(-1)
        for _ in range(LAYERS)
    )


def flows(layers: tuple[Tensor, ...], example: int) -> list[list[float]]:
    """Of each position's last state the share that comes from each token, by following every layer's
    arrows backwards, one after the other."""
    flow = [[float(i == j) for j in range(POSITIONS)] for i in range(POSITIONS)]
    for layer in (weights[example].tolist() for weights in reversed(layers)):
        onwards = [[0.0] * POSITIONS for _ in range(POSITIONS)]
        for i in range(POSITIONS):
            for via in range(POSITIONS):
                for j in range(POSITIONS):
                    heads = sum(layer[head][via][j] for head in range(HEADS))
                    arrow = 0.5 * heads / HEADS + 0.5 * (via == j)
                    onwards[i][j] += flow[i][via] * arrow
        flow = onwards
    return flow


def test_rollout_follows_the_arrows_through_all_layers() -> None:
    layers = weights()
    result = rollout(layers)
    torch.testing.assert_close(result.sum(-1), torch.ones(BATCH, POSITIONS).double())
    for example in range(BATCH):
        slow = torch.tensor(flows(layers, example), dtype=torch.float64)
        torch.testing.assert_close(result[example], slow)


def test_maps_are_read_where_the_output_is() -> None:
    """Of special tokens around the words nothing is told; each number of a token gets an equal part."""
    layers, readout = weights(), torch.tensor([0.0, 0.0, 0.75, 0.0, 0.25], dtype=torch.float64)

    def attends(texts: Tensor) -> Attention:
        return Attention(layers, readout, slice(1, POSITIONS - 1))

    x = torch.ones(BATCH, POSITIONS - 2, WIDTH, dtype=torch.float64)
    field = ig.fields.Linear(torch.ones(POSITIONS - 2, WIDTH, dtype=torch.float64))
    rolled = AttentionRollout(attends)(field, x)
    last = LastAttention(attends)(field, x)
    for example in range(BATCH):
        slow = flows(layers, example)
        for token in range(POSITIONS - 2):
            share = 0.75 * slow[2][token + 1] + 0.25 * slow[4][token + 1]
            assert rolled.values[example, token].tolist() == pytest.approx([share / WIDTH] * WIDTH)
            of_heads = layers[-1][example].sum(0) / HEADS
            share = float(0.75 * of_heads[2, token + 1] + 0.25 * of_heads[4, token + 1])
            assert last.values[example, token].tolist() == pytest.approx([share / WIDTH] * WIDTH)
    assert rolled.output.tolist() == [18.0, 18.0]


def test_attention_is_a_control_of_recipes() -> None:
    """Recipes hand on the problem's word, and a model that attends to other texts is refused."""
    words = {"attention": lambda texts: Attention(weights(), torch.ones(POSITIONS), slice(0, 2))}
    for name in ("AttentionRollout", "LastAttention"):
        control = vocabulary.method(f"{name}(attention)", words)
        assert isinstance(control, Control)
        with pytest.raises(
            ig.errors.ShapeError, match="2x2 explained tokens, and the texts have 2x3"
        ):
            control(ig.fields.Linear(torch.ones(3, 2)), torch.ones(2, 3, 2))
    assert not {"attention_rollout", "AttentionRollout"} & set(ig.methods.known())
