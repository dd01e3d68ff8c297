"""Baselines, each restated by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import scipy.ndimage
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.baselines.base import checked, labels
from integrand.core.random import generator
from tests.problems import Counting, filled, wave

IMAGENET = ig.Normalisation.imagenet()
IMAGES = 0.5 + 0.5 * wave(2, 3, 12, 9)
TABLE = wave(4, 5)
POOL = wave(30, 5, phase=2)


class Plane(ig.fields.Field):
    """A field that a baseline may only ask what its images look like."""

    def __init__(self, normalisation: ig.Normalisation | None = None) -> None:
        self.normalisation = normalisation

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Any:
        raise AssertionError("a baseline asked for a value or gradient")


def made(baseline: Any, x: Tensor, normalisation: ig.Normalisation | None = None) -> Tensor:
    before = x.clone()
    found = baseline(x, Plane(normalisation))
    assert torch.equal(x, before)
    assert found.shape[1:] == x.shape
    assert found.dtype == x.dtype
    return found


# --- what is given ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (0.25, torch.full((5,), 0.25)),
        (torch.arange(5), torch.arange(5.0)),
        (torch.tensor(2.0), torch.full((5,), 2.0)),
    ],
)
def test_constant(content: Any, expected: Tensor) -> None:
    found = made(ig.baselines.Constant(content), TABLE)
    assert found.shape == (1, 4, 5)
    assert torch.equal(found, expected.double().expand(1, 4, 5))


def test_a_number_is_not_rounded_to_float32() -> None:
    assert float(made(ig.baselines.Constant(0.2), TABLE)[0, 0, 0]) == 0.2


def test_three_numbers_colour_an_image() -> None:
    found = made(ig.baselines.Constant(torch.tensor([0.1, 0.2, 0.3])), IMAGES)
    for c in range(3):
        assert found[:, :, c].unique().tolist() == pytest.approx([0.1 * (c + 1)], abs=1e-7)


def test_given_for_all_and_for_each() -> None:
    shared, own = wave(3, 5), wave(3, 4, 5)
    assert torch.equal(made(ig.baselines.Given(shared), TABLE), shared[:, None].expand(3, 4, 5))
    assert torch.equal(made(ig.baselines.Given(own), TABLE), own)
    assert ig.baselines.Given(own).count == 3


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((5,), (1, 4, 5)),
        ((1, 5), (1, 4, 5)),
        ((4, 5), (1, 4, 5)),
        ((3, 4, 5), (3, 4, 5)),
        ((), (1, 4, 5)),
    ],
)
def test_a_bare_tensor(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    content = wave(*shape)
    found = made(ig.baselines.Plain(content), TABLE)
    assert found.shape == expected
    assert torch.equal(found, content.expand(expected))


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        (
            ig.baselines.Constant(torch.zeros(4)),
            r"constant baseline of shape 4 does not broadcast .* of shape 5",
        ),
        (
            ig.baselines.Given(torch.zeros(3, 4)),
            r"shape 3x4; .* must be R x 5 \(the same for all\) or R x 4x5",
        ),
        (ig.baselines.Given(torch.zeros(3, 2, 5)), r"shape 3x2x5"),
        (
            ig.baselines.Plain(torch.zeros(3, 5)),
            r"shape 3x5 does not fit inputs of shape 4x5.* use ig.baselines.Given",
        ),
        (ig.baselines.Plain(torch.zeros(6)), r"shape 6 does not fit"),
    ],
)
def test_shapes_that_do_not_fit(baseline: Any, message: str) -> None:
    with pytest.raises(ig.errors.BaselineError, match=message):
        made(baseline, TABLE)


def test_as_baseline() -> None:
    as_baseline, names = ig.baselines.as_baseline, ig.methods.BASELINES
    assert as_baseline(1) == ig.baselines.Constant(1.0)
    assert as_baseline("black", names) == ig.baselines.black()
    assert as_baseline(TABLE) == ig.baselines.Plain(TABLE)
    own = ig.baselines.Uniform(0.0, 1.0)
    assert as_baseline(own) is own
    assert as_baseline([0, own], names) == ig.baselines.Union((ig.baselines.Constant(0.0), own))
    with pytest.raises(
        ig.errors.UnknownName, match=r"no baseline named 'blak'. Did you mean 'black'"
    ):
        as_baseline("blak", names)
    with pytest.raises(ig.errors.BaselineError, match=r"a number, a tensor, a list .* got dict"):
        as_baseline({})


@pytest.mark.parametrize("name", list(ig.methods.BASELINES))
def test_every_named_baseline_works_on_images(name: str) -> None:
    found = made(
        ig.baselines.as_baseline(name, ig.methods.BASELINES), IMAGENET.encode(IMAGES), IMAGENET
    )
    assert found.shape == (1, *IMAGES.shape)


def test_several() -> None:
    several = ig.baselines.Union(
        (ig.baselines.Constant(1.0), ig.baselines.Given(POOL[:2]), ig.baselines.Uniform(0, 1, 2))
    )
    found = made(several, TABLE)
    assert several.count == len(found) == 5
    assert torch.equal(found[0], torch.ones(4, 5).double())
    assert torch.equal(found[1:3], POOL[:2, None].expand(2, 4, 5))
    assert torch.equal(found[3:], ig.baselines.Uniform(0, 1, 2)(TABLE, Plane()))
    with pytest.raises(ig.errors.BaselineError, match=r"at least one"):
        ig.baselines.Union(())


def test_labels() -> None:
    black, noise = ig.baselines.black(), ig.baselines.Uniform(0, 1, 2)
    assert labels(black, 1) == ("black",)
    assert labels(noise, 2) == ("uniform noise 1", "uniform noise 2")
    assert labels(ig.baselines.Union((black, noise, black)), 4) == (
        "black 1",
        "uniform noise 1",
        "uniform noise 2",
        "black 2",
    )
    assert labels(ig.baselines.Given(POOL[:2], names=("a", "b")), 2) == ("a", "b")
    assert labels(ig.baselines.Union((black, ig.baselines.Sample(POOL))), 31)[:2] == (
        "black",
        "sample 1",
    )
    assert labels(lambda x, field: x[None], 1) == ("function",)


@pytest.mark.parametrize(
    ("references", "message"),
    [
        ([1, 2], "returned list, not a tensor"),
        (torch.zeros(4, 5), "returned shape 4x5; for inputs of shape 4x5 it must be R x 4x5"),
        (torch.zeros(0, 4, 5), "returned no references"),
        (torch.full((1, 4, 5), float("nan")), "holds NaN or infinity"),
    ],
)
def test_what_a_baseline_returns_is_checked(references: Any, message: str) -> None:
    with pytest.raises(ig.errors.BaselineError, match=message):
        checked(references, TABLE, lambda: None, ig.fields.Function(torch.sum))


# --- images -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("baseline", "level"),
    [(ig.baselines.black(), 0.0), (ig.baselines.white(), 1.0), (ig.baselines.grey(), 0.5)],
)
@pytest.mark.parametrize("n", [IMAGENET, ig.Normalisation.unit(), ig.Normalisation.symmetric()])
def test_colours_are_what_the_eye_sees(baseline: Any, level: float, n: ig.Normalisation) -> None:
    found = made(baseline, n.encode(IMAGES), n)[0, 0]
    for c in range(3):
        mean, std = n.mean[c % len(n.mean)], n.std[c % len(n.std)]
        assert found[c].unique().tolist() == pytest.approx([(level - mean) / std], abs=1e-12)
    torch.testing.assert_close(n.decode(found), torch.full_like(found, level), rtol=0, atol=1e-12)


def test_a_colour_of_one_number_per_channel() -> None:
    found = made(ig.baselines.Colour((0.0, 0.5, 1.0)), IMAGES, ig.Normalisation.unit())[0, 0]
    assert [c.unique().tolist() for c in found] == [[0.0], [0.5], [1.0]]


def test_a_colour_needs_to_know_the_images() -> None:
    with pytest.raises(
        ig.errors.BaselineError,
        match=r"which number the model takes for black: pass normalisation=",
    ):
        made(ig.baselines.black(), IMAGES)


@pytest.mark.parametrize("sigma", [0.7, 1.0, 1.1, 2.0, 5.0, 10.0])
def test_blurred(sigma: float) -> None:
    """scipy with the same radius, ⌈3σ⌉; for whole numbers that is its own truncate=3."""
    found = made(ig.baselines.Blurred(sigma), IMAGES)[0]
    radius = {"truncate": 3} if sigma == int(sigma) else {"radius": math.ceil(3 * sigma)}
    for b in range(2):
        for c in range(3):
            expected = scipy.ndimage.gaussian_filter(
                IMAGES[b, c].numpy(), sigma, mode="reflect", **radius
            )
            torch.testing.assert_close(found[b, c], torch.from_numpy(expected), rtol=0, atol=1e-14)


def test_blurred_by_nothing() -> None:
    assert torch.equal(made(ig.baselines.Blurred(0.0), IMAGES)[0], IMAGES)
    with pytest.raises(ig.errors.BaselineError, match=r"positive width, not sigma=-1"):
        made(ig.baselines.Blurred(-1), IMAGES)


def test_corners() -> None:
    """The mean of four patch means; a patch is ⌊share · height⌋ on both sides, and at least one pixel."""
    for share, side in ((0.1, 1), (0.25, 3), (0.01, 1)):
        found = made(ig.baselines.Corners(share), IMAGES)[0]
        for b in range(2):
            for c in range(3):
                patches = []
                for rows in (range(side), range(12 - side, 12)):
                    for columns in (range(side), range(9 - side, 9)):
                        pixels = [float(IMAGES[b, c, i, j]) for i in rows for j in columns]
                        patches.append(sum(pixels) / len(pixels))
                expected = torch.full((12, 9), sum(patches) / 4).double()
                torch.testing.assert_close(found[b, c], expected, rtol=0, atol=1e-7)


def test_mean_and_median_of_images() -> None:
    mean, median = made(ig.baselines.Mean(), IMAGES)[0], made(ig.baselines.Median(), IMAGES)[0]
    for b in range(2):
        for c in range(3):
            pixels = sorted(IMAGES[b, c].flatten().tolist())
            middle = (pixels[len(pixels) // 2] + pixels[(len(pixels) - 1) // 2]) / 2
            assert mean[b, c].unique().tolist() == pytest.approx(
                [sum(pixels) / len(pixels)], abs=1e-14
            )
            assert median[b, c].unique().tolist() == pytest.approx([middle], abs=1e-14)


@pytest.mark.parametrize(
    "baseline",
    [ig.baselines.Mean(), ig.baselines.Median(), ig.baselines.MeanLeft(), ig.baselines.Extreme()],
    ids=["mean", "median", "mean left", "darkest"],
)
@pytest.mark.parametrize("x", [TABLE, TABLE[:, 0]], ids=["columns", "one number"])
def test_unlike_numbers_have_no_mean(baseline: Any, x: Tensor) -> None:
    """Age and income have no mean, and one column has none but itself: the error says what to give."""
    with pytest.raises(
        ig.errors.BaselineError, match=r"different kinds, such as age and income; .*data\.mean\(0\)"
    ):
        made(baseline, x)


@pytest.mark.parametrize(
    "baseline", [ig.baselines.Mean(), ig.baselines.Median(), ig.baselines.MeanLeft()]
)
def test_two_axes_do_not_say_which_is_the_channel(baseline: Any) -> None:
    """(channels, time), (tokens, width) or (height, width): the error names the mean over either axis, and both fit."""
    series = wave(2, 3, 5)
    with pytest.raises(
        ig.errors.BaselineError, match=r"each of the 5 columns .* 3x5, x\.mean\(2, .* 3 rows"
    ):
        made(baseline, series)
    for axis in (1, 2):
        mean = series.mean(axis, keepdim=True).expand_as(series)
        assert torch.equal(made(ig.baselines.Plain(mean), series)[0], mean)


def test_films_have_a_mean_per_channel() -> None:
    films = wave(2, 3, 4, 5, 6)
    found = made(ig.baselines.Mean(), films)[0]
    torch.testing.assert_close(
        found, films.mean((2, 3, 4), keepdim=True).expand_as(films), rtol=0, atol=1e-14
    )


@pytest.mark.parametrize(
    "baseline", [ig.baselines.Blurred(), ig.baselines.Corners(), ig.baselines.black()]
)
def test_images_are_asked_for(baseline: Any) -> None:
    with pytest.raises(
        ig.errors.BaselineError,
        match=r"images of shape \(channels, height, width\), but .* shape 5",
    ):
        made(baseline, TABLE, IMAGENET)


# --- noise ------------------------------------------------------------------------------------------------------------


def test_uniform_noise() -> None:
    found = made(ig.baselines.Uniform(-2.0, 3.0, count=400, seed=1), TABLE)
    assert found.shape == (400, 4, 5)
    assert float(found.min()) >= -2
    assert float(found.max()) <= 3
    sample = found[:, 0].flatten()
    assert float(sample.mean()) == pytest.approx(0.5, abs=4 * 5 / 12**0.5 / 2000**0.5)
    assert float(sample.std()) == pytest.approx(5 / 12**0.5, rel=0.05)


def test_uniform_noise_between_black_and_white() -> None:
    found = made(ig.baselines.Uniform(count=20), IMAGENET.encode(IMAGES), IMAGENET)
    for c in range(3):
        low, high = -IMAGENET.mean[c] / IMAGENET.std[c], (1 - IMAGENET.mean[c]) / IMAGENET.std[c]
        assert low <= float(found[:, :, c].min()) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < float(found[:, :, c].max()) <= high
    with pytest.raises(ig.errors.BaselineError, match=r"needs its bounds: Uniform\(low, high\)"):
        made(ig.baselines.Uniform(), IMAGES)


def test_gaussian_noise() -> None:
    found = made(ig.baselines.Gaussian(0.5, 2.0, count=400), TABLE)[:, 0].flatten()
    assert float(found.mean()) == pytest.approx(2, abs=4 * 0.5 / 2000**0.5)
    assert float(found.std()) == pytest.approx(0.5, rel=0.07)
    around = made(ig.baselines.Gaussian(0.5, "input", count=400), TABLE)
    torch.testing.assert_close(
        around - TABLE, made(ig.baselines.Gaussian(0.5, 0.0, 400), TABLE), rtol=0, atol=1e-15
    )
    with pytest.raises(ig.errors.BaselineError, match=r"around a number or 'input', not 'mean'"):
        made(ig.baselines.Gaussian(mean="mean"), TABLE)


@pytest.mark.parametrize(
    "kind",
    [
        lambda seed: ig.baselines.Uniform(0, 1, 3, seed),
        lambda seed: ig.baselines.Gaussian(1, 0, 3, seed),
    ],
)
def test_noise_is_seeded_and_the_same_for_every_example(kind: Any) -> None:
    found = made(kind(7), TABLE)
    assert torch.equal(found, made(kind(7), TABLE))
    assert torch.equal(found, found[:, :1].expand_as(found))
    assert not torch.isclose(found, made(kind(8), TABLE)).any()
    assert not torch.isclose(found[0], found[1]).any()
    assert torch.equal(made(kind(7), TABLE[2:3]), found[:, 2:3])


# --- data -------------------------------------------------------------------------------------------------------------


def members(found: Tensor, pool: Tensor = POOL) -> list[int]:
    """Which members of the pool these are; every one must be there."""
    return [next(i for i in range(len(pool)) if torch.equal(pool[i], row)) for row in found]


def test_sample_draws_without_replacement() -> None:
    found = made(ig.baselines.Sample(POOL, 30), TABLE)
    assert sorted(members(found[:, 0])) == list(range(30))
    assert members(found[:, 0]) != list(range(30))
    assert torch.equal(found, found[:, :1].expand_as(found))
    draws = {
        tuple(members(made(ig.baselines.Sample(POOL, 4, seed), TABLE)[:, 0])) for seed in range(12)
    }
    assert len(draws) == 12
    assert members(made(ig.baselines.Sample(POOL, 4, 3), TABLE)[:, 0]) in [list(d) for d in draws]


def test_sample_is_fair() -> None:
    counts = torch.zeros(30)
    for seed in range(300):
        counts[members(made(ig.baselines.Sample(POOL, 10, seed), TABLE)[:, 0])] += 1
    # Each is drawn in a third of the runs: 100 ± four standard deviations of 8.2.
    assert 67 < float(counts.min()) < float(counts.max()) < 133


def test_sample_all_in_order() -> None:
    found = made(ig.baselines.Sample(POOL), TABLE)
    assert torch.equal(found[:, 0], POOL)


def test_sample_from_a_dataset_of_pairs() -> None:
    pairs = torch.utils.data.TensorDataset(POOL, torch.arange(30))
    assert torch.equal(
        made(ig.baselines.Sample(pairs, 5, 2), TABLE), made(ig.baselines.Sample(POOL, 5, 2), TABLE)
    )
    plain = [row for row in POOL]  # noqa: C416
    assert torch.equal(
        made(ig.baselines.Sample(plain, 5, 2), TABLE), made(ig.baselines.Sample(POOL, 5, 2), TABLE)
    )


@pytest.mark.parametrize("count", [0, -1, 31])
def test_sample_more_than_there_is(count: int) -> None:
    with pytest.raises(
        ig.errors.BaselineError,
        match=f"{count} references cannot be drawn without replacement from 30",
    ):
        made(ig.baselines.Sample(POOL, count), TABLE)


def test_sample_goes_through_the_data_again() -> None:
    """With ``replace`` every datum comes once per pass, each pass in an order of its own, and the last is cut off."""
    found = members(made(ig.baselines.Sample(POOL, 100, 3, replace=True), TABLE)[:, 0])
    passes = [found[first : first + 30] for first in range(0, 100, 30)]
    assert [len(one) for one in passes] == [30, 30, 30, 10]
    assert all(sorted(one) == list(range(30)) for one in passes[:3])
    assert len({tuple(one[:10]) for one in passes}) == 4
    assert len(set(passes[3])) == 10


def test_sample_with_replacement_is_seeded() -> None:
    draw = lambda *args: members(made(ig.baselines.Sample(POOL, *args, replace=True), TABLE)[:, 0])  # noqa: E731
    torch.manual_seed(0)
    one = draw(70, 1)
    torch.manual_seed(1)
    assert draw(70, 1) == one
    assert draw(70, 2) != one
    # More of the same: what is asked for in addition comes behind.
    assert draw(100, 1)[:70] == one
    # As long as the data last, nothing is different.
    assert draw(12, 1) == members(made(ig.baselines.Sample(POOL, 12, 1), TABLE)[:, 0])


@pytest.mark.parametrize(("data", "count"), [(POOL, 0), (POOL, -2), (POOL[:0], 3)])
def test_sample_with_replacement_from_nothing(data: Tensor, count: int) -> None:
    with pytest.raises(ig.errors.BaselineError, match=f"{count} references cannot be drawn"):
        made(ig.baselines.Sample(data, count, replace=True), TABLE)


def test_sample_of_another_shape() -> None:
    with pytest.raises(
        ig.errors.BaselineError, match=r"examples of shape 3, but the inputs have 5"
    ):
        made(ig.baselines.Sample(wave(10, 3), 2), TABLE)


def test_samples_can_be_compared() -> None:
    array = POOL.numpy()
    assert ig.baselines.Sample(array, 3) == ig.baselines.Sample(array, 3)
    assert ig.baselines.Sample(array, 3) != ig.baselines.Sample(array + 1, 3)
    rows = list(POOL)
    assert ig.baselines.Sample(rows, 3) == ig.baselines.Sample([row.clone() for row in rows], 3)
    assert ig.baselines.Sample(rows, 3) != ig.baselines.Sample([row + 1 for row in rows], 3)


def five_classes() -> tuple[nn.Module, ig.TorchField]:
    model = filled(nn.Linear(5, 5))
    return model, ig.TorchField(model, 0)


def test_other_class_is_never_the_own() -> None:
    model, field = five_classes()
    found = ig.baselines.OtherClass(POOL, 6, seed=3)(TABLE, field)
    assert found.shape == (6, 4, 5)
    own, others = model(TABLE).argmax(1), model(found.flatten(0, 1)).argmax(1).reshape(6, 4)
    assert bool((others != own).all())
    for b in range(4):
        assert len(set(members(found[:, b]))) == 6
        alone = ig.baselines.OtherClass(POOL, 6, seed=3)(TABLE[b : b + 1], field)
        assert torch.equal(alone[:, 0], found[:, b])
    assert not torch.equal(found, ig.baselines.OtherClass(POOL, 6, seed=4)(TABLE, field))


def test_relevant_ranks() -> None:
    """Members of the pool whose class the model ranks 2nd or 3rd for the input come first, then by rank, never the own."""
    model, field = five_classes()
    classes = model(POOL).argmax(1).tolist()
    filled_up = False
    for count in (1, 5, 11):
        found = ig.baselines.Relevant(POOL, count, first=2, last=3, seed=1)(TABLE, field)
        for b in range(4):
            ranking = model(TABLE[b : b + 1])[0].argsort(descending=True).tolist()
            ranks = [1 + ranking.index(classes[i]) for i in members(found[:, b])]
            preference = [0 if r in (2, 3) else r for r in ranks]
            assert 1 not in ranks
            assert preference == sorted(preference)
            # Among the near ones the shuffled pool decides, not the rank.
            shuffled = torch.randperm(30, generator=generator(1)).tolist()
            places = [
                shuffled.index(i)
                for i, p in zip(members(found[:, b]), preference, strict=True)
                if p == 0
            ]
            assert places == sorted(places)
            near = sum(1 + ranking.index(c) in (2, 3) for c in classes)
            assert preference.count(0) == min(count, near)
            filled_up = filled_up or near < count
            assert len(set(members(found[:, b]))) == count
    assert filled_up


@pytest.mark.parametrize("kind", [ig.baselines.OtherClass, ig.baselines.Relevant])
def test_too_few_of_another_class(kind: Any) -> None:
    _, field = five_classes()
    with pytest.raises(
        ig.errors.BaselineError,
        match=r"30 .* references were asked for, but the pool of 30 holds only \d+",
    ):
        kind(POOL, 30)(TABLE, field)


@pytest.mark.parametrize("kind", [ig.baselines.OtherClass, ig.baselines.Relevant])
def test_the_pool_is_looked_at_once(kind: Any) -> None:
    model = Counting(filled(nn.Linear(5, 5)))
    kind(POOL, 3)(TABLE, ig.TorchField(model, 0, batch_size=100))
    assert (model.values, model.gradients, model.calls) == (30 + 4, 0, 2)


@pytest.mark.parametrize("kind", [ig.baselines.OtherClass, ig.baselines.Relevant])
def test_pools_of_another_field_are_refused(kind: Any) -> None:
    with pytest.raises(
        ig.errors.TargetError, match=r"Linear has no class outputs to choose references by"
    ):
        kind(POOL, 3)(TABLE, ig.fields.Linear(wave(5)))


# --- normalisation ----------------------------------------------------------------------------------------------------


def test_normalisation_there_and_back() -> None:
    for c in range(3):
        encoded = IMAGENET.encode(IMAGES)[:, c]
        torch.testing.assert_close(
            encoded, (IMAGES[:, c] - IMAGENET.mean[c]) / IMAGENET.std[c], rtol=0, atol=1e-14
        )
    torch.testing.assert_close(IMAGENET.decode(IMAGENET.encode(IMAGES)), IMAGES, rtol=0, atol=1e-14)
    low, high = IMAGENET.range(IMAGES)
    assert low.flatten().tolist() == pytest.approx(
        [-m / s for m, s in zip(IMAGENET.mean, IMAGENET.std, strict=True)]
    )
    assert high.flatten().tolist() == pytest.approx(
        [(1 - m) / s for m, s in zip(IMAGENET.mean, IMAGENET.std, strict=True)]
    )
    assert float(IMAGENET.decode(torch.full((3, 1, 1), 99.0)).max()) == 1.0


@pytest.mark.parametrize("kind", [ig.baselines.Relevant, ig.baselines.OtherClass])
def test_a_pool_whose_classes_are_known_is_not_run(kind) -> None:
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 5))
    x, pool = torch.randn(3, 4), torch.randn(40, 4)
    rows = []
    model.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    predicted = kind(pool, 4, seed=2)
    known = kind(pool, 4, seed=2, classes=model(pool).argmax(1))
    runs = []
    for baseline in (predicted, known):
        rows.clear()
        runs.append(ig.explain(model, x, target="predicted", baseline=baseline).baselines)
        runs.append(sum(rows))
    assert torch.equal(runs[0], runs[2])
    assert runs[1] - runs[3] == len(pool)
    classes = model(pool).argmax(1)
    for same in (classes.tolist(), classes.numpy(), classes.to(torch.uint8), classes.int()):
        baseline = kind(pool, 4, seed=2, classes=same)
        again = ig.explain(model, x, target="predicted", baseline=baseline).baselines
        assert torch.equal(again, runs[0])


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (torch.zeros(39, dtype=torch.long), "one whole number for each of the 40"),
        (torch.zeros(40), "one whole number for each of the 40"),
        (torch.zeros(40, dtype=torch.bool), "one whole number for each of the 40"),
        (torch.zeros(40, dtype=torch.complex64), "one whole number for each of the 40"),
        ("abc", "one whole number for each of the 40"),
        (torch.full((40,), 5), "from 5 to 5, but the model has 3 outputs"),
    ],
)
def test_classes_of_a_pool_are_checked(classes, said) -> None:
    model, x, pool = torch.nn.Linear(4, 3), torch.randn(2, 4), torch.randn(40, 4)
    with pytest.raises(ig.errors.BaselineError, match=said):
        ig.explain(
            model,
            x,
            target="predicted",
            baseline=ig.baselines.OtherClass(pool, 1, classes=classes),
        )
