"""Maps that chance made: how far they say they may be off, and how often that is so; truth by dense quadrature with plain autograd."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import integrand as ig
from integrand.core.row_hash import row_hashes
from integrand.core.values import part
from integrand.integration.sampling_error import Spread, quantile
from tests.problems import wave
from tests.test_memory import Alive

Table = Callable[[Tensor], Tensor]

TABLES: dict[str, Table] = {
    "normal": lambda z: z,
    "heavy": lambda z: z.sign() * z.abs() ** 2.5,
    "binary": lambda z: (z > 1).double(),
    "lognormal": lambda z: z.exp() / 2,
}
NETS: dict[str, tuple[type[nn.Module], int]] = {
    "relu": (nn.ReLU, 32),
    "tanh": (nn.Tanh, 32),
    "gelu": (nn.GELU, 48),
    "narrow": (nn.ReLU, 4),
}


def table(name: str, columns: int, rows: int, seed: int) -> Tensor:
    z = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).double()
    return TABLES[name](z)


def network(name: str, columns: int, seed: int) -> nn.Module:
    act, width = NETS[name]
    made = nn.Sequential(
        nn.Linear(columns, width), act(), nn.Linear(width, width), act(), nn.Linear(width, 2)
    ).double()
    stream = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in made.parameters():
            fan = p.shape[1] if p.ndim > 1 else 4 * len(p)
            p.copy_(torch.randn(p.shape, generator=stream).double() * (1.6 / fan**0.5))
    return made.requires_grad_(False)


def single(model: nn.Module, x: Tensor, pool: Tensor, nodes: int = 64) -> Tensor:
    """The share of every single draw (N · nodes, n): one reference and one of ``nodes`` positions."""
    t = (torch.arange(nodes).double() + 0.5) / nodes
    points = (pool[:, None] + t[:, None] * (x - pool)[:, None]).reshape(-1, len(x)).requires_grad_()
    (slope,) = torch.autograd.grad(model(points)[:, 0].sum(), points)
    return ((x - pool)[:, None] * slope.reshape(len(pool), nodes, -1)).reshape(-1, len(x))


def off(made: ig.Attribution, truth: Tensor) -> Tensor:
    return (made.values - truth).norm(dim=1) / truth.norm(dim=1)


@pytest.fixture
def hushed() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
        yield


# --- the quantile -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("freedom", [3, 8, 24, 49, 199, 1999])
def test_the_quantile_is_that_of_f_and_never_under_it(freedom: int) -> None:
    rank = torch.tensor([1, 1.5, 2, 3, 5, 10, 30, 100]).double()
    exact = torch.from_numpy(stats.f.ppf(0.95, rank.numpy(), freedom))
    ratio = quantile(rank, torch.tensor(float(freedom)).double()) / exact
    assert bool((ratio >= 1).all())
    assert bool((ratio <= {3: 1.13, 8: 1.03}.get(freedom, 1.02)).all())


def test_two_draws_tell_nothing() -> None:
    one = torch.ones(1).double()
    assert bool(quantile(one, one).isinf())
    spread = Spread(torch.zeros(1, 3).double())
    spread.add(torch.randn(2, 1, 3).double())
    assert bool(spread.doubt().error.isinf())


@pytest.mark.parametrize("features", [5, 200])
def test_spread_does_not_depend_on_blocks(features: int) -> None:
    maps = (
        50
        + wave(40, 2, features, phase=0.2)
        * torch.randn(40, 2, 1, generator=torch.Generator().manual_seed(0)).double()
    )
    whole, parts = Spread(maps[0]), Spread(maps[0])
    whole.add(maps)
    for some in maps.split([3, 1, 16, 20]):
        parts.add(some)
    torch.testing.assert_close(whole.value, maps.mean(0), rtol=1e-12, atol=0)
    error = (maps.var(0).sum(1) / 40).sqrt()
    for spread in (whole, parts):
        torch.testing.assert_close(spread.error(), error, rtol=1e-9, atol=0)
    torch.testing.assert_close(whole.rank(), parts.rank(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("directions", [1, 4, 16])
def test_the_rank_of_many_features_is_not_overestimated(directions: int) -> None:
    """Maps of 3,000 features that differ in a few directions, equally: as many are found, or fewer, and no fewer than half."""
    stream = torch.Generator().manual_seed(1)
    ways = torch.linalg.qr(torch.randn(3000, directions, generator=stream).double())[0]
    maps = (torch.randn(2000, 1, directions, generator=stream).double() @ ways.T).float()
    spread = Spread(maps[0])
    spread.add(maps)
    assert directions / 2 <= float(spread.rank()) <= 1.05 * directions


# --- coverage ---------------------------------------------------------------------------------------------------------


def stopped(maps: Tensor, truth: Tensor, tol: float, block: int = 25) -> tuple[Tensor, Tensor]:
    """Many runs (n, M, \\*s) of draws, each stopped as ``UntilTolerance`` stops: which converged, and what they are off by."""
    spread = Spread(maps[0])
    met = done = torch.zeros(maps.shape[1], dtype=torch.bool)
    error = torch.full((maps.shape[1],), torch.inf).double()
    for first in range(0, len(maps), block):
        spread.add(maps[first : first + block])
        before, met = met, spread.doubt().error <= tol
        now = before & met & ~done
        error[now] = ((spread.value - truth).norm(dim=1) / truth.norm())[now]
        done = done | now
    return done, error


def coverage(
    tol: float, columns: tuple[int, ...], seeds: int, runs: int, draws: int
) -> tuple[float, int]:
    """How many converged runs are within ``tol``, over all tables and networks."""
    right = every = 0
    for width in columns:
        for kind in TABLES:
            for name in NETS:
                for seed in range(seeds):
                    rows = table(kind, width, 400, seed)
                    shares = single(network(name, width, seed + 10), rows[0], rows[1:], 32)
                    truth = shares.mean(0)
                    if not float(truth.norm()):
                        continue
                    which = torch.randint(
                        len(shares), (draws, runs), generator=torch.Generator().manual_seed(seed)
                    )
                    done, error = stopped(shares[which], truth, tol)
                    right += int((error[done] <= tol).sum())
                    every += int(done.sum())
    return right / every, every


def test_converged_is_so_in_95_of_100_cases() -> None:
    share, runs = coverage(0.25, (2, 8), 1, 60, 800)
    assert runs > 1000
    assert share >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("tol", [0.3, 0.2, 0.1])
def test_converged_is_so_in_95_of_100_cases_at_length(tol: float) -> None:
    share, runs = coverage(tol, (1, 2, 8, 30), 2, 200, 2000)
    assert runs > 10_000
    assert share >= 0.95


@pytest.mark.parametrize("rows", [8, 50, 400], ids=["many positions each", "a few each", "drawn"])
def test_the_bound_holds_for_every_way_of_drawing(rows: int, hushed: None) -> None:
    """Few references have many positions each, and their differences are no error; of many some are drawn."""
    inside = []
    for name in NETS:
        data = table("normal", 6, rows + 4, 3)
        x, pool, model = data[:4], data[4:], network(name, 6, 5)
        truth = torch.stack([single(model, one, pool).mean(0) for one in x])
        for seed in range(12):
            made = ig.explain(model, x, target=0, method="expected", baseline=pool, seed=seed)
            assert bool(torch.isfinite(made.error).all())
            inside.append(off(made, truth) <= made.error)
            assert torch.equal(made.converged, (made.error <= 0.1) & (made.gap <= 0.1))
    assert float(torch.stack(inside).double().mean()) >= 0.95


def test_the_bound_of_a_weighted_sum(hushed: None) -> None:
    x, pool, model = table("normal", 6, 3, 1), table("normal", 6, 4, 2), network("tanh", 6, 3)
    inside = []
    for seed in range(30):
        made = ig.explain(
            model,
            x,
            target=0,
            method="weighted",
            baseline=pool,
            rule=ig.rules.MonteCarlo(20),
            fill=0.0,
            seed=seed,
        )
        each = torch.stack(
            [torch.stack([single(model, one, b[None], 500).mean(0) for one in x]) for b in pool]
        )
        inside.append(off(made, torch.einsum("rb,rbi->bi", made.weights, each)) <= made.error)
    share = float(torch.stack(inside).double().mean())
    assert share >= 0.95


def test_one_reference_and_many_positions(hushed: None) -> None:
    x, model = table("normal", 6, 3, 1), network("tanh", 6, 3)
    truth = torch.stack([single(model, one, torch.zeros(1, 6).double(), 2000).mean(0) for one in x])
    made = [
        ig.explain(model, x, target=0, rule=ig.rules.MonteCarlo(40), seed=seed)
        for seed in range(30)
    ]
    assert (
        float(torch.stack([off(one, truth) <= one.error for one in made]).double().mean()) >= 0.95
    )
    single_draw = ig.explain(model, x, target=0, rule=ig.rules.MonteCarlo(1))
    assert bool(single_draw.error.isinf().all())
    assert not bool(single_draw.converged.any())


def test_a_jump_is_not_missed_by_draws_that_agree(hushed: None) -> None:
    """Every draw of a staircase is zero, and so is how they differ: what the map misses of the change is an error all the same."""
    for options in ({}, {"tol": 0.2}):
        made = ig.explain(
            lambda z: z + (z.detach().round() - z.detach()) - z + 0 * z, torch.full((1, 1), 2.7).double(), target=0,
            method="expected", baseline=torch.zeros(30, 1).double(), **options,
        )  # fmt: skip
        assert float(made.values.abs().sum()) == 0
        assert bool(made.error.isinf())
        assert not bool(made.converged)


# --- warnings ---------------------------------------------------------------------------------------------------------


def test_maps_that_miss_a_tenth_warn_and_say_how_many_draws_would_do() -> None:
    x, model = table("normal", 30, 100, 1), network("relu", 30, 2)
    with pytest.warns(
        ig.errors.IncompleteWarning, match=r"of its standard errors, and chance"
    ) as caught:
        made = ig.explain(model, x, target=0, method="expected", baseline=x)
    count = int((made.gap > 0.1).sum())
    assert count > 10
    assert f"{count} of 100 maps miss more than a tenth of the change" in str(caught[0].message)


def test_the_draws_that_would_do_do() -> None:
    x, model, pool = table("normal", 6, 1, 1), network("tanh", 6, 3), table("normal", 6, 2000, 2)
    with pytest.warns(ig.errors.IncompleteWarning) as caught:
        few = ig.explain(model, x, target=0, method="expected", baseline=pool, tol=0.08, draws=100)
    more = int(str(caught[0].message).split("Some ")[1].split(" more")[0].replace(",", ""))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        enough = ig.explain(
            model,
            x,
            target=0,
            method="expected",
            baseline=pool,
            tol=0.08,
            draws=int(1.5 * (100 + more)),
        )
    assert not bool(few.converged)
    assert bool(enough.converged)


@pytest.mark.parametrize("draws", [0, -3, float("nan"), float("inf")])
@pytest.mark.parametrize("tol", [None, 0.1])
def test_draws_are_at_least_one(draws: Any, tol: float | None) -> None:
    with pytest.raises(ig.errors.InputError, match="draws is"):
        ig.methods.expected(torch.zeros(3, 2), draws=draws, tol=tol)


@pytest.mark.parametrize("options", [{}, {"tol": 0.1}, {"rule": ig.rules.Midpoint(2)}], ids=repr)
@pytest.mark.parametrize("data", [torch.zeros(0, 2), range(0)], ids=["tensor", "dataset"])
def test_no_references(data: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ig.errors.BaselineError, match="the data is empty"):
        ig.methods.expected(data, **options)


# --- references that are the same -------------------------------------------------------------------------------------


@part
class Off:
    """The midpoint rule, with an error that it claims."""

    error: float = 0.03
    tol: float = 0.05

    def __call__(self, field: ig.fields.Field, segment: ig.Segment) -> ig.rules.Integrated:
        share = ig.rules.Midpoint(64)(field, segment)
        return ig.rules.Integrated(share, torch.full(segment.leading, self.error).to(share))


def made_from(references: Tensor, x: Tensor, rule: Any = Off()) -> ig.Attribution:
    return ig.explain(
        network("tanh", 6, 3),
        x,
        target=0,
        method="expected",
        baseline=ig.baselines.Given(references),
        rule=rule,
    )


def test_the_same_reference_many_times_is_as_uncertain_as_once(hushed: None) -> None:
    x, pool = table("normal", 6, 3, 1), table("normal", 6, 4, 2)
    one = made_from(pool[:1], x)
    for own in (False, True):
        many = pool[:1].repeat(9, 1)
        made = made_from(many[:, None].repeat(1, 3, 1) if own else many, x)
        torch.testing.assert_close(made.error, one.error, rtol=1e-12, atol=0)
        torch.testing.assert_close(made.values, one.values, rtol=1e-12, atol=0)
        assert made.weights.shape == made.change.shape == (9, 3)
        assert made.cost.gradients == one.cost.gradients


def test_different_references_err_independently_and_groups_of_them_too(hushed: None) -> None:
    x, pool = table("normal", 6, 3, 1), table("normal", 6, 4, 2)
    for references, expected in (
        (pool, 0.03 / 4**0.5),
        (pool[[0, 1, 1, 1]], 0.03 * (1 + 9) ** 0.5 / 4),
    ):
        made = made_from(references, x)
        torch.testing.assert_close(
            made.error * made.values.norm(dim=1),
            torch.full((3,), expected).double(),
            rtol=1e-6,
            atol=0,
        )
        whole = torch.stack([made_from(b[None], x).values for b in references]).mean(0)
        torch.testing.assert_close(made.values, whole, rtol=0, atol=1e-12)


def test_the_same_reference_in_other_blocks_counts_as_the_same(
    monkeypatch: pytest.MonkeyPatch, hushed: None
) -> None:
    x, pool = table("normal", 6, 3, 1), table("normal", 6, 4, 2)
    one = made_from(pool[:1], x)
    monkeypatch.setattr("integrand.core.memory_budget._BLOCK_ON_CPU", 2 * x.numel())
    made = made_from(pool[:1].repeat(5, 1), x)
    torch.testing.assert_close(made.error, one.error, rtol=1e-12, atol=0)


def test_references_of_weighted_gradients_that_are_the_same(hushed: None) -> None:
    """Two baselines, one of them three times: shares, weights and map as without, and the gradients too."""
    x, pool, model = table("normal", 6, 3, 1), table("normal", 6, 2, 2), network("tanh", 6, 3)
    options = dict(target=0, method="weighted", fill=0.0, rule=ig.rules.Adaptive(0.01))
    two = ig.explain(model, x, baseline=pool, **options)
    four = ig.explain(model, x, baseline=pool[[0, 1, 1, 1]], **options)
    assert bool(
        (off(four, torch.einsum("rb,rbi->bi", four.weights, two.shares[[0, 1, 1, 1]])) < 0.02).all()
    )
    assert torch.equal(four.shares[1], four.shares[3])
    assert four.cost.gradients <= 1.5 * two.cost.gradients


def test_permuted_references_are_not_the_same() -> None:
    eye = torch.eye(6).double()
    from integrand.integration.loop import same_content

    assert len(same_content(eye[:, None]).unique()) == 6
    pairs = torch.stack([eye[i] + eye[j] for i in range(6) for j in range(i)])
    assert len(same_content(pairs[:, None].float()).unique()) == 15


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_references_that_differ_in_signs_or_exponents_only_are_told_apart(
    dtype: torch.dtype,
) -> None:
    """All 4,096 corners of a cube: ±1 differ in the highest bit alone, 0 and 1 in the highest ten."""
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 12).to(dtype)
    for rows in (corners, 2 * corners - 1, corners * -0.0 - corners, 2.0 ** (corners + 1)):
        assert len(row_hashes(rows).unique()) == 4096
    repeated = torch.cat([corners, corners.flip(0)])
    assert torch.equal(row_hashes(repeated)[:4096], row_hashes(repeated)[4096:].flip(0))


@pytest.mark.parametrize("features", range(1, 9))
def test_references_of_both_signs_in_float64(features: int) -> None:
    """Baselines of −1 and 1: the mean of their maps, from midpoint sums with plain autograd."""
    torch.manual_seed(features)
    model = torch.nn.Sequential(
        torch.nn.Linear(features, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3)
    ).double()
    x = torch.randn(2, features, dtype=torch.float64)
    exact = torch.zeros_like(x)
    for start in (-1.0, 1.0):
        t = ((torch.arange(2000) + 0.5) / 2000).double()[:, None, None]
        z = (start + t * (x - start)).requires_grad_()
        (gradient,) = torch.autograd.grad(model(z)[..., 0].sum(), z)
        exact += gradient.mean(0) * (x - start) / 2
    result = ig.explain(model, x, target=0, baseline=[1.0, -1.0], tol=1e-4)
    assert bool((off(result, exact) < 1e-4).all())


@pytest.mark.usefixtures("quiet")
def test_a_hash_alone_does_not_merge_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if all references had the same hash, their maps would be those of each."""
    model, x, pool = network("tanh", 6, 3), table("normal", 6, 3, 1), table("normal", 6, 4, 2)
    expected = ig.explain(model, x, target=0, method="expected", baseline=pool)
    monkeypatch.setattr(
        "integrand.integration.loop.row_hashes",
        lambda rows: torch.zeros(len(rows), dtype=torch.int64),
    )
    result = ig.explain(model, x, target=0, method="expected", baseline=pool)
    torch.testing.assert_close(result.values, expected.values)


# --- ends at which F is not finite ------------------------------------------------------------------------------------


def logs(z: Tensor) -> Tensor:
    return torch.stack([z.abs().log().sum(1), z.sum(1)], 1)


INFINITE = {
    "default": {},
    "gauss": dict(rule=ig.rules.GaussLegendre(4)),
    "midpoint": dict(rule=ig.rules.Midpoint(3)),
    "custom target": dict(rule=ig.rules.Midpoint(3), target=lambda outputs: outputs[:, 0]),
    "expected": dict(method="expected"),
    "expected, tol": dict(method="expected", tol=0.2),
    "expected, rule": dict(method="expected", rule=ig.rules.GaussLegendre(3)),
    "smoothgrad": dict(method="smoothgrad", rule=ig.rules.Midpoint(2)),
    "guided": dict(method="guided", steps=4),
}


@pytest.mark.parametrize("name", INFINITE)
def test_a_baseline_at_which_f_is_not_finite_is_refused_and_named(name: str) -> None:
    options = {"target": 0, **INFINITE[name]}
    x = 1 + wave(3, 4, phase=0.3).abs()
    pool = torch.stack([torch.full((4,), 0.5), torch.full((4,), 0.7), torch.zeros(4)]).double()
    if options.get("method") not in ("expected", None):
        where, baseline = "reference 0 of example 0", 0.0
    elif "tol" in options:
        where, baseline = r"reference \d+ of example 0", pool
    else:
        where, baseline = (
            "reference 2 of example 0",
            pool if "method" in options else ig.baselines.Given(pool),
        )
    if name == "smoothgrad":
        options["method"] = ig.SmoothGrad(ig.methods.integrated(0.0, options.pop("rule")), 3)
        baseline = None
    with pytest.raises(ig.errors.NonFiniteGradient, match=where):
        ig.explain(logs, x, baseline=baseline, **options)


@pytest.mark.filterwarnings("ignore::integrand.errors.IntegrandWarning")
def test_an_example_at_which_f_is_not_finite_is_refused_and_named() -> None:
    x = 1 + wave(3, 4, phase=0.3).abs()
    x[1, 2] = 0
    for options in ({}, dict(method="expected"), dict(rule=ig.rules.Midpoint(3))):
        with pytest.raises(ig.errors.NonFiniteGradient, match="example 1"):
            ig.explain(
                logs,
                x,
                target=0,
                baseline=torch.full((5, 4), 0.5).double() if "method" in options else 0.5,
                **options,
            )


def test_a_change_that_overflows_is_refused() -> None:
    field = ig.fields.Function(lambda z: 3e38 * z[:, 0].sign() + 0 * z[:, 0])
    with pytest.raises(ig.errors.NonFiniteGradient, match="too large for a number of this type"):
        ig.methods.integrated(-1.0, ig.rules.Midpoint(2))(field, torch.ones(1, 1))


# --- memory -----------------------------------------------------------------------------------------------------------


class Reading:
    """A dataset that notes what is read of it."""

    def __init__(self, rows: Tensor) -> None:
        self.rows, self.read = rows, []

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Tensor:
        self.read.append(i)
        return self.rows[i]


def test_only_what_is_used_is_read(hushed: None) -> None:
    data = Reading(table("normal", 6, 500, 2))
    made = ig.explain(
        network("tanh", 6, 3),
        table("normal", 6, 2, 1),
        target=0,
        method="expected",
        baseline=data,
        tol=0.4,
    )
    assert len(data.read) == len(set(data.read)) == len(made.weights) < 500
    whole = Reading(data.rows)
    same = ig.explain(
        network("tanh", 6, 3),
        table("normal", 6, 2, 1),
        target=0,
        method="expected",
        baseline=whole.rows,
        tol=0.4,
    )
    torch.testing.assert_close(made.values, same.values, rtol=0, atol=1e-12)


def alive(size: int, **options: Any) -> float:
    """The most that is alive, in maps, beside the data."""
    x, pool = (
        wave(1, 200_000).float(),
        0.1 * torch.randn(size, 200_000, generator=torch.Generator().manual_seed(0)),
    )
    weight = wave(200_000, 2, phase=1).float() / 450
    with Alive() as seen:
        for given in (x, pool, weight):
            seen.known[given.untyped_storage()._cdata] = None
        ig.explain(
            lambda z: torch.tanh(z @ weight),
            x,
            target=0,
            method="expected",
            baseline=pool,
            batch_size=8,
            **options,
        )
    return seen.most / x.nbytes


@pytest.mark.parametrize("options", [{}, {"rule": ig.rules.Midpoint(2)}, {"tol": 0.4}], ids=repr)
def test_references_cost_no_memory_of_their_own(options: dict[str, Any], hushed: None) -> None:
    few, many = alive(210, **options), alive(400, **options)
    assert many <= 1.2 * few + 2
