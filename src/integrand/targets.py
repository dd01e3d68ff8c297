"""Targets: which scalar of the model's output is explained.

    target(outputs, index) -> (N,)          outputs for N rows; index (N,) says which example each
                                            row belongs to

Classes may differ between examples: they are looked up by ``index``. A target with a ``site`` looks
at something else than the model's output (a layer inside it); that is all a representation distance
is, and why it can share a forward pass with the class score. ``score()`` gives the same question as
a probability, which is what fitness and curves are measured on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from .core.choice import ChoiceLike as ChoiceLike
from .core.choice import Index as Index
from .core.choice import (
    check_length,
    checked_choice,
    choice_at,
    pick,
    scatter_choice,
    scatter_to_batch,
)
from .core.shapes import describe, flattened
from .core.values import part
from .errors import TargetError


def output_tensor(outputs: object) -> Tensor:
    """The tensor among a model's outputs.

    Itself, the "logits", the only tensor of a dict, or the first entry of a tuple.

    Raises:
        TargetError: where a dict leaves open which is meant, where no tensor is found, and for
            complex numbers.
    """
    tensor = outputs if isinstance(outputs, Tensor) else getattr(outputs, "logits", None)
    if tensor is None and isinstance(outputs, Mapping):
        tensor = _named_tensor(outputs)
    if tensor is None and isinstance(outputs, tuple | list) and outputs:
        tensor = outputs[0]
    if not isinstance(tensor, Tensor):
        raise TargetError(
            f"The model returned {type(outputs).__name__}, in which no tensor was found. "
            "Give target= a callable that takes these outputs and returns one number per row."
        )
    _check_real(tensor, "The model")
    return tensor


def _named_tensor(outputs: Mapping[Any, Any]) -> Tensor | None:
    """The "logits" of a dict of outputs, or its only tensor."""
    if isinstance(outputs.get("logits"), Tensor):
        logits: Tensor = outputs["logits"]
        return logits
    tensors = {name: entry for name, entry in outputs.items() if isinstance(entry, Tensor)}
    if len(tensors) > 1:
        shown = ", ".join(
            f"{name!r} ({describe(entry.shape[1:])} per row)" for name, entry in tensors.items()
        )
        name = next(iter(tensors))
        raise TargetError(
            f"The model returned several outputs, {shown}, and none is called 'logits': say which one is explained, by a model that returns "
            f"it, lambda *inputs: model(*inputs)[{name!r}], or by a target that takes all of them, target=lambda out: out[{name!r}][:, 0]."
        )
    return next(iter(tensors.values()), None)


def _check_real(numbers: Tensor, who: str) -> None:
    if numbers.is_complex():
        raise TargetError(
            f"{who} returned complex numbers ({str(numbers.dtype).removeprefix('torch.')}), of which none is larger than another: return "
            "their size (.abs()), or their real or imaginary part (.real, .imag)."
        )


class Target(ABC):
    """Base class of targets: which scalar is explained. Subclasses are frozen values."""

    site: Any = None
    """What is looked at instead of the model's output: a layer, or a function of the input."""

    by_row: ClassVar[bool] = False
    """Whether it reads outputs (N, …) that hold an entry for each of N rows; others know how to
    read outputs of their own."""

    linear: ClassVar[bool] = False
    """Whether it is a weighted sum of outputs, the weights the same whatever these are."""

    normalises: ClassVar[bool] = False
    """Whether it takes outputs for scores of classes whose softmax are their probabilities; a model
    that knows the probabilities hands it their logarithms."""

    @abstractmethod
    def __call__(self, outputs: Any, index: Tensor) -> Tensor:
        """Outputs for N rows, and the example each row belongs to → N numbers."""

    def located(self, locate: Callable[[Any], Any]) -> Target:
        """The same with its ``site`` found in a model: ``locate`` takes what the user named."""
        return self

    def score(self) -> Target:
        """The probability this target is about; itself where there is none."""
        return self

    def of_probabilities(self) -> Target:
        """The same question of a model whose outputs are the probabilities of classes already."""
        return self

    def at(self, index: Tensor) -> Target:
        """The target of the examples ``index`` of the batch."""
        return self

    @property
    def class_index(self) -> Index | None:
        """The class it is about, a class for each example (B,), or a position; None where it names
        none."""
        return None

    def with_class(self, index: Index) -> Target:
        """The same question about another class.

        Raises:
            TargetError: where it names no class.
        """
        raise TargetError(f"{self!r} is about no class that another could take the place of.")

    @property
    def per_example(self) -> str | None:
        """The name of what it holds for each example of a batch; None where it is the same for all,
        as are targets without an ``at()`` of their own."""
        return None if type(self).at is Target.at else "something"

    def check_batch(self, batch: int) -> None:  # noqa: B027  # most hold nothing for each example
        """Check that what it holds for each example is there for ``batch`` of them.

        Raises:
            TargetError: for tensors of another length.
        """

    def of_batch(self, index: Tensor) -> Target:
        """The target of a batch whose examples ``index`` (B,) it is of: what it says of one is
        looked up by its place in the batch.

        Raises:
            TargetError: where it says different things of one example that is there twice.
        """
        return self


def _class_outputs(outputs: object, name: str) -> Tensor:
    out = output_tensor(outputs)
    if out.ndim < 2:
        raise TargetError(
            f"{name} needs outputs with a class axis (rows, classes), but the model returned one number per row: use "
            "target=ig.targets.Output()."
        )
    return out


@part
class Output(Target):
    """The model's only number per row: F = f(x), outputs (N,), (N, 1) or (N, 1, …, 1).

    Of a classifier with one logit it is that logit: positive maps push towards class 1, for
    examples of class 0 too. ``PredictedSide`` turns it round for these.
    """

    by_row: ClassVar[bool] = True
    linear: ClassVar[bool] = True

    def __call__(self, outputs: object, index: Tensor) -> Tensor:
        out = output_tensor(outputs)
        if out.ndim > 1 and out.shape[1:].numel() == 1:
            out = flattened(out, 1)[:, 0]
        if out.ndim != 1:
            raise TargetError(
                f"Output() explains models with one number per row, but this one returned {describe(out.shape[1:])} for each. "
                "Name a class: target=3."
            )
        return out


@part
class PredictedSide(Target):
    """The side of a decision that each example is on, of models with one logit f per row.

        F = side · f,   side = 1 where f ≥ 0 (class 1 is predicted), −1 where f < 0 (class 0)

    What ``target="predicted"`` becomes there: positive maps push towards the class that was
    predicted, whichever it is. The side is that of the example, and stays along the way to it.

    Args:
        side: (B,) 1 or −1 for each example.

    Example:
        >>> import torch, integrand as ig
        >>> target = ig.targets.PredictedSide(torch.tensor([1, -1]))
        >>> target(torch.tensor([[0.3], [-2.0]]), torch.arange(2)).tolist()
        [0.30000001192092896, 2.0]
    """

    side: Tensor

    by_row: ClassVar[bool] = True
    linear: ClassVar[bool] = True

    def __post_init__(self) -> None:
        side = torch.as_tensor(self.side).detach()
        if side.ndim != 1 or not bool((side.abs() == 1).all()):
            raise TargetError("A side is 1 or -1 for each example, a tensor (B,).")
        object.__setattr__(self, "side", side.long())

    @classmethod
    def of(cls, outputs: Tensor) -> PredictedSide:
        """The side of each of B examples, from the model's outputs for them: (B,), (B, 1) or
        longer with one number in all."""
        return cls(torch.where(flattened(outputs, 1).reshape(-1) < 0, -1, 1))

    def __call__(self, outputs: object, index: Tensor) -> Tensor:
        logit = Output()(outputs, index)
        return logit * self.side[index.to(self.side.device)].to(logit)

    @property
    def per_example(self) -> str | None:
        return "side"

    def check_batch(self, batch: int) -> None:
        if len(self.side) != batch:
            raise TargetError(
                f"The target names {len(self.side)} sides for {batch} examples: give one for each."
            )

    def at(self, index: Tensor) -> Target:
        return replace(self, side=self.side[index.to(self.side.device)])

    def of_batch(self, index: Tensor) -> Target:
        side = scatter_to_batch(self.side, index)
        return replace(self, side=torch.where(side == 0, 1, side))  # of nobody: never looked up

    def score(self) -> Target:
        return SideProbability(self.side)


@part
class SideProbability(PredictedSide):
    """The probability of the side that each example is on: F = 1 / (1 + e^(−side · f))."""

    def __call__(self, outputs: object, index: Tensor) -> Tensor:
        return super().__call__(outputs, index).sigmoid()

    def score(self) -> Target:
        return self


@part
class _OfClass(Target):
    """A target about one class: an int, an int per example (B,), a position in a longer output, or
    a position per example (B, P)."""

    which: Index
    by_row: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "which", checked_choice(self.which))

    @property
    def of_classes(self) -> bool:
        """Whether it names classes, and not positions in a longer output."""
        return isinstance(self.which, int) or (
            isinstance(self.which, Tensor) and self.which.ndim == 1
        )

    @property
    def class_index(self) -> Index | None:
        return self.which

    def with_class(self, index: Index) -> Target:
        return replace(self, which=index)

    @property
    def per_example(self) -> str | None:
        return "which" if isinstance(self.which, Tensor) else None

    def at(self, index: Tensor) -> Target:
        return replace(self, which=choice_at(self.which, index))

    def check_batch(self, batch: int) -> None:
        check_length(self.which, batch)

    def of_batch(self, index: Tensor) -> Target:
        return replace(self, which=scatter_choice(self.which, index))

    def score(self) -> Target:
        # Which axis of a longer output holds the classes is not known: the number at a position is
        # its own score.
        return Probability(self.which) if self.of_classes else self


@part
class _OfSoftmax(_OfClass):
    """A target about a class's probability in a softmax.

    ``axis`` is the axis of the outputs that holds the classes, as torch counts it (rows are axis
    0); it must be named where one output has several axes: 1 for pictures (rows, classes, height,
    width), −1 for tokens (rows, tokens, classes).
    """

    axis: int | None = None
    normalises: ClassVar[bool] = True

    def score(self) -> Target:
        return Probability(self.which, self.axis)

    def _log_class_probabilities(self, outputs: object) -> Tensor:
        name = type(self).__name__
        return _log_probabilities(_class_outputs(outputs, name), self.axis, name)


def _log_probabilities(out: Tensor, axis: int | None = None, name: str = "") -> Tensor:
    """The log of the softmax over the classes, which lie along ``axis``; with a single axis after
    the rows, along that."""
    if axis is None and out.ndim > 2:
        shape = describe(out.shape[1:])
        raise TargetError(
            f"One output has shape {shape}, and a softmax over each of its axes is something else. Name the axis that holds the classes: "
            f"{name}(…, axis=1) for images (rows, classes, height, width), axis=-1 for tokens (rows, tokens, classes)."
        )
    axis = 1 if axis is None else axis
    if not -out.ndim < axis < out.ndim or axis % out.ndim == 0:
        raise TargetError(
            f"Axis {axis} holds no classes: the outputs have {out.ndim} axes, and axis 0 holds the rows; "
            f"give a number from 1 to {out.ndim - 1}, or a negative one."
        )
    if out.shape[axis] == 1:
        raise TargetError(
            "A softmax over one class is always 1. For a model with a single logit use a callable, "
            "e.g. target=lambda out: out[:, 0].sigmoid()."
        )
    return out.log_softmax(axis)


@part
class Logit(_OfClass):
    """The score of a class before the softmax: F = z_c."""

    linear: ClassVar[bool] = True

    def __call__(self, outputs: object, index: Tensor) -> Tensor:
        return pick(_class_outputs(outputs, "Logit"), self.which, index)


@part
class Probability(_OfSoftmax):
    """The softmax probability of a class: F = p_c = exp(z_c) / Σ exp(z), the sum over ``axis``.

    Args:
        which: the class: an int, a tensor of ints (B,), or a position (list of positions) where
            outputs have several axes.
        axis: which axis of one output the classes are on, needed only where it has several, such as
            (rows, tokens, classes): ``Probability((3, 7), axis=-1)``.

    Example:
        >>> import torch, integrand as ig
        >>> ig.targets.Probability(0)(torch.zeros(1, 2), torch.arange(1)).tolist()
        [0.5]
    """

    def __call__(self, outputs: object, index: Tensor) -> Tensor:
        return pick(self._log_class_probabilities(outputs), self.which, index).exp()

    def of_probabilities(self) -> Target:
        return Logit(self.which)


def _without_class(out: Tensor, choice: Index, index: Tensor) -> Tensor:
    """``out`` (N, C) with each row's own class at −∞."""
    column = torch.as_tensor(choice, device=out.device) % out.shape[1]
    column = (column.expand(len(out)) if column.ndim == 0 else column[index.to(out.device)])[
        :, None
    ]
    return out.scatter(1, column, float("-inf"))


@part
class LogOdds(_OfClass):
    """The log-odds of a class against all others.

    F = log p_c − log(1 − p_c) = z_c − logsumexp of the others
    """

    normalises: ClassVar[bool] = True

    def __call__(self, outputs: object, index: Tensor) -> Tensor:
        out = _class_outputs(outputs, "LogOdds")
        if out.ndim != 2:
            raise TargetError(
                "LogOdds explains outputs (rows, classes); use a callable for others."
            )
        out = _log_probabilities(out)
        return pick(out, self.which, index) - _without_class(out, self.which, index).logsumexp(1)


@part
class Lead(_OfClass):
    """The lead of a class over the best of the others.

        F = z_c − max_{k≠c} z_k, positive where the class is predicted

    Zero is the decision boundary of the class. Where several others are best, the slope is the mean
    of theirs.
    """

    def __call__(self, outputs: object, index: Tensor) -> Tensor:
        out = _class_outputs(outputs, "Lead")
        if out.ndim != 2 or out.shape[1] < 2:
            raise TargetError(
                f"Lead needs outputs (rows, classes) with two classes at least, but one output has shape {describe(out.shape[1:])}."
            )
        return pick(out, self.which, index) - _without_class(out, self.which, index).amax(1)


@part
class Margin(Target):
    """How far one class is ahead of another: F = z_c − z_d.

    Args:
        which: c, the class: an int, a tensor of ints (B,), or a position (list of positions) where
            outputs have several axes.
        other: d, likewise.

    Example:
        >>> import torch, integrand as ig
        >>> ig.targets.Margin(0, 1)(torch.tensor([[3.0, 1.0]]), torch.arange(1)).tolist()
        [2.0]
    """

    which: Index
    other: Index
    by_row: ClassVar[bool] = True
    linear: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "which", checked_choice(self.which))
        object.__setattr__(self, "other", checked_choice(self.other))

    def __call__(self, outputs: object, index: Tensor) -> Tensor:
        out = _class_outputs(outputs, "Margin")
        return pick(out, self.which, index) - pick(out, self.other, index)

    def check_batch(self, batch: int) -> None:
        check_length(self.which, batch)
        check_length(self.other, batch)

    @property
    def class_index(self) -> Index | None:
        return self.which

    def with_class(self, index: Index) -> Target:
        return replace(self, which=index)

    @property
    def per_example(self) -> str | None:
        choices = {"which": self.which, "other": self.other}
        return next((name for name, choice in choices.items() if isinstance(choice, Tensor)), None)

    def at(self, index: Tensor) -> Target:
        return Margin(choice_at(self.which, index), choice_at(self.other, index))

    def of_batch(self, index: Tensor) -> Target:
        return Margin(scatter_choice(self.which, index), scatter_choice(self.other, index))

    def score(self) -> Target:
        return Logit(self.which).score()


@part
class Loss(_OfSoftmax):
    """The cross-entropy of a label: F = −log p_c. Attributions say what raises the loss.

    Args:
        which: the class: an int, a tensor of ints (B,), or a position (list of positions) where
            outputs have several axes.
        axis: which axis of one output the classes are on, needed only where it has several, such as
            (rows, tokens, classes): ``Loss((3, 7), axis=-1)``.

    Example:
        >>> import torch, integrand as ig
        >>> ig.targets.Loss(0)(torch.zeros(1, 2), torch.arange(1)).exp().round(decimals=3).tolist()
        [2.0]
    """

    def __call__(self, outputs: object, index: Tensor) -> Tensor:
        return -pick(self._log_class_probabilities(outputs), self.which, index)


@part
class Predicted(_OfClass):
    """Whether a class is predicted: F = 1 where no other has a larger output, else 0.

    It has no slope; curves are measured with it.
    """

    def __call__(self, outputs: object, index: Tensor) -> Tensor:
        out = _class_outputs(outputs, "Predicted")
        pick(out, self.which, index)  # whether there is such a class
        if out.ndim != 2 or out.shape[1] < 2:
            raise TargetError(
                f"Predicted needs outputs (rows, classes) with two classes at least, but one output has shape {describe(out.shape[1:])}."
            )
        classes = (
            self.which[index.to(self.which.device)].to(out.device)
            if isinstance(self.which, Tensor)
            else self.which
        )
        return (out.argmax(1) == torch.as_tensor(classes, device=out.device) % out.shape[1]).to(
            out.dtype
        )


@part
class Custom(Target):
    """A user's function of the model's outputs, row by row.

        F = function(outputs) or function(outputs, data[index])

    Args:
        function: of the outputs of however many rows fit into one model call, never of a whole
            batch, to one number per row.
        data: (B, …) what differs between examples; the rows' own entries are handed over.

    Example:
        >>> import torch, integrand as ig
        >>> goals = torch.randn(5, 3)
        >>> far = ig.targets.Custom(lambda out, goal: (out - goal).square().sum(1), goals)
        >>> ig.explain(torch.nn.Linear(4, 3), torch.randn(5, 4), target=far).values.shape
        torch.Size([5, 4])
    """

    function: Callable[..., Tensor]
    data: Tensor | None = None

    def __call__(self, outputs: object, index: Tensor) -> Tensor:
        row_data = () if self.data is None else (self.data[index.to(self.data.device)],)
        numbers = self.function(outputs, *row_data)
        if isinstance(numbers, Tensor):
            _check_real(numbers, "The target function")
        return numbers

    def check_batch(self, batch: int) -> None:
        if isinstance(self.data, Tensor) and len(self.data) != batch:
            raise TargetError(
                f"The target's data has {len(self.data)} entries for {batch} examples."
            )

    @property
    def per_example(self) -> str | None:
        return None if self.data is None else "data"

    def at(self, index: Tensor) -> Target:
        if self.data is None:
            return self
        return Custom(self.function, self.data[index.to(self.data.device)])

    def of_batch(self, index: Tensor) -> Target:
        return (
            self if self.data is None else Custom(self.function, scatter_to_batch(self.data, index))
        )


@part
class Distance(Target):
    """The squared distance of a representation from a goal, the objective that IG2 descends.

        F = ‖φ(z) − goal‖²

    Args:
        goal: (M, F) φ(reference) of M pairs of example and reference, looked up by the rows' index.
        site: φ: a layer, or a function of the input; the model's outputs unless given.

    Example:
        >>> import torch, integrand as ig
        >>> distance = ig.targets.Distance(torch.zeros(2, 3))
        >>> distance(torch.ones(2, 3), torch.arange(2)).tolist()
        [3.0, 3.0]
    """

    goal: Tensor
    site: Any = None

    def __call__(self, outputs: object, index: Tensor) -> Tensor:
        representation = flattened(output_tensor(outputs), 1)
        return (representation - self.goal[index.to(self.goal.device)]).square().sum(1)

    @property
    def per_example(self) -> str | None:
        return "goal"

    def at(self, index: Tensor) -> Target:
        return replace(self, goal=self.goal[index.to(self.goal.device)])


@part
class Unit(Target):
    """A unit inside the model: F = h_index(z), h what comes out of a layer.

    Args:
        site: a layer by name, the module itself, or an ``ig.fields.Site`` (``side="input"`` for
            what goes in).
        index: which unit: an int for layers (N, H), a position for others, (channel, row, column),
            or one of these for each example.

    Raises:
        UnknownName: for the layer, when it meets a model.

    Example:
        >>> import torch, integrand as ig
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
        ... )
        >>> ig.explain(model, torch.randn(5, 4), target=ig.targets.Unit("1", 6)).values.shape
        torch.Size([5, 4])
    """

    site: Any = None
    index: Index = 0

    by_row: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.site is None:
            raise TargetError("A unit is one of a layer: Unit('layer', 3).")
        object.__setattr__(self, "index", checked_choice(self.index))

    def __call__(self, outputs: object, index: Tensor) -> Tensor:
        activations = output_tensor(outputs)
        if activations.ndim < 2:
            raise TargetError(
                "A unit is one of several numbers in a layer, and this layer gives one number per row: name no unit, but the layer's "
                "output by a callable."
            )
        return pick(activations, self.index, index)

    def located(self, locate: Callable[[Any], Any]) -> Target:
        return replace(self, site=locate(self.site))

    def at(self, index: Tensor) -> Target:
        return replace(self, index=choice_at(self.index, index))

    def check_batch(self, batch: int) -> None:
        check_length(self.index, batch)

    def of_batch(self, index: Tensor) -> Target:
        return replace(self, index=scatter_choice(self.index, index))


TargetLike = Target | ChoiceLike | Callable[..., Tensor] | str
"""What ``target=`` takes: a class, one for each example, a position, a ``Target``, a function of
the outputs, or the word "predicted" where the inputs are known."""


def as_target(target: TargetLike) -> Target:
    """Convert an int, a tensor of ints, a position or a callable to a ``Target``."""
    if isinstance(target, Target):
        return target
    if isinstance(target, str):
        raise TargetError(
            f"Target {target!r} is not known here. 'predicted' works in ig.explain, which knows the inputs; "
            "otherwise give a class, a tensor of classes, an ig.targets value or a callable."
        )
    if callable(target) and not isinstance(target, Tensor):
        return Custom(target)
    return Logit(checked_choice(target))
