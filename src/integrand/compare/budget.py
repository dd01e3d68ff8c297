"""Set up methods for one budget of gradients per example, or one tolerance.

Every method has *dials*, whole numbers that its cost grows with. Its parts say which of their
fields these are (``resolution``, and ``effort`` of a search); they are tried in this order:

    the path's resolution        paths that go in steps of their own         (their rule is left as it is)
    the rule's resolution        nodes, where the path has no steps; of rules inside too  (a tolerance becomes Gauss–Legendre nodes)
    the path's, the rule's effort       iterations of what is searched for
    the baseline's resolution    references, where those are drawn
    the wrappers' resolution     draws, rounds; from outside in

The first dial that can be is turned, to the largest value whose cost is within the budget. The cost
of a method is what its parts claim where they know it, else it is counted on an example. A method
that is above the budget at the low end of a dial keeps it there, and the next one is turned; one
that is above at the low end of all of them is run so, and its note says it.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..baselines.base import Baseline, Union, count_of
from ..core.declared import Part, name_of, own
from ..errors import InputError, IntegrandError, IntegrandWarning
from ..integration import Method, SmoothGrad, UntilTolerance, core, gradients_per_row, with_core
from ..integration.attribution import Explainer, ExplainerLike, as_explainer
from ..metrics import Subject
from ..paths import Descent
from ..rules import Adaptive, GaussLegendre, Midpoint, Rule
from ..rules.quadrature import Quadrature
from .subset import Counts, narrowed, portion

_ORDER = (
    ("path", "resolution"),
    ("rule", "resolution"),
    ("path", "effort"),
    ("rule", "effort"),
    ("baseline", "resolution"),
    ("wrapper", "resolution"),
)
"""Whose dial, and which of its two; in the order in which they are tried."""

_MOST = 100_000
_TRIES = 12  # costs asked for in a search


@dataclass(frozen=True)
class Fitted:
    """A method set up for a budget.

    Args:
        method: as set up.
        gradients: the expected cost per example; NaN where it is not known.
        note: how it was set up, in words.
    """

    method: ExplainerLike
    gradients: float
    note: str


@dataclass(frozen=True)
class _Dial:
    """A dial of a part.

    Args:
        where: the part: "path", "rule", "baseline" or "wrapper".
        deep: how many rules or wrappers lie around the part.
        name: of the part's field.
        least: the least value it is turned to.
    """

    where: str
    deep: int
    name: str
    least: int

    def read(self, method: Explainer) -> int:
        """The current value."""
        return self._parts(method)[self.deep].dial(self.name)

    def turned(self, method: Explainer, value: int) -> Explainer:
        """The method with the dial at another value. Raises what its parts raise."""
        if self.where == "wrapper":
            return _turned_wrapper(method, self.deep, self.name, value)
        if self.where == "rule":
            return with_core(
                method,
                lambda inner: dataclasses.replace(
                    inner, rule=_turned_rule(inner.rule, self.deep, self.name, value)
                ),
            )
        part = self._parts(method)[0].turned(self.name, value)
        return with_core(method, lambda inner: dataclasses.replace(inner, **{self.where: part}))

    def _parts(self, method: Explainer) -> list[Part]:
        return list(_holders(method, self.where))


def fitted(
    method: ExplainerLike, budget: int, subject: Subject, probe: Sequence[int] = (0,)
) -> Fitted:
    """Set up a method to take at most ``budget`` gradients per example, as close as its dials
    allow.

    Args:
        method: any method.
        budget: gradients per example.
        subject: field and inputs on which costs are counted where the method claims none.
        probe: examples of it; the dearest counts.

    Returns:
        ``Fitted``: the method, its expected cost, and a note.

    Raises:
        InputError: for a budget below one.
    """
    if budget < 1:
        raise InputError(f"A budget is at least one gradient per example, not {budget}.")
    original = as_explainer(method)
    adjusted, spent = _fixed(original), None
    cost = _costs(subject, probe)
    changed: list[str] = [] if adjusted is original else ["fixed nodes for a tolerance"]
    for dial in _dials(adjusted):
        turned, value, cost_turned = _largest(adjusted, dial, budget, cost)
        if turned is None:
            continue
        adjusted, spent = turned, cost_turned
        changed.append(_setting_note(dial, value, original))
        if spent <= budget:
            break
    if spent is None:
        try:
            spent = cost(adjusted)
        except IntegrandError as error:
            return Fitted(
                own(adjusted),
                float("nan"),
                f"as it is: it cannot be tried out ({' '.join(str(error).split())})",
            )
    if spent > budget:
        changed.append("above the budget at its cheapest")
    return Fitted(own(adjusted), spent, ", ".join(changed) or "has nothing to turn")


def _setting_note(dial: _Dial, value: int, method: Explainer) -> str:
    if dial.where == "rule" and dial.name == "n":
        return f"{value} node{'s' * (value != 1)}"
    if dial.where == "baseline":
        return f"{value} reference{'s' * (value != 1)}"
    path = core(method).path if isinstance(core(method), Method) else None
    if dial.name == "steps" and isinstance(path, Descent) and path.steps != value:
        return f"{value} steps, {path.steps / value:.2g} times as long"
    return f"{value} {dial.name}"


def tolerant(method: ExplainerLike, tol: float) -> Fitted:
    """Set up a method to integrate to a relative error ``tol``, where its rule has a tolerance."""
    if isinstance(method, UntilTolerance):
        return Fitted(dataclasses.replace(method, tol=tol), float("nan"), f"draws to {tol:.2g}")
    inner = core(method)
    if not isinstance(inner, Method):
        return Fitted(method, float("nan"), "has no rule: as it is")
    rule = inner.rule
    if isinstance(rule, Adaptive | Quadrature):
        adaptive = (
            dataclasses.replace(rule, tol=tol) if isinstance(rule, Adaptive) else Adaptive(tol)
        )
        changed = with_core(method, lambda inmost: dataclasses.replace(inmost, rule=adaptive))
        return Fitted(changed, float("nan"), f"to a tolerance of {tol:.2g}")
    return Fitted(method, float("nan"), f"{name_of(rule)} knows no tolerance: as it is")


# --- what a method costs ----------------------------------------------------------------------------------------------

Costs = Callable[[ExplainerLike], float]


def claimed(method: ExplainerLike) -> int | None:
    """Gradients per example that a method claims; None for methods that cannot tell."""
    if isinstance(method, SmoothGrad):
        per_draw = claimed(method.method)
        return None if per_draw is None else method.draws * per_draw
    if not isinstance(method, Method):
        return None
    references = _references(method.baseline)
    per_reference = gradients_per_row(method.path, method.rule)
    if (
        references is None or not per_reference or method.path.stops_early
    ):  # which claims the most it may take
        return None
    return references * per_reference


def _references(baseline: Baseline) -> int | None:
    """R, of baselines that take no gradients themselves."""
    if isinstance(baseline, Union):
        counts = [_references(part) for part in baseline.parts]
        return None if None in counts else sum(c for c in counts if c is not None)
    return count_of(baseline) if baseline.gradients == 0 else None


def _costs(subject: Subject, probe: Sequence[int]) -> Costs:
    """Costs of methods: as claimed, or counted on the probes."""

    def cost(method: ExplainerLike) -> float:
        claim = claimed(method)
        if claim is not None:
            return claim
        spent: list[float] = []
        for b in probe:
            try:
                spent.append(_counted(method, b, subject))
            except IntegrandError:
                if b == probe[-1] and not spent:
                    raise
        return max(spent)

    return cost


def _counted(method: ExplainerLike, example: int, subject: Subject) -> float:
    """Count the gradients that a method takes for one example."""
    counts = Counts(1)
    single = portion(subject, [example], counts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IntegrandWarning)
        narrowed(method, [example], subject.x)(single.field, single.x)
    return float(counts.gradients.max())


# --- dials ------------------------------------------------------------------------------------------------------------


def _fixed(method: Explainer) -> Explainer:
    """The method with fixed nodes where it has a tolerance."""
    if isinstance(method, UntilTolerance):
        return _fixed(method.method)
    inner = core(method)
    if not isinstance(inner, Method):
        return method
    own_steps = inner.path.resolution is not None or inner.path.segments not in (1, None)
    rule = _without_tolerance(inner.rule, Midpoint() if own_steps else GaussLegendre())
    return (
        method
        if rule is inner.rule
        else with_core(method, lambda inmost: dataclasses.replace(inmost, rule=rule))
    )


def _without_tolerance(rule: Rule, instead: Rule) -> Rule:
    if isinstance(rule, Adaptive):
        return instead
    if rule.inner is None:
        return rule
    fixed = _without_tolerance(rule.inner, instead)
    return rule if fixed is rule.inner else rule.with_inner(fixed)


def _dials(method: Explainer) -> Iterator[_Dial]:
    """The dials of a method, in the order in which they are tried."""
    for where, kind in _ORDER:
        for deep, part in enumerate(_holders(method, where)):
            name = part.resolution if kind == "resolution" else part.effort
            if name is not None:
                yield _Dial(where, deep, name, part.coarsest if kind == "resolution" else 1)


def _holders(method: Explainer, where: str) -> Iterator[Part]:
    """The parts that may have a dial: the path, the rule and those inside it, the baseline, or
    wrappers from outside in."""
    if where == "wrapper":
        while method.inner is not None:
            yield method
            method = method.inner
        return
    inner = core(method)
    if not isinstance(inner, Method):
        return
    if where == "rule":
        rule: Rule | None = inner.rule
        while rule is not None:
            yield rule
            rule = rule.inner
        return
    yield inner.path if where == "path" else inner.baseline


def _turned_wrapper(method: Explainer, deep: int, name: str, value: int) -> Explainer:
    if not deep:
        return method.turned(name, value)
    assert method.inner is not None
    return method.with_inner(_turned_wrapper(method.inner, deep - 1, name, value))


def _turned_rule(rule: Rule, deep: int, name: str, value: int) -> Rule:
    if not deep:
        return rule.turned(name, value)
    assert rule.inner is not None
    return rule.with_inner(_turned_rule(rule.inner, deep - 1, name, value))


def _largest(
    method: Explainer, dial: _Dial, budget: int, cost: Costs
) -> tuple[Explainer, int, float] | tuple[None, int, float]:
    """The method with a dial at the largest value within the budget, that value, and its cost; at
    the least if that is above."""
    search = _DialSearch(budget, dial.least, _MOST, max(dial.read(method), dial.least))
    value: int | None = dial.least
    for _ in range(_TRIES):
        if value is None:
            break
        turned, spent = _tried(method, dial, value, cost)
        if turned is None:  # a value that the part refuses, such as an odd number of pieces
            value = search.after_refusal(value)
        elif search.is_flat(value, spent):
            break
        elif spent > budget and value == dial.least:
            return turned, value, spent
        else:
            search.record(turned, value, spent)
            value = search.following(spent)
    return search.best if search.best is not None else (None, 0, float("nan"))


@dataclass
class _DialSearch:
    """A search for the largest value of a dial whose cost is within the budget.

    Args:
        budget: gradients per example.
        low: the value lies here or above.
        high: the value lies below.
        standing: where the dial stands before the search: the second value that is tried.
        costs: by value, as far as known.
        best: the method at the largest value within the budget so far, the value, and its cost.
    """

    budget: int
    low: int
    high: int
    standing: int | None
    costs: dict[int, float] = dataclasses.field(default_factory=dict)
    best: tuple[Explainer, int, float] | None = None

    def record(self, turned: Explainer, value: int, spent: float) -> None:
        """Narrow the range by the cost of one value."""
        self.costs[value] = spent
        if spent > self.budget:
            self.high = min(self.high, value)
            return
        if self.best is None or value > self.best[1]:
            self.best = turned, value, spent
        self.low = max(self.low, value)

    def is_flat(self, value: int, spent: float) -> bool:
        """Whether a larger value costs no more than the best one: turning further has no effect."""
        return self.best is not None and spent == self.best[2] and value > self.best[1]

    def after_refusal(self, value: int) -> int | None:
        """The neighbour of a value that the part refuses; None where there is none to try."""
        value = value + 1 if value == self.low else value - 1
        return value if self.low <= value < self.high and value not in self.costs else None

    def following(self, spent: float) -> int | None:
        """The next value to try; None at the end of the search."""
        if spent == self.budget or self.high - self.low <= 1:
            return None
        standing, self.standing = self.standing, None
        if standing is None or not self.low < standing < self.high:
            value = _guess(self.costs, self.low, self.high, self.budget)
        else:
            value = standing
        return None if value in self.costs else value


def _tried(
    method: Explainer, dial: _Dial, value: int, cost: Costs
) -> tuple[Explainer | None, float]:
    try:
        turned = dial.turned(method, value)
    except InputError:
        return None, float("nan")
    try:
        return turned, cost(turned)
    except IntegrandError:
        return None, float("nan")


def _guess(costs: dict[int, float], low: int, high: int, budget: int) -> int:
    """Where a line through two known costs meets the budget, strictly between low and high."""
    points = sorted(costs.items())
    if len(points) == 1:
        value, spent = points[0]
        guess = value * budget / spent if spent else 2 * value + 1
        return max(low + 1, min(high - 1, int(guess)))
    left = max(((v, c) for v, c in points if v <= low), default=points[0])
    remaining = [p for p in points if p[0] != left[0]]
    right = min(remaining, key=lambda p: abs(p[1] - budget))
    slope = (right[1] - left[1]) / (right[0] - left[0])
    if slope <= 0:  # more does not cost more: nothing to gain by turning on
        return low
    return max(low + 1, min(high - 1, int(left[0] + (budget - left[1]) / slope + 1e-9)))
