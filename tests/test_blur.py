"""Blur paths: scipy's Gaussian at every corner, the published numbers, and what a path that brings its own start promises."""

from __future__ import annotations

import itertools
import json
import warnings
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import scipy.ndimage
import torch
from hypothesis import given
from torch import Tensor, nn

import integrand as ig
from integrand import testing
from integrand.paths.blur import blurred
from tests.problems import Counting, filled, img, img_input, softplus_cnn, tanh_mlp, wave

PUBLISHED = json.loads((Path(__file__).parent / "references" / "paths.json").read_text())
MODES = {"reflect": "reflect", "zero": "constant"}
FINE = ig.rules.GaussLegendre(4)


@pytest.fixture(params=["matrices", "Fourier"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to convolve."""
    if request.param == "Fourier":
        monkeypatch.setattr("integrand.paths.blur._DENSE", 0)
    return request.param


def near(found: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


def by_scipy(x: Tensor, sigma: float, axes: tuple[int, ...], border: str) -> Tensor:
    widths = [sigma if axis - x.ndim in axes else 0 for axis in range(x.ndim)]
    return torch.from_numpy(scipy.ndimage.gaussian_filter(x.numpy(), widths, mode=MODES[border]))


# --- the blur ---------------------------------------------------------------------------------------------------------

WIDTHS = [0.0, 0.1, 0.13, 0.4, 1.0, 1.12, 1.13, 3.7, 25.0, 300.0]


@pytest.mark.parametrize("border", list(MODES))
@pytest.mark.parametrize(
    ("shape", "axes"),
    [((7,), (-1,)), ((1,), (-1,)), ((2, 3, 6, 9), (-2, -1)), ((2, 3, 6, 9), (-1,)), ((4, 5, 2), (-3,)), ((3, 4, 5, 6), (-3, -1))],
)  # fmt: skip
def test_scipys_gaussian(
    shape: tuple[int, ...], axes: tuple[int, ...], border: str, form: str
) -> None:
    x = wave(*shape, phase=0.4)
    made = blurred(x, torch.tensor(WIDTHS, dtype=torch.float64), axes, border)
    assert made.shape == (len(WIDTHS), *shape)
    for sigma, found in zip(WIDTHS, made, strict=True):
        near(found, by_scipy(x, sigma, axes, border), 1e-14)


@pytest.mark.parametrize("border", list(MODES))
def test_long_axes_go_by_fourier(border: str) -> None:
    x = wave(2, 1500, phase=0.2)
    made = blurred(x, torch.tensor([0.7, 90.0], dtype=torch.float64), (-1,), border)
    near(made[0], by_scipy(x, 0.7, (-1,), border), 1e-13)
    near(made[1], by_scipy(x, 90.0, (-1,), border), 1e-13)


def test_single_precision(form: str) -> None:
    x, widths = wave(3, 20, 30), torch.tensor([0.3, 2.0, 40.0], dtype=torch.float64)
    made = blurred(x.float(), widths, (-2, -1))
    assert made.dtype == torch.float32
    near(made.double(), blurred(x, widths, (-2, -1)), 1e-6)


shapes = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))


@given(shape=shapes, sigma=st.floats(0.01, 60), fourier=st.booleans())
def test_reflection_keeps_the_mean_and_the_range(
    shape: tuple[int, int, int], sigma: float, fourier: bool
) -> None:
    """Rows and columns of every matrix add up to one."""
    x = wave(*shape, phase=sigma)
    with pytest.MonkeyPatch.context() as patch:
        if fourier:
            patch.setattr("integrand.paths.blur._DENSE", 0)
        made = blurred(x, torch.tensor([sigma], dtype=torch.float64), (-2, -1))[0]
    near(made.mean((1, 2)), x.mean((1, 2)), 1e-13)
    assert bool((made.amax((1, 2)) <= x.amax((1, 2)) + 1e-13).all())
    assert bool((made.amin((1, 2)) >= x.amin((1, 2)) - 1e-13).all())


# --- the path ---------------------------------------------------------------------------------------------------------

X = 0.5 + 0.5 * wave(3, 3, 6, 5, phase=0.3)
STARTS = wave(2, 3, 3, 6, 5, phase=2)


def smooth(z: Tensor) -> Tensor:
    flat = z.flatten(1)
    return (
        torch.exp(flat @ wave(flat.shape[1], phase=0.5).to(z) / flat.shape[1] ** 0.5)
        + flat[:, 0] * flat[:, 7]
    )


def other(z: Tensor) -> Tensor:
    flat = z.flatten(1)
    return (
        torch.tanh(flat @ wave(flat.shape[1], phase=1.5).to(z) / flat.shape[1] ** 0.5) * flat[:, 3]
    )


PATHS = {
    "as published, mirrored": ig.paths.Blur(3.0, 7),
    "zero beyond the edges": ig.paths.Blur(3.0, 7, "zero"),
    "σ² even": ig.paths.Blur(3.0, 7, spacing="sqrt"),
    "columns only": ig.paths.Blur(3.0, 7, axes=(-1,)),
    "rows and channels": ig.paths.Blur(3.0, 7, axes=(1, 0)),
}


@pytest.mark.parametrize("blocks", ["one block", "blocks of two corners"])
@pytest.mark.parametrize("name", list(PATHS))
def test_conforms(name: str, blocks: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if blocks != "one block":
        monkeypatch.setattr("integrand.core.memory_budget._BLOCK_ELEMENTS", 2 * X.numel() + 150)
    field = ig.fields.Function(smooth)
    if form == "Fourier" and blocks != "one block":
        pieces = [len(segment.start) for segment in PATHS[name](field, STARTS, X)]
        assert pieces == [2, 2, 2, 1]
    testing.check_path(PATHS[name], field=field, x=X, references=STARTS, own_start=True)


@pytest.mark.parametrize("border", list(MODES))
@pytest.mark.parametrize("spacing", ["linear", "sqrt"])
def test_corners_are_blurs(border: str, spacing: str) -> None:
    """σ_j = sigma (1 − j/K), or sigma √(1 − j/K): both really run from sigma to 0."""
    path = ig.paths.Blur(4.0, 8, border, spacing)
    clock, points = ig.paths.corners(path, ig.fields.Function(smooth), STARTS, X)
    assert path.segments == 8
    for j in range(9):
        left = 1 - j / 8
        sigma = 4.0 * (left if spacing == "linear" else left**0.5)
        assert float(clock[j]) == j / 8
        for r in range(2):
            near(points[j, r], by_scipy(X, sigma, (-2, -1), border), 1e-14)


def test_widths() -> None:
    clock = torch.linspace(0, 1, 51, dtype=torch.float64)
    linear, root = (
        ig.paths.Blur(50.0, 50, spacing=spacing).widths(clock) for spacing in ("linear", "sqrt")
    )
    assert linear[0] == root[0] == 50
    assert linear[-1] == root[-1] == 0
    near(linear.diff(), torch.full((50,), -1.0).double(), 1e-12)
    near(root.square().diff(), torch.full((50,), -50.0).double(), 1e-10)


def test_blocks_do_not_change_the_map(monkeypatch: pytest.MonkeyPatch, quiet: None) -> None:
    field, method = ig.fields.Function(smooth), ig.methods.blur(3.0, 11, rule=ig.rules.Left())
    whole = method(field, X).values
    monkeypatch.setattr("integrand.core.memory_budget._BLOCK_ELEMENTS", 1)
    near(method(field, X).values, whole, 1e-14)


def test_it_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million steps are not made before the first is used."""
    monkeypatch.setattr("integrand.core.memory_budget._BLOCK_ELEMENTS", 1 << 12)
    segment = next(iter(ig.paths.Blur(3.0, 10**6)(ig.fields.Function(smooth), STARTS, X)))
    assert segment.start[:, 0].numel() <= 1 << 12
    assert segment.start.untyped_storage().nbytes() <= 8 << 12


def test_images_and_matrices_are_blurred_along_both_sides() -> None:
    for x in (X, X[:, 0]):
        _, points = ig.paths.corners(
            ig.paths.Blur(2.0, 2), ig.fields.Function(smooth), x[None] * 0, x
        )
        near(points[0, 0], by_scipy(x, 2.0, (-2, -1), "reflect"), 1e-14)


# --- the published numbers --------------------------------------------------------------------------------------------


def from_channels_last(numbers: list[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64).reshape(4, 4, 3).permute(2, 0, 1)


def gradient(z: Tensor) -> Tensor:
    leaf = z.clone().requires_grad_()
    (slope,) = torch.autograd.grad(img(leaf)[:, 0].sum(), leaf)
    return slope


def official(x: Tensor, sigma: float, steps: int, *, root: bool, h: float = 0.01) -> Tensor:
    """The authors' sum, restated: −Σ_i (σ_{i+1} − σ_i) ∇F(G_σi ∗ x) ⊙ (G_{σi + h} ∗ x − G_σi ∗ x) / h, zeros beyond the edges.

    With ``root`` σ_i = √(i · sigma / steps), which ends at √sigma.
    """
    i = torch.arange(steps + 1, dtype=torch.float64)
    widths = (i * sigma / steps).sqrt() if root else i * sigma / steps
    here, further = (blurred(x[0], w, (-2, -1), "zero") for w in (widths[:-1], widths[:-1] + h))
    each = widths.diff()[:, None, None, None] * gradient(here) * (further - here) / h
    return -each.sum(0)


@pytest.mark.parametrize(
    ("case", "root"),
    [
        ("BlurIG {'max_sigma': 5, 'steps': 50}", False),
        ("BlurIG {'max_sigma': 5, 'steps': 50, 'sqrt': True}", True),
    ],
)
def test_the_published_formula_gives_the_published_numbers(
    case: str, root: bool, form: str
) -> None:
    near(
        official(img_input(), 5, 50, root=root),
        from_channels_last(PUBLISHED[case]["official"]),
        1e-8,
    )


def explained(sigma: float, steps: int, **options: Any) -> Tensor:
    return ig.explain(
        img,
        img_input(),
        target=0,
        method="blur",
        sigma=sigma,
        steps=steps,
        border="zero",
        **options,
    ).values[0]


def test_steps_as_long_as_their_difference_are_a_line_integral() -> None:
    """500 steps of .01 and differences of .01: then the authors' sum telescopes, and is this path with ``Right()``."""
    near(official(img_input(), 5, 500, root=False), explained(5, 500, rule=ig.rules.Right()), 1e-12)


def test_more_steps_converge_to_the_same_integral(quiet: None) -> None:
    """The authors' sum and this path's, further and further subdivided."""
    limit = explained(5, 4000)
    gaps = [float((explained(5, steps) - limit).norm() / limit.norm()) for steps in (10, 40, 160)]
    assert gaps[0] > 4 * gaps[1] > 16 * gaps[2]
    assert gaps[2] < 1e-4
    theirs = [
        float((official(img_input(), 5, n, root=False, h=5 / n) - limit).norm() / limit.norm())
        for n in (50, 500, 5000)
    ]
    assert theirs[0] > 5 * theirs[1] > 25 * theirs[2]
    assert theirs[2] < 1e-3
    assert float((explained(5, 400, spacing="sqrt") - limit).norm() / limit.norm()) < 1e-4


def test_the_published_square_root_ends_too_early(quiet: None) -> None:
    """It converges to the path from √5 pixels, not to the one from 5."""
    theirs = official(img_input(), 5, 4000, root=True, h=0.002)
    assert float((theirs - explained(5**0.5, 400, spacing="sqrt")).norm() / theirs.norm()) < 0.02
    assert float((theirs - explained(5, 400, spacing="sqrt")).norm() / theirs.norm()) > 0.1


# --- the method -------------------------------------------------------------------------------------------------------


def test_maps_add_up_to_the_change_from_the_widest_blur() -> None:
    field = ig.fields.Function(smooth)
    for border in MODES:
        made = ig.methods.blur(2.5, 12, border=border, rule=ig.rules.GaussLegendre(8))(field, X)
        begin = by_scipy(X, 2.5, (-2, -1), border)
        near(made.baselines[0], begin, 1e-14)
        near(made.values.flatten(1).sum(1), smooth(X) - smooth(begin), 1e-9)
        assert made.names == ("widest blur",)


def test_an_even_image_has_a_map_of_zeros_if_it_is_mirrored() -> None:
    even = torch.tensor([0.2, 0.9, -0.4], dtype=torch.float64)[:, None, None].expand(1, 3, 6, 5)
    field = ig.fields.Function(smooth)
    assert float(ig.methods.blur(4.0, 8)(field, even).values.abs().max()) < 1e-15
    assert float(ig.methods.blur(4.0, 8, border="zero")(field, even).values.abs().max()) > 1e-2


def test_mirrored_blurs_do_not_mind_a_normalisation() -> None:
    """Blurring before a normalisation, or after it: the same start if mirrored, another if zeros come in."""
    imagenet = ig.Normalisation.imagenet()
    for border, same in (("reflect", True), ("zero", False)):
        path = ig.paths.Blur(2.0, 3, border)
        raw, normalised = (
            ig.paths.corners(path, ig.fields.Function(smooth), x[None] * 0, x)[1]
            for x in (X, imagenet.encode(X))
        )
        assert torch.allclose(imagenet.encode(raw), normalised, rtol=0, atol=1e-12) is same


def test_linear_in_the_function_and_the_path_in_the_input() -> None:
    a, c = 1.5, -0.7
    method = ig.methods.blur(3.0, 6)
    both = method(ig.fields.Function(lambda z: a * smooth(z) + c * other(z)), X).values
    near(
        both,
        a * method(ig.fields.Function(smooth), X).values
        + c * method(ig.fields.Function(other), X).values,
        1e-14,
    )

    def walk(x):
        return ig.paths.corners(ig.paths.Blur(3.0, 4), ig.fields.Function(smooth), x[None] * 0, x)[
            1
        ]

    near(walk(a * X + c * STARTS[0]), a * walk(X) + c * walk(STARTS[0]), 1e-14)


@given(st.data())
def test_a_batch_is_its_examples(data: Any) -> None:
    shape = data.draw(shapes)
    x = wave(3, *shape, phase=data.draw(st.floats(0, 6)))
    method = ig.methods.blur(
        data.draw(st.floats(0.2, 20)),
        data.draw(st.integers(1, 5)),
        border=data.draw(st.sampled_from(["reflect", "zero"])),
    )
    field = ig.fields.Function(lambda z: torch.exp(0.3 * z.flatten(1).sin().sum(1)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
        whole = method(field, x).values
        for b in range(3):
            near(method(field, x[b : b + 1]).values[0], whole[b], 1e-12)


def test_the_references_only_say_how_many() -> None:
    path = ig.paths.Blur(3.0, 6)
    field = ig.fields.Function(smooth)
    made = ig.Method(ig.baselines.Given(STARTS), path, FINE, record=("shares",))(field, X)
    alone = ig.methods.blur(3.0, 6, rule=FINE)(field, X)
    assert made.shares.shape == (2, *X.shape)
    for share in made.shares:
        near(share, alone.values, 1e-14)


def test_a_series_is_blurred_along_its_time() -> None:
    series = wave(4, 2, 30)
    field = ig.fields.Function(lambda z: (z * wave(2, 30, phase=1)).flatten(1).mean(1).exp())
    made = ig.methods.blur(6.0, 20, axes=(-1,), rule=FINE)(field, series)
    near(made.baselines[0], by_scipy(series, 6.0, (-1,), "reflect"), 1e-14)
    near(made.residual, torch.zeros(4).double(), 1e-9)


def test_equal_pixels_get_unequal_shares_and_the_box_is_left() -> None:
    """What is not claimed does not hold: neighbours count, and a blur is not between its ends."""
    x = torch.tensor([[[[0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0]]]], dtype=torch.float64)
    made = ig.methods.blur(2.0, 40, axes=(-1,))(
        ig.fields.Function(lambda z: (z[:, 0, 0, 1] + z[:, 0, 0, 5]) ** 2), x
    )
    assert abs(float(made.values[0, 0, 0, 1] - made.values[0, 0, 0, 5])) > 0.05
    _, points = ig.paths.corners(ig.paths.Blur(2.0, 40), ig.fields.Function(smooth), x[None], x)
    low, high = torch.minimum(points[0], x), torch.maximum(points[0], x)
    assert bool(((points < low - 1e-3) | (points > high + 1e-3)).any())
    turns = points.diff(dim=0)
    assert bool(((turns > 1e-4).any(0) & (turns < -1e-4).any(0)).any())


def test_advice_is_about_where_the_path_began() -> None:
    """An all-zero baseline starves this normalisation; the widest blur does not, and is not blamed for it."""
    model = filled(
        nn.Sequential(nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 2))
    )
    x = 3 + torch.linspace(-1, 1, 64).double().reshape(1, 1, 8, 8) + 0.5 * wave(1, 1, 8, 8)
    with pytest.warns(ig.errors.IncompleteWarning, match="baseline starves layer"):
        ig.explain(model, x, target=0, rule=ig.rules.Midpoint())
    with pytest.warns(ig.errors.IncompleteWarning) as caught:
        ig.explain(model, x, target=0, method="blur", sigma=2.0, steps=1)
    assert "starves" not in str(caught[0].message)
    assert "Ask for a tolerance" in str(caught[0].message)


# --- costs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule", [ig.rules.Midpoint(), ig.rules.Trapezoid(2), ig.rules.GaussLegendre(3)]
)
def test_gradients_are_steps_times_nodes(rule: Any, quiet: None) -> None:
    model = Counting(softplus_cnn())
    x = 0.5 + 0.5 * wave(2, 3, 8, 8)
    made = ig.explain(model, x, target=0, method="blur", sigma=3.0, steps=6, rule=rule)
    assert model.gradients == made.cost.gradients == 6 * rule.gradients * 2


def test_a_blur_that_blurs_nothing_costs_nothing(quiet: None) -> None:
    """σ = .1 has a kernel of one pixel: the last of these 50 pieces has no length."""
    model = Counting(softplus_cnn())
    ig.explain(model, wave(2, 3, 8, 8), target=0, method="blur", sigma=5.0, steps=50)
    assert model.gradients == 49 * 2


def test_to_a_tolerance() -> None:
    model, x = softplus_cnn(), 0.5 + 0.5 * wave(4, 3, 8, 8)
    made = ig.explain(model, x, target=1, method="blur", sigma=4.0, steps=10, tol=0.01)
    exact = ig.explain(
        model, x, target=1, method="blur", sigma=4.0, steps=10, rule=ig.rules.GaussLegendre(8)
    ).values
    real = (made.values - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
    assert bool((made.error <= 0.01).all())
    assert bool((real <= 0.01).all())


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ig.paths.Blur(0.0), "a positive number of pixels, not 0.0"),
        (lambda: ig.paths.Blur(float("nan")), "a positive number of pixels, not nan"),
        (lambda: ig.paths.Blur(float("inf")), "a positive number of pixels, not inf"),
        (lambda: ig.methods.blur(steps=0), "at least one step, not 0"),
        (lambda: ig.methods.blur(border="wrap"), "border is one of 'reflect', 'zero', not 'wrap'"),
        (lambda: ig.methods.blur(spacing="log"), "spacing is one of 'linear', 'sqrt', not 'log'"),
    ],
)
def test_refused(make: Any, message: str) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        make()


@pytest.mark.parametrize("shape", [(6,), (2, 3, 4, 5)])
def test_what_is_no_image_needs_axes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ig.errors.ShapeError, match=r"no image .* Name them: axes=\(-1,\)"):
        ig.methods.blur(2.0, 3)(ig.fields.Function(smooth), wave(2, *shape))


@pytest.mark.parametrize("axes", [(), (3,), (-4,), (0, -3), (-1, -1)])
def test_axes_that_are_none(axes: tuple[int, ...]) -> None:
    with pytest.raises(
        ig.errors.ShapeError, match=r"are not different axes of an example of shape 3x6x5"
    ):
        ig.methods.blur(2.0, 3, axes=axes)(ig.fields.Function(smooth), X)


def test_it_takes_no_baseline() -> None:
    with pytest.raises(
        ig.errors.InputError,
        match=r"'blur' chooses for itself where it starts: it takes no baseline=",
    ):
        ig.explain(tanh_mlp(), wave(2, 6), target=0, method="blur", baseline=0.0)


def test_as_typed() -> None:
    assert repr(ig.methods.blur()) == "Method(Constant(label='widest blur'), Blur(), Midpoint())"
    combinations = itertools.product([1.0, 2.0], ["reflect", "zero"])
    assert len({hash(ig.paths.Blur(sigma, border=border)) for sigma, border in combinations}) == 4
