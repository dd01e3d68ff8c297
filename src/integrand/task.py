"""Task: a field (the scalar explained) and the inputs, laid out as one tensor.

inputs ── layout ──▶ x (B, *s)          model, target, extra ──▶ field, or a field as it is
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .core.normalisation import Normalisation
from .core.options import checked_flag
from .core.shapes import describe, flattened
from .errors import InputError, NonFiniteInput, OneOutputWarning, TargetError, warn
from .fields import Field, TorchField
from .fields.adopt import adopting
from .fields.memory import OutputCache
from .model.doors import Encoding, door_of
from .model.extra import Extra, checked_extra
from .model.layout import InputsLike, Layout
from .model.network import parameter_dtype
from .targets import Logit, Output, PredictedSide, Target, TargetLike, as_target


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
        **model_options: Any,
    ) -> Task:
        """The task of a model and a target, or of a Field, which has its own; inputs are laid out
        and packed once, here. Models that have a door are taken apart first; those that a class of
        fields adopts are explained by it.

        Everything that can be checked without running the model is checked here.

        Args:
            model_options: what the model's door takes beside it.

        Raises:
            TargetError: for a model without a target and for a field with another.
            InputError: for options of models beside a field.
        """
        options = {
            "extra": len(checked_extra(extra)) > 0,
            "batch_size": batch_size is not None,
            "optimize": checked_flag("optimize", optimize),
            "normalisation": normalisation is not None,
        }
        if isinstance(model, Field):
            _check_options(options, model)
            _check_model_options(model_options, (), model)
            _check_field(model, target)
            return cls(model, *_packed(_Reading.of(model, integers), inputs))
        behind = model
        door, encoding = door_of(model), None
        _check_model_options(model_options, () if door is None else door.options, model)
        if door is not None:
            encoding, behind = door.opened(model, inputs, model_options)
        kind = adopting(behind)
        first = Output() if is_predicted(target) else target
        if kind is not None:
            _check_options(options, model)
            adopted = kind.adopted(behind, first)
            x, layout = _packed(_Reading.of(adopted, integers), _in_numbers(inputs), encoding)
            return cls(adopted, x, layout, is_predicted(target))
        x, layout = _packed(_Reading(parameter_dtype(behind), integers), inputs, encoding)
        if first is None:
            raise TargetError(
                "Nothing says which scalar of the model is meant: give target=, such as a class or 'predicted'."
            )
        Extra.of(extra).check(len(x))
        field = TorchField(
            behind,
            first,
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
                self.field.target = predicted(self.field.memory, self.field)
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


def _check_model_options(
    options: Mapping[str, object], known: Sequence[str], model: object
) -> None:
    """Refuse options that a model's kind does not have."""
    option = next((name for name in options if name not in known), None)
    if option is not None:
        raise InputError(f"{option}= does not go with a {type(model).__name__}.")


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


def predicted(memory: OutputCache, field: Field) -> Target:
    """The class each example is given; where there is one output, the side of it that the example
    is on, or of a field that is known to be no classifier that output."""
    outputs = memory.outputs
    assert outputs is not None
    if outputs.shape[1:].numel() == 1:
        return _predicted_side(outputs) if field.sign_decides else Output()
    if outputs.ndim != 2:
        raise TargetError(
            f"'predicted' needs outputs (rows, classes), but one output has shape {describe(outputs.shape[1:])}: "
            "name a position, or give a callable."
        )
    return Logit(outputs.argmax(1))


def _predicted_side(outputs: Tensor) -> Target:
    """The side of their only output that examples are on; that it was taken for a logit is said."""
    target = PredictedSide.of(outputs)
    turned = int((target.side < 0).sum())
    warn(
        "The model has one output per row, and 'predicted' takes it for the logit of class 1: each example is explained for its own side, "
        f"F = output where that is 0 or more, and F = -output where it is below ({turned} of {len(outputs)} examples). For the output itself, "
        "such as that of a regression or a probability, say target=ig.targets.Output().",
        OneOutputWarning,
    )
    return target


def check_classes(target: Target, batch: int) -> None:
    """Check that a target with something for each example has it for all ``batch`` of them."""
    target.check_batch(batch)


@dataclass(frozen=True)
class _Reading:
    """How inputs are read for a field: in which type, whether as whole numbers too, in which order
    of columns, and whether some may be missing."""

    dtype: torch.dtype | None
    integers: bool
    columns: Sequence[str] = ()
    missing: bool = False

    @classmethod
    def of(cls, field: Field, integers: bool) -> _Reading:
        return cls(field.input_dtype, integers, field.columns, field.takes_missing)


def _in_numbers(inputs: InputsLike) -> InputsLike:
    """Inputs of a model that is no network, to which whole numbers are numbers like others."""
    if isinstance(inputs, np.ndarray) and inputs.dtype.kind in "iub":
        return inputs.astype(np.float64)
    return inputs


def _packed(
    reading: _Reading, inputs: InputsLike, encoding: Encoding | None = None
) -> tuple[Tensor, Layout]:
    """Inputs as they are read for a field, and how they are arranged; a table through its
    ``encoding``, where it has one."""
    if encoding is not None:
        layout, x = Layout.encoded(encoding, inputs, reading.dtype)
    else:
        layout, x = Layout.packed(
            inputs, integers=reading.integers, dtype=reading.dtype, columns=reading.columns
        )
    _check_finite(x, layout, missing=reading.missing)
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
