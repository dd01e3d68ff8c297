"""Tuples and dicts of inputs, as one tensor and back."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import pytest
import torch

import integrand as ig
from integrand.model.layout import Layout
from tests.problems import wave

LEFT, RIGHT = wave(2, 4), wave(2, 3, 5, phase=1)


def test_a_single_tensor_keeps_its_shape() -> None:
    layout = Layout.of(RIGHT)
    assert torch.equal(layout.pack(RIGHT), RIGHT)
    assert torch.equal(layout.unpack(RIGHT), RIGHT)


@pytest.mark.parametrize(
    "inputs",
    [
        (LEFT, RIGHT),
        [LEFT, RIGHT],
        {"left": LEFT, "right": RIGHT},
        UserDict(left=LEFT, right=RIGHT),
    ],
    ids=["tuple", "list", "dict", "mapping"],
)
def test_several_tensors_are_laid_end_to_end(inputs: Any) -> None:
    layout = Layout.of(inputs)
    packed = layout.pack(inputs)
    assert torch.equal(packed, torch.cat([LEFT, RIGHT.flatten(1)], 1))
    back = layout.unpack(packed)
    named = hasattr(inputs, "items")
    assert type(back) is (dict if named else tuple)
    left, right = (back["left"], back["right"]) if named else back
    assert torch.equal(left, LEFT)
    assert torch.equal(right, RIGHT)
    stacked = layout.unpack(packed.expand(3, -1, -1), 2)
    assert (stacked["right"] if named else stacked[1]).shape == (3, 2, 3, 5)


def test_a_part_of_one_number_per_example() -> None:
    scalar = wave(2)
    layout = Layout.of((LEFT, scalar))
    packed = layout.pack((LEFT, scalar))
    assert packed.shape == (2, 5)
    assert torch.equal(layout.unpack(packed)[1], scalar)


@pytest.mark.parametrize(
    ("dtypes", "state"),
    [
        ((torch.float16, torch.float16), torch.float32),
        ((torch.bfloat16, torch.float32), torch.float32),
        ((torch.float32, torch.float64), torch.float64),
    ],
)
def test_types(dtypes: Any, state: torch.dtype) -> None:
    inputs = tuple(t.to(dtype) for t, dtype in zip((LEFT, RIGHT), dtypes, strict=True))
    layout = Layout.of(inputs)
    packed = layout.pack(inputs)
    assert packed.dtype == state
    assert [t.dtype for t in layout.unpack(packed, model=True)] == list(dtypes)
    assert [t.dtype for t in layout.unpack(packed)] == [state] * 2
    assert all(
        torch.equal(a, b) for a, b in zip(layout.unpack(packed, model=True), inputs, strict=True)
    )


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (
            "text",
            ig.errors.InputError,
            "a tensor with a batch axis, a tuple or a dict of them; got str",
        ),
        ([1.0, 2.0], ig.errors.InputError, "Input 0 is a float, not a tensor"),
        ({"a": LEFT, "b": None}, ig.errors.InputError, "Input 'b' is a NoneType, not a tensor"),
        (
            torch.tensor(1.0),
            ig.errors.ShapeError,
            r"Input has shape \(\): .* add it with x\[None\]",
        ),
        (
            torch.zeros(0, 3),
            ig.errors.ShapeError,
            "Input has shape 0x3: the first axis is the batch",
        ),
        ((), ig.errors.InputError, "[Nn]o inputs|at least one|empty"),
        ((LEFT, RIGHT[:1]), ig.errors.ShapeError, "same batch size, but the shapes are 2x4, 1x3x5"),
        (
            torch.zeros(2, 3, dtype=torch.uint8),
            ig.errors.IntegerInput,
            r"Input holds uint8, .* \.float\(\); .* extra=; .* embeddings",
        ),
        (
            {"ids": torch.zeros(2, 3, dtype=torch.long)},
            ig.errors.IntegerInput,
            "Input 'ids' holds int64",
        ),
        (torch.zeros(2, 3, dtype=torch.bool), ig.errors.IntegerInput, "holds bool"),
    ],
)
def test_refused(inputs: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        Layout.of(inputs)


def test_complex_inputs() -> None:
    """Complex numbers are not the integers that the message is about."""
    with pytest.raises(ig.errors.InputError) as caught:
        Layout.of(torch.zeros(2, 3, dtype=torch.complex64))
    assert "complex" in str(caught.value)
