"""Sequential Integrated Gradients: each feature moves from its own baseline while the others stay.

    x̄_i   b on feature i, x elsewhere
    A_i   = A(x; x̄_i) on feature i               adds up to F(x) − F(x̄_i), what F loses when feature i alone is taken away

A sentence of which every word is replaced is no sentence any more; here all points of all paths are
x but for one word.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ...core.declared import Adopted
from ...core.features import Features, feature_map
from ...core.memory_budget import at_once
from ...core.shapes import flattened, norm, over, total
from ...core.values import part
from ...errors import IncompleteWarning, InputError, warn
from ...fields import Field
from ...fields.memory import OutputCache
from ...fields.views import CallCount
from ...model.autograd import gradients
from ..assemble import Watch, advice
from ..attribution import Attribution, Explainer, ExplainerLike, Wrapper, as_explainer
from ..cost import Cost
from .base import FixedBaseline, Runs, check_wrappable, one_call, same_start, warned_once


@part
class Sequential(Wrapper):
    """Sequential Integrated Gradients: a method applied to one feature after another.

    A feature moves from its baseline to the input while all others stay in the input.

        A_i(x) = A(x; x̄_i) on feature i,   x̄_i = b on feature i, x elsewhere

    Each feature adds up to its own effect, Σ_{j in i} A_ij = F(x) − F(x̄_i), and the whole map to
    the sum of effects, which is not F(x) − F(b). ``change`` (1, B) is that sum, and ``residual``
    what the map misses of it; by feature, ``notes["effect"]`` (1, 1, B, n) are the effects and
    ``notes["missed"]`` what each feature misses of its own. ``converged`` says whether all features
    did, ``error`` is that of the whole map, errors of features taken as independent. Of several
    references an effect is the weighted mean.

    Features that the baseline leaves as they are (``ig.baselines.Masked`` for special tokens) get
    nothing and cost nothing.

    Args:
        method: any method that starts at its baseline.
        features: what moves at a time: "tokens" (a word of a sentence), "pixels", an int (square
            patches of that side), "columns" or a label map; "auto" is tokens for sequences (n, d),
            pixels for images, columns for tables.

    Raises:
        InputError: for methods whose path chooses its own start (IG2), and for those of a layer.

    Cost:
        The method's for every feature that moves, all of them in batches: n·R·nodes gradients per
        example, and n·R + 1 values where the rule does not evaluate F at the ends. Memory does not
        grow with the number of features, but for the batch that is worked on.

    References:
        Enguehard, "Sequential Integrated Gradients: a simple but effective method for explaining
        language models", Findings of ACL 2023 (arXiv 2305.15853): words, the mask token's vector as
        the baseline, Gauss–Legendre with 50 nodes. The published code holds the sum against F(x) −
        F(all words masked), which it is not meant to add up to.

    Example:
        >>> import torch, integrand as ig
        >>> field = ig.fields.Function(lambda z: z[:, 0, 0] * z[:, 1, 0])
        >>> x = torch.tensor([[[2.0, 1.0], [3.0, 1.0]]])
        >>> result = ig.Sequential(ig.methods.integrated())(field, x)
        >>> result.values.tolist(), result.notes["effect"].flatten().tolist()
        ([[[6.0, 0.0], [6.0, 0.0]]], [6.0, 6.0])
    """

    method: Adopted[ExplainerLike, Explainer] = Adopted(as_explainer)
    features: Features = "auto"

    def __post_init__(self) -> None:
        check_wrappable(self.method, "Sequential", layers=False)

    @one_call
    def __call__(self, field: Field, x: Tensor, *, watch: Watch | None = None) -> Attribution:
        groups = feature_map(self.features, x).expand(x.shape)
        progress = _Progress(watch)
        runs = Runs(progress if watch else None, 1)
        with warned_once(), field.ready(), gradients(False):
            fixed_start = FixedBaseline(self.method, field, x)
            output = fixed_start.output()
            features = _SingleFeatures(fixed_start.x, fixed_start.references, groups)
            moving = features.moving()
            most = at_once(len(fixed_start.references) * x[0].numel(), x.device)
            for pairs in torch.split(moving, most) if len(moving) else ():
                example, feature = pairs.unbind(1)
                begin, inputs, pair_field = (
                    features.begin(example, feature),
                    x[example],
                    field.at(example),
                )
                pair_field.memory = OutputCache(inputs, fixed_start.outputs(example))
                progress.fraction = len(moving) / len(pairs)
                with _incomplete() as warned:
                    attribution = runs(fixed_start.starting(self.method, begin), pair_field, inputs)
                self._check_start(attribution, begin)
                features.add(example, feature, attribution, warned=bool(warned))
            runs.add(fixed_start.cost)
        features.warn(self.method, field)
        return features.attribution(output, runs.cost, self)

    def _check_start(self, attribution: Attribution, begin: Tensor) -> None:
        if attribution.baselines is not None and not same_start(attribution.baselines, begin):
            raise InputError(
                "Sequential starts a path for each feature where that alone is taken away, and this method chooses its own start: wrap one "
                "that starts at its baseline, such as ig.methods.integrated(…)."
            )


@contextmanager
def _incomplete() -> Iterator[list[warnings.WarningMessage]]:
    """Warnings of maps that do not add up, kept back: they number pairs of an example and a
    feature, which nobody sees."""
    incomplete: list[warnings.WarningMessage] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield incomplete
    for warning in caught:
        if issubclass(warning.category, IncompleteWarning):
            incomplete.append(warning)
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


class _SingleFeatures:
    """Features taken one at a time, as pairs (example, feature), and what is found of them, added
    up as it comes."""

    def __init__(self, x: Tensor, references: Tensor, groups: Tensor) -> None:
        self.x, self.references, self.groups = x, references, groups
        self.values = torch.zeros_like(x)
        self.effect = x.new_zeros(len(x), int(groups.max()) + 1)
        self.missed = torch.zeros_like(self.effect)
        self.errors = torch.zeros_like(self.effect)
        self.settled = torch.ones_like(self.effect, dtype=torch.bool)
        self.warned = False

    def moving(self) -> Tensor:
        """The pairs (P, 2) of an example and a feature that some reference changes."""
        differs = (self.references != self.x).any(0)
        count = torch.zeros_like(self.effect).scatter_add_(
            1, flattened(self.groups, 1), flattened(differs, 1).to(self.x)
        )
        return count.nonzero()

    def begin(self, example: Tensor, feature: Tensor) -> Tensor:
        """The references (R, P, \\*s) on one feature, the example elsewhere."""
        return torch.where(
            self._mask(example, feature), self.references[:, example], self.x[example]
        )

    def _mask(self, example: Tensor, feature: Tensor) -> Tensor:
        return self.groups[example] == over(feature, self.x)

    def add(
        self, example: Tensor, feature: Tensor, attribution: Attribution, *, warned: bool
    ) -> None:
        values = attribution.values * self._mask(example, feature)
        effect = (attribution.weights * attribution.change).sum(0)
        self.values.index_add_(0, example, values)
        self.effect[example, feature] = effect
        self.missed[example, feature] = effect - total(values, 1)
        self.errors[example, feature] = attribution.error * norm(attribution.values)
        self.settled[example, feature] = attribution.converged
        self.warned |= warned

    def warn(self, method: Explainer, field: Field) -> None:
        """Once for all features, if a run has."""
        if not self.warned:
            return
        gap = self.missed.abs() / self.effect.abs().clamp_min(torch.finfo(self.missed.dtype).tiny)
        worst = int(gap.masked_fill(self.settled, -1).argmax())
        example, feature = divmod(worst, gap.shape[1])
        effect = float(self.effect[example, feature])
        warn(
            f"{int((~self.settled).sum())} of {self.settled.numel()} features miss their tolerance, or more than a tenth of what they should "
            f"add up to: feature {feature} of {field.example_name(example)} adds up to {effect - float(self.missed[example, feature]):.3g} where F changes by "
            f"{effect:.3g} without it. {advice(method)}",
            IncompleteWarning,
        )

    def attribution(self, output: Tensor, cost: Cost, method: Sequential) -> Attribution:
        distance = norm(self.errors)  # of different features taken as independent
        return Attribution(
            values=self.values,
            inputs=self.x,
            output=output,
            weights=torch.ones_like(output)[None],
            change=self.effect.sum(1)[None],
            residual=self.missed.sum(1),
            error=torch.where(distance == 0, 0, distance / norm(self.values)),
            converged=self.settled.all(1),
            names=("each feature's own",),
            notes={"effect": self.effect[None, None], "missed": self.missed[None, None]},
            cost=cost,
            method=method,
        )


class _Progress:
    """A tally of one batch of features, shown as that of all."""

    def __init__(self, watch: Watch | None) -> None:
        self.watch = watch
        self.fraction = 1.0

    def __call__(self, tally: CallCount) -> None:
        assert self.watch is not None
        expected = None if tally.expected is None else round(tally.expected * self.fraction)
        self.watch(dataclasses.replace(tally, expected=expected))
