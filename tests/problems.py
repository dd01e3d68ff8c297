"""Known problems: models with inputs, and what is known of their answers. Every published method meets every one of them.

Everything is float64 and written out in sines and cosines, so that no random generator has to agree with itself over the years.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.model.layout import Layout

B = 5  # examples of every problem
R = 3  # references


def wave(*shape: int, phase: float = 0.0, scale: float = 1.0) -> Tensor:
    """Numbers between −scale and scale without a pattern that a test could lean on."""
    n = torch.arange(1, 1 + int(torch.Size(shape).numel()), dtype=torch.float64)
    return (scale * torch.sin(phase + 1.7 * n + 0.013 * n * n)).reshape(shape)


def brute_force(
    model: Callable[[Tensor], Tensor], start: Tensor, end: Tensor, nodes: int, most: int = 4000
) -> Tensor:
    """∫ of plain autograd's gradient along straight lines (B, \\*s), times the way: Gauss's rule on short pieces; ``most`` rows a call."""
    place, weight = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(4))
    ends = torch.linspace(0, 1, nodes // 4 + 1, dtype=torch.float64)
    t = ((ends[:-1] + ends[1:])[:, None] / 2 + ends[1] / 2 * place).flatten()
    weights = (ends[1] / 2 * weight).repeat(nodes // 4)
    shares = []
    for a, b in zip(start, end, strict=True):
        mean = torch.zeros_like(a)
        for part, own in zip(t.split(most), weights.split(most), strict=True):
            z = (a + part.view(-1, *(1,) * a.ndim) * (b - a)).requires_grad_()
            (slope,) = torch.autograd.grad(model(z.clone()).sum(), z)
            mean += torch.tensordot(own, slope, 1)
        shares.append(mean * (b - a))
    return torch.stack(shares)


def filled(model: nn.Module, phase: float = 0.0) -> nn.Module:
    """``model`` in float64 with its parameters set to waves (scaled by their fan-in), in eval mode."""
    model = model.double().eval()
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(wave(*parameter.shape, phase=phase + i, scale=1.6 / fan_in**0.5))
    return model


# --- the functions of the reference values (see tests/references) -----------------------------------------------------


def t6(z: Tensor) -> Tensor:
    """T6: F(x) = Σ_h cos(.5h) tanh(Σ_i .9 sin(1.3h + .7i + .2) x_i + .1h − .15), six features."""
    return torch.tanh(_t6_hidden(z)) @ torch.cos(0.5 * torch.arange(4).to(z))


def _t6_hidden(z: Tensor) -> Tensor:
    h, i = torch.arange(4).to(z)[:, None], torch.arange(6).to(z)
    return z @ (0.9 * torch.sin(1.3 * h + 0.7 * i + 0.2)).T + 0.1 * h[:, 0] - 0.15


def t6_representation(z: Tensor) -> Tensor:
    return torch.tanh(_t6_hidden(z))


T6_INPUT = torch.linspace(-1, 2, 6, dtype=torch.float64)[None]


def img(z: Tensor) -> Tensor:
    """IMG: logits V tanh(W x) of a 3×4×4 image, three classes."""
    h = torch.arange(5).to(z)
    c = torch.arange(3).to(z)[:, None]
    return img_representation(z) @ torch.cos(0.8 * c + 0.6 * h).T


def img_representation(z: Tensor) -> Tensor:
    h, k = torch.arange(5).to(z)[:, None], torch.arange(48).to(z)
    weight = 0.35 * torch.sin(0.37 * k * (h + 1) + 0.5 * h + 0.1)
    return torch.tanh(z.flatten(1) @ weight.T)


def img_input() -> Tensor:
    c, i, j = torch.meshgrid(
        *(torch.arange(n, dtype=torch.float64) for n in (3, 4, 4)), indexing="ij"
    )
    return (0.5 + 0.5 * torch.sin(0.3 + 1.7 * c + 0.9 * i + 1.3 * j))[None]


def shallow(weight: Tensor, top: Tensor) -> nn.Sequential:
    """logits = V tanh(W x): the network of the weighted and IG2 reference values; layer "2" is the representation."""
    first = nn.Linear(weight.shape[1], weight.shape[0], bias=False).to(weight.dtype)
    last = nn.Linear(top.shape[1], top.shape[0], bias=False).to(weight.dtype)
    with torch.no_grad():
        first.weight.copy_(weight)
        last.weight.copy_(top)
    return nn.Sequential(nn.Flatten(), first, nn.Tanh(), last).eval()


# --- models -----------------------------------------------------------------------------------------------------------


def relu_mlp() -> nn.Module:
    return filled(
        nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
    )


def tanh_mlp(features: int = 6) -> nn.Module:
    return filled(nn.Sequential(nn.Linear(features, 10), nn.Tanh(), nn.Linear(10, 3)), phase=0.4)


def softplus_cnn() -> nn.Module:
    """conv – softplus – average pool – linear – tanh – linear, for 3×8×8 images."""
    return filled(
        nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.Softplus(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(36, 8),
            nn.Tanh(),
            nn.Linear(8, 3),
        ),
        phase=0.9,
    )


def sure(model: nn.Sequential, blank: Tensor, gain: float = 12.0) -> nn.Sequential:
    """The same network, louder, and with equal logits for ``blank`` (*s): probabilities that fall to 1/3 when all is gone."""
    with torch.no_grad():
        model[-1].bias -= model(blank[None])[0]
        model[-1].weight *= gain
        model[-1].bias *= gain
    return model


class Two(nn.Module):
    """Two inputs of different shapes, given as (left, right) or by name."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4 + 6, 8), nn.Linear(8, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(torch.cat([left, right.flatten(1)], 1))))


class Scaled(nn.Module):
    """An argument that is not attributed: a scale (B,) of each example's own, and a plain number."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor, scale: Tensor, shift: float = 0.0) -> Tensor:
        return self.last(torch.tanh(self.first(x) * scale[:, None] + shift))


class Output(nn.Module):
    """Wraps the outputs of a model as transformers do, or in a tuple."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.inner = kind, tanh_mlp(4)

    def forward(self, x: Tensor) -> Any:
        logits = self.inner(x)
        if self.kind == "tuple":
            return logits, x.sum()
        if self.kind == "dict":
            return {"loss": x.sum(), "logits": logits}
        return SimpleNamespace(loss=None, logits=logits)


# --- the table --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Problem:
    """A model and five inputs to explain; ``references`` (R, *s) are in the packed shape that parts see."""

    name: str
    model: Callable[..., Any]
    inputs: Any
    target: Any
    references: Tensor
    representation: Any = None
    extra: Any = ()
    smooth: bool = True
    features: int = 0
    """How many groups Weighted Gradients ranks."""

    def only(self, i: int) -> Problem:
        """The same problem with its ``i``-th example alone."""
        return replace(
            self,
            inputs=pick(self.inputs, i),
            target=self.target[i : i + 1] if isinstance(self.target, Tensor) else self.target,
            extra=pick(self.extra, i),
        )

    def field(self) -> ig.TorchField:
        return ig.TorchField(
            self.model, self.target, extra=self.extra, layout=Layout.of(self.inputs)
        )

    def packed(self) -> Tensor:
        """The inputs as parts see them, (B, *s)."""
        return Layout.of(self.inputs).pack(self.inputs)


def pick(values: Any, i: int) -> Any:
    """Example ``i`` of a tensor, or of each tensor in a tuple or dict; the batch axis stays."""
    if isinstance(values, Tensor):
        return values[i : i + 1]
    if isinstance(values, Mapping):
        return {k: pick(v, i) for k, v in values.items()}
    if isinstance(values, tuple):
        return tuple(pick(v, i) for v in values)
    return values


def joined(values: Any) -> Tensor:
    """The maps of one or several inputs as one matrix (B, features)."""
    if isinstance(values, Mapping):
        values = tuple(values.values())
    if isinstance(values, tuple):
        return torch.cat([v.flatten(1) for v in values], 1)
    return values.flatten(1)


def problems() -> dict[str, Problem]:
    classes = torch.tensor([0, 2, 1, 0, 2])
    flat = wave(B, 6, phase=0.3)
    two = {"left": wave(B, 4, phase=0.1), "right": wave(B, 2, 3, phase=0.2)}
    found = [
        Problem(
            "t6",
            t6,
            torch.cat([T6_INPUT, flat[1:]]),
            ig.targets.Output(),
            wave(R, 6, phase=1),
            t6_representation,
            features=6,
        ),
        Problem(
            "img",
            img,
            torch.cat([img_input(), 0.5 + 0.5 * wave(B - 1, 3, 4, 4)]),
            0,
            0.5 + 0.5 * wave(R, 3, 4, 4, phase=1),
            img_representation,
            features=16,
        ),
        Problem(
            "linear",
            filled(nn.Linear(6, 3)),
            flat,
            classes,
            wave(R, 6, phase=2),
            lambda z: z.square(),
            features=6,
        ),
        Problem(
            "monomial",
            lambda z: z[:, 0] ** 3 * z[:, 1] * z[:, 2] ** 2,
            1.2 + 0.5 * wave(B, 3),
            ig.targets.Output(),
            0.5 + 0.2 * wave(R, 3, phase=1),
            torch.tanh,
            features=3,
        ),
        Problem(
            "interaction",
            lambda z: z[:, 0] * z[:, 1],
            1 + 0.5 * wave(B, 2),
            ig.targets.Output(),
            0.3 * wave(R, 2, phase=1),
            torch.tanh,
            features=2,
        ),
        Problem(
            "relu mlp", relu_mlp(), flat, classes, wave(R, 6, phase=3), smooth=False, features=6
        ),
        Problem(
            "softplus cnn",
            softplus_cnn(),
            0.5 + 0.5 * wave(B, 3, 8, 8),
            classes,
            0.5 + 0.5 * wave(R, 3, 8, 8, phase=1),
            features=64,
        ),
        Problem(
            "tuple input", filled(Two()), tuple(two.values()), 1, wave(R, 10, phase=1), features=10
        ),
        Problem("dict input", filled(Two()), two, 1, wave(R, 10, phase=1), features=10),
        Problem(
            "extra arguments",
            filled(Scaled()),
            wave(B, 4),
            classes,
            wave(R, 4, phase=1),
            extra={"scale": 1 + 0.3 * wave(B), "shift": 0.2},
            features=4,
        ),
        Problem(
            "logits object",
            Output("object").eval(),
            wave(B, 4),
            classes,
            wave(R, 4, phase=1),
            features=4,
        ),
        Problem(
            "tuple output",
            Output("tuple").eval(),
            wave(B, 4),
            classes,
            wave(R, 4, phase=1),
            features=4,
        ),
        Problem(
            "dict output",
            Output("dict").eval(),
            wave(B, 4),
            classes,
            wave(R, 4, phase=1),
            features=4,
        ),
    ]
    return {problem.name: problem for problem in found}


PROBLEMS = problems()


# --- doubles ----------------------------------------------------------------------------------------------------------


class Observed(nn.Module):
    """A model whose own state a test looks at: it has to be run itself, and no double of it."""


class Cube(torch.autograd.Function):
    """A nonlinearity that torch's own names do not tell."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * 3 * x**2


class Counting(Observed):
    """A model that counts what really reaches it: calls, and rows with and without gradients."""

    def __init__(self, inner: Callable[..., Any]) -> None:
        super().__init__()
        self.inner = inner
        self.reset()

    def reset(self) -> None:
        self.calls, self.gradients, self.values, self.largest = 0, 0, 0, 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        rows = len(next(iter([*args, *kwargs.values()])))
        self.calls += 1
        self.largest = max(self.largest, rows)
        if torch.is_grad_enabled():
            self.gradients += rows
        else:
            self.values += rows
        return self.inner(*args, **kwargs)
