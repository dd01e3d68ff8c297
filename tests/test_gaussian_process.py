"""Gaussian processes: attributions and their covariance, against the paper's numbers, dense quadrature with autograd, and GPyTorch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gpytorch
import numpy as np
import pytest
import torch
from torch import Tensor

import integrand as ig

K = ig.fields.kernels
D = torch.float64
X = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1.5]], dtype=D)
Y = torch.tensor([0.1, 0.9, -0.4, 0.7], dtype=D)
LENGTHS = torch.tensor([0.8, 1.2], dtype=D)
AT = torch.tensor([[0.9, 0.4]], dtype=D)
FROM = torch.tensor([-0.2, 0.3], dtype=D)

Covariance = Callable[[Tensor, Tensor], Tensor]


def golden() -> ig.fields.GPField:
    return ig.fields.GPField(X, Y, lengthscale=LENGTHS, variance=1.5, noise=0.1)


def run(field: Any, x: Tensor, baseline: Any, **options: Any) -> ig.Attribution:
    return ig.explain(field, x, method="gaussian_process", baseline=baseline, **options)


# --- the numbers of the papers ----------------------------------------------------------------------------------------


def test_exact_regression_has_the_known_mean_and_covariance() -> None:
    made = run(golden(), AT, FROM)
    expected = torch.tensor([[1.023119965632, -0.032409399284]], dtype=D)
    covariance = [[0.301116748276, 0.003287394274], [0.003287394274, 0.002002505041]]
    torch.testing.assert_close(made.values, expected, rtol=0, atol=2e-12)
    assert made.covariance is not None
    torch.testing.assert_close(
        made.covariance[0], torch.tensor(covariance, dtype=D), rtol=0, atol=2e-12
    )
    assert float(made.residual.abs().max()) < 1e-14
    assert bool(made.converged.all())


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("exp", (1.531185191705, -0.037237228375)),
        ("probit", (0.356476470, -0.012112008236)),
        ("square", (0.602008270902, -0.005286901954)),
    ],
)
def test_links_have_the_known_expectations(link: str, expected: tuple[float, float]) -> None:
    method = ig.methods.integrated(FROM, ig.rules.GaussLegendre(60))
    made = ig.explain(golden().through(link), AT, method=method)
    torch.testing.assert_close(made.values, torch.tensor([expected], dtype=D), rtol=0, atol=2e-9)
    assert float(made.residual.abs().max()) < 1e-13


# --- dense quadrature with plain autograd -----------------------------------------------------------------------------


def rbf(length: Any, variance: float = 1.0) -> Covariance:
    return lambda z, w: variance * (-(((z - w) / length) ** 2).sum() / 2).exp()


def matern(nu: float, length: Any) -> Covariance:
    def k(z: Tensor, w: Tensor) -> Tensor:
        s = math.sqrt(2 * nu) * (((z - w) / length) ** 2).sum().sqrt()
        return (1 + s + (s**2 / 3 if nu == 2.5 else 0)) * (-s).exp()

    return k


def rational(alpha: float, length: Any) -> Covariance:
    return lambda z, w: (1 + (((z - w) / length) ** 2).sum() / (2 * alpha)) ** -alpha


SHORT = torch.tensor([0.5, 0.9], dtype=D)
PAIRS: dict[str, tuple[Any, Covariance]] = {
    "rbf": (K.RBF(LENGTHS, 1.5), rbf(LENGTHS, 1.5)),
    "rbf far": (K.RBF(0.05), rbf(0.05)),
    "rbf wide": (K.RBF(40.0), rbf(40.0)),
    "two rbf": (
        K.RBF(LENGTHS) + K.RBF(0.3, 0.5),
        lambda z, w: rbf(LENGTHS)(z, w) + rbf(0.3, 0.5)(z, w),
    ),
    "product of rbf": (
        K.RBF(LENGTHS) * (K.RBF(0.6) + K.ConstantKernel(0.5)),
        lambda z, w: rbf(LENGTHS)(z, w) * (rbf(0.6)(z, w) + 0.5),
    ),
    "matern 3/2": (K.Matern(1.5, SHORT), matern(1.5, SHORT)),
    "matern 5/2": (K.Matern(2.5, SHORT), matern(2.5, SHORT)),
    "rational": (K.RationalQuadratic(0.7, LENGTHS), rational(0.7, LENGTHS)),
    "mixture": (
        K.Matern(2.5, SHORT) * K.RBF(1.5) + K.RationalQuadratic(2.0, 0.8),
        lambda z, w: matern(2.5, SHORT)(z, w) * rbf(1.5)(z, w) + rational(2.0, 0.8)(z, w),
    ),
}


def nodes(panels: int) -> tuple[Tensor, Tensor]:
    t, w = np.polynomial.legendre.leggauss(20)
    begin = torch.arange(panels, dtype=D)[:, None] / panels
    places = (begin + torch.from_numpy((t + 1) / 2) / panels).reshape(-1)
    return places, torch.from_numpy(w / 2 / panels).repeat(panels)


def by_quadrature(
    k: Covariance, noise: float, x: Tensor, b: Tensor, panels: int = 12
) -> tuple[Tensor, Tensor]:
    """Mean and covariance, from autograd of the covariance function at the nodes of dense rules."""
    gram = torch.stack([torch.stack([k(p, q) for q in X]) for p in X]) + noise * torch.eye(4).to(D)
    inverse = torch.linalg.inv(gram)
    t, w = nodes(panels)
    line = b + t[:, None] * (x - b)
    slope = torch.func.vmap(lambda z: torch.stack([torch.func.grad(k, 0)(z, p) for p in X], 1))(
        line
    )
    a = (x - b)[:, None] * (w[:, None, None] * slope).sum(0)
    # ∂_i ∂'_j k depends on t − t' only, so that the double integral is one over the lag.
    lags = t * t  # towards the lag 0, where Matérn covariances bend
    measure = 2 * (1 - lags) * w * 2 * t
    mixed = torch.func.vmap(
        lambda lag: torch.func.jacfwd(torch.func.grad(k, 0), 1)(b + lag * (x - b), b)
    )(lags)
    outer = (x - b)[:, None] * (x - b)
    prior = outer * (measure[:, None, None] * mixed).sum(0)
    return a @ inverse @ Y, prior - a @ inverse @ a.T


@pytest.mark.parametrize("name", PAIRS)
def test_mean_and_covariance_are_those_of_dense_quadrature(name: str) -> None:
    kernel, k = PAIRS[name]
    field = ig.fields.GPField(X, Y, kernel=kernel, noise=0.1)
    made = run(field, AT, FROM)
    mean, covariance = by_quadrature(k, 0.1, AT[0], FROM, 60 if "far" in name else 12)
    assert made.covariance is not None
    torch.testing.assert_close(made.values[0], mean, rtol=0, atol=1e-10)
    torch.testing.assert_close(made.covariance[0], covariance, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", PAIRS)
def test_it_is_complete_in_law(name: str) -> None:
    """Σ φ is f(x) − f(b): its mean, and its variance from the kernel and the posterior written out."""
    kernel, k = PAIRS[name]
    field = ig.fields.GPField(X, Y, kernel=kernel, noise=0.1)
    x = torch.tensor([[0.9, 0.4], [1.0, 1.5], [3.0, -2.0], [-0.2, 0.3]], dtype=D)
    made = run(field, x, FROM)
    gram = torch.stack([torch.stack([k(p, q) for q in X]) for p in X]) + 0.1 * torch.eye(4).to(D)
    assert made.covariance is not None
    for b in range(3):
        apart = torch.stack([k(x[b], p) - k(FROM, p) for p in X])
        mean = apart @ torch.linalg.solve(gram, Y)
        variance = 2 * (k(FROM, FROM) - k(x[b], FROM)) - apart @ torch.linalg.solve(gram, apart)
        torch.testing.assert_close(made.values[b].sum(), mean, rtol=0, atol=1e-11)
        torch.testing.assert_close(made.covariance[b].sum(), variance, rtol=0, atol=1e-11)
    assert float(made.covariance[3].abs().max()) == 0.0  # where nothing moves
    assert float(made.values[3].abs().max()) == 0.0


@pytest.mark.parametrize("name", ["matern 3/2", "matern 5/2", "mixture", "rbf far"])
def test_lines_through_points_of_the_data_keep_their_digits(name: str) -> None:
    """Matérn kernels bend where the line meets a point, or nearly does: integrated apart on both sides there."""
    kernel, k = PAIRS[name]
    field = ig.fields.GPField(X, Y, kernel=kernel, noise=0.1)
    for off in (0.0, 1e-7):
        start = torch.tensor([0.3, off], dtype=D)
        end = torch.tensor([1.6, off], dtype=D)  # by way of (1, 0), or just beside it
        made = run(field, end[None], start)
        (t, w), middle = nodes(40), (1.0 - 0.3) / 1.3
        # Cubed, so that nodes crowd at the point.
        places = torch.cat([middle * (1 - t**3), middle + (1 - middle) * t**3])
        weights = torch.cat([middle * 3 * t**2 * w, (1 - middle) * 3 * t**2 * w])
        line = start + places[:, None] * (end - start)
        slope = torch.func.vmap(lambda z: torch.stack([torch.func.grad(k, 0)(z, p) for p in X], 1))(
            line
        )
        a = (end - start)[:, None] * (weights[:, None, None] * slope).sum(0)
        gram = torch.stack([torch.stack([k(p, q) for q in X]) for p in X])
        alpha = torch.linalg.solve(gram + 0.1 * torch.eye(4).to(D), Y)
        torch.testing.assert_close(made.values[0], a @ alpha, rtol=0, atol=1e-10)


@pytest.fixture
def sixty_digits() -> Iterator[None]:
    import mpmath as mp

    with mp.workdps(60):
        yield


@pytest.mark.usefixtures("sixty_digits")
@pytest.mark.parametrize("scale", [1e-9, 1e-4, 1e-2, 1.0, 30.0, 1e4, 1e8])
def test_lengths_of_all_sizes_keep_their_digits(scale: float) -> None:
    """The closed forms against 60 digits of mpmath, for lines far shorter and far longer than a lengthscale."""
    import mpmath as mp

    field = ig.fields.GPField(X[:1], Y[1:2], lengthscale=1.0, variance=1.0, noise=0.1)
    start = torch.tensor([0.3, -0.4], dtype=D)
    end = start + scale * torch.tensor([0.6, 0.8], dtype=D)
    made = run(field, end[None], start)
    step = [mp.mpf(float(v)) for v in end - start]
    begin = [mp.mpf(float(v)) for v in start]
    alpha = mp.mpf(float(Y[1])) / (mp.mpf(1) + mp.mpf(0.1))
    cuts = [0, *[mp.mpf(c) / scale for c in (1, 3, 6, 12) if c < scale], 1]

    def slope(i: int, t: Any) -> Any:
        z = [b + t * d for b, d in zip(begin, step, strict=True)]
        return -z[i] * mp.exp(-(z[0] ** 2 + z[1] ** 2) / 2)

    for i in range(2):
        exact = step[i] * alpha * mp.quad(lambda t, i=i: slope(i, t), cuts)
        assert float(made.values[0, i]) == pytest.approx(float(exact), rel=1e-9, abs=1e-22)
    square = step[0] ** 2 + step[1] ** 2
    fall = lambda u: 2 * (1 - u) * mp.exp(-square * u * u / 2)  # noqa: E731
    from integrand.fields.line_integrals import gaussian_moments

    i0, i2 = gaussian_moments(torch.tensor([float(square)], dtype=D))
    assert float(i0) == pytest.approx(float(mp.quad(fall, cuts)), rel=1e-12)
    assert float(i2) == pytest.approx(float(mp.quad(lambda u: u * u * fall(u), cuts)), rel=1e-10)


# --- several references -----------------------------------------------------------------------------------------------


def test_the_covariance_of_an_average_counts_how_maps_depend_on_one_another() -> None:
    """Against the double integral over both lines, from autograd of the covariance function."""
    starts = torch.tensor([[-0.2, 0.3], [0.5, -0.6], [1.2, 1.0]], dtype=D)
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=D)
    method = ig.WithCovariance(
        ig.Method(
            ig.baselines.Given(starts[:, None]), rule=ig.rules.Exact(), weighting=Fixed(weights)
        )
    )
    made = method(golden(), AT)
    k = rbf(LENGTHS, 1.5)
    gram = torch.stack([torch.stack([k(p, q) for q in X]) for p in X]) + 0.1 * torch.eye(4).to(D)
    t, w = nodes(2)
    lines = [b + t[:, None] * (AT[0] - b) for b in starts]
    mixed = torch.func.vmap(
        torch.func.vmap(torch.func.jacfwd(torch.func.grad(k, 0), 1), (None, 0)), (0, None)
    )
    covariance, a = torch.zeros(2, 2, dtype=D), torch.zeros(2, 4, dtype=D)
    for r, line in enumerate(lines):
        step = AT[0] - starts[r]
        slope = torch.func.vmap(lambda z: torch.stack([torch.func.grad(k, 0)(z, p) for p in X], 1))(
            line
        )
        a += weights[r] * step[:, None] * (w[:, None, None] * slope).sum(0)
        for s, other in enumerate(lines):
            both = torch.einsum("p,q,pqij->ij", w, w, mixed(line, other))
            covariance += weights[r] * weights[s] * torch.outer(step, AT[0] - starts[s]) * both
    covariance -= a @ torch.linalg.solve(gram, a.T)
    assert made.covariance is not None
    torch.testing.assert_close(made.covariance[0], covariance, rtol=0, atol=1e-11)
    torch.testing.assert_close(made.values[0], a @ torch.linalg.solve(gram, Y), rtol=0, atol=1e-12)


class Fixed:
    """Weights that were chosen."""

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights

    def beforehand(self, references: int, examples: int) -> Tensor:
        return self.weights[:, None].expand(references, examples)

    def __call__(self, shares: Tensor, x: Tensor, field: Any) -> Tensor:
        return self.weights[:, None].expand(shares.shape[:2])


def test_the_same_reference_twice_is_one() -> None:
    alone, twice = run(golden(), AT, FROM), run(golden(), AT, [FROM, FROM.clone()])
    torch.testing.assert_close(twice.values, alone.values, rtol=0, atol=1e-14)
    assert twice.covariance is not None
    torch.testing.assert_close(twice.covariance, alone.covariance, rtol=0, atol=1e-12)


def test_weighted_gradients_go_with_processes() -> None:
    stream = torch.Generator().manual_seed(3)
    points = torch.randn(12, 6, generator=stream, dtype=D)
    y = points[:, 0] + points[:, 1] * points[:, 2]
    field = ig.fields.GPField(points, y, lengthscale=2.0, noise=0.01)
    x, references = points[:1] + 1, torch.stack([points[3], points[7] - 2, points[5]])
    method = ig.WithCovariance(ig.methods.weighted(references, rule=ig.rules.Exact()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.FitnessWarning)
        made = method(field, x)
    singles = torch.stack([run(field, x, b).values for b in references])
    torch.testing.assert_close(
        made.values, (made.weights[:, :, None] * singles).sum(0), rtol=0, atol=1e-13
    )
    # The variance of Σ_r w_r (f(x) − f(b_r)), from the joint posterior of f there.
    k = rbf(2.0)
    gram = torch.stack([torch.stack([k(p, q) for q in points]) for p in points])
    gram += 0.01 * torch.eye(12).to(D)
    ends = torch.cat([x, references])
    cross = torch.stack([torch.stack([k(p, q) for q in points]) for p in ends])
    joint = torch.stack([torch.stack([k(p, q) for q in ends]) for p in ends])
    joint -= cross @ torch.linalg.solve(gram, cross.T)
    counted = torch.cat([torch.ones(1, dtype=D), -made.weights[:, 0]])
    assert made.covariance is not None
    torch.testing.assert_close(
        made.covariance[0].sum(), counted @ joint @ counted, rtol=0, atol=1e-10
    )


def test_averages_of_other_kernels_are_refused() -> None:
    field = ig.fields.GPField(X, Y, kernel=K.Matern(2.5), noise=0.1)
    with pytest.raises(ig.errors.InputError, match="several baselines"):
        run(field, AT, [FROM, -FROM])


# --- the field --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAIRS)
def test_its_gradient_and_share_are_those_of_its_value(name: str) -> None:
    kernel, k = PAIRS[name]
    field = ig.fields.GPField(
        X, Y, kernel=kernel, noise=0.1, mean=0.3, slope=torch.tensor([0.5, -1.0])
    )
    off = Y - 0.3 - X @ torch.tensor([0.5, -1.0], dtype=D)
    gram = torch.stack([torch.stack([k(p, q) for q in X]) for p in X]) + 0.1 * torch.eye(4).to(D)
    alpha = torch.linalg.solve(gram, off)

    def mean(z: Tensor) -> Tensor:
        prior = 0.3 + z @ torch.tensor([0.5, -1.0], dtype=D)
        return prior + torch.stack([k(z, p) for p in X]) @ alpha

    z = torch.tensor([[0.4, 0.2], [2.0, -1.0], [0.02, 1.3]], dtype=D)
    torch.testing.assert_close(field.value(z), torch.func.vmap(mean)(z), rtol=0, atol=1e-12)
    slopes = torch.func.vmap(torch.func.grad(mean))(z)
    torch.testing.assert_close(field.gradient(z), slopes, rtol=0, atol=1e-11)
    fine = ig.methods.integrated(FROM, ig.rules.GaussLegendre(400))(field, z)
    exact = run(field, z, FROM)
    torch.testing.assert_close(exact.values, fine.values, rtol=0, atol=1e-6)
    ig.testing.check_field(field, z)


@pytest.mark.parametrize("link", ["exp", "square", "probit", "logistic"])
def test_expectations_behind_links_are_those_of_samples_at_quantiles(link: str) -> None:
    """E g(f) from the quantile function of f, ten million times finer than any single sample."""
    field = golden()
    z = torch.tensor([[0.4, 0.2], [3.0, -1.0], [0.02, 1.3]], dtype=D)
    mean, variance = field.moments(z)
    g = {
        "exp": torch.exp,
        "square": torch.square,
        "probit": torch.special.ndtr,
        "logistic": torch.sigmoid,
    }[link]
    xi, w = np.polynomial.hermite_e.hermegauss(150)
    samples = mean[:, None] + variance.sqrt()[:, None] * torch.from_numpy(xi)
    expected = (g(samples) * torch.from_numpy(w) / w.sum()).sum(1)
    through = field.through(link)
    torch.testing.assert_close(through.value(z), expected, rtol=0, atol=1e-10)
    ig.testing.check_field(through, z)


def test_the_logistic_expectation_holds_for_every_variance() -> None:
    import mpmath as mp

    link = ig.fields.links.Logistic()
    with mp.workdps(20):
        for v in (0.0, 1e-6, 0.5, 8.99, 9.01, 100.0, 1e4):
            for m in (-3.0, 0.0, 5.0):
                said = link.expected(torch.tensor([[m]], dtype=D), torch.tensor([[v]], dtype=D))
                root = mp.sqrt(mp.mpf(v))
                bend = [-m / float(root)] if v > 0 and abs(m / float(root)) < 9 else []
                exact = (
                    mp.quad(
                        lambda t, m=m, root=root: mp.npdf(t) / (1 + mp.exp(-m - root * t)),
                        sorted({*np.linspace(-9, 9, 37), *bend}),
                    )
                    if v
                    else 1 / (1 + mp.exp(-m))
                )
                assert float(said) == pytest.approx(float(exact), abs=1e-10), (m, v)


def test_softmax_expectations_are_those_of_products_of_hermite_rules() -> None:
    mean = torch.tensor([[0.3, 2.0], [-0.5, 0.1], [1.0, -3.0]], dtype=D)
    variance = torch.tensor([[0.4, 1.5], [1.2, 0.0], [0.1, 0.7]], dtype=D)
    xi, w = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(60))
    w = w / w.sum()
    for c in range(3):
        said = ig.fields.links.Softmax(c).expected(mean, variance)
        for n in range(2):
            f = [mean[j, n] + variance[j, n].sqrt() * xi for j in range(3)]
            logits = torch.stack(torch.meshgrid(*f, indexing="ij"))
            exact = torch.einsum("i,j,k,ijk->", w, w, w, logits.softmax(0)[c])
            torch.testing.assert_close(said[n], exact, rtol=0, atol=1e-9)


def test_softmax_of_several_processes_is_complete() -> None:
    fields = [
        ig.fields.GPField(X, Y.roll(s), lengthscale=0.7 + 0.2 * s, noise=0.05) for s in range(3)
    ]
    x = torch.tensor([[0.9, 0.4], [0.1, 1.2]], dtype=D)
    link = ig.fields.GPLinkField(fields, ig.fields.links.Softmax(1))
    made = ig.methods.integrated(FROM, ig.rules.GaussLegendre(24))(link, x)
    assert float(made.residual.abs().max()) < 1e-9
    total = sum(
        ig.fields.GPLinkField(fields, ig.fields.links.Softmax(c)).value(x) for c in range(3)
    )
    torch.testing.assert_close(total, torch.ones(2, dtype=D), rtol=0, atol=1e-10)


def test_standardised_outputs_come_back_in_their_units() -> None:
    y = 40 + 7 * Y
    scale, shift = float(y.std()), float(y.mean())
    field = ig.fields.GPField(X, y, lengthscale=LENGTHS, noise=0.1, standardise=True)
    inner = ig.fields.GPField(X, (y - shift) / scale, lengthscale=LENGTHS, noise=0.1)
    made, other = run(field, AT, FROM), run(inner, AT, FROM)
    torch.testing.assert_close(made.values, scale * other.values, rtol=1e-12, atol=0)
    assert other.covariance is not None
    torch.testing.assert_close(made.covariance, scale**2 * other.covariance, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(made.output, shift + scale * other.output, rtol=1e-13, atol=0)


def test_batches_types_and_shapes() -> None:
    x = torch.tensor([[0.9, 0.4], [0.1, 1.2], [-0.2, 0.3]])
    made = run(golden(), x, FROM.float())
    assert made.values.dtype == torch.float32
    for b in range(3):
        alone = run(golden(), x[b : b + 1], FROM.float())
        torch.testing.assert_close(alone.covariance[0], made.covariance[b])  # type: ignore[index]
    assert ig.explain(golden(), x).values.shape == (3, 2)  # no target, the usual method
    with pytest.raises(ig.errors.ShapeError, match="3 features, and the process was given 2"):
        run(golden(), torch.zeros(1, 3), 0.0)
    named = ig.explain(golden(), (x[:, :1], x[:, 1:]), method="gaussian_process")
    low, high = named.interval(0.5)
    assert [t.shape for t in low] == [(3, 1), (3, 1)]
    assert bool((low[0] <= named.values[0]).all() & (named.values[1] <= high[1]).all())


# --- the result -------------------------------------------------------------------------------------------------------


def test_intervals_hold_as_many_samples_as_they_say() -> None:
    made = run(golden(), AT, FROM)
    assert made.covariance is not None
    draw = torch.distributions.MultivariateNormal(made.values[0], made.covariance[0])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        samples = draw.sample((40000,))
    for level in (0.5, 0.95):
        low, high = made.interval(level)
        inside = ((samples > low[0]) & (samples < high[0])).double().mean(0)
        torch.testing.assert_close(inside, torch.full_like(inside, level), rtol=0, atol=0.01)
    for level in (0.0, 1.0, 95):
        with pytest.raises(ig.errors.InputError, match="level"):
            made.interval(level)
    with pytest.raises(ig.errors.InputError, match="GPField"):
        ig.explain(golden(), AT).interval()


def test_the_covariance_is_saved_sliced_and_drawn(tmp_path: Path) -> None:
    made = run(golden(), AT.expand(3, 2), FROM)
    made.save(tmp_path / "map.safetensors")
    back = ig.load(tmp_path / "map.safetensors")
    assert back.covariance is not None
    assert made.covariance is not None
    assert torch.equal(back.covariance, made.covariance)
    assert torch.equal(made[1].covariance, made.covariance[1:2])  # type: ignore[arg-type]
    figure = made.plot(examples=[0])
    (container,) = [c for axes in figure.axes for c in axes.containers if hasattr(c, "has_xerr")]
    reach = container.lines[2][0].get_segments()
    half = 1.959963984540054 * made.standard_deviation[0].sort(descending=True).values
    lengths = torch.tensor([(s[1][0] - s[0][0]) / 2 for s in np.asarray(reach)], dtype=D)
    torch.testing.assert_close(lengths, half, rtol=1e-6, atol=0)


def test_methods_around_it_keep_no_covariance_of_another_map() -> None:
    noisy = ig.SmoothGrad(ig.WithCovariance(ig.Method(rule=ig.rules.Exact())), 3)
    assert noisy(golden(), AT).covariance is None


# --- GPyTorch ---------------------------------------------------------------------------------------------------------


class Exact(gpytorch.models.ExactGP):  # type: ignore[misc]
    def __init__(self, x: Tensor, y: Tensor, kernel: Any, mean: Any) -> None:
        super().__init__(x, y, gpytorch.likelihoods.GaussianLikelihood())
        self.mean_module, self.covar_module = mean, kernel

    def forward(self, x: Tensor) -> Any:
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


class Sparse(gpytorch.models.ApproximateGP):  # type: ignore[misc]
    def __init__(self, z: Tensor, strategy: Any, mean: Any) -> None:
        q = gpytorch.variational.CholeskyVariationalDistribution(len(z))
        super().__init__(strategy(self, z, q, learn_inducing_locations=True))
        self.mean_module = mean
        self.covar_module = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel(ard_num_dims=2))

    forward = Exact.forward


def kernel_of(name: str) -> Any:
    k = gpytorch.kernels
    made = {
        "rbf": lambda: k.ScaleKernel(k.RBFKernel(ard_num_dims=2)),
        "matern": lambda: k.ScaleKernel(k.MaternKernel(nu=2.5, ard_num_dims=2)),
        "rough": lambda: k.ScaleKernel(k.MaternKernel(nu=1.5)),
        "rational": lambda: k.ScaleKernel(k.RQKernel(ard_num_dims=2)),
        "sum": lambda: (
            k.ScaleKernel(k.RBFKernel(active_dims=[1]))
            + k.RBFKernel() * k.RBFKernel(active_dims=[0])
        ),
    }[name]()
    for number, parameter in enumerate(made.parameters()):
        parameter.data = (
            parameter.data
            + 0.3 * (number + 1)
            - 0.2 * torch.arange(parameter.numel()).reshape(parameter.shape)
        )
    return made


def differences(model: Any, x: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of f(x) − f(b), said by GPyTorch."""
    model.eval()
    with torch.no_grad(), gpytorch.settings.fast_computations(False, False, False):
        joint = model(torch.stack([x, b]))
    c = joint.covariance_matrix
    return joint.mean[0] - joint.mean[1], c[0, 0] + c[1, 1] - 2 * c[0, 1]


@pytest.mark.parametrize("name", ["rbf", "matern", "rough", "rational", "sum"])
@pytest.mark.parametrize("mean", ["zero", "constant", "linear"])
def test_exact_models_of_gpytorch(name: str, mean: str) -> None:
    means = {
        "zero": gpytorch.means.ZeroMean(),
        "constant": gpytorch.means.ConstantMean(),
        "linear": gpytorch.means.LinearMean(2),
    }
    model = Exact(X, Y, kernel_of(name), means[mean]).double()
    if mean == "constant":
        model.mean_module.constant.data.fill_(0.4)
    if mean == "linear":
        model.mean_module.weights.data = torch.tensor([[0.7], [-0.3]], dtype=D)
        model.mean_module.bias.data.fill_(0.2)
    model.likelihood.noise = 0.05
    model.train()
    field = ig.fields.GPField.from_gpytorch(model, model.likelihood)
    assert model.training
    assert model.covar_module.training
    assert model.likelihood.training
    made = run(field, AT, FROM)
    change, variance = differences(model, AT[0], FROM)
    torch.testing.assert_close(made.values.sum(), change, rtol=0, atol=1e-10)
    assert made.covariance is not None
    torch.testing.assert_close(made.covariance.sum(), variance, rtol=0, atol=1e-8)
    fine = ig.methods.integrated(FROM, ig.rules.GaussLegendre(300))(Autograd(model), AT)
    torch.testing.assert_close(
        made.values, fine.values, rtol=0, atol=1e-5 if name == "rough" else 1e-8
    )


class Autograd(ig.fields.Field):
    """The posterior mean of a GPyTorch model, differentiated by autograd."""

    def __init__(self, model: Any) -> None:
        self.model = model.eval()

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Any:
        with torch.enable_grad(), gpytorch.settings.fast_computations(False, False, False):
            leaf = z.clone().requires_grad_()
            value = self.model(leaf).mean
            (slope,) = torch.autograd.grad(value.sum(), leaf)
        return ig.segments.Evaluation(value.detach(), slope)


@pytest.mark.parametrize("whitened", [True, False])
@pytest.mark.parametrize("mean", ["constant", "linear"])
def test_variational_models_of_gpytorch(whitened: bool, mean: str) -> None:
    v = gpytorch.variational
    strategy = v.VariationalStrategy if whitened else v.UnwhitenedVariationalStrategy
    of = gpytorch.means.ConstantMean() if mean == "constant" else gpytorch.means.LinearMean(2)
    model = Sparse(X[:3] + 0.1, strategy, of).double()
    with torch.no_grad():
        for number, parameter in enumerate(model.mean_module.parameters()):
            parameter.fill_(0.3 * (number + 1))
        q = model.variational_strategy._variational_distribution
        q.variational_mean.copy_(torch.tensor([0.3, -0.8, 1.1]))
        q.chol_variational_covar.copy_(torch.eye(3) * 0.4 + 0.1)
        model.variational_strategy.variational_params_initialized.fill_(1)
        model.covar_module.base_kernel.lengthscale = torch.tensor([[0.8, 1.2]])
        model.covar_module.outputscale = 1.7
    field = ig.fields.GPField.from_gpytorch(model)
    assert model.training
    made = run(field, AT, FROM)
    change, variance = differences(model, AT[0], FROM)
    torch.testing.assert_close(made.values.sum(), change, rtol=0, atol=1e-6)
    assert made.covariance is not None
    # GPyTorch adds its jitter (1e-4 and 1e-6) to variances.
    torch.testing.assert_close(made.covariance.sum(), variance, rtol=0, atol=5e-4)
    z = torch.cat([AT, FROM[None]])
    with torch.no_grad():
        said = model.eval()(z)
    torch.testing.assert_close(field.value(z), said.mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(field.moments(z)[1], said.variance, rtol=0, atol=5e-4)
    fine = ig.methods.integrated(FROM, ig.rules.GaussLegendre(60))(Autograd(model), AT)
    torch.testing.assert_close(made.values, fine.values, rtol=0, atol=1e-5)


def test_standardised_models_of_gpytorch() -> None:
    model = Exact(X, Y, kernel_of("rbf"), gpytorch.means.ZeroMean()).double()
    plain = run(ig.fields.GPField.from_gpytorch(model), AT, FROM)
    units = run(
        ig.fields.GPField.from_gpytorch(model, output_mean=10.0, output_scale=3.0), AT, FROM
    )
    torch.testing.assert_close(units.values, 3 * plain.values, rtol=1e-12, atol=0)
    torch.testing.assert_close(units.covariance, 9 * plain.covariance, rtol=1e-12, atol=0)  # type: ignore[operator]
    torch.testing.assert_close(units.output, 10 + 3 * plain.output, rtol=1e-12, atol=0)


class Transformed(Exact):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x.tanh())


def test_what_cannot_be_read_is_refused() -> None:
    k, zero = gpytorch.kernels, gpytorch.means.ZeroMean()
    refused = [
        (Exact(X, Y, k.PeriodicKernel(), zero), "PeriodicKernel"),
        (Exact(X, Y, k.MaternKernel(nu=0.5), zero), "no gradient"),
        (Exact(X, Y, k.RBFKernel(), gpytorch.means.ConstantMeanGrad()), "ConstantMeanGrad"),
        (Exact(X, torch.stack([Y, Y], 1), k.RBFKernel(), zero), "[Ss]everal tasks"),
        (Exact(X.expand(2, 4, 2), Y.expand(2, 4), k.RBFKernel(), zero), "batch"),
        (Exact(X, Y, k.RBFKernel(batch_shape=torch.Size([2])), zero), "batch"),
        (Transformed(X, Y, k.RBFKernel(), zero), "transforms"),
    ]
    for model, message in refused:
        with pytest.raises(ig.errors.InputError, match=message):
            ig.fields.GPField.from_gpytorch(model.double())
    with pytest.raises(ig.errors.InputError, match="ExactGP"):
        ig.fields.GPField.from_gpytorch(torch.nn.Linear(2, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lengthscale": -1.0}, "lengthscale is positive"),
        ({"lengthscale": 1.0, "variance": 0.0}, "variance is positive"),
        ({"lengthscale": 1.0, "noise": -1.0}, "noise is a variance"),
        ({"lengthscale": torch.ones(3)}, "3 lengthscales for 2 features"),
        ({}, "lengthscale="),
        ({"lengthscale": 1.0, "kernel": K.RBF()}, "leave lengthscale="),
        ({"kernel": "rbf"}, "ig.fields.kernels"),
    ],
)
def test_nonsense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        ig.fields.GPField(X, Y, **options)


def test_more_nonsense_is_refused() -> None:
    with pytest.raises(ig.errors.InputError, match="positive definite"):
        ig.fields.GPField(X[[0, 0]], Y[:2], lengthscale=1.0)
    with pytest.raises(ig.errors.InputError, match="NaN"):
        ig.fields.GPField(X, Y * torch.nan, lengthscale=1.0)
    with pytest.raises(ig.errors.ShapeError, match="one GPField each"):
        ig.fields.GPField(X, torch.stack([Y, Y], 1), lengthscale=1.0)
    with pytest.raises(ig.errors.UnknownName, match="probit"):
        golden().through("probt")
    with pytest.raises(ig.errors.InputError, match="several processes"):
        golden().through(ig.fields.links.Softmax(0))
    with pytest.raises(ig.errors.NoShare, match="no random function"):
        run(ig.fields.Linear(torch.ones(2)), torch.ones(1, 2), 0.0)
    with pytest.raises(ig.errors.NoShare, match="behind a link"):
        run(golden().through("exp"), AT, FROM)
    with pytest.raises(ig.errors.InputError, match="straight lines"):
        ig.WithCovariance(ig.methods.guided())
