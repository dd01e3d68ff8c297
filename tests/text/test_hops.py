"""Hops: every step of a reasoning by what stands before it, against dense quadrature written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
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
