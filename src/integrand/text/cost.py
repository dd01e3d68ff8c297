"""What explaining texts will take, before it is done: memory, and time from a probe of one gradient.

seconds = gradients × seconds of one gradient of the longest text × length / longest, over the texts
"""

from __future__ import annotations

from dataclasses import dataclass

from ..core.formatting import duration


@dataclass(frozen=True)
class CostEstimate:
    """What an explanation of texts will take, about.

    Attributes:
        texts: how many.
        tokens: of the longest, with the words of its target that are read.
        gradients: for each text; None where a tolerance decides, which takes 15 to 300 of most
            texts.
        gradient_seconds: of one gradient of the longest text, as measured.
        seconds: of all; None where ``gradients`` is.
        bytes: what a model call keeps for its backward pass, beside weights.
        checkpointed: whether the model's blocks run again on the way back, to save memory.
    """

    texts: int
    tokens: int
    gradients: int | None
    gradient_seconds: float
    seconds: float | None
    bytes: int
    checkpointed: bool

    def __str__(self) -> str:
        several = f"{self.texts:,} texts of up to " if self.texts > 1 else ""
        tokens = f"{several}{self.tokens:,} token{'s' * (self.tokens != 1)}"
        again = ", blocks run again to save memory" if self.checkpointed else ""
        size = _size(self.bytes)
        if self.gradients is None or self.seconds is None:
            return f"{tokens}: ≈ {size}, {_time(self.gradient_seconds)} a gradient, of which the tolerance takes as many as it needs{again}"
        count = f"{self.gradients:,} gradient{'s' * (self.gradients != 1)}"
        return f"{tokens} × {count} ≈ {size}, {_time(self.seconds)}{again}"


def _time(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else duration(seconds)


def _size(count: float) -> str:
    """A number of bytes, to readers."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
