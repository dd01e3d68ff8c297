"""Texts that figures, notebooks and pages show of an attribution."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..core.formatting import number, percent, shortened
from ..core.frames import Cell
from ..integration import as_explainer
from ..integration.attribution import INCOMPLETE as INCOMPLETE
from ..integration.attribution import NO_GAP as NO_GAP
from ..integration.attribution import Attribution
from ..targets import Target

NOT_CLAIMED = "not claimed"
"""Placeholder for the gap of methods that claim no completeness."""


NAME = 28
"""Letters of a name beside a bar."""


def cell_text(cell: Cell) -> str:
    """A cell as readers see it; empty where nothing stands."""
    if cell is None or cell != cell:
        return ""
    return shortened(cell, 16) if isinstance(cell, str) else number(cell)


def labelled(name: str, cell: Cell) -> str:
    """A column's name, with what stood in it."""
    text = cell_text(cell)
    return shortened(name, NAME) + (f" = {text}" if text else "")


def incomplete(attribution: Attribution, example: int) -> bool:
    """Whether a map is marked as incomplete: it claims completeness, and misses more than a tenth of
    the change, or an unknown part of it."""
    return attribution.claims_completeness and not float(attribution.gap[example]) <= INCOMPLETE


def gap_of(attribution: Attribution, example: int) -> str:
    """The gap of one example, where its method says that there should be none, or where there is
    none to speak of all the same."""
    gap = float(attribution.gap[example])
    return percent(gap) if attribution.claims_completeness or gap <= NO_GAP else NOT_CLAIMED


def unsettled(attribution: Attribution, example: int) -> bool:
    """Whether a map has not met its tolerance: its estimated error is too large, or was to be known
    and is not."""
    if bool(attribution.converged[example]):
        return False
    if not bool(attribution.error[example].isnan()):
        return True
    # Where none was asked for the change of F decides, and says so by itself.
    return as_explainer(attribution.method).tol is not None


def target_of(attribution: Attribution, example: int) -> str:
    """The scalar explained for one example, as it prints."""
    target: Any = attribution.target
    if isinstance(target, Target):
        target = target.at(torch.tensor([example]))
    return shortened("F" if target is None else repr(target), 48)


def headline(attribution: Attribution, example: int, title: str | None = None) -> str:
    """Example and target (or ``title``), output, gap and estimated error of one example, in a line;
    marks where the map is not as it should be."""
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
            f"estimated error {percent(error)}"
            + (" ▲ not converged" if unsettled(attribution, example) else "")
        )
    return " · ".join(facts)
