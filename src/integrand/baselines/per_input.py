"""Baselines of models with several inputs: computed for each input separately, or given for each.

    OfEach     what a baseline such as the mean colour is: never a mean over a picture and a row of
               columns
    PerInput   another baseline for each input

Rows of several inputs are laid end to end (``field.layout``); here they are cut up, and what is
made of the parts is joined again.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ..core.segment import Evaluation
from ..core.shapes import checked_references, describe
from ..core.values import part
from ..errors import BaselineError, InputError
from ..fields import Field
from ..model.layout import Layout
from ..model.network import Representation
from .adopt import as_baseline, distinct
from .base import Baseline, count_of, label_of


class OfEach(Baseline):
    """Base class of baselines computed from the input, for each of several inputs separately."""

    @abstractmethod
    def of(self, x: Tensor, field: Field) -> Tensor:
        """References (R, B, \\*s) for one input (B, \\*s)."""

    def __call__(self, x: Tensor, field: Field) -> Tensor:
        layout = field.layout
        if layout is None or layout.single:
            return self.of(x, field)
        return _by_input(x, field, layout, lambda key, rows, field: self.of(rows, field))


@part
class PerInput(Baseline):
    """A baseline for each of several inputs.

    ``PerInput((0.0, Mean()))``, or by name, ``PerInput({"image": Blurred(), "row": t})``.

        references = (references of the first input, of the second, …)          one for all where a part has only one

    Inputs that have several references each have them side by side: reference r of one with
    reference r of the other. Samples are drawn by their own seeds, so that equal seeds, counts and
    sizes of data draw the same rows.

    Args:
        baselines: a tuple, or a dict by the inputs' names: numbers, tensors (\\*s_i), (B, \\*s_i)
            or (R, B, \\*s_i), lists, baselines; None is zero.

    Raises:
        BaselineError: for parts with different numbers of references, for baselines that ask the
            model, and for other names.

    Example:
        >>> import torch, integrand as ig
        >>> starts = ig.baselines.PerInput((0.0, torch.tensor([1.0, 2.0])))
        >>> f = lambda a, b: a.sum(1) * b.sum(1)
        >>> inputs, target = (torch.ones(1, 3), torch.ones(1, 2)), ig.targets.Output()
        >>> ig.explain(f, inputs, target=target, baseline=starts).baselines[1].tolist()
        [[[1.0, 2.0]]]
    """

    baselines: tuple[Any, ...] | Mapping[Any, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.baselines, tuple | Mapping) or not self.baselines:
            raise BaselineError(
                "PerInput takes a tuple of baselines, one for each input, or a dict of them by name."
            )
        for entry in self._entries():
            if isinstance(entry, str):
                raise BaselineError(
                    f"PerInput takes baselines, numbers or tensors, not the name {entry!r}; ig.explain takes names: baseline=({entry!r}, …)."
                )

    def _entries(self) -> tuple[Any, ...]:
        entries = self.baselines
        return tuple(entries.values()) if isinstance(entries, Mapping) else entries

    @property
    def count(self) -> int | None:
        counts = [count_of(_as_baseline_or_zero(entry)) for entry in self._entries()]
        return None if None in counts else max(count for count in counts if count is not None)

    @property
    def label(self) -> str:
        return " + ".join(label_of(_as_baseline_or_zero(entry)) for entry in self._entries())

    def __call__(self, x: Tensor, field: Field) -> Tensor:
        layout = field.layout
        if layout is None or layout.single:
            raise BaselineError(
                "PerInput is for models with several inputs, in a tuple or a dict; this one has one."
            )
        entries = matched(self.baselines, layout)
        # Equal random parts are not the same draw twice.
        baselines = distinct([_as_baseline_or_zero(entry) for entry in entries.values()])
        by_key = dict(zip(entries, baselines, strict=True))
        return _by_input(x, field, layout, lambda key, rows, field: by_key[key](rows, field))


def matched(baselines: tuple[Any, ...] | Mapping[Any, Any], layout: Layout) -> dict[Any, Any]:
    """What was given for each input, by its name or number.

    Raises:
        InputError: for too many baselines, too few, or those of other inputs.
    """
    entries = (
        dict(enumerate(baselines)) if isinstance(baselines, tuple) else dict(baselines.items())
    )
    keys = layout.keys
    if set(entries) != set(keys):
        raise InputError(
            f"The baselines are for {sorted(map(str, entries))}, the inputs are {sorted(map(str, keys))}: give one for each."
        )
    return {key: entries[key] for key in keys}


def _as_baseline_or_zero(entry: object) -> Baseline:
    return as_baseline(0.0 if entry is None else entry)


def _by_input(
    x: Tensor, field: Field, layout: Layout, make: Callable[[Any, Tensor, Field], Tensor]
) -> Tensor:
    """References (R, B, \\*s) of rows laid end to end, ``make(key, part (B, *s_i), field)`` → (R_i,
    B, \\*s_i) for each input."""
    single_input, by_input = _SingleInputField(field), []
    for key, rows in zip(layout.keys, layout.split(x), strict=True):
        try:
            by_input.append(
                checked_references(
                    make(key, rows, single_input), rows, "The baseline", missing=field.takes_missing
                )
            )
        except BaselineError as error:
            raise BaselineError(f"Input {key!r}: {error}") from error
    most = max(map(len, by_input))
    if any(len(references) not in (1, most) for references in by_input):
        raise BaselineError(
            f"The inputs have {', '.join(str(len(references)) for references in by_input)} references: give each input as many, or one for all."
        )
    # References that are the same for all examples stay one.
    shared = all(references.stride(1) == 0 for references in by_input)
    parts = [references[:, :1] if shared else references for references in by_input]
    joint = layout.join([part.expand(most, *part.shape[1:]) for part in parts], 2)
    return joint.expand(-1, len(x), -1) if shared else joint


@part
class Own(Baseline):
    """References (R, B, \\*s_i) of the examples themselves, for one input among several."""

    references: Tensor

    @property
    def count(self) -> int:
        return len(self.references)

    def __call__(self, x: Tensor, field: Field) -> Tensor:
        return self.references.to(x)


class _SingleInputField(Field):
    """What a baseline of one input among several may know: how images look. The model takes all
    inputs together."""

    def __init__(self, field: Field) -> None:
        self.normalisation = field.normalisation

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        raise self._refusal(z)

    def look(self, z: Tensor, index: Tensor | None, site: Representation | None = None) -> Tensor:
        raise self._refusal(z)

    def _refusal(self, z: Tensor) -> BaselineError:
        return BaselineError(
            f"its baseline asks the model, which takes all inputs together and not rows of {describe(z.shape[1:])} alone: choose the "
            "references yourself, or one that asks nothing."
        )


def unlike(x: Tensor, who: str) -> None:
    """Refuse statistics over an example whose numbers are not of one kind: columns, and axes of
    which nobody knows which is which."""
    if x.ndim >= 4:
        return
    if x.ndim == 3:
        shape = describe(x.shape[1:])
        cure = (
            f"take it over the axis that is meant: x.mean(1, keepdim=True) is one for each of the {x.shape[2]} columns of an example {shape}, "
            f"x.mean(2, keepdim=True) one for each of its {x.shape[1]} rows; baseline=that.expand_as(x)"
        )
    else:
        cure = "give what a column usually is, as a tensor: data.mean(0) or data.median(0).values, over data like the inputs"
    raise BaselineError(
        f"{who} of an example would mix numbers of different kinds, such as age and income; {cure}."
    )
