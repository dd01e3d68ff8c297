"""Replay plan: which recorded tensors are needed behind a site, and how they are arranged by rows.

Two passes with different numbers of rows tell which axis of an output grows with the rows; a pass
that autograd follows tells which outputs reach the model's own without passing the site. Only those
are kept. In place of the others, whose values can make no difference, goes one row seen from many
sides (a view that takes no memory).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec

from ..core.shapes import describe
from ..errors import ModelError
from .layout import Layout
from .recording import DependencyProbe, Recording, Spot, no_place

INPUT = 0  # the number under which the model's own input is kept


@dataclass(frozen=True, eq=False)
class Variable:
    """One value among what a call returned.

    sample   as one row gave it
    axis     which axis holds the rows, None where it is the same for all; ``fold`` entries of it
             belong to each row
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
    leaves: tuple[Variable, ...] | None
    spec: TreeSpec | None


@dataclass(frozen=True, eq=False)
class Place:
    """One tensor that is explained, of one run of a layer.

    spot    number of the spot in the pass;  leaf: which of what was there
    module  whose run it is, and ``turn``: which of those that are left where only what is behind
            the first spot runs
    side    of the module;  site: number of the site, and ``run``: of the layer in the whole pass
    axis    of the tensor that numbers the rows
    """

    spot: int
    leaf: int
    module: nn.Module
    turn: int
    side: str
    site: int
    run: int
    axis: int

    def by_row(self, value: Tensor) -> Tensor:
        """The tensor with its rows in front (N, \\*L)."""
        return value.movedim(self.axis, 0)

    def as_it_was(self, rows: Tensor) -> Tensor:
        """Back from ``by_row``."""
        return rows.movedim(0, self.axis)


@dataclass(frozen=True, eq=False)
class ReplayPlan:
    """How to run what comes behind the first of some spots.

    calls     before it in the order they began, its own last where its output is explained
    entrance  the model's input
    places    every tensor that is explained, in the order in which they were met
    layout    how these lie end to end in one tensor (N, \\*L) or (N, n)
    maps      which places make up each map: the runs of one layer, where they have the same shape
    met       the spots in the order in which they were met
    heaviest  numbers per row in the largest output behind the first spot
    """

    calls: tuple[Planned, ...]
    entrance: Variable
    places: tuple[Place, ...]
    layout: Layout
    maps: tuple[tuple[int, ...], ...]
    met: list[Any]
    heaviest: int

    @classmethod
    def of(
        cls,
        single: Recording,
        probe: DependencyProbe,
        many: Recording,
        rows: int,
        *,
        whole_input: bool,
    ) -> ReplayPlan:
        """From a pass of one row that autograd followed, its input copied first, and a pass of
        ``rows`` rows."""
        _check_alike(single, many)
        needed = probe.reaching(single.outputs)
        calls = _planned(single, many, probe, needed, rows)
        places = tuple(_places(single, many, rows))
        first = single.spots[0]
        if (
            first.call is not None and first.call is single.calls[-1]
        ):  # what is explained is given, not kept
            explained = [
                place.leaf for place in places if single.spots[place.spot].call is first.call
            ]
            last_leaves = calls[-1].leaves
            assert last_leaves is not None
            changed = [
                dataclasses.replace(leaf, used=leaf.used and k not in explained)
                for k, leaf in enumerate(last_leaves)
            ]
            calls[-1] = dataclasses.replace(calls[-1], leaves=tuple(changed))
        entrance = Variable(
            probe.leaves[INPUT].detach(), 0, 1, needed[INPUT] or whole_input, probe.written(INPUT)
        )
        samples = [place.by_row(single.spots[place.spot].leaves[place.leaf]) for place in places]
        layout = Layout(
            None,
            tuple(tuple(sample.shape[1:]) for sample in samples),
            tuple(sample.dtype for sample in samples),
            len(samples) == 1,
        )
        return cls(
            tuple(calls),
            entrance,
            places,
            layout,
            _maps(places, layout),
            met(single),
            single.heaviest,
        )

    def cautious(self) -> ReplayPlan:
        """The same, keeping everything: for models in which values matter in ways that autograd
        does not see."""
        calls = tuple(
            dataclasses.replace(
                call,
                leaves=call.leaves
                and tuple(dataclasses.replace(leaf, used=True) for leaf in call.leaves),
            )
            for call in self.calls
        )
        return dataclasses.replace(
            self, calls=calls, entrance=dataclasses.replace(self.entrance, used=True)
        )

    def kept(self) -> Iterator[tuple[int, int, Variable]]:
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

    def points(self, tape: Recording) -> Tensor:
        """What is explained, as it was in a pass, end to end: (N, \\*L), or (N, n) of several
        places."""
        if met(tape) != self.met:
            raise ModelError(
                f"How often layer {tape.sites[0].name!r} runs, or what it is given, differs between inputs, so they cannot be explained "
                "there together. Name one run that all have in common (ig.fields.Site(layer, run=0)), or explain them one at a time."
            )
        parts = [place.by_row(tape.spots[place.spot].leaves[place.leaf]) for place in self.places]
        return self.layout.pack(parts[0] if self.layout.single else parts)

    def given(self, h: Tensor) -> dict[tuple[nn.Module, int, str], dict[int, Tensor]]:
        """``h`` (N, \\*L) taken apart: what goes where, by module, its turn and its side, and there
        by leaf."""
        parts = self.layout.unpack(h, 1, model=True)
        by_spot: dict[tuple[nn.Module, int, str], dict[int, Tensor]] = {}
        for place, part in zip(self.places, (parts,) if self.layout.single else parts, strict=True):
            # Pieces of one tensor may not be worked on in place, as a model may do with what it is
            # handed.
            value = place.as_it_was(part if self.layout.single else part.clone())
            by_spot.setdefault((place.module, place.turn, place.side), {})[place.leaf] = value
        return by_spot

    @property
    def size(self) -> int:
        """Numbers per row of what is explained."""
        return sum(int(torch.Size(shape).numel()) for shape in self.layout.shapes)

    def taken(self, tape: Recording, z: Tensor) -> tuple[Tensor, ...]:
        """What is kept of a pass of rows ``z`` (N, …), each with its rows in front: the input
        first."""
        rest = []
        for number, place, leaf in self.kept():
            leaves: Sequence[Any] = tape.calls[number].leaves or ()
            rest.append(leaf.by_row(leaves[place]))
        return (self.entrance.by_row(z) if self.entrance.used else z.new_empty(len(z), 0), *rest)


def met(tape: Recording) -> list[Any]:
    """Which runs of which layers were met in a pass, in their order, with what in them."""
    return [
        (spot.number, spot.run, spot.later, spot.call is None, spot.choice) for spot in tape.spots
    ]


def _check_alike(single: Recording, many: Recording) -> None:
    """Raises ``ModelError`` where a pass of one row and one of many differ in what runs."""
    if [(c.module, c.spec) for c in single.calls] != [(c.module, c.spec) for c in many.calls]:
        raise ModelError(
            f"Which layers run before {single.sites[0].name!r} depends on the numbers or on how many rows there are, so what they did "
            "for one input says nothing about others. Choose a layer before that decision."
        )
    if met(single) != met(many):
        raise ModelError(
            f"How often layer {single.sites[0].name!r} runs, or what with, depends on how many rows there are, so its runs cannot be told "
            "apart by row. Choose another layer, or one run (ig.fields.Site(layer, run=0))."
        )


def _planned(
    single: Recording, many: Recording, probe: DependencyProbe, needed: list[bool], rows: int
) -> list[Planned]:
    """The calls before the site, with the variables among their outputs."""
    calls = []
    for number, (call, many_call) in enumerate(zip(single.calls, many.calls, strict=True)):
        leaves = None
        if call.leaves is not None and many_call.leaves is not None:
            leaves = tuple(
                _leaf(
                    call.name,
                    sample,
                    value,
                    rows,
                    probe,
                    needed,
                    probe.where.get((number, place)),
                )
                for place, (sample, value) in enumerate(
                    zip(call.leaves, many_call.leaves, strict=True)
                )
            )
        calls.append(Planned(call.name, call.module, leaves, call.spec))
    return calls


def _places(single: Recording, many: Recording, rows: int) -> Iterator[Place]:
    """The tensors at every spot that have one entry per row, along whichever axis."""
    for number, (spot, many_spot) in enumerate(zip(single.spots, many.spots, strict=True)):
        axes = {
            leaf: _axis_of_rows(spot.leaves[leaf], many_spot.leaves[leaf], rows)
            for leaf in spot.choice
        }
        fitting = [leaf for leaf, axis in axes.items() if axis is not None]
        if not fitting:
            raise no_place(spot.site, rows, many_spot.leaves[spot.choice[0]])
        # A mask of minus infinities beside what is explained is no place on a way.
        finite = [leaf for leaf in fitting if bool(torch.isfinite(many_spot.leaves[leaf]).all())]
        for leaf in finite or fitting:
            axis = axes[leaf]
            assert axis is not None
            yield Place(
                number,
                leaf,
                spot.site.module,
                _turn(single, spot),
                spot.site.side,
                spot.number,
                spot.run,
                axis,
            )


def _axis_of_rows(sample: Tensor, value: Tensor, rows: int) -> int | None:
    """The one axis along which a value has as many entries as there are rows, where it had one for
    one row."""
    if sample.ndim != value.ndim:
        return None
    grown = [
        axis for axis, (a, b) in enumerate(zip(sample.shape, value.shape, strict=True)) if a != b
    ]
    return (
        grown[0]
        if len(grown) == 1 and (sample.shape[grown[0]], value.shape[grown[0]]) == (1, rows)
        else None
    )


def _turn(tape: Recording, spot: Spot) -> int:
    """Which of its layer's runs a spot is, where those that are inside noted calls do not
    happen."""
    calls = [call for call in tape.calls if call.module is spot.site.module]
    if spot.call is None:
        return len(calls) + spot.later
    return next(turn for turn, call in enumerate(calls) if call is spot.call)


def _maps(places: Sequence[Place], layout: Layout) -> tuple[tuple[int, ...], ...]:
    """Places by map: site by site, tensor by tensor; runs are added up where they have the same
    shape."""
    maps: list[tuple[int, ...]] = []
    for site in sorted({place.site for place in places}):
        site_places = [number for number, place in enumerate(places) if place.site == site]
        runs = [
            [n for n in site_places if places[n].run == run]
            for run in sorted({places[n].run for n in site_places})
        ]
        shapes = [[layout.shapes[n] for n in run] for run in runs]
        alike = all(shape == shapes[0] for shape in shapes)
        maps += list(zip(*runs, strict=True)) if alike else [(n,) for run in runs for n in run]
    return tuple(maps)


def _leaf(
    name: str,
    sample: Any,
    value: Any,
    rows: int,
    probe: DependencyProbe,
    needed: Sequence[bool],
    number: int | None,
) -> Variable:
    if not isinstance(sample, Tensor) or number is None:
        if sample != value:
            raise ModelError(
                f"Layer {name!r} returns {sample!r} for one row and {value!r} for {rows}: it cannot be handed out again."
            )
        return Variable(sample)
    written = probe.written(number)
    grown = [
        axis for axis, (a, b) in enumerate(zip(sample.shape, value.shape, strict=False)) if a != b
    ]
    if sample.ndim == value.ndim and not grown:
        return Variable(sample, written=written)
    if (
        sample.ndim != value.ndim
        or len(grown) > 1
        or value.shape[grown[0]] != rows * sample.shape[grown[0]]
    ):
        raise ModelError(
            f"Layer {name!r} returns {describe(sample.shape)} for one row and {describe(value.shape)} for {rows}, so its rows cannot "
            "be told apart. Choose a layer before it."
        )
    return Variable(sample, grown[0], sample.shape[grown[0]], needed[number], written)
