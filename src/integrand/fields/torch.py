"""A torch model and a target, as a field.

    value and gradient of N rows  =  one forward pass, one backward pass of the *sum* of N scalars

Rows do not interact, so the gradient of the sum holds every row's own gradient; one autograd root
per row would cost many times as much on small models. Only inputs ask for gradients. Two scalars of
one model, such as a class score and a representation distance, are asked of one forward pass
(``together``).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from ..backprop.chords import ChordMode, eager
from ..backprop.modified.base import BackwardRule, During
from ..backprop.softplus import KinkWatch
from ..core.normalisation import Normalisation, checked_normalisation
from ..core.segment import Curvature, Evaluation
from ..core.shapes import describe, flattened, state_dtype, total
from ..errors import (
    DetachedModel,
    InputError,
    IntegrandError,
    ModelError,
    NoHessian,
    NonFiniteGradient,
    TargetError,
)
from ..model.autograd import (
    gradients,
    hessian_products,
    is_reentrant,
    slopes,
    twice_differentiable,
)
from ..model.batching import is_out_of_memory, packer_for
from ..model.diagnose import degenerate, mixing, raise_nonfinite
from ..model.flow import LayerFlow, layer_flow
from ..model.layout import Layout
from ..model.network import (
    Network,
    PlainModel,
    Representation,
    Site,
    SiteLike,
    calm,
    parameter_dtype,
)
from ..model.row_independence import Answer, RowCheck
from ..targets import Custom, Output, Target, TargetLike, as_target, output_tensor
from .base import Field, check_trainable
from .smoothed import SmoothedNetwork

Ask = tuple[Target, Tensor]

_DEFECT = (
    0.01  # of the change of F that chords may miss before they are given up for a model and target
)


class TorchField(Field):
    """F(z) = target(model(z)) for a torch model.

    Args:
        model: an nn.Module, or any function of tensors that torch can differentiate.
        target: a class, a tensor with a class per example, an ``ig.targets`` value, or a callable
            outputs → (N,).
        extra: arguments that follow the input and are not attributed: a tuple (positional) or a
            dict (named); tensors among them hold one entry per example, unless they are
            ``ig.Shared``.
        normalisation: what image inputs mean to the eye; black baselines, data ranges and plots
            need it.
        batch_size: rows per model call, at most; found while working unless given.
        layout: how inputs are arranged, for models with several (``ig.explain`` fills it in).
        optimize: run a faster copy of the model: batch norms folded, channels last
            (``model/fusion.py``).
        backward: a rule that gradients follow instead, such as ``ig.fields.GuidedReLU()``
            (``backprop/modified``).
        softplus: the sharpness β of the softplus that stands for every ReLU, so that F has second
            derivatives; F is then that of the smoothed model.

    Cost:
        one gradient is one forward and one backward pass to the input; nothing is computed for
        parameters.

    Example:
        >>> import torch, integrand as ig
        >>> field = ig.TorchField(torch.nn.Linear(3, 2), target=1)
        >>> field.gradient(torch.zeros(4, 3)).shape
        torch.Size([4, 3])
    """

    network: Network

    # Fields made of this one need it as their base, so that they are put here where they are
    # defined.
    layer_field: ClassVar[Any]
    several_targets: ClassVar[Any]

    log_probabilities: Callable[[Tensor], Tensor] | None = None
    """The logarithms of class probabilities, from the model's outputs; None where they are those of
    a softmax, which targets take themselves."""

    def __init__(
        self,
        model: Callable[..., Any],
        target: TargetLike,
        *,
        extra: Sequence[Any] | Mapping[str, Any] = (),
        normalisation: Normalisation | None = None,
        batch_size: int | None = None,
        layout: Layout | None = None,
        optimize: bool = False,
        backward: BackwardRule | None = None,
        softplus: float | None = None,
    ) -> None:
        self.network = Network(model, layout, extra, optimize=optimize)
        self.softplus = softplus
        if softplus is not None:
            self.network = SmoothedNetwork(self.network, softplus)
        self._aim(target)
        self.normalisation = checked_normalisation(normalisation)
        self.layout = layout
        self.packer = packer_for(
            model, batch_size, "optimised" if self.network.optimiser else "itself"
        )
        self.chordal = True  # until chords are seen not to add up
        self.kinks = self.gates = True  # until chords have met none
        self._row_check = RowCheck(partial(mixing, self.network))
        self._resolution = 0.0  # of the coarsest numbers that F came in
        self.without_chords: str | None = None  # why chords were given up, if they were
        self.backward: BackwardRule | None = None
        self._during: During = nullcontext
        if backward is not None:
            self._follow(backward)

    def __repr__(self) -> str:
        rule = "" if self.backward is None else f", backward={self.backward!r}"
        smooth = "" if self.softplus is None else f", softplus={self.softplus:g}"
        return f"TorchField({type(self.network.model).__name__}, {self.target!r}{rule}{smooth})"

    @property
    def target(self) -> Target:
        """The scalar that is explained; one inside the model as it is found in this model."""
        return self._target

    @target.setter
    def target(self, target: Target | None) -> None:
        assert target is not None
        self._aim(target)

    @property
    def input_dtype(self) -> torch.dtype | None:
        return parameter_dtype(self.network.model)

    def with_target(self, target: TargetLike) -> TorchField:
        """The same model, asked something else; what was learnt about batch sizes is shared."""
        field = copy.copy(self)
        field._aim(target)
        field.chordal = field.conservative  # what failed, or bent, may have been the target
        field.kinks = field.gates = True
        field.without_chords = None
        return field

    def _aim(self, target: Any) -> None:
        """Ask for a target; one inside the model is found there, and kept as it was named for other
        models."""
        self._named_target = as_target(target)
        self._target = self._named_target.located(self.network.resolved)

    def with_backward(self, rule: BackwardRule) -> TorchField:
        """The same question, its gradients from a backward pass that follows ``rule`` (instead of
        the one it followed)."""
        field = copy.copy(self)
        field._follow(rule)
        return field

    def with_softplus(self, beta: float) -> TorchField:
        """The same question of the model with softplus log(1 + exp(β u))/β in place of every ReLU
        (and smooth forms of ReLU6, leaky ReLUs and hard tanh): another F, which has second
        derivatives."""
        field = copy.copy(self)
        network = self.network.whole if isinstance(self.network, SmoothedNetwork) else self.network
        field.network = SmoothedNetwork(network, beta)
        field.softplus = beta
        field.memory = None
        field.chordal, field.kinks, field.gates = field.conservative, True, True
        return field

    def with_targets(self, targets: Sequence[Target]) -> Field:
        located = [target.located(self.network.resolved) for target in targets]
        several: Field = self.several_targets(self, located)
        return several

    def with_model(self, model: Callable[..., Any]) -> TorchField:
        """The same question, asked of another model that takes the same inputs; nothing of what was
        learnt of this one is kept."""
        network = self.network
        return TorchField(
            model,
            self._named_target,
            extra=network.extra.named or network.extra.positional,
            normalisation=self.normalisation,
            batch_size=self.packer.rows,
            layout=network.layout,
            optimize=network.optimiser is not None,
            backward=self.backward,
            softplus=self.softplus,
        )

    def afresh(self) -> TorchField:
        """The same question of the model as it is now: its memory and its chords were those of the
        model as it was."""
        self.network.refresh()
        field = copy.copy(self)
        field.memory = None
        field.chordal, field.kinks = field.conservative, True
        return field

    def plainly(self, z: Tensor, index: Tensor | None) -> Any:
        return self.network.plainly(z, index)

    def _follow(self, rule: BackwardRule) -> None:
        if not isinstance(rule, BackwardRule):
            raise InputError(
                f"backward= is a rule such as ig.fields.GuidedReLU() or ig.fields.Patterns.fit(model, data), not {type(rule).__name__}."
            )
        self._during = rule.bound(self.network.module)
        if rule.layers and self.network.optimiser is not None:
            self.network = PlainModel(self.network)
        self.backward = rule
        self.chordal, self.kinks, self.gates = False, True, True  # chords are those of F

    @property
    def conservative(self) -> bool:
        return self.backward is None

    @property
    def sign_decides(self) -> bool:
        return True  # nothing tells a classifier with one logit from a regression

    @contextmanager
    def ready(self) -> Iterator[None]:
        with self.network.ready(), self._row_check.during():
            yield

    @property
    def row_check(self) -> RowCheck | None:
        return self._row_check

    def again(self, z: Tensor, index: Tensor) -> Answer:
        answer = self.again_several(z, index, [self.target])
        return Answer(answer.value[:, 0], answer.outputs)

    def again_several(self, z: Tensor, index: Tensor, targets: Sequence[Target]) -> Answer:
        """``again`` for several targets: values (N, T), in the type of the rows."""
        with self.ready(), gradients(False):
            asks = [(target, index) for target in targets]
            outputs, scalars = self._outputs_and_scalars(z.clone(), index, asks)
            values = torch.stack([scalar.detach() for scalar in scalars], 1)
        return Answer(values.to(z.dtype), outputs)

    @property
    def resolution(self) -> float:
        return self._resolution

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        return self.evaluate_several(z, index, [self.target], gradient=gradient)[0]

    def evaluate_several(
        self,
        z: Tensor,
        index: Tensor,
        targets: Sequence[Target],
        *,
        beside: Sequence[Ask] = (),
        gradient: bool = True,
    ) -> list[Evaluation]:
        """Several targets for the same rows: one forward pass, and a backward pass for each.

        ``beside`` are further targets with an index of their own, which come last.
        """
        return self._scalars(
            z, index, [*((target, index) for target in targets), *beside], gradient=gradient
        )

    def behind(self, site: SiteLike | Sequence[SiteLike], side: str = "output") -> Any:
        sites = cast(Sequence[SiteLike], site if isinstance(site, list | tuple) else [site])
        return self.layer_field(self, [self.network.resolved(entry, side) for entry in sites])

    def score(self) -> Field:
        return self.with_target(self.target.score())

    def flow(self, z: Tensor, index: Tensor, direction: Tensor, sites: Sequence[Any]) -> LayerFlow:
        resolved = [self.network.resolved(site) for site in sites]
        axes = self.network.row_axes.setdefault(tuple(resolved), {})

        def scalar(rows: Tensor, like: Tensor) -> Tensor:
            examples = index[like]
            return self._outputs_and_scalars(rows, examples, [(self.target, examples)])[1][0]

        with self.ready(), gradients(True):
            return layer_flow(scalar, z, direction, resolved, axes)

    def evaluate_both(
        self, z: Tensor, index: Tensor, other: Target, other_index: Tensor
    ) -> tuple[Evaluation, Evaluation]:
        if other.site is not None and not isinstance(other.site, Site):
            return super().evaluate_both(z, index, other, other_index)
        main, extra = self.evaluate_several(z, index, [self.target], beside=[(other, other_index)])
        return main, extra

    def evaluate_chords(self, z: Tensor, index: Tensor, before: Tensor) -> Evaluation:
        if not self.chordal:
            return super().evaluate_chords(z, index, before)
        chords = ChordMode(before)
        failure: Exception | None = None
        try:
            with eager(), chords:
                evaluation = self.evaluate(z, index)
            self.kinks, self.gates = chords.kinks, chords.gates
            if not chords.derived and self.adds_up(z, evaluation, before):
                return evaluation
        except Exception as error:
            # What a target refuses, and a gradient that is missing though no chord took it away,
            # would be so without chords, too.
            detached = isinstance(error, DetachedModel) and not chords.derived
            if is_out_of_memory(error) or isinstance(error, TargetError) or detached:
                raise
            failure = error
        # Something in the model or the target is not a sum of chords; gradients at both ends are
        # the next best thing, from now on. What the model itself raises, it raises here too.
        evaluation = replace(super().evaluate_chords(z, index, before), passes=2)
        self.give_up(chords, failure)
        return evaluation

    def give_up(self, chords: ChordMode, failure: Exception | None = None) -> None:
        """Chords failed where gradients do not: do without them, and remember why."""
        # A checkpoint may not run again as it ran at first.
        if (
            chords.strict
            and failure is not None
            and not chords.derived
            and not isinstance(failure, CheckpointError)
        ):
            raise failure
        self.chordal = False
        if chords.derived:
            self.without_chords = "the model asks for a gradient inside"
        elif failure is not None:
            self.without_chords = f"{type(failure).__name__}: {failure}"
        else:
            self.without_chords = "they miss more than a hundredth of the change of F"
        if chords.refused:
            self.without_chords += (
                f" ({'; '.join(f'{name}: {why}' for name, why in chords.refused.items())})"
            )

    @staticmethod
    def adds_up(z: Tensor, evaluation: Evaluation, before: Tensor) -> bool:
        """Whether every chord explains the change of F along it, which costs nothing to know."""
        change = evaluation.value - evaluation.value.index_select(0, before)
        explained = total((z - z.index_select(0, before)).mul_(evaluation.gradient), 1)
        rounding = max(1e3, 8 * len(z)) * torch.finfo(z.dtype).eps * evaluation.value.abs().amax()
        return bool((explained - change).abs().sum() <= _DEFECT * change.abs().sum() + rounding)

    @property
    def gated(self) -> bool:
        return self.gates or not self.chordal

    @property
    def smooth(self) -> bool:
        return not self.kinks

    @contextmanager
    def trainable(self) -> Iterator[None]:
        with self.network.trainable():
            yield

    def attached(self, z: Tensor, index: Tensor) -> Evaluation:
        self._check_own_gradient("attributions that a model is trained on")
        self._check_parameters(z, index)
        with gradients(True), eager(), twice_differentiable():
            leaf = z.detach().requires_grad_()
            scalar = self._scalar_of(leaf, index)
            try:
                with self.network.during():
                    (slope,) = torch.autograd.grad(scalar.sum(), leaf, create_graph=True)
            except RuntimeError as error:
                raise self._no_hessian(error) from error
        self._finite(z, index, scalar.detach(), slope.detach(), [(self.target, index)])
        return Evaluation(scalar.to(z.dtype), slope.to(z.dtype))

    def curvature(self, z: Tensor, index: Tensor, directions: Tensor) -> Curvature:
        self._check_own_gradient("second derivatives")
        with self.ready(), gradients(True), eager(), twice_differentiable():
            leaf = (z.clone() if z.is_inference() else z.detach()).requires_grad_()
            scalar = self._scalar_of(leaf, index)
            try:
                with self.network.during():
                    slope, products = hessian_products(scalar, leaf, directions)
            except RuntimeError as error:
                raise self._no_hessian(error) from error
        evaluation = self._finite(z, index, scalar, slope, [(self.target, index)])
        if not bool(torch.isfinite(products.sum())) and not bool(torch.isfinite(products).all()):
            raise NonFiniteGradient(
                "Second derivatives are NaN or infinite: F has a square root, a norm or a power at zero on the way. Take another baseline, or "
                "add a small number under the root."
            )
        return Curvature(evaluation.value, evaluation.gradient, products.to(z.dtype))

    def _check_parameters(self, z: Tensor, index: Tensor) -> None:
        """Check that something in the model can be trained; of a function around tensors a row
        tells."""
        for root in self.network.roots:
            if any(parameter.requires_grad for parameter in root.parameters()):
                return
        with gradients(True):
            _, (scalar,) = self._outputs_and_scalars(
                z[:1].clone(), index[:1], [(self.target, index[:1])]
            )
        check_trainable(scalar)

    def _scalar_of(self, leaf: Tensor, index: Tensor) -> Tensor:
        """F (N,) for rows, with its graph."""
        _, (scalar,) = self._outputs_and_scalars(leaf.clone(), index, [(self.target, index)])
        self._check_attached(scalar)
        return scalar

    def _check_own_gradient(self, what: str) -> None:
        if self.backward is not None:
            raise NoHessian(
                f"Gradients follow {self.backward!r}, and are not those of F: there are no {what}. Leave the backward rule out."
            )

    def _no_hessian(self, error: RuntimeError) -> BaseException:
        """What a failed second backward pass says to the user."""
        if is_out_of_memory(error) or isinstance(error, IntegrandError):
            return error
        if "not have been used in the graph" in str(error):
            return DetachedModel(
                "The model's output does not depend on the input: no gradient leads back to it."
            )
        return NoHessian(
            f"The model cannot be differentiated twice: {error} Take another implementation of that operation, or one without reentrant "
            "checkpoints."
        )

    def kinked_operations(self, z: Tensor, index: Tensor) -> tuple[str, ...]:
        watch = KinkWatch()
        with self.ready(), gradients(True), eager(), watch:
            self._scalar_of(z.detach().requires_grad_(), index)
        return tuple(watch.names)

    def look(self, z: Tensor, index: Tensor | None, site: Representation | None = None) -> Tensor:
        if site is not None and not isinstance(site, Site):
            return super().look(z, index, site)
        with self.ready(), gradients(False):
            outputs, activations = self.network.run(
                z.clone(), index, [] if site is None else [site]
            )
        if site is None:
            values = output_tensor(outputs)
            check_rows(values, len(z))
            return values
        return flattened(activations[0], 1).to(state_dtype(activations[0].dtype))

    @property
    def reads(self) -> bool:
        return self.target.site is None and not isinstance(self.target, Custom)

    def read(self, outputs: Tensor, index: Tensor) -> Tensor:
        with gradients(False):
            return self._note_resolution(self._scalar(self.target, outputs, index, len(outputs)))

    @property
    def integers(self) -> bool:
        layout = self.network.layout
        return layout is not None and not all(dtype.is_floating_point for dtype in layout.dtypes)

    @property
    def pooled(self) -> bool:
        return self.network.pooled

    def questions(self, index: Tensor) -> Tensor:
        # A target that does not say what it is for other examples may be another one for each.
        speaks = type(self.target).at is not Target.at or isinstance(self.target, Output)
        if not self.pooled or not speaks:
            return index
        distinct: list[tuple[Target, int]] = []
        for example in index.tolist():
            target = self.target.at(torch.tensor([example], device=index.device))
            distinct.append(
                next((known for known in distinct if known[0] == target), (target, example))
            )
        return torch.tensor([number for _, number in distinct], device=index.device)

    def site(
        self, representation: Representation | None, z: Tensor, index: Tensor
    ) -> Representation | None:
        if representation is None:
            with self.ready(), gradients(False):
                return self.network.last_linear(z.clone(), index)
        if callable(representation) and not self._runs(representation, z, index):
            return calm(representation)
        return self.network.resolved(cast(SiteLike, representation))

    def trouble(self, start: Tensor, end: Tensor, index: Tensor) -> str | None:
        with self.ready(), gradients(False):
            together = self.packer.size(start[0], "value") > 1
            return degenerate(self.network, start, end, index, together=together)

    # ----------------------------------------------------------------------------------------------------------------

    def _runs(self, representation: object, z: Tensor, index: Tensor) -> bool:
        """Whether a representation is a layer: a module among the model's, or one that runs when
        the model does."""
        if not isinstance(representation, nn.Module):
            return False
        if any(module is representation for module in self.network.layers().values()):
            return True
        with self.ready(), gradients(False):
            return self.network.runs(representation, z.clone(), index)

    def _scalars(
        self, z: Tensor, index: Tensor, asks: Sequence[Ask], *, gradient: bool = True
    ) -> list[Evaluation]:
        """Several targets of one forward pass, each with its own backward pass."""
        try:
            return self._run_and_differentiate(z, index, asks, gradient=gradient)
        except RuntimeError as error:
            if self.network.reentrant or not is_reentrant(error):
                raise
            if not self.network.roots:  # parameters that are not known cannot be kept out of it
                raise ModelError(
                    "The function checkpoints with use_reentrant=True, which gives every parameter a gradient that nobody asked for: "
                    "explain the nn.Module itself, or checkpoint with use_reentrant=False."
                ) from error
        self.network.reentrant = True
        return self._run_and_differentiate(z, index, asks, gradient=gradient)

    def _run_and_differentiate(
        self, z: Tensor, index: Tensor, asks: Sequence[Ask], *, gradient: bool
    ) -> list[Evaluation]:
        during = self._during if gradient else nullcontext
        with self.ready(), gradients(gradient):
            leaf = (z.clone() if z.is_inference() else z.detach()).requires_grad_(gradient)
            # The model gets a copy: one that works in place may neither break the leaf nor the
            # caller's rows.
            copied = leaf.clone()
            _, scalars = self._outputs_and_scalars(copied, index, asks, during)
            if not gradient:
                return [self._finite(z, index, s, z.new_empty(0), asks) for s in scalars]
            totals = [scalar.sum() for scalar in scalars]
            last = len(scalars) - 1
            with during(), self.network.during():  # checkpoints run again what they ran
                slopes = [
                    self._slope(total, leaf, keep=number < last)
                    for number, total in enumerate(totals)
                ]
        return [self._finite(z, index, s, g, asks) for s, g in zip(scalars, slopes, strict=True)]

    def _outputs_and_scalars(
        self, z: Tensor, index: Tensor, asks: Sequence[Ask], during: During = nullcontext
    ) -> tuple[Any, list[Tensor]]:
        """The model's outputs for rows ``z``, and the targets' scalars; a backward rule is for the
        model's operations (``during``) alone."""
        with during():
            outputs, activations = self.network.run(
                z, index, [target.site for target, _ in asks if target.site is not None]
            )
        views = iter(activations)
        return outputs, [
            self._scalar(target, outputs if target.site is None else next(views), examples, len(z))
            for target, examples in asks
        ]

    def _scalar(self, target: Target, outputs: object, index: Tensor, rows: int) -> Tensor:
        if target.by_row:
            check_rows(output_tensor(outputs), rows)
        if target.normalises and self.log_probabilities is not None:
            outputs = self.log_probabilities(output_tensor(outputs))
        try:
            scalar = target(outputs, index)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            if (
                not isinstance(target, Custom)
                or isinstance(error, IntegrandError)
                or is_out_of_memory(error)
            ):
                raise
            raise TargetError(
                f"The target function failed on outputs for {rows} rows: {error} It is called with however many rows fit into one "
                "model call, so it may not assume the batch size: what differs between examples goes into "
                "ig.targets.Custom(function, data)."
            ) from error
        if not isinstance(scalar, Tensor) or scalar.shape != (rows,):
            returned = (
                describe(scalar.shape) if isinstance(scalar, Tensor) else type(scalar).__name__
            )
            raise TargetError(
                f"A target returns one number per row, shape {rows}; this one returned {returned}. It is called with however many "
                "rows fit into one model call, so it may not assume the batch size: reduce over the other axes only."
            )
        return scalar

    @staticmethod
    def _check_attached(total: Tensor) -> None:
        if not total.requires_grad:
            raise DetachedModel(
                "The model's output carries no gradient. Something detaches it: .detach(), .item(), .numpy(), a no_grad block, "
                "rounding, an argmax, or, at a layer, a checkpoint around it with use_reentrant=True. Return a differentiable score."
            )

    def _slope(self, total: Tensor, leaf: Tensor, *, keep: bool) -> Tensor:
        self._check_attached(total)
        (slope,) = slopes([total], [leaf], keep=keep, everywhere=self.network.reentrant)
        if slope is None:
            raise DetachedModel(
                "The model's output does not depend on the input: no gradient leads back to it. Is the input detached or "
                "copied on the way (torch.tensor(x), .data, integer casts), or is another argument the one to explain?"
            )
        return slope

    def _note_resolution(self, value: Tensor) -> Tensor:
        """Values of F as the model gave them; how finely is remembered."""
        kind = value.device.type
        # A model may compute in half precision and answer in float32.
        mixed = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else value.dtype
        self._resolution = max(
            self._resolution,
            *(torch.finfo(t).eps for t in (value.dtype, mixed) if t.is_floating_point),
        )
        return value

    def _finite(
        self, z: Tensor, index: Tensor, value: Tensor, slope: Tensor, asks: Sequence[Ask]
    ) -> Evaluation:
        value = self._note_resolution(value).detach().to(z.dtype)
        # A sum is finite only if every term is; only the rare infinite sum is looked at term by
        # term.
        if not math.isfinite(float(value.sum() + slope.sum())) and not bool(
            torch.isfinite(value).all() and torch.isfinite(slope).all()
        ):
            target, examples = asks[0]
            raise_nonfinite(self.network, z, index, lambda outputs: target(outputs, examples))
        return Evaluation(value, slope.to(z.dtype))


def check_rows(outputs: Tensor, rows: int) -> None:
    """A model's outputs have one entry per row."""
    if not outputs.ndim:
        raise TargetError(
            f"The model returned one number for {rows} row{'s' * (rows != 1)} together: one per row is needed. Drop the .sum() or .mean() "
            "over the batch."
        )
    if len(outputs) != rows:
        raise TargetError(
            f"The model returned {len(outputs)} row{'s' * (len(outputs) != 1)} for {rows}: is the first axis of the inputs the batch? For "
            "models with time first: lambda z: model(z.transpose(0, 1)), with the batch in front of the inputs."
        )
