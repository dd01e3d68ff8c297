"""Numbers and names as a reader meets them, the same in figures, notebooks and pages."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..attribution import Attribution

INCOMPLETE = 0.1
"""A map that misses more of the change than this is marked wherever it is shown."""


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


def percent(value: float) -> str:
    """One decimal; beyond a thousand per cent the digits say nothing more.

    >>> percent(0.1234), percent(50.0)
    ('12.3 %', '> 999 %')
    """
    if math.isnan(value):
        return "–"
    return "> 999 %" if value >= 10 else f"{100 * value:.1f} %"


def incomplete(gap: float) -> bool:
    """Whether a map with this gap is marked; a gap that is no number is."""
    return not gap <= INCOMPLETE


def unsettled(attribution: Attribution, example: int) -> bool:
    """Whether a map whose error was estimated has not met its tolerance."""
    return not bool(attribution.error[example].isnan() | attribution.converged[example])


def target_of(attribution: Attribution, example: int) -> str:
    """The scalar explained for one example, as it prints."""
    target: Any = attribution.target
    if hasattr(target, "at"):
        target = target.at(torch.tensor([example]))
    return shortened("F" if target is None else repr(target), 48)


def shortened(text: str, most: int) -> str:
    """At most ``most`` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def headline(attribution: Attribution, example: int) -> str:
    """Example, target, output, gap and estimated error of one example, in a line; marks where the map is not as it should be."""
    gap, error = float(attribution.gap[example]), float(attribution.error[example])
    facts = [
        f"example {example}",
        target_of(attribution, example),
        f"F = {number(float(attribution.output[example]))}",
        f"gap {percent(gap)}" + (" ▲ incomplete" if incomplete(gap) else ""),
    ]
    if not math.isnan(error):
        facts.append(
            f"estimated error {percent(error)}" + (" ▲ not converged" if unsettled(attribution, example) else "")
        )
    return " · ".join(facts)
