"""What of a model's beginning must be handed out again behind a site, and how it is arranged by rows.

Two passes with different numbers of rows tell which axis of an output grows with the rows; a pass that autograd follows tells
which outputs reach the model's own without passing the site. Only those are kept. In place of the others, whose values can make no
difference, goes one row seen from many sides (a view that takes no memory).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import TreeSpec

from ..errors import ModelError
from ..shapes import describe
from .tape import Probe, Tape

INPUT = 0  # the number under which the model's own input is kept


@dataclass(frozen=True, eq=False)
class Leaf:
    """One value among what a call returned.

    sample   as one row gave it
    axis     which axis holds the rows, None where it is the same for all; ``fold`` entries of it belong to each row
    used     its value reaches the outputs without passing the site
    written  the model works on it in place: hand out a copy
    """

    sample: Any
    axis: int | None = None
    fold: int = 1
    used: bool = False
    written: bool = False

    def by_row(self, value: Tensor) -> Tensor:
        """The value with its rows in front (N, …)."""
        assert self.axis is not None
        before, after = value.shape[: self.axis], value.shape[self.axis + 1 :]
        return value.reshape(*before, -1, self.fold, *after).movedim(self.axis, 0)

    def as_it_was(self, rows: Tensor) -> Tensor:
        """Back from ``by_row``; a view of rows that are one row stays one."""
        assert self.axis is not None
        return rows.movedim(0, self.axis).flatten(self.axis, self.axis + 1)


@dataclass(frozen=True, eq=False)
class Planned:
    """A call before the site: its leaves, or None where it is run again."""

    name: str
    module: nn.Module
    leaves: tuple[Leaf, ...] | None
    spec: TreeSpec | None


@dataclass(frozen=True, eq=False)
class Plan:
    """How to run what comes behind a site.

    calls     before the site in the order they began, the site's own last where its output is explained
    entrance  the model's input
    place     which leaf of the site's is explained;  like: one row of it (1, \\*L)
    heaviest  numbers per row in the largest output behind the site
    """

    calls: tuple[Planned, ...]
    entrance: Leaf
    place: int
    like: Tensor
    heaviest: int

    @classmethod
    def of(cls, one: Tape, probe: Probe, many: Tape, rows: int, *, whole_input: bool) -> Plan:
        """From a pass of one row that autograd followed, its input copied first, and a pass of ``rows`` rows."""
        if [(c.module, c.spec) for c in one.calls] != [(c.module, c.spec) for c in many.calls]:
            raise ModelError(
                f"Which layers run before {one.site.name!r} depends on the numbers or on how many rows there are, so what they did "
                "for one input says nothing about others. Choose a layer before that decision."
            )
        needed = probe.reaching(one.outputs)
        calls = []
        for number, (call, other) in enumerate(zip(one.calls, many.calls, strict=True)):
            leaves = None
            if call.leaves is not None and other.leaves is not None:
                leaves = tuple(
                    _leaf(call.name, sample, value, rows, probe, needed, probe.where.get((number, place)))
                    for place, (sample, value) in enumerate(zip(call.leaves, other.leaves, strict=True))
                )
            calls.append(Planned(call.name, call.module, leaves, call.spec))
        if one.site.side == "output":  # what is explained is given, not kept
            own = calls[-1].leaves
            assert own is not None
            calls[-1] = dataclasses.replace(
                calls[-1],
                leaves=(*own[: one.place], dataclasses.replace(own[one.place], used=False), *own[one.place + 1 :]),
            )
        entrance = Leaf(probe.leaves[INPUT].detach(), 0, 1, needed[INPUT] or whole_input, probe.written(INPUT))
        return cls(tuple(calls), entrance, one.place, one.seen, one.heaviest)

    def cautious(self) -> Plan:
        """The same, keeping everything: for models in which values matter in ways that autograd does not see."""
        calls = tuple(
            dataclasses.replace(
                call, leaves=call.leaves and tuple(dataclasses.replace(leaf, used=True) for leaf in call.leaves)
            )
            for call in self.calls
        )
        return dataclasses.replace(self, calls=calls, entrance=dataclasses.replace(self.entrance, used=True))

    def kept(self) -> Iterator[tuple[int, int, Leaf]]:
        """(call, place, leaf) of everything whose rows are kept, the input aside."""
        for number, call in enumerate(self.calls):
            for place, leaf in enumerate(call.leaves or ()):
                if leaf.used and leaf.axis is not None:
                    yield number, place, leaf

    def wanted(self, number: int, module: nn.Module) -> tuple[bool, bool]:
        """Whether the output of the call of this number is kept, and whether as a copy."""
        call = self.calls[number] if number < len(self.calls) else None
        if call is None or call.module is not module or call.leaves is None:
            return False, False
        used = [leaf for leaf in call.leaves if leaf.used and leaf.axis is not None]
        return bool(used), any(leaf.written for leaf in used)

    def taken(self, tape: Tape, z: Tensor) -> tuple[Tensor, ...]:
        """What is kept of a pass of rows ``z`` (N, …), each with its rows in front: the input first."""
        rest = []
        for number, place, leaf in self.kept():
            leaves: Sequence[Any] = tape.calls[number].leaves or ()
            rest.append(leaf.by_row(leaves[place]))
        return (self.entrance.by_row(z) if self.entrance.used else z.new_empty(len(z), 0), *rest)


def _leaf(
    name: str, sample: Any, value: Any, rows: int, probe: Probe, needed: Sequence[bool], number: int | None
) -> Leaf:
    if not isinstance(sample, Tensor) or number is None:
        if sample != value:
            raise ModelError(
                f"Layer {name!r} returns {sample!r} for one row and {value!r} for {rows}: it cannot be handed out again."
            )
        return Leaf(sample)
    written = probe.written(number)
    grown = [axis for axis, (a, b) in enumerate(zip(sample.shape, value.shape, strict=False)) if a != b]
    if sample.ndim == value.ndim and not grown:
        return Leaf(sample, written=written)
    if sample.ndim != value.ndim or len(grown) > 1 or value.shape[grown[0]] != rows * sample.shape[grown[0]]:
        raise ModelError(
            f"Layer {name!r} returns {describe(sample.shape)} for one row and {describe(value.shape)} for {rows}, so its rows cannot "
            "be told apart. Choose a layer before it."
        )
    return Leaf(sample, grown[0], sample.shape[grown[0]], needed[number], written)
