"""The Field: the scalar explained, the only thing that knows about a model.

One method is required, ``evaluate``: flat rows in, a value and a gradient per row out. Everything else is a default that a
field with more structure may beat: ``share`` for fields that know their own integral (trees, Gaussian processes), ``together``
for fields that can answer two questions in one forward pass, ``lift``/``tail`` for fields measured at a layer.

Everything above the Field broadcasts; only the Field flattens and splits into calls that fit the hardware. A rule describes
its rows lazily (``stream``), so that a thousand nodes need no more memory than ten.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..errors import NoShare, TargetError
from ..normalisation import Normalisation
from ..segment import Evaluation, Segment
from ..target import Distance, Target
from .packing import Packer

Rows = Callable[[slice], Tensor]


class Field(ABC):
    """The scalar explained, as a function of one example; evaluated on rows.

    To write one, define ``evaluate``. ``normalisation`` says what image inputs look like, where that is known.
    """

    normalisation: Normalisation | None = None

    # --- required -------------------------------------------------------------------------------------------------

    @abstractmethod
    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        """F and ∇F for rows ``z`` (N, \\*s) of the examples ``index`` (N,), in one call.

        Returns ``Evaluation(value (N,), gradient (N, \\*s))``, detached; with ``gradient=False`` an empty gradient.
        """

    # --- what structure may beat ----------------------------------------------------------------------------------

    def share(self, segment: Segment) -> Tensor:
        """The exact share (K, R, B, \\*s) of each piece, for fields that know it."""
        raise NoShare(
            f"{type(self).__name__} has no exact share: use a quadrature such as rule=ig.rules.GaussLegendre(50)."
        )

    def score(self) -> Field:
        """The same question as a number that can be halved: the probability of the class explained."""
        return self

    def at(self, index: Tensor) -> Field:
        """This field for a batch made of the examples ``index``."""
        from .wrap import Gathered  # wrap needs Field; the import waits for it

        return Gathered(self, index)

    def outputs(self, z: Tensor) -> Tensor:
        """What the model says of a batch ``z`` (B, \\*s), before any target."""
        raise TargetError(f"{type(self).__name__} has no class outputs to choose references by.")

    def distance(self, goal: Tensor, index: Tensor, representation: Any = None) -> Distance:
        """The target ‖φ(z) − φ(goal)‖² for goals (M, \\*s) of the examples ``index`` (M,)."""
        if not callable(representation):
            raise TargetError(
                f"{type(self).__name__} has no layers to take a representation from: "
                "give representation= a function of the input."
            )
        with torch.no_grad():
            return Distance(representation(goal).flatten(1), representation)

    def together(self, z: Tensor, index: Tensor, other: Target, other_index: Tensor) -> tuple[Evaluation, Evaluation]:
        """F and a second target, both with gradients, for rows ``z`` (N, \\*s); one forward pass where possible."""
        return self.rows(z, index), self._function_rows(z, other, other_index)

    def ready(self) -> AbstractContextManager[Any]:
        """While this lasts, the model is fit to be explained; afterwards it is as it was."""
        return nullcontext()

    @cached_property
    def packer(self) -> Packer:
        """How rows are cut into calls."""
        return Packer()

    # --- sugar ----------------------------------------------------------------------------------------------------

    def stream(
        self,
        index: Tensor,
        rows: Rows,
        use: Callable[[slice, Evaluation], None],
        like: Tensor,
        *,
        gradient: bool = True,
    ) -> None:
        """Evaluate rows that are made when needed: ``use(part, evaluation of rows(part))`` until all ``index`` (N,) are done.

        ``like`` (\\*s) shows the shape of a row.
        """

        def call(part: slice) -> None:
            use(part, self.evaluate(rows(part), index[part], gradient=gradient))

        self.packer.run(len(index), call, like, "gradient" if gradient else "value")

    def rows(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        """``evaluate`` for any number of rows."""
        value = z.new_empty(len(z))
        slope = torch.empty_like(z) if gradient else z.new_empty(0)

        def use(part: slice, found: Evaluation) -> None:
            value[part] = found.value
            if gradient:
                slope[part] = found.gradient

        if len(z):
            self.stream(index, lambda part: z[part], use, z[0], gradient=gradient)
        return Evaluation(value, slope)

    def value(self, z: Tensor, leading: int = 1) -> Tensor:
        """F for a batch (B, \\*s) → (B,), or for stacks of batches with ``leading`` axes: (…, B, \\*s) → (…, B)."""
        return self._points(z, leading, gradient=False).value

    def gradient(self, z: Tensor, leading: int = 1) -> Tensor:
        """∇F for a batch, or for stacks of batches with ``leading`` axes: (…, B, \\*s) → (…, B, \\*s)."""
        return self._points(z, leading, gradient=True).gradient

    def _points(self, z: Tensor, leading: int, *, gradient: bool) -> Evaluation:
        shape = z.shape[:leading]
        index = torch.arange(shape[-1], device=z.device).expand(shape).reshape(-1)
        found = self.rows(z.reshape(-1, *z.shape[leading:]), index, gradient=gradient)
        return found.reshape(*shape) if gradient else Evaluation(found.value.reshape(shape), found.gradient)

    def _function_rows(self, z: Tensor, other: Target, index: Tensor) -> Evaluation:
        """A target that looks at a function of the input, not at this field's model."""
        value, slope = z.new_empty(len(z)), torch.empty_like(z)

        def call(part: slice) -> None:
            with torch.enable_grad():
                leaf = z[part].detach().clone().requires_grad_()
                found = other(other.site(leaf), index[part])
                (slope[part],) = torch.autograd.grad(found.sum(), leaf)
            value[part] = found.detach()

        self.packer.run(len(z), call, z[0], "function")
        return Evaluation(value, slope)
