"""Controls: maps that a metric should distinguish from explanations: random ones, edges of the
input, one gradient.

They have the interface of methods, ``(field, x) -> Attribution``, and run in the same table. A
metric by which one of them is not significantly worse than the best method is uninformative on
these examples, whatever its numbers are (Adebayo et al., "Sanity checks for saliency maps", 2018,
for the idea). They add up to nothing: ``residual`` and ``error`` are NaN.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from ..core.random import generator
from ..core.shapes import describe
from ..core.values import part
from ..errors import InputError, UnknownName
from ..fields import Field
from ..integration.assemble import Watch, opened
from ..integration.attribution import Attribution, Explainer
from ..integration.cost import measured


class Control(Explainer):
    """Base class of controls: ``_map`` computes the map, which is returned as an attribution."""

    label: str

    complete: ClassVar[bool] = False
    """They explain no change of F, so they add up to none."""

    def __call__(self, field: Field, x: Tensor, *, watch: Watch | None = None) -> Attribution:
        x, meter = opened(field, x, watch)
        with measured(meter, x.device) as stopwatch:
            values, output = self._map(meter, x)
        unknown = x.new_full((len(x),), torch.nan)
        return Attribution(
            values=values,
            inputs=x,
            output=unknown if output is None else output,
            weights=x.new_ones(1, len(x)),
            change=unknown[None],
            residual=unknown,
            error=unknown,
            converged=torch.zeros_like(unknown, dtype=torch.bool),
            cost=stopwatch.cost(),
            method=self,
        )

    def _map(self, field: Field, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The map (B, \\*s), and F(x) (B,) where it is known."""
        raise NotImplementedError


@part
class RandomMap(Control):
    """Independent normal numbers, drawn anew for every input: the seed is mixed with its bytes, so
    that batches do not matter."""

    seed: int = 0

    label = "random"

    def _map(self, field: Field, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return torch.stack([self._noise(example) for example in x]), None

    def _noise(self, example: Tensor) -> Tensor:
        data = example.detach().cpu().reshape(-1)
        digest = hashlib.blake2b(data.view(torch.uint8).numpy().tobytes(), digest_size=8).digest()
        stream = generator(self.seed, int.from_bytes(digest, "little"))
        return torch.randn(example.shape, generator=stream, dtype=torch.float64).to(example)


@part
class EdgeMap(Control):
    """Edges of the image, which know nothing of the model: ‖(S_x ∗ g, S_y ∗ g)‖ of the grey image
    g, or |L ∗ g|.

    Args:
        kind: "sobel", or "laplace"; g is the mean of the channels, and every channel gets an equal
            part.
    """

    kind: str = "sobel"

    label = "edges"

    def __post_init__(self) -> None:
        if self.kind not in _KERNELS:
            raise UnknownName("kind of edges", self.kind, _KERNELS)

    def _map(self, field: Field, x: Tensor) -> tuple[Tensor, Tensor | None]:
        if x.ndim != 4:
            raise InputError(
                f"Only images (B, C, H, W) have edges, not inputs {describe(x.shape)}."
            )
        grey = functional.pad(x.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
        kernels = torch.tensor(_KERNELS[self.kind], dtype=x.dtype, device=x.device)[:, None]
        size = functional.conv2d(grey, kernels).norm(dim=1, keepdim=True)
        return (size / x.shape[1]).expand(x.shape).contiguous(), None


_KERNELS: dict[str, list[list[list[float]]]] = {
    "sobel": [[[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], [[-1, -2, -1], [0, 0, 0], [1, 2, 1]]],
    "laplace": [[[0, 1, 0], [1, -4, 1], [0, 1, 0]]],
}


@part
class Gradient(Control):
    """∇F(x): what a small change of each feature does.

    Cost:
        One gradient.
    """

    label = "gradient"

    def _map(self, field: Field, x: Tensor) -> tuple[Tensor, Tensor | None]:
        evaluation = field.rows(x, torch.arange(len(x), device=x.device))
        return evaluation.gradient, evaluation.value


@part
class InputGradient(Control):
    """x ⊙ ∇F(x), in the numbers the model is given.

    Cost:
        One gradient.
    """

    label = "input × gradient"

    def _map(self, field: Field, x: Tensor) -> tuple[Tensor, Tensor | None]:
        evaluation = field.rows(x, torch.arange(len(x), device=x.device))
        return x * evaluation.gradient, evaluation.value


CONTROLS: dict[str, Callable[[], Explainer]] = {
    "random": RandomMap,
    "edges": EdgeMap,
    "gradient": Gradient,
    "input × gradient": InputGradient,
}
"""Controls by name."""


def controls_for(controls: bool | Sequence[str] | None, x: Tensor) -> dict[str, Explainer]:
    """Controls by name: True for all that fit the inputs, False for none, or names.

    Raises:
        UnknownName: for a name that no control has.
    """
    if controls is False or controls is None:
        return {}
    names = (
        [name for name in CONTROLS if name != "edges" or x.ndim == 4]
        if controls is True
        else list(controls)
    )
    for name in names:
        if name not in CONTROLS:
            raise UnknownName("control", name, CONTROLS)
    return {name: CONTROLS[name]() for name in names}
