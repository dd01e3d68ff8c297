"""``correlate``: Integrated Gradient Correlation, the attribution of a correlation over a dataset.

    IGC_i = cov(A_i, y) / (σ_y σ_F)          Σ_i IGC_i = Pearson's r of y and F, where maps are
                                             complete

Means and co-moments are kept for each jackknife group and merged exactly, whatever the sizes of
batches; no map is kept.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .core.correlation import rounding
from .core.frames import is_frame
from .core.options import whole
from .core.shapes import describe, tensor_of
from .errors import InputError, NonFiniteInput, ShapeError, UnknownName
from .explain import explain
from .fields import Field
from .integration.attribution import ExplainerLike
from .integration.cost import Cost
from .targets import TargetLike


@dataclass(frozen=True, eq=False)
class Correlation:
    """What each feature contributes to the correlation of a model's predictions with labels.

        Σ values = total + residual

    Attributes:
        values: (\\*s), or (T, \\*s) for T targets: Σ over regions are regions' contributions.
        total: () or (T,) Pearson's r of the labels and F, measured; 1 for ``auto``.
        residual: the sum of ``values`` minus ``total``: what incomplete maps, or baselines whose F
            differs between examples, make of it.
        standard_error: like ``values``, by the delete-a-group jackknife; NaN with fewer than two
            groups.
        auto: like ``values``, the auto-correlation (IGaC) cov(A_i, F)/var(F), which adds up to 1
            and needs no labels; the same as ``values`` where there were none.
        mean: like ``values``, the mean map.
        deviation: like ``values``, its standard deviation over examples.
        count: examples.
        replicates: (G, \\*values) ``values`` without each of the jackknife groups.
        names: of the columns, where inputs were frames or were given ``feature_names``; of regions.
        cost: of all explanations.
    """

    values: Tensor
    total: Tensor
    residual: Tensor
    standard_error: Tensor
    auto: Tensor
    mean: Tensor
    deviation: Tensor
    count: int
    replicates: Tensor = field(repr=False)
    names: tuple[str, ...] = ()
    cost: Cost = Cost()

    def grouped(self, regions: Mapping[str, Sequence[int | str] | Tensor]) -> Correlation:
        """Contributions of regions: sums over features, with standard errors of the sums.

        Args:
            regions: name → numbers of features (counted over (\\*s) laid flat), names of columns, or
                a mask (\\*s).
                What lies in none makes a last region, "rest", so that sums stay.

        Returns:
            The same with values (regions,) or (T, regions), in the order given.

        Raises:
            InputError: for features that are not there or in two regions.
        """
        shape = self.values.shape[self.total.ndim :]
        taken = torch.full((math.prod(shape),), -1, dtype=torch.long)
        for number, (name, members) in enumerate(regions.items()):
            place = _members(members, shape, name, self.names)
            if bool((taken[place] >= 0).any()):
                raise InputError(f"Region {name!r} shares features with another: give each to one.")
            taken[place] = number
        names = tuple(regions)
        if bool((taken < 0).any()):
            taken[taken < 0] = len(names)
            names = (*names, "rest")
        axis = self.total.ndim

        def summed(t: Tensor, leading: int = axis) -> Tensor:
            flat = t.reshape(*t.shape[:leading], -1)
            out = flat.new_zeros(*t.shape[:leading], len(names))
            return out.index_add_(leading, taken, flat)

        replicates = summed(self.replicates, axis + 1)
        return dataclasses.replace(
            self,
            values=summed(self.values),
            auto=summed(self.auto),
            mean=summed(self.mean),
            deviation=torch.full_like(summed(self.mean), torch.nan),
            replicates=replicates,
            standard_error=_jackknife(replicates, summed(self.values)),
            names=names,
        )


def correlate(
    model: Callable[..., Any] | Field,
    batches: Iterable[Any],
    *,
    target: TargetLike | None = None,
    method: str | ExplainerLike = "integrated",
    groups: int = 20,
    **options: Any,
) -> Correlation:
    """Integrated Gradient Correlation: which features make a model's predictions correlate with the
    labels, over a whole dataset.

        IGC_i = 1/N Σ_n (A_i(x_n) − Ā_i)(y_n − ȳ) / (σ_y σ_F)

    A is a map of F by any method. Complete maps from baselines that all examples share add up to
    Pearson's correlation of y and F; what others miss is the ``residual``. Correlations are not
    changed by y → a·y + c with a > 0, nor by such a change of F.

    Args:
        model: as in ``explain``; or a Field, then without target.
        batches: of (x, y), or of (x, y, g), in any sizes; every example counts, whatever the batch
            it comes in. x are tensors, arrays or frames. y (B,) are numbers to correlate with; (B, T) for T targets, such as one-hot
            classes. Batches that are tensors x, or whose y is None, have no labels: ``values`` are
            then the auto-correlation. g (B,) are whole numbers saying which examples belong
            together (subjects, sessions), for the jackknife.
        target: as in ``explain``, the same for every example; a list of T of them for y (B, T).
        method: as in ``explain``; one per call. With a seed all batches see the same draws.
            "baseline_shapley" gives the Baseline-Shapley correlation, which needs no gradients and
            adds up to Pearson's r exactly, however few orders are drawn.
        groups: G of the jackknife where the data says none: example n is in group n mod G; 0 or 1
            for no standard errors.
        **options: of ``explain`` and of the method.

    Returns:
        A ``Correlation``; values (\\*s), or (T, \\*s) for several targets, in float64.

    Raises:
        InputError: for no examples, labels that are not one for each example and target, labels or
            predictions that do not vary, and several inputs.
        NonFiniteInput: for labels that are NaN or infinite.

    Cost:
        That of ``explain`` for every example and target; memory of 3 maps in float64 per group.

    References:
        Lelièvre, Chen, arXiv 2404.13910.

    Example:
        >>> import torch, integrand as ig
        >>> x = torch.tensor([[1.0, 2.0], [-1.0, 0.5], [0.5, -1.0], [2.0, 1.0]]).double()
        >>> y = torch.tensor([3.0, 0.0, -0.5, 5.0]).double()
        >>> field = ig.fields.Function(lambda z: z[:, 0] ** 2 + z[:, 0] * z[:, 1])
        >>> result = ig.correlate(field, [(x[:3], y[:3]), (x[3:], y[3:])])
        >>> result.values.round(decimals=4).tolist(), round(float(result.total), 4)
        ([0.7494, 0.2417], 0.9912)
    """
    groups = whole("groups", groups, least=0)
    targets = target if isinstance(target, list) else None
    moments: dict[int, _CoMoments] = {}
    cost, labelled, seen = Cost(), None, 0
    names: tuple[str, ...] = ()
    for number, batch in enumerate(batches):
        x, y, g = _unpacked(batch, number)
        if labelled is not None and labelled != (y is not None):
            raise InputError(
                f"Batch {number} {'has' if y is not None else 'lacks'} labels, unlike those before it."
            )
        labelled = y is not None
        maps, outputs, spent, names = _explained(model, x, targets, target, method, options)
        labels = outputs if y is None else _labels(y, outputs, targets, number)
        cost += spent
        places = torch.arange(seen, seen + len(outputs)) % max(groups, 1) if g is None else g
        for group in sorted(set(places.tolist())):
            rows = (places == group).to(maps.device)
            part = _CoMoments.of(maps[rows], outputs[rows], labels[rows])
            moments[group] = moments[group].merged(part) if group in moments else part
        seen += len(outputs)
    if not moments:
        raise InputError("There are no examples to correlate over: batches is empty.")
    correlation = _correlation([moments[key] for key in sorted(moments)], targets is not None, cost)
    return dataclasses.replace(correlation, names=names)


# --- batches ----------------------------------------------------------------------------------------------------------


def _unpacked(batch: Any, number: int) -> tuple[Any, Tensor | None, Tensor | None]:
    """Inputs, labels and groups of a batch, each as a tensor, or nothing; inputs that are a frame
    as they are."""
    entries = batch if isinstance(batch, tuple | list) else (batch,)
    if not 1 <= len(entries) <= 3:
        raise InputError(
            f"Batch {number} has {len(entries)} entries: batches are (x, y), (x, y, groups), or x alone."
        )
    x, y, g = (*entries, None, None)[:3]
    if isinstance(x, tuple | list | Mapping):
        raise InputError(
            f"The inputs of batch {number} are a {type(x).__name__}: correlate takes models of one input tensor. Join several in front of the model."
        )
    x = x if is_frame(x) else _tensor(x, f"inputs of batch {number}")
    y = None if y is None else _tensor(y, f"outcomes of batch {number}")
    g = None if g is None else _tensor(g, f"groups of batch {number}").cpu()
    if g is not None and (g.shape != x.shape[:1] or g.is_floating_point()):
        raise InputError(
            f"The groups of batch {number} are whole numbers, one for each of {len(x)} examples, not {describe(g.shape)} of {g.dtype}."
        )
    return x, y, g


def _tensor(numbers: Any, what: str) -> Tensor:
    return tensor_of(numbers, f"The {what} are no numbers: give a tensor or an array.")


def _explained(
    model: Callable[..., Any] | Field,
    x: Any,
    targets: list[Any] | None,
    target: TargetLike | None,
    method: str | ExplainerLike,
    options: dict[str, Any],
) -> tuple[Tensor, Tensor, Cost, tuple[str, ...]]:
    """Maps (B, T, \\*s) and predictions (B, T) in float64, what they cost, and names of columns."""
    if targets is not None and not targets:
        raise InputError("target is an empty list: give one at least.")
    cost, maps, outputs = Cost(), [], []
    for question in [target] if targets is None else targets:
        result = explain(model, x, target=question, method=method, **options)
        if not isinstance(result.values, Tensor):
            raise InputError("This method explains several tensors; correlate takes maps of one.")
        maps.append(result.values.detach().double())
        outputs.append(result.output.detach().double())
        cost += result.cost
    return torch.stack(maps, 1), torch.stack(outputs, 1), cost, result.feature_names


def _labels(y: Tensor, outputs: Tensor, targets: list[Any] | None, number: int) -> Tensor:
    """Labels (B, T) in float64."""
    expected = outputs.shape if targets is not None else outputs.shape[:1]
    if y.shape != expected:
        kind = "one for each example and target" if targets is not None else "one for each example"
        raise ShapeError(
            f"The labels of batch {number} have shape {describe(y.shape)}; they are {describe(expected)}, {kind}. "
            "For classes give one-hot labels and target= a list of classes."
        )
    if y.is_complex():
        raise InputError(f"The labels of batch {number} are complex numbers.")
    y = y.detach().to(outputs).reshape(outputs.shape)
    if not bool(torch.isfinite(y).all()):
        raise NonFiniteInput(
            f"The labels of batch {number} hold NaN or infinity: leave out examples without a label."
        )
    return y


# --- moments ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _CoMoments:
    """Means and sums of products of deviations over some examples: maps A (T, \\*s), predictions F
    and labels y (T,)."""

    count: int
    a: Tensor
    f: Tensor
    y: Tensor
    ff: Tensor
    yy: Tensor
    fy: Tensor
    aa: Tensor
    af: Tensor
    ay: Tensor

    @classmethod
    def of(cls, maps: Tensor, outputs: Tensor, labels: Tensor) -> _CoMoments:
        """Of maps (B, T, \\*s), predictions and labels (B, T)."""
        a, f, y = maps.mean(0), outputs.mean(0), labels.mean(0)
        da, df, dy = maps - a, outputs - f, labels - y
        return cls(
            len(maps),
            a,
            f,
            y,
            df.square().sum(0),
            dy.square().sum(0),
            (df * dy).sum(0),
            da.square().sum(0),
            torch.einsum("bt...,bt->t...", da, df),
            torch.einsum("bt...,bt->t...", da, dy),
        )

    def merged(self, other: _CoMoments) -> _CoMoments:
        """Of both, by Chan's formula: C = C₁ + C₂ + n₁n₂/(n₁ + n₂) · δ_u δ_v."""
        if other.a.shape != self.a.shape:
            raise ShapeError(
                f"Maps of different batches have shapes {describe(self.a.shape[1:])} and {describe(other.a.shape[1:])}: examples of one shape are correlated."
            )
        count = self.count + other.count
        scale, fraction = self.count * other.count / count, other.count / count
        a, f, y = other.a - self.a, other.f - self.f, other.y - self.y
        wide = (-1, *(1,) * (a.ndim - 1))
        return _CoMoments(
            count,
            self.a + fraction * a,
            self.f + fraction * f,
            self.y + fraction * y,
            self.ff + other.ff + scale * f * f,
            self.yy + other.yy + scale * y * y,
            self.fy + other.fy + scale * f * y,
            self.aa + other.aa + scale * a * a,
            self.af + other.af + scale * a * f.reshape(wide),
            self.ay + other.ay + scale * a * y.reshape(wide),
        )

    def correlations(self) -> Tensor:
        """IGC (T, \\*s)."""
        norm = self.ff.sqrt() * self.yy.sqrt()
        return self.ay / norm.reshape(-1, *(1,) * (self.a.ndim - 1))


def _merged(parts: Sequence[_CoMoments]) -> _CoMoments:
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merged(part)
    return merged


def _correlation(parts: Sequence[_CoMoments], several: bool, cost: Cost) -> Correlation:
    every = _merged(parts)
    for name, mean, spread in (
        ("The labels", every.y, every.yy),
        ("The predictions", every.f, every.ff),
    ):
        still = spread.div(every.count).sqrt() <= rounding(spread) * mean.abs()
        if bool(still.any()):
            which = f" of target {int(still.nonzero()[0])}" if several else ""
            raise InputError(
                f"{name}{which} do not vary over the {every.count} example{'s' * (every.count != 1)}, so that nothing correlates with them."
            )
    values = every.correlations()
    total = every.fy / (every.ff.sqrt() * every.yy.sqrt())
    replicates = _without_each(parts, values)
    tail = (-1, *(1,) * (values.ndim - 1))
    columns = {
        "values": values,
        "total": total,
        "residual": values.flatten(1).sum(1) - total,
        "standard_error": _jackknife(replicates, values),
        "auto": every.af / every.ff.reshape(tail),
        "mean": every.a,
        "deviation": (every.aa / every.count).sqrt(),
    }
    if not several:
        columns = {name: column[0] for name, column in columns.items()}
        replicates = replicates[:, 0]
    return Correlation(count=every.count, replicates=replicates, cost=cost, **columns)  # type: ignore[arg-type]


def _without_each(parts: Sequence[_CoMoments], values: Tensor) -> Tensor:
    """(G, T, \\*s) what the correlations are without each of the groups: those before it and those
    behind it, merged."""
    if len(parts) < 2:
        return values.new_empty(0, *values.shape)
    behind: list[_CoMoments] = [parts[-1]]
    for part in reversed(parts[1:-1]):
        behind.insert(0, part.merged(behind[0]))
    before: _CoMoments | None = None
    replicates = []
    for number, part in enumerate(parts):
        rest = behind[number] if number < len(behind) else None
        if before is not None and rest is not None:
            kept = before.merged(rest)
        else:
            kept = rest if before is None else before  # type: ignore[assignment]
        replicates.append(kept.correlations())
        before = part if before is None else before.merged(part)
    return torch.stack(replicates)


def _jackknife(replicates: Tensor, values: Tensor) -> Tensor:
    """√((G − 1)/G Σ_g (θ_g − θ̄)²) over the values θ_g without each group."""
    count = len(replicates)
    if count < 2:
        return torch.full_like(values, torch.nan)
    deviations = replicates - replicates.mean(0)
    return (deviations.square().sum(0) * (count - 1) / count).sqrt()


def _members(
    members: Sequence[int | str] | Tensor, shape: torch.Size, name: str, columns: Sequence[str]
) -> Tensor:
    """The features of a region, by their numbers."""
    if not isinstance(members, Tensor):
        members = [
            _position(member, name, columns) if isinstance(member, str) else member
            for member in members
        ]
    entries = torch.as_tensor(members).cpu()
    if entries.dtype == torch.bool:
        if entries.shape != shape:
            raise InputError(
                f"The mask of region {name!r} has shape {describe(entries.shape)}; maps have {describe(shape)}."
            )
        return entries.flatten().nonzero()[:, 0]
    features = math.prod(shape)
    if entries.is_floating_point() or bool(((entries < 0) | (entries >= features)).any()):
        raise InputError(f"Region {name!r} names features that are not among 0 to {features - 1}.")
    return entries.long().flatten()


def _position(column: str, region: str, columns: Sequence[str]) -> int:
    if column not in columns:
        raise UnknownName(f"column of region {region!r}", column, columns)
    return columns.index(column)
