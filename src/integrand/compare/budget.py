"""Methods of very different cost at the same cost: as many gradients per example as asked for, at most.

Every method has *dials*, integers that its cost grows with, somewhere in the values it is made of:

    path.steps, path.segments    paths that go in steps of their own         (their rule is left as it is)
    rule.n, rule.steps           nodes on a straight path; inside rules too  (a tolerance becomes Gauss–Legendre nodes)
    baseline.count, .most        references, where those are drawn
    draws, rounds, iterations    of wrappers, and of paths that are searched for

One dial is turned, the first that can: to the largest value whose cost is within the budget. What a method costs is what its parts
claim where they can tell, else it is measured on an example. A method that is above the budget at the low end of a dial
keeps it there, and the next one is turned; one that is above at the low end of all of them is run so and said to be.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..baseline.base import Several, count_of
from ..errors import InputError, IntegrandError, IntegrandWarning
from ..method import Method, Sampled, Smoothed, core, gradients_per_row, inside, with_core
from ..metrics import Subject
from ..path import Descent
from ..rule import Adaptive, GaussLegendre, Midpoint
from ..rule.quadrature import Quadrature
from .portion import Counts, narrowed, portion

_DIALS = (
    ("path", "steps", 2),
    ("path", "segments", 1),
    ("path", "corners", 2),
    ("rule", "steps", 1),
    ("rule", "n", 1),
    ("path", "iterations", 1),
    ("rule", "iterations", 1),
    ("baseline", "count", 1),
    ("baseline", "most", 1),
    ("wrapper", "draws", 1),
    ("wrapper", "rounds", 1),
)
"""Where, what, and the smallest it is turned to; in the order in which they are tried."""

_MOST = 100_000
_TRIES = 12  # costs asked for in a search


@dataclass(frozen=True)
class Fitted:
    """A method at a budget: how it was fitted, and what it is expected to cost per example (NaN: not known)."""

    method: Any
    gradients: float
    note: str


def fitted(method: Any, budget: int, subject: Subject, probe: Sequence[int] = (0,)) -> Fitted:
    """The method at a cost as close to ``budget`` gradients per example as its dials allow, at or below it.

    ``subject`` and ``probe`` are what is measured on, where that is needed: the most that one of these examples takes.
    """
    if budget < 1:
        raise InputError(f"A budget is at least one gradient per example, not {budget}.")
    open_ended = _fixed(method)
    cost = _costs(subject, probe)
    changed: list[str] = [] if open_ended is method else ["fixed nodes for a tolerance"]
    now, spent = open_ended, None
    for where, name, least in _DIALS:
        value = _read(now, where, name)
        if value is None or not _turns(now, where, name):
            continue
        found, many, cost_found = _largest(now, where, name, least, budget, cost)
        if found is None:
            continue
        now, spent = found, cost_found
        changed.append(_said(where, name, many, method))
        if spent <= budget:
            break
    if spent is None:
        try:
            spent = cost(now)
        except IntegrandError as error:
            return Fitted(now, float("nan"), f"as it is: it cannot be tried out ({' '.join(str(error).split())})")
    if spent > budget:
        changed.append("above the budget at its cheapest")
    return Fitted(now, spent, ", ".join(changed) or "has nothing to turn")


def _said(where: str, name: str, value: int, method: Any) -> str:
    if (where, name) == ("rule", "n"):
        return f"{value} node{'s' * (value != 1)}"
    if where == "baseline":
        return f"{value} reference{'s' * (value != 1)}"
    path = core(method).path if isinstance(core(method), Method) else None
    if name == "steps" and isinstance(path, Descent) and path.steps != value:
        return f"{value} steps, {path.steps / value:.2g} times as long"
    return f"{value} {name}"


def tolerant(method: Any, tol: float) -> Fitted:
    """The method, its integrals to a relative error ``tol``, where its rule can."""
    if isinstance(method, Sampled):
        return Fitted(dataclasses.replace(method, tol=tol), float("nan"), f"draws to {tol:.2g}")
    inner = core(method)
    if not isinstance(inner, Method):
        return Fitted(method, float("nan"), "has no rule: as it is")
    rule = inner.rule
    if isinstance(rule, Adaptive | Quadrature):
        made = dataclasses.replace(rule, tol=tol) if isinstance(rule, Adaptive) else Adaptive(tol)
        changed = with_core(method, lambda one: dataclasses.replace(one, rule=made))
        return Fitted(changed, float("nan"), f"to a tolerance of {tol:.2g}")
    return Fitted(method, float("nan"), f"{type(rule).__name__} knows no tolerance: as it is")


# --- what a method costs ----------------------------------------------------------------------------------------------

Costs = Callable[[Any], float]


def claimed(method: Any) -> int | None:
    """Gradients per example that a method claims; None for methods that cannot tell."""
    if isinstance(method, Smoothed):
        each = claimed(method.method)
        return None if each is None else method.draws * each
    if not isinstance(method, Method):
        return None
    references = _references(method.baseline)
    each = gradients_per_row(method.path, method.rule)
    if references is None or not each or hasattr(method.path, "goal"):  # walks that end on arrival claim the most
        return None
    return references * each


def _references(baseline: Any) -> int | None:
    """R, of baselines that take no gradients themselves."""
    if isinstance(baseline, Several):
        counts = [_references(one) for one in baseline.parts]
        return None if None in counts else sum(c for c in counts if c is not None)
    return None if hasattr(baseline, "steps") else count_of(baseline)  # one that searches goes in steps


def _costs(subject: Subject, probe: Sequence[int]) -> Costs:
    """What a method claims, or takes on the probes."""

    def cost(method: Any) -> float:
        told = claimed(method)
        if told is not None:
            return told
        spent: list[float] = []
        for b in probe:
            try:
                spent.append(_counted(method, b, subject))
            except IntegrandError:
                if b == probe[-1] and not spent:
                    raise
        return max(spent)

    return cost


def _counted(method: Any, example: int, subject: Subject) -> float:
    """Gradients that a method takes for one example."""
    counts = Counts(1)
    some = portion(subject, [example], counts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IntegrandWarning)
        narrowed(method, [example], subject.x)(some.field, some.x)
    return float(counts.gradients.max())


# --- dials ------------------------------------------------------------------------------------------------------------


def _fixed(method: Any) -> Any:
    """The method with fixed nodes where it has a tolerance."""
    if isinstance(method, Sampled):
        return _fixed(method.method)
    inner = core(method)
    if not isinstance(inner, Method):
        return method
    own_steps = getattr(inner.path, "segments", 1) != 1 or hasattr(inner.path, "steps")
    rule = _without_tolerance(inner.rule, Midpoint() if own_steps else GaussLegendre())
    return method if rule is inner.rule else with_core(method, lambda one: dataclasses.replace(one, rule=rule))


def _without_tolerance(rule: Any, instead: Any) -> Any:
    if isinstance(rule, Adaptive):
        return instead
    inner = getattr(rule, "rule", None)
    if inner is None or not dataclasses.is_dataclass(rule) or isinstance(rule, type):
        return rule
    fixed = _without_tolerance(inner, instead)
    return rule if fixed is inner else dataclasses.replace(rule, rule=fixed)


def _turns(method: Any, where: str, name: str) -> bool:
    """Whether turning a dial is how this method is made cheaper."""
    inner = core(method)
    if not isinstance(inner, Method):
        return True
    if (
        where == "path" and name == "segments"
    ):  # one straight line is integrated by more nodes, not cut into more pieces
        return inner.path.segments > 1  # type: ignore[attr-defined, no-any-return]
    if where == "rule" and name == "n":
        return getattr(inner.path, "steps", None) is None and getattr(inner.path, "segments", 1) == 1
    return True


def _read(method: Any, where: str, name: str) -> int | None:
    holder = next(_holders(method, where, name), None)
    return None if holder is None else int(getattr(holder, name) or 0)


def _holders(method: Any, where: str, name: str) -> Iterator[Any]:
    """The values in which a dial is a field: the path, the rule or a rule inside it, the baseline or its parts, or wrappers from outside in."""
    if where == "wrapper":
        while (inner := inside(method)) is not None:
            if _has(method, name):
                yield method
            method = inner
        return
    inner = core(method)
    held = getattr(inner, where, None)
    while held is not None:
        if _has(held, name):
            yield held
        held = getattr(held, "rule", None) if where == "rule" else None


def _has(holder: Any, name: str) -> bool:
    if not dataclasses.is_dataclass(holder) or name not in {spec.name for spec in dataclasses.fields(holder)}:
        return False
    value = getattr(holder, name)
    return (isinstance(value, int) and not isinstance(value, bool)) or (value is None and name in ("rounds", "count"))


def _turned(method: Any, where: str, name: str, value: int) -> Any:
    """The method with one dial at another value. Errors: those of its parts."""
    if where == "wrapper":
        if _has(method, name):
            return dataclasses.replace(method, **{name: value})
        inner = inside(method)
        return dataclasses.replace(method, method=_turned(inner, where, name, value))
    return with_core(
        method, lambda one: dataclasses.replace(one, **{where: _turned_part(getattr(one, where), name, value)})
    )


def _turned_part(held: Any, name: str, value: int) -> Any:
    if not _has(held, name):
        return dataclasses.replace(held, rule=_turned_part(held.rule, name, value))
    changes: dict[str, Any] = {name: value}
    if isinstance(held, Descent) and name == "steps":  # fewer steps go as far
        factor = held.steps / value
        if isinstance(held.rate, int | float):
            changes["rate"] = held.rate * factor
        else:
            changes["rate"] = dataclasses.replace(held.rate, fraction=held.rate.fraction * factor)
    return dataclasses.replace(held, **changes)


def _largest(
    method: Any, where: str, name: str, least: int, budget: int, cost: Costs
) -> tuple[Any, int, float] | tuple[None, int, float]:
    """The method with a dial at the largest value within the budget, that value, and its cost; at ``least`` if that is above."""
    low, high = least, _MOST
    best: tuple[Any, int, float] | None = None
    seen: dict[int, float] = {}
    own = _read(method, where, name) or least
    planned = [max(own, least)]  # what the method does of itself is the second that is tried
    tried = least
    for _ in range(_TRIES):
        made, spent = _asked(method, where, name, tried, cost)
        if made is None:  # a value that the part refuses, such as an odd number of pieces
            tried = tried + 1 if tried == low else tried - 1
            if tried in seen or tried >= high or tried < low:
                break
            continue
        if best is not None and spent == best[2] and tried > best[1]:
            break  # turning on costs nothing, and so does nothing
        seen[tried] = spent
        if spent <= budget:
            best, low = (made, tried, spent) if best is None or tried > best[1] else best, max(low, tried)
        elif tried == least:
            return made, tried, spent
        else:
            high = min(high, tried)
        if spent == budget or high - low <= 1:
            break
        tried = planned.pop() if planned and low < planned[0] < high else _guess(seen, low, high, budget)
        if tried in seen:
            break
    return best if best is not None else (None, 0, float("nan"))


def _asked(method: Any, where: str, name: str, value: int, cost: Costs) -> tuple[Any, float]:
    try:
        made = _turned(method, where, name, value)
    except InputError:
        return None, float("nan")
    try:
        return made, cost(made)
    except IntegrandError:
        return None, float("nan")


def _guess(seen: dict[int, float], low: int, high: int, budget: int) -> int:
    """Where a line through two known costs meets the budget, strictly between low and high."""
    points = sorted(seen.items())
    if len(points) == 1:
        value, spent = points[0]
        guess = value * budget / spent if spent else 2 * value + 1
        return max(low + 1, min(high - 1, int(guess)))
    left = max(((v, c) for v, c in points if v <= low), default=points[0])
    others = [p for p in points if p[0] != left[0]]
    right = min(others, key=lambda p: abs(p[1] - budget))
    slope = (right[1] - left[1]) / (right[0] - left[0])
    if slope <= 0:  # more does not cost more: nothing to gain by turning on
        return low
    return max(low + 1, min(high - 1, int(left[0] + (budget - left[1]) / slope + 1e-9)))
