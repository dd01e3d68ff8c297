"""From integrals to an attribution: the one place where results of integrating are put together.

inputs ── opened ──▶ x, counted field ── integrate ──▶ Integrals ── assembled ──▶ Attribution

What integrates paths (``Method``, ``TwoStage``, ``UntilTolerance``) is an ``Integrator``: it says
what the integrals are, and completeness, error, verdict, cost and warnings follow here. Wrappers
that run any explainer again and put its maps together hand their map to ``rearranged``.
"""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..baselines.base import References, labels
from ..core.shapes import norm, plain, state_dtype, total
from ..errors import FitnessWarning, IncompleteWarning, IntegerInput, warn
from ..fields import Cast, CountedField, Field
from ..fields.memory import OutputCache
from ..model.autograd import gradients
from ..rules import Adaptive
from ..weightings import Weighed
from .attribution import INCOMPLETE, Attribution, Explainer, ExplainerLike, as_explainer
from .attribution import Watch as Watch
from .cost import Cost, measured
from .loop import PathIntegrals
from .sampling_error import Doubt

_CHANCE = 4.0  # standard errors that a residual is rarely more than
_NORMAL = 1.96  # of them, that it is in 95 of 100 cases no more than
_MOST_DRAWS = 1e7  # that anybody would be advised to take


class Doubtful(Protocol):
    """What knows how far chance may have led a map."""

    def doubt(self, values: Tensor, residual: Tensor) -> Doubt: ...


@dataclass(frozen=True, eq=False)
class Integrals:
    """Path integrals and their weighted sum, before they are an attribution.

    Attributes:
        values: (B, \\*s) Σ_r w_r · share_r.
        paths: the integrals from every reference, and the change of F along each path.
        weighed: the weights (R, B), and what they were judged by.
        references: where paths were to start.
        chance: knows the error of maps that were drawn; None where nothing is random.
    """

    values: Tensor
    paths: PathIntegrals
    weighed: Weighed
    references: References
    chance: Doubtful | None = None


class Integrator(Explainer):
    """An explainer that integrates paths itself, rather than running another one."""

    @abstractmethod
    def integrate(self, field: CountedField, x: Tensor) -> Integrals:
        """The integrals for inputs x (B, \\*s) in the type of the integration."""

    def __call__(self, field: Field, x: Tensor, *, watch: Watch | None = None) -> Attribution:
        x, counted = opened(field, x, watch)
        with measured(counted, x.device) as stopwatch:
            integrals = self.integrate(counted, x)
        return assembled(self, counted, x, integrals, stopwatch.cost())


def opened(field: Field, x: Tensor, watch: Watch | None) -> tuple[Tensor, CountedField]:
    """Convert inputs to the dtype of the integration; count the calls of the field, which is
    evaluated in the dtype they came in."""
    if not x.is_floating_point():
        raise IntegerInput(
            f"The input holds {str(x.dtype).removeprefix('torch.')}, which has no gradient: convert it with .float()."
        )
    state = state_dtype(x.dtype)
    inner = field if state == x.dtype else Cast(field, x.dtype)
    known = field.memory.outputs if field.memory is not None and field.memory.x is x else None
    with gradients(False):
        x = plain(x).to(state)
        return x, CountedField(inner, watch=watch, memory=OutputCache(x, known))


def weighed_sum(weights: Tensor, shares: Tensor) -> Tensor:
    """Σ_r w_r · share_r, without a weighted copy of every share."""
    return torch.einsum("rb,rb...->b...", weights, shares)


def residual_of(values: Tensor, weights: Tensor, change: Tensor) -> Tensor:
    """(B,) what maps (B, \\*s) miss of the change of F (R, B) that they should add up to."""
    return (weights * change).sum(0) - total(values, 1)


def assembled(
    method: Explainer, field: Field, x: Tensor, integrals: Integrals, cost: Cost
) -> Attribution:
    """The attribution, its completeness measured and its warnings given."""
    values, paths, weighed = integrals.values, integrals.paths, integrals.weighed
    residual = residual_of(values, weighed.weights, paths.change)
    doubt = None if integrals.chance is None else integrals.chance.doubt(values, residual)
    starts = paths.begin if paths.begin.numel() else None
    attribution = Attribution(
        values=values,
        inputs=x,
        output=paths.output,
        weights=weighed.weights,
        change=paths.change,
        residual=residual,
        residual_error=None if doubt is None else doubt.residual,
        error=_relative_error(weighed.weights, paths.error, values, paths.identity)
        if doubt is None
        else doubt.error,
        converged=torch.zeros_like(residual, dtype=torch.bool),
        shares=paths.shares if paths.shares.numel() else None,
        baselines=starts,
        fitness=weighed.fitness,
        criterion=weighed.criterion,
        reasons=weighed.reasons,
        names=labels(core(method).baseline, len(weighed.weights)),
        notes=paths.notes,
        frames=paths.frames,
        cost=cost,
        method=method,
        resolution=field.resolution,
    )
    attribution = with_converged(attribution, method)
    # Paths that choose their own start are judged by that, where it is kept.
    _warn(
        attribution,
        field,
        core(method),
        method.tol,
        integrals.references if starts is None else starts,
        doubt,
    )
    return attribution


def rearranged(
    attribution: Attribution, values: Tensor, *, method: Explainer, cost: Cost, **changes: Any
) -> Attribution:
    """The attribution of a wrapper: that of a run of what it wraps, with other values, held against
    the change of F as they are; maps of single references and the covariance are gone."""
    attribution = dataclasses.replace(
        attribution,
        values=values,
        shares=None,
        covariance=None,
        residual_error=None,
        method=method,
        cost=cost,
        **changes,
    )
    residual = residual_of(values, attribution.weights, attribution.change)
    return dataclasses.replace(attribution, residual=residual)


def with_converged(attribution: Attribution, method: Explainer) -> Attribution:
    """The attribution with its ``converged``: the map, not its parts, is held against the
    tolerance; without one, against the change of F.

    Without one, an error that is known may not be more than a tenth either; with one, an error that
    is not known does not meet it.
    """
    tol = method.tol
    complete = (attribution.gap <= INCOMPLETE) & ~(attribution.error > INCOMPLETE)
    # What each reference or piece is wrong by says little alone: small ones may be, and large ones
    # may cancel.
    converged = complete if tol is None else attribution.error <= tol
    return dataclasses.replace(attribution, converged=converged)


def _relative_error(weights: Tensor, error: Tensor, values: Tensor, identity: Tensor) -> Tensor:
    """Errors (R, B) of references as that of their weighted sum (B,), relative to it.

    Errors of different references are taken as independent; references of one
    ``identity`` (R,) are wrong by the same, and their errors add up.
    """
    counted = torch.where(weights == 0, 0, weights * error)  # what does not count need not be known
    number = torch.unique(identity, return_inverse=True)[1]
    together = torch.zeros_like(counted).index_add_(0, number, counted)
    distance, size = norm(together.movedim(0, -1)), norm(values)
    return torch.where(
        distance == 0, 0, distance / size
    )  # of a map of zeros that misses something, infinite


def core(method: ExplainerLike) -> Any:
    """The innermost of methods around a method: the one with a baseline, a path and a rule, unless
    it is a user's own."""
    explainer = as_explainer(method)
    while explainer.inner is not None:
        explainer = explainer.inner
    return explainer


def _warn(
    attribution: Attribution,
    field: Field,
    method: Any,
    tol: float | None,
    starts: Tensor | References,
    doubt: Doubt | None,
) -> None:
    missed = ~attribution.converged
    if tol is not None and bool(missed.any()):
        worst = int(attribution.error.nan_to_num(torch.inf).masked_fill(~missed, -1).argmax())
        error_name = (
            "an estimated relative error" if doubt is None else "a relative error (95 % bound)"
        )
        remedy = (
            _advise_for_tolerance(attribution.method)
            if doubt is None
            else _advise_more_draws(doubt, worst, (attribution.error[worst] / tol).square())
        )
        warn(
            f"{int(missed.sum())} of {len(attribution)} maps did not reach their tolerance; the worst has {error_name} "
            f"of {float(attribution.error[worst]):.2g}. {_diagnose(attribution, field, starts, worst) or remedy}",
            IncompleteWarning,
        )
    completes = field.conservative and (method.rule.complete or doubt is not None)
    incomplete = ~(attribution.gap <= INCOMPLETE)
    if completes and bool(incomplete.any()):
        worst = int(attribution.gap.argmax())
        change = float((attribution.output - attribution.base)[worst])
        remedy = (
            _advise_for_completeness(method)
            if doubt is None
            else _explain_by_chance(attribution, doubt, worst)
        )
        warn(
            f"{int(incomplete.sum())} of {len(attribution)} maps miss more than a tenth of the change they should explain: "
            f"{field.example_name(worst)} adds up to {change - float(attribution.residual[worst]):.3g} where F changes by {change:.3g}. "
            f"{_diagnose(attribution, field, starts, worst) or remedy}",
            IncompleteWarning,
        )
    undecided = [example for example, reason in enumerate(attribution.reasons) if reason]
    if undecided:
        name, reason = field.example_name(undecided[0]), attribution.reasons[undecided[0]]
        many = f"{len(undecided)} of {len(attribution)} examples, first " if undecided[1:] else ""
        others = " Those of all are in result.reasons." if undecided[1:] else ""
        warn(f"Fitness says nothing about {many}{name}: {reason}.{others}", FitnessWarning)


def _explain_by_chance(attribution: Attribution, doubt: Doubt, example: int) -> str:
    """Whether chance explains what a map of random draws misses, and how many more draws would
    do."""
    residual, error = attribution.residual[example].abs(), doubt.residual[example]
    if not bool(error.isfinite()):
        return "A single draw, or two, do not tell whether that is chance: take more (draws=)."
    units = float(residual / error.clamp_min(torch.finfo(error.dtype).tiny))
    if units > _CHANCE:
        return (
            f"That is {units:.2g} of its standard errors, more than chance makes: F may jump where no gradient tells, or a few draws may "
            "matter more than all others. Integrate by a rule instead (rule=ig.rules.Adaptive())."
        )
    goal = INCOMPLETE * (attribution.output - attribution.base)[example].abs()
    times = (_NORMAL * error / goal.clamp_min(torch.finfo(goal.dtype).tiny)).square()
    return f"That is {units:.2g} of its standard errors, and chance. {_advise_more_draws(doubt, example, times)}"


def _advise_more_draws(doubt: Doubt, example: int, times: Tensor) -> str:
    """How many more draws bring the error of an example down as far as ``times`` the draws do."""
    more = float(doubt.draws[example] * (times - 1))
    if not more < _MOST_DRAWS:
        return "No reasonable number of draws would do: integrate by a rule instead (rule=ig.rules.Adaptive()), or ask for less."
    rounded = math.ceil(float(f"{max(more, 1):.1e}"))
    return f"Some {rounded:,} more draws would do (draws= of expected, n= of MonteCarlo), or a rule that is not random."


def _diagnose(
    attribution: Attribution, field: Field, starts: Tensor | References, example: int
) -> str | None:
    """What is wrong with the model's rows, or with the baseline that counts most for an example, as
    far as the model tells."""
    if field.row_check is not None and field.row_check.verdict:
        return field.row_check.verdict
    r = int(attribution.weights[:, example].argmax())
    index = torch.tensor([example], device=attribution.inputs.device)
    return field.trouble(
        starts[r : r + 1][0, example][None], attribution.inputs[example][None], index
    )


def advice(method: Explainer) -> str:
    """Advice for maps that miss their tolerance, or the change of F they should add up to."""
    return (
        _advise_for_completeness(core(method))
        if method.tol is None
        else _advise_for_tolerance(method)
    )


def _advise_for_tolerance(method: Explainer) -> str:
    if method.samples:
        return "Allow more draws (draws=), or ask for less (a larger tol)."
    rule = core(method).rule
    if not isinstance(rule, Adaptive):
        return "Ask for less (a larger tol), or take a baseline that is less degenerate for this model."
    more = f"rule=ig.rules.Adaptive({rule.tol:g}, max_gradients={2 * rule.max_gradients})"
    if _looks_at_field(core(method)):
        return f"Its steps are integrated one by one: take shorter steps, or allow each more gradients ({more})."
    return (
        f"Allow more gradients ({more}), or take a baseline that is less degenerate for this model."
    )


def _advise_for_completeness(method: Any) -> str:
    tol = method.rule.tol
    if _looks_at_field(method):
        return f"{'Integrate each step with more nodes (rule=ig.rules.Simpson(2))' if tol is None else 'Ask for a smaller tol'}, or take shorter steps."
    ask = (
        "Ask for a tolerance (tol=0.05) or more nodes"
        if tol is None
        else f"Ask for a smaller tolerance than tol={tol:g}"
    )
    return f"{ask}, or take a baseline that is less degenerate for this model."


def _looks_at_field(method: Any) -> bool:
    """Whether a path evaluates the model as it goes; the number of gradients may be unknown
    (None)."""
    return bool(method.path.gradients != 0)
