"""Attributions of random functions, with the covariance of what each feature contributed."""

from __future__ import annotations

import dataclasses
import time
from typing import ClassVar

from torch import Tensor

from ...core.declared import Adopted, name_of
from ...core.values import part
from ...errors import InputError
from ...fields import Field
from ...paths import Straight
from .. import Method
from ..assemble import Watch
from ..attribution import Attribution, Explainer, ExplainerLike, Wrapper, as_explainer


@part
class WithCovariance(Wrapper):
    """A method along straight lines, its map with the posterior covariance of a random function F.

        A = Σ_r w_r ∫ ∇F ⊙ dγ_r,      covariance = Cov(A) over F, for the weights w as they are

    Several baselines share F, so that their maps depend on one another: cross-covariances are
    counted. Weights that were found from the mean (``ig.methods.weighted``) are taken as given.

    Args:
        method: a Method along straight lines, such as
            ``ig.methods.weighted(references, rule=ig.rules.Exact())``.

    Raises:
        NoShare: for fields that are no random functions.
        InputError: for other paths, and for wrappers.

    Cost:
        That of the method; n² numbers for each example, and pairs of baselines for several.

    Example:
        >>> import torch, integrand as ig
        >>> X, y = torch.tensor([[0.0, 0.0], [1.0, 0.5]]), torch.tensor([0.0, 1.0])
        >>> field = ig.fields.GPField(X, y, lengthscale=1.0, variance=1.0, noise=0.1)
        >>> method = ig.WithCovariance(ig.methods.integrated([0.0, 0.5], ig.rules.Exact()))
        >>> method(field, torch.tensor([[1.0, 1.0]])).covariance.shape
        torch.Size([1, 2, 2])
    """

    method: Adopted[ExplainerLike, Explainer] = Adopted(as_explainer)

    at_layers: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.method, Method):
            raise InputError(
                f"WithCovariance takes a Method, such as ig.methods.integrated(…) makes, not {name_of(self.method)}."
            )
        if self.method.path != Straight():
            raise InputError(
                f"The covariance is known along straight lines, and {self.method.path!r} is another path."
            )

    def __call__(self, field: Field, x: Tensor, *, watch: Watch | None = None) -> Attribution:
        attribution = self.method(field, x, watch=watch)
        if attribution.baselines is None:
            raise InputError(
                f"{len(attribution.weights)} baselines are too many for a covariance over all of their pairs: take fewer."
            )
        begin = time.perf_counter()
        with field.ready():
            covariance = field.line_covariance(
                attribution.baselines, attribution.inputs, attribution.weights
            )
        seconds = attribution.cost.seconds + time.perf_counter() - begin
        cost = dataclasses.replace(attribution.cost, seconds=seconds)
        return dataclasses.replace(attribution, covariance=covariance, cost=cost, method=self)
