"""Controls: what they are, and that nothing about a batch changes them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.compare.controls import (
    CONTROLS,
    EdgeMap,
    Gradient,
    InputGradient,
    RandomMap,
    controls_for,
)
from integrand.model.row_independence import ROWS

scipy_ndimage = pytest.importorskip("scipy.ndimage")


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double()


@pytest.fixture
def field() -> ig.fields.Field:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    return ig.TorchField(model, 1)


def test_random_maps_are_those_of_the_input(field: ig.fields.Field, x: Tensor) -> None:
    found = RandomMap()(field, x).values
    alone = torch.cat([RandomMap()(field, x[b : b + 1]).values for b in (2, 0, 1)])
    torch.testing.assert_close(found[[2, 0, 1]], alone, rtol=0, atol=0)
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found, RandomMap(1)(field, x).values)
    assert abs(float(found.mean())) < 0.15
    assert abs(float(found.std()) - 1) < 0.1
    before = torch.random.get_rng_state()
    RandomMap()(field, x)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("kind", ["sobel", "laplace"])
def test_edges_are_those_of_scipy(field: ig.fields.Field, x: Tensor, kind: str) -> None:
    found = EdgeMap(kind)(field, x).values
    for b in range(3):
        grey = x[b].mean(0).numpy()
        if kind == "sobel":
            across, down = (scipy_ndimage.sobel(grey, axis, mode="nearest") for axis in (1, 0))
            expected = torch.from_numpy((across**2 + down**2) ** 0.5)
        else:
            expected = torch.from_numpy(abs(scipy_ndimage.laplace(grey, mode="nearest")))
        torch.testing.assert_close(found[b].sum(0), expected)
    with pytest.raises(ig.errors.InputError, match="Only images"):
        EdgeMap()(field, x.flatten(1))
    with pytest.raises(ig.errors.UnknownName, match="canny"):
        EdgeMap("canny")


def test_gradients(field: ig.fields.Field, x: Tensor) -> None:
    leaf = x.clone().requires_grad_()
    field.network.model(leaf)[:, 1].sum().backward()  # type: ignore[attr-defined]
    assert leaf.grad is not None
    made = Gradient()(field, x)
    torch.testing.assert_close(made.values, leaf.grad)
    torch.testing.assert_close(InputGradient()(field, x).values, leaf.grad * x)
    torch.testing.assert_close(made.output, field.value(x))
    assert (made.cost.gradients, made.cost.values) == (3, ROWS)


@pytest.mark.parametrize("name", list(CONTROLS))
def test_controls_add_up_to_nothing_and_say_so(
    name: str, field: ig.fields.Field, x: Tensor
) -> None:
    made = CONTROLS[name]()(field, x)
    assert bool(made.gap.isnan().all())
    assert not bool(made.converged.any())
    assert made[1].values.shape == (1, 3, 8, 8)
    assert repr(made.method) in ("RandomMap()", "EdgeMap()", "Gradient()", "InputGradient()")


def test_which_controls(x: Tensor) -> None:
    assert list(controls_for(True, x)) == ["random", "edges", "gradient", "input × gradient"]
    assert list(controls_for(True, x.flatten(1))) == ["random", "gradient", "input × gradient"]
    assert controls_for(False, x) == {}
    assert list(controls_for(["edges"], x)) == ["edges"]
    with pytest.raises(ig.errors.UnknownName, match="control named 'edge'"):
        controls_for(["edge"], x)
