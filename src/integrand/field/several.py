"""Several targets of one model, as one field: every example stands there once for each target.

    example b · T + t   is example b, asked about target t          (T targets, interleaved)

Along a path all T ask about the same points, one behind the other, so a call drops rows that repeat their neighbour, runs the rest
forward once, and goes backward once for each target: (1 + T) / 2T of the work of T runs where forward and backward cost alike.
Rows that differ (a method went its own way for each target) are simply run; nothing has to be shared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..segment import Evaluation
from ..target import Distance, Target
from .base import Field
from .network import Site
from .packing import Packer
from .site import Lifted, SiteField
from .torch import TorchField
from .wrap import Tally


class Several(Field):
    """F_t(z) = target_t(model(z)) for T targets; example b·T + t is example b of ``inner``, asked about target t.

    Cost of a point at which all T are asked: one forward pass and T backward passes.

    >>> import torch, integrand as ig
    >>> field = ig.fields.Several(ig.TorchField(torch.nn.Linear(3, 2), 0), [ig.targets.Logit(0), ig.targets.Logit(1)])
    >>> field.gradient(torch.zeros(4, 3).repeat_interleave(2, 0)).shape
    torch.Size([8, 3])
    """

    def __init__(self, inner: TorchField, targets: Sequence[Target]) -> None:
        self.inner = inner
        self.targets = tuple(targets)
        self.normalisation = inner.normalisation
        self.packer = _Groups(inner.packer, len(self.targets))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r}, {list(self.targets)!r})"

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        return self._evaluate(z, index, _begins(z, index // len(self.targets)), gradient=gradient)[0]

    def evaluate_both(
        self, z: Tensor, index: Tensor, other: Target, other_index: Tensor
    ) -> tuple[Evaluation, Evaluation]:
        if other.site is not None and not isinstance(other.site, Site):
            return super().evaluate_both(z, index, other, other_index)
        begins = _begins(z, index // len(self.targets))
        if isinstance(other, Distance):
            begins[1:] |= _differ(other.goal[other_index.to(other.goal.device)]).to(begins.device)
        else:
            begins[:] = True
        own, theirs = self._evaluate(z, index, begins, other=(other, other_index))
        assert theirs is not None
        return own, theirs

    def evaluate_chords(self, z: Tensor, index: Tensor, before: Tensor) -> Evaluation:
        # Runs of rows belong to one example each, so to one target: the chords of each target are taken apart.
        base, which = index // len(self.targets), index % len(self.targets)
        made = Evaluation(z.new_empty(len(z)), torch.empty_like(z))
        place = torch.empty_like(index)
        for number in torch.unique(which).tolist():
            rows = (which == number).nonzero()[:, 0]
            place[rows] = torch.arange(len(rows), device=index.device)
            field = self.inner.with_target(self.targets[number])
            found = field.evaluate_chords(z[rows], base[rows], place[before[rows]])
            made.value[rows], made.gradient[rows] = found.value, found.gradient
        return made

    def look(self, z: Tensor, index: Tensor | None, site: Any = None) -> Tensor:
        if index is None:
            return self.inner.look(z, None, site)
        base = index // len(self.targets)
        begins = _begins(z, base)
        size = max(1, self.packer.size(z[0], "value") // len(self.targets))
        points = torch.split(begins.nonzero()[:, 0], size)
        return torch.cat([self.inner.look(z[own], base[own], site) for own in points])[begins.cumsum(0) - 1]

    def site(self, representation: Any, z: Tensor, index: Tensor) -> Any:
        return self.inner.site(representation, z, index // len(self.targets))

    def score(self) -> Field:
        return type(self)(self.inner, [target.score() for target in self.targets])

    def behind(self, site: Any, side: str = "output") -> Any:
        return SeveralBehind(self.inner.behind(site, side), self.targets)

    def ready(self) -> AbstractContextManager[Any]:
        return self.inner.ready()

    # ----------------------------------------------------------------------------------------------------------------

    def _evaluate(
        self,
        z: Tensor,
        index: Tensor,
        begins: Tensor,
        *,
        other: tuple[Target, Tensor] | None = None,
        gradient: bool = True,
    ) -> tuple[Evaluation, Evaluation | None]:
        """Every target at the rows that ask for it, and ``other`` at all; one point for each row that begins one."""
        count = len(self.targets)
        base, which = index // count, index % count
        made, beside = (_empty(z, gradient=gradient) for _ in range(2))
        points = begins.nonzero()[:, 0]
        stops = torch.cat([points[1:], points.new_tensor([len(z)])])
        point = begins.cumsum(0) - 1
        # Where neighbours differ there are more points than a call should hold.
        size = max(1, self.packer.size(z[0], "gradient" if gradient else "value") // count)
        for first in range(0, len(points), size):
            own = points[first : first + size]
            rows = slice(int(own[0]), int(stops[first : first + size][-1]))
            here = point[rows] - first
            asked = torch.unique(which[rows]).tolist()
            found = self.inner.evaluate_several(
                z[own],
                base[own],
                [self.targets[number] for number in asked],
                beside=[] if other is None else [(other[0], other[1][own])],
                gradient=gradient,
            )
            for number, one in zip(asked, found, strict=False):
                mine = (which[rows] == number).nonzero()[:, 0]
                _put(made, rows.start + mine, one, here[mine], gradient=gradient)
            if other is not None:
                _put(beside, torch.arange(rows.start, rows.stop, device=z.device), found[-1], here, gradient=gradient)
        return made, None if other is None else beside


class SeveralBehind(Several):
    """Several targets of what comes behind a layer: ``Several``, with the lifting of ``SiteField``."""

    inner: SiteField

    @property
    def place(self) -> Site:
        return self.inner.place

    @property
    def bypassed(self) -> bool:
        return self.inner.bypassed

    @property
    def integers(self) -> bool:
        return self.inner.integers

    @property
    def tally(self) -> Tally:
        return self.inner.tally

    def lift(self, z: Tensor, index: Tensor) -> Lifted:
        """Rows lifted once for all targets; they come in groups of T that are alike."""
        count = len(self.targets)
        base = index // count
        begins = _begins(z, base)
        if len(z) % count or not torch.equal(begins, torch.arange(len(z), device=z.device) % count == 0):
            raise InputError(
                "At a layer, several targets share their path: one that depends on the target needs a run for each target."
            )
        made = self.inner.lift(z[::count], base[::count], self.targets)
        return Lifted(
            made.points.repeat_interleave(count, 0),
            made.value.reshape(-1),
            index,
            tuple(rows.repeat_interleave(count, 0) for rows in made.kept),
        )

    def hold(self, *lifted: Lifted) -> None:
        """From now on, these groups of rows are the examples."""
        count = len(self.targets)
        groups = [part[::count] for part in lifted]
        self.inner.hold(*(Lifted(part.points, part.value, part.example // count, part.kept) for part in groups))


class _Groups(Packer):
    """Rows in groups of ``count`` that are mostly one point; sizes are counted and learnt in points."""

    def __init__(self, inner: Packer, count: int) -> None:
        super().__init__(inner.rows)
        self.inner = inner
        self.count = count

    def size(self, like: Tensor, kind: str) -> int:
        return self.inner.size(like, f"{kind} x {self.count}") * self.count

    def run(self, total: int, call: Callable[[slice], None], like: Tensor, kind: str) -> None:
        def groups(part: slice) -> None:
            call(slice(part.start * self.count, min(total, part.stop * self.count)))

        self.inner.run(-(-total // self.count), groups, like, f"{kind} x {self.count}")


def _begins(z: Tensor, base: Tensor) -> Tensor:
    """(N,) which rows are not what the row before them is."""
    begins = torch.ones(len(z), dtype=torch.bool, device=z.device)
    begins[1:] = (base[1:] != base[:-1]) | _differ(z)
    return begins


def _differ(z: Tensor) -> Tensor:
    """(N−1,) which rows differ from the one before them."""
    return (z[1:] != z[:-1]).flatten(1).any(1)


def _empty(z: Tensor, *, gradient: bool) -> Evaluation:
    return Evaluation(z.new_empty(len(z)), torch.empty_like(z) if gradient else z.new_empty(0))


def _put(into: Evaluation, rows: Tensor, found: Evaluation, which: Tensor, *, gradient: bool) -> None:
    into.value[rows] = found.value[which]
    if gradient:
        into.gradient[rows] = found.gradient[which]
