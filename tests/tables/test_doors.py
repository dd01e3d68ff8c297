"""A door of one's own: a model that reads words is explained in its columns, by nothing but what the base classes ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import integrand as ig
from integrand.core.frames import Table
from integrand.errors import InputError, UnknownName
from integrand.metrics import Subject
from integrand.model import doors

SIZES = {"small": (1.0, 0.0), "large": (4.0, 2.0)}
FRAME = pd.DataFrame({"size": ["small", "large", "large"], "age": [3.0, 1.0, 2.0]}, index=[5, 6, 7])


@dataclass
class Shop:
    """Prices by size (a word, two numbers) and age."""

    weights: Tensor


class ShopEncoding(doors.Encoding):
    columns = ("width", "height", "age")
    names = ("size", "age")
    origin = (0, 0, 1)

    def __init__(self, unit: float) -> None:
        self.unit = unit

    def rows(self, table: Any) -> Tensor:
        rows = [
            (*SIZES[size], age * self.unit)
            for size, age in zip(*map(table.get, self.names), strict=False)
        ]
        return torch.tensor(rows, dtype=torch.float64)

    def described(self, table: Any) -> Table:
        shown = {name: tuple(table[name]) for name in self.names}
        return Table(self.names, Table.of(table).index, shown)


class ShopDoor(doors.Door):
    options = ("unit",)

    def opens(self, model: object) -> bool:
        return isinstance(model, Shop)

    def opened(
        self, model: Any, table: object, options: Mapping[str, Any]
    ) -> tuple[doors.Encoding, Any]:
        return ShopEncoding(options.get("unit", 1.0)), lambda z: (z * model.weights).sum(1)


@pytest.fixture(autouse=True)
def shop_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "_DOORS", [*doors._DOORS])
    doors.listed(ShopDoor())


SHOP: Any = Shop(torch.tensor([2.0, 3.0, -1.0]).double())
ONLY = ig.targets.Output()


@pytest.mark.parametrize("unit", [None, 10.0])
def test_a_model_behind_a_door_of_ones_own(unit: float | None) -> None:
    options = {} if unit is None else {"unit": unit}
    result = ig.explain(SHOP, FRAME, target=ONLY, baseline=FRAME.iloc[:1], **options)
    size = [0.0, 2 * 3 + 3 * 2, 2 * 3 + 3 * 2]  # both numbers of a size, added up
    age = -(FRAME["age"] - 3.0) * (unit or 1.0)
    np.testing.assert_allclose(result.values.numpy(), np.stack([size, age], 1), atol=1e-9)
    assert result.feature_names == ("size", "age")
    assert list(result.to_pandas().index) == [5, 6, 7]
    assert result.table.shown["size"] == tuple(FRAME["size"])


def test_names_for_the_columns_are_those_of_the_table() -> None:
    result = ig.explain(SHOP, FRAME, target=ONLY, feature_names=["Größe", "Alter"])
    assert result.feature_names == ("Größe", "Alter")
    assert result.table.shown["Größe"] == tuple(FRAME["size"])
    with pytest.raises(InputError, match="3 feature names for 2 columns"):
        ig.explain(SHOP, FRAME, target=ONLY, feature_names=["a", "b", "c"])


def test_options_go_to_the_door_that_has_them() -> None:
    with pytest.raises(UnknownName, match="attribute_after"):
        ig.explain(SHOP, FRAME, target=ONLY, attribute_after="scale")
    with (
        pytest.raises(InputError, match="attribute_after= does not go with a Shop"),
        Subject.of(SHOP, FRAME, ONLY, attribute_after="scale"),
    ):
        pass
    with (
        pytest.raises(InputError, match="unit= does not go with a Linear"),
        Subject.of(torch.nn.Linear(2, 1), torch.ones(1, 2), 0, unit=1.0),
    ):
        pass
    with Subject.of(SHOP, FRAME, ONLY, unit=2.0) as subject:
        assert subject.x[:, 2].tolist() == [6.0, 2.0, 4.0]
    assert doors.options_of(SHOP) == ("unit",)
    assert doors.options_of(torch.nn.Linear(2, 1)) == ()
