"""Hops: every step of a reasoning by what stands before it, against dense quadrature written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import processors
from torch import Tensor

import integrand as ig
from tests.text.tiny import byte_tokenizer, tiny

PROMPT = "Rome is old. Paris is big!"
STEPS = [" France is big.", " What is old?", " Rome"]
pytestmark = pytest.mark.filterwarnings("ignore::integrand.errors.IncompleteWarning")


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    return tiny("llama", scale=2.0), byte_tokenizer()


@pytest.fixture(scope="module")
def hops(pair: tuple[Any, Any]) -> ig.text.Hops:
    return ig.text.explain_hops(*pair, PROMPT, STEPS, rule=ig.rules.GaussLegendre(24))


def dense(model: Any, ids: list[int], first: int, column: int | None = None, nodes: int = 24) -> Tensor:  # fmt: skip
    """What each token before ``first`` contributed to the log-probability of those from there on; or of one of them."""
    table = model.get_input_embeddings().weight.detach()
    x = table[torch.tensor(ids)]
    start = x.clone()
    start[1:first] = table.mean(0)  # the first is special, and stays
    points, weights = np.polynomial.legendre.leggauss(nodes)
    total = torch.zeros_like(x)
    for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
        z = (start + point * (x - start)).requires_grad_()
        logs = model(inputs_embeds=z[None]).logits[0].log_softmax(-1)
        steps = torch.stack([logs[i - 1, ids[i]] for i in range(first, len(ids))])
        f = steps.sum() if column is None else steps[column]
        total += weight * torch.autograd.grad(f, z)[0]
    return ((x - start) * total).sum(-1)


def test_every_step_is_explained_by_what_stands_before_it(pair: tuple[Any, Any], hops: ig.text.Hops) -> None:  # fmt: skip
    model, tokenizer = pair
    texts = [PROMPT + "".join(STEPS[:k]) for k in range(4)]
    ids = [tokenizer(text)["input_ids"] for text in texts]
    assert hops.starts == tuple(map(len, ids[:3]))
    assert hops.names == ("prompt", "step 1", "step 2", "answer")
    bounds = [0, *map(len, ids)]
    for k in range(3):
        expected = dense(model, ids[k + 1], len(ids[k]))
        scores = hops[k].by("token").scores[0]
        torch.testing.assert_close(scores, expected, rtol=1e-6, atol=1e-7)
        sums = [float(expected[bounds[j] : bounds[j + 1]].sum()) for j in range(k + 1)]
        assert hops.credit[k].tolist() == pytest.approx(sums + [0.0] * (2 - k), abs=1e-6)
    change = torch.stack([hop.attribution.output[0] - hop.attribution.base[0] for hop in hops])
    missed = torch.stack([hop.attribution.residual[0] for hop in hops])
    torch.testing.assert_close(hops.credit.sum(1) + missed, change)
    assert hops.gap.tolist() == [float(hop.attribution.gap[0]) for hop in hops]
    assert hops.error.shape == (3,)


def test_what_the_prompt_contributed_through_the_steps(pair: tuple[Any, Any], hops: ig.text.Hops) -> None:  # fmt: skip
    model, tokenizer = pair
    ids = [tokenizer(PROMPT + "".join(STEPS[:k]))["input_ids"] for k in range(4)]
    credit = dense(model, ids[3], len(ids[2])).tolist()
    for k in (1, 0):  # the last step first
        first = len(ids[k])
        for j in reversed(range(first, len(ids[k + 1]))):
            row = dense(model, ids[k + 1], first, column=j - first).tolist()
            size = sum(map(abs, row[:first]))
            for i in range(first):
                credit[i] += credit[j] * row[i] / size
    expected = torch.tensor(credit[: len(ids[0])], dtype=torch.float64)
    torch.testing.assert_close(hops.chained_scores, expected, rtol=1e-6, atol=1e-8)
    words = hops.chained()
    assert [word.text for word in words] == ["<s>", *PROMPT.split()]
    assert sum(word.score for word in words) == pytest.approx(float(expected.sum()))


def test_how_it_reads(hops: ig.text.Hops) -> None:
    lines = str(hops).splitlines()
    assert lines[0].split() == ["prompt", "step", "1", "step", "2", "gap", "error"]
    assert [line.split("  ")[0].strip() or line.split()[0] for line in lines[1:]][-1] == "answer"
    assert repr(hops).startswith("<Hops of 2 steps and an answer, worst gap ")


def test_an_answer_alone_is_a_single_map(pair: tuple[Any, Any]) -> None:
    rule = ig.rules.GaussLegendre(6)
    hops = ig.text.explain_hops(*pair, PROMPT, [" Rome"], rule=rule, granularity="token")
    single = ig.text.explain(*pair, PROMPT, target=" Rome", rule=rule)
    count = len(single.scores[0])
    torch.testing.assert_close(hops[0].scores[0][:count], single.scores[0])
    torch.testing.assert_close(hops.chained_scores, single.scores[0].double())


def test_chats(pair: tuple[Any, Any]) -> None:
    model, tokenizer = pair
    chat = [{"role": "user", "content": "Is Rome old?"}]
    rule = ig.rules.GaussLegendre(6)
    hops = ig.text.explain_hops(model, tokenizer, chat, [" Rome is old.", " yes"], rule=rule)
    single = ig.text.explain(model, tokenizer, chat, target=" Rome is old.", rule=rule)
    (scores,) = hops[0].by("token").scores
    count = len(single.scores[0])
    assert hops.starts[0] == count
    torch.testing.assert_close(scores[:count], single.scores[0])
    assert hops[0].kept[0][:count] == single.kept[0]  # the template stays as it is


LINES = [" France is big.\n", " What is old?\n", "\n", " Rome"]
FEW = ig.rules.GaussLegendre(3)


def trimmed() -> Any:
    """A tokenizer that leaves space out of its offsets, and puts a token behind every text."""
    tokenizer = byte_tokenizer()
    ends = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])  # fmt: skip
    tokenizer.backend_tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=True), ends]
    )
    return tokenizer


@pytest.mark.parametrize("ends", ["", "\n"])
def test_tokens_of_space_are_in_the_step_they_were_written_in(pair: tuple[Any, Any], ends: str) -> None:  # fmt: skip
    model, tokenizer = pair
    prompt = PROMPT + ends
    ids = [tokenizer(prompt + "".join(LINES[:k]))["input_ids"] for k in range(5)]
    for which in (tokenizer, trimmed()):
        hops = ig.text.explain_hops(model, which, prompt, LINES, rule=FEW, granularity="source")
        assert hops.starts == tuple(map(len, ids[:4]))
        for k in range(4):
            assert list(hops[k].texts[0].ids) == ids[k + 1]
            logs = model(torch.tensor([ids[k + 1]])).logits[0].log_softmax(-1).detach()
            expected = sum(float(logs[i - 1, ids[k + 1][i]]) for i in range(len(ids[k]), len(ids[k + 1])))  # fmt: skip
            assert float(hops[k].attribution.output[0]) == pytest.approx(expected)
            by_source = hops[k].scores[0][: k + 1].tolist()
            assert by_source == pytest.approx(hops.credit[k, : k + 1].tolist())


def test_targets_that_begin_with_a_token_of_space(pair: tuple[Any, Any]) -> None:
    model, tokenizer = pair
    ids = tokenizer(PROMPT + " What")["input_ids"]
    first = len(tokenizer(PROMPT)["input_ids"])
    assert tokenizer.convert_ids_to_tokens(ids)[first] == "Ġ"
    prompt = trimmed()(PROMPT)["input_ids"]  # with what stands behind it
    logs = model(torch.tensor([prompt + ids[first:]])).logits[0].log_softmax(-1).detach()
    start = len(prompt)
    expected = sum(float(logs[start + t - 1, token]) for t, token in enumerate(ids[first:]))
    result = ig.text.explain(model, trimmed(), PROMPT, target=" What", rule=FEW)
    assert float(result.attribution.output[0]) == pytest.approx(expected)


def test_kept_tokens_are_those_of_the_prompt(pair: tuple[Any, Any]) -> None:
    _, tokenizer = pair
    count = len(tokenizer(PROMPT)["input_ids"])
    mask = torch.arange(count) < 2
    mask[-1] = True
    kept = [0, 1, count - 1]
    for keep in (mask, mask.tolist(), [0, 1, -1], kept):
        hops = ig.text.explain_hops(*pair, PROMPT, STEPS, rule=FEW, keep=keep)
        for k in range(3):
            moved = [i for i, stays in enumerate(hops[k].kept[0]) if not stays]
            assert moved == [i for i in range(hops.starts[k]) if i not in kept]
    single = ig.text.explain(*pair, PROMPT, target=STEPS[0], rule=FEW, keep=mask)
    torch.testing.assert_close(hops[0].by("token").scores[0][:count], single.scores[0])


def test_what_is_said_before_any_gradient(pair: tuple[Any, Any]) -> None:
    with pytest.raises(ig.errors.UnknownName, match="'lines'"):
        ig.text.explain_hops(*pair, PROMPT, STEPS, granularity="lines")
    with pytest.raises(ig.errors.InputError, match="A mask of kept tokens"):
        ig.text.explain_hops(*pair, PROMPT, STEPS, keep=torch.tensor([True, False]))
    with pytest.raises(ig.errors.InputError, match=r"begins within a token|tokens of the prompt are others"):  # fmt: skip
        ig.text.explain_hops(pair[0], trimmed(), PROMPT + " ", ["is"])


def test_bad_steps(pair: tuple[Any, Any]) -> None:
    for steps in ([], " Rome"):
        with pytest.raises(ig.errors.InputError, match="steps= is a list of texts, the answer the last"):  # fmt: skip
            ig.text.explain_hops(*pair, PROMPT, steps)
    with pytest.raises(ig.errors.InputError, match="The text is empty"):
        ig.text.explain_hops(*pair, PROMPT, [" Rome", ""])
    with pytest.raises(ig.errors.TargetError, match="Hops are steps of causal language models"):
        ig.text.explain_hops(tiny("bert"), pair[1], PROMPT, STEPS)
    with pytest.raises(ig.errors.InputError, match=r"begins? within a token|tokens of the prompt are others"):  # fmt: skip
        ig.text.explain_hops(*pair, "The capital of Fra", ["nce is", " Paris"])


@pytest.mark.parametrize("method", ["expected", "smoothgrad"])
def test_a_seed_makes_hops_what_they_are(pair: tuple[Any, Any], method: str) -> None:
    """Each hop is the explanation of its words with that seed, and another seed is another."""
    options: dict[str, Any] = {"method": method, "baseline": ig.text.Sampled(4)}
    options |= {"draws": 8, "tol": None} if method == "expected" else {"rule": ig.rules.Midpoint(4)}
    one, same, other = (
        ig.text.explain_hops(*pair, PROMPT, STEPS[1:], seed=seed, granularity="token", **options)
        for seed in (1, 1, 2)
    )
    assert torch.equal(one.credit, same.credit)
    assert torch.equal(one.chained_scores, same.chained_scores)
    assert float((one.credit - other.credit).abs().max()) > 1e-4
    alone = ig.text.explain(*pair, PROMPT, target=STEPS[1], seed=1, **options)
    torch.testing.assert_close(one[0].scores[0][: len(alone.scores[0])], alone.scores[0])
