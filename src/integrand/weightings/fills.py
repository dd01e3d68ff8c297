"""What replaced features become, where that depends on the references."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor

from ..core.shapes import checked_references
from ..core.values import part
from ..errors import BaselineError, InputError
from ..fields import Field


class Fill(ABC):
    """A fill that depends on the references: what replaced features become.

    A fill that does not is a baseline.
    """

    @abstractmethod
    def among(self, references: Tensor, x: Tensor, field: Field) -> Tensor:
        """References (R, B, \\*s), inputs (B, \\*s) → what replaces them (B, \\*s)."""

    @abstractmethod
    def name(self, x: Tensor) -> str:
        """What a report calls it for inputs such as ``x``."""

    def blank(self, x: Tensor) -> bool:
        """Whether inputs such as ``x`` say nothing of any class where all is replaced, so that a
        score which stays is a reason to take another fill."""
        return True


@part
class ReferenceMean(Fill):
    """The mean of an example's references.

    It is what a column, token or time step is where the baselines say it is missing. It is no
    blank: the model gives it a class too, maybe that of the example.
    """

    def among(self, references: Tensor, x: Tensor, field: Field) -> Tensor:
        return references.mean(0)

    def name(self, x: Tensor) -> str:
        return "mean of the references"

    def blank(self, x: Tensor) -> bool:
        return False


@part
class ByKind(Fill):
    """``pictures`` for images (C, H, W), the mean of the references for all others."""

    pictures: Callable[[Tensor, Field], Tensor]

    def among(self, references: Tensor, x: Tensor, field: Field) -> Tensor:
        return (
            self.pictures(x, field)[0]
            if x.ndim == 4
            else ReferenceMean().among(references, x, field)
        )

    def name(self, x: Tensor) -> str:
        return name_of(self.pictures, x) if x.ndim == 4 else ReferenceMean().name(x)

    def blank(self, x: Tensor) -> bool:
        return x.ndim == 4


def name_of(fill: FillMaker, x: Tensor) -> str:
    """What a report calls a fill."""
    if isinstance(fill, Fill):
        return fill.name(x)
    return str(getattr(fill, "label", type(fill).__name__.lower()))  # any callable may be a fill


FillMaker = Callable[[Tensor, Field], Tensor] | Fill
"""A baseline, whose first reference it is, or a fill that is made of the references."""

_ADVICE = "Features are replaced by fill=: 'auto', 'references', a number, a tensor, 'mean', 'blurred', or a baseline."


def is_blank(fill: FillMaker, x: Tensor) -> bool:
    """Whether nothing of any class is left where all of ``x`` is replaced."""
    return not isinstance(fill, Fill) or fill.blank(x)


def fill_values(
    fill: FillMaker, x: Tensor, field: Field, references: Tensor | None, advice: str = _ADVICE
) -> Tensor:
    """What replaced features of ``x`` (B, \\*s) become: (B, \\*s).

    Raises:
        BaselineError: for fills of another shape.
        InputError: for one that is made of the references, where these are not known.
    """
    try:
        values = _values(fill, x, field, references)
        return checked_references(values, x, "The fill of the fitness")[0]
    except BaselineError as error:
        raise BaselineError(f"{error} {advice}") from None


def _values(fill: FillMaker, x: Tensor, field: Field, references: Tensor | None) -> Tensor:
    if not isinstance(fill, Fill):
        return fill(x, field)
    if references is None:
        raise InputError(
            f"fill={fill!r} is made of the references, which a weighting that is called with shares alone does not see: "
            "give a baseline as fill, or call prepared(x, field, references)."
        )
    return fill.among(references, x, field)[None]
