"""Circuits of models that were changed, broken or are short of memory: right, or refused in a sentence.

Right values are gradients at what plain hooks see, times differences of the same, by the formula of nodes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

import integrand as ig
from integrand.errors import (
    InputError,
    ModelError,
    ModelTooLarge,
    NonFiniteGradient,
    SmallerCallsWarning,
)

CLEAN = torch.tensor([[5, 6, 7, 8], [9, 3, 7, 12], [3, 3, 3, 3]])
CORRUPT = torch.tensor([[5, 9, 7, 8], [9, 3, 5, 11], [4, 3, 3, 7]])
SIZE = {"vocab_size": 24, "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
H = 4


def metric(logits: Tensor) -> Tensor:
    return logits[:, -1, 4] - 0.5 * logits[:, -2].logsumexp(-1)


def filled(model: nn.Module) -> Any:
    """Large random weights and biases, in float64."""
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.double().parameters():
            noise = torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
            parameter.mul_(4.0) if parameter.ndim > 1 else parameter.add_(0.3 * noise)
    return model.eval()


def llama() -> Any:
    torch.manual_seed(0)
    return filled(LlamaForCausalLM(LlamaConfig(**SIZE, num_key_value_heads=2, attention_bias=True)))


def gemma() -> Any:
    """Biases behind the heads, and norms behind these."""
    torch.manual_seed(0)
    more = {"num_key_value_heads": 2, "head_dim": 6, "attention_bias": True, "sliding_window": 2}
    return filled(Gemma2ForCausalLM(Gemma2Config(**SIZE, **more)))


def one_after_the_other() -> Any:
    torch.manual_seed(0)
    return filled(GPTNeoXForCausalLM(GPTNeoXConfig(**SIZE, use_parallel_residual=False)))


# --- right values -----------------------------------------------------------------------------------------------------


def seen(
    model: Any, blocks: str, places: dict[str, tuple[str, bool]], ids: Tensor, start: Any = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, the stream before the first block, and for each layer what goes into (True) or comes
    out of some of its modules."""
    record: dict[str, Tensor] = {}
    layers = list(model.get_submodule(blocks))
    with contextlib.ExitStack() as stack:

        def begins(module: Any, args: Any) -> Any:
            record["input"] = args[0] if start is None else start
            return (record["input"], *args[1:])

        stack.callback(layers[0].register_forward_pre_hook(begins).remove)
        for number, layer in enumerate(layers):
            for name, (module, before) in places.items():
                key = f"{name}{number}"

                def goes_in(module: Any, args: Any, key: str = key) -> None:
                    record[key] = args[0]

                def comes_out(module: Any, args: Any, output: Any, key: str = key) -> None:
                    record[key] = output

                part = layer.get_submodule(module)
                hook = part.register_forward_pre_hook if before else part.register_forward_hook
                stack.callback(hook(goes_in if before else comes_out).remove)
        return model(ids).logits, record


def scores_by_hooks(model: Any, blocks: str, places: dict[str, tuple[str, bool]]) -> dict[str, Tensor]:  # fmt: skip
    """(clean − corrupt) ⊙ mean gradient at each place, summed over tokens: (pairs, width)."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    ends = [seen(model, blocks, places, ids)[1] for ids in (CLEAN, CORRUPT)]
    difference = {name: ends[0][name] - ends[1][name] for name in ends[0]}
    total: dict[str, Tensor] = {}
    for place, weight in zip(*ig.rules.GaussLegendre(3).table(), strict=True):
        start = (ends[1]["input"] + place * difference["input"]).requires_grad_()
        logits, record = seen(model, blocks, places, CLEAN, start)
        slopes = torch.autograd.grad(metric(logits).sum(), list(record.values()))
        for name, slope in zip(record, slopes, strict=True):
            total[name] = total.get(name, 0) + weight * (difference[name] * slope).sum(1)
    return total


def of_heads(scores: Tensor) -> Tensor:
    """The mean over pairs, for each head."""
    return scores.unflatten(-1, (H, -1)).sum(-1).mean(0)


def nodes_by_hooks(model: Any, blocks: str, output: str) -> Tensor:
    """(S,) scores of nodes where nothing stands between heads and the stream."""
    expected = scores_by_hooks(model, blocks, {"z": (output, True), "m": ("mlp", False)})
    layers = [
        torch.cat([of_heads(expected[f"z{n}"]), expected[f"m{n}"].sum(-1).mean()[None]])
        for n in range(2)
    ]
    return torch.cat([expected["input"].sum(-1).mean()[None], *layers])


def check_against_hooks(model: Any, blocks: str, output: str) -> None:
    expected = nodes_by_hooks(model, blocks, output)
    size = float(expected.abs().max())
    circuit = ig.circuits.edges(model, CLEAN, CORRUPT, metric=metric, steps=3)
    nodes = ig.circuits.nodes(model, CLEAN, CORRUPT, metric=metric, steps=3)
    for scored in (circuit, nodes):  # norms of Llama go through float32
        assert (scored.node_scores - expected).abs().max() < 1e-6 * size
    curve = ig.circuits.faithfulness(
        model, CLEAN, CORRUPT, circuit, metric=metric, counts=[0, circuit.graph.edge_count], draws=0
    )
    assert curve.circuit.tolist() == pytest.approx([0, 1], abs=1e-6)


# --- architectures and what was done to them --------------------------------------------------------------------------


def test_blocks_whose_mlp_reads_its_own_heads() -> None:
    """What GPT-NeoX says of its blocks is in its configuration."""
    model = one_after_the_other()
    check_against_hooks(model, "gpt_neox.layers", "attention.dense")
    graph = ig.circuits.nodes(model, CLEAN, CORRUPT, metric=metric, steps=1).graph
    assert graph.edge("a0.h1", "m0")


def test_biases_in_front_of_a_norm() -> None:
    """They are scaled from prompt to prompt in another way: without them nothing adds up."""
    model = gemma()
    of = {"metric": metric, "steps": 3}
    circuit = ig.circuits.edges(model, CLEAN, CORRUPT, **of)
    places = {"a": ("post_attention_layernorm", False), "m": ("post_feedforward_layernorm", False)}
    expected = scores_by_hooks(model, "model.layers", places)
    for layer in range(2):
        heads = circuit.node_scores[circuit.graph.heads_at(layer)]
        assert float(heads.sum()) == pytest.approx(float(expected[f"a{layer}"].sum(-1).mean()), rel=1e-5)  # fmt: skip
    curve = ig.circuits.faithfulness(
        model, CLEAN, CORRUPT, circuit, metric=metric, counts=[10**6], draws=0
    )
    assert curve.circuit.tolist() == pytest.approx([1.0], abs=1e-6)
    credit = ig.circuits.layer_credit(model, CLEAN, CORRUPT, metric=metric)
    assert float(credit.gap.max()) < 1e-5


@pytest.mark.parametrize("name", ["o_proj", "q_proj"])
def test_hooks_that_change_what_a_layer_makes(name: str) -> None:
    model = llama()
    layer = model.model.layers[0].self_attn.get_submodule(name)
    layer.register_forward_hook(lambda module, args, output: 2 * output)
    check_against_hooks(model, "model.layers", "self_attn.o_proj")


class Adapted(nn.Module):
    """A linear layer with an adapter of low rank beside it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down, self.up = (
            nn.Linear(base.in_features, 2, bias=False),
            nn.Linear(2, base.out_features, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 3 * self.up(self.down(x))


class Rounded(nn.Module):
    """A linear layer whose weights are whole numbers, and what it is given too, if ``inputs``."""

    def __init__(self, base: nn.Linear, *, inputs: bool) -> None:
        super().__init__()
        self.scale = base.weight.detach().abs().amax(1, keepdim=True) / 127
        self.whole = (base.weight.detach() / self.scale).round().to(torch.int8)
        self.inputs = inputs

    def forward(self, x: Tensor) -> Tensor:
        if self.inputs:
            size = x.detach().abs().amax(-1, keepdim=True).clamp_min(1e-9) / 20
            x = x + ((x / size).round() * size - x).detach()
        return x @ (self.whole.to(x) * self.scale).T


def replaced(make: Callable[[nn.Linear], nn.Module]) -> Any:
    model = llama()
    for block in model.model.layers:
        for name in ("q_proj", "v_proj", "o_proj"):
            setattr(block.self_attn, name, make(getattr(block.self_attn, name)))
    return model


def test_adapters_and_weights_in_whole_numbers() -> None:
    torch.manual_seed(2)
    check_against_hooks(
        replaced(lambda base: Adapted(base).double()), "model.layers", "self_attn.o_proj"
    )
    check_against_hooks(
        replaced(lambda base: Rounded(base, inputs=False)), "model.layers", "self_attn.o_proj"
    )


def test_the_same_model_compiled() -> None:
    model = llama()
    of = {"metric": metric, "steps": 2}
    expected = ig.circuits.edges(model, CLEAN, CORRUPT, **of).scores
    compiled = torch.compile(model, backend="eager")
    assert torch.equal(ig.circuits.edges(compiled, CLEAN, CORRUPT, **of).scores, expected)


def scaled_input(model: Any) -> Any:
    model.model.layers[0].mlp.register_forward_pre_hook(lambda module, args: (0.5 * args[0],))
    return model


class NoGradient(nn.Module):
    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x.detach())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: scaled_input(llama()), "norm of the MLP of block 0"),
        (lambda: replaced(lambda base: Rounded(base, inputs=True)), "a projection of block 0"),
        (lambda: replaced(NoGradient), "NoGradient .* has no gradient"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(make: Callable[[], Any], words: str) -> None:
    for method in ("eap", "exact"):
        with pytest.raises(ModelError, match=words):
            ig.circuits.nodes(make(), CLEAN, CORRUPT, metric=metric, method=method)


def test_large_and_small_activations_in_float16() -> None:
    """The square of 300 is no number of float16; the norm behind the heads takes it all the same."""
    for size, apart in ((300.0, 0.02), (1e-3, 0.05)):
        model = gemma().half()
        block = model.model.layers[0]
        mixed = torch.randn(2, 3, H * 6, generator=torch.Generator().manual_seed(3)).half()
        with torch.no_grad():
            block.self_attn.o_proj.bias.mul_(0)
            weight = block.self_attn.o_proj.weight
            weight.mul_(size / float((mixed.float() @ weight.float().T).std()))
            raw = block.self_attn.o_proj(mixed)
            language = ig.text.models.language_model(model)
            decoder = ig.circuits.architectures.decoder_of(language)
            written = ig.circuits.stream.Matrices(decoder).written(0, mixed, raw).float()
            gain = raw.float().square().mean(-1, keepdim=True) + model.config.rms_norm_eps
            norm = 1.0 + block.post_attention_layernorm.weight.float()
            expected = norm * raw.float() * gain.rsqrt()
        assert (written.sum(1) - expected).norm() < apart * expected.norm()


# --- numbers that are none, and modes ---------------------------------------------------------------------------------


def test_what_is_not_finite_is_refused_everywhere() -> None:
    model = llama()
    circuit = ig.circuits.edges(model, CLEAN, CORRUPT, metric=metric, steps=1)
    of = {"metric": lambda logits: metric(logits) * float("nan")}
    for call in (
        lambda: ig.circuits.edges(model, CLEAN, CORRUPT, **of),
        lambda: ig.circuits.nodes(model, CLEAN, CORRUPT, method="exact", **of),
        lambda: ig.circuits.activation_patching(model, CLEAN, CORRUPT, [("input", "m0")], **of),
        lambda: ig.circuits.faithfulness(model, CLEAN, CORRUPT, circuit, **of),
        lambda: ig.circuits.layer_credit(model, CLEAN, CORRUPT, **of),
    ):
        with pytest.raises(NonFiniteGradient, match="hold NaN or infinity"):
            call()
    model.model.layers[1].mlp.down_proj.weight.data[0, 0] = torch.nan
    first = {"metric": lambda logits: logits[:, 0].nan_to_num().sum(-1)}
    with pytest.raises(NonFiniteGradient, match="final norm of LlamaForCausalLM reads is not"):
        ig.circuits.edges(model, CLEAN, CORRUPT, **first)


def test_inside_inference_mode() -> None:
    model = llama()
    of = {"metric": metric, "steps": 2}
    circuit = ig.circuits.edges(model, CLEAN, CORRUPT, **of)
    curve = ig.circuits.faithfulness(model, CLEAN, CORRUPT, circuit, metric=metric, counts=[9])
    losses = ig.circuits.activation_patching(model, CLEAN, CORRUPT, circuit.top(2), metric=metric)
    credit = ig.circuits.layer_credit(model, CLEAN, CORRUPT, metric=metric)
    with torch.inference_mode():
        again = ig.circuits.edges(model, CLEAN, CORRUPT, **of)
        assert torch.equal(again.scores, circuit.scores)
        of = {"metric": metric}
        follows = ig.circuits.faithfulness(model, CLEAN, CORRUPT, again, counts=[9], **of)
        assert torch.equal(follows.circuit, curve.circuit)
        assert torch.equal(
            ig.circuits.activation_patching(model, CLEAN, CORRUPT, again.top(2), **of), losses
        )
        assert torch.equal(
            ig.circuits.layer_credit(model, CLEAN, CORRUPT, **of).scores, credit.scores
        )


# --- what is handed in ------------------------------------------------------------------------------------------------


def test_how_many_edges_are_kept_and_of_what() -> None:
    model = llama()
    nodes = ig.circuits.nodes(model, CLEAN, CORRUPT, metric=metric, steps=1)
    circuit = ig.circuits.edges(model, CLEAN, CORRUPT, metric=metric, steps=1)
    for scored, counts, words in (
        (nodes, None, "a NodeScores has none"),
        (circuit, [], "counts= is empty"),
        (circuit, 5, r"give \[5\]"),
    ):
        with pytest.raises(InputError, match=words):
            ig.circuits.faithfulness(model, CLEAN, CORRUPT, scored, metric=metric, counts=counts)


def test_padding_is_no_prompt() -> None:
    """It would be read as text; where its id is that of a token which begins or ends texts it is one."""
    model = llama()
    padded = CLEAN.clone()
    padded[1, 0] = 0
    with pytest.raises(InputError, match="Prompt 1 has padding"):
        ig.circuits.nodes(model, padded, CORRUPT, metric=metric)
    model.config.bos_token_id = 0
    ig.circuits.nodes(model, padded, CORRUPT, metric=metric, steps=1)


def test_prompts_of_every_make_and_what_is_none() -> None:
    model, of = llama(), {"metric": metric, "steps": 1}
    expected = ig.circuits.nodes(model, CLEAN, CORRUPT, **of).node_scores
    for make in (
        lambda ids: ids.numpy(),
        lambda ids: list(ids),
        lambda ids: tuple(ids.tolist()),
        lambda ids: [row.numpy() for row in ids],
    ):
        found = ig.circuits.nodes(model, make(CLEAN), make(CORRUPT), **of)
        assert torch.equal(found.node_scores, expected)
    for prompts, words in (
        ({"input_ids": CLEAN}, "give its 'input_ids'"),
        (None, "not a NoneType"),
        (5, "not a int"),
        ([5.0, 6.0], "a list of token ids"),
        ([[5, 6], 7], "a list of token ids"),
        ([[5, 6], []], "a list of token ids"),
    ):
        with pytest.raises(InputError, match=words):
            ig.circuits.nodes(model, prompts, CORRUPT, **of)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rule": ig.rules.Adaptive()}, "one with fixed nodes"),
        ({"rule": ig.rules.Exact()}, "one with fixed nodes"),
        ({"rule": "left"}, "one with fixed nodes"),
        ({"architecture": "llama"}, r"is an ig\.circuits\.Architecture"),
        ({"method": "exact", "backward": ig.fields.FrozenNorm()}, "takes no gradients"),
        ({"method": "nope"}, "method is one of"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], words: str) -> None:
    for call in (ig.circuits.edges, ig.circuits.nodes):
        with pytest.raises(InputError, match=words):
            call(llama(), CLEAN, CORRUPT, metric=metric, **options)


# --- memory -----------------------------------------------------------------------------------------------------------


class Cramped:
    """Lets a model run out of memory in calls of more than some rows, before or on the way back."""

    def __init__(self, model: Any, most: int, *, backward: bool) -> None:
        self.most, self.backward, self.failures = most, backward, 0
        model.lm_head.register_forward_hook(self)

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> None:
        if len(output) <= self.most:
            return
        if self.backward and output.requires_grad:
            output.register_hook(self.fails)
        elif not self.backward:
            self.fails(output)

    def fails(self, slope: Tensor) -> None:
        self.failures += 1
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


@pytest.mark.parametrize("backward", [False, True])
def test_calls_become_smaller_where_memory_runs_out(backward: bool) -> None:
    model = llama()
    of = {"metric": metric, "steps": 3, "method": "eap-ig-activations"}
    expected = ig.circuits.edges(model, CLEAN, CORRUPT, **of)
    cramped = Cramped(model, 2, backward=backward)
    with pytest.warns(SmallerCallsWarning) as caught:
        found = ig.circuits.edges(model, CLEAN, CORRUPT, **of)
    said = [str(warning.message) for warning in caught]
    assert ["call of 8 rows" in said[0], "call of 4 rows" in said[1], len(said)] == [True, True, 2]
    assert torch.allclose(found.scores, expected.scores, rtol=1e-9, atol=1e-12)
    assert cramped.failures == 2  # 8, 4
    for first, second in zip(found.completeness, expected.completeness, strict=True):
        assert first.nodes == second.nodes
        assert first.total == pytest.approx(second.total, rel=1e-9)
    assert torch.equal(found.clean, expected.clean)


def test_every_question_goes_on_in_smaller_calls() -> None:
    model = llama()
    of = {"metric": metric}
    circuit = ig.circuits.edges(model, CLEAN, CORRUPT, steps=1, **of)
    calls: list[Callable[[], Tensor]] = [
        lambda: ig.circuits.nodes(model, CLEAN, CORRUPT, method="exact", **of).node_scores,
        lambda: ig.circuits.activation_patching(model, CLEAN, CORRUPT, circuit.top(3), **of),
        lambda: (
            ig.circuits.faithfulness(
                model, CLEAN, CORRUPT, circuit, counts=[9], draws=0, **of
            ).circuit
        ),
        lambda: ig.circuits.layer_credit(model, CLEAN, CORRUPT, **of).scores,
    ]
    expected = [call() for call in calls]
    Cramped(model, 2, backward=False)
    for call, right in zip(calls, expected, strict=True):
        with pytest.warns(SmallerCallsWarning):
            assert torch.allclose(call(), right, rtol=1e-7, atol=1e-10)


def test_one_row_that_does_not_fit() -> None:
    model = llama()
    Cramped(model, 0, backward=False)
    with pytest.warns(SmallerCallsWarning), pytest.raises(ModelTooLarge, match="A single row"):
        ig.circuits.nodes(model, CLEAN, CORRUPT, metric=metric)
