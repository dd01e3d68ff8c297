"""Maps to be scored: those of one or several methods for the same inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.shapes import describe, flattened
from ..errors import InputError, NonFiniteInput, ShapeError
from ..fields import Field
from ..integration.attribution import Attribution
from ..model.doors import Encoding
from ..model.layout import Layout

Explainer = Callable[..., Attribution]
"""(field, x) -> Attribution, as every method is."""

MapLike = Attribution | Tensor | tuple[Tensor, ...] | Mapping[str, Tensor]
"""One method's map: an attribution, or a tensor (B, \\*s); of several inputs a tuple or dict."""

MapsLike = MapLike | Sequence[MapLike] | Mapping[str, MapLike]
"""The maps of one or several methods."""


@dataclass(frozen=True, eq=False)
class Maps:
    """Maps (M, B, \\*s) of M methods for B examples.

    Args:
        values: (M, B, \\*s).
        names: what each is called.
        found: the attributions they come from, where known; metrics of the gap read them.
        methods: what made them, where known; metrics that explain again (other inputs, other
            models) call it.
    """

    values: Tensor
    names: tuple[str, ...]
    found: tuple[Attribution | None, ...]
    methods: tuple[Explainer | None, ...]

    @classmethod
    def of(
        cls, maps: MapsLike, x: Tensor, layout: Layout, methods: Sequence[Explainer | None] = ()
    ) -> Maps:
        """Convert an attribution, a tensor, or a list or dict of these.

        Tensors are (B, \\*s) as the inputs were; (B, H, W) and (B, 1, H, W) are spread evenly over
        the channels of images, and what a pipeline's frame has for each of its columns (B, M) over
        the numbers (B, N) that these were read as.

        Raises:
            ShapeError: for another size.
            NonFiniteInput: for NaN.
        """
        entries = _entries(maps, layout)
        names = tuple(entries)
        values = torch.stack(
            [_map_values(name, entry, x, layout) for name, entry in entries.items()]
        )
        originals = tuple(
            entry if isinstance(entry, Attribution) else None for entry in entries.values()
        )
        makers = tuple(methods) or tuple(
            None if entry is None else entry.method for entry in originals
        )
        if len(makers) != len(names):
            raise InputError(
                f"{len(makers)} methods were given for {len(names)} maps: one for each."
            )
        if layout.encoding is not None:
            makers = tuple(
                _OfColumns(maker, layout.encoding)
                if callable(maker) and _of_columns(entry)
                else maker
                for maker, entry in zip(makers, entries.values(), strict=True)
            )
        return cls(values, names, originals, makers)

    def __len__(self) -> int:
        return len(self.values)

    def attributions(self) -> tuple[Attribution, ...]:
        """All attributions. Raises ``InputError`` for bare tensors, which do not know the change of
        F that they explain."""
        missing = [
            name
            for name, attribution in zip(self.names, self.found, strict=True)
            if attribution is None
        ]
        if missing:
            raise InputError(
                f"The map {missing[0]!r} is a bare tensor: give the Attribution it comes from."
            )
        return tuple(attribution for attribution in self.found if attribution is not None)

    def explainers(self) -> tuple[Explainer, ...]:
        """The methods that computed the maps. Raises ``InputError`` where one is not known."""
        missing = [
            name
            for name, method in zip(self.names, self.methods, strict=True)
            if not callable(method)
        ]
        if missing:
            raise InputError(
                f"The map {missing[0]!r} is to be made again, and nobody said how: give method=, a method or a name."
            )
        return tuple(method for method in self.methods if method is not None)


def explained(method: Callable[..., Any], field: Field, x: Tensor) -> Tensor:
    """The map (B, \\*s) that a method, or a function (field, x) → map, makes.

    Raises:
        ShapeError: for a map of something other than the inputs, such as a layer.
    """
    result = method(field, x)
    values = result.values if isinstance(result, Attribution) else result
    if not isinstance(values, Tensor) or values.shape != x.shape:
        returned = describe(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ShapeError(
            f"{method!r} made a map of {returned} for inputs of shape {describe(x.shape)}: explain the inputs."
        )
    return values.detach().to(x)


def _entries(maps: MapsLike, layout: Layout) -> dict[str, Any]:
    if isinstance(maps, Mapping) and not (
        layout.names is not None and set(maps) == set(layout.names)
    ):
        entries: dict[str, Any] = {str(name): entry for name, entry in maps.items()}
    elif isinstance(maps, list):
        entries = {f"map {i + 1}": entry for i, entry in enumerate(maps)}
    else:
        entries = {"map": maps}
    if not entries:
        raise InputError("There are no maps to judge: give at least one.")
    return entries


def _map_values(name: str, entry: MapLike, x: Tensor, layout: Layout) -> Tensor:
    values = entry.values if isinstance(entry, Attribution) else entry
    if not layout.single:
        values = Layout.of(values).pack(values)
    if not isinstance(values, Tensor):
        raise InputError(
            f"The map {name!r} is a {type(values).__name__}, not an Attribution or a tensor."
        )
    encoding = layout.encoding
    if (
        encoding is not None
        and _of_columns(entry)
        and values.shape == (len(x), len(encoding.names))
    ):
        values = encoding.spread(values)
    values = _spread(values.detach().to(x), x)
    if values.shape != x.shape:
        raise ShapeError(
            f"The map {name!r} has shape {describe(values.shape)}, the inputs have {describe(x.shape)}: resize it to what "
            "the model sees."
        )
    wrong = ~flattened(torch.isfinite(values), 1).all(1)
    if bool(wrong.any()):
        raise NonFiniteInput(
            f"The map {name!r} holds NaN or infinity for example {int(wrong.nonzero()[0])} ({int(wrong.sum())} of {len(x)} "
            "examples): it ranks nothing and adds up to nothing."
        )
    return values


def _of_columns(entry: MapLike) -> bool:
    """Whether a map of an encoded table may be of the table's columns: an attribution that was not
    carried back to them has no table."""
    return not isinstance(entry, Attribution) or entry.table is not None


@dataclass(frozen=True)
class _OfColumns:
    """A method whose maps are summed to the columns of a table, and spread evenly over the numbers
    that these were read as, as the map that is judged was."""

    method: Explainer
    encoding: Encoding

    def __call__(self, field: Field, x: Tensor, **options: Any) -> Any:
        result: Any = self.method(field, x, **options)
        if isinstance(result, Attribution):
            values = self.encoding.spread(self.encoding.summed(result.values))
            return dataclasses.replace(result, values=values)
        return self.encoding.spread(self.encoding.summed(result))


def _spread(values: Tensor, x: Tensor) -> Tensor:
    """One number per place, shared evenly by the channels of images, so that sums over channels are
    what they were."""
    if x.ndim != 4 or values.shape == x.shape:
        return values
    if values.ndim == 3 and values.shape == (len(x), *x.shape[2:]):
        values = values[:, None]
    if values.shape == (len(x), 1, *x.shape[2:]):
        return (values / x.shape[1]).expand(x.shape)
    return values
