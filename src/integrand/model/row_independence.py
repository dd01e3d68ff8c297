"""Check that the model's output for a row does not depend on the other rows of the call, or on
chance.

    known   F of the rows of the first call        asked   F of two of them again, without the others

Everything above the field takes rows for independent: points of paths and examples share calls as
it suits. Of a graph's nodes, a batch's own statistics or a dropout that is left on this is not
true, and no error that is read off such numbers would say so. Two rows of the first call are
therefore asked about once more, once while a model is ready. Where their answers are others, some
more are asked to name the kind, and one warning says it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..errors import DependentRowsWarning, ModelError, StochasticModelWarning, TargetError, warn
from ..targets import output_tensor
from .recording import tensors_of

ROWS = 2
"""Rows that are asked about again, at most, of a model whose rows are independent."""

_PRECISION: tuple[tuple[torch.dtype, float], ...] = (
    (torch.bfloat16, 2e-2),
    (torch.float16, 5e-3),
    (torch.float32, 1e-4),
    (torch.float64, 1e-6),
)
"""What calls of other sizes may change of outputs in each type, relative to the largest: sums in
another order, other kernels."""
_USUAL = 16  # units in the last place of F that need no second look
_TENSOR_FLOAT = 3e-3  # … and of float32 on a GPU, where some kernels multiply with ten bits


_REMEDY = (
    "Where rows are the nodes of a graph or the steps of a sequence, make the whole of it one example: "
    "lambda z: torch.stack([model(g) for g in z]), with x[None]; graphs of several sizes: ig.fields.GraphField(model, graphs, target). Where each row is meant alone, batch_size=1 asks about one at a time."
)


@dataclass(frozen=True, eq=False)
class Answer:
    """F (N,) of rows in one call, or (N, T) for several targets, and the outputs it was read
    off."""

    value: Tensor
    outputs: Any

    @cached_property
    def rounding(self) -> float:
        """By how much rounding may change F from call to call."""
        return _rounding(self.outputs, self.value)


Ask = Callable[[Tensor, Tensor], Answer]
"""Rows (N, \\*s) and the examples they belong to (N,) → what the model says of them, in one
call."""


@dataclass(eq=False)
class RowCheck:
    """What is known of a model's rows since it was made ready.

    suspects  names the layers that are likely to mix rows and says what to do about them, or
              nothing
    asked     whether rows were asked about again
    verdict   why no map of this model can be right, in one sentence; nothing where its rows are
              independent
    """

    suspects: Callable[[], str]
    asked: bool = False
    verdict: str = ""
    _depth: int = field(default=0, repr=False)

    @property
    def unchecked(self) -> bool:
        """Whether there is a call of the library under way that has not asked yet."""
        return self._depth > 0 and not self.asked

    @contextmanager
    def during(self) -> Iterator[None]:
        """One call of the library, however often it is entered again."""
        if not self._depth:
            self.asked, self.verdict = False, ""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def check(
        self,
        ask: Ask,
        z: Tensor,
        index: Tensor,
        value: Tensor,
        *,
        most: int | None,
        whole: bool,
        example_name: Callable[[int], str],
    ) -> None:
        """Compare the answers ``value`` (N,) to rows ``z`` (N, \\*s) of one call with those to two
        of them.

        ``most`` rows go in a call where that was said: of one, only chance can tell answers apart.
        ``whole``: rows are whole numbers, between which there is nothing. ``example_name`` says
        what a message calls an example.
        """
        alone = most == 1
        places, rows = _chosen(z, alone=alone, whole=whole)
        if rows is None:  # nothing can be told by these; the next call will do
            return
        self.asked = True
        examples = index[places]
        examples = torch.cat([examples, examples[:1].expand(len(rows) - len(places))])
        rows, examples, first = _answered(ask, rows, examples, most)
        known, repeated = value[places], first.value[: len(places)].to(value)
        difference = (repeated - known).abs()
        largest = float(known.abs().max())
        if float(difference.max()) <= _USUAL * torch.finfo(known.dtype).eps * largest:
            return
        size = max(
            first.rounding, _relative(repeated) * (largest if math.isfinite(largest) else 0.0)
        )
        # What is not finite is not this check's to judge: it is told when it is evaluated.
        if not bool((difference > size).any()):
            return
        worst = int(difference.nan_to_num(0.0).argmax())
        self._explain_dependence(
            ask,
            (rows, examples),
            first,
            worst,
            float(known[worst]),
            count=len(z),
            alone=alone,
            whole=whole,
            example_name=example_name,
        )

    def _explain_dependence(
        self,
        ask: Ask,
        question: tuple[Tensor, Tensor],
        first: Answer,
        worst: int,
        known: float,
        *,
        count: int,
        alone: bool,
        whole: bool,
        example_name: Callable[[int], str],
    ) -> None:
        """Ask some more, to say what it is that the answer to row ``worst`` depends on: it was
        ``known`` in a call of ``count``."""
        rows, examples = question
        again = ask(rows, examples)
        answer = float(first.value[worst])
        if alone or bool(((again.value - first.value).abs() > first.rounding).any()):
            self._warn_of_chance(answer, known if alone else float(again.value[worst]))
            return
        # As many rows, but others, and the row behind them: what still has its answer depends on
        # the count alone.
        companions = rows[0] if whole else torch.lerp(rows[0], rows[1], 0.25)
        beside = torch.cat(
            [companions.expand(len(rows) - 1, *rows.shape[1:]), rows[worst : worst + 1]]
        )
        changed = ask(beside, examples[worst].expand(len(rows)))
        counted = count != len(rows) and abs(float(changed.value[-1]) - answer) <= first.rounding
        example = example_name(int(examples[worst]))
        self._warn_of_rows(example, (count, len(rows)), known, answer, counted=counted)

    def _warn_of_rows(
        self, example: str, rows: tuple[int, int], known: float, answer: float, *, counted: bool
    ) -> None:
        self.verdict = "The rows of this model depend on one another, as was warned of, and no baseline and no rule mends that."
        kind = "how many rows are in the call" if counted else "the other rows of the call"
        warn(
            f"What this model says of a row depends on {kind}: F of a point of {example} is {known:.4g} in a call of "
            f"{rows[0]} row{'s' * (rows[0] != 1)} and {answer:.4g} in one of {rows[1]}, so maps mix examples and points of paths. "
            f"{self.suspects() or _REMEDY}",
            DependentRowsWarning,
        )

    def _warn_of_chance(self, first: float, second: float) -> None:
        self.verdict = "This model rolls dice, as was warned of, and what it says by chance cannot be told from what a map misses."
        warn(
            f"This model rolls dice: asked twice about the same rows, it says {first:.4g} and {second:.4g}, and maps and their errors are "
            "those of chance. Switch dropout and noise off while explaining (F.dropout(h, training=self.training), .eval()), or "
            "draw the noise once outside the model.",
            StochasticModelWarning,
        )


def _answered(
    ask: Ask, rows: Tensor, examples: Tensor, most: int | None
) -> tuple[Tensor, Tensor, Answer]:
    """The rows, and what the model says of them: of ``most`` in turn, where it takes no fewer
    because it was made for so many."""
    try:
        return rows, examples, ask(rows, examples)
    except ModelError:
        if most is None or most <= ROWS:
            raise
    turn = torch.arange(most, device=rows.device) % ROWS
    rows, examples = rows[turn], examples[turn]
    return rows, examples, ask(rows, examples)


def _chosen(z: Tensor, *, alone: bool, whole: bool) -> tuple[Tensor, Tensor | None]:
    """Places of rows whose answers are known (at most two), and the rows to ask about: these, and
    another to ask about beside it."""
    count = len(z)
    last = torch.tensor([count - 1], device=z.device)
    if alone:
        return last, z[-1:] if bool(z[-1:].any()) else None  # dropout leaves zeros as they are
    # Not the first: nodes lie evenly around the middle, so that the mean of the two outermost is
    # the mean of all.
    places = torch.tensor([count - 1, count // 3], device=z.device)
    if count > ROWS and bool((z[places[1]] != z[-1]).any()):
        return places, z[places]
    if whole:
        return last, torch.stack([z[-1], z[0]])
    companion = (z[0] + z[-1]) / 2
    if bool((companion == z[-1]).all()):
        companion = z[-1] / 2
    return last, None if bool((companion == z[-1]).all()) else torch.stack([z[-1], companion])


def _rounding(outputs: object, scalars: Tensor) -> float:
    """By how much numbers read off these outputs may differ from call to call."""
    try:
        tensors = [output_tensor(outputs)]
    except TargetError:  # of which only the target knows how to read them
        tensors = tensors_of(outputs)[0]
    tensors = [
        tensor.detach()
        for tensor in (*tensors, scalars)
        if tensor.is_floating_point() and tensor.numel()
    ]
    largest = max(
        (float(tensor.abs().amax().nan_to_num(0.0, 0.0)) for tensor in tensors), default=0.0
    )
    return largest * max(map(_relative, tensors), default=0.0)


def _relative(numbers: Tensor) -> float:
    """What rounding does to numbers, by the coarsest type that holds them: a model may work in less
    than it returns."""
    for dtype, relative in _PRECISION:
        if numbers.dtype == dtype or bool((numbers.to(dtype).to(numbers.dtype) == numbers).all()):
            on_gpu = numbers.is_cuda and relative < _TENSOR_FLOAT and dtype == torch.float32
            return _TENSOR_FLOAT if on_gpu else relative
    return _PRECISION[-1][1]
