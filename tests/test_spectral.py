"""Smooth lines at tight tolerances: Clenshaw–Curtis nodes where they are fewer than chords, and no harm where they are not."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.core.segment import polyline
from integrand.fields import CountedField
from integrand.rules.adaptive.clenshaw_curtis import spectral
from integrand.rules.adaptive.intervals import Floats, Lines
from integrand.rules.base import Integrated
from tests.problems import Counting, filled, wave
from tests.test_adaptive import gelu_mlp, grown, met, norm, relu_mlp

B = 8
SMOOTH = ("gelu mlp", "tanh mlp")
TIGHT = (1e-4, 1e-5, 1e-6, 1e-8)


def tanh_mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(8, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 3)
    )


@cache
def case(name: str) -> tuple[ig.TorchField, ig.Segment, Tensor]:
    """A field, eight lines from zero, and their shares by brute force."""
    make = {"gelu mlp": gelu_mlp, "tanh mlp": tanh_mlp, "relu mlp": relu_mlp}[name]
    field = ig.TorchField(grown(make, 5), torch.arange(B) % 3)
    x = wave(B, 8, phase=0.3)
    segment = polyline(torch.stack([torch.zeros_like(x), x])[:, None])
    ig.rules.Chords(1)(
        field, segment
    )  # whether chords add up is found out before costs are compared
    fine = ig.rules.Midpoint(8000) if name == "relu mlp" else ig.rules.GaussLegendre(200)
    return field, segment, fine(field, segment)


def spent(
    field: ig.fields.Field, segment: ig.Segment, tol: float, most: int = 1000
) -> tuple[Integrated, int]:
    meter = CountedField(field)
    found = ig.rules.Adaptive(tol, most)(meter, segment)
    return found, meter.tally.gradients


@pytest.fixture
def chords_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is so smooth that other nodes are tried."""
    monkeypatch.setattr("integrand.rules.adaptive.refinement._ALIKE", -1.0)
    monkeypatch.setattr("integrand.rules.adaptive.refinement._ALIKE_SMOOTH", -1.0)


@pytest.mark.parametrize("tol", TIGHT)
@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_lines_are_as_exact_as_they_say(name: str, tol: float) -> None:
    field, segment, truth = case(name)
    found, cost = spent(field, segment, tol)
    real = norm(found.share - truth)
    assert bool((real <= found.error + 1e-13).all())
    assert bool((real <= tol * norm(truth)).all())
    assert bool((found.error <= tol * norm(found.share)).all())
    assert cost <= 90 * B  # chords alone take a thousand each for the last of these


@pytest.mark.parametrize(
    ("name", "tol", "gain"), [("gelu mlp", 1e-4, 1.5), ("tanh mlp", 1e-6, 4.0)]
)
def test_they_take_fewer_gradients_than_chords(
    name: str, tol: float, gain: float, request: pytest.FixtureRequest
) -> None:
    field, segment, _ = case(name)
    _, cost = spent(field, segment, tol)
    request.getfixturevalue("chords_only")
    _, chords = spent(field, segment, tol)
    assert chords > gain * cost


class Attending(nn.Module):
    """A block of attention between normalisations, as in every transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.LayerNorm(8), nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.up, self.down = nn.Linear(8, 32), nn.Linear(32, 8)

    def forward(self, z: Tensor) -> Tensor:
        h = self.one(z)
        z = z + self.attention(h, h, h, need_weights=False)[0]
        return (z + self.down(nn.functional.gelu(self.up(self.two(z))))).mean(1)


def test_transformers_that_turn_on_their_way_take_fewer(request: pytest.FixtureRequest) -> None:
    """Their chords differ a lot from interval to interval; that there are no kinks is known from the operations."""
    field = ig.TorchField(grown(Attending, 3), 1)
    segment = polyline(
        torch.stack([3 * wave(4, 5, 8, phase=2.0), 3 * wave(4, 5, 8, phase=0.3)])[:, None]
    )
    truth = ig.rules.GaussLegendre(200)(field, segment)
    found, cost = spent(field, segment, 0.01)
    assert bool((norm(found.share - truth) <= found.error).all())
    assert bool((found.error <= 0.01 * norm(found.share)).all())
    request.getfixturevalue("chords_only")
    _, chords = spent(field, segment, 0.01)
    assert chords > 1.4 * cost


@pytest.mark.parametrize(
    ("model", "smooth"),
    [
        (nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.LayerNorm(5), nn.Softmax(1)), True),
        (nn.Sequential(nn.Linear(4, 5), nn.SiLU(), nn.Linear(5, 2), nn.Softplus()), True),
        (
            lambda z: nn.functional.normalize(z, dim=1) + z.clamp_min(1e-6),
            True,
        ),  # guards, not bends
        (lambda z: z * torch.ones(4).abs(), True),  # what bends does not move
        (nn.Sequential(nn.Linear(4, 5), nn.ReLU(inplace=True)), False),
        (nn.Sequential(nn.Linear(4, 5), nn.Hardswish()), False),
        (lambda z: nn.functional.max_pool1d(z[:, None], 2)[:, 0], False),
        (lambda z: torch.relu_(z * 2), False),
        (lambda z: z.abs(), False),
        (lambda z: z.topk(2).values, False),
        (lambda z: torch.maximum(z, 1 - z), False),
    ],
)
def test_what_is_known_to_be_smooth(model: nn.Module, smooth: bool) -> None:
    field = ig.TorchField(model, 0)
    assert not field.smooth  # not known yet
    ig.Method(rule=ig.rules.Adaptive(0.5))(field, torch.rand(2, 4) + 0.1)
    assert field.smooth is smooth
    assert CountedField(field).smooth is smooth
    assert not field.with_target(1).smooth


def test_loose_tolerances_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a few chords settle never asks for 17 gradients and more."""

    def refuse(*_: object) -> None:
        raise AssertionError("tried Clenshaw–Curtis nodes")

    monkeypatch.setattr("integrand.rules.adaptive.refinement.spectral", refuse)
    field, segment, _ = case("tanh mlp")
    assert spent(field, segment, 0.05)[1] < 17 * B
    with pytest.raises(AssertionError, match="tried"):
        spent(field, segment, 1e-6)


@pytest.mark.parametrize("most", [10, 20, 30, 45, 80])
def test_max_gradients_holds(most: int) -> None:
    """Counted where they reach the model, for one line alone."""
    field, segment, truth = case("gelu mlp")
    counted = Counting(field.network.model)
    one = polyline(torch.stack([segment.start[0, :, :1], segment.end[0, :, :1]]))
    found = ig.rules.Adaptive(1e-10, most)(ig.TorchField(counted, 0), one)
    assert counted.gradients <= most
    real = norm(found.share - truth[:, :, :1])
    assert float(real) <= float(found.error) + 1e-13
    assert bool(found.error <= 1e-10 * norm(found.share)) is (most >= 38)


@pytest.mark.parametrize("tol", [0.01, 0.002])
def test_kinked_lines_do_not_end_worse_for_trying(
    tol: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made to try: what is not better is not taken, and the tolerance is met all the same."""
    field, segment, truth = case("relu mlp")
    _, cost = spent(field, segment, tol)
    monkeypatch.setattr("integrand.rules.adaptive.refinement._ALIKE", float("inf"))
    monkeypatch.setattr("integrand.rules.adaptive.refinement._SMOOTH_COST", 6)
    made, dearer = spent(field, segment, tol, 2000)
    real = norm(made.share - truth) / norm(truth)
    assert met(made, tol)
    assert dearer != cost  # it did try
    assert bool((real <= 1.5 * tol).all())
    assert float((real <= tol).double().mean()) >= 0.8
    assert dearer <= cost + 33 * B


def test_a_kinked_network_that_looks_smooth() -> None:
    """One kink far from the first nodes' neighbourhood: whatever was tried, the error is the stated one."""
    field = ig.fields.Function(lambda z: z[:, 0] + z[:, 1] + 0.02 * torch.relu(z[:, 0] - 0.83))
    segment = polyline(torch.tensor([[0.0, 0.0], [1.0, 2.0]], dtype=torch.float64)[:, None, None])
    truth = torch.tensor([1 + 0.02 * 0.17, 2.0], dtype=torch.float64)
    for tol in (1e-2, 1e-3, 1e-4):
        found = ig.rules.Adaptive(tol)(field, segment)
        real = float((found.share[0, 0, 0] - truth).norm())
        assert real <= tol * float(truth.norm())


# --- the nodes themselves ---------------------------------------------------------------------------------------------


def lines(field: ig.fields.Field, count: int) -> Lines:
    start, end = (
        torch.zeros(count, 2).double(),
        torch.stack([torch.ones(count), 1 + torch.arange(count)], 1).double(),
    )
    number = np.arange(count)
    return Lines(field, start, end, torch.arange(count), number, number)


def many(number: float, count: int) -> Floats:
    return np.full(count, number, dtype=np.float64)


def test_levels_use_the_nodes_before_them() -> None:
    """9 gradients, then 17, then 33; and the rule of that many nodes."""
    model = Counting(lambda z: torch.sin(8 * z[:, :1] + 3 * z[:, 1:]))
    field = ig.TorchField(model, 0)
    for enough, level in ((1e9, 8), (1e-12, 32)):
        model.reset()
        made, nodes = spectral(lines(field, 1), many(enough, 1), many(1000, 1))
        assert nodes.tolist() == [level + 1]
        assert model.gradients == level + 1
        plain = ig.rules.ClenshawCurtis(level)(
            field, polyline(torch.tensor([[0.0, 0.0], [1.0, 1.0]]).double()[:, None, None])
        )
        torch.testing.assert_close(made.slope[0], plain[0, 0, 0], rtol=0, atol=1e-14)


def test_lines_go_on_by_themselves() -> None:
    """A batch costs what its lines cost alone; the error is read off the last two doublings; F at the ends is right."""
    field = ig.fields.Function(lambda z: torch.sin(z[:, 0]) + torch.sin(2.2 * z[:, 1]))
    enough, room = many(1e-9, 4), many(1000, 4)
    made, nodes = spectral(lines(field, 4), enough, room)
    assert len(set(nodes.tolist())) > 1
    for i in range(4):
        one = lines(field, 4).subset(np.array([i]))
        own, count = spectral(one, enough[:1], room[:1])
        assert count.tolist() == [nodes[i]]
        torch.testing.assert_close(own.slope[0], made.slope[i], rtol=0, atol=1e-14)
        level = int(nodes[i]) - 1
        both = polyline(torch.stack([one.start, one.end])[:, None])
        fine, half, quarter = (
            ig.rules.ClenshawCurtis(n)(field, both) for n in (level, level // 2, level // 4)
        )
        changed, before = float((fine - half).norm()), float((half - quarter).norm())
        missed = float(abs(fine.sum() - field.value(one.end) + field.value(one.start)))
        stated = max(changed * min(1, 2 * max(0.05, changed / before)), missed)
        assert float(made.known[i]) == pytest.approx(stated, rel=1e-6, abs=1e-14)
        assert float(made.value[i]) == pytest.approx(float(field.value(one.end)), abs=1e-14)
        assert float(made.change[i]) == pytest.approx(
            float(field.value(one.end) - field.value(one.start)), abs=1e-14
        )


def test_room_is_not_overdrawn() -> None:
    field = ig.fields.Function(lambda z: torch.sin(9 * z[:, 0]) * torch.sin(5 * z[:, 1]))
    for room, most in ((9, 9), (16, 9), (17, 17), (32, 17), (33, 33), (500, 33)):
        _, nodes = spectral(lines(field, 1), many(1e-15, 1), many(room, 1))
        assert nodes.item() <= min(room, most)


def test_what_does_not_settle_is_left_early() -> None:
    """A line whose doublings gain nothing is not doubled once more."""
    field = ig.fields.Function(lambda z: torch.tanh(60 * (z[:, 0] - 0.37)))
    made, nodes = spectral(lines(field, 1), many(1e-6, 1), many(1000, 1))
    assert nodes.tolist() == [9]
    assert made.known.item() > 0.01


def test_smooth_paths_of_several_pieces_are_left_to_chords() -> None:
    """Pieces of one path are judged together, so they meet the tolerance without other nodes."""
    model = filled(nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 3)), phase=0.4)
    field, x = ig.TorchField(model, 0), wave(3, 6)
    made = ig.Method(path=ig.paths.Straight(3), rule=ig.rules.Adaptive(1e-4))(field, x)
    truth = ig.Method(rule=ig.rules.GaussLegendre(60))(field, x)
    assert bool(made.converged.all())
    assert (
        float(((made.values - truth.values).norm(dim=1) / truth.values.norm(dim=1)).max()) <= 1e-4
    )
