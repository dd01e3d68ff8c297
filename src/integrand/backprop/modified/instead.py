"""The value of one computation with the derivative of another; and several rules at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...core.values import part
from ...errors import InputError
from .base import BackwardRule, During


class _Instead(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, stand_in: Tensor) -> Tensor:
        return value.detach().clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0]


def instead(value: Tensor, stand_in: Tensor) -> Tensor:
    """``value``, to the last bit, with the derivative of ``stand_in``, which has its shape."""
    result: Tensor = _Instead.apply(value, stand_in.to(value.dtype))  # type: ignore[no-untyped-call]
    return result


@part
class BackwardRules:
    """Several backward rules at once; where two are for the same operation, the last one has it.

    Args:
        rules: a tuple of them.

    Raises:
        InputError: for what is no tuple of rules.

    Example:
        >>> import integrand as ig
        >>> ig.fields.BackwardRules((ig.fields.FrozenNorm(), ig.fields.SoftmaxTemperature(2.0)))
        BackwardRules((FrozenNorm(), SoftmaxTemperature()))
    """

    rules: tuple[BackwardRule, ...]

    def __post_init__(self) -> None:
        rules = self.rules
        if not isinstance(rules, tuple) or not all(isinstance(r, BackwardRule) for r in rules):
            raise InputError(
                "BackwardRules takes a tuple of rules, such as (ig.fields.FrozenNorm(), ig.fields.SoftmaxTemperature(2.0))."
            )

    @property
    def layers(self) -> bool:
        return any(rule.layers for rule in self.rules)

    def bound(self, module: nn.Module | None) -> During:
        durings = [rule.bound(module) for rule in self.rules]

        @contextmanager
        def all_of_them() -> Iterator[None]:
            with ExitStack() as stack:
                for during in durings:
                    stack.enter_context(during())
                yield

        return all_of_them
