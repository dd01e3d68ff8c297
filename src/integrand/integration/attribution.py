"""The result of an explanation, and the base classes of everything that explains.

A value, not an explainer: nothing here computes an attribution. Pictures, pages and files are made
by the floors above, reached only when they are asked for.
"""

from __future__ import annotations

import dataclasses
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any, Protocol

import torch
from torch import Tensor

from ..core.declared import Part, Stranger, check_callable, declared
from ..core.frames import Table, checked_names
from ..core.normalisation import Normalisation
from ..core.optional import room
from ..core.shapes import ROUNDING, copied, describe, flattened, total
from ..errors import InputError
from ..fields import Field
from ..fields.views import CallCount
from ..model.layout import Layout
from ..rules.base import as_rule
from ..targets import Target
from .cost import Cost
from .loop import Frames

INCOMPLETE = 0.1
"""Maps with a larger gap are warned of."""

NO_GAP = 0.01
"""Up to this a map adds up, whether its method claims it or not."""

Parts = Any  # a tensor, or a tuple or dict of tensors, as the inputs were


@dataclass(frozen=True, eq=False)
class Attribution:
    """What each feature contributed to F(x), for B examples, with its measured completeness,
    estimated error and cost.

        values = Σ_r weights_r · shares_r          Σ values + residual = F(x) − Σ_r weights_r ·
                                                   F(start_r)

    Attributes:
        values: (B, \\*s), arranged as the inputs were (a tuple or dict of tensors for such inputs).
        inputs: (B, \\*s), what was explained.
        output: (B,) F(x).
        weights: (R, B); columns add up to one.
        change: (R, B) F(x) − F(start_r), measured where each path really began.
        residual: (B,) what the map misses of the change, in units of F.
        error: (B,) the relative L2 error of ``values`` that the rule itself estimates, errors of
            pieces and of different references taken as independent; NaN for rules that estimate
            none. Where chance decides (random nodes, references that are drawn until they are
            enough) an upper bound that holds for 95 of 100 maps; infinite where too few draws tell
            nothing. An estimate knows F and its gradients at the points that were looked at: what
            begins and ends between two of them (an eighth of the path at most where parts of the
            model multiply each other, a quarter elsewhere) leaves no trace in it. Nor does it know
            how wrong the model's own rounding is.
        converged: (B,) whether the tolerance was met: ``error`` of the map as a whole is at most
            that; without one, whether the residual is at most a tenth of the change, and ``error``,
            where it is known, at most a tenth.
        shares: (R, B, \\*s) the map of each reference alone, or None when it was not kept
            (``record=("shares",)`` keeps it).
        baselines: (R, B, \\*s) where each path really began; None when there were too many to keep.
        covariance: (B, n, n) of the values of an example laid end to end, where F is a random
            function (``ig.fields.GPField``); None elsewhere. ``interval`` is what it comes to.
        fitness: (R, B) D of each baseline, where the weights came from one; None elsewhere.
        criterion: what D counts, in a sentence; empty where there is none.
        reasons: for each example why D says nothing about it; None where it does.
        names: what the references are called.
        notes: named numbers measured along the path, (K+1, R, B): IG2's "distance" from the
            counterfactual to the input. Methods around a method keep here what they measured, maps
            too; the third axis is always that of the examples.
        frames: points along the path, when recorded (``record=("path",)``).
        cost: gradients, values, model calls, seconds and memory that it took.
        method: what made it; of what was read from a file the text it printed as.
        target: what was explained of the model; of what was read from a file a text.
        normalisation: how image inputs map to colours, where that is known.
        layout: how several maps of layers lie end to end in ``values``; None where they are one, or
            have been taken apart.
        resolution: how far apart, relatively, the numbers lie that F was computed in; 0 where only
            the type of ``output`` tells.
        table: names of the columns, labels of the rows, and what readers see in place of numbers,
            where the input was a table or was given ``feature_names``; arranged as the inputs were.
        residual_error: (B,) the standard error of ``residual``, where chance decides (random nodes,
            references that are drawn): a residual of one or two of these is chance; infinite where
            too few draws tell nothing. None where nothing is random.
    """

    values: Parts
    inputs: Parts
    output: Tensor
    weights: Tensor
    change: Tensor
    residual: Tensor
    error: Tensor
    converged: Tensor
    shares: Parts | None = None
    baselines: Parts | None = None
    covariance: Tensor | None = None
    fitness: Tensor | None = None
    criterion: str = ""
    reasons: tuple[str | None, ...] = ()
    names: tuple[str, ...] = ()
    notes: Mapping[str, Tensor] = field(default_factory=dict)
    frames: Frames | None = None
    cost: Cost = Cost()
    method: Any = None
    target: Any = None
    normalisation: Normalisation | None = None
    layout: Layout | None = None
    resolution: float = 0.0
    table: Any = None
    residual_error: Tensor | None = None

    # --- numbers --------------------------------------------------------------------------------------------------

    @property
    def base(self) -> Tensor:
        """(B,) the weighted value at the baselines: what the map explains the difference to."""
        return self.output - (self.weights * self.change).sum(0)

    @property
    def claims_completeness(self) -> bool:
        """Whether the method says that its maps add up to ``change``; of one that does not, the
        residual is no fault."""
        return as_explainer(self.method).complete

    @property
    def gap(self) -> Tensor:
        """(B,) the residual relative to the change it should explain; infinite where either is not
        a number.

        NaN where it is not stated by a method that claims no completeness. A change that rounding
        may have made is taken for as large as rounding makes it: a gap relative to it would mean
        nothing.
        """
        change = (self.weights * self.change).sum(0).abs()
        summed = _total(mapped(lambda t: total(t.detach().abs(), 1), self.values))
        floor = rounding(self.output, self.base, summed, self.resolution)
        smallest = torch.finfo(change.dtype).tiny
        relative = self.residual.abs() / torch.maximum(change, floor).clamp_min(smallest)
        return relative.nan_to_num(
            nan=torch.inf if self.claims_completeness else torch.nan, posinf=torch.inf
        )

    @property
    def residual_in_errors(self) -> Tensor:
        """(B,) |residual| in its standard errors; NaN where these are not known.

        A residual that chance made is under 2 of them in 95 of 100 cases.
        """
        if self.residual_error is None:
            return torch.full_like(self.residual, torch.nan)
        known = self.residual_error.isfinite()
        smallest = torch.finfo(self.residual_error.dtype).tiny
        units = self.residual.abs() / self.residual_error.clamp_min(smallest)
        return torch.where(known, torch.where(self.residual == 0, 0, units), torch.nan)

    # --- columns --------------------------------------------------------------------------------------------------

    @property
    def tables(self) -> tuple[Table | None, ...]:
        """The table of each input; None where it has none."""
        if isinstance(self.table, dict):
            return tuple(self.table.values())
        return self.table if isinstance(self.table, tuple) else (self.table,)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """(N,) names of the columns, those of several inputs one after the other; empty where there
        are none."""
        return tuple(name for table in self.tables if table is not None for name in table.names)

    def named(self, feature_names: Sequence[str]) -> Attribution:
        """The same attribution with names (N,) for its columns (B, N).

        Raises:
            InputError: for another number of names.
        """
        fits = isinstance(self.values, Tensor) and self.values.ndim == 2
        names = checked_names(feature_names)
        if not fits or len(names) != self.values.shape[1]:
            shape = mapped(lambda t: describe(t.shape), self.values)
            raise InputError(
                f"There are {len(names)} feature names for values of shape {shape}: give one for each column of (B, N)."
            )
        index = () if self.table is None else self.table.index
        return dataclasses.replace(self, table=Table(names, index))

    def grouped(self, groups: Mapping[str, Sequence[str | int]]) -> Attribution:
        """Sum columns that belong together, such as those of one category.

            A_g = Σ_{i ∈ g} A_i          so that Σ_g A_g = Σ_i A_i: completeness stays

        Args:
            groups: what a group is called → the names of its columns, or their positions. Columns
                in none stay as they are; a column may be in one group only.

        Returns:
            An attribution with values (B, groups), in the order of their first columns; ``inputs``
            are what was explained, as before. ``error`` is an upper bound, because errors of
            columns may add up; ``converged`` is that of the map that was summed.

        Raises:
            ShapeError: for examples that are no rows of columns.
            UnknownName: for a column that there is not.
            InputError: for columns in two groups.

        Example:
            >>> import torch, integrand as ig
            >>> result = ig.explain(lambda x: x.square(), torch.ones(2, 3), target=lambda y: y.sum(1))
            >>> result.grouped({"pair": [0, 2]}).values.shape
            torch.Size([2, 2])
        """
        regrouped: Attribution = room("tables.results").grouped(self, groups)
        return regrouped

    def importance(self) -> Any:
        """The mean of |A_i| over the examples for every column, the largest first, with 95 %
        intervals, standard deviations and quantiles.

        ``ig.summarize`` gathers the same batch by batch.

        Returns:
            A ``tables.Importance``: names, importance, low, high, mean, standard_error, deviation
            (N,) and quantiles (Q, N); ``.to_pandas()``, ``.plot()``.

        Raises:
            ShapeError: for examples that are no rows of columns.
        """
        return room("tables.results").importance(self)

    def to_pandas(self, kind: str = "values") -> Any:
        """The attribution as a pandas DataFrame, with the index of the frame that was explained.

        Args:
            kind: "values": contributions (B, N), a column for each feature; "examples": output,
                base, change, residual, its standard_errors (``residual_in_errors``), gap, missed
                (|residual| / Σ |A_i|), error and converged of each example; "long": a line for
                each contribution, beside the feature's value, and between the ends of its 95 %
                credible interval where there is a covariance.

        Raises:
            MissingExtra: without pandas.
            ShapeError: for contributions of examples that are no rows of columns.
            UnknownName: for another kind.
        """
        return room("tables.results").to_pandas(self, kind)

    # --- what is not known of F -----------------------------------------------------------------------------------

    @property
    def standard_deviation(self) -> Parts:
        """√diag of ``covariance``, arranged as ``values``: how far each contribution is known.

        Raises:
            InputError: for attributions without a covariance.
        """
        if self.covariance is None:
            raise InputError(
                "Nothing is known of how uncertain F is: explain an ig.fields.GPField with method='gaussian_process'. (How far the integral "
                "may be off is in result.error.)"
            )
        flat = self.covariance.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt()
        return _arranged(flat, self.values)

    def interval(self, level: float = 0.95) -> tuple[Parts, Parts]:
        """The credible interval of every contribution by itself, for Gaussian F.

            values ∓ z · standard_deviation,  Φ(z) = (1 + level) / 2

        Args:
            level: how probable it is that the contribution lies inside, above 0 and below 1.

        Returns:
            Lower and upper ends, arranged as ``values``.

        Raises:
            InputError: for attributions without a covariance, and for other levels.
        """
        if not 0 < level < 1:
            raise InputError(f"level is a probability above 0 and below 1, not {level!r}.")
        units = NormalDist().inv_cdf((1 + level) / 2)
        flat, spread = (
            torch.cat([flattened(t, 1) for t in listed(numbers)], 1)
            for numbers in (self.values, self.standard_deviation)
        )
        low, high = flat - units * spread, flat + units * spread
        return _arranged(low, self.values), _arranged(high, self.values)

    # --- examples -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.output)

    def __iter__(self) -> Iterator[Attribution]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int | slice | Tensor | list[int]) -> Attribution:
        """The attribution of one or some examples, batch axis kept.

        ``cost`` is their part of that of the batch, an even share for each example: slices that
        are joined again (``ig.concat``) cost what the batch did.
        """
        if not isinstance(index, slice | list) and getattr(index, "ndim", 0) == 0:
            index = operator.index(index)
        if isinstance(index, slice):
            index = list(range(len(self))[index])
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"There is no example {index} among {len(self)}.")
            index = [index % len(self)]
        chosen = torch.as_tensor(index, dtype=None if len(index) else torch.long)
        if chosen.ndim != 1 or (chosen.dtype == torch.bool and len(chosen) != len(self)):
            raise InputError(
                f"Examples are chosen by numbers (n,), or by a mask of {len(self)}, not by {describe(chosen.shape)}."
            )
        numbers = torch.arange(len(self))[chosen.cpu()]

        def first(t: Tensor) -> Tensor:
            return t[numbers.to(t.device)]

        def second(t: Tensor) -> Tensor:
            return t[:, numbers.to(t.device)]

        def third(t: Tensor) -> Tensor:
            return t[:, :, numbers.to(t.device)]

        def rows(table: Table | None) -> Table | None:
            return table and table.at(numbers.tolist())

        frames = self.frames and Frames(self.frames.clock, third(self.frames.points))
        target = self.target.at(numbers) if isinstance(self.target, Target) else self.target
        return dataclasses.replace(
            self,
            **{k: mapped(first, getattr(self, k)) for k in BY_EXAMPLE},
            **{k: mapped(second, getattr(self, k)) for k in BY_REFERENCE},
            notes={k: third(v) for k, v in self.notes.items()},
            table=mapped(rows, self.table),
            reasons=tuple(self.reasons[i] for i in numbers.tolist()) if self.reasons else (),
            frames=frames,
            target=target,
            cost=self.cost.of_examples(numbers.tolist(), len(self)),
        )

    def apart(self) -> Attribution:
        """A copy whose inputs and baselines have memory of their own, so that the originals may be
        overwritten."""
        return dataclasses.replace(
            self, inputs=mapped(copied, self.inputs), baselines=mapped(copied, self.baselines)
        )

    def __repr__(self) -> str:
        shape = mapped(lambda t: tuple(t.shape), self.values)
        worst = float(self.gap.max()) if len(self) else 0.0
        # Where nothing is missing, that can be said of a method that does not promise it, too.
        adds_up = (
            f"worst gap {worst:.2%}"
            if self.claims_completeness or worst <= NO_GAP
            else "adds up: not claimed"
        )
        if self.residual_error is not None and len(self) and self.claims_completeness:
            units = float(self.residual_in_errors[self.gap.argmax()])
            adds_up += "" if units != units else f" ({units:.2g} standard errors)"
        return (
            f"<Attribution of {len(self)} example{'s' * (len(self) != 1)}, values {shape}, by {self.method!r}, "
            f"{adds_up}, {self.cost.gradients} gradients in {self.cost.seconds:.2f} s>"
        )

    # --- doors to the floors above --------------------------------------------------------------------------------

    def plot(self, **options: Any) -> Any:
        """Draw overlays, heat maps, or bars; see ``integrand.report.figures.plot``. Needs
        integrand[plot]."""
        return room("report.figures").plot(self, **options)

    def save(self, path: str | Path) -> None:
        """Write to one safetensors file with a JSON header, whole or not at all; ``ig.load`` reads
        it back. Needs integrand[save].

        Raises:
            OSError: where the disk refuses.
        """
        room("integration.io").save(self, path)

    def to_shap(self, names: Sequence[str] | None = None) -> Any:
        """The same numbers as a ``shap.Explanation``, for SHAP's plots. Needs shap.

            base + Σ values = F(x)

        SHAP takes this for granted, and prints the left side as what the model says. What the maps
        of columns miss of it is therefore a last feature, "not explained" (its data is NaN),
        wherever it is more than rounding; images and tokens have no room for one, and warn. Words
        of a frame are its ``display_data``. For several targets in one explanation:
        ``integrand.compat.shap.explanation``.

        Args:
            names: (N,) of the features of examples (N,); their own unless given.

        Raises:
            MissingExtra: without shap.
            InputError: for several inputs and for names that do not fit.
        """
        return room("compat.shap").explanation([self], names)

    def _repr_html_(self) -> str:
        return str(room("report.html").fragment(self))


BY_EXAMPLE = (
    "values",
    "inputs",
    "output",
    "residual",
    "residual_error",
    "error",
    "converged",
    "covariance",
)
"""What has examples on its first axis."""

BY_REFERENCE = ("weights", "change", "shares", "baselines", "fitness")
"""What has references on its first axis, and examples on its second."""


Watch = Callable[[CallCount], None]
"""Called with the running tally of gradients and values."""


class ExplainerLike(Protocol):
    """Anything callable as ``(field, x, *, watch=None) -> Attribution``."""

    def __call__(self, field: Field, x: Tensor, *, watch: Watch | None = None) -> Attribution: ...


class Explainer(Part, ABC):
    """Base class of everything that explains: a Method, a wrapper of one, a control.

    Called as ``(field, x) -> Attribution``.
    """

    @abstractmethod
    def __call__(self, field: Field, x: Tensor, *, watch: Watch | None = None) -> Attribution: ...

    def attached(self, field: Field, x: Tensor, *, watch: Watch | None = None) -> Attribution:
        """As it is called, its values with the graph that leads to the model's parameters."""
        raise InputError(
            f"{self!r} has no maps that could be trained on: with create_graph=True give a method at fixed nodes, such as method='integrated', "
            "rule=ig.rules.GaussLegendre(8), or method='expected'."
        )

    @declared
    def inner(self) -> Explainer | None:
        """The explainer it wraps; None where it is no wrapper."""
        return None

    @declared
    def explains(self) -> str:
        """What its map explains: "inputs", or a "layer"."""
        return "inputs" if self.inner is None else self.inner.explains

    @declared
    def complete(self) -> bool:
        """Whether maps are meant to add up to the change of F, each by itself or on average over
        random nodes."""
        return True if self.inner is None else self.inner.complete

    @declared
    def tol(self) -> float | None:
        """The relative error to reach, by draws or by the rule; None where there is none."""
        return None if self.inner is None else self.inner.tol

    @declared
    def samples(self) -> bool:
        """Whether it draws until its tolerance is met."""
        return False

    @declared
    def at_layers(self) -> bool:
        """Whether ``Layered`` can wrap it."""
        return True

    @declared
    def label(self) -> str:
        """Its name in tables; empty for its repr."""
        return ""

    @declared
    def features(self) -> Any:
        """How elements are grouped into features, where it groups them; label maps (B, H, W) are
        per example."""
        return None

    @declared
    def padding_takes_part(self) -> bool:
        """Whether elements that do not move, such as padding, may change the map of the others, as
        they do where points are drawn, searched or switched. Wrappers do one of these, whatever
        they wrap, unless they say otherwise."""
        return True

    def with_inner(self, inner: Explainer) -> Explainer:
        """The same wrapper around another explainer."""
        raise NotImplementedError(f"{self!r} is no wrapper.")


class Wrapper(Explainer):
    """An explainer around another one, which is its field ``method``."""

    @property
    def inner(self) -> Explainer:
        return self.method  # type: ignore[attr-defined, no-any-return]

    def with_inner(self, inner: Explainer) -> Explainer:
        return dataclasses.replace(self, method=inner)  # type: ignore[type-var]


class _StrangerExplainer(Stranger, Explainer):
    """A user's callable as an explainer. One that has a callable ``method`` wraps that."""

    def __call__(self, field: Field, x: Tensor, *, watch: Watch | None = None) -> Attribution:
        try:
            attribution: Attribution = self.of(field, x, watch=watch)
        except TypeError as error:
            if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
                raise  # from inside the method, which was called
            raise InputError(
                f"A method is called as (field, x, *, watch=None) -> Attribution, and {self!r} cannot be: {error}."
            ) from error
        return attribution

    @property
    def inner(self) -> Explainer | None:
        inner = getattr(self.of, "method", None)
        return as_explainer(inner) if callable(inner) else None

    @declared
    def explains(self) -> str:
        return (
            "layer"
            if getattr(self.of, "lifts", False) or (self.inner and self.inner.explains == "layer")
            else "inputs"
        )

    @declared
    def complete(self) -> bool:
        rule = getattr(self.of, "rule", None)
        if self.inner is not None or not callable(rule):
            return self.inner is None or self.inner.complete
        return as_rule(rule).complete or as_rule(rule).unbiased

    @declared
    def samples(self) -> bool:
        return "tol" in vars(self)

    def with_inner(self, inner: Explainer) -> Explainer:
        changed = inner.of if isinstance(inner, Stranger) else inner
        return dataclasses.replace(self, of=dataclasses.replace(self.of, method=changed))


def as_explainer(method: ExplainerLike) -> Explainer:
    """Convert to an ``Explainer``; a user's callable is wrapped, and keeps the attributes it
    declares."""
    if isinstance(method, Explainer):
        return method
    given: object = method
    if callable(given):  # what is not, such as a name that was read from a file, is asked, not run
        check_callable(
            given, "a method", "(field, x, *, watch=None) -> Attribution", "ig.methods.integrated()"
        )
    return _StrangerExplainer(given)


def rounding(output: Tensor, base: Tensor, summed: Tensor, resolution: float = 0.0) -> Tensor:
    """(B,) what rounding may make of the change of F between ``output`` and ``base``, and of the
    sum of a map.

    ``summed`` is Σ |values|, which the sum of the map is rounded relative to; ``resolution`` that
    of the numbers F was computed in.
    """
    eps = torch.finfo(output.dtype).eps
    ends = torch.maximum(output.abs(), base.abs())
    return ROUNDING * torch.maximum(max(resolution, eps) * ends, eps * summed.to(ends))


def _total(parts: Parts) -> Tensor:
    """The sum of the tensors of a tensor, tuple or dict."""
    if isinstance(parts, Tensor):
        return parts
    return sum(listed(parts), torch.zeros(()))


def listed(parts: Parts) -> list[Tensor]:
    """The tensors of a tensor, tuple or dict, in their order."""
    if isinstance(parts, Tensor):
        return [parts]
    return list(parts.values() if isinstance(parts, dict) else parts)


def _arranged(flat: Tensor, like: Parts) -> Parts:
    """Numbers (B, n) arranged as ``like`` is."""
    ends = torch.tensor(feature_counts(like)).cumsum(0).tolist()
    pieces = iter([flat[:, a:b] for a, b in zip([0, *ends], ends, strict=False)])
    return mapped(lambda values: next(pieces).reshape(values.shape), like)


def feature_counts(parts: Parts) -> list[int]:
    """How many numbers each tensor has for an example."""
    return [tensor.shape[1:].numel() for tensor in listed(parts)]


def mapped(function: Callable[[Any], Any], parts: Any) -> Any:
    """``function`` applied to every part of a tuple or dict, or to what is none; None stays."""
    if parts is None:
        return None
    if isinstance(parts, dict):
        return {name: function(part) for name, part in parts.items()}
    if isinstance(parts, tuple):
        return tuple(function(part) for part in parts)
    return function(parts)
