"""What metrics are computed on: a field, inputs, and what else is known of the examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..baselines import Baseline
from ..baselines.base import BaselineLike
from ..baselines.names import baseline_of
from ..core.shapes import checked_references, describe
from ..errors import InputError, ShapeError, TargetError
from ..fields import Field
from ..methods.baseline_names import for_inputs
from ..model.layout import InputsLike, Layout
from ..targets import Loss, Predicted, Probability, Target, TargetLike
from ..task import Task

T = TypeVar("T")

Score = str | Target | Callable[..., Tensor]
"""What a curve measures, or a target:

    "probability"  of the class explained          "accuracy"  1 where that class is predicted, else 0
    "output"       the scalar explained itself     "loss"      minus the logarithm of the probability
"""

Fill = BaselineLike | Tensor | float | str | Sequence[Any] | Mapping[Any, Any]
"""What replaced features become: a baseline, a tensor, a number or a name; for several inputs a
tuple or dict with one for each."""

_OF_CLASS: dict[str, Callable[[Any], Target]] = {"accuracy": Predicted, "loss": Loss}


@dataclass(frozen=True, eq=False)
class Subject:
    """A field and its inputs x (B, \\*s), with what else is known of the examples.

    Args:
        field: the scalar that was explained; metrics ask its ``score()``, the class probability,
            unless told otherwise.
        x: (B, \\*s) what was explained, in the model's numbers.
        layout: how inputs and maps are arranged outside.
        masks: (B, H, W) or (B, \\*s) where the evidence is known to be, or None.
        bare: whether nobody gave inputs, so that x may be a map itself.
    """

    field: Field
    x: Tensor
    layout: Layout
    masks: Tensor | None = None
    bare: bool = False
    _seen: dict[Hashable, Any] = dataclasses.field(default_factory=dict, repr=False)

    @classmethod
    @contextmanager
    def of(
        cls,
        model: Callable[..., Any] | Field,
        inputs: InputsLike,
        target: TargetLike | None = None,
        *,
        masks: Tensor | None = None,
        **options: Any,
    ) -> Iterator[Subject]:
        """The subject, while its model is fit to be asked.

        ``model`` may be a Field, which has its own target. ``options``: extra, normalisation,
        batch_size, optimize, as in ``explain``.
        """
        with cls.ready(Task.of(model, inputs, target, **options), masks) as subject:
            yield subject

    @classmethod
    @contextmanager
    def ready(cls, task: Task, masks: Tensor | None = None) -> Iterator[Subject]:
        """The subject of a task that is laid out already, while its model is fit to be asked."""
        with task.ready() as field:
            yield cls(field, task.x, task.layout, _checked_masks(masks, len(task.x)))

    def __len__(self) -> int:
        return len(self.x)

    def score(self, score: Score = "probability") -> Field:
        """What is measured, as a field."""
        return self._scored(score)[0]

    def whole(self, score: Score = "probability") -> Tensor:
        """(B,) the score of the inputs as they are; computed once."""
        return self._scored(score)[1]

    def _scored(self, score: Score) -> tuple[Field, Tensor]:
        def scored() -> tuple[Field, Tensor]:
            field = self._field(score)
            return field, field.value(self.x)

        return self.once(score if isinstance(score, str) else repr((id(score), score)), scored)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """The result of ``make``, computed once for all metrics that ask for it under this key."""
        if key not in self._seen:
            self._seen[key] = make()
        result: T = self._seen[key]
        return result

    def _field(self, score: Score) -> Field:
        if score == "probability":
            return self.field.score()
        if score == "output":
            return self.field
        if isinstance(score, str):
            if score not in _OF_CLASS:
                raise InputError(
                    f'score= is "probability", "accuracy", "loss", "output", or a target, not {score!r}.'
                )
            target = self.field.target
            about = None if target is None else target.score()
            if not isinstance(about, Probability) or not about.of_classes:
                raise InputError(
                    f'score="{score}" asks about a class, and {target!r} names none: explain one.'
                )
            score = _OF_CLASS[score](about.which)
        try:
            return self.field.with_target(score)
        except TargetError as error:
            raise InputError(f'{error} score= is then "probability" or "output".') from error

    def fill(self, fill: Fill) -> Tensor:
        """(B, \\*s) what removed features become: the first reference of a baseline, a number, a
        tensor or a name."""
        return self.fills(fill)[0]

    def fills(self, fill: Fill) -> Tensor:
        """(R, B, \\*s) everything that removed features may become: all references of a
        baseline."""
        return checked_references(self.filling(fill)(self.x, self.field), self.x, "The fill")

    def filling(self, fill: Fill) -> Baseline:
        """A fill as a baseline; of several inputs, a tuple or dict is one for each."""
        return baseline_of(for_inputs(fill, self.layout, self.x, shared=False, listed=False))

    def evidence(self) -> Tensor:
        """(B, \\*s) bool: the masks, laid over the inputs.

        Raises:
            InputError: where none are given.
            ShapeError: for masks of another size.
        """
        if self.masks is None:
            raise InputError(
                "Localisation needs masks=: (B, H, W), where the evidence is known to be."
            )
        masks = self.masks.to(self.x.device)
        if masks.ndim == self.x.ndim - 1 and self.x.ndim in (
            3,
            4,
        ):  # places of images, tokens of sentences
            masks = masks[:, None] if self.x.ndim == 4 else masks[..., None]
        try:
            return masks.bool().expand(self.x.shape)
        except RuntimeError:
            raise ShapeError(
                f"Masks of shape {describe(self.masks.shape)} do not fit inputs of shape {describe(self.x.shape)}: give "
                f"{describe((len(self.x), *self.x.shape[2:]))} or {describe(self.x.shape)}, at the size the model sees."
            ) from None


def _checked_masks(masks: object, examples: int) -> Tensor | None:
    """Masks (B, …) as a tensor; None where there are none."""
    if masks is None:
        return None
    if not isinstance(masks, Tensor | np.ndarray):
        raise InputError(
            f"masks= is a tensor (B, H, W) of where the evidence is, not a {type(masks).__name__}."
        )
    tensor = torch.as_tensor(masks)
    if tensor.ndim == 0 or len(tensor) != examples:
        raise ShapeError(
            f"masks= has shape {describe(tensor.shape)}: it holds one mask for each of {examples} examples."
        )
    return tensor
