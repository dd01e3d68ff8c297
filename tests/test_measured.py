"""What cards say that a method costs was counted, and still is what it costs."""

from __future__ import annotations

import itertools

import pytest
import torch

import integrand as ig
from integrand.methods import registry
from scripts import measured_costs


@pytest.mark.parametrize("name", list(ig.methods.known()))
def test_what_is_written_down_is_what_it_takes(name: str) -> None:
    found = measured_costs.counted([name]).get(name)
    measured = ig.methods.about(name).measured
    assert found == (measured and {"gradients": measured.gradients, "values": measured.values}), (
        "count again: make docs"
    )
    assert measured is not None, f"say in scripts/measured_costs.py what {name} needs"


def test_a_method_that_nobody_counted_says_so(monkeypatch) -> None:
    monkeypatch.setattr(registry, "_measured", lambda: {"problem": "", "methods": {}})
    assert ig.methods.about("guided").measured is None


def test_the_problem_is_what_the_cards_say() -> None:
    assert ig.methods.counted_on() == measured_costs.PROBLEM


def test_the_model_is_sure_and_black_is_not() -> None:
    """Else methods that look for a decision would find none, and cost nothing."""
    image = measured_costs.images(1, 0.5)
    with torch.no_grad():
        sure, blank = (
            measured_costs.network()(torch.cat([image, 0 * image])).softmax(1).amax(1).tolist()
        )
    assert sure > 0.5
    assert blank == pytest.approx(0.1)


def test_families_are_the_first_words_of_their_files() -> None:
    families = [one.family for one in ig.methods.known().values()]
    assert all(families)
    # In the catalogue, those of a family stand together.
    assert len(set(families)) == 1 + sum(a != b for a, b in itertools.pairwise(families))
