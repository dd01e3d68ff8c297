"""The Field: the scalar explained, the only thing that knows about a model.

One method is required, ``evaluate``: flat rows in, a value and a gradient per row out. Everything
else is a default that a field with more structure may beat: ``share`` for fields that know their
own integral (trees, Gaussian processes), ``evaluate_both`` for fields that can answer two questions
in one forward pass, ``look`` and ``site`` for models with insides. Each of these is one call; the
sugar below cuts any number of rows into calls of a good size.

Everything above the Field broadcasts; only the Field flattens and splits into calls that fit the
hardware. A rule describes its rows lazily (``stream``), so that a thousand nodes need no more
memory than ten.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..backprop.modified.base import BackwardRule
from ..core.normalisation import Normalisation
from ..core.segment import Curvature, Evaluation, Segment
from ..core.shapes import flattened
from ..errors import ModelError, NoHessian, NoShare, TargetError
from ..model.autograd import gradients
from ..model.batching import BatchSizer
from ..model.flow import LayerFlow
from ..model.layout import Layout
from ..model.network import Network, Representation, SiteLike, calm
from ..model.row_independence import Answer, RowCheck
from ..model.turns import turn
from ..targets import Distance, Target, TargetLike
from .memory import OutputCache

Rows = Callable[[slice], Tensor]


@dataclass(frozen=True, eq=False)
class SmoothPart:
    """What is left to integrate of a field with jumps.

    Attributes:
        field: smooth along the segment.
        segment: pieces of it, (K, R, B) as those of the whole, or all in a row (1, 1, N).
        row: (N,) which piece of the whole each is part of, numbered over (K, R, B); None where
            they are the same.
    """

    field: Field
    segment: Segment
    row: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Decomposition:
    """A field with jumps along a segment: their share (K, R, B, \\*s), and its smooth parts."""

    jumps: Tensor
    smooth: Sequence[SmoothPart]


class Field(ABC):
    """The scalar explained, as a function of one example; evaluated on rows.

    To write one, define ``evaluate``. ``normalisation`` says what image inputs look like, where
    that is known.
    """

    normalisation: Normalisation | None = None

    layout: Layout | None = None
    """How several inputs of a model are laid end to end in a row; None where a row is one input."""

    target: Target | None = None
    """What is asked of the model's outputs, numbering examples as this field does; None where F is
    no target of a model."""

    network: Network | None = None
    """The model behind F, with its layers; None for fields without one."""

    memory: OutputCache | None = None
    """What is known already of the inputs that are explained."""

    @property
    def kept(self) -> dict[Any, Any] | None:
        """Where parts keep what they know of F between their turns; None where nothing may be kept,
        because F may change meanwhile."""
        return None

    @property
    def row_check(self) -> RowCheck | None:
        """What is known of how rows that share a call depend on one another; None for fields that
        are right by construction."""
        return None

    @property
    def gated(self) -> bool:
        """Whether one part of the input may switch another on for a part of the way only: products
        of things that move, normalisations, functions that rise and fall. Taken to be so until
        chords were seen to meet none."""
        return True

    @property
    def smooth(self) -> bool:
        """Whether F is known to have no kinks, such as those of ReLUs and maxima; seldom known
        before chords were asked for."""
        return False

    @property
    def resolution(self) -> float:
        """How far apart, relatively, the numbers lie that F is computed in, as far as that was
        seen; 0 while it was not."""
        return 0.0

    @property
    def input_dtype(self) -> torch.dtype | None:
        """The type its inputs should have, where it is known: what the numbers of data frames and
        float64 arrays become."""
        return None

    @property
    def integers(self) -> bool:
        """Whether the inputs are integers, between which there is nothing."""
        return False

    @property
    def exact(self) -> bool:
        """Whether it knows its own integral along straight pieces: ``share`` is exact."""
        return False

    @property
    def flat(self) -> bool:
        """Whether F is constant but where it jumps, so that it has a share and no gradient."""
        return False

    @property
    def jumps(self) -> bool:
        """Whether F may jump, so that a gradient does not tell how it changes."""
        return self.flat

    @property
    def takes_missing(self) -> bool:
        """Whether features of an input may be missing (NaN)."""
        return False

    @property
    def sign_decides(self) -> bool:
        """Whether a model's only output may be the logit of a classifier, whose sign says what is
        predicted. False for fields that know what their outputs are, True where nothing tells."""
        return False

    @property
    def columns(self) -> Sequence[str]:
        """Names of the columns that its rows have, in their order, where it knows them: data frames
        are read in that order. Empty where it does not."""
        return ()

    @property
    def additive(self) -> Sequence[Any] | None:
        """Functions of one feature each whose sum F is, where it is known to be one: their
        expectations are then exact."""
        return None

    @property
    def conservative(self) -> bool:
        """Whether what it calls a gradient is that of F, so that its integral along a path is the
        change of F."""
        return True

    # --- required -------------------------------------------------------------------------------------------------

    @abstractmethod
    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        """F and ∇F for rows ``z`` (N, \\*s) of the examples ``index`` (N,), in one call.

        Args:
            z: (N, \\*s), in the type of the inputs.
            index: (N,) which example each row belongs to.
            gradient: whether ∇F is asked for.

        Returns:
            ``Evaluation(value (N,), gradient (N, \\*s))``, detached; an empty gradient where none
            was asked for.
        """

    # --- models it is made of ---------------------------------------------------------------------------------------

    @classmethod
    def adopts(cls, model: object) -> bool:
        """Whether a field of this class is what explains this model, once it is listed by
        ``fields.adopt``."""
        return False

    @classmethod
    def adopted(cls, model: object, target: Any) -> Field:
        """The field of a model that the class ``adopts``, and a target; None for the only
        output.

        Args:
            model: one that the class ``adopts``.
            target: what is explained; None for the only output.
        """
        raise ModelError(f"{cls.__name__} is not made of models.")

    # --- what structure may beat ----------------------------------------------------------------------------------

    def share(self, segment: Segment) -> Tensor:
        """The exact share (K, R, B, \\*s) of each piece, for fields that know it."""
        raise NoShare(
            f"{type(self).__name__} has no exact share: use a quadrature such as rule=ig.rules.GaussLegendre(50)."
        )

    def line_covariance(self, start: Tensor, end: Tensor, weights: Tensor) -> Tensor:
        """The covariance (B, n, n) of Σ_r w_r · share of the straight lines from ``start`` (R, B,
        \\*s) to ``end`` (B, \\*s), for fields that are random functions of a row alone;
        ``weights`` (R, B).

        Args:
            start: (R, B, \\*s), where the lines begin.
            end: (B, \\*s), where they end.
            weights: (R, B), of the references.

        Raises:
            NoShare: for fields that are no random functions.
        """
        raise NoShare(
            f"{type(self).__name__} is no random function, so that its attributions have no covariance: explain an ig.fields.GPField."
        )

    def decomposed(self, segment: Segment, index: Tensor) -> Decomposition | None:
        """The share of the jumps of F, and what is left to integrate; None for fields whose
        ``share`` is the whole, or that have none.

        ``index`` (B,) says which example each of the segment's B is.
        """
        return None

    def score(self) -> Field:
        """The same question as a number that can be halved: the probability of the class
        explained."""
        return self

    _subset: ClassVar[
        Any
    ]  # a view, which needs this class as its base: put here where it is defined

    def at(self, index: Tensor) -> Field:
        """This field for a batch made of the examples ``index``, in any order and with
        repetitions."""
        view: Field = self._subset(self, index)
        return view

    def points(self, index: Tensor) -> Tensor:
        """Rows of the examples ``index`` (N,), numbered from 0 by the point they may be at (N,).

        A field that asks several questions of one input holds it as several examples. Rows of these
        that follow one another have the same number: where they are also equal, they cost one
        forward pass. Elsewhere every row has its own.
        """
        return torch.arange(len(index), device=index.device)

    def questions(self, index: Tensor) -> Tensor:
        """The examples ``index`` (N,) numbered by what is asked of them (N,): equal numbers, one
        and the same function of rows.

        What is known of a point for one of them is then known for all. Every example asks a
        question of its own unless a field knows better.
        """
        return index

    def example_name(self, example: int) -> str:
        """What messages call an example of this field, by its number among those that its user
        gave: "example 3", and of a field that asks several questions of each which one it is."""
        return f"example {example}"

    def evaluate_both(
        self, z: Tensor, index: Tensor, other: Target, other_index: Tensor
    ) -> tuple[Evaluation, Evaluation]:
        """F and a second target for rows ``z`` (N, \\*s), both with gradients, in one call; one
        forward pass where possible.

        Args:
            z: (N, \\*s), in the type of the inputs.
            index: (N,) which example each row belongs to.
            other: the second target.
            other_index: (N,) what the second target looks each row up by.

        Returns:
            Both evaluations, F's first.
        """
        return self.evaluate(z, index), _function(z, other, other_index)

    def evaluate_chords(self, z: Tensor, index: Tensor, before: Tensor) -> Evaluation:
        """F at rows ``z`` (N, \\*s), and the mean gradient on the way to each from the row
        ``before`` it (N,), in one call.

        Where a row is before itself, its own gradient. The mean is that of the two ends unless a
        field knows better.

        Args:
            z: (N, \\*s), in the type of the inputs.
            index: (N,) which example each row belongs to.
            before: (N,) the row that each row's chord comes from; itself where a run begins.

        Returns:
            Values, and mean gradients in the gradients' place.
        """
        evaluation = self.evaluate(z, index)
        return Evaluation(evaluation.value, (evaluation.gradient + evaluation.gradient[before]) / 2)

    def curvature(self, z: Tensor, index: Tensor, directions: Tensor) -> Curvature:
        """F, ∇F and the products of its Hessian with ``directions`` (K, N, \\*s) at rows ``z`` (N,
        \\*s), in one call.

        Args:
            z: (N, \\*s), in the type of the inputs.
            index: (N,) which example each row belongs to.
            directions: (K, N, \\*s).

        Returns:
            ``Curvature(value (N,), gradient (N, \\*s), products (K, N, \\*s))``, detached.

        Raises:
            NoHessian: for fields without second derivatives.
        """
        raise NoHessian(
            f"{type(self).__name__} has no second derivatives: explain a torch model, or an ig.fields.Function."
        )

    def kinked_operations(self, z: Tensor, index: Tensor) -> tuple[str, ...]:
        """Names of the operations with kinks (ReLU, maxima …) that rows ``z`` (N, \\*s) go through,
        in one call: second derivatives see nothing of them. Empty where none are known."""
        return ()

    def attached(self, z: Tensor, index: Tensor) -> Evaluation:
        """``evaluate``, its gradient with the graph that leads to the parameters: what can be
        trained on, in one call. Called while the field is ``trainable``.

        Args:
            z: (N, \\*s), in the type of the inputs.
            index: (N,) which example each row belongs to.

        Returns:
            As of ``evaluate``, not detached.

        Raises:
            ModelError: for fields without parameters.
        """
        raise ModelError(
            f"{type(self).__name__} has no parameters that could be trained on its attributions: give a torch model."
        )

    def look(self, z: Tensor, index: Tensor | None, site: Representation | None = None) -> Tensor:
        """What is seen at ``site`` for rows ``z`` (N, \\*s), in one call: (N, F) there, or the
        model's outputs (N, C).

        Args:
            z: (N, \\*s), in the type of the inputs.
            index: (N,) which example each row belongs to; None for rows that belong to no example,
                such as a pool of references.
            site: where; the model's outputs for None.

        Raises:
            TargetError: for fields without outputs.
        """
        if site is None or not callable(site):
            raise TargetError(
                f"{type(self).__name__} has no class outputs to choose references by."
            )
        with gradients(False):
            activations: Tensor = site(z)
        return flattened(activations, 1)

    def site(
        self, representation: Representation | None, z: Tensor, index: Tensor
    ) -> Representation | None:
        """Where a representation is seen; ``z`` and ``index`` are a row to try the model with."""
        if not callable(representation):
            raise TargetError(
                f"{type(self).__name__} has no layers to take a representation from: "
                "give representation= a function of the input."
            )
        return calm(representation)

    def behind(self, site: SiteLike | Sequence[SiteLike], side: str = "output") -> Any:
        """The same scalar as a field over what comes out of a layer, or goes into it (``side``);
        see ``LayerField``.

        Args:
            site: a layer's name, the module, or an ``ig.fields.Site``; a list of them.
            side: the layer's "output", or its "input".

        Raises:
            ModelError: for fields without layers.
        """
        raise ModelError(
            f"{type(self).__name__} has no layers: explain one of a model, with ig.TorchField(model, target)."
        )

    def flow(self, z: Tensor, index: Tensor, direction: Tensor, sites: Sequence[Any]) -> LayerFlow:
        """How a move of rows ``z`` (N, \\*s) in a ``direction`` (N, \\*s) reaches F through the units
        of layers, in one call."""
        raise ModelError(
            f"{type(self).__name__} has no layers: explain one of a model, with ig.TorchField(model, target)."
        )

    def with_backward(self, rule: BackwardRule) -> Field:
        """The same scalar, its gradients from a backward pass that follows ``rule``
        (``ig.fields.GuidedReLU``, ``ig.fields.Patterns``)."""
        raise ModelError(
            f"{type(self).__name__} has no operations whose backward pass could follow a rule: explain a model, with "
            "ig.TorchField(model, target)."
        )

    def with_softplus(self, beta: float) -> Field:
        """The same question of a smoothed model: every ReLU a softplus log(1 + exp(β u))/β."""
        raise ModelError(
            f"{type(self).__name__} has no operations that could be smoothed: explain a model, with ig.TorchField(model, target)."
        )

    def with_target(self, target: TargetLike) -> Field:
        """The same model, asked something else; a target that says something for each example
        numbers them as this field does."""
        raise TargetError(
            f"{type(self).__name__} knows one question only: it is no target of a model."
        )

    def with_targets(self, targets: Sequence[Target]) -> Field:
        """The same model, asked T things at once: example b·T + t is example b, asked about target
        t."""
        raise TargetError(f"{type(self).__name__} knows one question only: leave targets= out.")

    def with_model(self, model: Callable[..., Any]) -> Field:
        """The same question, asked of another model of the same kind, such as a copy that was
        trained further."""
        raise ModelError(f"{type(self).__name__} has no model that another could stand in for.")

    def afresh(self) -> Field:
        """The same question of the model as it is now, without what was learnt of it before its
        parameters changed."""
        raise ModelError(f"{type(self).__name__} has no model whose parameters could have changed.")

    def plainly(self, z: Tensor, index: Tensor | None) -> Any:
        """The model's outputs for rows ``z`` (N, \\*s) in one call: of the model itself, also where
        a faster copy is run in its place.

        Whether autograd records is the caller's choice; ``index`` is None for rows that belong to
        no example.
        """
        raise ModelError(f"{type(self).__name__} has no model that could be run.")

    @property
    def reads(self) -> bool:
        """Whether F can be read off the model's outputs, so that they are worth remembering."""
        return False

    def read(self, outputs: Tensor, index: Tensor) -> Tensor:
        """F (N,) from the model's outputs (N, C) for rows of the examples ``index``, without
        running the model.

        Args:
            outputs: (N, C), what the model said.
            index: (N,) which example each row belongs to.

        Raises:
            TargetError: for fields that cannot be read off outputs.
        """
        raise TargetError(f"{type(self).__name__} has no class outputs to read F from.")

    @property
    def pooled(self) -> bool:
        """Whether inputs can be looked at that belong to no example."""
        return False

    def again(self, z: Tensor, index: Tensor) -> Answer:
        """F for rows ``z`` (N, \\*s) in one call, for fields that have a ``row_check`` to check."""
        raise TargetError(f"{type(self).__name__} has no model that could be asked again.")

    def trouble(self, start: Tensor, end: Tensor, index: Tensor) -> str | None:
        """Why the way from row ``start`` to row ``end`` (1, \\*s) of an example is hard to
        integrate, if the model tells."""
        return None

    def ready(self) -> AbstractContextManager[Any]:
        """While this lasts, the model is fit to be explained, and nothing else is; afterwards it is
        as it was."""
        return turn()

    def trainable(self) -> AbstractContextManager[Any]:
        """As ``ready``, and the parameters ask for gradients as they did before."""
        return turn()

    @cached_property
    def packer(self) -> BatchSizer:
        """How rows are cut into calls."""
        return BatchSizer()

    # --- sugar ----------------------------------------------------------------------------------------------------

    def stream(
        self,
        index: Tensor,
        rows: Rows,
        use: Callable[[slice, Evaluation], None],
        like: Tensor,
        *,
        gradient: bool = True,
        whole: int = 1,
    ) -> None:
        """Evaluate rows that are made when needed: ``use(part, evaluation of rows(part))`` until
        all ``index`` (N,) are done.

        Args:
            index: (N,) which example each row belongs to.
            rows: makes the rows of a slice.
            use: is given each slice and its evaluation.
            like: (\\*s) shows the shape of a row.
            gradient: whether ∇F is asked for.
            whole: so many rows are better not torn apart.
        """

        def call(part: slice) -> None:
            use(part, self.evaluate(rows(part), index[part], gradient=gradient))

        self._run(index, call, like, "gradient" if gradient else "value", whole)

    def together(
        self, z: Tensor, index: Tensor, other: Target, other_index: Tensor
    ) -> tuple[Evaluation, Evaluation]:
        """``evaluate_both`` for any number of rows.

        Args:
            z: (N, \\*s), in the type of the inputs.
            index: (N,) which example each row belongs to.
            other: the second target.
            other_index: (N,) what the second target looks each row up by.
        """
        pairs: list[tuple[Evaluation, Evaluation]] = []

        def call(part: slice) -> None:
            pairs.append(self.evaluate_both(z[part], index[part], other, other_index[part]))

        self._run(index, call, z[0], "both")
        main, extra = zip(*pairs, strict=True)
        return _joined(main), _joined(extra)

    def outputs(self, z: Tensor, *, pool: bool = False) -> Tensor:
        """What the model says of a batch ``z`` (B, \\*s), or of a pool of inputs that are no
        examples, before any target.

        Args:
            z: (B, \\*s).
            pool: whether they are inputs that are no examples.

        Returns:
            (B, C).
        """
        return self.looked(z, None if pool else torch.arange(len(z), device=z.device), None)

    def distance(
        self, goal: Tensor, index: Tensor, representation: Representation | None = None
    ) -> Distance:
        """The target ‖φ(z) − φ(goal)‖² for goals (M, \\*s) of the examples ``index`` (M,).

        Args:
            goal: (M, \\*s), inputs whose representation is the goal.
            index: (M,) the examples they are for.
            representation: φ: a layer, a function of the input, or the input of the last linear
                layer.
        """
        with self.ready():
            site = self.site(representation, goal[:1], index[:1])
            return Distance(self.looked(goal, index, site), site)

    def looked(self, z: Tensor, index: Tensor | None, site: Representation | None = None) -> Tensor:
        """``look`` for any number of rows."""
        parts: list[Tensor] = []

        def call(part: slice) -> None:
            parts.append(self.look(z[part], None if index is None else index[part], site))

        if index is None:
            self.packer.run(len(z), call, z[0], "value")
        else:
            self._run(index, call, z[0], "value")
        return torch.cat(parts)

    def stream_chords(
        self,
        index: Tensor,
        before: Tensor,
        rows: Callable[[Tensor], Tensor],
        use: Callable[[slice, Evaluation], None],
        like: Tensor,
    ) -> None:
        """Like ``stream``, for chords along runs of rows: each row's chord comes from a row before
        it.

        ``before`` (N,) says which, or the row itself where a run begins. Runs that are cut take the
        rows before the cut along again. These count among the rows that a call may hold; where it
        may hold one, there are gradients at both ends instead of chords.
        """

        if self.packer.rows == 1:
            self._stream_ends(index, before, rows, use, like)
            return
        point = self.points(index)
        width = len(index) // (int(point[-1]) + 1)
        positions = torch.arange(len(index), device=index.device)

        def call(part: slice) -> float:
            origin, needed = before[part], positions[part]
            again = torch.unique(origin[origin < part.start]) if part.start else needed[:0]
            place = origin
            if part.start:
                needed = torch.cat([again, needed])
                place = torch.searchsorted(needed, torch.cat([again, origin]))
            evaluation = self.evaluate_chords(rows(needed), index[needed], place)
            use(part, Evaluation(evaluation.value[len(again) :], evaluation.gradient[len(again) :]))
            # Most calls take a point along: where calls are small, one that does not would make its
            # size look better than it is.
            longer: float = (part.stop - part.start + width) / len(needed)
            return longer

        self._run(
            index,
            call,
            like,
            "chords",
            fitting=_fitting(point, before) if self.packer.rows else None,
        )

    def _stream_ends(
        self,
        index: Tensor,
        before: Tensor,
        rows: Callable[[Tensor], Tensor],
        use: Callable[[slice, Evaluation], None],
        like: Tensor,
    ) -> None:
        """``stream_chords`` a point at a time: the mean of the gradients at both ends, those that
        are needed later held so long."""
        positions = torch.arange(len(index), device=index.device)
        needed = torch.zeros_like(positions).scatter_reduce_(0, before, positions, "amax").tolist()
        origins = before.tolist()
        pending: dict[int, Tensor] = {}

        def call(part: slice) -> None:
            evaluation = self.evaluate(rows(positions[part]), index[part])
            part_rows = range(part.start, part.stop)
            pending.update(
                (row, evaluation.gradient[row - part.start])
                for row in part_rows
                if needed[row] >= row
            )
            chords = [
                (evaluation.gradient[row - part.start] + pending[origins[row]]) / 2
                for row in part_rows
            ]
            use(part, replace(evaluation, gradient=torch.stack(chords)))
            for row in [row for row in pending if needed[row] < part.stop]:
                del pending[row]

        self._run(index, call, like, "gradient")

    def _run(
        self,
        index: Tensor,
        call: Callable[[slice], float | None],
        like: Tensor,
        kind: str,
        group: int = 1,
        fitting: Callable[[int, int], int] | None = None,
    ) -> None:
        """``call`` on slices of rows that hold a good number of points, none of which is torn
        apart."""
        point = self.points(index)
        many = int(point[-1]) + 1
        if many == len(index):
            self.packer.run(many, call, like, kind, group, fitting)
            return
        stops = [0, *torch.bincount(point).cumsum(0).tolist()]

        def points(part: slice) -> float | None:
            return call(slice(stops[part.start], stops[part.stop]))

        self.packer.run(many, points, like, kind, int(point[group - 1]) + 1, fitting)

    def rows(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        """``evaluate`` for any number of rows.

        Args:
            z: (N, \\*s), in the type of the inputs.
            index: (N,) which example each row belongs to.
            gradient: whether ∇F is asked for.

        Returns:
            ``Evaluation(value (N,), gradient (N, \\*s))``.

        Cost:
            N rows, in as many calls as memory takes.
        """
        value = z.new_empty(len(z))
        slope = torch.empty_like(z) if gradient else z.new_empty(0)

        def use(part: slice, evaluation: Evaluation) -> None:
            value[part] = evaluation.value
            if gradient:
                slope[part] = evaluation.gradient

        if len(z):
            self.stream(index, lambda part: z[part], use, z[0], gradient=gradient)
        return Evaluation(value, slope)

    def value(self, z: Tensor, leading: int = 1) -> Tensor:
        """F for a batch (B, \\*s) → (B,), or for stacks of batches with ``leading`` axes: (…, B,
        \\*s) → (…, B).

        Args:
            z: (B, \\*s), or with more axes in front.
            leading: how many axes are in front of an example's; the last of them is that of
                examples.

        Returns:
            (B,), or (…, B).

        Cost:
            A row for each point.
        """
        return self._points(z, leading, gradient=False).value

    def ends(self, x: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        """F where paths end and where they start.

        Args:
            x: (B, \\*s), where they end.
            starts: (R, B, \\*s).

        Returns:
            (B,) and (R, B).

        Cost:
            A row for each point; of fields that methods are run on, in one call where they fit.
        """
        return self.value(x), self.value(starts, leading=2)

    def gradient(self, z: Tensor, leading: int = 1) -> Tensor:
        """∇F for a batch, or for stacks of batches with ``leading`` axes: (…, B, \\*s) → (…, B,
        \\*s).

        Args:
            z: (B, \\*s), or with more axes in front.
            leading: how many axes are in front of an example's; the last of them is that of
                examples.

        Returns:
            (B, \\*s), or (…, B, \\*s).

        Cost:
            A row with a gradient for each point.
        """
        return self._points(z, leading, gradient=True).gradient

    def _points(self, z: Tensor, leading: int, *, gradient: bool) -> Evaluation:
        shape = z.shape[:leading]
        index = torch.arange(shape[-1], device=z.device).expand(shape).reshape(-1)
        evaluation = self.rows(z.reshape(-1, *z.shape[leading:]), index, gradient=gradient)
        return (
            evaluation.reshape(*shape)
            if gradient
            else Evaluation(evaluation.value.reshape(shape), evaluation.gradient)
        )


def check_trainable(scalar: Tensor) -> None:
    """Check that a scalar of inputs that ask for no gradient has one, which then leads to
    parameters.

    Raises:
        ModelError: where it has none.
    """
    if not scalar.requires_grad:
        raise ModelError(
            "No parameter of the model asks for a gradient, so that there is nothing to train: leave create_graph=True out, or set "
            "requires_grad on what is trained."
        )


def _function(z: Tensor, target: Target, index: Tensor) -> Evaluation:
    """A target that looks at a function of the input, not at a model."""
    with gradients(True):
        leaf = z.clone().requires_grad_()
        scalars = target(target.site(leaf), index)
        (slope,) = torch.autograd.grad(scalars.sum(), leaf)
    return Evaluation(scalars.detach(), slope)


def _fitting(point: Tensor, before: Tensor) -> Callable[[int, int], int]:
    """How many of so many points from the first on fit into a call of so many, beside those that
    must be taken along."""
    begins = torch.searchsorted(
        point, torch.arange(int(point[-1]) + 2, device=point.device)
    ).tolist()

    def fitting(first: int, points: int) -> int:
        count = points
        while count > 1:
            origin = before[begins[first] : begins[first + count]]
            along = len(torch.unique(point[origin[origin < begins[first]]]))
            if along + count <= points:
                return count
            count = max(1, points - along)
        return count

    return fitting


def _joined(parts: Sequence[Evaluation]) -> Evaluation:
    return Evaluation(
        torch.cat([part.value for part in parts]), torch.cat([part.gradient for part in parts])
    )


def outputs_of(field: Field, x: Tensor) -> Tensor:
    """The model's outputs (B, C) for the inputs x (B, \\*s), remembered where they are the ones
    that are explained."""
    memory = field.memory
    if memory is None or memory.x is not x:
        return field.outputs(x)
    if memory.outputs is None:
        memory.outputs = field.outputs(x)
    return memory.outputs
