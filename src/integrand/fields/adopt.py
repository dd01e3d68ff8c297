"""Which field explains a model that is no torch model."""

from __future__ import annotations

from .base import Field
from .scikit_learn import ScikitLearnField
from .trees import TreeField

_ADOPTING: list[type[Field]] = [TreeField, ScikitLearnField]


def adopt(field: type[Field]) -> type[Field]:
    """List a class of fields, so that ``ig.explain`` takes the models that it ``adopts``.

    Args:
        field: a class with ``adopts(model)`` and ``adopted(model, target)``; listed last, it is
            asked first.

    Returns:
        The class, so that this can be its decorator.

    Example:
        >>> import integrand as ig
        >>> @ig.fields.adopt
        ... class Thermostat(ig.fields.Linear):
        ...     @classmethod
        ...     def adopts(cls, model):
        ...         return isinstance(model, dict) and "thermostat" in model
    """
    if field not in _ADOPTING:
        _ADOPTING.insert(0, field)
    return field


def adopting(model: object) -> type[Field] | None:
    """The class of fields that explains a model; None for torch models and other callables."""
    return next((field for field in _ADOPTING if field.adopts(model)), None)
