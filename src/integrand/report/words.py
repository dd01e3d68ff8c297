"""Numbers and names as a reader meets them, the same in figures, notebooks and pages."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..attribution import INCOMPLETE as INCOMPLETE
from ..attribution import NO_GAP as NO_GAP
from ..attribution import Attribution
from ..method import as_explainer

NOT_CLAIMED = "not claimed"
"""What stands for the gap of a method that does not say that its maps add up."""


def number(value: float) -> str:
    """Three significant digits, a true minus, no bare exponent for everyday sizes.

    >>> number(-0.01234), number(1234567), number(0), number(float("nan"))
    ('−0.0123', '1,234,567', '0', '–')
    """
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")
    return text.replace("-", "−")


def beside(value: float, whole: float) -> str:
    """A number that is read beside a larger one: what is lost in the latter's digits is nothing.

    >>> beside(-0.012, 9.9), beside(4.5e-7, 9.9), beside(4.5e-7, 2e-5)
    ('−0.0120', '0', '4.50e−07')
    """
    return "0" if abs(value) < 5e-4 * abs(whole) else number(value)


def percent(value: float) -> str:
    """One decimal; beyond a thousand per cent the digits say nothing more.

    >>> percent(0.1234), percent(50.0)
    ('12.3 %', '> 999 %')
    """
    if math.isnan(value):
        return "–"
    return "> 999 %" if value >= 10 else f"{100 * value:.1f} %"


def incomplete(attribution: Attribution, example: int) -> bool:
    """Whether a map is marked: it was to add up, and misses more than a tenth of the change, or nobody knows how much."""
    return attribution.claims_completeness and not float(attribution.gap[example]) <= INCOMPLETE


def gap_of(attribution: Attribution, example: int) -> str:
    """The gap of one example, where its method says that there should be none, or where there is none to speak of all the same."""
    gap = float(attribution.gap[example])
    return percent(gap) if attribution.claims_completeness or gap <= NO_GAP else NOT_CLAIMED


def unsettled(attribution: Attribution, example: int) -> bool:
    """Whether a map has not met its tolerance: its estimated error is too large, or was to be known and is not."""
    if bool(attribution.converged[example]):
        return False
    if not bool(attribution.error[example].isnan()):
        return True
    # Where none was asked for the change of F decides, and says so by itself.
    return as_explainer(attribution.method).tol is not None


def target_of(attribution: Attribution, example: int) -> str:
    """The scalar explained for one example, as it prints."""
    target: Any = attribution.target
    if hasattr(target, "at"):
        target = target.at(torch.tensor([example]))
    return shortened("F" if target is None else repr(target), 48)


def shortened(text: str, most: int) -> str:
    """At most ``most`` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def headline(attribution: Attribution, example: int, title: str | None = None) -> str:
    """Example and target (or ``title``), output, gap and estimated error of one example, in a line; marks where the map is not as it should be."""
    error = float(attribution.error[example])
    gap = gap_of(attribution, example)
    facts = [
        *([f"example {example}", target_of(attribution, example)] if title is None else [title]),
        f"F = {number(float(attribution.output[example]))}",
        f"{'adds up:' if gap == NOT_CLAIMED else 'gap'} {gap}"
        + (" ▲ incomplete" if incomplete(attribution, example) else ""),
    ]
    if not math.isnan(error) or unsettled(attribution, example):
        facts.append(
            f"estimated error {percent(error)}" + (" ▲ not converged" if unsettled(attribution, example) else "")
        )
    return " · ".join(facts)
