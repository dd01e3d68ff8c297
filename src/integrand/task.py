"""Task: a field (the scalar explained) and the inputs, laid out as one tensor.

inputs ── layout ──▶ x (B, *s)          model, target, extra ──▶ field, or a field as it is
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .core.normalisation import Normalisation
from .core.shapes import describe, flattened
from .errors import InputError, NonFiniteInput, TargetError
from .fields import Field, TorchField
from .fields.adopt import adopting
from .fields.memory import OutputCache
from .model.extra import Extra
from .model.layout import InputsLike, Layout
from .model.network import parameter_dtype
from .targets import Logit, Output, Target, TargetLike, as_target


@dataclass(frozen=True, eq=False)
class Task:
    """A field and the inputs x (B, \\*s) it is asked about, arranged by ``layout``.

    A "predicted" target waits until the task is ``ready``.
    """

    field: Field
    x: Tensor
    layout: Layout
    predicted: bool = False

    @classmethod
    def of(
        cls,
        model: Callable[..., Any] | Field,
        inputs: InputsLike,
        target: TargetLike | None = None,
        *,
        extra: Sequence[Any] | Mapping[str, Any] = (),
        normalisation: Normalisation | None = None,
        batch_size: int | None = None,
        optimize: bool = False,
        integers: bool = False,
    ) -> Task:
        """The task of a model and a target, or of a Field, which has its own; inputs are laid out
        and packed once, here. Models that a class of fields adopts are explained by it.

        Everything that can be checked without running the model is checked here.

        Raises:
            TargetError: for a model without a target and for a field with another.
            InputError: for options of models beside a field.
        """
        kind = None if isinstance(model, Field) else adopting(model)
        if isinstance(model, Field) or kind is not None:
            options = {
                "extra": len(extra) > 0,
                "batch_size": batch_size is not None,
                "optimize": bool(optimize),
                "normalisation": normalisation is not None,
            }
            _check_options(options, model)
        if isinstance(model, Field):
            _check_field(model, target)
            x, layout = _packed(inputs, model, integers=integers)
            return cls(model, x, layout)
        if kind is not None:
            adopted = kind.adopted(model, Output() if is_predicted(target) else target)
            x, layout = _packed(inputs, adopted, integers=integers)
            return cls(adopted, x, layout, is_predicted(target))
        layout, x = Layout.packed(inputs, integers=integers, dtype=parameter_dtype(model))
        _check_finite(x, layout)
        if target is None:
            raise TargetError(
                "Nothing says which scalar of the model is meant: give target=, such as a class or 'predicted'."
            )
        Extra.of(extra).check(len(x))
        field = TorchField(
            model,
            Output() if is_predicted(target) else target,
            extra=extra,
            normalisation=normalisation,
            batch_size=batch_size,
            layout=layout,
            optimize=optimize,
        )
        field.network.batch = len(x)
        return cls(field, x, layout, is_predicted(target))

    @contextmanager
    def ready(self) -> Iterator[Field]:
        """The field, while its model is fit to be asked; "predicted" has become the classes that
        were predicted."""
        with self.field.ready():
            if self.predicted:
                self.field.memory = OutputCache(self.x, self.field.outputs(self.x))
                self.field.target = predicted(self.field.memory)
            if self.field.target is not None:
                check_classes(self.field.target, len(self.x))
            yield self.field


def _check_options(options: Mapping[str, bool], model: object) -> None:
    """Refuse options of torch models beside anything else."""
    option = next((name for name, value in options.items() if value), None)
    if option is None:
        return
    if isinstance(model, Field):
        raise InputError(f"{option}= goes with a model; a field has its own.")
    raise InputError(f"{option}= goes with a torch model; {type(model).__name__} takes none.")


def _check_field(field: Field, target: TargetLike | None) -> None:
    """Check that a target given beside a field agrees with the one it has."""
    if target is None:
        return
    if field.target is None or is_predicted(target):
        raise TargetError("A field has its target already: leave target= out.")
    named_target = as_target(target)
    if named_target != field.target:
        raise TargetError(
            f"The field asks about {field.target!r}, and target= says {named_target!r}: leave target= out, or explain field.with_target(…)."
        )


def is_predicted(target: object) -> bool:
    """Whether a target is the word for the class each example is given."""
    return isinstance(target, str) and target == "predicted"


def predicted(memory: OutputCache) -> Target:
    """The class each example is given; the only output where there is one, which is then explained
    for either class."""
    outputs = memory.outputs
    assert outputs is not None
    if outputs.shape[1:].numel() == 1:
        return Output()
    if outputs.ndim != 2:
        raise TargetError(
            f"'predicted' needs outputs (rows, classes), but one output has shape {describe(outputs.shape[1:])}: "
            "name a position, or give a callable."
        )
    return Logit(outputs.argmax(1))


def check_classes(target: Target, batch: int) -> None:
    """Check that a target with something for each example has it for all ``batch`` of them."""
    target.check_batch(batch)


def _packed(inputs: InputsLike, field: Field, *, integers: bool) -> tuple[Tensor, Layout]:
    """Inputs in the type that a field asks for, and how they are arranged."""
    layout, x = Layout.packed(inputs, integers=integers, dtype=field.input_dtype)
    _check_finite(x, layout, missing=field.takes_missing)
    return x, layout


def _check_finite(x: Tensor, layout: Layout, *, missing: bool = False) -> None:
    """Refuse infinite numbers, and NaN unless it stands for a ``missing`` value."""
    finite = torch.isfinite(x) | (torch.isnan(x) & missing)
    wrong = ~flattened(finite, 1).all(1)
    if not bool(wrong.any()):
        return
    names = [name for key in layout.keys for name in layout.columns(key)]
    if names and len(names) == x[0].numel():
        at = (~finite).flatten(1).any(0).nonzero().flatten().tolist()
        columns = ", ".join(repr(names[i]) for i in at)
        raise NonFiniteInput(
            f"Missing or infinite numbers in {len(at)} column{'s' * (len(at) != 1)} ({columns}), in {int(wrong.sum())} of {len(x)} rows. "
            "Fill them before explaining."
        )
    example = int(wrong.nonzero()[0])
    count = int((~finite[example]).sum())
    raise NonFiniteInput(
        f"Example {example} holds {count} NaN or infinite number{'s' * (count != 1)} ({int(wrong.sum())} of {len(x)} examples "
        "do). Fill missing values before explaining."
    )
