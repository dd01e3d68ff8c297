"""A network whose ReLUs are softplus, as long as it is run for its explanation."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor

from ..backprop.modified.base import check_open
from ..backprop.softplus import Softplus
from ..core.options import real
from ..errors import InputError
from ..model.fusion import OptimisedCopy
from ..model.network import Network, PlainModel


class SmoothedNetwork(PlainModel):
    """A network with softplus of sharpness ``beta`` in place of its ReLUs; nothing of the model is
    changed.

    Raises:
        InputError: for a ``beta`` that is not above zero.
        ModelError: for compiled and scripted modules, whose operations are not seen.
    """

    def __init__(self, whole: Network, beta: float) -> None:
        beta = real("softplus", beta)
        if not beta > 0:
            raise InputError(f"softplus is the sharpness β of a softplus, above 0, not {beta:g}.")
        check_open(whole.module, f"softplus={beta:g}: whoever smooths a model")
        super().__init__(whole)
        self.beta = beta

    def during(self) -> AbstractContextManager[Any]:
        return Softplus(self.beta)

    def _call(self, z: Tensor, index: Tensor | None, optimised: OptimisedCopy | None = None) -> Any:
        with self.during():
            return super()._call(z, index, optimised)
