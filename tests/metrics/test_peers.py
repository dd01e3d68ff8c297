"""The same numbers as Quantus and Captum where they are right, and what is wrong where they are not.

Their numbers are in tests/references/peers.json (tests/metrics/peers.py says how they were made); where they are installed they are
asked again.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.metrics.robustness.mprt import entropy
from tests.metrics import peers

THEIRS = json.loads(peers.PATH.read_text())


def close(ours: Tensor, theirs: Any) -> None:
    torch.testing.assert_close(
        ours.double(), torch.tensor(theirs, dtype=torch.float64), rtol=1e-5, atol=1e-5
    )


@pytest.fixture(scope="module")
def asked() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    return (*peers.problem(), torch.tensor(peers.TARGETS))


def explainer(field: Any, x: Tensor) -> Tensor:
    """Input × gradient as a method."""
    return x * field.gradient(x)


_DRAWS = {ig.core.random.generator(0, draw).initial_seed(): draw for draw in range(6)}


def shift(x: Tensor, random: torch.Generator) -> Tensor:
    """The written-down perturbation that belongs to a draw."""
    return peers.shifts()[_DRAWS[random.initial_seed()]][None]


def shifted(x: Tensor, blank: Tensor, random: torch.Generator) -> Tensor:
    return x - shift(x, random)


def test_faithfulness_correlation(asked: Any) -> None:
    model, x, maps, target = asked
    chosen = torch.zeros(peers.RUNS, peers.BATCH, peers.FEATURES, dtype=torch.bool)
    chosen.scatter_(2, torch.tensor(peers.subsets()), True)
    found = ig.metrics.faithfulness_correlation(
        model, x, maps, target=target, subsets=chosen, features="elements"
    )
    close(found, THEIRS["quantus"]["faithfulness_correlation"])


def test_faithfulness_estimate(asked: Any) -> None:
    model, x, maps, target = asked
    found = ig.metrics.faithfulness_estimate(model, x, maps, target=target, features="elements")
    close(found, THEIRS["quantus"]["faithfulness_estimate"])


def test_monotonicity_correlation(asked: Any) -> None:
    model, x, maps, target = asked
    fill = ig.baselines.Given(peers.redrawn().reshape(-1, 1, peers.SIDE, peers.SIDE))
    found = ig.metrics.monotonicity_correlation(
        model, x, maps, target=target, fill=fill, features="elements"
    )
    close(found, THEIRS["quantus"]["monotonicity_correlation"])


def test_max_sensitivity(asked: Any) -> None:
    model, x, _, target = asked
    maps = peers.slopes_times_input(model, x, target)
    found = ig.metrics.max_sensitivity(
        model, x, maps, target=target, method=explainer, noise=shift, draws=6
    )
    close(found, THEIRS["quantus"]["max_sensitivity"])
    close(found, THEIRS["captum"]["sensitivity_max"])


@pytest.mark.parametrize("name", ["local", "local_scaled", "global"])
def test_infidelity(asked: Any, name: str) -> None:
    model, x, maps, target = asked
    found = ig.metrics.infidelity(
        model,
        x,
        maps,
        target=target,
        perturb=shifted,
        draws=6,
        form=name.split("_")[0],
        scale="scaled" in name,
    )
    close(found, THEIRS["captum"][f"infidelity_{name}"])


def test_entropy_of_histograms(asked: Any) -> None:
    maps = asked[2].flatten(1)
    found = entropy(maps.double(), torch.ones(peers.FEATURES, dtype=torch.bool), 100)
    close(found, THEIRS["quantus"]["discrete_entropy"])


# --- where they are wrong -----------------------------------------------------------------------------------------------

FAULTS = THEIRS["quantus_faults"]


def test_their_monotonicity_is_true_of_every_map() -> None:
    """What it reveals it replaces again: the curve is constant, and never falls."""
    assert all(all(verdicts) for verdicts in FAULTS["monotonicity"])
    model, x, exact = peers.linear()
    exact = exact * exact.sign()  # of a model whose features all speak for the class
    positive = ig.fields.Linear(torch.ones(1, peers.SIDE, peers.SIDE).double())
    maps = [exact.double(), -exact.double(), torch.zeros_like(exact).double()]
    found = ig.metrics.monotonicity(
        positive, exact.double(), maps, signed=True, how="share", features="elements", steps=None
    )
    assert bool((found[:2] == 1).all())  # all contributions are positive: any order rises …
    assert bool(found[2].isnan().all())  # … but a map that orders nothing is not judged
    field = ig.fields.Linear(
        model[1].weight[0].detach().reshape(1, peers.SIDE, peers.SIDE).double()
    )
    x, exact = (
        x.double(),
        (x * model[1].weight[0].detach().reshape(1, peers.SIDE, peers.SIDE)).double(),
    )
    ours = ig.metrics.monotonicity(
        field, x, [exact, -exact], features="elements", steps=None, signed=True
    )
    assert not bool(ours.any())  # with evidence on both sides, no order of either kind only rises


def test_their_sensitivity_n_is_another_statistic() -> None:
    """Cumulative changes against the sum over the last step alone, over the batch: not 1 for the exact map of a linear model."""
    model, x, exact = peers.linear()
    ours = ig.metrics.sensitivity_n(
        model, x, exact, target=0, sizes=(8, 16, 24, 32, 40, 48), features="elements"
    )
    torch.testing.assert_close(ours, torch.ones(6))
    order = exact.flatten(1).argsort(descending=True)
    flat, gone = exact.flatten(1).double(), torch.zeros(6, peers.FEATURES, dtype=torch.bool)
    theirs = []
    for first in range(0, 48, 8):
        step = order[:, first : first + 8]
        gone.scatter_(1, step, True)
        pair = torch.stack(
            [flat.gather(1, step).sum(1), (flat * gone).sum(1)]
        )  # the model is linear
        theirs.append(float(torch.corrcoef(pair)[0, 1]))
    torch.testing.assert_close(
        torch.tensor(theirs), torch.tensor(FAULTS["sensitivity_n"]), rtol=1e-4, atol=1e-4
    )
    assert min(theirs) < 0.9


def test_their_infidelity_never_puts_back_what_it_replaced() -> None:
    model, x, _ = peers.problem()
    target = torch.tensor(peers.TARGETS)
    slopes = peers.slopes(model, x, target)
    output = lambda z: model(z).detach().gather(1, target[:, None])[:, 0]  # noqa: E731

    def infidelity(*, put_back: bool) -> Tensor:
        errors, moved = [], x.clone()
        for top in (0, 4):
            for left in (0, 4):
                moved = x.clone() if put_back else moved
                moved[..., top : top + 4, left : left + 4] = 0
                errors.append(
                    (
                        (slopes * (x - moved)).flatten(1).sum(1) - (output(x) - output(moved))
                    ).square()
                )
        return torch.stack(errors).mean(0)

    close(infidelity(put_back=False), FAULTS["infidelity"])
    assert not torch.allclose(
        infidelity(put_back=True), torch.tensor(FAULTS["infidelity"]), rtol=0.05
    )
    corners = iter([(0, 0), (0, 4), (4, 0), (4, 4)] * 100)
    places: dict[int, tuple[int, int]] = {}

    def block(rows: Tensor, blank: Tensor, random: torch.Generator) -> Tensor:
        top, left = places.setdefault(random.initial_seed(), next(corners))
        gone = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
        gone[..., top : top + 4, left : left + 4] = True
        return gone

    ours = ig.metrics.infidelity(
        model, x, slopes, target=target, form="local", perturb=block, draws=4
    )
    close(ours, infidelity(put_back=True).tolist())


def test_their_non_sensitivity_takes_what_was_there_for_a_replacement() -> None:
    """The smallest number of an example is replaced by itself: its feature seems useless wherever it matters."""
    model, x, exact = peers.linear()
    ours = ig.metrics.non_sensitivity(model, x, exact, target=0, features="elements")
    assert ours.tolist() == [0.0] * 6  # the map is exact
    weight = model[1].weight[0].detach()
    smallest_matters = weight[x.flatten(1).argmin(1)] != 0
    assert FAULTS["non_sensitivity"] == smallest_matters.long().tolist()
    assert any(FAULTS["non_sensitivity"])


def test_their_mean_over_layers_counts_the_original() -> None:
    curve, mean = FAULTS["mprt"], torch.tensor(FAULTS["mprt_mean"], dtype=torch.float64)
    every = torch.tensor([curve[name] for name in curve], dtype=torch.float64)
    torch.testing.assert_close(every[0], torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(every.mean(0), mean)
    assert bool(((mean - every[1:].mean(0)).abs() > 0.1).all())


def test_their_monotonicity_correlation_stops_at_a_prediction_of_zero() -> None:
    assert "cannot assign" in FAULTS["monotonicity_correlation"]
    model, x, exact = peers.linear()
    zero = torch.cat([0 * x[:1], x[1:]])
    found = ig.metrics.monotonicity_correlation(model, zero, exact, target=0, features="elements")
    assert bool(found[1:].isfinite().all())
    assert bool(found[0].isnan())  # noise within an example of zeros is zero: nothing moves


# --- asked again --------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("numbers", ["quantus_numbers", "quantus_faults", "captum_numbers"])
def test_their_numbers_are_still_these(numbers: str) -> None:
    pytest.importorskip(numbers.split("_")[0])
    stored = THEIRS[numbers.removesuffix("_numbers")]
    for name, found in getattr(peers, numbers)().items():
        if isinstance(found, list):
            torch.testing.assert_close(
                torch.tensor(found), torch.tensor(stored[name]), rtol=1e-4, atol=1e-5
            )
        elif name == "mprt":
            assert set(found) == set(stored[name])
        else:
            assert found == stored[name]
