"""Verdicts on the axioms, and ``axioms``, which checks them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...errors import InputError, UnknownName
from ...fields import Field, TorchField
from ...targets import TargetLike
from .adapter import Candidate, ExplainerAdapter
from .checks import CATALOGUE
from .own_model import OWN

_KEPT = 1e-3  # what may be missing, relative to the map: rules integrate to a little


@dataclass(frozen=True)
class AxiomVerdict:
    """One axiom of one method.

    Args:
        axiom: its name.
        statement: the axiom in a sentence.
        gap: the size of the violation at worst, relative to the size of the maps; NaN where it
            could not be checked.
        holds: whether that is nothing but error of integration; None where it could not be checked.
        why: the reason where it could not be checked.
    """

    axiom: str
    statement: str
    gap: float
    holds: bool | None
    why: str = ""


@dataclass(frozen=True)
class Axioms:
    """The verdicts on a method, in the order of the catalogue; prints as a table.
    ``found["symmetric"].holds``.

    Args:
        method: what was judged.
        verdicts: one for each axiom.
    """

    method: Any
    verdicts: tuple[AxiomVerdict, ...]

    def __getitem__(self, axiom: str) -> AxiomVerdict:
        for verdict in self.verdicts:
            if verdict.axiom == axiom:
                return verdict
        raise UnknownName("axiom", axiom, [verdict.axiom for verdict in self.verdicts])

    def __iter__(self) -> Iterator[AxiomVerdict]:
        return iter(self.verdicts)

    @property
    def kept(self) -> tuple[str, ...]:
        """The names of the axioms that hold."""
        return tuple(v.axiom for v in self.verdicts if v.holds)

    def __str__(self) -> str:
        lines = [f"Axioms of {self.method!r}"]
        for v in self.verdicts:
            mark = {True: "✓", False: "✗", None: "–"}[v.holds]
            note = v.why if v.holds is None else f"off by {v.gap:.1e}" if not v.holds else ""
            lines.append(f"  {mark} {v.axiom:<34} {v.statement}{f'  [{note}]' if note else ''}")
        return "\n".join(lines)

    __repr__ = __str__


def axioms(
    method: Candidate,
    model: Callable[..., Any] | Field | None = None,
    x: Tensor | None = None,
    *,
    target: TargetLike = 0,
    tolerance: float = _KEPT,
) -> Axioms:
    """Which axioms a method, a path, or a function keeps, each tried on functions where those that
    break it show it.

    Holding on these trials is evidence, breaking is proof. Axioms that a method cannot be asked for
    (it needs images, or layers by name) come back with ``holds`` None and the reason.

    Args:
        method: a ``Method`` or anything that wraps one (its baseline is exchanged for the
            references of each trial); a path ``(field, start, end)``; or a function ``(field, x (B,
            n), references (R, n)) -> values (B, n)``.
        model: optionally your own model: completeness, dummy, and linearity are then checked there
            as well, with the method's own baseline.
        x: inputs (B, \\*s) of that model.
        target: what is explained of the model.
        tolerance: how much may be missing, relative to the size of the maps, before an axiom counts
            as broken.

    Cost:
        About 25 maps of functions of four features; with a model, five maps more of it.

    References:
        Sundararajan et al. 2017; Lerma and Lucas 2021 (arXiv 2103.13533); Lundstrom et al. 2022
        (arXiv 2202.11912); Lundstrom and Razaviyayn 2025 (arXiv 2306.13753).

    Example:

    >>> import integrand as ig
    >>> found = ig.metrics.axioms(ig.methods.integrated(rule=ig.rules.GaussLegendre(12)))
    >>> found["symmetric"].holds, len(found.kept)
    (True, 14)
    """
    adapter = ExplainerAdapter.of(method)
    verdicts = [_verdict(name, check, tolerance, adapter) for name, check in CATALOGUE.items()]
    if model is not None:
        if x is None or adapter.explainer is None:
            raise InputError(
                "On a model of your own axioms() takes a method or a path, and inputs: axioms(method, model, x)."
            )
        field = model if isinstance(model, Field) else TorchField(model, target)
        verdicts += [
            _verdict(name, check, tolerance, adapter.explainer, field, x)
            for name, check in OWN.items()
        ]
    return Axioms(method, tuple(verdicts))


def _verdict(
    name: str, check: Callable[..., float | None], tolerance: float, *arguments: Any
) -> AxiomVerdict:
    statement = " ".join((check.__doc__ or "").split("\n\n")[0].split()).rstrip(".")
    try:
        gap = check(*arguments)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        why = f"could not be asked: {error}".split("\n")[0]
        return AxiomVerdict(name, statement, float("nan"), None, why)
    if gap is None:
        return AxiomVerdict(name, statement, float("nan"), None, "it has no path")
    return AxiomVerdict(name, statement, gap, gap <= tolerance)
