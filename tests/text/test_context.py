"""What depends on a context, by leaving it out, against forward passes written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import integrand as ig
from tests.text.tiny import byte_tokenizer, tiny

SOURCES = ["Rome is old.", "Paris is big!"]
PROMPT = f"{SOURCES[0]} {SOURCES[1]} What is this?"
ANSWER = " Paris, in"


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    return tiny("llama"), byte_tokenizer()


def log_probabilities(pair: tuple[Any, Any], prompt: str, answer: list[int]) -> Tensor:
    model, tokenizer = pair
    ids = tokenizer(prompt)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([[*ids, *answer]])).logits[0].log_softmax(-1)
    return logits[len(ids) - 1 : len(ids) - 1 + len(answer)]


def test_the_divergence_of_each_token_of_an_answer(pair: tuple[Any, Any]) -> None:
    answer = pair[1](ANSWER, add_special_tokens=False)["input_ids"]
    result = ig.text.context_dependence(*pair, PROMPT, "What is this?", target=ANSWER)
    first, second = (log_probabilities(pair, text, answer) for text in (PROMPT, "What is this?"))
    for i, token in enumerate(answer):
        kl = sum(float(p.exp() * (p - q)) for p, q in zip(first[i], second[i], strict=True))
        assert float(result.divergence[i]) == pytest.approx(kl)
        assert float(result.log_probabilities[i]) == pytest.approx(float(first[i, token]))
        assert float(result.without[i]) == pytest.approx(float(second[i, token]))
    assert result.tokens == (" Paris", ",", " in")
    least = float(result.divergence.min())
    assert result.sensitive(least) == [i for i in range(3) if float(result.divergence[i]) > least]


def test_a_source_that_is_taken_out(pair: tuple[Any, Any]) -> None:
    answer = pair[1](ANSWER, add_special_tokens=False)["input_ids"]
    drops = ig.text.without_sources(*pair, PROMPT, SOURCES, target=ANSWER)

    def total(prompt: str) -> float:
        steps = log_probabilities(pair, prompt, answer)
        return float(sum(steps[i, token] for i, token in enumerate(answer)))

    expected = [total(PROMPT) - total(f"{SOURCES[1 - k]} What is this?") for k in range(2)]
    assert drops.tolist() == pytest.approx(expected)


def test_classifiers_have_no_answers(pair: tuple[Any, Any]) -> None:
    with pytest.raises(ig.errors.TargetError, match="models that write texts"):
        ig.text.without_sources(tiny("bert"), pair[1], PROMPT, SOURCES)
