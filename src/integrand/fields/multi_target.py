"""Several targets of one model as one field: every example appears once for each target.

    example b · T + t   is example b, asked about target t          (T targets, interleaved)

Along a path all T ask about the same points, one behind the other, so a call drops rows that repeat
their neighbour, runs the rest forward once, and goes backward once for each target: (1 + T) / 2T of
the work of T runs where forward and backward cost alike. Rows that differ (a method went its own
way for each target) are simply run; nothing has to be shared. Not every target need be asked at
every point: only those that are go backward.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..backprop.chords import ChordMode, eager
from ..core.row_hash import row_hashes
from ..core.segment import Curvature, Evaluation, Segment
from ..core.shapes import first_alike, flattened
from ..errors import InputError, TargetError
from ..model.batching import BatchSizer, is_out_of_memory
from ..model.network import Representation, Site, SiteLike
from ..model.replay import ReplayPlan
from ..model.row_independence import Answer
from ..targets import Distance, Target
from .base import Field
from .layer import LayerActivations, LayerField
from .torch import TorchField
from .views import CallCount, View

_SPREAD = 0x5851_F42D_4C95_7F2D  # times this, numbers of examples change a hash in all its bits


class MultiTarget(View):
    """F_t(z) = target_t(model(z)) for T targets; example b·T + t is example b of ``inner``, asked
    about target t.

    Cost of a point at which all T are asked: one forward pass and T backward passes.

    >>> import torch, integrand as ig
    >>> field = ig.fields.MultiTarget(ig.TorchField(torch.nn.Linear(3, 2), 0), [ig.targets.Logit(0), ig.targets.Logit(1)])
    >>> field.gradient(torch.zeros(4, 3).repeat_interleave(2, 0)).shape
    torch.Size([8, 3])
    """

    inner: TorchField

    def __init__(self, inner: TorchField, targets: Sequence[Target]) -> None:
        super().__init__(inner)
        self.targets = tuple(targets)
        self.fields = [inner.with_target(target) for target in self.targets]
        self.packer = _PerPoint(inner.packer, len(self.targets))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r}, {list(self.targets)!r})"

    def _index(self, index: Tensor) -> Tensor:
        return index // len(self.targets)

    def _like(self, inner: Field) -> MultiTarget:
        assert isinstance(inner, TorchField)
        view = type(self)(inner, self.targets)
        view.memory = self.memory
        return view

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        return self._evaluate(z, index, _begins(z, index // len(self.targets)), gradient=gradient)[
            0
        ]

    def curvature(self, z: Tensor, index: Tensor, directions: Tensor) -> Curvature:
        value, gradient = z.new_empty(len(z)), torch.empty_like(z)
        products = torch.empty_like(directions)
        for rows, field, example in self._by_target(index):
            part = field.curvature(z[rows], example, directions[:, rows])
            value[rows], gradient[rows], products[:, rows] = (
                part.value,
                part.gradient,
                part.products,
            )
        self._seen(z, index, value, gradient=True, passes=1 + len(directions))
        return Curvature(value, gradient, products)

    def attached(self, z: Tensor, index: Tensor) -> Evaluation:
        parts, places = [], []
        for rows, field, example in self._by_target(index):
            parts.append(field.attached(z[rows], example))
            places.append(rows)
        order = torch.cat(places).argsort()
        self._seen(z, index, gradient=True)
        return Evaluation(
            torch.cat([part.value for part in parts])[order],
            torch.cat([part.gradient for part in parts])[order],
        )

    def _by_target(self, index: Tensor) -> Iterator[tuple[Tensor, TorchField, Tensor]]:
        """Rows (n,) that are asked about each target, its field, and the examples they are of."""
        count = len(self.targets)
        for number, field in enumerate(self.fields):
            rows = (index % count == number).nonzero()[:, 0]
            if len(rows):
                yield rows, field, index[rows] // count

    def evaluate_both(
        self, z: Tensor, index: Tensor, other: Target, other_index: Tensor
    ) -> tuple[Evaluation, Evaluation]:
        if other.site is not None and not isinstance(other.site, Site):
            return Field.evaluate_both(self, z, index, other, other_index)
        begins = _begins(z, index // len(self.targets))
        if isinstance(other, Distance):
            begins[1:] |= _differ(other.goal[other_index.to(other.goal.device)]).to(begins.device)
        else:
            begins[:] = True
        main, extra = self._evaluate(z, index, begins, other=(other, other_index))
        assert extra is not None
        return main, extra

    def evaluate_chords(self, z: Tensor, index: Tensor, before: Tensor) -> Evaluation:
        target_of_row = index % len(self.targets)
        result, passes = _empty(z, gradient=True), 1
        chordal = torch.tensor([field.chordal for field in self.fields], device=z.device)[
            target_of_row
        ]
        if not bool(chordal.all()):
            rows = (~chordal).nonzero()[:, 0]
            points, origin, place = _with_origins(rows, before)
            _write_rows(
                result,
                rows,
                Field.evaluate_chords(self, z[points], index[points], origin),
                place,
                gradient=True,
            )
        # Chords that the same targets ask for take one forward pass.
        chord = _chords_of(z, index // len(self.targets), before)
        wanted = torch.zeros(len(z), len(self.targets), dtype=torch.bool, device=z.device)
        wanted[chord[chordal], target_of_row[chordal]] = True
        sets, member = torch.unique(wanted, dim=0, return_inverse=True)
        for number, targets in enumerate(sets):
            rows = (chordal & (member[chord] == number)).nonzero()[:, 0]
            if len(rows):
                passes = max(
                    passes,
                    self._together(
                        z, index, before, chord[rows], rows, targets.nonzero()[:, 0], result
                    ),
                )
        return replace(result, passes=passes)

    def share(self, segment: Segment) -> Tensor:
        return Field.share(self, segment)

    @property
    def target(self) -> None:  # type: ignore[override]
        """There are several."""

    @property
    def gated(self) -> bool:
        return any(field.gated for field in self.fields)

    def again(self, z: Tensor, index: Tensor) -> Answer:
        base, target_of_row = index // len(self.targets), index % len(self.targets)
        answer = self.inner.again_several(z, base, self.targets)
        return Answer(answer.value.gather(1, target_of_row[:, None])[:, 0], answer.outputs)

    @property
    def smooth(self) -> bool:
        return all(field.smooth for field in self.fields)

    def with_target(self, target: object) -> Field:
        raise TargetError(
            f"{len(self.targets)} targets are asked about already: ask the field that they were asked of."
        )

    def with_targets(self, targets: Sequence[Target]) -> Field:
        return self.with_target(targets)

    def points(self, index: Tensor) -> Tensor:
        begins = torch.ones(len(index), dtype=torch.bool, device=index.device)
        base = index // len(self.targets)
        begins[1:] = (base[1:] != base[:-1]) | (index[1:] <= index[:-1])
        return begins.cumsum(0) - 1

    def look(self, z: Tensor, index: Tensor | None, site: Representation | None = None) -> Tensor:
        if index is None:
            return self.inner.look(z, None, site)
        base = index // len(self.targets)
        begins = _begins(z, base)
        points = torch.split(begins.nonzero()[:, 0], self.packer.size(z[0], "value"))
        return torch.cat([self.inner.look(z[chunk], base[chunk], site) for chunk in points])[
            begins.cumsum(0) - 1
        ]

    def score(self) -> Field:
        return type(self)(self.inner, [target.score() for target in self.targets])

    @property
    def reads(self) -> bool:
        return all(field.reads for field in self.fields)

    def read(self, outputs: Tensor, index: Tensor) -> Tensor:
        base, target_of_row = index // len(self.targets), index % len(self.targets)
        values = torch.stack([field.read(outputs, base) for field in self.fields], 1)
        return values.gather(1, target_of_row[:, None].to(values.device))[:, 0]

    def questions(self, index: Tensor) -> Tensor:
        base, target_of_row = index // len(self.targets), index % len(self.targets)
        numbers = torch.stack([field.questions(base) for field in self.fields], 1)
        return numbers.gather(1, target_of_row[:, None])[:, 0] * len(self.targets) + target_of_row

    def example_name(self, example: int) -> str:
        base, number = divmod(example, len(self.targets))
        name = self.inner.example_name(base)
        return f"{name} of target {number} ({self.targets[number]!r})"

    def behind(self, site: SiteLike | Sequence[SiteLike], side: str = "output") -> Any:
        return SeveralBehind(self.inner.behind(site, side), self.targets)

    # ----------------------------------------------------------------------------------------------------------------

    def _together(
        self,
        z: Tensor,
        index: Tensor,
        before: Tensor,
        chord: Tensor,
        rows: Tensor,
        targets: Tensor,
        result: Evaluation,
    ) -> int:
        """Chords that the targets ``targets`` all ask for at ``rows``, from one forward pass; how
        many it took in the end."""
        base, target_of_row = index // len(self.targets), index[rows] % len(self.targets)
        points, origin, place = _with_origins(chord, before)
        chords = torch.unique(chord)
        if (
            self.packer.rows and len(points) > self.packer.rows and len(chords) > 1
        ):  # more points than were promised
            first = chord < chords[len(chords) // 2]
            halves = ((chord[half], rows[half]) for half in (first, ~first))
            return max(self._together(z, index, before, *half, targets, result) for half in halves)
        evaluations: Sequence[Evaluation | None]
        kinks = gates = True
        try:
            with eager(), ChordMode(origin) as mode:
                evaluations = self.inner.evaluate_several(
                    z[points], base[points], [self.targets[number] for number in targets]
                )
            kinks, gates = mode.kinks, mode.gates
            if mode.derived:
                evaluations = [None] * len(targets)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            evaluations = [None] * len(
                targets
            )  # one of them, or the model: each finds out for itself
        passes = 1
        for target, evaluation in zip(targets.tolist(), evaluations, strict=True):
            field = self.fields[target]
            field.kinks, field.gates = kinks, gates
            if evaluation is None or not field.adds_up(z[points], evaluation, origin):
                if evaluation is not None:
                    field.give_up(mode)
                evaluation = field.evaluate_chords(z[points], base[points], origin)
                passes = max(passes, 1 + evaluation.passes)
            mask = target_of_row == target
            _write_rows(result, rows[mask], evaluation, place[mask], gradient=True)
        return passes

    def _evaluate(
        self,
        z: Tensor,
        index: Tensor,
        begins: Tensor,
        *,
        other: tuple[Target, Tensor] | None = None,
        gradient: bool = True,
    ) -> tuple[Evaluation, Evaluation | None]:
        """Every target at the rows that ask for it, and ``other`` at all; one point for each row
        that begins one."""
        count = len(self.targets)
        base, target_of_row = index // count, index % count
        result, beside = (_empty(z, gradient=gradient) for _ in range(2))
        points = begins.nonzero()[:, 0]
        stops = torch.cat([points[1:], points.new_tensor([len(z)])])
        point = begins.cumsum(0) - 1
        # Where neighbours differ there are more points than a call should hold.
        size = self.packer.size(z[0], "gradient" if gradient else "value")
        for first in range(0, len(points), size):
            chunk = points[first : first + size]
            rows = slice(int(chunk[0]), int(stops[first : first + size][-1]))
            place = point[rows] - first
            targets = torch.unique(target_of_row[rows]).tolist()
            evaluations = self.inner.evaluate_several(
                z[chunk],
                base[chunk],
                [self.targets[number] for number in targets],
                beside=[] if other is None else [(other[0], other[1][chunk])],
                gradient=gradient,
            )
            for number, evaluation in zip(targets, evaluations, strict=False):
                target_rows = (target_of_row[rows] == number).nonzero()[:, 0]
                _write_rows(
                    result,
                    rows.start + target_rows,
                    evaluation,
                    place[target_rows],
                    gradient=gradient,
                )
            if other is not None:
                _write_rows(
                    beside,
                    torch.arange(rows.start, rows.stop, device=z.device),
                    evaluations[-1],
                    place,
                    gradient=gradient,
                )
        return result, None if other is None else beside


class SeveralBehind(MultiTarget):
    """Several targets of what comes behind a layer: ``MultiTarget``, with the lifting of
    ``LayerField``."""

    inner: LayerField

    @property
    def sites(self) -> tuple[Site, ...]:
        return self.inner.sites

    @property
    def plan(self) -> ReplayPlan:
        return self.inner.plan

    @property
    def bypassed(self) -> bool:
        return self.inner.bypassed

    @property
    def tally(self) -> CallCount:
        return self.inner.tally

    def lift(self, z: Tensor, index: Tensor) -> LayerActivations:
        """Rows lifted once for all targets; they come in groups of T that are alike."""
        count = len(self.targets)
        base = index // count
        begins = _begins(z, base)
        if len(z) % count or not torch.equal(
            begins, torch.arange(len(z), device=z.device) % count == 0
        ):
            raise InputError(
                "At a layer, several targets share their path: one that depends on the target needs a run for each target."
            )
        activations = self.inner.lift(z[::count], base[::count], self.targets)
        return LayerActivations(
            activations.points.repeat_interleave(count, 0),
            activations.value.reshape(-1),
            index,
            tuple(rows.repeat_interleave(count, 0) for rows in activations.kept),
        )

    def hold(self, *lifted: LayerActivations) -> None:
        """From now on, these groups of rows are the examples."""
        count = len(self.targets)
        groups = [part[::count] for part in lifted]
        self.inner.hold(
            *(
                LayerActivations(part.points, part.value, part.example // count, part.kept)
                for part in groups
            )
        )


class _PerPoint(BatchSizer):
    """Sizes in points, learnt for points at which ``count`` targets are asked."""

    def __init__(self, inner: BatchSizer, count: int) -> None:
        super().__init__(inner.rows)
        self.inner = inner
        self.count = count

    def _size(self, like: Tensor, kind: str) -> Any:
        return self.inner._size(like, f"{kind} x {self.count}")


def _begins(z: Tensor, base: Tensor) -> Tensor:
    """(N,) which rows are not what the row before them is."""
    begins = torch.ones(len(z), dtype=torch.bool, device=z.device)
    begins[1:] = (base[1:] != base[:-1]) | _differ(z)
    return begins


def _differ(z: Tensor) -> Tensor:
    """(N−1,) which rows differ from the one before them."""
    return flattened(z[1:] != z[:-1], 1).any(1)


def _first_equal_rows(z: Tensor, base: Tensor) -> Tensor:
    """(N,) for each row the first of the same example that is equal to the last bit."""
    code = row_hashes(flattened(z, 1)) + base * _SPREAD
    first = first_alike(code)
    alike = bool((z == z[first]).all()) and torch.equal(base, base[first])
    return first if alike else torch.arange(len(z), device=z.device)


def _chords_of(z: Tensor, base: Tensor, before: Tensor) -> Tensor:
    """(N,) for each row the first that is alike and comes after one that is."""
    row = _first_equal_rows(z, base)
    return first_alike(row * len(z) + row[before])


def _with_origins(rows: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Some rows and the ones before them, in order: all of these, what is before each among them,
    and where the rows are."""
    points = torch.unique(torch.cat([rows, before[rows]]))
    place = torch.full_like(before, -1)
    place[points] = torch.arange(len(points), device=points.device)
    origin = place[before[points]]
    return points, torch.where(origin < 0, place[points], origin), place[rows]


def _empty(z: Tensor, *, gradient: bool) -> Evaluation:
    return Evaluation(z.new_empty(len(z)), torch.empty_like(z) if gradient else z.new_empty(0))


def _write_rows(
    into: Evaluation, rows: Tensor, evaluation: Evaluation, source: Tensor, *, gradient: bool
) -> None:
    into.value[rows] = evaluation.value[source]
    if gradient:
        into.gradient[rows] = evaluation.gradient[source]


TorchField.several_targets = MultiTarget
