"""The result: a map for every example, and everything needed to defend it.

A value, not an explainer: nothing here computes an attribution. Pictures, pages and files are made by the floors above, reached
only when they are asked for.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from .cost import Cost
from .errors import InputError, MissingExtra
from .normalisation import Normalisation
from .walk import Frames

INCOMPLETE = 0.1
"""A gap above this is warned of."""

Parts = Any  # a tensor, or a tuple or dict of tensors, as the inputs were


@dataclass(frozen=True, eq=False)
class Attribution:
    """What each feature contributed to F(x), for B examples.

        values = Σ_r weights_r · shares_r          Σ values + residual = F(x) − Σ_r weights_r · F(start_r)

    values     (B, \\*s), arranged as the inputs were (a tuple or dict of tensors for such inputs)
    inputs     (B, \\*s), what was explained
    output     (B,) F(x)
    weights    (R, B); columns add up to one
    change     (R, B) F(x) − F(start_r), measured where each path really began
    shares     (R, B, \\*s) the map of each reference alone, or None when it was not kept (``record=("shares",)`` keeps it)
    baselines  (R, B, \\*s) where each path really began; None when there were too many to keep
    residual   (B,) what the map misses of the change, in units of F
    error      (B,) the relative L2 error of ``values`` that the rule itself estimates, errors of pieces and references taken as
               independent; NaN for rules that estimate none. An estimate knows F and its gradients at the points that were looked at:
               what begins and ends between two of them (an eighth of the path at most where parts of the model multiply each other, a
               quarter elsewhere) leaves no trace in it. Nor does it know how wrong the model's own rounding is.
    converged  (B,) whether the tolerance was met: ``error`` of the map as a whole is at most that; without one, whether the residual is
               at most a tenth of the change
    fitness    (R, B) D of each baseline, where the weights came from one; ``criterion`` says what D counts, and ``reasons``
               (per example) where it says nothing
    names      what the references are called
    notes      named numbers measured along the path, (K+1, R, B): IG2's "distance" from the counterfactual to the input.
               Methods around a method keep here what they measured, maps too; the third axis is always that of the examples
    frames     points along the path, when recorded (``record=("path",)``)
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

    # --- numbers --------------------------------------------------------------------------------------------------

    @property
    def base(self) -> Tensor:
        """(B,) the weighted value at the baselines: what the map explains the difference to."""
        return self.output - (self.weights * self.change).sum(0)

    @property
    def claims_completeness(self) -> bool:
        """Whether the method says that its maps add up to ``change``; of one that does not, the residual is no fault."""
        return claims_completeness(self.method)

    @property
    def gap(self) -> Tensor:
        """(B,) the residual relative to the change it should explain."""
        change = (self.weights * self.change).sum(0).abs()
        # A change far below the values themselves is rounding; a gap relative to it would mean nothing.
        floor = 1e-4 * torch.maximum(self.output.abs(), self.base.abs())
        smallest = torch.finfo(change.dtype).tiny
        return self.residual.abs() / torch.maximum(change, floor).clamp_min(smallest)

    # --- examples -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.output)

    def __iter__(self) -> Iterator[Attribution]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, which: int | slice | Tensor | list[int]) -> Attribution:
        """The attribution of one or some examples, batch axis kept."""
        if not isinstance(which, slice | list) and getattr(which, "ndim", 0) == 0:
            which = operator.index(which)
        if isinstance(which, int):
            if not -len(self) <= which < len(self):
                raise IndexError(f"There is no example {which} among {len(self)}.")
            which = [which % len(self)]
        numbers = torch.arange(len(self))[which]

        def first(t: Tensor) -> Tensor:
            return t[numbers.to(t.device)]

        def second(t: Tensor) -> Tensor:
            return t[:, numbers.to(t.device)]

        def third(t: Tensor) -> Tensor:
            return t[:, :, numbers.to(t.device)]

        frames = self.frames and Frames(self.frames.clock, third(self.frames.points))
        target = self.target.at(numbers) if hasattr(self.target, "at") else self.target
        return dataclasses.replace(
            self,
            **{k: mapped(first, getattr(self, k)) for k in _BY_EXAMPLE},
            **{k: mapped(second, getattr(self, k)) for k in _BY_REFERENCE},
            notes={k: third(v) for k, v in self.notes.items()},
            reasons=tuple(self.reasons[i] for i in numbers.tolist()) if self.reasons else (),
            frames=frames,
            target=target,
        )

    def __repr__(self) -> str:
        shape = mapped(lambda t: tuple(t.shape), self.values)
        adds_up = f"worst gap {float(self.gap.max()):.2%}" if self.claims_completeness else "adds up: not claimed"
        return (
            f"<Attribution of {len(self)} example{'s' * (len(self) != 1)}, values {shape}, by {self.method!r}, "
            f"{adds_up}, {self.cost.gradients} gradients in {self.cost.seconds:.2f} s>"
        )

    # --- doors to the floors above --------------------------------------------------------------------------------

    def plot(self, **options: Any) -> Any:
        """Draw overlays, heat maps, or bars; see ``integrand.report.figures.plot``. Needs integrand[plot]."""
        return _door("report.figures").plot(self, **options)

    def save(self, path: Any) -> None:
        """Write to one safetensors file with a JSON header. Needs integrand[save]; read back with ``ig.load``."""
        _door("archive").save(self, path)

    def to_shap(self) -> Any:
        """The same numbers as a ``shap.Explanation`` (values, base values, data), for SHAP's plots. Needs shap."""
        try:
            shap = import_module("shap")
        except ImportError:
            raise MissingExtra("shap", "shap", "to_shap()") from None
        if not isinstance(self.values, Tensor):
            raise InputError(
                "to_shap() takes one input tensor; this attribution has several: build one Explanation for each."
            )
        values, base, data = (t.detach().cpu().numpy() for t in (self.values, self.base, self.inputs))
        return shap.Explanation(values, base, data)

    def _repr_html_(self) -> str:
        return str(_door("report.html").fragment(self))


_BY_EXAMPLE = ("values", "inputs", "output", "residual", "error", "converged")
_BY_REFERENCE = ("weights", "change", "shares", "baselines", "fitness")


def claims_completeness(method: Any) -> bool:
    """Whether maps of a method are meant to add up to the change of F: it says so itself, or what it wraps or its rule does.

    Rules that add up only on average count as well: what one of their maps misses is an error of that map.
    """
    own = getattr(method, "complete", None)
    if isinstance(own, bool):
        return own
    inner = getattr(method, "method", None)
    if callable(inner):
        return claims_completeness(inner)
    rule = getattr(method, "rule", None)
    return bool(getattr(rule, "complete", True) or getattr(rule, "unbiased", False))


def mapped(function: Callable[[Tensor], Any], parts: Parts) -> Any:
    """``function`` applied to every tensor of a tensor, tuple, dict, or None."""
    if parts is None:
        return None
    if isinstance(parts, dict):
        return {name: function(part) for name, part in parts.items()}
    if isinstance(parts, tuple):
        return tuple(function(part) for part in parts)
    return function(parts)


def _door(module: str) -> Any:
    return import_module(f"{__package__}.{module}")
