"""Models that raise on rows they never expected: the chained error says what the call was, and what to try."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import integrand as ig
from integrand.errors import DetachedModel, ModelError, TargetError
from tests.problems import filled, tanh_mlp, wave

X = wave(3, 4)
LINEAR = filled(nn.Linear(4, 2))
LSTM = nn.LSTM(4, 2, batch_first=True).double()
PICTURES = nn.Sequential(
    nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(-3), nn.Linear(4, 5)
).double()
EIGHT = ig.rules.GaussLegendre(8)


def by_length(z: Tensor, lengths: Tensor) -> Tensor:
    out: Tensor = LSTM(pack_padded_sequence(z, lengths, batch_first=True))[1][0][-1]
    return out


def fails(z: Tensor) -> Tensor:
    raise KeyError("no such thing")


CASES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "its own error": (lambda: ig.explain(fails, X, target=0, rule=EIGHT), KeyError, r"failed on 24 rows of shape 4, .*your 3 examples, with KeyError"),
    "sorted lengths": (
        lambda: ig.explain(by_length, wave(3, 6, 4), target=0, extra=(torch.tensor([6, 4, 2]),), rule=EIGHT),
        RuntimeError,
        "of shape 6x4.*enforce_sorted=False.*batch_size=1",
    ),
    "one list": (lambda: ig.explain(lambda xs: LINEAR(xs[0]) + LINEAR(xs[1]), [X, X], target=0), TypeError, r"inputs 0 4, 1 4.*lambda \*xs: model\(list\(xs\)\)"),
    "inputs by name": (
        lambda: ig.explain(lambda a, b: fails(a), {"a": X, "b": wave(3, 2, 5)}, target=0, rule=EIGHT),
        KeyError,
        "24 rows of inputs 'a' 4, 'b' 2x5",
    ),
    "one picture": (lambda: ig.explain(PICTURES, wave(3, 16, 16), target=0), RuntimeError, r"one picture with 3 channels.*x\[None\]"),
    "another type": (lambda: ig.explain(LINEAR, X.float(), target=0), RuntimeError, r"x\.float\(\)"),
    "one row": (lambda: ig.explain(fails, X, target=0, rule=EIGHT, batch_size=1), KeyError, "failed on 1 row of shape 4"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_error_says_what_the_call_was(name: str) -> None:
    call, cause, message = CASES[name]
    with pytest.raises(ModelError, match=message) as caught:
        call()
    assert isinstance(caught.value.__cause__, cause)


def test_numpy_inside_is_not_differentiable() -> None:
    with pytest.raises(DetachedModel, match="leaves torch for NumPy") as caught:
        ig.explain(lambda z: torch.from_numpy(np.tanh(z.numpy())), X, target=0)
    assert "numpy()" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, ig.errors.ShapeError("of its own"), UserWarning("as an error")]
)
def test_what_is_no_failure_of_the_model_passes(error: Any) -> None:
    def model(z: Tensor) -> Tensor:
        raise error

    with pytest.raises(type(error) if isinstance(error, Exception) else error) as caught:
        ig.explain(model, X, target=0)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("target", ["predicted", 0])
def test_one_number_for_all_rows(target: Any) -> None:
    with pytest.raises(TargetError, match=r"one number for \d+ rows together: .*\.sum\(\)"):
        ig.explain(lambda z: LINEAR(z).sum(), X, target=target)


def test_one_number_for_each_row_has_no_class() -> None:
    with pytest.raises(TargetError, match="returned one number per row"):
        ig.explain(lambda z: LINEAR(z)[:, 0], X, target=torch.tensor([0, 1, 0]))


@pytest.mark.parametrize("target", ["predicted", 1])
def test_models_that_leave_recording_to_their_caller(target: Any) -> None:
    """Forces as outputs: values alone are asked for under autograd too, and the map is right."""
    net = tanh_mlp()
    x = wave(4, 6)

    def forces(z: Tensor) -> Tensor:
        return -torch.autograd.grad(net(z)[:, 0].sum(), z, create_graph=True)[0]

    made = ig.explain(forces, x, target=target, rule=ig.rules.GaussLegendre(30))
    own = made.target.which if target == "predicted" else torch.full((4,), target)
    right = torch.zeros_like(x)
    for t in (torch.arange(400).double() + 0.5) / 400:
        point = (t * x).requires_grad_()
        score = forces(point).gather(1, own[:, None]).sum()
        right += x * torch.autograd.grad(score, point)[0] / 400
    torch.testing.assert_close(made.values, right, rtol=0, atol=1e-4)
