"""Texts explained by several threads at once, and models that were compiled."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import nn

import integrand as ig
from integrand.text.models import language_model
from tests.text.tiny import byte_tokenizer, tiny

RULE = ig.rules.GaussLegendre(2)
pytestmark = pytest.mark.filterwarnings("ignore::integrand.errors.IncompleteWarning")


def test_vectors_are_those_of_the_ids_while_another_thread_explains() -> None:
    """Between the hook that hands other vectors on and the run that it is for, another thread may look up
    its own."""
    model = language_model(tiny("llama"))
    ids = torch.tensor([[5, 6, 7]])
    expected = model.vectors(ids)
    looked_up: list[torch.Tensor] = []
    other = threading.Thread(target=lambda: looked_up.append(model.vectors(ids)))

    class Runs(nn.Module):
        """Has the other thread look up at the worst moment."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = model.module

        def forward(self, input_ids: torch.Tensor) -> Any:
            if not other.ident:
                other.start()
                other.join(0.2)
            return self.inner(input_ids)

    around = language_model(Runs(), model.embedding)
    with ig.model.borrowed.borrowed(around.module):
        outputs = around.run(torch.zeros_like(expected), ids, {})
    other.join()
    assert torch.equal(looked_up[0], expected)
    moved = model.module(inputs_embeds=torch.zeros_like(expected)).logits
    assert torch.equal(outputs.logits, moved)


def test_two_threads_with_padding_that_the_model_does_not_know() -> None:
    """Its configuration knows the id of padding for the time of an explanation, whichever thread is done
    first."""
    model, tokenizer = tiny("gpt2-classes"), byte_tokenizer()
    model.config.pad_token_id = None
    texts = ["The capital of France is", "Rome is old. Paris is"]

    def scores(text: str) -> torch.Tensor:
        return ig.text.explain(model, tokenizer, text, target=1, rule=RULE).scores[0]

    expected = [scores(text) for text in texts]
    results: list[tuple[int, torch.Tensor]] = []

    def go(number: int) -> None:
        for _ in range(4):
            results.append((number, scores(texts[number])))

    threads = [threading.Thread(target=go, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all(torch.equal(found, expected[number]) for number, found in results)
    assert model.config.pad_token_id is None


def test_a_compiled_model_is_the_one_that_was_compiled() -> None:
    model, tokenizer = tiny("llama"), byte_tokenizer()
    of = {"target": " Paris", "rule": RULE}
    expected = ig.text.explain(model, tokenizer, "The capital of France is", **of)
    compiled = torch.compile(model, backend="eager")
    found = ig.text.explain(compiled, tokenizer, "The capital of France is", **of)
    assert torch.equal(found.scores[0], expected.scores[0])
