"""Sampled faithfulness against slow restatements, the identities of linear models, and what is undefined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.metrics.perturbation.subsets import Cells
from tests.problems import Counting

SUPERPIXELS = torch.tensor([[0, 0, 1, 1], [0, 2, 2, 1], [3, 3, 2, 4], [3, 5, 4, 4]])


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return (
        nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 16, 3))
        .double()
        .requires_grad_(False)
    )


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(1)).double()


@pytest.fixture
def maps() -> Tensor:
    return torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(2)).double()


METRICS: dict[str, tuple[Callable[..., Tensor], dict[str, Any]]] = {
    "sensitivity_n": (ig.metrics.sensitivity_n, {"subsets": 20}),
    "faithfulness_correlation": (ig.metrics.faithfulness_correlation, {"runs": 20}),
    "faithfulness_estimate": (ig.metrics.faithfulness_estimate, {}),
    "monotonicity_correlation": (
        ig.metrics.monotonicity_correlation,
        {"fill": ig.metrics.Within(7)},
    ),
    "non_sensitivity": (ig.metrics.non_sensitivity, {"fill": ig.metrics.Within(7), "eps": 0.2}),
    "monotonicity": (ig.metrics.monotonicity, {"how": "share"}),
    "infidelity": (ig.metrics.infidelity, {"draws": 20}),
}


# --- restatements -----------------------------------------------------------------------------------------------------


def slow(model: nn.Module, x: Tensor, values: Tensor, chosen: Tensor, fill: float = 0.0) -> float:
    """Pearson over subsets (S, 16) of pixels, one row at a time, with NumPy."""
    said, done = [], []
    for subset in chosen:
        row = x.clone().reshape(2, -1)
        row[:, subset] = fill
        done.append(float(model(x[None])[0, 1] - model(row.reshape(1, 2, 4, 4))[0, 1]))
        said.append(float(values.reshape(2, -1)[:, subset].sum()))
    return float(np.corrcoef(said, done)[0, 1])


def test_sensitivity_n_is_its_definition_at_every_n(
    model: nn.Module, x: Tensor, maps: Tensor
) -> None:
    sizes = (2, 5, 0.5, 15)
    by = ig.metrics.SensitivityN(sizes, subsets=30, fill=0.3, seed=4)
    with ig.metrics.Subject.of(model, x, 1) as subject:
        measured = by.measure(subject, ig.metrics.Maps.of(list(maps), subject.x, subject.layout))
    cells = Cells.of("pixels", x)
    for k, size in enumerate((2, 5, 8, 15)):
        chosen = cells.draw(torch.tensor([size]), 30, 4)[:, 0]
        assert bool((chosen.sum(1) == size).all())
        expected = [
            [slow(model, x[b], maps[m, b], chosen, 0.3) for b in range(3)] for m in range(2)
        ]
        torch.testing.assert_close(measured[..., k], torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(by.values(measured), measured.mean(-1))


def test_faithfulness_correlation_is_its_definition(
    model: nn.Module, x: Tensor, maps: Tensor
) -> None:
    chosen = torch.rand(25, 16, generator=torch.Generator().manual_seed(5)) < 0.4
    found = ig.metrics.faithfulness_correlation(model, x, list(maps), target=1, subsets=chosen)
    expected = [[slow(model, x[b], maps[m, b], chosen) for b in range(3)] for m in range(2)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("absolute", [False, True])
def test_faithfulness_estimate_is_its_definition(
    model: nn.Module, x: Tensor, maps: Tensor, absolute: bool
) -> None:
    found = ig.metrics.faithfulness_estimate(model, x, list(maps), target=1, absolute=absolute)
    for m in range(2):
        for b in range(3):
            said = maps[m, b].sum(0).flatten().numpy()
            rows = x[b].reshape(1, 2, 16).repeat(16, 1, 1)
            rows[torch.arange(16), :, torch.arange(16)] = 0
            done = (
                (model(x[b : b + 1])[:, 1] - model(rows.reshape(16, 2, 4, 4))[:, 1])
                .detach()
                .numpy()
            )
            if absolute:
                said, done = abs(said), abs(done)
            assert float(found[m, b]) == pytest.approx(np.corrcoef(said, done)[0, 1], abs=1e-10)


def test_monotonicity_correlation_and_non_sensitivity_are_their_definitions(x: Tensor) -> None:
    """E[(F(x) − F(x with i redrawn))²] by hand, over references of one's own."""
    references = torch.randn(6, 5, generator=torch.Generator().manual_seed(3)).double()
    x = x.flatten(1)[:, :5]
    field = ig.fields.Function(
        lambda z: z[:, 0] * z[:, 1] + z[:, 2].sin() + z[:, 3] ** 2
    )  # the fifth does nothing
    effects = torch.zeros(3, 5).double()
    for i in range(5):
        rows = x[:, None].repeat(1, 6, 1)
        rows[:, :, i] = references[:, i]
        effects[:, i] = (
            (field.value(x)[:, None] - field.value(rows.transpose(0, 1), 2).T).square().mean(1)
        )
    right, wrong = effects.sqrt(), torch.tensor([[0.0, 0, 1, -2, 3]]).double().expand(3, 5)
    fill = ig.baselines.Given(references)
    found = ig.metrics.monotonicity_correlation(field, x, [right, -right, wrong], fill=fill)
    torch.testing.assert_close(found[:2], torch.ones(2, 3).double())  # signs do not count
    from scipy import stats

    for b in range(3):
        expected = stats.spearmanr(wrong[b].abs().numpy(), effects[b].numpy())[0]
        assert float(found[2, b]) == pytest.approx(expected, abs=1e-12)
    missed = ig.metrics.non_sensitivity(field, x, [right, wrong], fill=fill)
    assert missed.tolist() == [
        [0, 0, 0],
        [3, 3, 3],
    ]  # two that matter were given nothing, one that does not something
    assert ig.metrics.non_sensitivity(field, x, wrong, fill=fill, share=True).tolist() == [0.6] * 3


def test_monotonicity_adds_the_least_important_first() -> None:
    """The score by hand: contributions come by |φ|, and the reversed map that XAI-Bench prefers does not pass."""
    field, x = (
        ig.fields.Function(lambda z: (z * torch.tensor([4.0, 3, 2, 1, 0.5])).sum(1) ** 2),
        torch.ones(1, 5),
    )
    by = ig.metrics.Monotonicity(steps=None)
    with ig.metrics.Subject.of(field, x) as subject:
        maps = torch.tensor([[4.0, 3, 2, 1, 0.5]])
        measured = by.measure(subject, ig.metrics.Maps.of(maps, subject.x, subject.layout))
    torch.testing.assert_close(measured[0, 0], torch.tensor([0, 0.5, 1.5, 3.5, 6.5, 10.5]) ** 2)
    falls = ig.fields.Linear(torch.tensor([1.0, -1.0, 1.0, 1.0]))
    ones = torch.ones(2, 4)
    exact = torch.tensor([1.0, -1.1, 1.2, 1.3]).expand(2, 4)
    assert ig.metrics.monotonicity(falls, ones, exact).tolist() == [0, 0]
    assert ig.metrics.monotonicity(falls, ones, exact, how="share").tolist() == [0.75, 0.75]
    assert ig.metrics.monotonicity(falls, ones, exact, signed=True, how="share").tolist() == [
        0.75,
        0.75,
    ]


# --- linear models ----------------------------------------------------------------------------------------------------


@pytest.fixture
def linear() -> tuple[ig.fields.Linear, Tensor, Tensor]:
    random = torch.Generator().manual_seed(7)
    weight, x = (torch.randn(n, 6, generator=random).double() for n in (1, 4))
    return ig.fields.Linear(weight[0]), x, weight * (x - 0.5)


def test_exact_maps_of_linear_models_are_perfect(linear: Any) -> None:
    field, x, exact = linear
    options = {"fill": 0.5}
    with ig.metrics.Subject.of(field, x) as subject:
        maps = ig.metrics.Maps.of(exact, subject.x, subject.layout)
        curve = ig.metrics.SensitivityN((1, 2, 3, 4, 5), **options).measure(subject, maps)
    torch.testing.assert_close(curve, torch.ones_like(curve))
    for name in ("sensitivity_n", "faithfulness_correlation", "faithfulness_estimate"):
        found = METRICS[name][0](field, x, [exact, -exact], **options)
        torch.testing.assert_close(found[0], torch.ones(4).double())
        torch.testing.assert_close(found[1], -found[0])
    redrawn = ig.baselines.Given(
        torch.randn(9, 6, generator=torch.Generator().manual_seed(8)).double()
    )
    moved = (field.weight * (x[:, None] - redrawn.references)).square().mean(1).sqrt()
    found = ig.metrics.monotonicity_correlation(field, x, moved, fill=redrawn)
    torch.testing.assert_close(found, torch.ones(4).double())
    assert (
        ig.metrics.monotonicity(
            field, x, exact, fill=0.5, signed=True, how="share", steps=None
        ).max()
        < 1
    )
    positive = ig.fields.Linear(field.weight.abs())
    assert (
        ig.metrics.monotonicity(positive, x.abs(), field.weight.abs() * x.abs()).tolist() == [1] * 4
    )
    assert ig.metrics.non_sensitivity(field, x, exact).tolist() == [0] * 4


@pytest.mark.parametrize("scale", [False, True])
def test_infidelity_of_linear_models(linear: Any, scale: bool) -> None:
    """0 in the form that a map is made for, with every perturbation; far from it in the other form."""
    field, x, exact = linear
    slope = field.weight.expand_as(x)
    for perturb in ("subset", "gaussian", "jitter"):
        asked = {"perturb": perturb, "draws": 50, "fill": 0.5, "scale": scale}
        right = ig.metrics.infidelity(field, x, exact, form="global", **asked)
        local = ig.metrics.infidelity(field, x, slope, form="local", **asked)
        assert float(torch.stack([right, local]).max()) < 1e-20
        wrong = ig.metrics.infidelity(field, x, exact, form="local", **asked)
        assert float(wrong.min()) > 1e-3


def test_infidelity_is_its_definition(model: nn.Module, x: Tensor, maps: Tensor) -> None:
    """Squares, and the optimal scale, restated one draw at a time."""
    for perturb in (
        ig.metrics.Square(3),
        ig.metrics.NoisyFill(0.3, -1, 1),
        ig.metrics.RandomFeatures(0.3, 2),
    ):
        found = ig.metrics.infidelity(
            model, x, list(maps), target=1, perturb=perturb, draws=9, fill=0.1, seed=6
        )
        scaled = ig.metrics.infidelity(
            model, x, list(maps), target=1, perturb=perturb, draws=9, fill=0.1, seed=6, scale=True
        )
        for m in range(2):
            for b in range(3):
                said, done = [], []
                for draw in range(9):
                    row = x[b : b + 1]
                    became = perturb(
                        row, torch.full_like(row, 0.1), ig.core.random.generator(6, draw)
                    )
                    if became.dtype == torch.bool:
                        gone = became.expand_as(row)
                        became = torch.where(gone, 0.1, row)
                        said.append(float(maps[m, b][gone[0]].sum()))
                    else:
                        said.append(float((maps[m, b] * (row - became)[0] / (row[0] - 0.1)).sum()))
                    done.append(float(model(row)[0, 1] - model(became)[0, 1]))
                a, d = np.array(said), np.array(done)
                assert float(found[m, b]) == pytest.approx(np.mean((a - d) ** 2), rel=1e-10)
                beta = (a * d).mean() / (a * a).mean()
                assert float(scaled[m, b]) == pytest.approx(np.mean((beta * a - d) ** 2), rel=1e-10)


def test_squares_lie_anywhere_and_are_of_every_size() -> None:
    rows = torch.zeros(1, 1, 12, 9)
    seen = [ig.metrics.Square(4)(rows, rows, ig.core.random.generator(n)) for n in range(400)]
    assert {int(s.sum()) for s in seen} == {1, 4, 9, 16}
    assert bool(torch.stack(seen).any(0).all())
    assert int(ig.metrics.Square(99)(rows, rows, ig.core.random.generator(1)).sum()) <= 81


def test_yehs_gaussian_perturbation_is_noise_around_the_fill() -> None:
    """As coded: r = clip(N(0, 0.2²) + x, x − 1, x), x' = x − r, which is noise between 0 and 1 and not x at all."""
    x = torch.rand(4, 50, generator=torch.Generator().manual_seed(0))
    became = ig.metrics.NoisyFill(0.2, 0.0, 1.0)(
        x, torch.zeros_like(x), ig.core.random.generator(3)
    )
    noise = (
        torch.randn(1, 50, generator=ig.core.random.generator(3), dtype=torch.float64).float()
        * -0.2
    )
    r = torch.minimum(torch.maximum(noise + x, x - 1), x)
    torch.testing.assert_close(became.expand_as(x), x - r)


def test_a_map_of_zeros_says_nothing_of_a_perturbation(linear: Any) -> None:
    field, x, exact = linear
    plain, scaled = (
        ig.metrics.infidelity(field, x, 0 * exact, draws=40, scale=s) for s in (False, True)
    )
    torch.testing.assert_close(plain, scaled)
    assert bool((plain > 0).all())


# --- draws ------------------------------------------------------------------------------------------------------------


def test_subsets_have_their_size_and_favour_nobody() -> None:
    cells = Cells.of("elements", torch.zeros(2, 10))
    chosen = cells.draw(torch.tensor([3]), 4000, 1)
    assert chosen.shape == (4000, 1, 10)
    assert bool((chosen.sum(-1) == 3).all())
    share = chosen.double().mean((0, 1))
    assert float((share - 0.3).abs().max()) < 5 * (0.21 / 4000) ** 0.5
    assert bool((cells.draw(torch.tensor([3]), 4000, 1) == chosen).all())
    assert not bool((cells.draw(torch.tensor([3]), 4000, 2) == chosen).all())


def test_random_maps_are_correlated_with_nothing(model: nn.Module, x: Tensor) -> None:
    random = torch.Generator().manual_seed(9)
    maps = list(torch.randn(100, 3, 2, 4, 4, generator=random).double())
    for name in (
        "sensitivity_n",
        "faithfulness_correlation",
        "faithfulness_estimate",
        "monotonicity_correlation",
    ):
        metric, options = METRICS[name]
        found = metric(model, x, maps, target=1, **options)
        z = found.mean(0) / (found.std(0) / 10)
        assert float(z.abs().max()) < 3.5, name
        assert bool((found.amin(0) < 0).all() and (found.amax(0) > 0).all()), name


@pytest.mark.parametrize("name", METRICS)
def test_a_batch_equals_its_examples(model: nn.Module, x: Tensor, maps: Tensor, name: str) -> None:
    metric, options = METRICS[name]
    target = torch.tensor([0, 1, 2])
    whole = metric(model, x, list(maps), target=target, **options)
    assert whole.shape == (2, 3)
    for b in range(3):
        alone = metric(model, x[b : b + 1], list(maps[:, b : b + 1]), target=b, **options)
        torch.testing.assert_close(whole[:, b : b + 1], alone)
    torch.testing.assert_close(metric(model, x, maps[1], target=target, **options), whole[1])


@pytest.mark.parametrize(
    "name", [name for name in METRICS if name not in ("infidelity", "monotonicity")]
)
def test_superpixels_of_ones_own(model: nn.Module, x: Tensor, maps: Tensor, name: str) -> None:
    """Label maps with other numbers, and another number of features, for each example."""
    metric, options = METRICS[name]
    labels = torch.stack([SUPERPIXELS, SUPERPIXELS % 4 + 7, SUPERPIXELS * 3])
    whole = metric(model, x, list(maps), target=1, features=labels, **options)
    for b in range(3):
        alone = metric(
            model, x[b : b + 1], list(maps[:, b : b + 1]), target=1, features=labels[b], **options
        )
        if name == "sensitivity_n":  # its n depend on the number of features
            continue
        torch.testing.assert_close(whole[:, b : b + 1], alone)
    assert bool(whole.isfinite().all())


def test_cost(model: nn.Module, x: Tensor, maps: Tensor) -> None:
    """Rows as claimed, whatever the number of maps; F(x) once."""
    counting = Counting(model)
    claimed = {
        "sensitivity_n": (3 * 20 * 3, {"sizes": (1, 2, 3), "subsets": 20}),
        "faithfulness_correlation": (3 * 20, {"runs": 20}),
        "faithfulness_estimate": (3 * 16, {}),
        "monotonicity_correlation": (3 * 16 * 5, {"fill": ig.metrics.Within(5)}),
        "non_sensitivity": (3 * 16 * 5, {"fill": ig.metrics.Within(5)}),
        "infidelity": (3 * 30, {"draws": 30}),
        "monotonicity": (4 * 3 * 15 + 3, {}),
    }
    for name, (expected, options) in claimed.items():
        counting.reset()
        METRICS[name][0](counting, x, [*maps, *maps], target=1, **options)
        assert counting.values == expected + 3, name


def test_any_features_and_scores(model: nn.Module, x: Tensor, maps: Tensor) -> None:
    for name, (metric, options) in METRICS.items():
        for score in ("probability", ig.targets.LogOdds(1)):
            assert metric(model, x, maps[0], target=1, score=score, **options).isfinite().all(), (
                name
            )
        if name != "infidelity":
            for features in (2, "elements", SUPERPIXELS):
                assert (
                    metric(model, x, maps[0], target=1, features=features, **options)
                    .isfinite()
                    .all()
                ), name
    tokens, classify = torch.randn(2, 5, 3), nn.Sequential(nn.Flatten(), nn.Linear(15, 2))
    assert (
        ig.metrics.sensitivity_n(classify, tokens, torch.randn(2, 5, 3), target=0).isfinite().all()
    )


# --- what is undefined, and what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "name",
    [
        "sensitivity_n",
        "faithfulness_correlation",
        "faithfulness_estimate",
        "monotonicity_correlation",
        "monotonicity",
    ],
)
def test_constant_maps_have_no_value(
    model: nn.Module, x: Tensor, name: str, dtype: torch.dtype
) -> None:
    metric, options = METRICS[name]
    flat = torch.full_like(x, 0.1).to(dtype)
    nearly = flat * (
        1
        + torch.finfo(dtype).eps
        * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    )
    found = metric(model.to(dtype), x.to(dtype), [flat, 0 * flat, nearly], target=1, **options)
    assert bool(found.isnan().all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "name",
    [
        "sensitivity_n",
        "faithfulness_correlation",
        "faithfulness_estimate",
        "monotonicity_correlation",
        "monotonicity",
    ],
)
def test_models_that_nothing_moves_have_no_value(
    x: Tensor, maps: Tensor, name: str, dtype: torch.dtype
) -> None:
    """A constant F, and one that moves by rounding only: never a silent 0 or 1."""
    metric, options = METRICS[name]
    still = ig.fields.Function(lambda z: 0 * z.flatten(1).sum(1) + 3)
    rounded = ig.fields.Function(
        lambda z: 1e3 * (1 + 3 * torch.finfo(z.dtype).eps * z.flatten(1).sum(1).sin())
    )
    assert len(rounded.value(x.to(dtype)).unique()) > 1
    for field in (still, rounded):
        assert bool(metric(field, x.to(dtype), maps[0].to(dtype), **options).isnan().all())


def test_non_sensitivity_of_extreme_maps_is_defined(linear: Any) -> None:
    field, x, exact = linear
    assert ig.metrics.non_sensitivity(field, x, 0 * exact).tolist() == [6] * 4
    assert ig.metrics.non_sensitivity(field, x, 0 * exact + 1).tolist() == [0] * 4
    still = ig.fields.Function(lambda z: 0 * z.sum(1) + 3)
    assert ig.metrics.non_sensitivity(still, x, [exact, 0 * exact]).tolist() == [[6] * 4, [0] * 4]


def test_one_example_without_a_value_leaves_the_summary_alone(
    model: nn.Module, x: Tensor, maps: Tensor
) -> None:
    values = maps[0].clone()
    values[1] = 0
    with ig.metrics.Subject.of(model, x, 1) as subject:
        running = ig.metrics.Running("sensitivity_n")
        running.update(subject, ig.metrics.Maps.of(values, subject.x, subject.layout))
    result = running.compute()
    assert result.values[0].isnan().tolist() == [False, True, False]
    torch.testing.assert_close(result.summary[0], result.values[0, [0, 2]].mean())


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("sensitivity_n", {"sizes": (17,)}, "sizes=17 of 16 features leaves nothing"),
    ("sensitivity_n", {"sizes": (16,)}, "leaves nothing"),
    ("sensitivity_n", {"sizes": (0,)}, "not 0"),
    ("sensitivity_n", {"sizes": (1.5,)}, "no fraction below 1"),
    ("sensitivity_n", {"sizes": ()}, "at least one n"),
    ("sensitivity_n", {"subsets": 1}, "two subsets at least"),
    ("sensitivity_n", {"features": 4}, "there is one only"),
    ("sensitivity_n", {"most": 1.0}, "fraction below 1"),
    ("faithfulness_correlation", {"size": 40}, "leaves nothing"),
    ("faithfulness_correlation", {"subsets": torch.ones(4, 9, dtype=torch.bool)}, "16 features"),
    ("faithfulness_correlation", {"subsets": torch.ones(4, 16)}, "booleans"),
    ("faithfulness_correlation", {"fill": torch.zeros(7)}, "baseline"),
    ("non_sensitivity", {"eps": 2}, "eps="),
    ("monotonicity", {"how": "boolean"}, 'how= is "every"'),
    ("infidelity", {"form": "both"}, "form="),
    ("infidelity", {"perturb": "squares"}, "perturb= is one of"),
    ("infidelity", {"draws": 0}, "one draw at least"),
    ("infidelity", {"perturb": lambda x, blank, random: x[..., 0]}, "returned"),
    (
        "infidelity",
        {"perturb": ig.metrics.RandomFeatures(0.5, torch.zeros(3, 4, 4).long())},
        "share",
    ),
]


@pytest.mark.parametrize(("name", "options", "message"), REFUSED)
def test_what_is_refused(
    model: nn.Module, x: Tensor, maps: Tensor, name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        METRICS[name][0](model, x, maps[0], target=1, **options)


@pytest.mark.parametrize("name", METRICS)
def test_maps_with_nan_are_refused(model: nn.Module, x: Tensor, name: str) -> None:
    with pytest.raises(ig.errors.NonFiniteInput, match="holds NaN"):
        METRICS[name][0](model, x, torch.full_like(x, torch.nan), target=1)


def test_squares_need_images() -> None:
    with pytest.raises(ig.errors.ShapeError, match="Squares are cut from images"):
        ig.metrics.infidelity(
            nn.Linear(4, 2), torch.randn(3, 4), torch.randn(3, 4), target=0, perturb="square"
        )
