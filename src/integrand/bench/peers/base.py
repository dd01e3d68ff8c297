"""Explainers of other libraries: what a suite holds our methods against.

They have the interface of methods, ``(field, x) -> Attribution``, and run in the same table. A
library that is not installed costs its own row alone: the table says what to install.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ...core.shapes import total
from ...fields import Field
from ...integration.assemble import Watch, opened
from ...integration.attribution import Attribution, Explainer
from ...integration.cost import measured


class Peer(Explainer):
    """Base class of peers: ``_explained`` asks the other library, and the answer becomes an
    attribution."""

    seed: int

    complete: ClassVar[bool] = False
    counted: ClassVar[bool] = True
    """Whether it asks the model through the field, so that its rows are counted; others run the
    model themselves, and their cost is told in seconds only."""

    def __call__(self, field: Field, x: Tensor, *, watch: Watch | None = None) -> Attribution:
        x, meter = opened(field, x, watch)
        with measured(meter, x.device) as stopwatch, global_seed(self.seed), _unwarned():
            values, base = self._explained(meter, x)
            output = meter.value(x)
        change = x.new_full((len(x),), torch.nan) if base is None else output - base.to(output)
        residual = change - total(values, 1)
        return Attribution(
            values=values,
            inputs=x,
            output=output,
            weights=x.new_ones(1, len(x)),
            change=change[None],
            residual=residual,
            error=torch.full_like(change, torch.nan),
            converged=torch.zeros_like(change, dtype=torch.bool),
            cost=stopwatch.cost(),
            method=self,
        )

    @abstractmethod
    def _explained(self, field: Field, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The map (B, \\*s), and the value (B,) that F(x) is explained the difference to; None
        where the map claims no sum."""


@contextmanager
def _unwarned() -> Iterator[None]:
    """What other libraries warn of is theirs: a table of scores is no place for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """The global generators of torch and NumPy, which other libraries draw from, at ``seed``
    inside, and as they were afterwards."""
    numpy_state = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
