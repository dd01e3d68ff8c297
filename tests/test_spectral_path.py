"""Spectral paths: the paper's sum of components, the published numbers, and every basis and gate."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.fft
import torch
from hypothesis import given
from torch import Tensor

import integrand as ig
from integrand import testing
from integrand.paths.spectral import GATES
from tests.problems import Counting, img, img_input, softplus_cnn, tanh_mlp, wave

PUBLISHED = json.loads((Path(__file__).parent / "references" / "paths.json").read_text())
FINE = ig.rules.GaussLegendre(4)

BASES = {
    "singular values": ig.paths.SVD(),
    "singular values, joint": ig.paths.SVD(joint=True),
    "cosines": ig.paths.DCT(),
    "wavelets": ig.paths.Haar(),
    "one wavelet": ig.paths.Haar(1),
    "pyramid": ig.paths.Pyramid(),
    "one step of the pyramid": ig.paths.Pyramid(1),
}
EVERY_BASIS = pytest.mark.parametrize("basis", BASES.values(), ids=list(BASES))

X = 0.5 + 0.5 * wave(2, 3, 7, 6, phase=0.3)
STARTS = 0.3 * wave(2, 2, 3, 7, 6, phase=2)


def near(found: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


def smooth(z: Tensor) -> Tensor:
    flat = z.flatten(1)
    return (
        torch.exp(flat @ wave(flat.shape[1], phase=0.5).to(z) / flat.shape[1] ** 0.5)
        + flat[:, 0] * flat[:, -1]
    )


def other(z: Tensor) -> Tensor:
    flat = z.flatten(1)
    return (
        torch.tanh(flat @ wave(flat.shape[1], phase=1.5).to(z) / flat.shape[1] ** 0.5) * flat[:, 1]
    )


FIELD = ig.fields.Function(smooth)


def corners(path: Any, start: Tensor = STARTS, end: Tensor = X) -> Tensor:
    return ig.paths.corners(path, FIELD, start, end)[1]


# --- the paper, slowly ------------------------------------------------------------------------------------------------


def gates_by_hand(strength: float, alpha: float, overlap: float) -> float:
    opens = (1 - overlap) * (1 - strength)
    return min(max((alpha - opens) / overlap, 0.0), 1.0)


def corner_by_hand(b: np.ndarray, x: np.ndarray, alpha: float, overlap: float) -> np.ndarray:
    """b_c + Σ_i φ_i(α) σ_i u_i v_iᵀ for every channel."""
    made = b.copy()
    for c in range(len(x)):
        u, s, vt = np.linalg.svd(x[c] - b[c])
        for i in range(len(s)):
            made[c] += gates_by_hand(s[i] / s[0], alpha, overlap) * s[i] * np.outer(u[:, i], vt[i])
    return made


@pytest.mark.parametrize("overlap", [0.05, 0.4, 1.0])
def test_corners_are_the_papers_sum(overlap: float) -> None:
    points = corners(ig.paths.Spectral(9, overlap))
    for k in range(10):
        for r in range(2):
            for b in range(2):
                expected = corner_by_hand(STARTS[r, b].numpy(), X[b].numpy(), k / 9, overlap)
                near(points[k, r, b], torch.from_numpy(expected), 1e-13)


def test_joint_singular_values_take_the_channels_on_top_of_one_another() -> None:
    joint = corners(ig.paths.Spectral(9, basis=ig.paths.SVD(joint=True)))
    stacked = corners(ig.paths.Spectral(9), STARTS.reshape(2, 2, 21, 6), X.reshape(2, 21, 6))
    near(joint.reshape(stacked.shape), stacked, 1e-13)
    assert float((joint - corners(ig.paths.Spectral(9))).abs().max()) > 0.01


@pytest.mark.parametrize("overlap", [0.4, 1.0])
def test_published_numbers(overlap: float) -> None:
    """100 points are 99 pieces; the gradient at the start of each."""
    method = ig.methods.spectral(steps=99, overlap=overlap, rule=ig.rules.Left())
    made = ig.explain(img, img_input(), target=ig.targets.Probability(0), method=method)
    expected = torch.tensor(
        PUBLISHED[f"SpectralIG w={overlap}"]["official"], dtype=torch.float64
    ).reshape(3, 4, 4)
    near(made.values[0], expected, 1e-8)


def test_midpoints_converge_faster_to_the_same_integral() -> None:
    explain = lambda steps, rule: (  # noqa: E731
        ig.explain(
            img,
            img_input(),
            target=ig.targets.Probability(0),
            method=ig.methods.spectral(steps=steps, rule=rule),
        ).values
    )
    limit = explain(1000, FINE)
    left, middle = (
        float((explain(99, rule) - limit).abs().max())
        for rule in (ig.rules.Left(), ig.rules.Midpoint())
    )
    assert left < 1e-2
    assert middle < left / 20


# --- every basis ------------------------------------------------------------------------------------------------------

images = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 19), st.integers(1, 19))


@EVERY_BASIS
@given(shape=images, phase=st.floats(0, 6), dtype=st.sampled_from([torch.float64, torch.float32]))
def test_all_components_together_are_the_change(
    basis: Any, shape: Any, phase: float, dtype: torch.dtype
) -> None:
    change = wave(*shape, phase=phase).to(dtype)
    split = basis(change)
    strengths = split.strengths
    assert strengths.dtype == dtype
    assert float(strengths.max()) == 1
    assert float(strengths.min()) >= 0
    ones = torch.ones(2, *strengths.shape, dtype=dtype)
    made = split.compose(ones)
    assert made.shape == (2, *shape)
    assert made.dtype == dtype
    near(made, change.expand_as(made), 1e-13 if dtype == torch.float64 else 2e-5)
    assert float(split.compose(0 * ones).abs().max()) == 0


@EVERY_BASIS
def test_sums_are_of_components_of_their_own(basis: Any) -> None:
    """Linear in the gates, so that one gate alone shows its component; the components add up."""
    change = wave(2, 3, 7, 6)
    split = basis(change)
    inner = split.strengths[0].numel()
    one = torch.eye(inner, dtype=torch.float64).reshape(inner, 1, *split.strengths.shape[1:])
    pieces = split.compose(one.expand(inner, *split.strengths.shape))
    near(pieces.sum(0), change, 1e-13)
    weights = 0.5 + 0.5 * wave(inner)
    together = (weights.reshape(inner, *(1,) * split.strengths.ndim) * one).sum(0, keepdim=True)
    near(
        split.compose(together.expand(1, *split.strengths.shape))[0],
        (weights.reshape(-1, 1, 1, 1, 1) * pieces).sum(0),
        1e-13,
    )


def test_cosines_are_scipys() -> None:
    change = wave(2, 3, 7, 6)
    split = ig.paths.DCT()(change)
    gates = torch.rand(4, 1, 7, 6, generator=torch.Generator().manual_seed(1)).double()
    coefficients = scipy.fft.dctn(change.numpy(), axes=(-2, -1), norm="ortho")
    expected = scipy.fft.idctn(
        gates.numpy()[:, :, None] * coefficients, axes=(-2, -1), norm="ortho"
    )
    near(split.compose(gates), torch.from_numpy(expected), 1e-13)
    strengths = split.strengths[0]
    for u in range(7):
        for v in range(6):
            assert float(strengths[u, v]) == pytest.approx(
                1 - ((u / 6) ** 2 + (v / 5) ** 2) ** 0.5 / 2**0.5, abs=1e-15
            )


def one_at_a_time(split: ig.paths.Split) -> Tensor:
    count = split.strengths.shape[1]
    return split.compose(torch.eye(count, dtype=torch.float64)[:, None])


def test_wavelets_go_from_the_average_to_the_finest_differences() -> None:
    """Orthogonal where sides are even; every level is constant on the squares of the level above it."""
    change = wave(1, 1, 16, 16)
    split = ig.paths.Haar()(change)
    assert split.strengths[0].tolist() == pytest.approx([1 - i / 12 for i in range(13)], abs=1e-15)
    pieces = one_at_a_time(split)[:, 0, 0]
    near(pieces[0], change.mean().expand(16, 16), 1e-14)
    products = torch.einsum("ixy,jxy->ij", pieces, pieces)
    near(products, torch.diag(products.diag()), 1e-12)
    for i in range(12):
        side = 8 >> (i // 3)  # the coarsest first: constant on 8 × 8, then 4 × 4, …
        blocks = pieces[1 + i].reshape(16 // side, side, 16 // side, side)
        near(blocks, blocks[:, :1, :, :1].expand_as(blocks), 1e-13)
        twice = pieces[1 + i].reshape(8 // side, 2 * side, 8 // side, 2 * side)
        near(twice.mean((1, 3)), torch.zeros(8 // side, 8 // side).double(), 1e-13)


def test_one_wavelet_of_four_pixels() -> None:
    change = torch.tensor([[[[1.0, 2.0], [4.0, 9.0]]]], dtype=torch.float64)
    pieces = one_at_a_time(ig.paths.Haar()(change))[:, 0, 0]
    assert pieces[0].tolist() == [[4.0, 4.0], [4.0, 4.0]]
    assert pieces[1].tolist() == [[-1.5, 1.5], [-1.5, 1.5]]
    assert pieces[2].tolist() == [[-2.5, -2.5], [2.5, 2.5]]
    assert pieces[3].tolist() == [[1.0, -1.0], [-1.0, 1.0]]


@pytest.mark.parametrize(
    ("size", "count"), [((1, 9), 1), ((2, 9), 4), ((5, 5), 10), ((16, 17), 13), ((200, 3), 7)]
)
def test_levels_are_what_the_size_allows(size: tuple[int, int], count: int) -> None:
    change = wave(1, 1, *size)
    assert ig.paths.Haar()(change).strengths.shape == (1, count)
    assert ig.paths.Pyramid()(change).strengths.shape == (1, 1 + (count - 1) // 3)


def test_the_pyramid_goes_from_the_smallest_picture_to_the_finest_residue() -> None:
    """Its first piece is the enlarged average, and a checkerboard is all in the last."""
    change = wave(1, 1, 16, 16)
    split = ig.paths.Pyramid()(change)
    assert split.strengths[0].tolist() == [1, 0.75, 0.5, 0.25, 0]
    near(one_at_a_time(split)[0, 0, 0], change.mean().expand(16, 16), 1e-14)
    board = (
        (torch.arange(16)[:, None] + torch.arange(16))
        .remainder(2)
        .double()
        .mul(2)
        .sub(1)[None, None]
    )
    pieces = one_at_a_time(ig.paths.Pyramid()(board))
    near(pieces[-1], board, 1e-14)
    near(pieces[:-1], torch.zeros_like(pieces[:-1]), 1e-14)


def test_equal_singular_values_are_no_ambiguity() -> None:
    """Q diag(3, 3, 1, 1) P: whichever vectors the decomposition picks, pairs count alike."""
    q, p = (torch.linalg.qr(wave(4, 4, phase=phase))[0] for phase in (0.2, 1.1))
    values = torch.tensor([3.0, 3.0, 1.0, 1.0], dtype=torch.float64)
    change = q @ torch.diag(values) @ p
    zero = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    for k, point in enumerate(corners(ig.paths.Spectral(7), zero, change[None])):
        gates = torch.tensor(
            [gates_by_hand(v / 3, k / 7, 0.4) for v in (3, 3, 1, 1)], dtype=torch.float64
        )
        near(point[0, 0], q @ torch.diag(values * gates) @ p, 1e-14)


# --- every gate -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", list(GATES))
def test_gates_go_from_shut_to_open(gate: str) -> None:
    u = torch.linspace(0, 1, 201, dtype=torch.float64)
    opened = GATES[gate](u)
    near(opened[[0, -1]], torch.tensor([0.0, 1.0]).double(), 1e-15)
    assert bool((opened.diff() >= 0).all())
    near(opened + opened.flip(0), torch.ones(201).double(), 1e-15 if gate != "step" else 1.0)


def test_the_published_gates() -> None:
    u = torch.linspace(0, 1, 33, dtype=torch.float64)
    near(GATES["cosine"](u), 0.5 - 0.5 * torch.cos(u * torch.pi), 1e-15)
    raw, low, high = (
        torch.sigmoid(12 * (v - 0.5))
        for v in (u, torch.tensor(0.0).double(), torch.tensor(1.0).double())
    )
    near(GATES["sigmoid"](u), (raw - low) / (high - low), 1e-14)
    assert GATES["step"](torch.tensor([0.0, 0.49, 0.5, 1.0])).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("gate", [*GATES, lambda u: u**3])
@EVERY_BASIS
def test_conforms(basis: Any, gate: Any) -> None:
    path = ig.paths.Spectral(5, 0.3, basis, gate)
    testing.check_path(path, field=FIELD, x=X, references=STARTS)
    testing.check_path(path, field=FIELD, x=X[:, 0], references=STARTS[:, :, 0])


@pytest.mark.parametrize("gate", list(GATES))
@EVERY_BASIS
def test_complete(basis: Any, gate: str) -> None:
    made = ig.methods.spectral(
        ig.baselines.Given(STARTS),
        12,
        basis=basis,
        gate=gate,
        rule=ig.rules.GaussLegendre(8),
        record=("shares",),
    )(FIELD, X)
    near(made.shares.flatten(2).sum(2), smooth(X) - FIELD.value(STARTS, 2), 1e-9)
    assert torch.equal(made.baselines, STARTS)


# --- the path ---------------------------------------------------------------------------------------------------------


@EVERY_BASIS
def test_an_overlap_of_one_is_the_straight_line(basis: Any) -> None:
    near(corners(ig.paths.Spectral(6, 1.0, basis)), corners(ig.paths.Straight(6)), 1e-14)
    bent = ig.methods.spectral(0.2, 6, 1.0, basis=basis)(FIELD, X)
    straight = ig.methods.integrated(0.2, ig.rules.Midpoint(), ig.paths.Straight(6))(FIELD, X)
    near(bent.values, straight.values, 1e-13)
    away = corners(ig.paths.Spectral(6, 0.4, basis)) - corners(ig.paths.Straight(6))
    assert float(away.abs().max()) > 0.05


@EVERY_BASIS
def test_linear_models(basis: Any) -> None:
    weight = wave(3, 7, 6, phase=1)
    made = ig.methods.spectral(0.2, 9, basis=basis)(ig.fields.Linear(weight), X)
    near(made.values, weight * (X - 0.2), 1e-13)


def test_linear_in_the_function() -> None:
    a, c = 1.5, -0.7
    method = ig.methods.spectral(0.1, 6)
    both = method(ig.fields.Function(lambda z: a * smooth(z) + c * other(z)), X).values
    near(both, a * method(FIELD, X).values + c * method(ig.fields.Function(other), X).values, 1e-14)


@EVERY_BASIS
@given(data=st.data())
def test_a_batch_is_its_examples(basis: Any, data: Any) -> None:
    shape = data.draw(images)[1:]
    x = wave(3, *shape, phase=data.draw(st.floats(0, 6)))
    method = ig.methods.spectral(
        0.1, data.draw(st.integers(1, 5)), data.draw(st.floats(0.05, 1)), basis=basis
    )
    field = ig.fields.Function(lambda z: torch.exp(0.3 * z.flatten(1).sin().sum(1)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
        whole = method(field, x).values
        for b in range(3):
            near(
                method(field, x[b : b + 1]).values[0],
                whole[b],
                1e-10 * (1 + float(whole[b].abs().max())),
            )


def test_every_reference_has_a_path_of_its_own() -> None:
    points = corners(ig.paths.Spectral(5))
    for r in range(2):
        near(points[:, r : r + 1], corners(ig.paths.Spectral(5), STARTS[r : r + 1]), 1e-14)


@EVERY_BASIS
def test_blocks_do_not_change_the_path(basis: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ig.paths.Spectral(7, basis=basis)
    whole = corners(path)
    monkeypatch.setattr("integrand.core.memory_budget._BLOCK_ELEMENTS", 3 * STARTS.numel())
    assert [len(segment.start) for segment in path(FIELD, STARTS, X)] == [3, 3, 1]
    near(corners(path), whole, 1e-14)
    testing.check_path(path, field=FIELD, x=X, references=STARTS)


@EVERY_BASIS
def test_it_streams(basis: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million steps are not made before the first is used."""
    monkeypatch.setattr("integrand.core.memory_budget._BLOCK_ELEMENTS", 1 << 12)
    segment = next(iter(ig.paths.Spectral(10**6, basis=basis)(FIELD, STARTS, X)))
    assert segment.start.numel() <= 1 << 12
    assert segment.start.untyped_storage().nbytes() <= 8 * ((1 << 12) + STARTS.numel())


def test_single_precision_ends_exactly() -> None:
    start, end = STARTS.float(), 1e3 * X.float()
    points = corners(ig.paths.Spectral(13), start, end)
    assert points.dtype == torch.float32
    assert torch.equal(points[0], start)
    assert torch.equal(points[-1], end.expand_as(start))


def test_the_box_is_left_and_coordinates_turn_back() -> None:
    """What is not claimed does not hold."""
    points = corners(ig.paths.Spectral(40))
    low, high = torch.minimum(STARTS, X), torch.maximum(STARTS, X)
    assert bool(((points < low - 1e-2) | (points > high + 1e-2)).any())
    turns = points.diff(dim=0)
    assert bool(((turns > 1e-3).any(0) & (turns < -1e-3).any(0)).any())


def test_equal_pixels_get_unequal_shares() -> None:
    """F and x treat two pixels alike; their rows and columns differ."""
    x = torch.tensor([[[[1.0, 2.0, 0.0], [0.5, 1.0, 3.0]]]], dtype=torch.float64)
    field = ig.fields.Function(lambda z: (z[:, 0, 0, 0] + z[:, 0, 1, 1]) ** 2 * z[:, 0, 0, 1])
    for method, alike in (
        (ig.methods.spectral(0.0, 50), False),
        (ig.methods.spectral(0.0, 50, 1.0), True),
    ):
        values = method(field, x).values[0, 0]
        assert (abs(float(values[0, 0] - values[1, 1])) < 1e-12) is alike


# --- costs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule", [ig.rules.Midpoint(), ig.rules.Trapezoid(2), ig.rules.GaussLegendre(3)]
)
def test_gradients_are_steps_times_nodes(rule: Any, quiet: None) -> None:
    model = Counting(softplus_cnn())
    x = 0.5 + 0.5 * wave(2, 3, 8, 8)
    made = ig.explain(
        model, x, target=0, method="spectral", steps=6, rule=rule, baseline=[0.0, 0.4]
    )
    assert model.gradients == made.cost.gradients == 6 * rule.gradients * 2 * 2


def test_where_the_path_stands_still_nothing_is_paid(quiet: None) -> None:
    """All singular values alike: everything is in at α = ω, after 4 of 10 pieces."""
    model = Counting(lambda z: z.flatten(1).sin())
    ig.explain(
        model, torch.eye(4).double()[None], target=0, method="spectral", steps=10, overlap=0.4
    )
    assert model.gradients == 4


def test_no_change_no_map() -> None:
    for basis in BASES.values():
        made = ig.methods.spectral(ig.baselines.Given(X[:1]), 6, basis=basis)(FIELD, X[:1])
        assert float(made.values.abs().max()) == 0
        assert made.cost.gradients == 0


def test_to_a_tolerance() -> None:
    model, x = softplus_cnn(), 0.5 + 0.5 * wave(4, 3, 8, 8)
    made = ig.explain(model, x, target=1, method="spectral", steps=10, tol=0.01)
    exact = ig.explain(
        model, x, target=1, method="spectral", steps=10, rule=ig.rules.GaussLegendre(8)
    ).values
    real = (made.values - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
    assert bool((made.error <= 0.01).all())
    assert bool((real <= 0.01).all())


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ig.paths.Spectral(0), "at least one step, not 0"),
        (lambda: ig.paths.Spectral(overlap=0.0), "in from the start, and the path would not begin at the baseline"),
        (lambda: ig.methods.spectral(overlap=1.1), r"overlap is in \(0, 1\], not 1.1"),
        (lambda: ig.paths.Spectral(overlap=float("nan")), r"overlap is in \(0, 1\], not nan"),
        (lambda: ig.paths.Spectral(basis="svd"), r"ig.paths.SVD\(\), DCT\(\), Haar\(\), Pyramid\(\), or a callable"),
        (lambda: ig.paths.Spectral(gate="smooth"), "gate is one of 'linear', 'cosine', 'sigmoid', 'step', or a function"),
        (lambda: ig.paths.Spectral(gate=torch.sigmoid), "goes from 0.5 to 0.731"),
        (lambda: ig.paths.Spectral(gate=lambda u: u + torch.sin(3 * torch.pi * u)), "never goes back"),
        (lambda: ig.paths.Haar(0), "at least once, not 0 times"),
        (lambda: ig.paths.Pyramid(-1), "at least once, not -1 times"),
    ],
)  # fmt: skip
def test_refused(make: Any, message: str) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        make()


@pytest.mark.parametrize("shape", [(6,), (2, 3, 4, 5)])
def test_what_is_no_matrix(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ig.errors.ShapeError, match=r"needs images .* or matrices .* ig.paths.Straight\(\)"
    ):
        ig.methods.spectral(steps=3)(FIELD, wave(2, *shape))


def test_a_table_by_name() -> None:
    with pytest.raises(ig.errors.ShapeError, match="an example has shape 6: reshape the input"):
        ig.explain(tanh_mlp(), wave(2, 6), target=0, method="spectral")


def halves(change: Tensor) -> ig.paths.Split:
    """A basis of one's own: the left half of the picture, then the right one."""
    left = torch.zeros_like(change)
    left[..., : change.shape[-1] // 2] = 1
    masks = torch.stack([left, 1 - left])

    def compose(gates: Tensor) -> Tensor:
        return torch.einsum("kzi,inchw->knchw", gates, masks * change)

    return ig.paths.Split(torch.tensor([[1.0, 0.0]], dtype=change.dtype), compose)


def test_a_basis_of_ones_own() -> None:
    path = ig.paths.Spectral(4, 0.5, halves)
    testing.check_path(path, field=FIELD, x=X, references=STARTS)
    middle = corners(path)[2]
    near(middle[..., :3], X[..., :3].expand(2, 2, 3, 7, 3), 1e-14)
    near(middle[..., 3:], STARTS[..., 3:], 1e-14)


def test_a_basis_with_strengths_out_of_range() -> None:
    wrong = lambda change: ig.paths.Split(torch.tensor([[2.0, 0.0]]), lambda gates: gates)  # noqa: E731
    with pytest.raises(
        ig.errors.InputError, match="gave strengths from 0 to 2; they are between 0 and 1"
    ):
        corners(ig.paths.Spectral(4, basis=wrong))


def test_as_typed() -> None:
    made = ig.methods.spectral(0.5, 50, basis=ig.paths.Haar(3), gate="cosine")
    assert (
        repr(made)
        == "Method(Constant(0.5), Spectral(50, basis=Haar(3), gate='cosine'), Midpoint())"
    )
