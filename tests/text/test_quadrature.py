"""Every kind of model against a dense quadrature by plain autograd, one text at a time, through ``inputs_embeds``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import integrand as ig
from tests.text.tiny import V, integral, tiny

CAUSAL = ["gpt2", "llama", "qwen2", "qwen3", "gemma2", "gemma3"]
RULE = ig.rules.GaussLegendre(192)
ANSWER = (7, 30, 9)


def ids_of(length: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(5, V, (1, length), generator=generator)


def embedded(model: Any, ids: Tensor) -> Tensor:
    layer = model.get_encoder().get_input_embeddings() if model.config.is_encoder_decoder else model.get_input_embeddings()  # fmt: skip
    return layer(ids).detach()


def mean_of(model: Any) -> Tensor:
    return embedded(model, torch.arange(V)).mean(0)


def log_probability(model: Any, answer: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    """log p(answer | vectors), a forward pass of the vectors and those of the answer's tokens but the last."""

    def function(vectors: Tensor) -> Tensor:
        lead = embedded(model, torch.tensor([answer[:-1]], dtype=torch.long))
        lead = lead.expand(len(vectors), -1, -1)
        logits = model(inputs_embeds=torch.cat([vectors, lead], 1)).logits
        first = vectors.shape[1] - 1
        steps = logits[:, first : first + len(answer)].log_softmax(-1)
        return sum(steps[:, i, token] for i, token in enumerate(answer))

    return function


def left_padded(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    gap = first.shape[1] - second.shape[1]
    ids = torch.cat([first, torch.cat([torch.zeros(1, gap, dtype=torch.long), second], 1)])
    mask = torch.ones_like(ids)
    mask[1, :gap] = 0
    return ids, mask


@pytest.mark.parametrize("name", CAUSAL)
def test_a_continuation_of_causal_models_with_padding_on_the_left(name: str) -> None:
    model = tiny(name)
    texts = [ids_of(7), ids_of(4, 1)]
    ids, mask = left_padded(*texts)
    result = ig.text.explain_ids(model, ids, attention_mask=mask, target=ig.text.Continuation(ANSWER), baseline="mean", keep="first", rule=RULE)  # fmt: skip
    for i, text in enumerate(texts):
        end = embedded(model, text)
        start = mean_of(model).expand_as(end).clone()
        start[:, 0] = end[:, 0]
        function = log_probability(model, ANSWER)
        truth = integral(function, start, end)[0].sum(-1)
        torch.testing.assert_close(result.scores[i], truth, rtol=1e-6, atol=1e-6 * float(truth.abs().max()))  # fmt: skip
        torch.testing.assert_close(result.attribution.output[i], function(end)[0])
        torch.testing.assert_close(result.attribution.base[i], function(start)[0])
        assert float(truth.abs().max()) > 1e-3
        assert float(result.scores[i][0]) == 0
    assert bool((result.attribution.values[1, :3] == 0).all())


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2-classes"])
def test_a_class_with_padding_on_either_side(name: str) -> None:
    model = tiny(name)
    texts = [ids_of(7), ids_of(4, 1)]
    ids, mask = left_padded(*texts)
    right = torch.stack([ids[0], ids[1].roll(4)])
    results = [
        ig.text.explain_ids(model, padded, attention_mask=m, target=1, baseline="mean", rule=RULE)
        for padded, m in ((ids, mask), (right, mask.flip(1)))
    ]

    def function(vectors: Tensor) -> Tensor:
        positions = torch.arange(vectors.shape[1])[None] + (2 if name == "roberta" else 0)
        if name == "gpt2-classes":  # the head of what is seen at the last token
            return model.score(model.transformer(inputs_embeds=vectors).last_hidden_state[:, -1])[
                :, 1
            ]
        positions = positions.expand(len(vectors), -1)
        return model(inputs_embeds=vectors, position_ids=positions).logits[:, 1]

    for i, text in enumerate(texts):
        end = embedded(model, text)
        truth = integral(function, mean_of(model).expand_as(end), end)[0].sum(-1)
        for result in results:
            torch.testing.assert_close(result.scores[i], truth, rtol=1e-6, atol=1e-6 * float(truth.abs().max()))  # fmt: skip
    assert model.config.pad_token_id == (None if name == "gpt2-classes" else tiny(name).config.pad_token_id)  # fmt: skip


def test_an_encoder_decoder() -> None:
    model = tiny("t5")
    texts = [ids_of(6), ids_of(4, 1)]
    others = [ids_of(6, 5), ids_of(4, 6)]  # the mean is close to zero here, where it is normalised
    ids, mask = left_padded(*texts)
    corrupt = ig.text.Corrupt([other[0].tolist() for other in others])
    result = ig.text.explain_ids(model, ids, attention_mask=mask, target=ig.text.Continuation(ANSWER), baseline=corrupt, rule=RULE)  # fmt: skip
    reads = torch.tensor([[0, *ANSWER[:-1]]])

    def function(vectors: Tensor) -> Tensor:
        read = reads.expand(len(vectors), -1)
        steps = model(inputs_embeds=vectors, decoder_input_ids=read).logits.log_softmax(-1)
        return sum(steps[:, i, token] for i, token in enumerate(ANSWER))

    for i, (text, other) in enumerate(zip(texts, others, strict=True)):
        end = embedded(model, text)
        truth = integral(function, embedded(model, other), end)[0].sum(-1)
        torch.testing.assert_close(result.scores[i], truth, rtol=1e-6, atol=1e-6 * float(truth.abs().max()))  # fmt: skip


def test_the_token_at_a_mask_and_the_label_of_a_token() -> None:
    text = ids_of(6)
    for name, target, score in (
        ("bert-masked", ig.text.MaskedToken(11, position=2), lambda o: o.log_softmax(-1)[:, 2, 11]),
        ("bert-tags", ig.text.TokenLabel(3, 1), lambda o: o[:, 3, 1]),
    ):
        model = tiny(name)
        result = ig.text.explain_ids(model, text, target=target, baseline="mean", rule=RULE)
        end = embedded(model, text)
        truth = integral(
            lambda v, m=model, s=score: s(m(inputs_embeds=v).logits),
            mean_of(model).expand_as(end),
            end,
        )[0].sum(-1)
        torch.testing.assert_close(result.scores[0], truth, rtol=1e-6, atol=1e-7)


def test_log_odds_of_continuations_of_different_length() -> None:
    model, text, other = tiny("llama"), ids_of(5), (40,)
    target = ig.text.Continuation(ANSWER, against=other)
    result = ig.text.explain_ids(
        model, text, target=target, baseline="mean", keep="first", rule=RULE
    )
    end = embedded(model, text)
    start = mean_of(model).expand_as(end).clone()
    start[:, 0] = end[:, 0]

    def function(vectors: Tensor) -> Tensor:
        return log_probability(model, ANSWER)(vectors) - log_probability(model, other)(vectors)

    truth = integral(function, start, end)[0].sum(-1)
    torch.testing.assert_close(result.scores[0], truth, rtol=1e-6, atol=1e-7)
    # Those that differ in their last token only are asked about in one pass.
    short = ig.text.explain_ids(model, text, target=ig.text.Continuation((7, 30), against=(7, 31)), baseline="mean", rule=RULE)  # fmt: skip
    separate = [
        ig.text.explain_ids(
            model, text, target=ig.text.Continuation(words), baseline="mean", rule=RULE
        )
        for words in ((7, 30), (7, 31))
    ]
    torch.testing.assert_close(short.scores[0], separate[0].scores[0] - separate[1].scores[0])


def test_a_span_of_the_text_is_explained_by_what_stands_before_it() -> None:
    model = tiny("qwen3")
    text = ids_of(5)
    whole = torch.cat([text, torch.tensor([ANSWER])], 1)
    span = ig.text.explain_ids(model, whole, target=ig.text.Span(5, 8), baseline="mean", rule=RULE)
    behind = ig.text.explain_ids(model, text, target=ig.text.Continuation(ANSWER), baseline="mean", rule=RULE)  # fmt: skip
    torch.testing.assert_close(span.scores[0][:5], behind.scores[0])
    assert span.scores[0][5:].tolist() == [0, 0, 0]
    assert span.kept[0] == (False,) * 5 + (True,) * 3


@pytest.mark.parametrize("name", ["gpt2", "gemma3"])
def test_each_token_of_the_target_by_itself(name: str) -> None:
    model, text = tiny(name), ids_of(5)
    result = ig.text.explain_ids(model, text, target=ig.text.Continuation(ANSWER), baseline="mean", per_token=True, rule=RULE)  # fmt: skip
    (matrix,) = result.matrix
    assert matrix.shape == (3, 5)
    for i in range(3):
        # log p(y_i | prompt, y_<i) = log p(y_≤i | prompt) − log p(y_<i | prompt)
        end = embedded(model, text)

        def function(vectors: Tensor, i: int = i) -> Tensor:
            longer = log_probability(model, ANSWER[: i + 1])(vectors)
            return longer - log_probability(model, ANSWER[:i])(vectors) if i else longer

        truth = integral(function, mean_of(model).expand_as(end), end)[0].sum(-1)
        torch.testing.assert_close(matrix[i], truth, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(matrix.sum(0), result.scores[0])
    summed = result.attribution
    torch.testing.assert_close(summed.values.sum((1, 2)) + summed.residual, summed.output - summed.base)  # fmt: skip
    # One forward pass of every node for all three.
    assert summed.cost.values <= 192 + 8


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_a_batch_is_what_single_runs_are(name: str) -> None:
    model = tiny(name)
    target: Any = 1 if name == "bert" else ig.text.Continuation(ANSWER)
    lengths = [6, 3, 9, 4]
    texts = [ids_of(n, n) for n in lengths]
    ids = torch.stack([torch.cat([torch.zeros(9 - n, dtype=torch.long), t[0]]) for n, t in zip(lengths, texts, strict=True)])  # fmt: skip
    mask = torch.stack([(torch.arange(9) >= 9 - n).long() for n in lengths])
    batch = ig.text.explain_ids(model, ids, attention_mask=mask, target=target, baseline="mean")
    for i, text in enumerate(texts):
        single = ig.text.explain_ids(model, text, target=target, baseline="mean")
        torch.testing.assert_close(batch.scores[i], single.scores[0], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(batch.attribution.error[i], single.attribution.error[0])
        assert bool((batch.attribution.values[i][mask[i] == 0] == 0).all())


def test_padding_between_tokens_stays_where_it_is() -> None:
    model = tiny("bert")
    ids, mask = ids_of(6), torch.tensor([[1, 1, 0, 1, 1, 1]])
    result = ig.text.explain_ids(model, ids, attention_mask=mask, target=0, baseline="mean", rule=RULE)  # fmt: skip
    end = embedded(model, ids)
    start = mean_of(model).expand_as(end).clone()
    start[:, 2] = end[:, 2]
    truth = integral(
        lambda v: model(inputs_embeds=v, attention_mask=mask.expand(len(v), -1)).logits[:, 0],
        start,
        end,
    )
    torch.testing.assert_close(result.attribution.values, truth, rtol=1e-6, atol=1e-9)


def test_a_callable_sees_outputs_where_the_ids_were() -> None:
    model = tiny("llama")
    texts = [ids_of(6), ids_of(4, 1)]
    ids, mask = left_padded(*texts)
    result = ig.text.explain_ids(model, ids, attention_mask=mask, target=lambda out: out.logits[:, -1, 5], baseline="mean", rule=RULE)  # fmt: skip
    named = ig.text.explain_ids(model, ids, attention_mask=mask, target=ig.text.NextToken(5, score="logit"), baseline="mean", rule=RULE)  # fmt: skip
    for i in range(2):
        torch.testing.assert_close(result.scores[i], named.scores[i])
