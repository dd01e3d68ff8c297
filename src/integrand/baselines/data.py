"""Baselines sampled from data, without replacement and from a seed."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ..core.options import whole
from ..core.random import generator
from ..core.shapes import describe
from ..core.values import part
from ..errors import BaselineError
from ..fields import Field
from .base import Baseline, DataLike, InParts, References
from .fixed import as_numbers


def _read_examples(data: Tensor | DataLike, selection: Tensor | slice, x: Tensor) -> Tensor:
    """The entries ``selection`` of a tensor or a dataset; pairs (example, label) lose their label."""
    if isinstance(data, Tensor):
        rows = data[selection if isinstance(selection, slice) else selection.to(data.device)]
    else:
        numbers = (
            range(len(data))[selection] if isinstance(selection, slice) else selection.tolist()
        )
        items = [data[i] for i in numbers]
        rows = torch.stack(
            [torch.as_tensor(i[0] if isinstance(i, tuple | list) else i) for i in items]
        )
    if rows.shape[1:] != x.shape[1:]:
        raise BaselineError(
            f"The data to draw references from holds examples of shape {describe(rows.shape[1:])}, but the inputs have "
            f"{describe(x.shape[1:])}."
        )
    return as_numbers(rows, x)


@part
class Sample(InParts):
    """References drawn from data, the same for every example.

    Without replacement, unless told otherwise. Only what is used is read, when it is used.

    Args:
        data: a tensor (N, \\*s) or anything with ``len`` and ``[i]`` (a torch Dataset); pairs lose
            their label.
        count: R, how many are drawn; all of the data, in order, unless given.
        seed: of the draws.
        label: what reports call it.
        replace: whether the data may be gone through more than once, each time in another order.

    Raises:
        BaselineError: where more references are asked for than there is data.

    Example:
        >>> import torch, integrand as ig
        >>> model, x, pool = torch.nn.Linear(4, 3), torch.randn(2, 4), torch.randn(50, 4)
        >>> start = ig.baselines.Sample(pool, 5)
        >>> ig.explain(model, x, target="predicted", baseline=start).baselines.shape
        torch.Size([5, 2, 4])
    """

    data: Tensor | DataLike
    count: int | None = None
    seed: int = 0
    label: str = "sample"
    replace: bool = False

    resolution: ClassVar[str] = "count"

    @property
    def size(self) -> int:
        """R."""
        return len(self.data) if self.count is None else self.count

    def parts(self, x: Tensor) -> References:
        size = len(self.data)
        if not 0 < self.size <= (self.size if self.replace and size else size):
            raise BaselineError(
                f"{self.size} references cannot be drawn without replacement from {size} examples: give more data or a smaller count."
            )
        order: Tensor | None = None  # all, as they are
        if self.count is not None:
            stream = generator(self.seed)
            rounds = [torch.randperm(size, generator=stream) for _ in range(-(-self.count // size))]
            order = torch.cat(rounds)[: self.count]

        def make(part: slice) -> Tensor:
            # A slice of a tensor is no copy of it.
            rows = _read_examples(self.data, part if order is None else order[part], x)
            return rows[:, None].expand(-1, len(x), *x.shape[1:])

        return References(
            self.size, make, sampled=self.count is not None and self.count % size != 0
        )


@part
class Relevant(Baseline):
    """References from a pool whose predicted class is among the likely ones for the input.

    References near the decision at hand; the trick behind IG2's published ImageNet maps (arXiv
    2406.10852). Each example gets its own. Where fewer than ``count`` fit, the pool's other members
    fill up in order of how highly the model ranks their class for the input, never with the input's
    own class.

    Args:
        pool: inputs to choose from, (N, \\*s) or anything with ``len`` and ``[i]``; pairs lose
            their label.
        count: R, how many references.
        first: the highest of the model's ranks for the input that a class may have; 1 is its own
            class.
        last: the lowest of them.
        seed: of the choice among them.
        label: what reports call it.
        classes: the model's class of every member of the pool (N,), where it is known: the pool
            is then not run. Predicted unless given.

    Raises:
        BaselineError: where the pool holds too few of other classes, or ``classes`` is not one
            class for each of its members.

    Cost:
        One forward pass of the inputs, and of the pool where ``classes`` is not given.

    Example:
        >>> import torch, integrand as ig
        >>> model, x, pool = torch.nn.Linear(4, 3), torch.randn(2, 4), torch.randn(50, 4)
        >>> start = ig.baselines.Relevant(pool, 5)
        >>> ig.explain(model, x, target="predicted", baseline=start).baselines.shape
        torch.Size([5, 2, 4])
    """

    pool: Tensor | DataLike
    count: int = 8
    first: int = 2
    last: int = 4
    seed: int = 0
    label: str = "relevant"
    classes: Tensor | None = None

    resolution: ClassVar[str] = "count"

    def __post_init__(self) -> None:
        whole("count", self.count, least=1)

    def __call__(self, x: Tensor, field: Field) -> Tensor:
        pool, classes, ranks = _rank_classes(self.pool, self.classes, x, field, self.seed)
        place = (
            ranks[:, classes] + 1
        )  # (B, N): the rank that each pool member's class has for each input
        near = (place >= self.first) & (place <= self.last)
        order = torch.where(near, 0, place)
        return _pick_lowest(pool, order, place == 1, self.count, x, "relevant")


@part
class OtherClass(Baseline):
    """References from a pool that the model assigns to another class than the input.

    Each example gets its own.

    Args:
        pool: inputs to choose from, (N, \\*s) or anything with ``len`` and ``[i]``; pairs lose
            their label.
        count: R, how many references.
        seed: of the choice among them.
        label: what reports call it.
        classes: the model's class of every member of the pool (N,), where it is known: the pool
            is then not run. Predicted unless given.

    Raises:
        BaselineError: where the pool holds too few of other classes, or ``classes`` is not one
            class for each of its members.

    Cost:
        One forward pass of the inputs, and of the pool where ``classes`` is not given.

    References:
        The counterfactual references of IG2 (arXiv 2406.10852).

    Example:
        >>> import torch, integrand as ig
        >>> model, x, pool = torch.nn.Linear(4, 3), torch.randn(2, 4), torch.randn(50, 4)
        >>> start = ig.baselines.OtherClass(pool, 5)
        >>> ig.explain(model, x, target="predicted", baseline=start).baselines.shape
        torch.Size([5, 2, 4])
    """

    pool: Tensor | DataLike
    count: int = 8
    seed: int = 0
    label: str = "other class"
    classes: Tensor | None = None

    resolution: ClassVar[str] = "count"

    def __post_init__(self) -> None:
        whole("count", self.count, least=1)

    def __call__(self, x: Tensor, field: Field) -> Tensor:
        pool, classes, ranks = _rank_classes(self.pool, self.classes, x, field, self.seed)
        same = ranks[:, classes] == 0
        return _pick_lowest(pool, torch.zeros_like(ranks[:, classes]), same, self.count, x, "other")


def _rank_classes(
    data: Tensor | DataLike, known: Tensor | None, x: Tensor, field: Field, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The shuffled pool (N, \\*s), its predicted classes (N,), and each class's rank for each input
    (B, C)."""
    shuffled = torch.randperm(len(data), generator=generator(seed))
    pool = _read_examples(data, shuffled, x)
    outputs = field.outputs(x)
    if known is None:
        classes = field.outputs(pool, pool=True).argmax(1)
    else:
        classes = _checked_classes(known, len(pool), outputs.shape[1])[shuffled].to(x.device)
    ranks = outputs.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return pool, classes, ranks


def _checked_classes(given: Any, size: int, outputs: int) -> Tensor:
    """The classes that were given for a pool of ``size``, on the CPU.

    Raises:
        BaselineError: unless there is one for each member, below the number of outputs.
    """
    try:
        classes = torch.as_tensor(given).detach().cpu()
    except (ValueError, TypeError, RuntimeError) as error:
        raise BaselineError(
            f"classes= holds one whole number for each of the {size} members of the pool; got {given!r:.60}."
        ) from error
    if classes.shape != (size,) or classes.dtype not in _WHOLE:
        raise BaselineError(
            f"classes= holds one whole number for each of the {size} members of the pool; got {describe(classes.shape)} of {classes.dtype}."
        )
    if size and not 0 <= int(classes.min()) <= int(classes.max()) < outputs:
        raise BaselineError(
            f"classes= names classes from {int(classes.min())} to {int(classes.max())}, but the model has {outputs} outputs."
        )
    return classes.long()  # of bytes torch would make a mask


_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def _pick_lowest(
    pool: Tensor, order: Tensor, banned: Tensor, count: int, x: Tensor, kind: str
) -> Tensor:
    """For each example the ``count`` pool members of lowest ``order`` (B, N) that are not
    ``banned`` → (count, B, \\*s)."""
    left = int((~banned).sum(1).min())
    if left < count:
        raise BaselineError(
            f"{count} {kind} references were asked for, but the pool of {len(pool)} holds only {left} that the model gives "
            "another class than the input. Add images of other classes, or ask for fewer."
        )
    worst = order.max() + 1
    chosen = order.masked_fill(banned, int(worst)).argsort(dim=1, stable=True)[:, :count]
    return pool[chosen.T.reshape(-1)].reshape(count, *x.shape)
