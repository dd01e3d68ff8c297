"""Baselines that leave some positions as they are."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import integrand as ig
from integrand import testing
from tests.problems import filled, wave

X = wave(3, 4, 2, phase=0.3)  # three sentences of four words of two numbers
FIELD = ig.fields.Function(lambda z: torch.tanh(z.flatten(1)).sum(1))


def kept_by_hand(x: Tensor, baseline: Tensor, keeps: Any) -> Tensor:
    made = baseline.clone()
    for r in range(len(made)):
        for b in range(len(x)):
            for n in range(x.shape[1]):
                if keeps(b, n):
                    made[r, b, n] = x[b, n]
    return made


MASK = torch.tensor([[True, False, True, False], [False] * 4, [True] * 4])


@pytest.mark.parametrize(
    ("positions", "keeps"),
    [
        ((0, -1), lambda b, n: n in (0, 3)),
        ([2], lambda b, n: n == 2),
        (range(4), lambda b, n: True),
        ((), lambda b, n: False),
        (torch.tensor([1, 1, -3]), lambda b, n: n == 1),
        (torch.tensor([False, True, False, True]), lambda b, n: n in (1, 3)),
        (MASK, lambda b, n: bool(MASK[b, n])),
        ((True, False, False, True), lambda b, n: n in (0, 3)),
    ],
)
def test_kept(positions: Any, keeps: Any) -> None:
    references = wave(2, 3, 4, 2, phase=5)
    found = ig.baselines.Masked(ig.baselines.Given(references), positions)(X, FIELD)
    assert torch.equal(found, kept_by_hand(X, references, keeps))
    testing.check_baseline(
        ig.baselines.Masked(0.25, positions if positions is not MASK else MASK[0]), X
    )


def test_a_mask_of_single_numbers() -> None:
    mask = wave(3, 4, 2, phase=2) > 0
    found = ig.baselines.Masked(torch.tensor([0.5, -0.5]).double(), mask)(X, FIELD)
    assert torch.equal(found[0], torch.where(mask, X, torch.tensor([0.5, -0.5]).double()))


@given(st.lists(st.integers(-6, 5), max_size=6), st.sampled_from([(), (3,), (2, 2)]))
def test_any_positions(positions: list[int], inner: tuple[int, ...]) -> None:
    x = wave(2, 6, *inner, phase=1)
    found = ig.baselines.Masked(9.0, positions)(x, FIELD)
    same = (found[0] == x).reshape(2, 6, -1).all(2)
    expected = torch.zeros(6, dtype=torch.bool)
    expected[[p % 6 for p in positions]] = True
    assert torch.equal(same, expected.expand(2, 6))


def test_it_is_one_baseline_or_several() -> None:
    assert ig.baselines.Masked(0.0, (0,)).count == 1
    assert ig.baselines.Masked(0.0, (0,)).label == "constant"
    several = ig.baselines.Masked([0.0, ig.baselines.Constant(1.0, "ones")], (0,))
    assert several.count == 2
    assert ig.baselines.Masked(lambda x, field: x[None], (0,)).count is None
    assert repr(ig.baselines.Masked(0.0, (0, -1))) == "Masked(0.0, (0, -1))"
    model = filled(nn.Sequential(nn.Flatten(), nn.Linear(8, 3)))
    made = ig.explain(model, X, target=0, method=ig.methods.integrated(several))
    assert bool((made.values[:, 0] == 0).all())
    assert bool((made.values[:, 1:] != 0).all())
    assert len(made.names) == 2


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (
            (0, 4),
            r"no position 4 to keep: an example of shape 4x2 has 4 .* numbered 0 to 3, or -4 to -1 from the end",
        ),
        ((-5,), r"no position -5 to keep"),
        ((0.5,), r"whole numbers or a mask of booleans, not torch.float32"),
        (
            [True, False],
            r"mask of shape 2 does not fit inputs of shape 3x4x2: it is 4 for all examples, or 3x4 with",
        ),
        (torch.ones(2, 4, dtype=torch.bool), r"mask of shape 2x4 does not fit"),
        (torch.ones(3, 4, 2, 1, dtype=torch.bool), r"mask of shape 3x4x2x1 does not fit"),
        (torch.tensor(True), r"mask of shape \(\) does not fit"),
    ],
)
def test_what_does_not_fit(positions: Any, message: str) -> None:
    with pytest.raises(ig.errors.BaselineError, match=message):
        ig.baselines.Masked(0.0, positions)(X, FIELD)


def test_other_mistakes() -> None:
    with pytest.raises(ig.errors.BaselineError, match=r"not the name 'black'"):
        ig.baselines.Masked("black", (0,))
    with pytest.raises(ig.errors.BaselineError, match=r"holds NaN"):
        ig.baselines.Masked(math.nan, (0,))(X, FIELD)
    with pytest.raises(ig.errors.BaselineError, match=r"no position 0"):
        ig.baselines.Masked(0.0, (0,))(torch.ones(3), ig.fields.Function(lambda z: z))
