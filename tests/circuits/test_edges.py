"""Scores of edges and nodes against decoders written out slowly, with plain autograd."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import integrand as ig
from tests.circuits.dense import KINDS, ROUNDING, Rms, decoder, heads, plain, run, starts

CLEAN = torch.tensor([[5, 6, 7, 8], [9, 3, 7, 12]])
CORRUPT = torch.tensor([[5, 9, 7, 8], [9, 3, 5, 11]])
SHORT = (torch.tensor([[4, 6, 8]]), torch.tensor([[4, 7, 8]]))


def metric(logits: Tensor) -> Tensor:
    return logits[:, -1, 4] - 0.5 * logits[:, -2].logsumexp(-1)


def names(kind: str) -> tuple[list[str], list[str]]:
    """Sources and sinks, as the library says they are called."""
    count, grouped = heads(kind)
    label = "h" if count == grouped else "kv"
    sources, sinks = ["input"], []
    for layer in range(2):
        sources += [f"a{layer}.h{h}" for h in range(count)] + [f"m{layer}"]
        sinks += [f"a{layer}.h{h}<q>" for h in range(count)]
        sinks += [f"a{layer}.{label}{h}<{side}>" for side in "kv" for h in range(grouped)]
        sinks += [f"m{layer}"]
    return sources, [*sinks, "logits"]


class Dense:
    """Everything about one decoder and its pairs, by brute force."""

    def __init__(self, kind: str, clean: Tensor = CLEAN, corrupt: Tensor = CORRUPT) -> None:
        self.kind, self.model = kind, decoder(kind)
        self.ids = clean, corrupt
        with torch.no_grad():
            self.starts = [starts(kind, self.model, ids) for ids in self.ids]
            runs = [run(kind, self.model, start, plain) for start in self.starts]
        self.logits = [logits for logits, _ in runs]
        self.written = [written for _, written in runs]
        self.difference = {
            name: self.written[0][name] - self.written[1][name] for name in self.written[0]
        }

    def scores(self, table: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
        """(P, S, V) of the edges by the formula, one place of the path after the other."""
        sources, sinks = names(self.kind)
        total = torch.zeros(len(self.ids[0]), len(sources), len(sinks), dtype=torch.float64)
        for place, weight in zip(*table, strict=True):
            start = self.starts[1] + place * (self.starts[0] - self.starts[1])
            shifts = {sink: torch.zeros_like(start).requires_grad_() for sink in sinks}
            seen: dict[str, set[str]] = {}

            def shifted(
                sink: str,
                written: Mapping[str, Tensor],
                constant: Tensor,
                shifts: dict[str, Tensor] = shifts,
                seen: dict[str, set[str]] = seen,
            ) -> Tensor:
                seen[sink] = set(written)
                return plain(sink, written, constant) + shifts[sink]

            logits, _ = run(self.kind, self.model, start, shifted)
            slopes = torch.autograd.grad(metric(logits).sum(), list(shifts.values()))
            for v, (sink, slope) in enumerate(zip(sinks, slopes, strict=True)):
                for u, source in enumerate(sources):
                    if source in seen[sink]:
                        product = (self.difference[source] * slope).sum((1, 2))
                        total[:, u, v] += weight * product
        return total

    def value(self, kept: Tensor) -> Tensor:
        """F (P,) where edges that are not kept (S, V) carry what they do for the corrupt prompts."""
        sources, sinks = names(self.kind)

        def chosen(sink: str, written: Mapping[str, Tensor], constant: Tensor) -> Tensor:
            v = sinks.index(sink)
            streams = [
                written[name] if kept[sources.index(name), v] else self.written[1][name]
                for name in written
            ]
            return sum(streams) + constant

        with torch.no_grad():
            return metric(run(self.kind, self.model, self.starts[0], chosen)[0])


@cache
def dense_of(kind: str) -> Dense:
    return Dense(kind)


SOME = ("gpt2", "qwen3", "gemma2", "phi3", "gpt_neox")
"""One of each kind: fused and apart, grouped queries, norms behind the heads, parallel blocks."""


@pytest.mark.parametrize("kind", KINDS)
def test_the_slow_decoder_is_the_model(kind: str) -> None:
    dense = dense_of(kind)
    with torch.no_grad():
        for ids, logits in zip(dense.ids, dense.logits, strict=True):
            assert torch.allclose(dense.model(ids).logits, logits, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_edges_by_the_formula(kind: str) -> None:
    """Every edge of every pair, at three places of the path, and nodes as sums over readers."""
    dense = dense_of(kind)
    rule = ig.rules.GaussLegendre(3)
    expected = dense.scores(rule.table())
    circuit = ig.circuits.edges(dense.model, *dense.ids, metric=metric, steps=3)
    sources, sinks = names(dense.kind)
    assert (list(circuit.graph.sources), list(circuit.graph.sinks)) == (sources, sinks)
    size = expected.abs().max() * ROUNDING.get(dense.kind, 1e-9) / 1e-9
    assert (circuit.scores - expected.mean(0)).abs().max() < 1e-9 * size
    spread = expected.std(0) / 2**0.5
    assert (circuit.standard_error - spread).abs().max() < 1e-9 * size
    assert circuit.scores[~circuit.graph.edges].abs().max() == 0
    nodes = ig.circuits.nodes(dense.model, *dense.ids, metric=metric, steps=3)
    by_node = expected.sum(-1)
    for scored in (circuit, nodes):
        assert (scored.node_scores - by_node.mean(0)).abs().max() < 1e-9 * size
    error = by_node.std(0) / 2**0.5
    assert (nodes.node_standard_error - error).abs().max() < 1e-9 * size


@pytest.mark.parametrize("kind", ["gpt2", "gemma3"])
def test_one_gradient(kind: str) -> None:
    """ "eap" is the gradient at the clean prompt; it says what it misses, and no error."""
    dense = dense_of(kind)
    expected = dense.scores(((1.0,), (1.0,))).mean(0)
    circuit = ig.circuits.edges(dense.model, *dense.ids, metric=metric, method="eap")
    assert torch.allclose(circuit.scores, expected, rtol=1e-9, atol=1e-12)
    total = float(expected[0].sum())
    change = float((metric(dense.logits[0]) - metric(dense.logits[1])).mean())
    (stated,) = circuit.completeness
    assert (stated.total, stated.change) == pytest.approx((total, change), rel=1e-9)
    assert circuit.gap == pytest.approx(abs(change - total) / abs(change), rel=1e-6)
    assert circuit.gap > 0.001
    assert circuit.error != circuit.error


@pytest.mark.parametrize("kind", SOME)
def test_patched_edges(kind: str) -> None:
    """Single edges patched by the slow decoder, and by the model."""
    dense = dense_of(kind)
    sources, sinks = names(dense.kind)
    circuit = ig.circuits.edges(dense.model, *dense.ids, metric=metric, method="eap")
    places = circuit.graph.edges.nonzero()
    rng = torch.Generator().manual_seed(3)
    places = places[torch.randperm(len(places), generator=rng)[:12]]
    edges = [(sources[u], sinks[v]) for u, v in places.tolist()]
    losses = ig.circuits.activation_patching(
        dense.model, *dense.ids, edges, metric=metric, batch_size=7
    )
    for (u, v), loss in zip(places.tolist(), losses, strict=True):
        kept = circuit.graph.edges.clone()
        kept[u, v] = False
        expected = metric(dense.logits[0]) - dense.value(kept)
        close = 100 * ROUNDING.get(dense.kind, 1e-9)
        assert torch.allclose(loss, expected, rtol=close, atol=close / 100)


@pytest.mark.parametrize(
    "edges", ["input->m0", ["input->m0"], [("input", "m0"), "m0"], [("m0",)], [3]]
)
def test_edges_that_are_no_pairs(edges: Any) -> None:
    dense = dense_of("gpt2")
    with pytest.raises(ig.errors.InputError, match=r"takes pairs of names .*, not "):
        ig.circuits.activation_patching(dense.model, *dense.ids, edges, metric=metric)


@pytest.mark.parametrize("kind", SOME)
def test_faithfulness_of_edges(kind: str) -> None:
    """All edges keep all of the change, none keeps nothing, and some keep what the slow decoder says."""
    dense = dense_of(kind)
    circuit = ig.circuits.edges(dense.model, *dense.ids, metric=metric, steps=2)
    total = circuit.graph.edge_count
    curve = ig.circuits.faithfulness(
        dense.model, *dense.ids, circuit, metric=metric, counts=[0, total // 3, total], draws=2
    )
    assert curve.circuit[[0, 2]].tolist() == pytest.approx([0.0, 1.0], abs=1e-9)
    assert curve.random[:, 2].tolist() == pytest.approx([1.0, 1.0], abs=1e-9)
    strongest = sorted(circuit.edges, key=lambda edge: -abs(edge.score))[: total // 3]
    sources, sinks = names(dense.kind)
    kept = torch.zeros_like(circuit.graph.edges)
    for edge in strongest:
        kept[sources.index(edge.source), sinks.index(edge.target)] = True
    first, second = (float(metric(logits).mean()) for logits in dense.logits)
    expected = (float(dense.value(kept).mean()) - second) / (first - second)
    close = 100 * ROUNDING.get(dense.kind, 1e-9)
    assert float(curve.circuit[1]) == pytest.approx(expected, rel=close)


class FrozenRms(Rms):
    """Whose scale is a constant."""

    def scale(self, x: Tensor) -> Tensor:
        return super().scale(x).detach()


def test_a_backward_rule() -> None:
    """Edges and nodes with frozen norms are those of a decoder whose scales are constants; gaps say what is
    missed."""
    dense = Dense("llama")
    rules = ig.fields.BackwardRules((ig.fields.FrozenNorm(), ig.fields.SoftmaxTemperature(1.0)))
    of = {"metric": metric, "steps": 3, "backward": rules}
    circuit = ig.circuits.edges(decoder("llama", own_norms=True), *dense.ids, **of)
    nodes = ig.circuits.nodes(decoder("llama", own_norms=True), *dense.ids, **of)
    for module in dense.model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = FrozenRms(module)
    expected = dense.scores(ig.rules.GaussLegendre(3).table()).mean(0)
    size = float(expected.abs().max())
    assert (circuit.scores - expected).abs().max() < 1e-6 * size  # its norms go through float32
    assert (nodes.node_scores - expected.sum(-1)).abs().max() < 1e-6 * size
    assert circuit.gap > 0.01
    assert "backward=BackwardRules((FrozenNorm(), SoftmaxTemperature(1.0)))" in repr(circuit)
    with pytest.raises(ig.errors.InputError, match="backward= is a rule"):
        ig.circuits.edges(dense.model, *dense.ids, metric=metric, backward="frozen")
