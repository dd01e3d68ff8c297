"""A layer's activations as a field: only the part of the model behind the layer is run.

    lift      z ──▶ [ before ] ──▶ h ──▶ [ behind ] ──▶ F           the whole model, at the ends of segments
    evaluate                       h ──▶ [ behind ] ──▶ F, ∂F/∂h    at all the nodes between

    F(h, b) = target( behind(h; what passes the layer by, as it was when b was lifted) )

What passes the layer by (a skip connection around it, a mask, the input itself) is kept from the
lift and belongs to an *example*: 0 … B−1 are the inputs, and ``hold`` numbers further lifted rows
from B on, for paths whose corners bring their own.

Several places (layers, tensors of one layer, runs of one layer) are one point h of a joint space,
laid end to end: they move together, and each gives way to its own part of h where the model comes
by.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.checkpoint import CheckpointError

from ..core.segment import Evaluation
from ..core.shapes import state_dtype
from ..errors import ModelError, TargetError
from ..model.autograd import gradients
from ..model.batching import BatchSizer, packer_for
from ..model.layout import Layout
from ..model.network import Network, PlainModel, Site
from ..model.recording import DependencyProbe, Forward, Recording, forwards, tensors_of
from ..model.replay import Planned, ReplayPlan, Variable
from ..model.row_independence import Answer
from ..targets import Target
from .torch import Ask, TorchField
from .views import CallCount

_TRIED = 8  # rows are tried, whether what is behind a layer can be run alone
_SAME = 1e-3  # of the size of the outputs that running only what is behind a layer may change


@dataclass(frozen=True, eq=False)
class LayerActivations:
    """Rows that have been run through the whole model.

    points  (N, \\*L) what was at the site          value  (N,) F, or (N, T) for several targets
    example (N,) whose rows they are               kept   what passed the site by, row by row
    """

    points: Tensor
    value: Tensor
    example: Tensor
    kept: tuple[Tensor, ...]

    @staticmethod
    def joined(parts: Sequence[LayerActivations]) -> LayerActivations:
        """One after the other."""
        if len(parts) == 1:
            return parts[0]
        return LayerActivations(
            torch.cat([part.points for part in parts]),
            torch.cat([part.value for part in parts]),
            torch.cat([part.example for part in parts]),
            tuple(torch.cat(rows) for rows in zip(*(part.kept for part in parts), strict=True)),
        )

    def __getitem__(self, rows: slice | Tensor) -> LayerActivations:
        return LayerActivations(
            self.points[rows],
            self.value[rows],
            self.example[rows],
            tuple(k[rows] for k in self.kept),
        )


class RunAgain(ModelError, CheckpointError):
    """A checkpoint around a site."""


class Behind(PlainModel):
    """A network from a site on, called with what is there (N, \\*L) instead of with inputs. It is
    run in parts, as it is."""

    def __init__(self, whole: Network, sites: Sequence[Site]) -> None:
        super().__init__(whole)
        self.sites = tuple(sites)
        self.plan: ReplayPlan | None = None
        self.held: LayerActivations | None = None

    @property
    def where(self) -> str:
        """The places, in words."""
        return " and ".join(map(str, self.sites))

    def run(
        self, z: Tensor, index: Tensor | None, sites: Sequence[Site] = ()
    ) -> tuple[Any, list[Tensor]]:
        skipped = (
            [call.module for call in self.plan.calls if call.leaves is not None]
            if self.plan
            else []
        )
        for site in sites:
            if any(site.module is module for module in skipped):
                raise ModelError(
                    f"{site} is not behind {self.where}, where this field begins.".capitalize()
                )
        return super().run(z, index, sites)

    def examples(self, index: Tensor) -> Tensor:
        """The inputs' own examples of these, which targets and extra arguments are looked up by."""
        return index if self.held is None else self.held.example[index]

    def _call(self, h: Tensor, index: Tensor | None, *_: Any) -> Any:
        if index is None:
            raise TargetError(
                "A layer's values are only known for examples: choose references among the inputs instead."
            )
        plan, activations = self.plan, self.held
        if plan is None or activations is None:
            raise ModelError(
                "Nothing was lifted yet: a layer's field is asked about a layer's values only after lift()."
            )
        rows = dict(
            zip([(-1, 0), *((n, p) for n, p, _ in plan.kept())], activations.kept, strict=True)
        )
        # Rows of one example only, as when explaining a single input: views of it instead of
        # copies.
        single = bool((index == index[0]).all())

        def give(number: int, place: int, leaf: Variable) -> Any:
            if leaf.axis is None:
                return leaf.sample.clone() if leaf.written else leaf.sample
            value = rows[number, place] if leaf.used else leaf.by_row(leaf.sample)
            if leaf.used and not single:
                return leaf.as_it_was(value[index])
            first = int(index[0]) if leaf.used else 0
            expanded = leaf.as_it_was(value[first : first + 1].expand(len(index), *value.shape[1:]))
            return expanded.clone() if leaf.written else expanded

        z = give(-1, 0, plan.entrance)
        with forwards(self._forwards(plan, h, give)):
            return self.whole._call(z, self.examples(index))

    def _forwards(
        self, plan: ReplayPlan, h: Tensor, give: Callable[[int, int, Variable], Any]
    ) -> list[tuple[nn.Module, Forward]]:
        by_module: dict[nn.Module, list[tuple[int, Planned]]] = {
            place.module: [] for place in plan.places
        }
        for number, call in enumerate(plan.calls):
            by_module.setdefault(call.module, []).append((number, call))
        replacements = plan.given(h)

        def stub(module: nn.Module, calls: list[tuple[int, Planned]]) -> Forward:
            original, turns = module.forward, itertools.count()

            def forward(*args: Any, **kwargs: Any) -> Any:
                turn = next(turns)
                leaving = replacements.get((module, turn, "output"), {})
                number, call = calls[turn] if turn < len(calls) else (0, None)
                if call is not None and call.leaves is not None:
                    assert call.spec is not None
                    outputs = [
                        leaving[place] if place in leaving else give(number, place, leaf)
                        for place, leaf in enumerate(call.leaves)
                    ]
                    return tree_unflatten(outputs, call.spec)
                entering = replacements.get((module, turn, "input"))
                if entering:
                    args, kwargs = _with(entering, (args, kwargs))
                outputs = original(*args, **kwargs)
                return _with(leaving, outputs) if leaving else outputs

            return forward

        return [(module, stub(module, calls)) for module, calls in by_module.items()]


def _with(replacements: dict[int, Tensor], value: object) -> Any:
    """A value with other leaves at some places."""
    leaves, spec = tree_flatten(value)
    return tree_unflatten(
        [replacements.get(place, leaf) for place, leaf in enumerate(leaves)], spec
    )


class LayerField(TorchField):
    """F as a function of what is at a layer, for a torch model; what passes the layer by stays as
    it was at the lift.

    ``lift`` runs the whole model, once per row (and the first time one to three rows more, to see
    what must be kept); ``hold`` says whose values the examples are; then it is a field like any
    other, whose evaluations cost only the layers behind.

    Args:
        field: the whole model's, with its target.
        sites: where it is cut, ``ig.fields.Site`` values.

    Raises:
        ModelError: where a layer is no place to explain at.

    Example:
        >>> import torch, integrand as ig
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
        ... )
        >>> behind, x = ig.TorchField(model, 0).behind("1"), torch.randn(5, 4)
        >>> behind.lift(x, torch.arange(5)).points.shape
        torch.Size([5, 8])
    """

    network: Behind
    packer: _HeavyRows

    def __init__(self, field: TorchField, sites: Sequence[Site]) -> None:
        vars(self).update(vars(field))
        self.field = field
        self.network = Behind(field.network, sites)
        self.normalisation = self.memory = self.layout = None
        self.tally = CallCount()
        self.packer = _HeavyRows(
            BatchSizer(field.packer.rows)
            if field.packer.rows
            else packer_for(sites[0].module, None)
        )

    def __repr__(self) -> str:
        return f"LayerField({self.field!r}, {self.network.where})"

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where in the model this is."""
        return self.network.sites

    @property
    def plan(self) -> ReplayPlan:
        """How what is at the sites is arranged; known when something has been lifted."""
        if self.network.plan is None:
            raise ModelError(
                "Nothing was lifted yet: what is at a layer is known only after lift()."
            )
        return self.network.plan

    @property
    def bypassed(self) -> bool:
        """Whether anything reaches the outputs without passing the layer."""
        plan = self.network.plan
        return plan is not None and (plan.entrance.used or any(True for _ in plan.kept()))

    @property
    def integers(self) -> bool:
        """What is at a layer has a gradient, whatever the inputs are."""
        return False

    def lift(self, z: Tensor, index: Tensor, targets: Sequence[Target] = ()) -> LayerActivations:
        """Rows ``z`` (N, \\*s) of the examples ``index`` (N,), run through the whole model: one
        value each."""
        fresh = self.network.plan is None
        parts: list[LayerActivations] = []

        def first(_: slice) -> None:
            parts.append(self._first(z[:2], index[:2], targets))

        with self.ready(), gradients(False):
            self.field.packer.run(int(fresh), first, z[0], "value")
            offset = 2 * len(parts)

            def call(part: slice) -> None:
                rows = slice(offset + part.start, offset + part.stop)
                parts.append(self._lift(z[rows], index[rows], targets))

            self.field.packer.run(max(0, len(z) - offset), call, z[0], "value")
            activations = LayerActivations.joined(parts)
            return self._verified(z, index, activations, targets) if fresh else activations

    def example_name(self, example: int) -> str:
        return super().example_name(int(self.network.examples(torch.tensor([example]))))

    def hold(self, *lifted: LayerActivations) -> None:
        """From now on, these rows are the examples 0, 1, 2 …"""
        self.network.held = LayerActivations.joined(lifted)

    def with_model(self, model: Callable[..., Any]) -> TorchField:
        raise ModelError(
            "What is held of a layer is of this model: ask for the layer of the other one, field.with_model(model).behind(site)."
        )

    def read(self, outputs: Tensor, index: Tensor) -> Tensor:
        return super().read(outputs, self.network.examples(index))

    @property
    def pooled(self) -> bool:
        return False  # a layer's values belong to examples

    def again_several(self, z: Tensor, index: Tensor, targets: Sequence[Target]) -> Answer:
        examples = self.network.examples(index)
        with self.ready(), gradients(False):
            outputs, seen = self.network.run(z.clone(), index, _sites(targets))
            values = self._values(outputs, seen, examples, targets)
        return Answer(values.to(z.dtype), outputs)

    def evaluate_several(
        self,
        z: Tensor,
        index: Tensor,
        targets: Sequence[Target],
        *,
        beside: Sequence[Ask] = (),
        gradient: bool = True,
    ) -> list[Evaluation]:
        examples = self.network.examples(index)
        try:
            return self._scalars(
                z, index, [*((target, examples) for target in targets), *beside], gradient=gradient
            )
        except CheckpointError as error:
            raise RunAgain(
                f"What is explained is {self.network.where}, inside a part that is checkpointed: it would run again on the way back, from "
                "its own beginning. Choose the output of that part, or a layer outside, or switch checkpointing off."
            ) from error

    # ----------------------------------------------------------------------------------------------------------------

    def _first(self, z: Tensor, index: Tensor, targets: Sequence[Target]) -> LayerActivations:
        """One or two rows: the second (the same again, if there is none) shows which axes grow with
        the rows.

        One row more is run with autograd watching, and shows what passes the site by.
        """
        behind, rows = self.network, len(z)
        if rows == 1:
            z, index = z.repeat(2, *(1,) * (z.ndim - 1)), index.repeat(2)
        two = self._taped(z, index, targets)
        probe = DependencyProbe()
        with gradients(True):
            single = Recording(behind.sites, probe).run(behind.whole, probe.copy(z[:1]), index[:1])
            plan = ReplayPlan.of(
                single, probe, two, 2, whole_input=_holds_integers(z, behind.layout)
            )
        self.tally.values += 1
        self.tally.calls += 1
        behind.plan = plan
        # An output is some four times the size of the input in the networks that the usual sizes
        # were found with.
        self.packer.least = max(plan.size, plan.heaviest // 4)
        if any(leaf.written for _, _, leaf in plan.kept()):  # by now it is not what it was
            two = self._taped(z, index, targets)
        return self._lifted(two, z, index, targets)[:rows]

    def _verified(
        self, z: Tensor, index: Tensor, lifted: LayerActivations, targets: Sequence[Target] = ()
    ) -> LayerActivations:
        """``lifted``, if running only what is behind the layer gives what the whole model gave on a
        few of its rows.

        If not, values matter in ways that autograd does not see: everything is kept from now on,
        and lifted again.
        """
        if self._continues(lifted, targets):
            return lifted
        plan = self.network.plan
        assert plan is not None
        self.network.plan = plan.cautious()
        lifted = self.lift(z, index, targets)
        if self._continues(lifted, targets):
            return lifted
        raise ModelError(
            f"The model gives other numbers when it is continued from {self.network.where} than when it is run as a whole, so it "
            "cannot be explained there: something in it depends on how often its layers run, or on chance."
        )

    def _continues(self, lifted: LayerActivations, targets: Sequence[Target]) -> bool:
        count = len(lifted.points)
        tried = min(count, _TRIED)
        # In the reverse order: what is handed out by row has to be each row's own.
        sample = lifted[torch.linspace(count - 1, 0, tried, dtype=torch.float64).round().long()]
        self.hold(sample)
        rows = torch.arange(tried, device=sample.points.device)
        values, rounding = torch.empty_like(sample.value), [0.0]

        def call(part: slice) -> None:
            outputs, seen = self.network.run(
                sample.points[part].clone(), rows[part], _sites(targets or [self.target])
            )
            rounding.extend(map(_rounding, tensors_of(outputs)[0]))
            values[part] = self._values(outputs, seen, sample.example[part], targets)
            self.tally.values += len(rows[part])
            self.tally.calls += 1

        self.packer.run(tried, call, sample.points[0], "value")
        scale = sample.value.abs().amax().clamp_min(torch.finfo(values.dtype).tiny)
        # What is not finite is not this check's to judge: it is told when it is evaluated.
        return not bool(((values - sample.value).abs() > _SAME * scale + max(rounding)).any())

    def _lift(self, z: Tensor, index: Tensor, targets: Sequence[Target]) -> LayerActivations:
        return self._lifted(self._taped(z, index, targets), z, index, targets)

    def _taped(self, z: Tensor, index: Tensor, targets: Sequence[Target]) -> Recording:
        plan = self.network.plan
        tape = Recording(
            self.network.sites,
            wanted=plan.wanted if plan else None,
            watched=_sites(targets or [self.target]),
        )
        tape.run(self.network.whole, z.clone(), index)
        self.tally.values += len(z)
        self.tally.calls += 1
        return tape

    def _lifted(
        self, tape: Recording, z: Tensor, index: Tensor, targets: Sequence[Target]
    ) -> LayerActivations:
        plan = self.plan
        value = self._values(tape.outputs, tape.activations, index, targets)
        return LayerActivations(plan.points(tape), value, index, plan.taken(tape, z))

    def _values(
        self, outputs: object, seen: Sequence[Tensor], index: Tensor, targets: Sequence[Target]
    ) -> Tensor:
        """F of each target (N, T), or of the field's own (N,); ``seen`` is what was at the sites that
        targets read."""
        activations = iter(seen)
        values = [
            self._scalar(
                target, outputs if target.site is None else next(activations), index, len(index)
            ).detach()
            for target in targets or [self.target]
        ]
        scalars = torch.stack(values, 1) if targets else values[0]
        return scalars.to(state_dtype(scalars.dtype))


def _sites(targets: Sequence[Target]) -> list[Site]:
    """Where in the model targets read what they explain, those that read its outputs aside."""
    return [target.site for target in targets if target.site is not None]


def _rounding(outputs: Tensor) -> float:
    """What rounding may do to outputs of this size; F may be a small difference of large ones."""
    if not outputs.is_floating_point() or not outputs.numel():
        return 0.0
    return float(torch.finfo(outputs.dtype).eps ** 0.75 * outputs.detach().abs().amax())


def _holds_integers(z: Tensor, layout: Layout | None) -> bool:
    """Integers reach the outputs in ways that autograd does not see: masks, indices."""
    return not all(
        dtype.is_floating_point for dtype in (z.dtype, *(layout.dtypes if layout else ()))
    )


class _HeavyRows(BatchSizer):
    """Rows count as heavy as the largest output behind the layer makes them: what is explained may
    be small beside it."""

    def __init__(self, inner: BatchSizer) -> None:
        super().__init__(inner.rows)
        self._sizes = inner._sizes
        self.least = 1

    def _size(self, like: Tensor, kind: str) -> Any:
        heavier = like if like.numel() >= self.least else like.new_empty(()).expand(self.least)
        return super()._size(heavier, kind)


TorchField.layer_field = LayerField
