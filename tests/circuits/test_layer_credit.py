"""Credit by layers, the lens and sites, against decoders written out slowly."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

import integrand as ig
from integrand.errors import DetachedModel, InputError
from tests.circuits.dense import ROUNDING, decoder, plain, run, starts

CLEAN = torch.tensor([[5, 6, 7, 8], [9, 3, 7, 12]])
CORRUPT = torch.tensor([[5, 9, 7, 8], [9, 3, 5, 11]])
FINAL = {"gpt2": "transformer.ln_f", "gpt_neox": "gpt_neox.final_layer_norm"}


def metric(logits: Tensor) -> Tensor:
    return logits[:, -1, 4] - 0.5 * logits[:, -2].logsumexp(-1)


def test_credits_by_the_formula_and_the_lens() -> None:
    """Every node's credit on three pieces of four nodes, and F of every layer's stream."""
    for kind in ("gpt2", "gemma3", "gpt_neox"):
        model = decoder(kind)
        first, second = (starts(kind, model, ids).detach() for ids in (CORRUPT, CLEAN))

        def read(stream: Tensor, kind: str = kind, model: torch.nn.Module = model) -> Tensor:
            norm = model.get_submodule(FINAL.get(kind, "model.norm"))
            return metric(model.get_output_embeddings()(norm(stream)))

        ends: list[tuple[dict[str, Tensor], Tensor, Tensor]] = []
        for k in range(4):
            kept: dict[str, Tensor] = {}

            def noted(
                sink: str,
                written: dict[str, Tensor],
                constant: Tensor,
                kept: dict[str, Tensor] = kept,
            ) -> Tensor:
                kept[sink] = plain(sink, written, constant)
                return kept[sink]

            with torch.no_grad():
                _, written = run(kind, model, first + k / 3 * (second - first), noted)
            label = "h" if kind != "gemma3" else "kv"
            lens = torch.stack(
                [read(kept[f"a{layer}.{label}0<k>"]) for layer in range(2)]
                + [read(kept["logits"])],
                1,
            )
            ends.append((written, kept["logits"], lens.detach()))
        places, weights = ig.rules.GaussLegendre(4).table()
        expected = torch.zeros(2, len(ends[0][0]), dtype=torch.float64)
        for (before, r, _), (after, s, _) in itertools.pairwise(ends):
            for place, weight in zip(places, weights, strict=True):
                point = (r + place * (s - r)).detach().requires_grad_()
                (slope,) = torch.autograd.grad(read(point).sum(), point)
                for u, name in enumerate(before):
                    expected[:, u] += weight * ((after[name] - before[name]) * slope).sum((1, 2))
        credit = ig.circuits.layer_credit(
            model, CLEAN, CORRUPT, metric=metric, segments=3, steps=4, batch_size=3
        )
        size = expected.abs().max()
        assert (credit.scores - expected.detach()).abs().max() < 1e-9 * size
        assert torch.allclose(credit.lens_corrupt, ends[0][2], rtol=1e-9)
        assert torch.allclose(credit.lens_clean, ends[-1][2], rtol=1e-9)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "phi3"])
def test_credits_add_up(kind: str) -> None:
    """Over heads, MLPs and the input to layers, and over layers to F(clean) − F(corrupt)."""
    model = decoder(kind, scale=2.0)
    with torch.no_grad():
        change = metric(model(CLEAN).logits) - metric(model(CORRUPT).logits)
    credit = ig.circuits.layer_credit(model, CLEAN, CORRUPT, metric=metric, segments=3, steps=14)
    close = ROUNDING.get(kind, 1e-9)
    assert torch.allclose(credit.layers.sum(1), change, rtol=close, atol=close)
    assert torch.allclose(credit.change, change, rtol=close, atol=close)
    assert float(credit.residual.abs().max()) < close
    parts = credit.heads.sum(-1) + credit.mlps
    assert torch.allclose(credit.layers[:, 1:], parts, rtol=1e-12)
    assert torch.allclose(credit.cumulative[:, -1], credit.layers.sum(1), rtol=1e-12)
    differences = credit.lens_clean.diff(dim=1).sum(1) + credit.lens_clean[:, 0]
    assert torch.allclose(differences, credit.lens_clean[:, -1], rtol=1e-12)
    frame = credit.to_pandas()
    assert frame["credit"].tolist() == credit.layers.flatten().tolist()
    assert frame["layer"].tolist() == [-1, 0, 1] * 2
    assert "worst gap 0.0 %" in repr(credit)


def test_where_an_answer_appears() -> None:
    """From the layer on from which its share stays written."""
    graph = ig.circuits.CircuitGraph(2, 1, 1)
    scores = torch.tensor([[0, 0, 0, 1, 2], [4, 0, -3, 0, 2], [0, 0, 0, 0, 0]]).double()
    clean = torch.tensor([[0, 0, 3], [0, 0, 3], [0, 0, 3]]).double()
    credit = ig.circuits.LayerCredit(
        graph, scores, clean, torch.zeros(3, 3).double(), "F", ig.integration.cost.Cost()
    )
    assert credit.layers.tolist() == [[0, 0, 3], [4, -3, 2], [0, 0, 0]]
    assert credit.appeared() == [1, 1, None]
    assert credit.appeared(0.3) == [1, -1, None]
    assert credit.residual.tolist() == [0, 0, 3]


def test_the_planted_answer_appears_in_the_last_layer() -> None:
    from tests.circuits.test_circuits import planted

    target = [ig.text.NextToken(3, against=8), ig.text.NextToken(7, against=9)]
    credit = ig.circuits.layer_credit(
        planted(), [[3, 1, 2, 5], [7, 2, 1, 6]], [[8, 1, 2, 5], [9, 2, 1, 6]], metric=target
    )
    assert credit.appeared(0.8) == [1, 1]
    assert float(credit.heads[:, 1, 0].min()) > 0.8 * float(credit.change.max())


def test_refusals() -> None:
    model = decoder("gpt2")
    with pytest.raises(DetachedModel, match="differentiable"):
        ig.circuits.layer_credit(model, CLEAN, CORRUPT, metric=lambda out: out[:, -1].argmax(-1))
    for wrong in ({"segments": 0}, {"steps": 0}):
        with pytest.raises(InputError, match="at least"):
            ig.circuits.layer_credit(model, CLEAN, CORRUPT, metric=metric, **wrong)


@pytest.mark.filterwarnings("ignore::integrand.errors.IncompleteWarning")
def test_sites_are_those_of_circuits() -> None:
    """Layer Integrated Gradients at heads, MLPs and the stream are what nodes get along paths of activations: two
    ways of computing it that have nothing in common."""
    for kind, count in (("llama", 4), ("gpt2", 2)):
        model = decoder(kind)
        sites = ig.circuits.sites(model)
        nodes = ig.circuits.nodes(
            model, CLEAN, CORRUPT, metric=metric, steps=6, method="eap-ig-activations"
        ).node_scores
        rule = ig.rules.GaussLegendre(6)

        def at(
            name: str,
            model: torch.nn.Module = model,
            sites: dict[str, ig.fields.Site] = sites,
            rule: ig.rules.Rule = rule,
        ) -> Tensor:
            return ig.explain(
                model,
                CLEAN,
                target=lambda outputs: metric(outputs.logits),
                method=ig.methods.layer(sites[name], CORRUPT, rule),
            ).values.mean(0)

        for layer in range(2):
            heads = at(f"a{layer}").reshape(4, count, -1).sum((0, 2))
            first = 1 + layer * (count + 1)
            assert torch.allclose(heads, nodes[first : first + count], rtol=1e-7, atol=1e-10)
            assert torch.allclose(at(f"m{layer}").sum(), nodes[first + count], rtol=1e-7)
        assert torch.allclose(at("stream0").sum(), nodes[0], rtol=1e-7)
        assert set(sites) == {"stream0", "a0", "m0", "stream1", "a1", "m1", "stream2"}
