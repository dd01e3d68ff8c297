"""What a call keeps, blocks that run again on the way back, and texts of like length together."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.model import batching
from integrand.model.checkpointing import kept_at, kept_bytes, recomputed, repeated_blocks
from integrand.text.packing import packs_of
from tests.text.tiny import V, byte_tokenizer, tiny, word_tokenizer

FEW = ig.rules.GaussLegendre(4)
pytestmark = pytest.mark.filterwarnings("ignore::integrand.errors.IncompleteWarning")


@pytest.fixture(scope="module")
def bytes_of() -> Any:
    return byte_tokenizer()


def ids_of(length: int) -> Tensor:
    return torch.randint(5, V, (1, length), generator=torch.Generator().manual_seed(length))


# --- blocks -----------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, width)])
        self.runs = 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        return self.inner[1](self.inner[0](x).tanh()).tanh()


class Stack(nn.Module):
    def __init__(self, width: int = 4, count: int = 3) -> None:
        super().__init__()
        self.words = nn.Embedding(30, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(count))
        self.odd = nn.ModuleList([nn.Linear(width, width), nn.Sequential(nn.Linear(width, 3))])

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.words(input_ids)
        for block in self.blocks:
            x = block(x)
        return self.odd[1](self.odd[0](x.mean(1)))


def stack() -> Stack:
    torch.manual_seed(0)
    return Stack().double().eval().requires_grad_(False)


def test_blocks_are_modules_of_one_class_in_a_list() -> None:
    model = stack()
    assert repeated_blocks(model) == list(model.blocks)
    assert repeated_blocks(model, without=model.blocks[1].inner[0]) == [model.blocks[0], model.blocks[2]]  # fmt: skip
    assert repeated_blocks(nn.ModuleList([model.blocks[0], model.blocks[0]])) == [model.blocks[0]]
    t5, bert = tiny("t5"), tiny("bert")
    assert repeated_blocks(t5) == [*t5.encoder.block, *t5.decoder.block]
    assert repeated_blocks(bert) == list(bert.bert.encoder.layer)


def test_bytes_in_closed_form() -> None:
    """Frozen linear layers keep nothing and each tanh what it gave: two tensors a block."""
    model, rows, tokens, width = stack(), 5, 7, 4
    x = torch.randn(rows, tokens, width, dtype=torch.float64).requires_grad_()

    def run() -> Tensor:
        z: Tensor = x
        for block in model.blocks:
            z = block(z)
        return z

    kept = kept_bytes(model, repeated_blocks(model), run)
    activation = rows * tokens * width * 8
    assert kept.plain == 6 * activation
    # The input of every block, and what one block keeps.
    assert kept.recomputed == 3 * activation + 2 * activation


def test_what_checkpoints_really_keep() -> None:
    """Counted apart, as tensors that autograd packs while the blocks run again."""
    model = stack()
    x = torch.randn(5, 7, 4, dtype=torch.float64).requires_grad_()
    packed: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        packed.append(tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), recomputed(model.blocks):
        z: Tensor = x
        for block in model.blocks:
            z = block(z)
        z.sum()
    assert sum(packed) == 3 * 5 * 7 * 4 * 8, "what goes into each of the blocks, and no activations"


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_bytes_of_long_texts_are_those_of_short_ones(name: str) -> None:
    model = tiny(name)
    blocks = repeated_blocks(model)
    model.requires_grad_(False)

    def measure(length: int) -> Any:
        vectors = torch.randn(1, length, 16, dtype=torch.float64).requires_grad_()
        return kept_bytes(model, blocks, lambda: model(inputs_embeds=vectors))

    lengths = 64 if name == "gpt2" else 256
    truth, told = measure(lengths), kept_at(lengths, measure)
    assert told.plain == pytest.approx(truth.plain, rel=0.02)
    assert told.recomputed == pytest.approx(truth.recomputed, rel=0.02)
    assert truth.recomputed < 0.75 * truth.plain


# --- the same numbers -------------------------------------------------------------------------------------------------

WAYS: dict[str, dict[str, Any]] = {
    "tolerance": {"tol": 0.2},
    "nodes": {"rule": FEW},
    "chords": {"rule": ig.rules.Chords(6)},
    "several": {"rule": FEW, "baseline": ["mean", "pad"]},
}


def states(model: nn.Module) -> list[Any]:
    return [
        (module.training, sorted(vars(module)), dict(module._forward_hooks))
        for module in model.modules()
    ]


@pytest.mark.parametrize(
    ("name", "way"), [*((n, w) for n in ("llama", "gpt2") for w in WAYS), ("t5", "several")]
)
def test_checkpoints_change_no_bit(name: str, way: str, bytes_of: Any) -> None:
    model = tiny(name)
    before = states(model)
    # A batch size: one that is found by timing would decide the last digits.
    options: dict[str, Any] = {"target": " Paris, in", "batch_size": 4, **WAYS[way]}
    texts = ["The capital of France is", "Rome is"]
    plain = ig.text.explain(model, bytes_of, texts, checkpoint=False, **options)
    again = ig.text.explain(model, bytes_of, texts, checkpoint=True, **options)
    assert again.checkpointed
    assert not plain.checkpointed
    assert torch.equal(plain.attribution.values, again.attribution.values)
    assert torch.equal(plain.attribution.output, again.attribution.output)
    assert plain.attribution.cost.gradients == again.attribution.cost.gradients
    assert states(model) == before


def test_classifiers_and_each_token_too(bytes_of: Any) -> None:
    words_of = word_tokenizer()
    bert = tiny("bert", dtype=torch.float32)
    options: dict[str, Any] = {"target": 1, "rule": FEW, "batch_size": 4}
    plain = ig.text.explain(bert, words_of, "Rome is old.", checkpoint=False, **options)
    again = ig.text.explain(bert, words_of, "Rome is old.", checkpoint=True, **options)
    assert torch.equal(plain.attribution.values, again.attribution.values)
    llama = tiny("llama")
    options = {"target": " Paris, in", "rule": FEW, "batch_size": 4, "per_token": True}
    plain = ig.text.explain(llama, bytes_of, "Rome is", checkpoint=False, **options)
    again = ig.text.explain(llama, bytes_of, "Rome is", checkpoint=True, **options)
    assert torch.equal(plain.matrix[0], again.matrix[0])


def test_blocks_run_twice_and_only_for_gradients() -> None:
    model = stack()
    ids = torch.tensor([[1, 2, 3]])
    counts = []
    for checkpoint in (False, True):
        for block in model.blocks:
            block.runs = 0
        ig.text.explain_ids(model, ids, target=0, embeddings="words", rule=FEW, batch_size=1, checkpoint=checkpoint)  # fmt: skip
        counts.append([block.runs for block in model.blocks])
    assert [b - a for a, b in zip(*counts, strict=True)] == [4, 4, 4], "once more for each node"


def test_by_need(monkeypatch: pytest.MonkeyPatch, bytes_of: Any) -> None:
    model = tiny("llama")

    def explained(budget: int | None, **options: Any) -> Any:
        monkeypatch.setattr("integrand.text.memory.memory_budget", lambda device: budget)
        return ig.text.explain(model, bytes_of, "Rome is", target=" Paris", rule=FEW, **options)

    assert not explained(1 << 40).checkpointed
    assert not explained(None).checkpointed
    assert explained(1000).checkpointed
    assert not explained(1000, checkpoint=False).checkpointed
    assert explained(1 << 40, checkpoint=True).checkpointed
    # Twenty rows keep ten times what two do: a budget between the two tells them apart.
    texts = ig.text.memory.LongestText(torch.tensor([bytes_of("Rome is Paris")["input_ids"]]))
    language = ig.text.models.language_model(model)
    two = 2 * texts.kept(language).plain
    assert not explained(int(3 * two), batch_size=1).checkpointed
    assert explained(int(3 * two), batch_size=40).checkpointed


def test_the_budget_is_a_share_of_what_is_free() -> None:
    budget = batching.memory_budget(torch.device("cpu"))
    assert budget is None or 0 < budget < 1 << 50


def test_models_without_blocks_and_blocks_that_change(bytes_of: Any) -> None:
    words = nn.Sequential(nn.Embedding(30, 4), nn.Flatten(), nn.Linear(12, 2)).eval()
    with pytest.raises(ig.errors.InputError, match="no blocks that could be run again"):
        ig.text.explain_ids(words, torch.tensor([[1, 2, 3]]), target=0, embeddings="0", checkpoint=True)  # fmt: skip

    class Fickle(Block):
        def forward(self, x: Tensor) -> Tensor:
            odd = self.runs % 2  # and one more inside
            return super().forward(x.repeat(1, 1 + odd, 1))[:, : x.shape[1]]

    model = stack()
    model.blocks = nn.ModuleList(Fickle(4) for _ in range(2)).double()
    with pytest.raises(ig.errors.ModelError, match="do something else when they are run again"):
        ig.text.explain_ids(model, torch.tensor([[1, 2, 3]]), target=0, embeddings="words", rule=FEW, checkpoint=True)  # fmt: skip
    assert all("forward" not in vars(block) for block in model.blocks)


# --- other people's devices -------------------------------------------------------------------------------------------


def test_models_whose_weights_are_elsewhere_until_needed(bytes_of: Any) -> None:
    """Offloaded by accelerate: weights are on ``meta`` and loaded block by block."""
    accelerate = pytest.importorskip("accelerate")
    options: dict[str, Any] = {"target": " Paris, in", "rule": FEW, "batch_size": 4}
    plain = ig.text.explain(tiny("llama"), bytes_of, "Rome is", **options)
    model = tiny("llama")
    accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    assert next(model.get_input_embeddings().parameters()).device.type == "meta"
    before = states(model)
    for checkpoint in (False, True):
        result = ig.text.explain(model, bytes_of, "Rome is", checkpoint=checkpoint, **options)
        torch.testing.assert_close(result.scores[0], plain.scores[0])
    assert states(model) == before


# --- padding ----------------------------------------------------------------------------------------------------------


def test_packs_hold_little_padding() -> None:
    lengths = torch.randint(3, 400, (200,), generator=torch.Generator().manual_seed(0)).tolist()
    packs = packs_of(lengths)
    assert sorted(number for pack in packs for number in pack) == list(range(200))
    for pack in packs:
        pack_lengths = [lengths[number] for number in pack]
        assert sum(pack_lengths) >= 0.9 * max(pack_lengths) * len(pack_lengths)
    assert len(packs) < 40
    assert packs_of([5, 5, 5]) == [[0, 1, 2]]
    assert packs_of([]) == []
    assert packs_of([6, 5, 6, 6], alike=["a", "a", "b", "a"]) == [[1], [0, 3], [2]]


TEXTS = ["The capital of France is", "Rome", "Paris is big! Rome is old. What is this?", "Rome is"]


@pytest.mark.parametrize("per_token", [False, True])
def test_packs_are_single_runs_in_their_order(per_token: bool, bytes_of: Any) -> None:
    model, seen = tiny("gpt2"), []
    model.transformer.h[0].register_forward_hook(lambda m, args, out: seen.append(args[0].shape[:2].numel()))  # fmt: skip
    targets = [" Paris, in", " is", " Rome is old.", " old."]
    options: dict[str, Any] = {"rule": FEW, "baseline": ["mean", "pad"], "per_token": per_token, "record": ("shares",)}  # fmt: skip
    batch = ig.text.explain(model, bytes_of, TEXTS, target=targets, **options)
    computed, width = sum(seen), batch.attribution.values.shape[1]
    attribution = batch.attribution
    assert attribution.values.shape == attribution.inputs.shape == (4, width, 16)
    assert width == max(map(len, batch.texts))
    singles = 0
    for i, (text, target) in enumerate(zip(TEXTS, targets, strict=True)):
        seen.clear()
        single = ig.text.explain(model, bytes_of, text, target=target, **options)
        singles += sum(seen)
        torch.testing.assert_close(batch.scores[i], single.scores[0])
        torch.testing.assert_close(attribution.output[i], single.attribution.output[0])
        torch.testing.assert_close(attribution.residual[i], single.attribution.residual[0])
        torch.testing.assert_close(attribution.weights[:, i], single.attribution.weights[:, 0])
        assert batch.targets[i] == single.targets[0]
        slots = list(batch.slots[i])
        if per_token:
            torch.testing.assert_close(batch.matrix[i], single.matrix[0])
        else:
            for name in ("shares", "baselines"):
                torch.testing.assert_close(getattr(attribution, name)[:, i, slots], getattr(single.attribution, name)[:, 0])  # fmt: skip
        torch.testing.assert_close(attribution.inputs[i, slots], single.attribution.inputs[0])
        padding = sorted(set(range(width)) - set(slots))
        assert bool((attribution.values[i, padding] == 0).all())
    assert computed <= singles, "no padding was computed"
    assert batch.attribution.method == ig.text.explain(model, bytes_of, TEXTS, target=targets, **options).attribution.method  # fmt: skip


def test_padding_anywhere_is_left_out_and_comes_back() -> None:
    """Padding that all rows have, on both sides, and between tokens."""
    model = tiny("bert")
    ids = torch.zeros(2, 9, dtype=torch.long)
    mask = torch.zeros_like(ids)
    ids[0, 2:7], mask[0, 2:7] = ids_of(5)[0], 1
    ids[1, 3:5], mask[1, 3:5] = ids_of(2)[0], 1
    result = ig.text.explain_ids(model, ids, attention_mask=mask, target=[1, 2], rule=FEW)
    assert result.attribution.values.shape == (2, 9, 16)
    assert bool((result.attribution.values[mask == 0] == 0).all())
    for i, (first, stop) in enumerate(((2, 7), (3, 5))):
        single = ig.text.explain_ids(model, ids[i : i + 1, first:stop], target=i + 1, rule=FEW)
        torch.testing.assert_close(result.attribution.values[i, first:stop], single.attribution.values[0])  # fmt: skip
        assert result.slots[i] == tuple(range(first, stop))


def test_progress_runs_on_over_packs(bytes_of: Any) -> None:
    tallies: list[int] = []
    result = ig.text.explain(tiny("llama"), bytes_of, TEXTS, target=" Paris", rule=FEW, progress=lambda tally: tallies.append(tally.gradients))  # fmt: skip
    assert tallies == sorted(tallies)
    assert tallies[-1] == result.attribution.cost.gradients == 4 * 4


def test_warnings_name_texts_as_they_were_given(bytes_of: Any) -> None:
    with pytest.warns(ig.errors.IncompleteWarning) as caught:
        ig.text.explain(tiny("llama", scale=12.0), bytes_of, TEXTS, target=" Paris", rule=ig.rules.Left(1))  # fmt: skip
    numbers = {int(str(w.message).split("xample ")[1].split()[0].strip(":,.")) for w in caught if "xample " in str(w.message)}  # fmt: skip
    assert numbers <= {0, 1, 2, 3}


# --- neighbours of words ------------------------------------------------------------------------------------------------


def test_neighbours_are_found_once_for_a_vocabulary(bytes_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    from integrand.paths.discretized import NeighbourGraph

    model, looked = tiny("llama"), []
    near = NeighbourGraph.near

    def counted(self: NeighbourGraph, rows: Tensor, look: Any) -> Tensor:
        before = len(self)
        result = near(self, rows, look)
        looked.append(len(self) - before)
        special = {0, 1, 2, *range(len(bytes_of), V)}
        assert not set(result.flatten().tolist()) & special
        return result

    monkeypatch.setattr(NeighbourGraph, "near", counted)
    options: dict[str, Any] = {"target": " Paris", "method": "discretized", "steps": 3, "neighbours": 20, "rule": ig.rules.Left()}  # fmt: skip
    first = ig.text.explain(model, bytes_of, "Rome is", **options)
    assert sum(looked) > 0
    looked.clear()
    again = ig.text.explain(model, bytes_of, "Rome is", **options)
    assert sum(looked) == 0
    assert torch.equal(first.scores[0], again.scores[0])
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(2)
    ig.text.explain(model, bytes_of, "Rome is", **options)
    assert sum(looked) > 0, "the weights are others now"


# --- what it will take --------------------------------------------------------------------------------------------------


def test_an_estimate_counts_gradients_without_the_model(bytes_of: Any) -> None:
    model = tiny("llama")
    ways: list[tuple[dict[str, Any], int | None]] = [
        ({"rule": FEW}, 4),
        ({"rule": FEW, "baseline": ["mean", "pad", ig.text.Corrupt([1, 50, 51, 52])]}, 12),
        ({"method": "sequential", "rule": FEW}, None),
        ({"method": "guided", "steps": 5}, None),
        ({"method": ig.Backward(ig.fields.FrozenNorm(), ig.methods.integrated(rule=FEW))}, 4),
        ({"tol": 0.1}, None),
    ]
    for options, gradients in ways:
        told = ig.text.estimate_cost(model, bytes_of, "Rome is old", target=" Paris", **options)
        assert told.texts == 1
        assert told.tokens == len(bytes_of("Rome is old")["input_ids"])
        result = ig.text.explain(model, bytes_of, "Rome is old", target=" Paris", **options)
        if gradients is not None:
            assert told.gradients == gradients == result.attribution.cost.gradients
        assert told.gradients in (None, result.attribution.cost.gradients)
        assert told.gradient_seconds > 0
        assert (told.seconds is None) == (told.gradients is None)
    assert told.gradients is None, "a tolerance decides"


def test_an_estimate_in_words(bytes_of: Any, capsys: pytest.CaptureFixture[str]) -> None:
    told = ig.text.CostEstimate(1, 2048, 16, 11.0, 176.0, 1_100_000_000, checkpointed=False)
    assert str(told) == "2,048 tokens × 16 gradients ≈ 1.1 GB, 3 min"
    told = ig.text.CostEstimate(3, 900, None, 0.5, None, 25_000_000, checkpointed=True)
    assert str(told).startswith("3 texts of up to 900 tokens: ≈ 25 MB, 0.5 s a gradient")
    assert "blocks run again" in str(told)
    heard: list[Any] = []
    options: dict[str, Any] = {"target": " Paris", "rule": FEW}
    ig.text.explain(tiny("llama"), bytes_of, ["Rome", "Rome is old"], preflight=heard.append, **options)  # fmt: skip
    assert [told.gradients for told in heard] == [4]
    assert capsys.readouterr().err == ""
    ig.text.explain(tiny("llama"), bytes_of, ["Rome", "Rome is old"], preflight=True, **options)
    assert "2 texts of up to 4 tokens × 4 gradients" in capsys.readouterr().err
    with pytest.raises(ig.errors.InputError, match="preflight is True, False or a callable"):
        ig.text.explain(tiny("llama"), bytes_of, "Rome", preflight="yes", **options)


def test_bytes_of_an_estimate_are_those_that_a_gradient_keeps(bytes_of: Any) -> None:
    """Counted apart: what autograd packs in a forward pass of the model by itself."""
    model = tiny("llama").requires_grad_(False)
    told = ig.text.estimate_cost(model, bytes_of, "Rome is old", target=" Paris", rule=FEW, batch_size=3)  # fmt: skip
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    packed: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            packed[storage.data_ptr()] = storage.nbytes()
        return tensor

    vectors = model.get_input_embeddings()(torch.tensor([bytes_of("Rome is old")["input_ids"]]))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        logits = model(inputs_embeds=vectors.requires_grad_(), use_cache=False, logits_to_keep=1)
    assert logits.logits.requires_grad
    assert told.bytes == pytest.approx(3 * sum(packed.values()), rel=0.1)
    fewer = ig.text.estimate_cost(model, bytes_of, "Rome is old", target=" Paris", rule=FEW, batch_size=3, checkpoint=True)  # fmt: skip
    assert fewer.checkpointed
    assert fewer.bytes < told.bytes


# --- half precision -----------------------------------------------------------------------------------------------------


def test_what_half_precision_adds_is_measured(bytes_of: Any, tmp_path: Any) -> None:
    """Against the map of the float32 model, from the vectors of the half one, by plain autograd."""
    half = tiny("llama", scale=2.0, dtype=torch.bfloat16)
    fine = tiny("llama", scale=2.0, dtype=torch.bfloat16).float()
    token = bytes_of(" Paris", add_special_tokens=False)["input_ids"][0]
    nodes, weights = [0.5 - 0.15**0.5, 0.5, 0.5 + 0.15**0.5], [5 / 18, 8 / 18, 5 / 18]
    texts = ["Rome is", "The capital of France is"]
    result = ig.text.explain(half, bytes_of, texts, target=" Paris", rule=FEW)
    assert len(result.half_precision_error) == 2
    for i, text in enumerate(texts):
        end = half.get_input_embeddings()(torch.tensor([bytes_of(text)["input_ids"]])).detach()
        start = half.get_input_embeddings().weight.detach().double().mean(0).bfloat16().expand_as(end).clone()  # fmt: skip
        start[:, 0] = end[:, 0]
        maps = []
        for model in (half, fine):
            total = torch.zeros_like(end, dtype=torch.float64)
            for node, weight in zip(nodes, weights, strict=True):
                point = (start.float() + node * (end.float() - start.float())).requires_grad_()
                dtype = next(model.parameters()).dtype
                logits = model(inputs_embeds=point.to(dtype)).logits[0, -1].float()
                (slope,) = torch.autograd.grad(logits.log_softmax(-1)[token], point)
                total += weight * slope.double()
            maps.append(total * (end.double() - start.double()))
        slow = float((maps[0] - maps[1]).norm() / maps[1].norm())
        assert result.half_precision_error[i] == pytest.approx(slow, rel=0.1)
        assert 1e-4 < slow < 1
        assert "half precision adds" in result.summary(i)
    result.save(tmp_path / "half.safetensors")
    read = ig.load(tmp_path / "half.safetensors")
    assert isinstance(read, ig.text.TextAttribution)
    assert read.half_precision_error == result.half_precision_error
    assert result[1].half_precision_error == result.half_precision_error[1:]
    assert result.to_json()["texts"][1]["half_precision_error"] == result.half_precision_error[1]
    plain = ig.text.explain(half, bytes_of, texts, target=" Paris", rule=FEW, check_precision=False)
    assert plain.half_precision_error == ()
    assert torch.equal(plain.scores[0], result.scores[0])
    assert ig.text.explain(fine, bytes_of, texts, target=" Paris", rule=FEW).half_precision_error == ()  # fmt: skip


@pytest.mark.parametrize("name", ["gpt2", "gemma3", "t5", "bert"])
def test_half_precision_of_every_kind(name: str, bytes_of: Any, monkeypatch: Any) -> None:
    model = tiny(name, scale=1.0, dtype=torch.bfloat16)
    ids = torch.tensor([bytes_of("The capital of France is")["input_ids"]])
    target: Any = None if name == "bert" else ig.text.Continuation((7, 30))
    options: dict[str, Any] = {"target": target, "baseline": "mean", "keep": "first", "rule": FEW}
    result = ig.text.explain_ids(model, ids, per_token=name == "gpt2", **options)
    assert 0 < result.half_precision_error[0] < 1
    assert bool(result.scores[0].isfinite().all())
    monkeypatch.setattr("integrand.text.precision.memory_budget", lambda device: 100)
    result = ig.text.explain_ids(model, ids, **options)
    assert result.half_precision_error[0] != result.half_precision_error[0]
    assert "not measured" in result.summary()


def locked(model: Any) -> Any:
    model.lock = threading.Lock()
    return model


def casting(model: Any) -> Any:
    """Asks for half precision somewhere inside, whatever it is given."""
    head = model.lm_head
    head.register_forward_pre_hook(lambda module, args: (args[0].to(torch.bfloat16),))
    return model


class Quantised(type(tiny("llama"))):  # type: ignore[misc]
    def float(self) -> Any:
        raise ValueError("`.float()` is not supported for quantized models.")


def quantised(model: Any) -> Any:
    model.__class__ = Quantised
    return model


@pytest.mark.parametrize("change", [locked, casting, quantised])
def test_what_half_precision_adds_is_not_measured_where_that_fails(change: Any, bytes_of: Any) -> None:  # fmt: skip
    """The map is there all the same, and says so."""
    expected = ig.text.explain(tiny("llama", dtype=torch.bfloat16), bytes_of, "Rome is old", target=" Paris", rule=FEW)  # fmt: skip
    model = change(tiny("llama", dtype=torch.bfloat16))
    result = ig.text.explain(model, bytes_of, "Rome is old", target=" Paris", rule=FEW)
    assert torch.equal(result.scores[0], expected.scores[0])
    assert result.half_precision_error[0] != result.half_precision_error[0]
    assert "not measured" in result.summary()
