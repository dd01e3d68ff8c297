"""The cost of an attribution: gradients, values, model calls, seconds and memory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ..fields.views import CountedField
from ..model.autograd import gradients
from ..model.batching import peak_memory


@dataclass(frozen=True)
class Cost:
    """The cost of an attribution.

    Attributes:
        gradients: rows evaluated with a gradient.
        values: rows evaluated without one.
        calls: model calls.
        seconds: wall clock.
        peak_bytes: the most memory in use: on a GPU during the call, on a CPU by the process so
            far.
    """

    gradients: int = 0
    values: int = 0
    calls: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0

    def of_examples(self, examples: Sequence[int], count: int) -> Cost:
        """The part of some of the ``count`` examples that the cost is of: even shares, which add up
        to the whole, row for row, over all examples. The memory was needed for each of them.

        >>> cost = Cost(gradients=7)
        >>> [cost.of_examples([i], 3).gradients for i in range(3)]
        [2, 2, 3]
        """

        def portion(rows: int) -> int:
            return sum((i + 1) * rows // count - i * rows // count for i in examples)

        return Cost(
            portion(self.gradients),
            portion(self.values),
            portion(self.calls),
            self.seconds * len(examples) / max(1, count),
            self.peak_bytes,
        )

    def __add__(self, other: Cost) -> Cost:
        """What both took, one after the other."""
        return Cost(
            self.gradients + other.gradients,
            self.values + other.values,
            self.calls + other.calls,
            self.seconds + other.seconds,
            max(self.peak_bytes, other.peak_bytes),
        )


class Stopwatch:
    """Reads off what a metered field was asked for since the stopwatch was started."""

    def __init__(self, meter: CountedField, device: torch.device) -> None:
        self.meter = meter
        self.device = device
        self.began = time.perf_counter()
        self.seconds: float | None = None

    def cost(self) -> Cost:
        """The cost so far, or up to the end of the ``measured`` block."""
        tally = self.meter.tally
        seconds = time.perf_counter() - self.began if self.seconds is None else self.seconds
        return Cost(tally.gradients, tally.values, tally.calls, seconds, peak_of(self.device))


@contextmanager
def measured(meter: CountedField, device: torch.device) -> Iterator[Stopwatch]:
    """A stopwatch for what happens inside, with the model ready to be explained."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    watch = Stopwatch(meter, device)
    with meter.ready(), gradients(False):  # fields turn them on where they need them
        yield watch
    watch.seconds = time.perf_counter() - watch.began


def peak_of(device: torch.device) -> int:
    """The peak of the memory so far: of a GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_memory()
