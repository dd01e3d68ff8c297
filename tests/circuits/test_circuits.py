"""What circuits say of themselves, what is refused, and circuits that are known beforehand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import GPT2Config, GPT2LMHeadModel

import integrand as ig
from integrand.circuits import scoring
from integrand.core.values import part
from integrand.errors import (
    DetachedModel,
    InputError,
    ModelError,
    NonFiniteGradient,
    TargetError,
    UnknownName,
)
from integrand.rules.quadrature import Quadrature
from tests.circuits.dense import decoder, plain, run, starts
from tests.text.tiny import byte_tokenizer, tiny

CLEAN = torch.tensor([[5, 6, 7, 8], [9, 3, 7, 12]])
CORRUPT = torch.tensor([[5, 9, 7, 8], [9, 3, 5, 11]])


def metric(logits: Tensor) -> Tensor:
    return logits[:, -1, 4] - 0.5 * logits[:, -2].logsumexp(-1)


@pytest.fixture(scope="module")
def gpt2() -> Any:
    return decoder("gpt2")


@pytest.fixture(scope="module")
def llama() -> Any:
    return decoder("llama")


@pytest.fixture(scope="module")
def circuit(llama: Any) -> Any:
    return ig.circuits.edges(llama, CLEAN, CORRUPT, metric=metric, steps=12)


# --- what adds up -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2"])
def test_edges_of_the_input_add_up(kind: str) -> None:
    """Those of the input, to F(clean) − F(corrupt); those of nothing else."""
    model = decoder(kind, scale=2.0)
    result = ig.circuits.edges(model, CLEAN, CORRUPT, metric=metric, steps=40)
    with torch.no_grad():
        change = float((metric(model(CLEAN).logits) - metric(model(CORRUPT).logits)).mean())
    assert result.change == pytest.approx(change, rel=1e-7)
    assert float(result.scores[0].sum()) == pytest.approx(change, rel=1e-6)
    assert result.gap < 1e-6
    assert [entry.nodes for entry in result.completeness] == ["input"]
    others = [float(row.sum()) for row in result.scores[1:]]
    assert all(abs(total - change) > 1e-3 * abs(change) for total in others)


@pytest.mark.parametrize("kind", ["gpt2", "gemma3", "gpt_neox"])
def test_edges_of_each_layer_add_up_along_paths_of_activations(kind: str) -> None:
    """To what F loses where all that the layer writes is corrupt, by the decoder written out slowly."""
    model = decoder(kind, scale=2.0)
    circuit = ig.circuits.edges(
        model, CLEAN, CORRUPT, metric=metric, steps=30, method="eap-ig-activations"
    )
    with torch.no_grad():
        written = [run(kind, model, starts(kind, model, ids), plain)[1] for ids in (CLEAN, CORRUPT)]
        clean = metric(run(kind, model, written[0]["input"], plain)[0])
        for entry in circuit.completeness[1:]:
            branch, layer = entry.nodes.split()
            name = f"{branch[0]}{layer}"

            def corrupted(place: str, now: dict[str, Tensor], name: str = name) -> None:
                if place == name:
                    of = [key for key in now if key == name or key.startswith(f"{name}.")]
                    now.update({key: written[1][key] for key in of})

            value = metric(run(kind, model, written[0]["input"], plain, corrupted)[0])
            assert entry.change == pytest.approx(float((clean - value).mean()), rel=1e-7)
            assert entry.total == pytest.approx(entry.change, rel=1e-5)
            rows = [i for i, key in enumerate(circuit.graph.sources) if key.startswith(name)]
            assert entry.total == pytest.approx(float(circuit.scores[rows].sum()), rel=1e-9)
    assert len(circuit.completeness) == 5
    assert circuit.gap < 1e-5
    nodes = ig.circuits.nodes(
        model, CLEAN, CORRUPT, metric=metric, steps=30, method="eap-ig-activations"
    )
    assert torch.allclose(nodes.node_scores, circuit.node_scores, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("steps", [3, 6])
def test_the_stated_error_is_no_less_than_the_error(llama: Any, steps: int) -> None:
    exact = ig.circuits.edges(llama, CLEAN, CORRUPT, metric=metric, steps=60).scores
    few = ig.circuits.edges(llama, CLEAN, CORRUPT, metric=metric, steps=steps)
    error = float((few.scores - exact).norm() / exact.norm())
    assert 0 < error <= few.error


def test_a_coarser_rule_is_exact_for_what_it_says() -> None:
    """On half of the places, for all degrees up to their number, and stable for many places."""
    for n in (3, 10, 64):
        places = torch.tensor(ig.rules.GaussLegendre(n).table()[0], dtype=torch.float64)
        weights = scoring.coarser(places)
        assert (weights[1::2] == 0).all()
        for degree in range(min((n + 1) // 2, 8)):
            moment = float((weights * places**degree).sum())
            assert moment == pytest.approx(1 / (degree + 1), abs=1e-12)
        assert float(weights.abs().sum()) < 3
    assert bool(scoring.coarser(torch.tensor([0.2, 0.8])).isnan().all())


def test_another_rule(llama: Any) -> None:
    """The places of the authors' code are a rule like any other: k / 4, k = 1 … 4."""
    scores = ig.circuits.nodes(llama, CLEAN, CORRUPT, metric=metric, rule=ig.rules.Right(4))
    single = [
        ig.circuits.nodes(llama, CLEAN, CORRUPT, metric=metric, rule=At(k / 4))
        for k in (1, 2, 3, 4)
    ]
    expected = torch.stack([at_node.node_scores for at_node in single]).mean(0)
    assert torch.allclose(scores.node_scores, expected, rtol=1e-10, atol=1e-14)
    assert "Right(4)" in repr(scores)
    assert scores.cost.gradients == 2 * 4


@part
class At(Quadrature):
    place: float

    def table(self) -> Any:
        return (self.place,), (1.0,)


# --- pairs, calls, memory ---------------------------------------------------------------------------------------------


def test_pairs_of_several_lengths(llama: Any) -> None:
    """Means and standard errors are those of single runs, however pairs share calls."""
    clean = [[5, 6, 7, 8], [4, 6, 8], [9, 3, 7, 12], [2, 3, 4]]
    corrupt = [[5, 9, 7, 8], [4, 7, 8], [9, 3, 5, 11], [2, 6, 4]]
    together = ig.circuits.edges(llama, clean, corrupt, metric=metric, steps=5, batch_size=3)
    alone = [
        ig.circuits.edges(llama, a, b, metric=metric, steps=5, batch_size=1)
        for a, b in zip(clean, corrupt, strict=True)
    ]
    stacked = torch.stack([pair.scores for pair in alone])
    assert torch.allclose(together.scores, stacked.mean(0), rtol=1e-9, atol=1e-13)
    assert torch.allclose(together.standard_error, stacked.std(0) / 2, rtol=1e-8, atol=1e-13)
    assert together.clean.tolist() == pytest.approx([float(pair.clean) for pair in alone])
    assert bool(alone[0].standard_error.isnan().all())
    assert together.cost.gradients == 20
    assert together.cost.values == 8


def test_memory_does_not_hold_sources_times_sinks_times_width(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No tensor is as large as that, nor as sources × width × tokens where tokens come one at a time; and
    the scores are the same."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=24, n_embd=16, n_layer=3, n_head=4, n_positions=32)
    model = GPT2LMHeadModel(config).double().eval()
    clean, corrupt = torch.randint(0, 24, (2, 1, 12))
    usual = ig.circuits.edges(model, clean, corrupt, metric=metric, steps=2, batch_size=1)
    monkeypatch.setattr(scoring, "_NUMBERS", 1)
    with Largest() as largest:
        small = ig.circuits.edges(model, clean, corrupt, metric=metric, steps=2, batch_size=1)
    assert torch.allclose(usual.scores, small.scores, rtol=1e-9, atol=1e-15)
    S, V = small.scores.shape
    assert largest.numbers < S * V * 16 / 4
    assert largest.numbers < S * 12 * 16  # the matrix of a projection is the largest


class Largest(TorchDispatchMode):
    """How many numbers the largest tensor has that any operation makes."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
        self.numbers = max([self.numbers, *sizes])
        return outputs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_types(dtype: torch.dtype, circuit: Any) -> None:
    model = decoder("llama")
    for module in model.modules():
        vars(module).pop("forward", None)
    rounded = ig.circuits.edges(model.to(dtype), CLEAN, CORRUPT, metric=metric, steps=12)
    apart = float((rounded.scores - circuit.scores).norm() / circuit.scores.norm())
    assert apart < (1e-4 if dtype == torch.float32 else 0.2)


def test_the_model_is_given_back(llama: Any) -> None:
    """Also after an error: flags, modes and hooks."""
    model = decoder("gpt2").train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    flags = [parameter.requires_grad for parameter in model.parameters()]

    def fails(logits: Tensor) -> Tensor:
        raise ZeroDivisionError

    with pytest.warns(ig.errors.TrainingModeWarning):
        ig.circuits.edges(model, CLEAN, CORRUPT, metric=metric, steps=2)
    with pytest.warns(ig.errors.TrainingModeWarning), pytest.raises(ZeroDivisionError):
        ig.circuits.edges(model, CLEAN, CORRUPT, metric=fails, steps=2)
    assert model.training
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


# --- what is asked ----------------------------------------------------------------------------------------------------


def test_targets_of_texts() -> None:
    """In words and in ids, one for all or one for each pair; the same as functions of the logits."""
    model, tokenizer = tiny("gpt2"), byte_tokenizer()
    clean = ["The capital of France is", "The capital of Italy is"]
    corrupt = ["The capital of Italy is", "The capital of France is"]
    length = [len(ids) for ids in tokenizer(clean + corrupt)["input_ids"]]
    assert len(set(length)) == 1
    P, R = (tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in "PR")
    of = {"tokenizer": tokenizer, "steps": 2}
    ours = ig.text.NextToken(P, against=R)
    theirs = ig.targets.Custom(
        lambda out, rows: out.logits[:, -1].gather(1, rows).diff(dim=1)[:, 0],
        torch.tensor([[R, P], [P, R]]),
    )
    each = [ours, ig.text.NextToken(R, against=P)]
    first = ig.circuits.nodes(model, clean, corrupt, metric=each, **of)
    second = ig.circuits.nodes(model, clean, corrupt, metric=theirs, **of)
    assert torch.allclose(first.node_scores, second.node_scores, rtol=1e-9, atol=1e-13)
    single = ig.circuits.nodes(model, clean[0], corrupt[0], metric=ours, **of)
    assert "log-odds of" in repr(single)
    words = ig.text.Continuation(" Paris, in")
    tail = tokenizer(" Paris, in", add_special_tokens=False)["input_ids"]
    by_words = ig.circuits.edges(model, clean, corrupt, metric=words, **of)

    def spelled(logits: Tensor) -> Tensor:
        chosen = logits[:, -len(tail) - 1 : -1].log_softmax(-1)
        return chosen[:, range(len(tail)), tail].sum(1)

    ids = [tokenizer(texts)["input_ids"] for texts in (clean, corrupt)]
    longer = [[[*row, *tail] for row in rows] for rows in ids]
    by_ids = ig.circuits.edges(model, *longer, metric=spelled, steps=2)
    assert torch.allclose(by_words.scores, by_ids.scores, rtol=1e-8, atol=1e-13)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"corrupt": CORRUPT[:, :3]}, InputError, "Pair 0 has a clean prompt of 4 tokens and a corrupt one of 3"),
        ({"corrupt": CORRUPT[:1]}, InputError, "2 clean prompts and 1 corrupt"),
        ({"clean": "in words"}, InputError, "need tokenizer="),
        ({"clean": torch.rand(1, 4)}, InputError, "whole numbers"),
        ({"clean": []}, InputError, "no prompts"),
        ({"clean": [[1, 999, 1, 1]] * 2}, InputError, "999"),
        ({"metric": lambda logits: logits[:, -1]}, TargetError, "one number for each row"),
        ({"metric": lambda logits: logits.sum()}, TargetError, "one number for each row"),
        ({"metric": "predicted"}, TargetError, "metric="),
        ({"metric": lambda logits: logits[:, -1].argmax(-1).double()}, DetachedModel, "argmax"),
        ({"metric": lambda logits: logits[:, -1, 0] * torch.inf}, NonFiniteGradient, "not finite"),
        ({"metric": ig.text.Continuation((3, 4), against=5)}, TargetError, "two passes"),
        ({"method": "EAP"}, InputError, "eap-ig-inputs"),
        ({"steps": 0}, InputError, "steps"),
        ({"batch_size": 0}, InputError, "batch_size"),
    ],
)  # fmt: skip
def test_refusals(llama: Any, change: dict[str, Any], error: type[Exception], words: str) -> None:
    asked = {"clean": CLEAN, "corrupt": CORRUPT, "metric": metric, "steps": 2, **change}
    clean, corrupt = asked.pop("clean"), asked.pop("corrupt")
    with pytest.raises(error, match=words):
        ig.circuits.edges(llama, clean, corrupt, **asked)


def test_models_in_folders(tmp_path: Path) -> None:
    """With the tokenizer that lies there, for words; ids need none."""
    model = tiny("gpt2")
    model.save_pretrained(tmp_path / "model")
    of = {"metric": metric, "steps": 2}
    expected = ig.circuits.nodes(model, CLEAN, CORRUPT, **of).node_scores
    loaded = ig.circuits.nodes(str(tmp_path / "model"), CLEAN, CORRUPT, **of)
    assert torch.allclose(loaded.node_scores.double(), expected, rtol=1e-4, atol=1e-6)
    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(tmp_path / "model")
    texts = ("The capital of France is", "The capital of Italy is")
    in_words = ig.circuits.nodes(tmp_path / "model", *texts, **of).node_scores
    given = ig.circuits.nodes(model, *texts, tokenizer=tokenizer, **of).node_scores
    assert torch.allclose(in_words.double(), given, rtol=1e-4, atol=1e-6)


def test_refusals_of_models() -> None:
    for name in ("bert-masked", "t5"):
        with pytest.raises(InputError, match="causal language models"):
            ig.circuits.edges(tiny(name), CLEAN, CORRUPT, metric=metric)


# --- architectures ----------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """Two heads with one key-value head, written as nobody else does."""

    def __init__(self) -> None:
        super().__init__()
        self.ask, self.key, self.value = nn.Linear(8, 8), nn.Linear(8, 4), nn.Linear(8, 4)
        self.mix = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        q = self.ask(x).unflatten(-1, (2, 4)).transpose(1, 2)
        k, v = self.key(x)[:, None], self.value(x)[:, None]
        scores = (q @ k.transpose(-1, -2)).masked_fill(
            torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1), -torch.inf
        )
        return self.mix((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    def __init__(self, gain: float) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(8), nn.LayerNorm(8)
        self.attention = Attention()
        self.net = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.gain * self.attention(self.first(x))
        return x + self.net(self.second(x))


class Homemade(nn.Module):
    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 8)
        self.stack = nn.ModuleList([Layer(gain), Layer(gain)])
        self.last, self.head = nn.LayerNorm(8), nn.Linear(8, 20)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.table(input_ids)
        for layer in self.stack:
            x = layer(x)
        return self.head(self.last(x))


HOMEMADE = ig.circuits.Architecture(
    blocks="stack",
    final_norm="last",
    queries="attention.ask",
    keys="attention.key",
    values="attention.value",
    attention_output="attention.mix",
    mlp="net",
    attention_norm="first",
    mlp_norm="second",
    embeddings="table",
    heads=2,
    key_value_heads=1,
)


def test_a_model_of_ones_own() -> None:
    torch.manual_seed(0)
    model = Homemade().double()
    of = {"metric": metric, "architecture": HOMEMADE}
    circuit = ig.circuits.edges(model, CLEAN, CORRUPT, steps=30, **of)
    assert circuit.gap < 1e-6
    assert "a1.kv0<v>" in circuit.graph.sinks
    exact = ig.circuits.edges(model, CLEAN, CORRUPT, method="exact", **of)
    together = torch.stack([circuit.scores.flatten(), exact.scores.flatten()])
    assert float(torch.corrcoef(together)[0, 1]) > 0.9
    assert exact.error == 0
    assert exact.cost.values == 2 * (2 + exact.graph.edge_count)


def test_what_is_not_described_is_refused(llama: Any, gpt2: Any) -> None:
    """Models that nothing is known of, and descriptions that do not fit: in one sentence."""
    scaled = Homemade(gain=0.5).double()
    of = {"metric": metric, "steps": 2}
    with pytest.raises(InputError, match="architecture="):
        ig.circuits.edges(Homemade(), CLEAN, CORRUPT, **of)
    strange = decoder("gpt2")
    strange.config.model_type = "strange"
    with pytest.raises(ModelError, match=r"architecture=ig\.circuits\.Architecture"):
        ig.circuits.edges(strange, CLEAN, CORRUPT, **of)
    with pytest.raises(ModelError, match="MLP of block 0 of Homemade reads is not the sum"):
        ig.circuits.edges(scaled, CLEAN, CORRUPT, architecture=HOMEMADE, **of)
    known = ig.circuits.ARCHITECTURES["llama"]
    wrong = {
        "not the sum": dataclasses.replace(known, parallel=True),
        "no module of a block": dataclasses.replace(known, mlp="feed_forward"),
        "no module of a model": dataclasses.replace(known, blocks="model.blocks"),
        "do not fill": dataclasses.replace(known, heads=3),
        "returns a tuple": dataclasses.replace(known, attention_added="self_attn"),
    }
    for words, described in wrong.items():
        with pytest.raises((ModelError, UnknownName), match=words):
            ig.circuits.edges(llama, CLEAN, CORRUPT, architecture=described, **of)
    with pytest.raises(InputError, match="fused="):
        dataclasses.replace(known, keys=known.queries, values=known.queries)


# --- circuits that are known ------------------------------------------------------------------------------------------


def planted() -> Any:
    """A decoder whose last token says which token stood first: head 1 of layer 0 copies the embeddings of all
    tokens to a place of its own, head 0 of layer 1 what stands there to another, which alone is read. All other
    heads and MLPs write noise where nobody reads it."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=12, n_embd=48, n_layer=2, n_head=4, n_positions=8)
    model = GPT2LMHeadModel(config).double().eval()
    words, first, second, noise = (slice(12 * i, 12 * i + 12) for i in range(4))
    copies = torch.eye(12, dtype=torch.float64)
    model.lm_head.weight = nn.Parameter(torch.zeros(12, 48, dtype=torch.float64))
    with torch.no_grad():
        model.transformer.wpe.weight.zero_()
        model.transformer.wte.weight.zero_()[:, words] = copies
        model.lm_head.weight[:, second] = 5 * copies
        for layer, head, source, place in ((0, 1, words, first), (1, 0, first, second)):
            block = model.transformer.h[layer]
            block.attn.c_proj.weight[:, :36] = 0
            block.mlp.c_proj.weight[:, :36] = 0
            mine = slice(12 * head, 12 * head + 12)
            block.attn.c_attn.weight[:, mine] = 0  # queries: attention is even
            values = slice(96 + 12 * head, 96 + 12 * head + 12)
            block.attn.c_attn.weight[:, values] = 0
            block.attn.c_attn.weight[source, values] = copies
            block.attn.c_proj.weight[mine] = 0
            block.attn.c_proj.weight[mine, place] = 6 * copies
            block.attn.c_proj.weight[:, noise] += 0.1 * torch.randn(48, 12).double()
            block.attn.c_proj.weight[mine, noise] = 0
    return model


PLANTED = {("input", "a0.h1<v>"), ("a0.h1", "a1.h0<v>"), ("a1.h0", "logits")}


@pytest.mark.parametrize("method", ig.circuits.METHODS)
def test_a_planted_circuit_is_found(method: str) -> None:
    model = planted()
    clean, corrupt = [[3, 1, 2, 5], [7, 2, 1, 6]], [[8, 1, 2, 5], [9, 2, 1, 6]]
    target = [ig.text.NextToken(3, against=8), ig.text.NextToken(7, against=9)]
    of = {"metric": target, "batch_size": 64}
    circuit = ig.circuits.edges(model, clean, corrupt, method=method, **of)
    assert {edge[:2] for edge in circuit.top(3)} == PLANTED
    fourth = abs(circuit.top(4)[3].score)
    assert abs(circuit.top(3)[2].score) > 3 * fourth
    assert {node.name for node in circuit.top_nodes(3)} == {"input", "a0.h1", "a1.h0"}
    curve = ig.circuits.faithfulness(model, clean, corrupt, circuit, counts=[0, 2, 3, 159], **of)
    assert curve.circuit.tolist() == pytest.approx([0, 0, 1, 1], abs=0.15)
    assert float(curve.random[:, 2].abs().max()) < 0.1
    assert curve.smallest() == 3
    for node, score in ig.circuits.nodes(model, clean, corrupt, method="exact", **of).nodes:
        enough = node in ("input", "a0.h1", "a1.h0")
        assert abs(score) > 0.8 * circuit.change if enough else abs(score) < 0.2 * circuit.change


# --- what comes back --------------------------------------------------------------------------------------------------


def test_numbers_of_a_circuit(circuit: Any) -> None:
    edges = circuit.edges
    assert len(edges) == circuit.graph.edge_count == int(circuit.graph.edges.sum())
    assert circuit.score(*edges[7][:2]) == edges[7].score
    strengths = [abs(edge.score) for edge in circuit.top(9)]
    assert strengths == sorted((abs(e.score) for e in edges), reverse=True)[:9]
    assert circuit.top(0) == []
    assert len(circuit.top(10**6)) == len(edges)
    assert int(circuit.mask(9).sum()) == 9
    frame = circuit.to_pandas()
    assert list(frame.columns) == ["source", "target", "score", "standard_error"]
    assert frame["score"].tolist() == [edge.score for edge in edges]
    assert circuit.to_pandas("nodes")["node"].tolist() == list(circuit.graph.sources)
    assert circuit.to_pandas("completeness")["nodes"].tolist() == ["input"]
    for wrong in (lambda: circuit.to_pandas("heads"), lambda: circuit.score("m1", "m0")):
        with pytest.raises(UnknownName):
            wrong()
    with pytest.raises(UnknownName, match=r"a0\.h1"):
        circuit.score("a0.h9", "m0")
    words = repr(circuit)
    assert "eap-ig-inputs, GaussLegendre(12)" in words
    assert "estimated error" in words


def test_no_change_at_all(llama: Any) -> None:
    """The same prompt twice: scores are 0, the gap is unknown, and nothing can be kept."""
    circuit = ig.circuits.edges(llama, CLEAN, CLEAN, metric=metric, steps=3)
    assert circuit.scores.abs().max() == 0
    assert circuit.gap != circuit.gap
    assert circuit.error == 0
    assert repr(circuit)
    with pytest.raises(InputError, match="no change"):
        ig.circuits.faithfulness(llama, CLEAN, CLEAN, circuit, metric=metric)


def test_faithfulness_of_other_models_circuits(circuit: Any, gpt2: Any) -> None:
    with pytest.raises(InputError, match="circuit is one of"):
        ig.circuits.faithfulness(gpt2, CLEAN, CORRUPT, circuit, metric=metric)


def test_the_area_and_the_smallest_count() -> None:
    curve = ig.circuits.FaithfulnessCurve(
        (0, 1, 2, 4),
        torch.tensor([0.0, 0.9, 0.5, 1.0], dtype=torch.float64),
        torch.zeros(0, 4, dtype=torch.float64),
        4,
        ig.integration.cost.Cost(),
    )
    assert curve.area == pytest.approx(0.25 * 0.45 + 0.25 * 0.7 + 0.5 * 0.75)
    assert (curve.smallest(), curve.smallest(0.4), curve.smallest(2.0)) == (4, 1, None)
    assert curve.random_area != curve.random_area
    assert "random" not in curve.to_pandas()


def test_saving(circuit: Any, llama: Any, tmp_path: Path) -> None:
    path = tmp_path / "circuit.safetensors"
    nodes = ig.circuits.nodes(llama, CLEAN, CORRUPT, metric=metric, steps=2)
    for saved in (circuit, nodes):
        saved.save(path)
        loaded = ig.load(path)
        assert type(loaded) is type(saved)
        assert repr(loaded) == repr(saved)
        for spec in dataclasses.fields(saved):
            before, after = getattr(saved, spec.name), getattr(loaded, spec.name)
            if isinstance(before, Tensor):
                assert torch.equal(before.nan_to_num(-9), after.nan_to_num(-9))
            else:
                assert repr(before) == repr(after)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="changed"):
        ig.load(path)


def test_a_page(circuit: Any, tmp_path: Path) -> None:
    """The strongest edges, drawn and listed; names from configurations are not obeyed."""
    hostile = dataclasses.replace(circuit, metric="<script>alert(1)</script>")
    page = hostile.to_html(tmp_path / "circuit.html", count=5)
    assert (tmp_path / "circuit.html").read_text("utf-8") == page
    assert page.count("<path ") == 5
    assert "<script" not in page
    for edge in circuit.top(5):
        assert edge.source in page
