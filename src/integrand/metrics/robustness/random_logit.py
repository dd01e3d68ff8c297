"""The random logit test: whether a map depends on the class it explains."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ...core.features import Features
from ...core.random import generator
from ...core.shapes import describe
from ...core.values import part
from ...errors import InputError, TargetError
from ...fields import Field
from ...fields.base import outputs_of
from ..base import Metric, functional, metric
from ..maps import Maps, explained
from ..task import Subject
from .similarity import check_similarity, map_similarity


@metric("random_logit")
@part
class RandomLogit(Metric):
    """Random logit test: how like the map of the class a map of another class is.

    Lower is better, 0 unlike.

        similarity( φ(x; class c), φ(x; class d) ),    d ≠ c drawn at random

    Needs to know how the maps were made: an Attribution knows, a tensor goes with ``method=``.

    Undefined (NaN): where either map is the same everywhere.

    Args:
        other: the class d, or a tensor with one for each example; drawn unless given: a number of
            classes further on, the same for all examples.
        similarity: "spearman", "pearson", or "ssim" (images; needs scikit-image).
        absolute: compare |φ|.
        features: what is ranked: "auto" is pixels for images, tokens for (T, D), elements
            otherwise.
        seed: of the class that is drawn.

    Raises:
        TargetError: for targets that name no class, and models of one class.
        InputError: for d = c, or a number of classes other than one or B.

    Cost:
        One explanation of every example by every method, and one row where a class is drawn.

    Pitfalls:
        With two classes and a probability, or logits that mirror one another, the other map is the
        first one negated: −1 is then as dependent as can be, and with absolute=True it looks like
        none at all; related classes have related evidence.

    Peers:
        Quantus' RandomLogit compares by SSIM, needs num_classes, and draws a class for each
        example.

    References:
        Sixt, Granz, Landgraf, "When explanations lie", ICML 2020.

    Example:
        >>> import torch, integrand as ig
        >>> model, x = torch.nn.Linear(8, 5), torch.randn(4, 8)
        >>> ig.metrics.random_logit(model, x, ig.explain(model, x, target=0), target=0).shape
        torch.Size([4])
    """

    other: Any = None
    similarity: str = "spearman"
    absolute: bool = False
    features: Features = "auto"
    seed: int = 0

    higher: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_similarity(self.similarity)

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        methods = maps.explainers()
        field = self._another(subject.field, subject.x)
        changed_maps = torch.stack([explained(method, field, subject.x) for method in methods])
        return map_similarity(
            maps.values, changed_maps, self.similarity, self.features, absolute=self.absolute
        )

    def _another(self, field: Field, x: Tensor) -> Field:
        """The field of another class than the one explained."""
        target = field.target
        target_class = None if target is None else target.class_index
        if target is None or not isinstance(target_class, int | Tensor):
            raise TargetError(
                "The random logit test asks about another class: explain a class of a torch model, target=3 or "
                'target="predicted", not a callable, a position or a field that knows one question only.'
            )
        outputs = outputs_of(field, x) if field.memory is not None else field.outputs(x[:1])
        if outputs.ndim != 2 or outputs.shape[1] < 2:
            raise TargetError(
                f"There is no other class: one output has shape {describe(outputs.shape[1:])}."
            )
        classes = outputs.shape[1]
        explained_class = torch.as_tensor(target_class, device=x.device) % classes
        if self.other is None:
            further = 1 + int(torch.randint(classes - 1, (), generator=generator(self.seed)))
            random_class = (explained_class + further) % classes
        else:
            random_class = torch.as_tensor(self.other, device=x.device)
            if random_class.ndim and len(random_class) != len(x):
                raise InputError(
                    f"other= names {len(random_class)} classes for {len(x)} examples: give one for each, or one for all."
                )
            if bool((random_class % classes == explained_class).any()):
                raise InputError("other= names the class that was explained: a map is like itself.")
        return field.with_target(target.with_class(random_class))


random_logit = functional(RandomLogit)
