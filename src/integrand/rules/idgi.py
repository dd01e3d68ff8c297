"""IDGI: the change of F over each piece, distributed by the squared gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..core.segment import Evaluation, Segment
from ..core.shapes import over
from ..core.values import part
from ..errors import InputError
from ..fields import Field
from .base import Integrated, Rule, Table, row_picker
from .endpoints import filled, is_chained, moving_pieces


@part
class IDGI(Rule):
    """IDGI: the change of F over each of ``n`` equal pieces, distributed by the squared gradient.

    The gradient is taken at the start p_k of each piece p_k → p_{k+1}.

        share_i = Σ_k g_i(p_k)² / ‖g(p_k)‖² · (F(p_{k+1}) − F(p_k))

    Of each step only the part along the gradient counts, so within a piece all features have the
    sign of its ΔF. Shares add up to the change of F exactly, whatever n; the map itself is one of n
    pieces and changes with n. Goes with any path: on one that is cut into segments already
    (``Straight(50)``, ``Descent``), n = 1 takes its own. Where the gradient is exactly zero there
    is no direction to give credit along: nothing is given, and the change over that piece is left
    to the residual.

    Cost:
        n gradients, of which the path may have paid for the first; F comes free with them, and at
        the end of the last piece, where the path does not know it, for one value. Memory does not
        grow with n.

    References:
        Yang, Wang, Bilgic, "IDGI: A Framework to Eliminate Explanation Noise from Integrated
        Gradients", CVPR 2023.

    Example:
        >>> import torch, integrand as ig
        >>> method = ig.Method(rule=ig.rules.IDGI(4))
        >>> method(ig.fields.Linear(torch.tensor([1.0, 2.0])), torch.ones(1, 2)).values
        tensor([[0.6000, 2.4000]])
    """

    n: int = 1

    resolution: ClassVar[str] = "n"

    def __post_init__(self) -> None:
        if self.n < 1:
            raise InputError(f"A segment is cut into at least one piece, not {self.n}.")

    @property
    def gradients(self) -> int:
        """Gradients per segment, reference and example, of which the path may have paid for the
        first."""
        return self.n

    def table(self) -> Table:
        """Where gradients are looked at, and the part of the segment that each speaks for."""
        return tuple(q / self.n for q in range(self.n)), (1 / self.n,) * self.n

    def __call__(self, field: Field, segment: Segment) -> Integrated:
        node_values = _NodeValues.of(field, segment, self.n)
        share = segment.start.new_zeros(segment.start.shape).flatten(0, 2)
        self._stream(field, segment, node_values, share)
        if segment.at_start is not None:
            piece, path = node_values.moving.nonzero(as_tuple=True)
            first = _Nodes(piece, path, torch.zeros_like(piece))
            if len(piece):
                _add_credit(
                    share,
                    node_values,
                    first,
                    segment.at_start.gradient.flatten(0, 2)[first.place(node_values.paths)],
                )
        integrated = Integrated.ensure(share.reshape(segment.start.shape))
        return Integrated(
            integrated.share,
            integrated.error,
            node_values.begin.reshape(segment.leading),
            node_values.end.reshape(segment.leading),
        )

    def _stream(
        self, field: Field, segment: Segment, node_values: _NodeValues, share: Tensor
    ) -> None:
        """Credit at every node that the path has not paid for.

        From the last piece to the first: then F at the end of a piece is known when its gradient
        comes, and no gradient waits for it.
        """
        first = 0 if segment.at_start is None else 1
        free = node_values.moving[:, None].expand(-1, self.n - first, -1)
        piece, node, path = (numbers.flip(0) for numbers in free.nonzero(as_tuple=True))
        if not len(piece):
            return
        nodes = _Nodes(piece, path, node + first)
        begins, finishes = (
            row_picker(side, nodes.place(node_values.paths))
            for side in (segment.start, segment.end)
        )
        times = (torch.arange(self.n, dtype=torch.float64) / self.n).to(segment.start)

        def make(part: slice) -> Tensor:
            row = torch.arange(part.start, part.stop, device=piece.device)
            begin = begins(row)
            return torch.lerp(begin, finishes(row), over(times[nodes.at(part).node], begin))

        def use(part: slice, evaluation: Evaluation) -> None:
            chunk = nodes.at(part)
            node_values.values[node_values.place(chunk)] = evaluation.value
            _add_credit(share, node_values, chunk, evaluation.gradient)

        field.stream(
            path % segment.leading[2], make, use, segment.start[0, 0, 0], whole=node_values.paths
        )


@dataclass(frozen=True, eq=False)
class _Nodes:
    """Some nodes: which piece each is on (N,), on which of the R·B paths, and which of the piece's n
    it is."""

    piece: Tensor
    path: Tensor
    node: Tensor

    def at(self, part: slice) -> _Nodes:
        return _Nodes(self.piece[part], self.path[part], self.node[part])

    def place(self, paths: int) -> Tensor:
        """The piece and the path, numbered over (K, R·B)."""
        return self.piece * paths + self.path


@dataclass(frozen=True, eq=False)
class _NodeValues:
    """F at the nodes of all pieces that move, as far as it is known: the path's, what was asked
    for, and what came with gradients.

    Attributes:
        values: (K·(n+1)·R·B,) F at the n nodes of every piece and at its end, NaN where it is not
            known;  moving (K, R·B).
        after: (K, R·B) where F at the end of each piece stands: where the next piece that moves
            begins with it, the place of that.
    """

    n: int
    values: Tensor
    moving: Tensor
    after: Tensor

    @classmethod
    def of(cls, field: Field, segment: Segment, n: int) -> _NodeValues:
        """What the path has paid for, and F at ends that come with no gradient."""
        pieces, references, batch = segment.leading
        paths = references * batch
        moving = moving_pieces(segment)
        after = _next_places(segment, moving, n)
        value = segment.start.new_full((pieces, n + 1, paths), float("nan"))
        if segment.at_start is not None:
            value[:, 0] = segment.at_start.value.reshape(pieces, paths)
        if segment.at_end is not None:
            value[:, n] = segment.at_end.value.reshape(pieces, paths)
        else:
            wanted = moving & (after == _end_places(after, n))
            end_values = value[:, n].reshape(segment.leading)
            value[:, n] = filled(field, segment.end, end_values, wanted).reshape(pieces, paths)
        return cls(n, value.reshape(-1), moving, after)

    @property
    def paths(self) -> int:
        return self.moving.shape[1]

    @property
    def begin(self) -> Tensor:
        """F where each piece begins (K, R·B)."""
        return self.values.reshape(len(self.moving), self.n + 1, self.paths)[:, 0]

    @property
    def end(self) -> Tensor:
        """F where each piece ends (K, R·B)."""
        return self.values[self.after]

    def place(self, nodes: _Nodes) -> Tensor:
        """Where F at these nodes stands (N,)."""
        return (nodes.piece * (self.n + 1) + nodes.node) * self.paths + nodes.path

    def change(self, nodes: _Nodes) -> Tensor:
        """By how much F changes from each node to the one after it (N,)."""
        place = self.place(nodes)
        onward = torch.where(
            nodes.node == self.n - 1, self.after[nodes.piece, nodes.path], place + self.paths
        )
        return self.values[onward] - self.values[place]


def _add_credit(share: Tensor, node_values: _NodeValues, nodes: _Nodes, gradient: Tensor) -> None:
    """Each change of F, shared out along the gradient (N, \\*s) at the node before it."""
    credit = _squared_portions(gradient) * over(node_values.change(nodes), gradient)
    share.index_add_(0, nodes.place(node_values.paths), credit)


def _squared_portions(gradient: Tensor) -> Tensor:
    """g² / ‖g‖² per row (N, \\*s), zero where g is; scaled first, so that the squares of small
    gradients do not vanish."""
    flat = gradient.reshape(len(gradient), -1)
    largest = flat.abs().amax(1)
    squares = (flat / torch.where(largest > 0, largest, 1)[:, None]).square()
    return (squares / squares.sum(1, keepdim=True).clamp_min(1)).reshape(gradient.shape)


def _end_places(after: Tensor, n: int) -> Tensor:
    """Where F at the end of each piece stands in a table (K, n + 1, R·B) that has a place of its
    own for it."""
    pieces, paths = after.shape
    places = torch.arange(pieces * (n + 1) * paths, device=after.device)
    return places.reshape(pieces, n + 1, paths)[:, n]


def _next_places(segment: Segment, moving: Tensor, n: int) -> Tensor:
    """The same, but where the next piece that moves begins with it, the place of that: it comes
    free with its gradient."""
    pieces, paths = moving.shape
    own_places = _end_places(moving, n)
    if segment.at_end is not None or not is_chained(segment):
        return own_places
    number = torch.arange(pieces, device=moving.device)[:, None]
    coming = torch.where(moving, number, pieces).flip(0).cummin(0).values.flip(0)[1:]
    coming = torch.cat([coming, torch.full_like(own_places[:1], pieces)])
    path = torch.arange(paths, device=moving.device)
    return torch.where(coming < pieces, coming * (n + 1) * paths + path, own_places)
