"""A DataLoader's batches are explained one by one: the maps of one call, whatever the cuts."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import integrand as ig
from integrand.errors import InputError
from tests.problems import filled, wave

X, LABELS = wave(10, 4), torch.arange(10) % 3


@pytest.fixture
def net() -> torch.nn.Module:
    return filled(
        torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))
    ).double()


@pytest.mark.parametrize("size", [1, 3, 10])
@pytest.mark.parametrize("target", [1, "predicted", LABELS, ig.targets.Probability(LABELS)])
@pytest.mark.parametrize("pairs", [False, True])
def test_batches_are_joined(net: torch.nn.Module, size: int, target: Any, pairs: bool) -> None:
    data = TensorDataset(X, LABELS) if pairs else TensorDataset(X)
    rule = ig.rules.GaussLegendre(6)
    joined = ig.explain(net, DataLoader(data, batch_size=size), target=target, rule=rule)
    whole = ig.explain(net, X, target=target, rule=rule)
    torch.testing.assert_close(joined.values, whole.values, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(joined.output, whole.output, rtol=1e-9, atol=1e-12)
    assert joined.cost.gradients == whole.cost.gradients
    assert joined.target == whole.target


def test_names_and_dicts_of_inputs(net: torch.nn.Module) -> None:
    names = ["a", "b", "c", "d"]
    named = ig.explain(net, DataLoader(X, batch_size=4), target=0, feature_names=names)
    assert named.feature_names == tuple(names)
    frame = pd.DataFrame(X.numpy(), columns=names, index=range(5, 15))
    parts = [ig.explain(net, frame[i : i + 3], target=0) for i in range(0, 10, 3)]
    joined = ig.concat(parts)
    assert list(joined.to_pandas().index) == [*range(5, 15)]
    with pytest.raises(InputError, match="columns"):
        ig.concat([parts[0], parts[1].named(["a", "b", "c", "e"])])

    def model(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return net(torch.cat([left, right], 1))

    rows = [{"left": x[:2], "right": x[2:]} for x in X]
    of_dicts = ig.explain(model, DataLoader(rows, batch_size=4), target=0)  # type: ignore[arg-type]
    torch.testing.assert_close(
        torch.cat([*of_dicts.values.values()], 1), named.values, rtol=0.2, atol=1e-3
    )


def test_what_does_not_go_with_batches_is_refused(net: torch.nn.Module) -> None:
    triples = DataLoader(TensorDataset(X, X, LABELS), batch_size=4)
    with pytest.raises(InputError, match="3 things"):
        ig.explain(net, triples, target=0)
    with pytest.raises(InputError, match="extra="):
        ig.explain(net, DataLoader(X, batch_size=4), target=0, extra=(X,))
    with pytest.raises(InputError, match="no examples"):
        ig.explain(net, DataLoader(X[:0], batch_size=4), target=0)
