"""Latent paths: against the official numbers, the papers' loops restated, geometry with known geodesics, and every kind of codec."""

from __future__ import annotations

import gc
import itertools
import json
import math
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import integrand as ig
from integrand import testing
from integrand.integration import gradients_per_row
from integrand.paths.latent.greedy_step import guided, mixed
from tests.catalogue.latent import Codec
from tests.problems import T6_INPUT, Counting, img, img_input, t6, tanh_mlp, wave
from tests.test_model_restored import assert_same, state

PATHS = json.loads((Path(__file__).parent / "references" / "paths.json").read_text())

X = wave(3, 6, phase=0.3)  # B = 3
STARTS = wave(2, 3, 6, phase=2)  # R = 2
F = ig.fields.Function(t6)
SMALL = Codec(6)
IDENTITY = (lambda x: x, lambda z: z)


def corners(
    path: Any, field: Any = F, start: Tensor = STARTS, end: Tensor = X
) -> tuple[Tensor, Tensor]:
    return ig.paths.corners(path, field, start, end)


def toy() -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """The autoencoder of the reference values: z = Ez x + .1, x = sigmoid(Dz z)."""
    h, k = torch.arange(12).double()[:, None], torch.arange(48).double()
    down = 0.3 * torch.sin(0.41 * k * (h + 2) + 0.3 * h)
    up = (0.6 * torch.cos(0.23 * k * (h + 1) + 0.2 * h)).T
    return lambda x: x.flatten(1) @ down.T + 0.1, lambda z: torch.sigmoid(z @ up.T).unflatten(
        1, (3, 4, 4)
    )


# --- official numbers -------------------------------------------------------------------------------------------------


def ma_gig(slerp: bool, ends: int, rule: Any) -> ig.Attribution:
    method = ig.methods.latent_guided(toy(), 0.0, 60, 0.2, slerp=slerp, ends=ends, rule=rule)
    return ig.explain(img, img_input(), target=ig.targets.Probability(0), method=method)


@pytest.mark.parametrize("slerp", [False, True])
def test_the_published_sum_is_the_official_one(slerp: bool, quiet: None) -> None:
    official = torch.tensor(PATHS[f"MA-GIG slerp={slerp}"]["official"], dtype=torch.float64)
    made = ma_gig(slerp, 1, ig.rules.Left())
    torch.testing.assert_close(made.values.flatten(), official, rtol=0, atol=1e-8)


def test_legs_in_one_piece_are_what_the_published_sum_misses(quiet: None) -> None:
    """Σ .4141 where F changes by .2861; with 20 pieces and two gradients each the map is complete."""
    published = ma_gig(False, 1, ig.rules.Left())
    assert float(published.values.sum()) == pytest.approx(0.41413574, abs=1e-8)
    assert float(published.change) == pytest.approx(PATHS["IMG_dF_prob"], abs=1e-12)
    assert float(published.gap) > 0.4
    for ends, rule, total in [
        (1, "Midpoint", 0.3122),
        (5, "Left", 0.3239),
        (5, "Midpoint", 0.2869),
        (20, "Left", 0.2998),
    ]:
        assert float(ma_gig(False, ends, getattr(ig.rules, rule)()).values.sum()) == pytest.approx(
            total, abs=5e-5
        )
    assert float(ma_gig(False, 20, ig.rules.Midpoint()).values.sum()) == pytest.approx(
        0.28614, abs=5e-6
    )
    for slerp in (False, True):
        assert float(ma_gig(slerp, 20, ig.rules.Trapezoid()).gap) < 1e-3


def unbounded(x: Tensor, b: Tensor, steps: int, fraction: float) -> tuple[list[Tensor], Tensor]:
    """Guided IG without a band, on T6, as its paper's code goes: the points p_0 … p_K and the attribution."""
    z, whole = b.clone(), float((x - b).abs().sum())
    points, values = [z.clone()], torch.zeros_like(x)
    for k in range(1, steps + 1):
        leaf = z[None].clone().requires_grad_()
        (slope,) = torch.autograd.grad(t6(leaf).sum(), leaf)
        rank, target = slope[0].abs(), whole * (1 - k / steps)
        while True:
            left = float((z - x).abs().sum())
            if math.isclose(left, target, rel_tol=1e-9, abs_tol=1e-9):
                break
            rank[z == x] = torch.inf
            threshold = rank.sort().values[math.floor(fraction * (len(x) - 1))]
            chosen = (rank <= threshold) & (rank < torch.inf)
            room = float((z - x).abs()[chosen].sum())
            part = (left - target) / room if room else math.inf
            old = z.clone()
            z[chosen] = x[chosen] if part > 1 else z[chosen] + part * (x - z)[chosen]
            values += (z - old) * slope[0]
            if part <= 1:
                break
        points.append(z.clone())
    return points, values


def test_the_restated_guided_ig_is_the_official_one() -> None:
    values = unbounded(T6_INPUT[0], torch.zeros(6).double(), 50, 0.25)[1]
    torch.testing.assert_close(
        values,
        torch.tensor(_official("GIG (50, 0.25, 1.0)"), dtype=torch.float64),
        rtol=0,
        atol=1e-8,
    )


def _official(key: str) -> Any:
    found = PATHS[key]
    return found["official"] if isinstance(found, dict) else found


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("steps", [3, 4, 9, 50])
def test_with_an_identity_codec_it_is_guided_ig_but_for_the_last_two_points(
    steps: int, fraction: float
) -> None:
    path = ig.paths.LatentGuided(IDENTITY, steps, fraction, slerp=False, ends=1)
    _, found = corners(path)
    assert len(found) == steps
    for r in range(2):
        for b in range(3):
            points, _ = unbounded(X[b], STARTS[r, b], steps, fraction)
            torch.testing.assert_close(
                found[:-1, r, b], torch.stack(points[:-2]), rtol=0, atol=1e-12
            )
            assert torch.equal(found[-1, r, b], X[b])


@pytest.mark.parametrize(("steps", "gap"), [(50, 2.5e-3), (400, 5e-5)])
def test_its_map_comes_near_that_of_guided_ig(steps: int, gap: float, quiet: None) -> None:
    """Only the last steps differ."""
    method = ig.methods.latent_guided(
        IDENTITY, 0.0, steps, 0.25, slerp=False, ends=1, rule=ig.rules.Left()
    )
    expected = unbounded(T6_INPUT[0], torch.zeros(6).double(), steps, 0.25)[1]
    found = float((method(F, T6_INPUT).values[0] - expected).abs().max())
    assert 0 < found < gap


# --- the loop of the paper, restated ------------------------------------------------------------------------------------


def slerped(a: Tensor, c: Tensor, t: float) -> Tensor:
    size = float(a.norm() * c.norm())
    cosine = float(a @ c) / size if size else 1.0
    if float(a.norm()) < 1e-9 or float(c.norm()) < 1e-9 or abs(cosine) > 0.9995:
        return a + t * (c - a)
    angle = math.acos(cosine)
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * c) / math.sin(angle)


def by_hand(
    codec: Codec, x: Tensor, b: Tensor, steps: int, fraction: float, slerp: bool
) -> list[Tensor]:
    """One example: b, D(z_1) … D(z_{K−2}), x. The gradient at a code comes from autograd through F(D(z)) at once."""
    z, goal = codec.encode(b[None])[0].detach(), codec.encode(x[None])[0].detach()
    whole = float((goal - z).abs().sum())
    points = [b]
    for k in range(1, steps - 1):
        leaf = z[None].clone().requires_grad_()
        (slope,) = torch.autograd.grad(t6(codec.decode(leaf)).sum(), leaf)
        rank, target = slope[0].abs(), whole * (1 - k / steps)
        while True:
            left = float((z - goal).abs().sum())
            if math.isclose(left, target, rel_tol=1e-9, abs_tol=1e-9):
                break
            rank[(z - goal).abs() < 1e-9] = torch.inf
            threshold = rank.sort().values[math.floor(fraction * (len(z) - 1))]
            chosen = (rank <= threshold) & (rank < torch.inf)
            part = (left - target) / float((z - goal).abs()[chosen].sum())
            z = z.clone()
            if part > 1:
                z[chosen] = goal[chosen]
                continue
            mix = (
                slerped(z[chosen], goal[chosen], part)
                if slerp
                else z[chosen] + part * (goal - z)[chosen]
            )
            z[chosen] = mix
            break
        points.append(codec.decode(z[None])[0].detach())
    return [*points, x]


@pytest.mark.parametrize("slerp", [False, True])
@pytest.mark.parametrize(("steps", "fraction"), [(3, 0.5), (7, 0.05), (12, 0.3), (25, 0.6)])
def test_guided_is_the_papers_loop(steps: int, fraction: float, slerp: bool) -> None:
    _, found = corners(ig.paths.LatentGuided(SMALL, steps, fraction, slerp, ends=1))
    for r in range(2):
        for b in range(3):
            expected = torch.stack(by_hand(SMALL, X[b], STARTS[r, b], steps, fraction, slerp))
            torch.testing.assert_close(found[:, r, b], expected, rtol=0, atol=1e-11)


def test_slerp_and_fraction_change_the_way() -> None:
    """The comparison above can fail."""
    plain = corners(ig.paths.LatentGuided(SMALL, 12, 0.3, False, ends=1))[1]
    for other in (
        ig.paths.LatentGuided(SMALL, 12, 0.3, True, ends=1),
        ig.paths.LatentGuided(SMALL, 12, 0.8, False, ends=1),
    ):
        assert float((corners(other)[1] - plain).abs().max()) > 1e-3


@pytest.mark.parametrize(
    "make",
    [
        lambda ends: ig.paths.LatentGuided(SMALL, 8, 0.3, ends=ends),
        lambda ends: ig.paths.Latent(SMALL, 8, ends),
        lambda ends: ig.paths.LatentGeodesic(SMALL, 8, ends=ends),
    ],
    ids=["guided", "line", "geodesic"],
)
class TestLegs:
    def test_they_run_evenly_between_the_ends_and_what_is_decoded(self, make: Any) -> None:
        clock, fine = corners(make(5))
        coarse = corners(make(1))[1]
        assert torch.equal(fine[0], STARTS)
        assert torch.equal(fine[-1], X.expand_as(STARTS))
        for j in range(6):
            torch.testing.assert_close(
                fine[j], coarse[0] + j / 5 * (coarse[1] - coarse[0]), rtol=0, atol=1e-14
            )
            torch.testing.assert_close(
                fine[-1 - j], coarse[-1] + j / 5 * (coarse[-2] - coarse[-1]), rtol=0, atol=1e-14
            )
        torch.testing.assert_close(fine[5:-5], coarse[1:-1], rtol=0, atol=1e-14)
        steps = len(coarse) - 1
        assert float(clock[5]) == pytest.approx(1 / steps, abs=1e-15)
        assert float(clock[-6]) == pytest.approx(1 - 1 / steps, abs=1e-15)

    def test_completeness_comes_with_their_pieces(self, make: Any, quiet: None) -> None:
        def gap(ends: int) -> float:
            made = ig.Method(
                ig.baselines.Given(STARTS), make(ends), ig.rules.Trapezoid(), record=("shares",)
            )(F, X)
            # What the steps between decoded points miss does not depend on the legs.
            return float((made.shares.sum(2) - made.change).abs().max())

        inner = gap(256)
        assert abs(gap(4) - inner) > 5 * abs(gap(16) - inner)
        assert abs(gap(1) - inner) > 1e-2

    def test_they_are_stacked_in_blocks_without_a_seam(
        self, make: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = make(7)
        whole = corners(path)
        monkeypatch.setattr("integrand.paths.latent.legs._STACK_ELEMENTS", 3 * STARTS.numel())
        segments = list(path(F, STARTS, X))
        assert max(len(s.start) for s in segments) == 3
        for one, other in zip(corners(path), whole, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-14)
        testing.check_path(path, field=F, x=X, references=STARTS)

    def test_the_conformance_kit(self, make: Any) -> None:
        testing.check_path(make(3), field=F, x=X, references=STARTS)
        testing.check_path(make(1), field=F, x=X[:1], references=STARTS[:, :1])

    def test_shared_starts_are_encoded_once_and_go_the_same_way(self, make: Any) -> None:
        shared = STARTS[:, :1].expand(-1, 3, -1)
        one, other = corners(make(2), start=shared)[1], corners(make(2), start=shared.clone())[1]
        torch.testing.assert_close(
            one, other, rtol=0, atol=1e-12
        )  # kernels round batches of other sizes differently

    def test_memory_does_not_grow_with_steps(
        self, make: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = make(2)
        name = "points" if hasattr(path, "points") else "steps"
        options = {"iterations": 2} if name == "points" else {}

        def held(count: int) -> int:
            """Numbers in tensors of decoded points, and more, while the last segment is out; codes are shorter rows."""
            for segment in type(path)(SMALL, **{name: count}, **options)(F, STARTS[:1, :1], X[:1]):
                last = segment
            del segment
            found = sum(
                t.numel() for t in gc.get_objects() if type(t) is Tensor and t.shape[-1:] == (6,)
            )
            assert float(last.clock[1][-1]) == 1
            return found

        monkeypatch.setattr("integrand.paths.latent.legs._STACK_ELEMENTS", 4 * 6)
        held(10)
        assert held(400) <= held(40) + 64


def test_what_is_handed_on_is_paid_once() -> None:
    """A gradient at every corner of the path, and one where the walk begins: counted at the model."""
    for steps, ends in [(3, 1), (4, 1), (9, 4)]:
        path = ig.paths.LatentGuided(SMALL, steps, 0.3, ends=ends)
        model = Counting(tanh_mlp(6))
        segments = list(path(ig.TorchField(model, 0), STARTS, X))
        assert sum(len(s.start) for s in segments) == path.segments == steps - 3 + 2 * ends
        assert model.gradients == path.gradients * 6 == (steps + 2 * ends - 1) * 6
        assert model.values == 0
        for rule in (ig.rules.Left(), ig.rules.Right(), ig.rules.Trapezoid()):
            assert gradients_per_row(path, rule) == path.gradients
        assert gradients_per_row(path, ig.rules.Midpoint(2)) == path.gradients + 2 * path.segments


def test_the_decoder_is_called_once_for_a_point() -> None:
    class Watched(Codec):
        forwards = backwards = 0

        def decode(self, z: Tensor) -> Tensor:
            self.forwards += len(z)
            if z.requires_grad:
                z.register_hook(
                    lambda slope: setattr(self, "backwards", self.backwards + len(slope))
                )
            return super().decode(z)

    codec = Watched(6)
    list(ig.paths.LatentGuided(codec, 9, 0.3)(F, STARTS, X))
    assert (codec.forwards, codec.backwards) == (8 * 6, 7 * 6)
    codec = Watched(6)
    list(ig.paths.Latent(codec, 9)(F, STARTS, X))
    assert (codec.forwards, codec.backwards) == (10 * 6, 0)


# --- moves ------------------------------------------------------------------------------------------------------------


@given(
    rows=st.integers(1, 4),
    size=st.integers(1, 9),
    fraction=st.floats(0.01, 1.0),
    part=st.floats(0.0, 1.0),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    phase=st.floats(0, 6),
)
def test_a_straight_move_keeps_to_its_budget(
    rows: int, size: int, fraction: float, part: float, dtype: torch.dtype, phase: float
) -> None:
    """What remains is what was asked for; no coordinate passes its goal or turns back; flatter ones go first."""
    z, goal, slope = (wave(rows, size, phase=phase + i).to(dtype) for i in range(3))
    goal[:, 0] = z[:, 0]  # one that has arrived before it began
    whole = (goal - z).abs().sum(1)
    after = guided(z, goal, slope, part * whole, whole, fraction, slerp=False)
    room = 1e-5 if dtype == torch.float32 else 1e-8
    torch.testing.assert_close((goal - after).abs().sum(1), part * whole, rtol=0, atol=room)
    done = torch.where(goal == z, 1, (after - z) / torch.where(goal == z, 1, goal - z))
    assert bool(((done >= -room) & (done <= 1 + room)).all())
    for row in range(rows):
        begun = slope[row].abs()[(done[row] > 0) & (goal[row] != z[row])]
        waiting = slope[row].abs()[done[row] == 0]
        assert not len(begun) or not len(waiting) or float(begun.max()) <= float(waiting.min())


@given(size=st.integers(2, 6), t=st.floats(0, 1), phase=st.floats(0, 6))
def test_arcs_keep_the_length_and_the_speed(size: int, t: float, phase: float) -> None:
    a, c = (nn.functional.normalize(wave(size, phase=phase + i), dim=0) for i in range(2))
    between = mixed(a, c, torch.tensor(t, dtype=torch.float64), slerp=True)
    if abs(float(a @ c)) > 0.9995:
        torch.testing.assert_close(between, a + t * (c - a))
        return
    assert float(between.norm()) == pytest.approx(1, abs=1e-9)
    assert float(between @ a) == pytest.approx(math.cos(t * math.acos(float(a @ c))), abs=1e-9)
    nothing = mixed(a, torch.zeros_like(a), torch.tensor(t, dtype=torch.float64), slerp=True)
    torch.testing.assert_close(nothing, a - t * a, rtol=0, atol=1e-15)


def test_nothing_to_do() -> None:
    """Input and baseline alike: codes stay where they are, and the map is that of a way out and back."""
    z = wave(2, 4)
    zero = torch.zeros(2).double()
    assert torch.equal(guided(z, z.clone(), wave(2, 4, phase=1), zero, zero, 0.3, slerp=True), z)
    for make in (ig.methods.latent_guided, ig.methods.latent, ig.methods.manifold):
        made = make(SMALL, X[:1], rule=ig.rules.Trapezoid())(F, X[:1])
        torch.testing.assert_close(made.values, torch.zeros_like(X[:1]), rtol=0, atol=1e-13)


# --- the line ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slerp", [False, True])
def test_the_line_decoded(slerp: bool) -> None:
    _, found = corners(ig.paths.Latent(SMALL, 6, 1, slerp))
    assert len(found) == 9
    for r in range(2):
        for b in range(3):
            begin, goal = (SMALL.encode(z[None])[0].detach() for z in (STARTS[r, b], X[b]))
            for j in range(7):
                z = slerped(begin, goal, j / 6) if slerp else begin + j / 6 * (goal - begin)
                torch.testing.assert_close(
                    found[1 + j, r, b], SMALL.decode(z[None])[0].detach(), rtol=0, atol=1e-13
                )


def test_an_exact_linear_codec_gives_integrated_gradients() -> None:
    """Then the decoded line is the straight one, and the legs have no length and cost nothing."""
    turn = torch.linalg.qr(wave(6, 6)).Q
    codec = (lambda x: x @ turn, lambda z: z @ turn.T)
    expected = ig.methods.integrated(0.0, rule=ig.rules.GaussLegendre(30))(F, X).values
    fine = ig.rules.GaussLegendre(4)
    for method in (ig.methods.latent(codec, rule=fine), ig.methods.manifold(codec, rule=fine)):
        torch.testing.assert_close(method(F, X).values, expected, rtol=0, atol=1e-9)
    counted = Counting(t6)
    exact = (lambda x: x, lambda z: z)
    ig.explain(
        counted,
        X,
        target=ig.targets.Output(),
        method=ig.methods.latent(exact, 0.0, 10, rule=ig.rules.Midpoint()),
    )
    assert counted.gradients == 10 * 3


# --- geodesics --------------------------------------------------------------------------------------------------------


def polar() -> tuple[Any, Any]:
    """The plane, with polar coordinates as its code: geodesics are straight lines of the plane, not of the code."""
    encode = lambda x: torch.stack([x.norm(dim=1), torch.atan2(x[:, 1], x[:, 0])], 1)  # noqa: E731
    decode = lambda z: torch.stack([z[:, 0] * z[:, 1].cos(), z[:, 0] * z[:, 1].sin()], 1)  # noqa: E731
    return encode, decode


PLANE = torch.tensor([[0.2, 1.0], [-0.7, 0.9], [0.1, 0.4]]).double()
PLANE_STARTS = torch.tensor([[[1.5, 0.1], [1.0, 0.3], [0.9, -0.2]]]).double()


def test_geodesics_of_the_plane_are_straight() -> None:
    path = ig.paths.LatentGeodesic(polar(), 11, iterations=2000, tolerance=1e-12, ends=1)
    _, found = corners(path, ig.fields.Linear(torch.ones(2).double()), PLANE_STARTS, PLANE)
    t = torch.linspace(0, 1, 11).double()[:, None, None, None]
    torch.testing.assert_close(
        found[1:-1], PLANE_STARTS + t * (PLANE - PLANE_STARTS), rtol=0, atol=1e-5
    )
    bent = corners(
        ig.paths.Latent(polar(), 10, 1),
        ig.fields.Linear(torch.ones(2).double()),
        PLANE_STARTS,
        PLANE,
    )[1]
    assert float((bent - found).abs().max()) > 0.05


def test_geodesics_of_the_sphere_are_great_circles() -> None:
    """Code: longitude and latitude. The points lie in the plane of both ends and the centre, evenly."""

    def decode(z: Tensor) -> Tensor:
        return torch.stack(
            [z[:, 0].cos() * z[:, 1].cos(), z[:, 0].sin() * z[:, 1].cos(), z[:, 1].sin()], 1
        )

    encode = lambda x: torch.stack([torch.atan2(x[:, 1], x[:, 0]), x[:, 2].asin()], 1)  # noqa: E731
    ends = decode(torch.tensor([[0.1, 0.8], [1.9, 0.9]]).double())
    path = ig.paths.LatentGeodesic((encode, decode), 9, iterations=2000, tolerance=1e-13, ends=1)
    field = ig.fields.Linear(torch.ones(3).double())
    found = corners(path, field, ends[None, :1], ends[1:])[1][1:-1, 0, 0]
    for j in range(9):
        torch.testing.assert_close(found[j], slerped(ends[0], ends[1], j / 8), rtol=0, atol=1e-5)


def test_with_a_linear_decoder_the_line_stays() -> None:
    up, down = wave(6, 4), wave(4, 6, phase=1)
    codec = (lambda x: x @ down.T, lambda z: z @ up.T)
    geodesic, line = corners(ig.paths.LatentGeodesic(codec, 9)), corners(ig.paths.Latent(codec, 8))
    torch.testing.assert_close(geodesic[1], line[1], rtol=0, atol=1e-12)
    torch.testing.assert_close(geodesic[0], line[0], rtol=0, atol=1e-15)


def relaxed_by_hand(
    codec: Codec, x: Tensor, b: Tensor, points: int, rate: float, iterations: int
) -> list[Tensor]:
    """η_i = −J_Dᵀ(D(z_{i+1}) − 2D(z_i) + D(z_{i−1}))·T, z_i ← z_i − rate η_i; all points from the same iterate."""
    begin, goal = (codec.encode(z[None])[0].detach() for z in (b, x))
    z = [begin + i / (points - 1) * (goal - begin) for i in range(points)]
    decode = lambda code: codec.decode(code[None])[0]  # noqa: E731
    for _ in range(iterations):
        after = list(z)
        for i in range(1, points - 1):
            jacobian = torch.autograd.functional.jacobian(decode, z[i])
            bend = decode(z[i + 1]) - 2 * decode(z[i]) + decode(z[i - 1])
            after[i] = (z[i] + rate * points * jacobian.T @ bend).detach()
        z = after
    return z


def test_a_rate_that_is_given_is_the_published_step() -> None:
    path = ig.paths.LatentGeodesic(SMALL, 7, rate=2e-3, iterations=5, tolerance=0.0, ends=1)
    _, found = corners(path)
    moved = corners(ig.paths.Latent(SMALL, 6, 1))[1]
    assert float((found - moved).abs().max()) > 1e-4
    for r in range(2):
        for b in range(3):
            codes = torch.stack(relaxed_by_hand(SMALL, X[b], STARTS[r, b], 7, 2e-3, 5))
            torch.testing.assert_close(
                found[1:-1, r, b], SMALL.decode(codes).detach(), rtol=0, atol=1e-12
            )


def energy(points: Tensor) -> Tensor:
    return len(points) / 2 * points.diff(dim=0).square().flatten(3).sum(3).sum(0)


def test_the_energy_falls_and_stops_falling() -> None:
    def after(iterations: int, **options: Any) -> Tensor:
        path = ig.paths.LatentGeodesic(SMALL, 12, iterations=iterations, ends=1, **options)
        return energy(corners(path)[1][1:-1])

    found = [after(n, tolerance=0.0) for n in (0, 1, 2, 4, 8, 16, 200)]
    for before, later in itertools.pairwise(found):
        assert bool((later <= before).all())
    assert bool((found[-1] < found[0]).all())
    assert bool((found[-1] < 0.9 * found[0]).any())
    torch.testing.assert_close(after(300), found[-1], rtol=2e-3, atol=0)
    # Far too long a rate is taken back until it fits.
    assert bool((after(200, rate=1e3, tolerance=0.0) < found[0]).all())


def test_the_published_limit_on_the_energy() -> None:
    """A path that is below it is left alone; others go on, each for itself."""
    line = corners(ig.paths.Latent(SMALL, 11, 1))[1][1:-1]
    least = float(energy(line).flatten().sort().values[2:4].mean())
    found = corners(ig.paths.LatentGeodesic(SMALL, 12, energy=least, tolerance=1e-9, ends=1))[1][
        1:-1
    ]
    below = energy(line) < least
    torch.testing.assert_close(found[:, below], line[:, below], rtol=0, atol=1e-14)
    assert bool((energy(found)[~below] < energy(line)[~below]).all())


def test_polylines_are_relaxed_in_calls_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    path = ig.paths.LatentGeodesic(SMALL, 9, iterations=12)
    whole = corners(path)[1]
    for rows in (1, 3, 5):
        monkeypatch.setattr(
            "integrand.paths.latent.autoencoder.packer_for",
            lambda *_, rows=rows: ig.fields.BatchSizer(rows),
        )
        torch.testing.assert_close(corners(path)[1], whole, rtol=0, atol=1e-11)


# --- codecs -----------------------------------------------------------------------------------------------------------


class Distribution:
    """What diffusers' VAEs encode to."""

    def __init__(self, mean: Tensor) -> None:
        self.mean = mean

    def mode(self) -> Tensor:
        return self.mean

    def sample(self) -> Tensor:
        raise AssertionError("Nothing is drawn at random.")


class Vae(Codec):
    """The interface of diffusers' AutoencoderKL."""

    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        distribution = Distribution(super().encode(x).unflatten(1, (5, 1, 1)))
        return types.SimpleNamespace(latent_dist=distribution) if return_dict else (distribution,)

    def decode(self, z: Tensor, return_dict: bool = True) -> Any:
        assert z.shape[1:] == (5, 1, 1)
        made = super().decode(z.flatten(1))
        return types.SimpleNamespace(sample=made) if return_dict else (made,)


class MeanOnly:
    def __init__(self, mean: Tensor) -> None:
        self.mean = mean


def kinds() -> dict[str, Any]:
    vae = Vae(6)
    return {
        "a module": SMALL,
        "a pair of methods": (SMALL.encode, SMALL.decode),
        "a list of functions": [lambda x: SMALL.encode(x), lambda z: SMALL.decode(z)],
        "a diffusers VAE": vae,
        "without return_dict": (lambda x: vae.encode(x, False), lambda z: vae.decode(z, False)),
        "latents, as VQ models": (
            lambda x: types.SimpleNamespace(latents=SMALL.encode(x)),
            SMALL.decode,
        ),
        "a torch distribution": (
            lambda x: torch.distributions.Normal(SMALL.encode(x), 1.0),
            SMALL.decode,
        ),
        "a distribution with a mean": (lambda x: MeanOnly(SMALL.encode(x)), SMALL.decode),
        "mean and log variance": (
            lambda x: (SMALL.encode(x), torch.zeros(len(x), 5)),
            SMALL.decode,
        ),
        "modules": (Half(SMALL.encode), Half(SMALL.decode)),
        "in place": (
            lambda x: SMALL.encode(x.mul_(1.0)).add_(0.0),
            lambda z: SMALL.decode(z.mul_(1.0)).mul_(1.0),
        ),
    }


class Half(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize("kind", list(kinds()))
def test_every_kind_of_codec(kind: str) -> None:
    codec = kinds()[kind]
    x, starts = X.clone(), STARTS.clone()
    for make in (ig.paths.LatentGuided, ig.paths.Latent, ig.paths.LatentGeodesic):
        expected = corners(make(SMALL, 5))[1]
        found = corners(make(codec, 5), start=starts, end=x)[1]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    assert torch.equal(x, X)
    assert torch.equal(starts, STARTS)


@pytest.mark.parametrize(
    "codec",
    [None, 3, (SMALL.encode,), (SMALL.encode, 3), nn.Linear(2, 2), SMALL.encode],
    ids=lambda c: type(c).__name__,
)
@pytest.mark.parametrize("make", [ig.paths.LatentGuided, ig.paths.Latent, ig.paths.LatentGeodesic])
def test_what_is_no_codec(make: Any, codec: Any) -> None:
    with pytest.raises(
        ig.errors.InputError, match=r"A codec is a pair \(encode, decode\) .*, not a \w+"
    ):
        make(codec)


FAULTS: dict[str, tuple[Any, type[Exception], str]] = {
    "another shape": (
        (lambda x: x, lambda z: nn.functional.pad(z, (0, 2))),
        ig.errors.ShapeError,
        r"The decoder gave \d+x8 for codes of \d+x6 inputs: .* must have the shape that was encoded, 6 each",
    ),
    "another number of rows": (
        (lambda x: x, lambda z: z[:1].repeat(7, 1)),
        ig.errors.ShapeError,
        r"The decoder gave 7x6",
    ),
    "codes for fewer rows": (
        (lambda x: x.sum(0, keepdim=True).repeat(99, 1), lambda z: z),
        ig.errors.ModelError,
        r"codes of shape 99x6 for \d+ rows; it gives one code per row",
    ),
    "integer codes": (
        (lambda x: x.long(), lambda z: z),
        ig.errors.ModelError,
        r"int64 codes; a path needs real numbers",
    ),
    "no code": (
        (lambda x: {"z": x}, lambda z: z),
        ig.errors.ModelError,
        r"The encoder returned a dict; a tensor",
    ),
    "no rows": (
        (lambda x: x, lambda z: {"x": z}),
        ig.errors.ModelError,
        r"The decoder returned a dict; a tensor",
    ),
    "numpy codes": (
        (lambda x: x.numpy(), lambda z: z),
        ig.errors.ModelError,
        r"The encoder returned a ndarray",
    ),
    "NaN codes": (
        (lambda x: x.log(), lambda z: z),
        ig.errors.NonFiniteGradient,
        r"The encoder gave NaN or infinity",
    ),
    "NaN rows": (
        (lambda x: x, lambda z: z.log()),
        ig.errors.NonFiniteGradient,
        r"The decoder gave NaN or infinity",
    ),
    "changing codes": (
        (lambda x: x[:, : 5 + int(x.shape[0] > 3)], lambda z: z),
        ig.errors.ModelError,
        r"codes of shape 5 after codes of shape 6",
    ),
}


@pytest.mark.parametrize("make", [ig.paths.LatentGuided, ig.paths.Latent, ig.paths.LatentGeodesic])
@pytest.mark.parametrize("fault", list(FAULTS))
def test_faults_are_told(fault: str, make: Any) -> None:
    codec, error, message = FAULTS[fault]
    with pytest.raises(error, match=message):
        corners(make(codec))


@pytest.mark.parametrize("make", [ig.paths.LatentGuided, ig.paths.LatentGeodesic])
@pytest.mark.parametrize(
    "decode",
    [
        lambda z: z.detach(),
        lambda z: torch.zeros_like(z),
        lambda z: torch.ones(1, 6).double().expand(len(z), 6).requires_grad_(),
    ],
)
def test_a_decoder_without_a_derivative(make: Any, decode: Any) -> None:
    with pytest.raises(
        ig.errors.DetachedModel, match=r"No gradient leads from what was decoded to its code"
    ):
        corners(make((lambda x: x, decode)))
    if make is ig.paths.LatentGuided:  # a line needs none
        corners(ig.paths.Latent((lambda x: x, decode)))


def test_a_derivative_that_is_not_finite() -> None:
    root = (lambda x: x * 0, lambda z: z.sqrt())
    with pytest.raises(
        ig.errors.NonFiniteGradient, match=r"The decoder's derivative gave NaN or infinity"
    ):
        corners(ig.paths.LatentGuided(root))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ig.paths.LatentGuided(SMALL, 2), "at least 3 points, both ends included, not 2"),
        (
            lambda: ig.paths.LatentGuided(SMALL, fraction=0.0),
            r"fraction is a fraction of the coordinates above 0 .* not 0\.0",
        ),
        (lambda: ig.paths.LatentGuided(SMALL, fraction=1.5), r"not 1\.5"),
        (lambda: ig.paths.LatentGuided(SMALL, ends=0), "at least one piece, not 0"),
        (lambda: ig.paths.Latent(SMALL, 0), "at least one step, not 0"),
        (lambda: ig.paths.Latent(SMALL, ends=-1), "at least one piece, not -1"),
        (lambda: ig.paths.LatentGeodesic(SMALL, 1), "at least 2 points, both ends included, not 1"),
        (lambda: ig.paths.LatentGeodesic(SMALL, rate=0.0), r"above 0, or None, not 0\.0"),
        (
            lambda: ig.paths.LatentGeodesic(SMALL, iterations=-1),
            r"not negative, but they are -1 and 0\.0001",
        ),
        (
            lambda: ig.paths.LatentGeodesic(SMALL, tolerance=-1.0),
            r"not negative, but they are 300 and -1\.0",
        ),
        (lambda: ig.paths.LatentGeodesic(SMALL, ends=0), "at least one piece, not 0"),
    ],
)
def test_refused(make: Any, message: str) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        make()


def test_they_print_as_typed_and_equal_their_like() -> None:
    assert repr(ig.paths.LatentGuided(SMALL, 50)) == "LatentGuided(Codec, 50)"
    assert repr(ig.paths.LatentGuided((nn.Linear(2, 1), polar))) == "LatentGuided((Linear, polar))"
    assert repr(ig.paths.Latent((polar, toy), slerp=True)) == "Latent((polar, toy), slerp=True)"
    assert ig.paths.LatentGeodesic(SMALL) == ig.paths.LatentGeodesic(SMALL)
    assert ig.paths.LatentGeodesic(SMALL) != ig.paths.LatentGeodesic(Codec(6))


# --- the codec is borrowed --------------------------------------------------------------------------------------------


class Fickle(Codec):
    """Dropout and a batch norm, which only stay the same in eval mode; fails at the ``fail``-th decoding."""

    def __init__(self, fail: int | None = None) -> None:
        super().__init__(6)
        self.norm, self.drop = nn.BatchNorm1d(6).double(), nn.Dropout(0.5)
        self.fail, self.calls = fail, 0
        self.up.requires_grad_(False)

    def decode(self, z: Tensor) -> Tensor:
        self.calls += 1
        if self.fail is not None and self.calls > self.fail:
            raise KeyboardInterrupt
        return self.drop(self.norm(super().decode(z)))


@pytest.mark.filterwarnings("ignore::integrand.errors.TrainingModeWarning")
@pytest.mark.parametrize("fail", [None, 0, 2])
@pytest.mark.parametrize("make", [ig.paths.LatentGuided, ig.paths.Latent, ig.paths.LatentGeodesic])
def test_codecs_come_back_as_they_were(
    make: Any, fail: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = Fickle(fail).train()
    codec.norm.eval()
    before = state(codec)
    path = make(codec, 5)
    if fail is None:
        seen = corners(path)[1]
        still = Fickle().eval()
        torch.testing.assert_close(seen, corners(make(still, 5))[1], rtol=0, atol=1e-14)
    else:
        monkeypatch.setattr(
            "integrand.paths.latent.autoencoder.packer_for", lambda *_: ig.fields.BatchSizer(1)
        )
        with pytest.raises(KeyboardInterrupt):
            corners(path)
    codec.calls = 0
    after = state(codec)
    assert_same(before, after)


@pytest.mark.filterwarnings("ignore::integrand.errors.TrainingModeWarning")
def test_codecs_are_as_they_were_between_segments() -> None:
    """A rule that fails half way leaves the path where it stands, and the codec untouched all the same."""
    codec = Fickle().train()
    for make in (ig.paths.LatentGuided, ig.paths.Latent, ig.paths.LatentGeodesic):
        for _ in make(codec, 5)(F, STARTS, X):
            assert codec.training
            assert codec.drop.training
            assert codec.down.requires_grad
            assert not codec.up.requires_grad
    assert codec.down.grad is None


def test_a_codec_in_training_mode_is_told_of() -> None:
    with pytest.warns(
        ig.errors.TrainingModeWarning, match="training mode and has BatchNorm1d, Dropout"
    ):
        corners(ig.paths.Latent(Fickle().train(), 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_codec_of_another_type(dtype: torch.dtype) -> None:
    """It sees its own type; the path keeps the input's."""
    codec = Codec(6).to(dtype)
    for make in (ig.paths.LatentGuided, ig.paths.Latent, ig.paths.LatentGeodesic):
        _, points = corners(make(codec, 4, ends=2))
        assert points.dtype == torch.float64
        assert torch.equal(points[-1], X.expand_as(STARTS))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_inputs_of_another_type(dtype: torch.dtype, quiet: None) -> None:
    model = tanh_mlp(6).to(dtype)
    for name in ("latent_guided", "latent", "manifold"):
        made = ig.explain(
            model, X.to(dtype), target=0, method=name, codec=SMALL, rule=ig.rules.Trapezoid()
        )
        assert made.values.dtype == torch.float32
        assert bool((made.gap < 0.1).all())


def test_in_float32_the_map_is_that_of_float64() -> None:
    for name in ("latent_guided", "latent", "manifold"):
        one, other = (
            ig.explain(
                tanh_mlp(6).to(t),
                X.to(t),
                target=0,
                method=name,
                codec=SMALL,
                rule=ig.rules.Trapezoid(),
            )
            for t in (torch.float32, torch.float64)
        )
        torch.testing.assert_close(one.values.double(), other.values, rtol=0, atol=1e-3)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_whatever_mode_the_caller_is_in(mode: Any, quiet: None) -> None:
    for make in (ig.methods.latent_guided, ig.methods.latent, ig.methods.manifold):
        method = make(SMALL, 0.5, 6, rule=ig.rules.Trapezoid(), ends=3)
        expected = method(F, X).values
        with mode():
            found = method(F, X.clone()).values
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


# --- methods ----------------------------------------------------------------------------------------------------------


def test_defaults_of_the_papers() -> None:
    made = ig.methods.latent_guided(SMALL)
    assert (made.path.steps, made.path.fraction, made.path.slerp) == (200, 0.05, True)
    assert ig.methods.manifold(SMALL).path == ig.paths.LatentGeodesic(SMALL, 20, None, 300, ends=10)
    assert ig.methods.latent(SMALL, "zero", 30, slerp=True).path == ig.paths.Latent(
        SMALL, 30, slerp=True
    )


def test_through_the_front_door() -> None:
    images = 0.5 + 0.5 * wave(2, 3, 4, 4)
    normal = ig.Normalisation.unit()
    for name in ("latent_guided", "latent", "manifold"):
        made = ig.explain(
            img,
            images,
            target="predicted",
            method=name,
            baseline="grey",
            codec=toy(),
            normalisation=normal,
        )
        assert bool((made.gap < 0.05).all())
        assert made.values.shape == images.shape
    with pytest.raises(ig.errors.InputError, match="needs codec="):
        ig.explain(img, images, target=0, method="latent")


def test_a_feature_the_model_does_not_see_gets_nothing() -> None:
    """Though the codec mixes it with all others."""
    field = ig.fields.Function(lambda z: torch.tanh(z[:, :5].sum(1)) + z[:, 0] * z[:, 1])
    for make in (ig.methods.latent_guided, ig.methods.latent, ig.methods.manifold):
        values = make(SMALL, 0.0, 20)(field, X).values
        assert bool((values[:, 5] == 0).all())
        assert bool((values[:, :5] != 0).all())


def test_several_weighted_references_with_rules_that_look(quiet: None) -> None:
    for path in (
        ig.paths.LatentGuided(SMALL, 6, 0.3, ends=3),
        ig.paths.Latent(SMALL, 6, 3),
        ig.paths.LatentGeodesic(SMALL, 6, ends=3),
    ):
        method = ig.Method(ig.baselines.Given(STARTS), path, ig.rules.Adaptive(0.01))
        made = method(F, X)
        assert bool((made.error <= 0.011).all())
        assert bool((made.gap < 0.03).all())
