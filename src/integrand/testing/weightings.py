"""Check of weightings."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.shapes import describe, over
from ..fields import Field, Function
from ..weightings import Weighed, Weighting, WeightingLike, as_weighting
from .assertions import as_called, close, say, untouched
from .problem import smooth, waves


def check_weighting(
    weighting: WeightingLike,
    *,
    field: Field | None = None,
    x: Tensor | None = None,
    shares: Tensor | None = None,
) -> None:
    """A weighting (shares (R, B, \\*s), x (B, \\*s), field) → weights (R, B), or ``Weighed``.

    * Weights are finite and add up to one for every example; a fitness, where there is one, is (R,
      B) too.
    * Which place a reference stands in does not matter: permuting shares permutes weights.
    * An example's weights do not depend on its neighbours; nothing given is changed, and no global
      generator is drawn from.
    * The same call gives the same weights.
    * ``beforehand``, where it is there, says the same without looking at shares.

    Args:
        weighting: what is checked.
        field: what it may ask; a small network unless given.
        x: (B, \\*s) inputs for the field.
        shares: (R, B, \\*s) to be weighed.

    Raises:
        AssertionError: with what was promised, and what came instead.

    Example:
        >>> import integrand as ig
        >>> ig.testing.check_weighting(ig.weightings.Uniform())
    """
    weighting = as_weighting(weighting)
    x = waves(3, 6, phase=0.3) if x is None else x
    field = field or Function(lambda z: smooth(z).sigmoid())
    shares = waves(4, *x.shape, phase=1.0) if shares is None else shares
    with (
        as_called(field),
        untouched("The weighting", "the shares", shares),
        untouched("The weighting", "the inputs", x),
    ):
        weighed = Weighed.ensure(weighting(shares, x, field))
        _check_weights(weighed, shares.shape[:2])
        again = Weighed.ensure(weighting(shares, x, field))
        close(
            again.weights,
            weighed.weights,
            "A second call gives other weights; take randomness from a seed",
        )
        _check_independence(weighting, field, x, shares, weighed.weights)
    known = weighting.beforehand(*shares.shape[:2])
    if known is not None:
        close(
            known.to(weighed.weights),
            weighed.weights,
            "beforehand() and the call give different weights",
        )
        # Known weights stand for the sum that is taken while shares come.
        streamed = (over(known.to(shares), shares) * shares).sum(0)
        close(
            streamed,
            (over(weighed.weights, shares) * shares).sum(0),
            "Streamed and kept sums differ",
        )


def _check_weights(weighed: Weighed, leading: torch.Size) -> None:
    for name, numbers in (("Weights", weighed.weights), ("The fitness", weighed.fitness)):
        if numbers is not None:
            say(
                numbers.shape == leading,
                f"{name} of shape {describe(numbers.shape)}: for {leading[0]} references of {leading[1]} examples it "
                f"must be {describe(leading)} (R, B).",
            )
            say(bool(torch.isfinite(numbers).all()), f"{name}: NaN or infinity.")
    close(
        weighed.weights.sum(0),
        torch.ones_like(weighed.weights[0]),
        "The weights of an example do not add up to one",
    )


def _check_independence(
    weighting: Weighting, field: Field, x: Tensor, shares: Tensor, weights: Tensor
) -> None:
    """References in another order, and every example alone."""
    order = torch.arange(len(shares)).roll(1)
    turned = Weighed.ensure(weighting(shares[order], x, field))
    close(turned.weights, weights[order], "Weights depend on the order of the references")
    for example in range(len(x)):
        single = slice(example, example + 1)
        single_field = field.at(torch.tensor([example], device=x.device))
        alone = Weighed.ensure(weighting(shares[:, single], x[single], single_field))
        close(
            alone.weights,
            weights[:, single],
            f"Weights of example {example} depend on the others of its batch",
        )
