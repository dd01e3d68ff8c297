"""Curves beyond deletion and insertion: definitions restated slowly, linear models, bad input."""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.core.random import generator
from integrand.metrics.perturbation.removal import Ranking, _descending, scores_without, shares_of

UNIT = ig.Normalisation.unit()


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 64, 4)
    ).double()


@pytest.fixture
def x() -> Tensor:
    return drawn(3, 3, 8, 8, seed=1).mul(0.2).add(0.5).clamp(0, 1)


@pytest.fixture
def maps() -> Tensor:
    return drawn(2, 3, 3, 8, 8, seed=2)


def linear() -> tuple[nn.Module, Tensor, Tensor]:
    """f(x) = w · x, eight positive contributions per example, and the exact map."""
    net = nn.Linear(8, 1, bias=False).double()
    net.weight.data = drawn(1, 8, seed=3).abs() + 0.1
    x = drawn(4, 8, seed=4).abs() + 0.1
    return net, x, net.weight.detach() * x


OUTPUT: dict[str, Any] = {"target": ig.targets.Output(), "score": "output"}


# --- fills ------------------------------------------------------------------------------------------------------------------


def imputed_slowly(image: Tensor, gone: Tensor) -> Tensor:
    """ROAD's equations, dense: a missing pixel is the weighted mean of those of its eight neighbours that exist."""
    channels, height, width = image.shape
    system, right = torch.eye(height * width).double(), image.reshape(channels, -1).T.clone()
    for i in range(height):
        for j in range(width):
            if not gone[i, j]:
                continue
            here, weights = i * width + j, {}
            for di in (-1, 0, 1):
                for dj in (-1, 0, 1):
                    if (di or dj) and 0 <= i + di < height and 0 <= j + dj < width:
                        weights[(i + di) * width + j + dj] = 1 / 12 if di and dj else 1 / 6
            right[here] = 0
            for there, weight in weights.items():
                system[here, there] = -weight / sum(weights.values())
    return torch.linalg.solve(system, right).T.reshape(image.shape)


def test_imputation_solves_the_equations_of_road(x: Tensor) -> None:
    gone = drawn(3, 1, 8, 8, seed=5) > -0.8
    found = ig.baselines.Imputed(noise=0.0).without(x, gone, torch.arange(3))
    for b in range(3):
        torch.testing.assert_close(found[b], imputed_slowly(x[b], gone[b, 0]), rtol=0, atol=1e-12)
    # Channels that lose other pixels are systems of their own.
    own = drawn(3, 3, 8, 8, seed=6) > 0
    found = ig.baselines.Imputed(noise=0.0).without(x, own, torch.arange(3))
    torch.testing.assert_close(found[0, 1], imputed_slowly(x[0], own[0, 1])[1], rtol=0, atol=1e-12)


def test_imputed_pixels_are_noisy_and_others_are_not(x: Tensor) -> None:
    gone = drawn(3, 1, 8, 8, seed=5) > 0
    plain = ig.baselines.Imputed(noise=0.0).without(x, gone, torch.arange(3))
    noisy = ig.baselines.Imputed(noise=0.5).without(x, gone, torch.arange(3))
    kept = ~gone.expand_as(x)
    assert torch.equal(noisy[kept], x[kept])
    added = (noisy - plain)[gone.expand_as(x)]
    assert 0.4 < float(added.std()) < 0.6
    # The same draw for every row, so that a batch is its examples one by one.
    alone = ig.baselines.Imputed(noise=0.5).without(x[1:2], gone[1:2], torch.zeros(1).long())
    torch.testing.assert_close(alone[0], noisy[1])
    assert not torch.allclose(
        ig.baselines.Imputed(0.5, seed=1).without(x, gone, torch.arange(3)), noisy
    )


def test_fills_of_an_input_of_which_nothing_is_left(x: Tensor) -> None:
    everything = torch.ones(3, 1, 1, 1, dtype=torch.bool)
    colour = x.mean((2, 3), keepdim=True).expand_as(x)
    imputed, field = ig.baselines.Imputed(noise=0.0), ig.fields.Function(lambda z: z.sum((1, 2, 3)))
    torch.testing.assert_close(
        imputed.without(x, everything.expand(3, 1, 8, 8), torch.arange(3)), colour
    )
    torch.testing.assert_close(imputed(x, field)[0], colour)
    mean = x.mean((1, 2, 3), keepdim=True).expand_as(x)
    torch.testing.assert_close(
        ig.baselines.MeanLeft().without(x, everything, torch.arange(3)), mean
    )
    torch.testing.assert_close(ig.baselines.MeanLeft()(x, field)[0], mean)


def test_the_mean_of_what_is_left(x: Tensor) -> None:
    gone = drawn(3, 1, 8, 8, seed=5) > 0
    found = ig.baselines.MeanLeft().without(x, gone, torch.arange(3))
    for b in range(3):
        away = gone[b].expand(3, 8, 8)
        assert torch.equal(found[b][~away], x[b][~away])
        torch.testing.assert_close(found[b][away], x[b][~away].mean().expand(int(away.sum())))


def test_fills_refuse_what_they_cannot_fill() -> None:
    with pytest.raises(ig.errors.BaselineError, match="needs images"):
        ig.metrics.deletion(
            nn.Linear(4, 2), torch.randn(2, 4), torch.randn(2, 4), target=0, fill="imputed"
        )
    with pytest.raises(ig.errors.InputError, match="noise="):
        ig.baselines.Imputed(noise=-1.0)


FILLS = {"blur", "mean", "corners", "zero", "noise", "imputed", "mean left", "black"}


@pytest.mark.parametrize("fill", sorted(FILLS))
def test_every_fill_goes_through_the_same_door(
    model: nn.Module, x: Tensor, maps: Tensor, fill: str
) -> None:
    """And a batch is its examples one by one, whatever the fill."""
    asked: dict[str, Any] = {"steps": 8, "fill": fill, "normalisation": UNIT}
    found = ig.metrics.abpc(model, x, list(maps), target=1, **asked)
    assert found.shape == (2, 3)
    assert bool(found.isfinite().all())
    for b in range(3):
        one = ig.metrics.abpc(model, x[b : b + 1], list(maps[:, b : b + 1]), target=1, **asked)
        torch.testing.assert_close(found[:, b : b + 1], one)


# --- the engine -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_hold_the_numbers_themselves(dtype: torch.dtype) -> None:
    """What stays is x to the last bit, what goes is the fill to the last bit: nothing is mixed."""
    x, blank = drawn(2, 3, 5, 5, seed=7).to(dtype) * 1e3, drawn(2, 3, 5, 5, seed=8).to(dtype) / 7
    rows: list[Tensor] = []
    net = nn.Sequential(nn.Flatten(), nn.Linear(75, 2)).to(dtype)
    net.register_forward_pre_hook(lambda module, args: rows.append(args[0].detach().clone()))
    ig.metrics.deletion(net, x, drawn(2, 3, 5, 5, seed=9), target=0, fill=blank, each=1)
    seen = torch.cat(rows)
    own = (seen[:, None] == x).flatten(2) | (seen[:, None] == blank).flatten(2)
    assert bool(own.all(2).any(1).all())


def test_superpixels_of_their_own_end_where_they_end(
    model: nn.Module, x: Tensor, maps: Tensor
) -> None:
    labels = torch.arange(64).reshape(8, 8).expand(3, 8, 8).clone()
    labels[1] //= 8  # eight features
    labels[2] = 0  # one
    gone = torch.tensor([[0, 0, 0], [3, 3, 1], [64, 8, 1]])
    with ig.metrics.Subject.of(model, x, 1) as subject:
        ranking = Ranking.of(maps, subject.x, labels)
        assert ranking.counts.tolist() == [64, 8, 1]
        found = scores_without(subject, ranking, gone, 0.0)
        for b in range(3):
            order = torch.stack(
                [maps[0, b].sum(0)[labels[b] == s].sum() for s in range(int(labels[b].max()) + 1)]
            )
            first = order.argsort(descending=True)[: int(gone[1, b])]
            away = torch.isin(labels[b], first)
            row = torch.where(away, 0.0, x[b])
            torch.testing.assert_close(found[0, b, 1], model(row[None]).softmax(1)[0, 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_quick_sort_is_the_stable_one(dtype: torch.dtype) -> None:
    """With ties among the scores and without, -0 and 0 among them."""
    apart = drawn(2, 3, 200, seed=18).to(dtype)
    tied = (apart * 3).round()
    tied[0, 0, :2] = torch.tensor([0.0, -0.0])
    for scores in (apart, tied, torch.zeros_like(apart)):
        assert torch.equal(_descending(scores), scores.argsort(dim=2, descending=True, stable=True))


def test_shares_are_rounded_down_but_for_rounding() -> None:
    assert shares_of(torch.tensor([10, 3]), (0.3, 0.7, 1.0)).tolist() == [[3, 0], [7, 2], [10, 3]]
    with pytest.raises(ig.errors.InputError, match="between 0 and 1"):
        shares_of(torch.tensor([10]), (30.0,))


def test_accuracy_is_whether_the_class_is_predicted(
    model: nn.Module, x: Tensor, maps: Tensor
) -> None:
    classes = model(x).argmax(1)
    with ig.metrics.Subject.of(model, x, classes) as subject:
        assert subject.whole("accuracy").tolist() == [1, 1, 1]
        torch.testing.assert_close(subject.whole("loss").neg().exp(), subject.whole("probability"))
    with ig.metrics.Subject.of(model, x, (classes + 1) % 4) as subject:
        assert subject.whole("accuracy").tolist() == [0, 0, 0]
    with ig.metrics.Subject.of(model, x, lambda out: out[:, 0]) as subject, pytest.raises(ig.errors.InputError, match="names none"):  # fmt: skip
        subject.whole("accuracy")
    with pytest.raises(ig.errors.TargetError, match="does not exist"):
        ig.targets.Predicted(7)(torch.zeros(2, 3), torch.arange(2))
    with pytest.raises(ig.errors.TargetError, match="two classes"):
        ig.targets.Predicted(0)(torch.zeros(2, 1), torch.arange(2))


# --- MoRF, LeRF, AOPC, ABPC -----------------------------------------------------------------------------------------------


def test_orders_belong_together(model: nn.Module, x: Tensor, maps: Tensor) -> None:
    m = ig.metrics
    asked: dict[str, Any] = {"target": 1, "each": 5, "fill": "mean"}
    most, least = (one(model, x, list(maps), **asked) for one in (m.morf, m.lerf))
    torch.testing.assert_close(most, m.deletion(model, x, list(maps), **asked))
    torch.testing.assert_close(m.abpc(model, x, list(maps), **asked), least - most)
    torch.testing.assert_close(least, m.morf(model, x, list(-maps), **asked))
    torch.testing.assert_close(m.abpc(model, x, list(-maps), **asked), most - least)
    # Least relevant out first is most relevant in first, read backwards, in steps that meet.
    asked["each"] = 4
    torch.testing.assert_close(
        m.lerf(model, x, maps[0], **asked), m.insertion(model, x, maps[0], **asked)
    )


def test_morf_and_lerf_of_a_linear_model() -> None:
    """Exact contributions: the k-th leaves the score at its turn; no order is better on either side."""
    net, x, exact = linear()
    down = exact.sort(1, descending=True).values
    turn = (torch.arange(8).double() + 0.5) / 8
    found = {
        name: getattr(ig.metrics, name)(net, x, exact, steps=8, **OUTPUT)
        for name in ("morf", "lerf", "abpc")
    }
    torch.testing.assert_close(found["morf"], (down * turn).sum(1))
    torch.testing.assert_close(found["lerf"], (down.flip(1) * turn).sum(1))
    torch.testing.assert_close(found["abpc"], ((down.flip(1) - down) * turn).sum(1))
    for seed in range(20):
        other = ig.metrics.abpc(net, x, drawn(4, 8, seed=100 + seed), steps=8, **OUTPUT)
        assert bool((other <= found["abpc"] + 1e-12).all())


def test_a_random_order_scores_nothing() -> None:
    net, x, _ = linear()
    found = ig.metrics.abpc(net, x, list(drawn(200, 4, 8, seed=11)), steps=8, **OUTPUT)
    z = found.mean(0) / (found.std(0) / 200**0.5)
    assert bool((z.abs() < 4).all())


def test_aopc_of_a_linear_model_and_its_published_form() -> None:
    net, x, exact = linear()
    found = ig.metrics.aopc(net, x, exact, most=5, target=ig.targets.Output())
    lost = torch.cat(
        [torch.zeros(4, 1).double(), exact.sort(1, descending=True).values.cumsum(1)], 1
    )
    torch.testing.assert_close(found, lost[:, :6].mean(1))
    # More steps than features: as many as there are.
    torch.testing.assert_close(
        ig.metrics.aopc(net, x, exact, target=ig.targets.Output()), lost.mean(1)
    )


def test_aopc_takes_squares_of_nine_and_fills_them_with_noise() -> None:
    x = torch.full((1, 1, 20, 20), 0.5)
    rows: list[Tensor] = []
    net = nn.Sequential(nn.Flatten(), nn.Linear(400, 2))
    net.register_forward_pre_hook(lambda module, args: rows.append(args[0].detach().clone()))
    ig.metrics.aopc(net, x, torch.rand(1, 1, 20, 20), target=0, normalisation=UNIT)
    changed = (torch.cat(rows) != 0.5).flatten(1).sum(1)
    assert sorted(changed.unique().diff().tolist()) == [
        4,
        *[18] * 4,
        *[81] * 4,
    ]  # nine regions, those at the far edges cut off
    noise = torch.cat(rows)[changed == 400][0]
    assert len(noise.unique()) > 390
    assert 0 <= float(noise.min()) < 0.05 < 0.95 < float(noise.max()) <= 1


# --- DiffID ------------------------------------------------------------------------------------------------------------------


def test_diffid_is_the_published_program(x: Tensor, maps: Tensor) -> None:
    """Restated number by number: ranks by |a|, the first int(n r) elements become the mean of the others, logits relative to f(x)."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, maps = x[:, :1], maps[:, :, :1]
    ratios = (0.1, 0.25, 0.5, 0.9)
    whole = net(x).detach()
    for score in ("output", "accuracy"):
        with ig.metrics.Subject.of(net, x, 2) as subject:
            seen = ig.metrics.Maps.of(list(maps), subject.x, subject.layout)
            found = ig.metrics.DiffID(ratios, score=score).measure(subject, seen)
        for m in range(2):
            for b in range(3):
                for r, share in enumerate(ratios):
                    points = []
                    for descending in (False, True):
                        order = maps[m, b].abs().flatten().argsort(descending=descending)
                        kept = order[int(64 * share) :]
                        row = torch.full(
                            (64,), float(x[b].flatten()[kept].mean()), dtype=torch.float64
                        )
                        row[kept] = x[b].flatten()[kept]
                        out = net(row.reshape(1, 1, 8, 8)).detach()
                        points.append(
                            float(out[0, 2] / whole[b, 2])
                            if score == "output"
                            else float(out.argmax() == 2)
                        )
                    insertion, deletion = points
                    assert float(found[m, b, r]) == pytest.approx(insertion - deletion, abs=1e-9)


def test_diffid_of_a_linear_model() -> None:
    net, x, exact = linear()
    found = ig.metrics.diffid(
        net, x, exact, target=ig.targets.Output(), shares=(0.25, 0.5), fill=0.0
    )
    down = exact.sort(1, descending=True).values
    first = torch.stack([down[:, :k].sum(1) for k in (2, 4)])
    last = torch.stack([down[:, -k:].sum(1) for k in (2, 4)])
    torch.testing.assert_close(found, ((first - last) / exact.sum(1)).mean(0))
    assert bool((found > 0).all())
    torch.testing.assert_close(  # negative evidence counts as much as its size, unless signs are asked for
        ig.metrics.diffid(net, x, -exact, target=ig.targets.Output(), shares=(0.25, 0.5), fill=0.0),
        found,
    )
    signed = ig.metrics.diffid(
        net, x, -exact, target=ig.targets.Output(), shares=(0.25, 0.5), fill=0.0, rank="signed"
    )
    torch.testing.assert_close(signed, -found)


def test_nothing_is_relative_to_zero() -> None:
    """A logit of exactly 0 leaves ratios undefined: NaN, which means and ranks leave out, not 0."""
    net = nn.Linear(4, 2, bias=False).double()
    x = torch.tensor([[0.0, 0, 0, 0], [1, 2, 3, 4]]).double()
    found = ig.metrics.diffid(net, x, drawn(2, 4, seed=1), target=0, fill=0.0)
    assert found.isnan().tolist() == [True, False]
    running = ig.metrics.Running(ig.metrics.DiffID(fill=0.0))
    with ig.metrics.Subject.of(net, x, 0) as subject:
        running.update(subject, ig.metrics.Maps.of(drawn(2, 4, seed=1), subject.x, subject.layout))
    torch.testing.assert_close(running.compute().summary, found[1:])
    share = ig.metrics.deletion(
        net, x, drawn(2, 4, seed=1), target=0, score="output", normalise="whole", fill=1.0
    )
    assert share.isnan().tolist() == [True, False]


# --- ROAD ------------------------------------------------------------------------------------------------------------------


def test_road_removes_what_road_lerf_keeps() -> None:
    net, x, exact = linear()
    down = exact.sort(1, descending=True).values
    asked: dict[str, Any] = {"shares": (0.25, 0.5), "fill": 0.0, **OUTPUT}
    kept = (down[:, :2].sum(1) + down[:, :4].sum(1)) / 2
    torch.testing.assert_close(ig.metrics.road_lerf(net, x, exact, **asked), kept)
    torch.testing.assert_close(ig.metrics.road(net, x, exact, **asked), exact.sum(1) - kept)


def test_road_restated(model: nn.Module, x: Tensor, maps: Tensor) -> None:
    found = ig.metrics.road(
        model, x, maps[0], target=2, shares=(0.25,), fill=ig.baselines.Imputed(noise=0.0)
    )
    for b in range(3):
        gone = torch.zeros(64, dtype=torch.bool)
        gone[maps[0, b].sum(0).flatten().argsort(descending=True)[:16]] = True
        row = imputed_slowly(x[b], gone.reshape(8, 8))
        torch.testing.assert_close(found[b], model(row[None]).softmax(1)[0, 2])


# --- IROF ------------------------------------------------------------------------------------------------------------------


def test_irof_of_a_linear_model() -> None:
    """Segments of unequal size are ranked by their mean; each is missing from its turn on."""
    weight = drawn(1, 1, 4, 4, seed=12).abs()
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 1, bias=False)).double()
    net[1].weight.data = weight.reshape(1, 16)
    x = drawn(2, 1, 4, 4, seed=13).abs()
    labels = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 2, 3], [1, 1, 2, 3]])
    found = ig.metrics.irof(net, x, weight * x, segments=labels, fill=0.0, **OUTPUT)
    for b in range(2):
        parts = [(weight * x)[b, 0][labels == s] for s in range(4)]
        order = sorted(parts, key=lambda part: -float(part.mean()))
        curve = [1.0]
        for part in order:
            curve.append(curve[-1] - float(part.sum() / (weight * x)[b].sum()))
        over = 1 - sum((a + c) / 2 for a, c in pairwise(curve)) / 4
        assert float(found[b]) == pytest.approx(over, abs=1e-12)


def test_irof_segments_pictures_itself(model: nn.Module) -> None:
    pytest.importorskip("skimage")
    image = torch.linspace(0, 1, 64).reshape(1, 1, 8, 8).expand(1, 3, 8, 8).double()
    even = torch.full((1, 3, 8, 8), 0.5).double()
    x = torch.cat([image, even])
    whole = ig.metrics.irof(
        model, x, drawn(2, 3, 8, 8, seed=1), target=0, segments=9, normalisation=UNIT
    )
    alone = ig.metrics.irof(
        model, x[:1], drawn(2, 3, 8, 8, seed=1)[:1], target=0, segments=9, normalisation=UNIT
    )
    torch.testing.assert_close(whole[:1], alone)
    assert bool(whole.isfinite().all())
    one = ig.metrics.irof(
        model, x, drawn(2, 3, 8, 8, seed=1), target=0, segments=torch.zeros(8, 8).long()
    )
    assert bool(one.isnan().all())  # a single segment has no order
    tiny = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    assert bool(
        ig.metrics.irof(tiny, torch.rand(2, 3, 1, 1), torch.rand(2, 3, 1, 1), target=0)
        .isnan()
        .all()
    )


# --- tokens -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def text() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(2)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12 * 5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    return net, drawn(3, 12, 5, seed=14), drawn(3, 12, 5, seed=15)


def test_tokens_taken_and_kept(text: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, values = text
    blank = drawn(5, seed=16)
    percent = (5.0, 20.0, 50.0)  # of twelve: one (none, rounded down), two, six
    asked: dict[str, Any] = {"target": 1, "percent": percent, "fill": blank}
    found = {
        name: getattr(ig.metrics, name)(net, x, values, **asked)
        for name in ("comprehensiveness", "sufficiency", "log_odds")
    }
    for b in range(3):
        order = values[b].sum(1).argsort(descending=True)
        p = float(net(x[b : b + 1]).detach().softmax(1)[0, 1])
        gone, kept, odds = [], [], []
        for count in (1, 2, 6):
            without, only = x[b].clone(), blank.expand(12, 5).clone()
            without[order[:count]] = blank
            only[order[:count]] = x[b][order[:count]]
            q, r = (float(net(row[None]).detach().softmax(1)[0, 1]) for row in (without, only))
            gone.append(p - q)
            kept.append(p - r)
            odds.append(torch.tensor(q).log().item() - torch.tensor(p).log().item())
        assert float(found["comprehensiveness"][b]) == pytest.approx(sum(gone) / 3, abs=1e-9)
        assert float(found["sufficiency"][b]) == pytest.approx(sum(kept) / 3, abs=1e-9)
        assert float(found["log_odds"][b]) == pytest.approx(sum(odds) / 3, abs=1e-6)


def test_tokens_noised_by_their_importance(text: tuple[nn.Module, Tensor, Tensor]) -> None:
    """By loops, with chances found by bisection."""
    net, x, values = text
    blank = drawn(5, seed=16)
    noise = torch.rand(4, 12, 5, generator=generator(3), dtype=torch.float64)
    asked: dict[str, Any] = {"target": 1, "fill": blank, "draws": 4, "seed": 3, "retained": 0.7}
    soft = ig.metrics.soft_comprehensiveness(net, x, values, **asked)
    kept = ig.metrics.soft_sufficiency(net, x, values, **asked)
    for b in range(3):
        importance = (values[b].sum(1) - values[b].sum(1).min()).tolist()
        p = float(net(x[b : b + 1]).detach().softmax(1)[0, 1])
        for found, mass, inverse in ((soft, 0.3 * 12, True), (kept, 0.7 * 12, False)):
            low, high = 0.0, 1e6
            for _ in range(200):
                c = (low + high) / 2
                reached = sum(min(1.0, c * a) for a in importance)
                low, high = (c, high) if reached < mass else (low, c)
            q = [min(1.0, low * a) for a in importance]
            assert sum(q) == pytest.approx(mass)
            lost = []
            for draw in noise:
                row = x[b].clone()
                for token in range(12):
                    for d in range(5):
                        if float(draw[token, d]) >= (1 - q[token] if inverse else q[token]):
                            row[token, d] = blank[d]
                lost.append(p - float(net(row[None]).detach().softmax(1)[0, 1]))
            assert float(found[b]) == pytest.approx(sum(lost) / 4, abs=1e-9)


def test_every_map_retains_as_much() -> None:
    """Ties, zeros, one large score, and tokens that an example does not have."""
    from integrand.metrics.perturbation.soft_tokens import chances

    off = -torch.inf
    scores = torch.tensor([
        [[1.0, 2.0, 3.0, 4.0], [5.0, 1.0, 0.0, off]],
        [[7.0, 7.0, 7.0, 7.0], [0.0, 0.0, 0.0, off]],
        [[0.0, 0.0, 0.0, 1e9], [-1.0, 0.0, 9e-9, off]],
    ])  # fmt: skip
    for share in (0.1, 0.5, 0.75, 0.99):
        mass = share * torch.tensor([4.0, 3.0])
        q = chances(scores, mass)
        torch.testing.assert_close(q.sum(-1), mass.double().expand(3, 2))
        assert bool(((q >= 0) & (q <= 1)).all())
        assert bool((q[:, 1, 3] == 0).all())
    torch.testing.assert_close(chances(scores, torch.tensor([3.0, 2.0]))[1, 0], torch.full((4,), 0.75).double())  # fmt: skip
    torch.testing.assert_close(chances(scores, torch.tensor([2.5, 2.0]))[2, 0], torch.tensor([0.5, 0.5, 0.5, 1.0]).double())  # fmt: skip
    for options in ({"retained": 0.0}, {"retained": 1.0}, {"draws": 0}):
        with pytest.raises(ig.errors.InputError):
            ig.metrics.SoftSufficiency(**options)


def test_tokens_of_a_linear_model() -> None:
    """For log p = w · x + const no order loses more by its first tokens, or less by its last, than that of the contributions."""
    _, x, exact = linear()
    weight = linear()[0].weight.detach()
    net = nn.Linear(8, 2, bias=False).double()
    net.weight.data = torch.cat([weight, -weight])
    others = list(drawn(20, 4, 8, seed=17))
    for name, better in (("comprehensiveness", 1), ("sufficiency", -1), ("log_odds", -1)):
        found = better * getattr(ig.metrics, name)(
            net, x, [exact, *others], target=0, percent=(25.0, 50.0)
        )
        assert bool((found[:1] >= found[1:] - 1e-12).all())
    # Two tokens of four gone: log-odds of the binary model are known in closed form.
    found = ig.metrics.log_odds(net, x, exact, target=0, percent=(25.0,))
    gone = exact.sort(1, descending=True).values[:, :2].sum(1)
    log_p = nn.functional.logsigmoid
    torch.testing.assert_close(found, log_p(2 * (exact.sum(1) - gone)) - log_p(2 * exact.sum(1)))


def test_log_odds_survive_what_probabilities_do_not() -> None:
    """A class of probability 0 in single precision still has a logarithm."""
    net = nn.Linear(2, 2, bias=False)
    net.weight.data = torch.tensor([[-200.0, -300.0], [200.0, 300.0]])
    found = ig.metrics.log_odds(
        net, torch.ones(1, 2), torch.tensor([[1.0, 2.0]]), target=0, percent=(50.0,)
    )
    torch.testing.assert_close(found, torch.tensor([600.0]))


@pytest.mark.parametrize("percent", [(), (0.0,), (120.0,)])
def test_percents_that_are_none(
    text: tuple[nn.Module, Tensor, Tensor], percent: tuple[float, ...]
) -> None:
    with pytest.raises(ig.errors.InputError, match="percent="):
        ig.metrics.comprehensiveness(*text, target=1, percent=percent)


# --- prediction gaps -----------------------------------------------------------------------------------------------------------


def test_gaps_of_a_linear_model() -> None:
    net, x, exact = linear()
    noise = ig.baselines.Gaussian(0.3, mean="input", count=7, seed=2)
    moved = (noise(x, None) - x) * net.weight.detach()
    first = torch.zeros_like(exact).scatter(1, exact.argsort(1, descending=True)[:, :2], 1.0)
    asked: dict[str, Any] = {"share": 0.25, "fill": noise, **OUTPUT}
    torch.testing.assert_close(
        ig.metrics.pgi(net, x, exact, **asked), (moved * first).sum(2).abs().mean(0)
    )
    torch.testing.assert_close(
        ig.metrics.pgu(net, x, exact, **asked), (moved * (1 - first)).sum(2).abs().mean(0)
    )
    with pytest.raises(ig.errors.InputError, match="share="):
        ig.metrics.PGI(share=0.0)


# --- information ------------------------------------------------------------------------------------------------------------


class Edges(nn.Module):
    """Class 0 for pictures with edges."""

    def forward(self, z: Tensor) -> Tensor:
        edges = z.diff(dim=3).abs().flatten(1).mean(1) * 60 - 2.5
        return torch.stack([edges, torch.zeros_like(edges)], 1)


@pytest.fixture
def pictures() -> Tensor:
    random = torch.Generator().manual_seed(3)
    smooth = nn.functional.interpolate(
        torch.rand(3, 3, 3, 4, generator=random), (24, 32), mode="bilinear"
    )
    return (0.8 * smooth + 0.2 * torch.rand(3, 3, 24, 32, generator=random)).clamp(0, 1)


def test_information_curves_know_ranks_only(pictures: Tensor) -> None:
    pytest.importorskip("scipy")
    places = torch.randn(3, 24, 32, generator=torch.Generator().manual_seed(4))
    asked: dict[str, Any] = {"target": 0, "normalisation": UNIT, "least": 0.5}
    found = ig.metrics.sic(Edges(), pictures, [places, places.exp(), -places], **asked)
    assert bool(((found > 0) & (found < 1)).all())
    torch.testing.assert_close(found[0], found[1])
    assert not torch.allclose(found[0], found[2])
    alone = torch.cat(
        [ig.metrics.sic(Edges(), pictures[b : b + 1], places[b : b + 1], **asked) for b in range(3)]
    )
    torch.testing.assert_close(found[0], alone)
    assert not torch.allclose(ig.metrics.sic(Edges(), pictures, places, seed=1, **asked), found[0])


def test_images_without_a_curve_are_left_out_and_counted(pictures: Tensor) -> None:
    """Too unsure, a class never predicted, nothing to hide: NaN, and not among those of the median."""
    pytest.importorskip("scipy")
    net = Edges()
    x = torch.cat([pictures[:1], torch.full_like(pictures[:1], 0.4), pictures[1:]])
    places = torch.randn(4, 24, 32, generator=torch.Generator().manual_seed(4))
    by = ig.metrics.SIC(least=0.5, thresholds=(0.05, 0.2, 0.5))
    with ig.metrics.Subject.of(net, x, 0, normalisation=UNIT) as subject:
        seen = ig.metrics.Maps.of(places, subject.x, subject.layout)
        measured = by.measure(subject, seen)
        assert by.values(measured).isnan().tolist() == [[False, True, False, False]]
        left = measured[0, [0, 2, 3]]
        torch.testing.assert_close(
            by.summary(measured), ig.metrics.area(left.median(0).values)[None]
        )
        middle = (left[0] + left[1]) / 2  # of an even number of curves between the two
        torch.testing.assert_close(by.summary(measured[:, :3]), ig.metrics.area(middle)[None])
        mean = ig.metrics.SIC(aggregate="mean").summary(measured)
        torch.testing.assert_close(mean, by.values(measured)[0, [0, 2, 3]].mean()[None])
    asked: dict[str, Any] = {"normalisation": UNIT, "thresholds": (0.05, 0.5)}
    for measure in (ig.metrics.sic, ig.metrics.aic):
        never = measure(net, pictures, places[1:], target=1, **asked)
        assert bool(never.isnan().all())
    assert bool(ig.metrics.AIC().summary(torch.full((2, 3, 1001), torch.nan)).isnan().all())
    tiny = ig.metrics.sic(Edges(), torch.rand(1, 3, 2, 2), torch.rand(1, 2, 2), target=0, **asked)
    assert bool(tiny.isnan().all())  # all four pixels are corners


def test_pictures_that_are_none(pictures: Tensor) -> None:
    net, places = Edges(), torch.rand(3, 24, 32)
    with pytest.raises(ig.errors.InputError, match="pass normalisation="):
        ig.metrics.sic(net, pictures, places, target=0)
    with pytest.raises(ig.errors.ShapeError, match="1 or 3 channels"):
        ig.metrics.sic(net, pictures[:, :2], places, target=0, normalisation=UNIT)
    with pytest.raises(ig.errors.ShapeError, match="2 x 2 pixels"):
        ig.metrics.sic(net, pictures[:, :, :1], places[:, :1], target=0, normalisation=UNIT)
    with pytest.raises(ig.errors.ShapeError, match="mask="):
        ig.metrics.sic(
            net, pictures, places, target=0, normalisation=UNIT, mask=torch.zeros(4, 4), least=0.0
        )
    with pytest.raises(ig.errors.InputError, match="aggregate="):
        ig.metrics.SIC(aggregate="max")
    with pytest.raises(ig.errors.InputError, match="rise"):
        ig.metrics.SIC(thresholds=(0.5, 0.1))


# --- all of them --------------------------------------------------------------------------------------------------------------

CURVES: dict[str, dict[str, Any]] = {
    "deletion": {}, "insertion": {}, "morf": {}, "lerf": {}, "abpc": {}, "aopc": {"features": 2}, "diffid": {}, "road": {"fill": "mean"},
    "road_lerf": {"fill": "mean"}, "irof": {"segments": torch.arange(64).reshape(8, 8) // 6}, "sic": {"least": 0.0}, "aic": {},
    "comprehensiveness": {}, "sufficiency": {}, "log_odds": {}, "pgi": {}, "pgu": {},
    "soft_comprehensiveness": {"draws": 3}, "soft_sufficiency": {"draws": 3, "retained": 0.3},
}  # fmt: skip


@pytest.mark.parametrize("name", list(CURVES))
def test_every_curve_is_a_metric(model: nn.Module, x: Tensor, maps: Tensor, name: str) -> None:
    """By its name, for several maps, in shards, for a map that is the same everywhere, and not for NaN."""
    by = ig.metrics.known()[name](**CURVES[name])
    assert by.name == name
    assert isinstance(by.higher, bool)
    assert "higher is better" in (by.__doc__ or "").lower() or "lower is better" in (by.__doc__ or "").lower() or "As ``" in (by.__doc__ or "")[:90] or "as ``SIC``" in (by.__doc__ or "")  # fmt: skip
    classes = model(x).argmax(1)
    asked: dict[str, Any] = {"target": classes, "normalisation": UNIT}
    given = [*maps, torch.zeros(3, 3, 8, 8).double()]
    found = ig.metrics.judge(model, x, given, by, **asked)
    assert found.shape == (3, 3)
    if name not in ("sic", "aic"):
        assert bool(found.isfinite().all())
    assert torch.equal(found.isnan()[0], found.isnan()[2])  # who is left out is not up to the map
    alone = [ig.metrics.judge(model, x[b : b + 1], [one[b : b + 1] for one in given], by, target=classes[b], normalisation=UNIT) for b in range(3)]  # fmt: skip
    torch.testing.assert_close(found, torch.cat(alone, 1), equal_nan=True)
    if name not in (
        "pgi",
        "pgu",
        "diffid",
        "irof",
        "aopc",
        "soft_comprehensiveness",
        "soft_sufficiency",
    ):  # absolute values, means, sums of patches and what is in proportion are no ranks of places
        monotone = ig.metrics.judge(model, x, [maps[0].sum(1), maps[0].sum(1).exp()], by, **asked)
        torch.testing.assert_close(monotone[0], monotone[1], equal_nan=True)
    with pytest.raises(ig.errors.NonFiniteInput, match="holds NaN"):
        ig.metrics.judge(model, x, torch.full_like(x, torch.nan), by, **asked)


@pytest.mark.parametrize(("name", "module", "extra"), [("road", "scipy", "scipy"), ("irof", "skimage.segmentation", "scikit-image"), ("sic", "scipy.interpolate", "scipy"), ("sic", "PIL.Image", "pillow")])  # fmt: skip
def test_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    if name == "road":
        monkeypatch.setitem(sys.modules, "scipy.sparse.linalg", None)
    x = torch.rand(1, 3, 12, 12)
    net = nn.Sequential(nn.Flatten(), nn.Linear(432, 2))
    with pytest.raises(ig.errors.MissingExtra, match=rf"'{extra}'.*integrand\[curves\]"):
        getattr(ig.metrics, name)(net, x, torch.rand(1, 3, 12, 12), target=0, normalisation=UNIT)


def test_both_orders_share_their_ends(model: nn.Module, x: Tensor, maps: Tensor) -> None:
    rows: list[int] = []
    model.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    ig.metrics.abpc(model, x, list(maps), target=1, steps=16)
    assert sum(rows) == 2 * 2 * 3 * 15 + 3 + 3
    rows.clear()
    ig.metrics.diffid(model, x, list(maps), target=1, shares=(0.1, 0.5))
    assert sum(rows) == 2 * 2 * 3 * 2 + 3
