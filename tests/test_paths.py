"""Paths: segments chain, the last end is the input, a linear field gets w ⊙ (x − b) whichever way is taken."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.core.segment import polyline
from integrand.rules.base import Integrated
from tests.problems import Counting, filled, softplus_cnn, tanh_mlp, wave

X = wave(3, 5, phase=0.3)  # B = 3 examples of five features
STARTS = wave(2, 3, 5, phase=2)  # R = 2


def bend(z: Tensor) -> Tensor:
    """A representation in which the descent turns corners."""
    return torch.stack(
        [z[:, 0] * z[:, 1] + z[:, 2], (z * z).sum(1) / 3, z[:, 3] - 0.5 * z[:, 4] ** 2], 1
    )


BENDING = (lambda x: 0.8 * x + 0.1, lambda z: z + 0.3 * torch.tanh(2 * z.roll(1, 1)))
"""A codec for rows of any length."""


class Bend(ig.targets.Target):
    """A decision for fields that are functions of the input."""

    def site(self, z: Tensor) -> Tensor:
        return bend(z)

    def __call__(self, outputs: Tensor, index: Tensor) -> Tensor:
        return outputs[:, 0] - 0.1


STEPS = [ig.paths.Fixed(), ig.paths.Shrinking(), ig.paths.Implicit()]

PATHS = {
    "Straight()": ig.paths.Straight(),
    "Straight(7)": ig.paths.Straight(7),
    "Blur": ig.paths.Blur(1.5, 9, axes=(-1,)),
    "LatentGuided": ig.paths.LatentGuided(BENDING, 7, 0.4, ends=3),
    "LatentGuided, straight": ig.paths.LatentGuided(BENDING, 7, 0.1, slerp=False, ends=1),
    "Latent": ig.paths.Latent(BENDING, 5, 3),
    "Latent, slerp": ig.paths.Latent(BENDING, 5, 1, slerp=True),
    "LatentGeodesic": ig.paths.LatentGeodesic(BENDING, 6, ends=3),
    "Descent, l2": ig.paths.Descent(bend, 12, 0.11, (-9.0, 9.0)),
    "Descent, l2, as published": ig.paths.Descent(
        bend, 12, 0.11, (-9.0, 9.0), step=ig.paths.Fixed()
    ),
    "Descent, l1": ig.paths.Descent(bend, 12, 0.11, (-9.0, 9.0), "l1"),
    "Descent, sign": ig.paths.Descent(bend, 12, 0.11, (-9.0, 9.0), "sign"),
    "Descent, clipped": ig.paths.Descent(bend, 12, 0.3, (-0.7, 0.7), step=ig.paths.Fixed()),
    "Descent, relative": ig.paths.Descent(bend, 12, ig.paths.Relative(0.03)),
    "Geodesic": ig.paths.Geodesic(wave(12, 5, phase=4), 3),
    "Geodesic, official": ig.paths.Geodesic(wave(12, 5, phase=4), 3, graph="official"),
    "Geodesic, euclidean": ig.paths.Geodesic(wave(12, 5, phase=4), 2, distance="euclidean"),
    "ElasticBand": ig.paths.ElasticBand(6, 0.5, 8),
    "NonUniform": ig.paths.NonUniform(7, 11),
    "Scheduled": ig.paths.Scheduled((0.0, 0.1, 0.25, 0.7, 1.0)),
    "Respaced, midpoint": ig.paths.NonUniform(9, 11, "midpoint"),
    "Descent, implicit": ig.paths.Descent(bend, 12, 0.4, (-9.0, 9.0), step=ig.paths.Implicit()),
    "Adversarial": ig.paths.Adversarial(Bend(), 12, 0.05, (-9.0, 9.0)),
    "Adversarial, implicit": ig.paths.Adversarial(
        Bend(), 12, 0.3, (-9.0, 9.0), "l2", ig.paths.Implicit(2)
    ),
    "Guided": ig.paths.Guided(9, 0.3, 0.1),
    "Guided, free": ig.paths.Guided(9, stray=1.0),
    "SAMP": ig.paths.SAMP(9, 0.1),
    "Composed": ig.paths.Composed(ig.paths.Guided(9, stray=1.0), 3),
    "Between, of a straight line": ig.paths.Composed(ig.paths.Straight(9), 3),
    "Reversed": ig.paths.Reversed(ig.paths.SAMP(9, 0.1, "lowest")),
}


def smooth(z: Tensor) -> Tensor:
    return torch.exp(0.4 * z @ wave(z.shape[1], phase=0.5).to(z)) + z[:, 0] * z[:, 1]


def corners(
    path: Any, field: Any = None, start: Tensor = STARTS, end: Tensor = X
) -> tuple[Tensor, Tensor]:
    return ig.paths.corners(path, field or ig.fields.Function(smooth), start, end)


def in_order(segments: list[ig.Segment]) -> list[tuple[float, float, Tensor, Tensor]]:
    """Single pieces (begin, end, start, end point), sorted by the clock."""
    pieces = [
        (float(s.clock[0][k]), float(s.clock[1][k]), s.start[k], s.end[k])
        for s in segments
        for k in range(len(s.start))
    ]
    return sorted(pieces, key=lambda piece: piece[0])


ELSEWHERE = {"Relative", "Split", "SVD", "DCT", "Haar", "Pyramid", "Spectral", "Discretized"}
"""Parts of paths; and paths of images and of words, which have files of their own."""


def test_every_path_is_here() -> None:
    exported = {
        name
        for name, c in vars(ig.paths).items()
        if inspect.isclass(c) and dataclasses.is_dataclass(c)
    }
    steps = {"Relative"} | {type(step).__name__ for step in STEPS}
    assert exported - steps - ELSEWHERE == {type(path).__name__ for path in PATHS.values()}


@pytest.mark.parametrize("name", list(PATHS))
def test_segments_chain(name: str) -> None:
    pieces = in_order(list(PATHS[name](ig.fields.Function(smooth), STARTS, X)))
    assert pieces[0][0] == 0.0
    assert pieces[-1][1] == 1.0
    for (_, ends, _, stop), (begins, _, start, _) in itertools.pairwise(pieces):
        assert ends == begins
        assert torch.equal(stop, start)
    assert all(begins < ends for begins, ends, _, _ in pieces)
    # Exactly the input, not b + (x − b).
    assert torch.equal(pieces[-1][3], X.expand_as(STARTS))
    assert PATHS[name].segments in (None, len(pieces))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("segments", [1, 3, 7, 10])
def test_straight_ends_on_the_input_exactly(segments: int, dtype: torch.dtype) -> None:
    x, start = (X * 1e3).to(dtype), (STARTS * 1e-3).to(dtype)
    pieces = in_order(list(ig.paths.Straight(segments)(ig.fields.Function(smooth), start, x)))
    assert torch.equal(pieces[0][2], start)
    assert torch.equal(pieces[-1][3], x.expand_as(start))


@pytest.mark.parametrize("name", list(PATHS))
@pytest.mark.parametrize(
    "rule", [ig.rules.Left(), ig.rules.Right(3), ig.rules.GaussLegendre(2), ig.rules.MonteCarlo(2)]
)
def test_a_linear_field_gets_w_times_the_way(name: str, rule: Any) -> None:
    weight = wave(5, phase=1)
    field = ig.fields.Linear(weight)
    share = sum(
        Integrated.ensure(rule(field, segment)).share.sum(0)
        for segment in PATHS[name](field, STARTS, X)
    )
    start = corners(PATHS[name], field)[1][0]
    torch.testing.assert_close(share, weight * (X - start), rtol=0, atol=1e-14)
    if not name.startswith(("Descent", "Blur", "Adversarial")):  # those choose where they begin
        assert torch.equal(start, STARTS)


@pytest.mark.parametrize("name", list(PATHS))
def test_what_is_handed_on_is_what_the_field_says(name: str) -> None:
    field = ig.fields.Function(smooth)
    for segment in PATHS[name](field, STARTS, X):
        for paid, points in ((segment.at_start, segment.start), (segment.at_end, segment.end)):
            if paid is not None:
                torch.testing.assert_close(paid.value, field.value(points, 3), rtol=0, atol=1e-14)
                torch.testing.assert_close(
                    paid.gradient, field.gradient(points, 3), rtol=0, atol=1e-14
                )
    walked = getattr(PATHS[name], "gradients", 0)  # Geodesic cannot say how many, and hands none on
    assert not walked or segment.at_start is not None or segment.at_end is not None


def test_straight_7_corners() -> None:
    clock, points = corners(ig.paths.Straight(7))
    assert points.shape == (8, 2, 3, 5)
    for j in range(8):
        assert float(clock[j]) == pytest.approx(j / 7, abs=1e-16)
        torch.testing.assert_close(points[j], STARTS + (j / 7) * (X - STARTS), rtol=0, atol=1e-15)


def test_straight_is_stacked_in_pieces_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = corners(ig.paths.Straight(7))
    monkeypatch.setattr("integrand.core.memory_budget._BLOCK_ELEMENTS", 3 * STARTS.numel())
    segments = list(ig.paths.Straight(7)(ig.fields.Function(smooth), STARTS, X))
    assert [len(s.start) for s in segments] == [3, 3, 1]
    for one, other in zip(corners(ig.paths.Straight(7)), whole, strict=True):
        assert torch.equal(one, other)


def test_paths_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million segments are not made before the first is used."""
    monkeypatch.setattr("integrand.core.memory_budget._BLOCK_ELEMENTS", 1 << 10)
    for path in (ig.paths.Straight(10**6), ig.paths.Descent(bend, 10**6, 1e-4, (-9.0, 9.0))):
        segment = next(iter(path(ig.fields.Function(smooth), STARTS, X)))
        assert segment.start.numel() <= 1 << 10


def test_polyline_is_even_unless_told() -> None:
    points = wave(4, 1, 2, 3)
    even = polyline(points)
    assert even.leading == (3, 1, 2)
    torch.testing.assert_close(even.clock[0], torch.tensor([0, 1 / 3, 2 / 3]).double())
    assert torch.equal(even.step, points[1:] - points[:-1])
    clock = torch.tensor([0.0, 0.1, 0.7, 1.0])
    assert polyline(points, clock).clock[1].tolist() == clock[1:].tolist()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ig.paths.Straight(0), "at least one segment, not 0"),
        (lambda: ig.paths.Descent(steps=0), "at least one step, not 0"),
        (lambda: ig.paths.Descent(norm="l3"), "norm is one of 'l2', 'l1', 'sign', not 'l3'"),
    ],
)
def test_refused(make: Any, message: str) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        make()


# --- Descent ----------------------------------------------------------------------------------------------------------


def identity(z: Tensor) -> Tensor:
    return z


def descent(
    phi: Any, steps: int, rate: Any, clip: Any = (-99.0, 99.0), **options: Any
) -> ig.paths.Descent:
    return ig.paths.Descent(phi, steps, rate, clip, **options)


def gradpath(
    phi: Any, x: Tensor, reference: Tensor, steps: int, rate: float, low: float, high: float
) -> list[Tensor]:
    """The paper's loop for one example and one reference, z_0 … z_K."""
    goal = phi(reference[None])[0].detach()
    z = x.clone()
    walked = [z]
    for _ in range(steps):
        leaf = z[None].clone().requires_grad_()
        (g,) = torch.autograd.grad((phi(leaf)[0] - goal).square().sum(), leaf)
        size = g[0].square().sum().sqrt()
        z = (z - rate * g[0] / size).clamp(low, high)
        walked.append(z)
    return walked


@pytest.mark.parametrize(("low", "high"), [(-9.0, 9.0), (-0.6, 0.8)])
def test_descent_is_the_papers_loop(low: float, high: float) -> None:
    _, points = corners(descent(bend, 9, 0.13, (low, high), step=ig.paths.Fixed()))
    for r, b in itertools.product(range(2), range(3)):
        expected = torch.stack(gradpath(bend, X[b], STARTS[r, b], 9, 0.13, low, high)).flip(0)
        torch.testing.assert_close(points[:, r, b], expected, rtol=0, atol=1e-13)


def test_identity_representation_goes_straight() -> None:
    """z_K = x + K·rate·(x^r − x)/‖x^r − x‖ while the way left is longer than that."""
    steps, rate = 6, 0.1
    way = STARTS - X
    assert bool((way.norm(dim=2) > steps * rate).all())
    unit = way / way.norm(dim=2, keepdim=True)
    for step in STEPS:
        _, points = corners(descent(identity, steps, rate, step=step))
        for j in range(steps + 1):
            torch.testing.assert_close(points[steps - j], X + j * rate * unit, rtol=0, atol=1e-14)


def test_identity_representation_is_a_riemann_sum_from_the_inputs_side(quiet: None) -> None:
    """IG2 with the published rule: Σ_j (z_j − z_{j+1}) ⊙ ∇F(z_j)."""
    field, path = ig.fields.Function(smooth), descent(identity, 6, 0.1, step=ig.paths.Fixed())
    _, z = corners(path, field)
    expected = torch.zeros_like(STARTS)
    for j in range(6):
        expected += (z[j + 1] - z[j]) * field.gradient(z[j + 1], 2)
    made = ig.Method(ig.baselines.Given(STARTS), path, ig.rules.Right(), record=("shares",))(
        field, X
    )
    torch.testing.assert_close(made.shares, expected, rtol=0, atol=1e-14)


def test_overshoot_oscillates_with_fixed_steps() -> None:
    """A reference 2.5 steps away: 0, 1, 2, 3, 2, 3, … steps from the input."""
    x, reference, rate = torch.zeros(1, 2).double(), torch.tensor([[[3.0, 4.0]]]).double(), 2.0
    _, points = corners(descent(identity, 8, rate, step=ig.paths.Fixed()), start=reference, end=x)
    places = points[:, 0, 0].norm(dim=1).flip(0) / rate
    assert places.tolist() == pytest.approx([0, 1, 2, 3, 2, 3, 2, 3, 2], abs=1e-14)


def test_shrinking_takes_the_step_back_and_halves_it() -> None:
    """From 2: the step to 3 is as far from 2.5, taken back; then half a step hits 2.5, where the gradient is zero."""
    x, reference, rate = torch.zeros(1, 2).double(), torch.tensor([[[3.0, 4.0]]]).double(), 2.0
    _, points = corners(descent(identity, 8, rate), start=reference, end=x)
    places = points[:, 0, 0].norm(dim=1).flip(0) / rate
    assert places.tolist() == pytest.approx([0, 1, 2, 2, 2.5, 2.5, 2.5, 2.5, 2.5], abs=1e-14)


def noted(path: Any, field: Any = None, start: Tensor = STARTS, end: Tensor = X) -> Tensor:
    method = ig.Method(ig.baselines.Given(start), path, ig.rules.Right())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IncompleteWarning)
        return method(field or ig.fields.Function(smooth), end).notes["distance"]


@pytest.mark.parametrize("norm", ["l2", "l1", "sign"])
@pytest.mark.parametrize("rate", [0.05, 0.5, 5.0])
@pytest.mark.parametrize("step", [ig.paths.Shrinking(), ig.paths.Implicit()], ids=repr)
def test_guarded_steps_never_go_further_away(norm: str, rate: float, step: Any) -> None:
    distance = noted(descent(bend, 20, rate, norm=norm, step=step))
    # From the end of the walk to the input the distance never falls.
    assert bool((distance[1:] >= distance[:-1]).all())
    assert bool((distance[0] < distance[-1]).all())


def test_fixed_steps_may() -> None:
    distance = noted(descent(bend, 20, 0.5, step=ig.paths.Fixed()))
    assert bool((distance[1:] < distance[:-1]).any())


@pytest.mark.parametrize("name", [name for name in PATHS if name.startswith("Descent")])
def test_the_noted_distance_is_that_of_the_corners(name: str) -> None:
    _, points = corners(PATHS[name])
    found = noted(PATHS[name])
    assert found.shape == (13, 2, 3)
    for j, r, b in itertools.product(range(13), range(2), range(3)):
        expected = (bend(points[j, r, b][None]) - bend(STARTS[r, b][None])).square().sum()
        torch.testing.assert_close(found[j, r, b], expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("step", STEPS, ids=repr)
@pytest.mark.parametrize("norm", ["l2", "l1", "sign"])
def test_a_reference_that_is_the_input(norm: str, step: Any) -> None:
    """The published code divides zero by zero here. The walk stands still; its neighbour in the batch walks on."""
    start = STARTS.clone()
    start[0, 1] = X[1]
    path = descent(bend, 5, 0.1, norm=norm, step=step)
    _, points = corners(path, start=start)
    assert bool(torch.isfinite(points).all())
    assert torch.equal(points[:, 0, 1], X[1].expand(6, 5))
    assert bool((points[0, 1] != X).any(1).all())
    made = ig.Method(ig.baselines.Given(start), path, ig.rules.Midpoint(2), record=("shares",))
    shares = made(ig.fields.Function(smooth), X).shares
    assert bool((shares[0, 1] == 0).all())
    assert bool(torch.isfinite(shares).all())


def test_a_flat_representation_stops_the_walk() -> None:
    flat = lambda z: torch.relu(z - 50)  # noqa: E731
    _, points = corners(descent(flat, 4, 0.1))
    assert torch.equal(points, X.expand_as(points))


@pytest.mark.parametrize("step", [ig.paths.Shrinking(), ig.paths.Fixed()], ids=repr)
def test_the_clip_is_respected(step: Any) -> None:
    low, high = -0.5, 0.4
    _, points = corners(descent(bend, 20, 0.2, (low, high), step=step), end=0.4 * X)
    assert (float(points.min()), float(points.max())) == (low, high)


def test_an_input_outside_the_box_is_brought_inside_at_the_first_step() -> None:
    _, points = corners(descent(bend, 5, 0.1, (-0.5, 0.4), step=ig.paths.Fixed()))
    assert torch.equal(points[-1], X.expand_as(STARTS))
    assert bool(((points[:-1] >= -0.5) & (points[:-1] <= 0.4)).all())


def test_the_default_box_is_what_the_images_may_hold() -> None:
    n = ig.Normalisation((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    x = n.encode(0.5 + 0.5 * wave(2, 3, 4, 4))
    reference = n.encode(0.5 + 0.5 * wave(1, 2, 3, 4, 4, phase=1))
    field = ig.TorchField(filled(nn.Sequential(nn.Flatten(), nn.Linear(48, 3))), 0, normalisation=n)
    away = lambda z: (10 * z.flatten(1)).sin()  # noqa: E731
    _, points = corners(descent(away, 9, 5.0, None, step=ig.paths.Fixed()), field, reference, x)
    mean, std = (torch.tensor(t, dtype=torch.float64)[:, None, None] for t in (n.mean, n.std))
    colours = points * std + mean
    assert float(colours.min()) == pytest.approx(0, abs=1e-12)
    assert float(colours.max()) == pytest.approx(1, abs=1e-12)


def test_the_default_box_is_each_examples_own_range() -> None:
    """Without clip or images: the range of the input and its references, so that a batch equals its examples."""
    path = ig.paths.Descent(bend, 15, 0.4, step=ig.paths.Fixed())
    _, points = corners(path)
    for b in range(3):
        both = torch.cat([STARTS[:, b], X[b : b + 1]])
        assert float(points[:, :, b].max()) <= float(both.max())
        assert float(points[:, :, b].min()) >= float(both.min())
        _, alone = corners(path, start=STARTS[:, b : b + 1], end=X[b : b + 1])
        torch.testing.assert_close(alone[:, :, 0], points[:, :, b], rtol=0, atol=1e-14)


@pytest.mark.parametrize("clip", [(-0.6, 0.8), None], ids=["a given box", "the default box"])
@pytest.mark.parametrize("rate", [0.2, ig.paths.Relative(0.05)], ids=["a number", "relative"])
def test_references_are_walked_independently(clip: Any, rate: Any) -> None:
    """R references are R single runs (research 2.12), whatever the box and the step are left to be."""
    path = ig.paths.Descent(bend, 10, rate, clip)
    _, points = corners(path)
    for r in range(2):
        _, alone = corners(path, start=STARTS[r : r + 1])
        torch.testing.assert_close(alone[:, 0], points[:, r], rtol=0, atol=1e-14)


def test_the_map_is_the_mean_over_references() -> None:
    field, path = ig.fields.Function(smooth), descent(bend, 10, 0.1)
    method = lambda s: ig.Method(ig.baselines.Given(s), path, ig.rules.Midpoint(2))  # noqa: E731
    whole = method(STARTS)(field, X).values
    singles = [method(STARTS[r : r + 1])(field, X).values for r in range(2)]
    torch.testing.assert_close(whole, (singles[0] + singles[1]) / 2, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("norm", "order"), [("l2", 2), ("l1", 1), ("sign", float("inf"))])
def test_step_lengths(norm: str, order: float) -> None:
    _, points = corners(descent(bend, 6, 0.07, norm=norm, step=ig.paths.Fixed()))
    steps = torch.linalg.vector_norm(points[1:] - points[:-1], ord=order, dim=3)
    torch.testing.assert_close(steps, torch.full_like(steps, 0.07), rtol=1e-12, atol=0)


def test_sign_moves_every_feature_alike() -> None:
    _, points = corners(descent(identity, 2, 0.07, norm="sign", step=ig.paths.Fixed()))
    steps = (points[1:] - points[:-1]).abs()
    torch.testing.assert_close(steps, torch.full_like(steps, 0.07), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("norm", "length"), [("l2", 2.0 * 5**0.5), ("l1", 2.0 * 5), ("sign", 2.0)])
def test_relative_rate(norm: str, length: float) -> None:
    """A fraction of the box's diagonal in the step's own norm: range · √n, range · n, range."""
    path = ig.paths.Descent(
        bend, 4, ig.paths.Relative(0.01), (-1.0, 1.0), norm, step=ig.paths.Fixed()
    )
    absolute = ig.paths.Descent(bend, 4, 0.01 * length, (-1.0, 1.0), norm, step=ig.paths.Fixed())
    torch.testing.assert_close(corners(path)[1], corners(absolute)[1], rtol=0, atol=1e-14)


def test_relative_rate_without_bounds() -> None:
    path = ig.paths.Descent(bend, 4, ig.paths.Relative(), (-float("inf"), float("inf")))
    with pytest.raises(ig.errors.InputError, match=r"bounded range: give clip="):
        corners(path)


def test_clip_upside_down() -> None:
    with pytest.raises(ig.errors.InputError, match=r"low below high"):
        corners(ig.paths.Descent(bend, 4, 0.1, (1.0, 0.0)))


def test_scaling_the_representation_changes_nothing() -> None:
    one = corners(descent(bend, 8, 0.1))[1]
    other = corners(descent(lambda z: 1e3 * bend(z), 8, 0.1))[1]
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


# --- representations --------------------------------------------------------------------------------------------------


def representations(model: nn.Sequential) -> dict[str, Any]:
    return {
        "by name": "5",
        "as a module": model[5],
        "as a function": model[:6],
        "as a closure": lambda z: model[:6](z),
        "by default": None,
    }


@pytest.mark.parametrize(
    "kind", ["by name", "as a module", "as a function", "as a closure", "by default"]
)
def test_representations_agree(kind: str) -> None:
    model = softplus_cnn()
    x, reference = 0.5 + 0.5 * wave(2, 3, 8, 8), 0.5 + 0.5 * wave(2, 2, 3, 8, 8, phase=1)
    field = ig.TorchField(model, 1)
    expected = [
        torch.stack(gradpath(lambda z: model[:6](z), x[b], reference[r, b], 5, 0.3, 0.0, 1.0)).flip(
            0
        )
        for r, b in itertools.product(range(2), range(2))
    ]
    path = ig.paths.Descent(representations(model)[kind], 5, 0.3, (0.0, 1.0), step=ig.paths.Fixed())
    _, points = corners(path, field, reference, x)
    torch.testing.assert_close(
        points.flatten(1, 2).movedim(1, 0), torch.stack(expected), rtol=0, atol=1e-12
    )


def test_the_default_is_the_linear_layer_that_runs_last() -> None:
    """Not the one that is defined last."""

    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.body = nn.Linear(4, 3), nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.tanh(self.body(x)))

    model = filled(Backwards())
    field = ig.TorchField(model, 0)
    _, default = corners(descent(None, 4, 0.1), field)
    _, asked = corners(descent(lambda z: torch.tanh(model.body(z)), 4, 0.1), field)
    torch.testing.assert_close(default, asked, rtol=0, atol=1e-14)


@pytest.mark.parametrize("layer", ["0", "1"])
def test_the_output_of_a_layer_is_not_what_an_inplace_layer_made_of_it(layer: str) -> None:
    """ "0" is the linear layer's output, also where the ReLU behind it works in place."""

    def path(inplace: bool) -> Tensor:
        model = filled(nn.Sequential(nn.Linear(5, 8), nn.ReLU(inplace=inplace), nn.Linear(8, 3)))
        return corners(descent(layer, 6, 0.2, step=ig.paths.Fixed()), ig.TorchField(model, 0))[1]

    torch.testing.assert_close(path(True), path(False), rtol=0, atol=1e-14)


def test_unknown_layers() -> None:
    with pytest.raises(
        ig.errors.UnknownName, match=r"There is no layer named 'hidden'. Known: '0', '1', '2'"
    ):
        corners(descent("hidden", 2, 0.1), ig.TorchField(tanh_mlp(5), 0))


def test_no_linear_layer_to_look_behind() -> None:
    model = filled(nn.Sequential(nn.Conv1d(1, 3, 5), nn.Flatten()))
    with pytest.raises(
        ig.errors.ModelError, match=r"no linear layer whose input .* give representation="
    ):
        corners(descent(None, 2, 0.1), ig.TorchField(model, 0), STARTS[:, :, None], X[:, None])


def test_a_representation_without_rows() -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(0)

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.last = Mean(), nn.Linear(5, 2).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.last(x + 0 * self.mean(x))

    with pytest.raises(
        ig.errors.ModelError, match=r"one entry per row .* the output of layer 'mean' gave 5"
    ):
        corners(descent("mean", 2, 0.1), ig.TorchField(Odd(), 0))


def test_a_field_without_layers() -> None:
    with pytest.raises(
        ig.errors.TargetError,
        match=r"Linear has no layers .* representation= a function of the input",
    ):
        corners(descent("fc", 2, 0.1), ig.fields.Linear(wave(5)))


# --- cost -------------------------------------------------------------------------------------------------------------


def test_one_forward_pass_serves_both_gradients() -> None:
    model = Counting(tanh_mlp(5))
    field = ig.TorchField(model, 0, batch_size=1000)
    list(ig.paths.Descent("inner.1", 7, 0.1, (-9.0, 9.0))(field, STARTS, X))
    assert model.gradients == (7 + 1) * 2 * 3
    assert model.values == 2 * 3  # the references' representations
    assert model.calls == 7 + 1 + 1


def test_a_function_of_the_input_costs_the_model_nothing_more() -> None:
    model = Counting(tanh_mlp(5))
    list(descent(bend, 7, 0.1)(ig.TorchField(model, 0), STARTS, X))
    assert (model.gradients, model.values) == ((7 + 1) * 2 * 3, 0)


@pytest.mark.parametrize(
    ("rule", "order"), [(ig.rules.Right(), 1), (ig.rules.Left(), 1), (ig.rules.Midpoint(), 2)]
)
def test_the_gap_closes_with_the_step(rule: Any, order: int, quiet: None) -> None:
    """At a fixed length of the walk: linearly for the published rule, quadratically with midpoints."""
    field = ig.fields.Function(smooth)

    def gap(steps: int) -> float:
        path = ig.paths.Descent(identity, steps, 0.6 / steps, (-9.0, 9.0), step=ig.paths.Fixed())
        return float(
            ig.Method(ig.baselines.Given(STARTS), path, rule)(field, X).residual.abs().max()
        )

    coarse, fine = gap(20), gap(80)
    observed = torch.tensor(coarse / fine).log2() / 2
    assert float(observed) == pytest.approx(order, abs=0.15)
