"""Fidelity and its kin: restated from class outputs, and asked of a model of edge weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from tests.problems import filled, wave

N = ig.metrics


class Messages(nn.Module):
    """One round of messages over a fixed graph of 6 nodes whose 10 edge weights are the input; 3 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.source = torch.tensor([0, 0, 1, 1, 2, 3, 3, 4, 5, 5])
        self.goal = torch.tensor([1, 2, 2, 3, 4, 4, 5, 0, 0, 1])
        self.nodes = nn.Parameter(torch.zeros(6, 4))
        self.out = nn.Linear(4, 3, bias=False)

    def forward(self, edges: Tensor) -> Tensor:
        sent = edges[..., None] * self.nodes[self.source]
        got = torch.zeros(*edges.shape[:-1], 6, 4, dtype=edges.dtype).index_add(-2, self.goal, sent)
        return 12 * self.out(torch.tanh(got).mean(-2))


@pytest.fixture
def model() -> nn.Module:
    return filled(Messages(), phase=0.7)


@pytest.fixture
def edges() -> Tensor:
    return 1.5 * wave(7, 10, phase=0.3)


@pytest.fixture
def maps() -> Tensor:
    return wave(2, 7, 10, phase=2.1)


def cut(edges: Tensor, heat: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The graphs without the ``size`` highest edges, and of these alone."""
    first = heat.argsort(descending=True)[:, :size]
    inside = torch.zeros_like(edges).scatter(1, first, 1.0)
    return edges * (1 - inside), edges * inside


@pytest.mark.parametrize("by", ["probability", "accuracy"])
@pytest.mark.parametrize("mode", ["model", "phenomenon"])
def test_metrics_are_the_plain_functions_asked_of_a_model(
    model: nn.Module, edges: Tensor, maps: Tensor, by: str, mode: str
) -> None:
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    target = labels if mode == "phenomenon" else "predicted"
    for sparsity, size in ((0.7, 3), (0.5, 5), (0.99, 1)):
        plus = N.fidelity_plus(
            model, edges, list(maps), target=target, by=by, mode=mode, sparsity=sparsity
        )
        minus = N.fidelity_minus(
            model, edges, list(maps), target=target, by=by, mode=mode, sparsity=sparsity
        )
        both = N.characterization(
            model, edges, list(maps), target=target, by=by, mode=mode, sparsity=sparsity
        )
        for m in range(2):
            without, alone = (model(z) for z in cut(edges, maps[m], size))
            expected = N.fidelities(model(edges), without, alone, labels, mode=mode, by=by)
            torch.testing.assert_close((plus[m], minus[m]), tuple(t.detach() for t in expected))
            torch.testing.assert_close(both[m], N.characterize(plus[m], minus[m]), equal_nan=True)


def test_plain_fidelities_are_their_definitions() -> None:
    """PyG's and DIG's formulas, an example at a time."""
    whole, without, alone = 2 * wave(20, 4), 2 * wave(20, 4, phase=1.0), 2 * wave(20, 4, phase=2.0)
    labels = torch.arange(20) % 4
    for mode in ("model", "phenomenon"):
        for by in ("accuracy", "probability"):
            for found, other in zip(
                N.fidelities(whole, without, alone, labels, mode=mode, by=by),
                (without, alone),
                strict=True,
            ):
                for i in range(20):
                    y = int(whole[i].argmax()) if mode == "model" else int(labels[i])
                    if by == "probability":
                        expected = (whole[i].softmax(0)[y] - other[i].softmax(0)[y]).item()
                    elif mode == "model":
                        expected = 1.0 - float(int(other[i].argmax()) == y)
                    else:
                        expected = abs(
                            float(int(whole[i].argmax()) == y) - float(int(other[i].argmax()) == y)
                        )
                    assert found[i].item() == pytest.approx(expected)


def test_soft_masks_are_used_as_they_are(model: nn.Module, edges: Tensor) -> None:
    mask = (wave(7, 10, phase=0.9) + 1) / 2
    found = N.fidelity_plus(model, edges, mask, target=1, sparsity=None)
    before, after = model(edges).softmax(1)[:, 1], model(edges * (1 - mask)).softmax(1)[:, 1]
    torch.testing.assert_close(found, (before - after).detach())
    alone = N.fidelity_minus(model, edges, mask, target=1, sparsity=None, fill=0.5)
    kept = model(0.5 + mask * (edges - 0.5)).softmax(1)[:, 1]
    torch.testing.assert_close(alone, (before - kept).detach())
    with pytest.raises(ig.errors.InputError, match="between 0 and 1"):
        N.fidelity_plus(model, edges, 2 * mask, target=1, sparsity=None)
    with pytest.raises(ig.errors.InputError, match="between 0 and 1"):
        N.unfaithfulness(model, edges, mask - 0.5, target=1, sparsity=None)


def test_soft_masks_of_images_weigh_all_channels() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(27, 2)).double()
    x, mask = wave(2, 3, 3, 3), (wave(2, 3, 3) + 1) / 2
    found = N.fidelity_minus(model, x, mask, target=0, sparsity=None)
    expected = model(x).softmax(1)[:, 0] - model(x * mask[:, None]).softmax(1)[:, 0]
    torch.testing.assert_close(found, expected.detach())


def test_linear_models(edges: Tensor) -> None:
    """For a linear score, fidelity+ is what the map says of S when S is cut from the exact map, and no other S of the size has more."""
    field = ig.fields.Linear(wave(10))
    exact = wave(10) * edges
    plus = N.fidelity_plus(field, edges, exact)
    minus = N.fidelity_minus(field, edges, exact)
    top = exact.sort(descending=True).values
    torch.testing.assert_close(plus, top[:, :3].sum(1))
    torch.testing.assert_close(minus, top[:, 3:].sum(1))
    for seed in range(10):
        other = N.fidelity_plus(
            field, edges, torch.randn(7, 10, generator=torch.Generator().manual_seed(seed)).double()
        )
        assert bool((other <= plus + 1e-12).all())


def test_cost_and_batches(model: nn.Module, edges: Tensor, maps: Tensor) -> None:
    rows: list[int] = []
    handle = model.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    for expected, measure, by in (
        (2 * 7 + 7, N.fidelity_plus, {}),
        (2 * 7 + 2 * 7, N.fidelity_plus, {"by": "accuracy"}),
        (2 * 2 * 7 + 7, N.characterization, {"by": "probability"}),
        (2 * 2 * 7 + 2 * 7, N.characterization, {"by": "accuracy"}),
        (2 * 7 + 2 * 7, N.unfaithfulness, {}),
    ):
        rows.clear()
        measure(model, edges, list(maps), target=0, **by)
        assert sum(rows) == expected, (measure.__name__, by)
    handle.remove()
    for name in ("fidelity_plus", "fidelity_minus", "unfaithfulness", "characterization"):
        measure = getattr(N, name)
        whole = measure(model, edges, list(maps), target=0)
        for b in range(7):
            alone = measure(model, edges[b : b + 1], list(maps[:, b : b + 1]), target=0)
            torch.testing.assert_close(whole[:, b : b + 1], alone, equal_nan=True)


# --- characterization -----------------------------------------------------------------------------------------------


def test_characterization() -> None:
    plus, minus = (
        torch.tensor([0.8, 0.0, 0.5, -0.1, 1.0, 0.0]),
        torch.tensor([0.4, 0.2, 1.0, 0.2, 0.0, 1.0]),
    )
    found = N.characterize(plus, minus)
    # PyG's formula: 1 / (w₊ / fid₊ + w₋ / (1 − fid₋))
    assert found[0].item() == pytest.approx(1 / (0.5 / 0.8 + 0.5 / 0.6))
    assert found[[1, 2, 5]].tolist() == [0, 0, 0]
    assert bool(found[3].isnan())
    assert found[4].item() == 1
    assert N.characterize(plus[0], minus[0], (0.9, 0.1)).item() == pytest.approx(
        1 / (0.9 / 0.8 + 0.1 / 0.6)
    )
    with pytest.raises(ig.errors.InputError, match="two positive"):
        N.characterize(plus, minus, (1.0, 0.0))
    with pytest.raises(ig.errors.InputError, match="weights is a tuple of 2 numbers"):
        N.Characterization(weights=(1.0,))


def test_the_summary_is_the_score_of_the_means(
    model: nn.Module, edges: Tensor, maps: Tensor
) -> None:
    running = N.Running(N.Characterization(by="accuracy"))
    for part in (slice(0, 3), slice(3, 7)):
        with N.Subject.of(model, edges[part], "predicted") as subject:
            running.update(subject, N.Maps.of(list(maps[:, part]), subject.x, subject.layout))
    found = running.compute()
    plus = N.fidelity_plus(model, edges, list(maps), target="predicted", by="accuracy").mean(1)
    minus = N.fidelity_minus(model, edges, list(maps), target="predicted", by="accuracy").mean(1)
    torch.testing.assert_close(found.summary, N.characterize(plus, minus))
    assert bool((plus > 0).any())
    assert not torch.allclose(found.summary, found.values.nanmean(1))


# --- unfaithfulness -------------------------------------------------------------------------------------------------


def test_unfaithfulness_is_the_divergence_of_what_is_left_from_what_was(
    model: nn.Module, edges: Tensor, maps: Tensor
) -> None:
    found = N.unfaithfulness(model, edges, list(maps), target=0, sparsity=0.5)
    for m in range(2):
        y, seen = (model(z).detach().softmax(1) for z in (edges, cut(edges, maps[m], 5)[1]))
        for b in range(7):
            kl = sum(
                float(p) * math.log(float(p) / float(q)) for p, q in zip(y[b], seen[b], strict=True)
            )
            assert found[m, b].item() == pytest.approx(1 - math.exp(-kl), abs=1e-12)
        torch.testing.assert_close(
            found[m], N.unfaithful(model(edges), model(cut(edges, maps[m], 5)[1])).detach()
        )


def test_the_direction_is_not_that_of_pyg() -> None:
    """PyG: 1 − exp(−F.kl_div(log y, ŷ, reduction="batchmean")) is KL(ŷ ‖ y); where y has no mass but ŷ has, it explodes."""
    y, seen = torch.tensor([[0.999, 0.001]]).double(), torch.tensor([[0.5, 0.5]]).double()
    ours = N.unfaithful(y.log(), seen.log()).item()
    pyg = 1 - math.exp(-nn.functional.kl_div(y.log(), seen, reduction="batchmean").item())
    assert ours == pytest.approx(
        1 - math.exp(-(0.999 * math.log(0.999 / 0.5) + 0.001 * math.log(0.001 / 0.5)))
    )
    assert pyg == pytest.approx(
        1 - math.exp(-(0.5 * math.log(0.5 / 0.999) + 0.5 * math.log(0.5 / 0.001)))
    )
    assert abs(ours - pyg) > 0.3
    assert N.unfaithful(seen.log(), y.log()).item() == pytest.approx(pyg)


def test_nothing_lost_is_faithful() -> None:
    same = wave(3, 4)
    assert N.unfaithful(same, same + 7).abs().max().item() < 1e-15
    assert bool((N.unfaithful(same, -3 * same) > 0).all())


# --- masks ----------------------------------------------------------------------------------------------------------


def test_sparsity_and_jaccard() -> None:
    soft = torch.tensor([[0.9, 0.0, 0.3, 0.6], [0.0, 0.0, 0.0, 0.0]])
    assert N.sparsity(soft).tolist() == [0.25, 1.0]
    assert N.sparsity(soft, threshold=0.5).tolist() == [0.5, 1.0]
    truth = torch.tensor([[True, True, False, True], [True, False, False, False]])
    assert N.jaccard(soft, truth).tolist() == [0.5, 0.0]
    torch.testing.assert_close(N.jaccard(soft, truth, threshold=0.5), torch.tensor([2 / 3, 0.0]))
    assert bool(N.jaccard(soft, torch.zeros(2, 4, dtype=torch.bool)).isnan().all())
    assert N.jaccard(soft, torch.ones(2, 4, dtype=torch.bool)).tolist() == [0.75, 0.0]


# --- bad input ------------------------------------------------------------------------------------------------------


def test_questions_that_cannot_be_asked(model: nn.Module, edges: Tensor, maps: Tensor) -> None:
    with pytest.raises(ig.errors.InputError, match="sparsity="):
        N.FidelityPlus(sparsity=1.0)
    with pytest.raises(ig.errors.InputError, match="mode="):
        N.FidelityPlus(mode="phenomena")
    with pytest.raises(ig.errors.InputError, match="by="):
        N.FidelityMinus(by="logit")
    with pytest.raises(ig.errors.TargetError, match="true class"):
        N.fidelity_plus(
            model, edges, maps[0], target=lambda out: out[:, 0], by="accuracy", mode="phenomenon"
        )
    with pytest.raises(ig.errors.TargetError, match="no class outputs"):
        N.unfaithfulness(ig.fields.Linear(torch.ones(10).double()), edges, maps[0])
    single = nn.Sequential(nn.Linear(10, 1)).double()
    with pytest.raises(ig.errors.TargetError, match="class probabilities"):
        N.unfaithfulness(single, edges, maps[0], target=ig.targets.Output())
    with pytest.raises(ig.errors.InputError, match="give labels="):
        N.fidelities(wave(2, 3), wave(2, 3), wave(2, 3), mode="phenomenon")
    with pytest.raises(ig.errors.ShapeError, match="labels were given"):
        N.fidelities(wave(2, 3), wave(2, 3), wave(2, 3), torch.tensor([1]), mode="phenomenon")
    with pytest.raises(ig.errors.ShapeError, match="one shape"):
        N.fidelities(wave(2, 3), wave(1, 3), wave(2, 3))
    with pytest.raises(ig.errors.ShapeError, match="two classes at least"):
        N.unfaithful(wave(2, 1), wave(2, 1))


def test_every_metric_here_goes_by_its_name() -> None:
    for name in (
        "fidelity_plus",
        "fidelity_minus",
        "characterization",
        "unfaithfulness",
        "sparsity",
        "jaccard",
    ):
        made = N.as_metric(name)
        assert made.name == name
        assert N.as_metric(getattr(N, name)) == made


def test_constant_maps_cut_at_random_but_alike(model: nn.Module, edges: Tensor) -> None:
    flat = torch.ones(7, 10).double()
    one, other = N.fidelity_plus(model, edges, [flat, 3 * flat], target=0)
    torch.testing.assert_close(one, other)
    seeds = torch.stack(
        [N.fidelity_plus(model, edges, flat, target=0, seed=seed) for seed in range(5)]
    )
    assert bool((seeds.std(0) > 0).all())
