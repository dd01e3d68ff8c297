"""SmoothGrad around any method: against a loop, with noise that does not depend on the batch, and an error that is the real one."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

import integrand as ig
from integrand.core.random import generator
from tests.catalogue import AXIOMATIC, BUILD
from tests.problems import PROBLEMS, Counting, Problem, joined, wave
from tests.test_methods import CHECKS

PLAIN = ig.methods.integrated(0.25, ig.rules.Midpoint(10))


def run(problem: Problem, method: Any, **options: Any) -> ig.Attribution:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
        return ig.explain(
            problem.model,
            problem.inputs,
            target=problem.target,
            extra=problem.extra,
            method=method,
            **options,
        )


def noise(draw: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed, draw), dtype=torch.float64)


def maps_by_hand(p: Problem, b: int, draws: int, sigma: float = 0.15) -> Tensor:
    """IG at 10 midpoints of every noisy copy of example b, from a start that has no noise."""
    field, x = p.field(), p.packed()[b]
    found = []
    for draw in range(draws):
        noisy = x + sigma * (x.max() - x.min()) * noise(draw, *x.shape)
        start = torch.full_like(x, 0.25)
        mean = torch.zeros_like(x)
        for q in range(10):
            point = start + (q + 0.5) / 10 * (noisy - start)
            mean += field.rows(point[None], torch.tensor([b])).gradient[0] / 10
        found.append((noisy - start) * mean)
    return torch.stack(found)


@pytest.mark.parametrize("problem", ["relu mlp", "softplus cnn", "extra arguments"])
def test_is_the_mean_over_noisy_copies(problem: str) -> None:
    p = PROBLEMS[problem]
    mean, square, variance = (
        run(p, ig.SmoothGrad(PLAIN, 6, reduce=kind)) for kind in ("mean", "square", "variance")
    )
    for b in (0, 3):
        maps = maps_by_hand(p, b, 6)
        torch.testing.assert_close(mean.values[b], maps.mean(0), rtol=0, atol=1e-12)
        torch.testing.assert_close(square.values[b], maps.square().mean(0), rtol=0, atol=1e-12)
        torch.testing.assert_close(variance.values[b], maps.var(0), rtol=0, atol=1e-12)
        for made, numbers in ((mean, maps), (square, maps.square())):
            # The 95 % quantile of F is at least that of as many directions as there are, and at most that of one.
            error = float((numbers.var(0).sum() / 6).sqrt() / numbers.mean(0).norm())
            low, high = (error * stats.f.ppf(0.95, directions, 5) ** 0.5 for directions in (6, 1))
            stated = float(made.error[b])
            assert (
                low <= stated / (1 + stated**2) ** 0.5 <= 1.05 * high
            )  # relative to what is left at a right angle
            assert not bool(made.converged[b])
    assert bool(variance.error.isnan().all())


def test_what_it_adds_up_to() -> None:
    """mean F(x + ε) − F(b), up to the rule; the residual is held against F(x) − F(b)."""
    p = PROBLEMS["softplus cnn"]
    made = run(p, ig.SmoothGrad(ig.methods.integrated(0.25, ig.rules.GaussLegendre(16)), 5))
    field, x = p.field(), p.packed()
    start, output = field.value(torch.full_like(x, 0.25)), field.value(x)
    torch.testing.assert_close(made.output, output, rtol=0, atol=1e-12)
    torch.testing.assert_close(made.change[0], output - start, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        made.residual, output - start - made.values.flatten(1).sum(1), rtol=0, atol=1e-12
    )
    noisy = made.notes["noised"][:, 0]
    torch.testing.assert_close(
        made.values.flatten(1).sum(1), noisy.mean(0) - start, rtol=0, atol=1e-7
    )
    for draw in range(5):
        width = 0.15 * (x.flatten(1).amax(1) - x.flatten(1).amin(1)).reshape(-1, 1, 1, 1)
        torch.testing.assert_close(
            noisy[draw], field.value(x + width * noise(draw, 3, 8, 8)), rtol=0, atol=1e-12
        )
    assert bool((made.residual.abs() > 1e-4).all())
    assert torch.equal(joined(made.inputs), joined(p.inputs))


@given(
    n=st.integers(1, 6),
    batch=st.integers(1, 3),
    draws=st.integers(1, 4),
    phase=st.floats(0, 6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_without_noise_it_is_the_method(
    n: int, batch: int, draws: int, phase: float, dtype: torch.dtype
) -> None:
    x = wave(batch, n, phase=phase).to(dtype)
    field = ig.fields.Function(lambda z: torch.tanh(z).sum(1) ** 2)
    made, plain = ig.SmoothGrad(PLAIN, draws, 0.0)(field, x), PLAIN(field, x)
    for name in ("values", "output", "weights", "baselines", "inputs", "converged"):
        assert torch.equal(getattr(made, name), getattr(plain, name)), name
    torch.testing.assert_close(made.residual, plain.residual, rtol=0, atol=1e-6)
    assert bool((made.error == 0).all())  # there is no noise to be wrong by
    assert made.cost.gradients == draws * plain.cost.gradients


def test_noise_changes_the_map() -> None:
    p = PROBLEMS["relu mlp"]
    plain, one, other = (
        run(p, m) for m in (PLAIN, ig.SmoothGrad(PLAIN, 3), ig.SmoothGrad(PLAIN, 3, seed=1))
    )
    assert not torch.isclose(plain.values, one.values).any()
    assert not torch.isclose(other.values, one.values).any()
    assert torch.equal(run(p, ig.SmoothGrad(PLAIN, 3)).values, one.values)
    assert not torch.isclose(run(p, ig.SmoothGrad(PLAIN, 3), seed=1).values, one.values).any()


def test_the_error_is_the_real_one() -> None:
    """Against the mean of many draws: a bound in 95 of 100 cases, and not far above what the error is."""
    p = PROBLEMS["relu mlp"]
    inside = ig.methods.integrated(0.25, ig.rules.Midpoint(3))
    exact = run(p, ig.SmoothGrad(inside, 300, seed=99)).values
    ratios = []
    for seed in range(16):
        made = run(p, ig.SmoothGrad(inside, 12, seed=seed))
        ratios.append((made.values - exact).norm(dim=1) / exact.norm(dim=1) / made.error)
    ratio = torch.stack(ratios)
    assert (
        float((ratio <= 1).double().mean()) >= 0.88
    )  # of a dozen draws nobody knows better how they spread
    assert float(ratio.square().mean().sqrt()) > 0.4


def test_sigma_for_each_feature() -> None:
    p = PROBLEMS["relu mlp"]
    sigma = torch.tensor([0.0, 0.5, 0.0, 0.0, 1.0, 0.0])
    made = run(p, ig.SmoothGrad(PLAIN, 1, sigma))
    noisy = run(replace(p, inputs=p.inputs + sigma.double() * noise(0, 6)), PLAIN)
    torch.testing.assert_close(made.values, noisy.values, rtol=0, atol=1e-13)
    with pytest.raises(
        ig.errors.InputError,
        match=r"sigma of shape \(4,\) does not broadcast to an example of shape \(6,\)",
    ):
        run(p, ig.SmoothGrad(PLAIN, 1, torch.ones(4)))


def test_ranges_are_each_examples_own() -> None:
    """An even example has no range, and so no noise."""
    field = ig.fields.Function(lambda z: z.square().sum(1))
    x = torch.stack([torch.full((3,), 2.0), torch.tensor([0.0, 1.0, 2.0])]).double()
    made = ig.SmoothGrad(PLAIN, 4)(field, x)
    torch.testing.assert_close(made.values[0], PLAIN(field, x).values[0], rtol=0, atol=1e-14)
    assert float(made.error[0]) == 0
    assert float(made.error[1]) > 0


# --- every problem ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", PROBLEMS)
def test_five_at_once_are_five_alone(problem: str) -> None:
    p = PROBLEMS[problem]
    method = BUILD["smoothgrad"](p)
    whole = run(p, method)
    assert type(whole.values) is type(p.inputs)
    values = joined(whole.values)
    torch.testing.assert_close(
        values.sum(1) + whole.residual, whole.output - whole.base, rtol=0, atol=1e-12
    )
    for b in range(5):
        alone = run(p.only(b), method, batch_size=7)
        torch.testing.assert_close(joined(alone.values)[0], values[b], rtol=0, atol=1e-12)
        torch.testing.assert_close(alone.residual[0], whole.residual[b], rtol=0, atol=1e-12)
        torch.testing.assert_close(alone.error[0], whole.error[b], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(
            whole[b].notes["noised"], alone.notes["noised"], rtol=0, atol=1e-12
        )


def test_symmetry_is_only_in_the_mean() -> None:
    """The card does not claim it; noise treats features that are alike differently."""
    with pytest.raises(AssertionError):
        CHECKS["symmetric"](AXIOMATIC["smoothgrad"])


def test_gradients_are_draws_times_the_methods() -> None:
    p = PROBLEMS["softplus cnn"]
    model = Counting(p.model)
    tallies: list[Any] = []
    made = run(
        replace(p, model=model),
        ig.SmoothGrad(PLAIN, 4),
        progress=lambda tally: tallies.append((tally.gradients, tally.values, tally.expected)),
    )
    assert model.gradients == made.cost.gradients == 4 * 10 * 5
    assert model.values == made.cost.values
    assert model.calls == made.cost.calls
    assert tallies[-1][0] == 200
    assert tallies[-1][2] == 200


def test_nothing_global_is_touched() -> None:
    before = torch.random.get_rng_state()
    run(PROBLEMS["relu mlp"], ig.SmoothGrad(PLAIN, 3))
    assert torch.equal(torch.random.get_rng_state(), before)


# --- with other parts -------------------------------------------------------------------------------------------------


def test_baselines_take_no_noise() -> None:
    """Those that are made from the input are made from the one without noise, once."""
    p = PROBLEMS["softplus cnn"]
    asked = []

    def start(x: Tensor, field: Any) -> Tensor:
        asked.append(x)
        return 0.5 * x[None]

    made = run(p, ig.SmoothGrad(ig.Method(start, rule=ig.rules.Midpoint(3)), 4))
    assert len(asked) == 1
    torch.testing.assert_close(made.baselines[0], 0.5 * p.inputs, rtol=0, atol=0)


def test_around_other_methods() -> None:
    p = PROBLEMS["softplus cnn"]
    weighted = ig.methods.weighted(p.references, rule=ig.rules.Midpoint(4), fill=0.0)
    made = run(p, ig.SmoothGrad(weighted, 3))
    assert made.weights.shape == (3, 5)
    torch.testing.assert_close(made.weights.sum(0), torch.ones(5).double(), rtol=0, atol=1e-12)
    assert made.names == run(p, weighted).names
    drawn = ig.methods.expected(0.5 + 0.5 * wave(60, 3, 8, 8), tol=0.4)
    made = run(p, ig.SmoothGrad(drawn, 3))
    flat = made.values.flatten(1).sum(1)
    torch.testing.assert_close(flat + made.residual, made.output - made.base, rtol=0, atol=1e-12)
    walked = run(p, ig.SmoothGrad(ig.methods.ig2(p.references, "5", 3, 0.1, (-9.0, 9.0)), 3))
    assert walked.baselines is None
    assert walked.weights.shape == (3, 5)
    twice = run(p, ig.SmoothGrad(ig.SmoothGrad(PLAIN, 2), 2))
    assert twice.cost.gradients == 4 * 10 * 5


def test_around_a_layer() -> None:
    p = PROBLEMS["softplus cnn"]
    layer = ig.methods.layer("1", 0.25, ig.rules.Midpoint(6))
    made = run(p, ig.SmoothGrad(layer, 3))
    plain = run(p, layer)
    assert made.values.shape == plain.values.shape == (5, 4, 6, 6)
    maps = []
    for draw in range(3):
        width = 0.15 * (p.inputs.flatten(1).amax(1) - p.inputs.flatten(1).amin(1)).reshape(
            -1, 1, 1, 1
        )
        maps.append(run(replace(p, inputs=p.inputs + width * noise(draw, 3, 8, 8)), layer).values)
    torch.testing.assert_close(made.values, torch.stack(maps).mean(0), rtol=0, atol=1e-12)


def test_several_targets_share_their_passes() -> None:
    p = PROBLEMS["softplus cnn"]
    model = Counting(p.model)
    made = ig.explain_targets(
        model, p.inputs, targets=[0, p.target], method=ig.SmoothGrad(PLAIN, 3)
    )
    assert model.gradients == 3 * 10 * 5  # one forward pass for both
    torch.testing.assert_close(
        made[1].values, run(p, ig.SmoothGrad(PLAIN, 3)).values, rtol=0, atol=1e-12
    )


def test_by_name() -> None:
    p = PROBLEMS["relu mlp"]
    made = run(p, "smoothgrad", draws=3, sigma=0.3, baseline=0.25, rule=ig.rules.Midpoint(6))
    assert made.method == ig.SmoothGrad(ig.methods.integrated(0.25, ig.rules.Midpoint(6)), 3, 0.3)
    assert run(p, "smoothgrad", draws=2, tol=0.2).method.method.rule == ig.rules.Adaptive(0.2)
    assert run(
        p, "smoothgrad", of="ig2", draws=2, baseline=p.references, rule=ig.rules.Left()
    ).weights.shape == (3, 5)
    with pytest.raises(
        ig.errors.UnknownName,
        match=r"no option of method 'smoothgrad' named 'draw'. Did you mean 'draws'",
    ):
        run(p, "smoothgrad", draw=3)
    with pytest.raises(ig.errors.UnknownName, match=r"no method named 'integrate'"):
        run(p, "smoothgrad", of="integrate")


def test_names_of_references_by_input() -> None:
    """Shared references of a method inside are arranged as those of the method itself."""
    p = PROBLEMS["dict input"]
    shared = {"left": wave(3, 4, phase=1), "right": wave(3, 2, 3, phase=2)}
    made = run(
        p,
        "smoothgrad",
        of="expected",
        draws=2,
        sigma=0.0,
        baseline=shared,
        rule=ig.rules.Midpoint(4),
    )
    same = run(p, "expected", baseline=shared, rule=ig.rules.Midpoint(4))
    for key in ("left", "right"):
        torch.testing.assert_close(made.values[key], same.values[key], rtol=0, atol=1e-13)


def test_saved_and_read_back(tmp_path: Path) -> None:
    made = run(PROBLEMS["img"], "smoothgrad", draws=2)
    assert repr(made.method) == "SmoothGrad(Method(), 2)"
    made.save(tmp_path / "map.safetensors")
    assert torch.equal(ig.load(tmp_path / "map.safetensors").notes["noised"], made.notes["noised"])


def test_half_precision() -> None:
    x = wave(2, 3).to(torch.bfloat16)
    made = ig.SmoothGrad(PLAIN, 3)(ig.fields.Function(lambda z: z.square().sum(1)), x)
    assert made.values.dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ig.SmoothGrad(3), r"SmoothGrad wraps a Method"),
        (lambda: ig.SmoothGrad(PLAIN, 0), r"0 draws are too few"),
        (
            lambda: ig.SmoothGrad(PLAIN, 1, reduce="variance"),
            r"1 draws are too few: a mean takes one, a variance two",
        ),
        (lambda: ig.SmoothGrad(PLAIN, sigma=-0.1), r"not negative: sigma=-0\.1"),
        (
            lambda: ig.SmoothGrad(PLAIN, reduce="median"),
            r"'mean', 'square', 'variance', not 'median'",
        ),
    ],
)
def test_nonsense_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        make()


def test_integers_take_no_noise() -> None:
    model = torch.nn.Sequential(torch.nn.Embedding(5, 3), torch.nn.Flatten(), torch.nn.Linear(6, 2))
    ids = torch.tensor([[1, 2], [3, 4]])
    method = ig.methods.layer("0", torch.zeros(2, dtype=torch.long))
    with pytest.raises(ig.errors.InputError, match=r"integers take none: explain the embeddings"):
        ig.explain(model, ids, target=0, method=ig.SmoothGrad(method, 2))
