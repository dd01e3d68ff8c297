"""Properties that hold for whatever hypothesis thinks of: completeness, linearity, batches, chunks, types."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from hypothesis.extra import numpy as hnp
from torch import Tensor

import integrand as ig

pytestmark = pytest.mark.filterwarnings("ignore::integrand.errors.IntegrandWarning")


@dataclass(frozen=True)
class Polynomial:
    """Σ_t coefficient_t Π_i z_i^{power_{t,i}}: its integrated gradients are known term by term (the monomial rule)."""

    terms: tuple[tuple[float, tuple[int, ...]], ...]

    def __call__(self, z: Tensor) -> Tensor:
        flat = z.flatten(1)
        return sum(
            c * flat.pow(torch.tensor(powers, dtype=z.dtype)).prod(1) for c, powers in self.terms
        )

    def straight_from_zero(self, z: Tensor) -> Tensor:
        """Each term gives feature i its value times m_i / Σ m."""
        flat = z.flatten(1)
        found = torch.zeros_like(flat)
        for c, powers in self.terms:
            m = torch.tensor(powers, dtype=z.dtype)
            if sum(powers):
                found += c * flat.pow(m).prod(1)[:, None] * m / sum(powers)
        return found.reshape(z.shape)


numbers = st.floats(-2, 2, allow_nan=False, width=32).map(lambda v: round(v, 3))
shapes = st.sampled_from([(1,), (3,), (2, 2), (1, 2, 2), (4,)])


@st.composite
def polynomials(draw: Any, features: int) -> Polynomial:
    powers = st.lists(st.integers(0, 3), min_size=features, max_size=features).map(tuple)
    return Polynomial(tuple(draw(st.lists(st.tuples(numbers, powers), min_size=1, max_size=4))))


def tensors(shape: tuple[int, ...]) -> st.SearchStrategy[Tensor]:
    return hnp.arrays("float64", shape, elements=numbers).map(torch.from_numpy)


@st.composite
def tasks(draw: Any, most: int = 4) -> tuple[Polynomial, Tensor, Tensor]:
    """A polynomial, inputs (B, *s) and references (R, *s)."""
    shape = draw(shapes)
    x = draw(tensors((draw(st.integers(1, most)), *shape)))
    references = draw(tensors((draw(st.integers(1, 3)), *shape)))
    return draw(polynomials(int(torch.Size(shape).numel()))), x, references


EXACT = ig.rules.GaussLegendre(
    8
)  # exact for gradients up to degree 15 along a line; four cubes have degree 12


def explain(
    f: Callable[[Tensor], Tensor], x: Tensor, method: Any, **options: Any
) -> ig.Attribution:
    return ig.explain(f, x, target=ig.targets.Output(), method=method, **options)


@given(tasks())
def test_straight_lines_are_complete(task: Any) -> None:
    f, x, references = task
    made = explain(f, x, ig.methods.expected(ig.baselines.Given(references), rule=EXACT))
    scale = 1 + float(made.output.abs().max()) + float(made.change.abs().max())
    assert float(made.residual.abs().max()) < 1e-12 * scale
    expected = f(x) - torch.stack([f(r[None])[0] for r in references]).mean()
    assert float((made.values.flatten(1).sum(1) - expected).abs().max()) < 1e-12 * scale


@given(tasks())
def test_polynomials_follow_the_monomial_rule(task: Any) -> None:
    f, x, _ = task
    made = explain(f, x, ig.methods.integrated(0.0, EXACT))
    expected = f.straight_from_zero(x)
    torch.testing.assert_close(made.values, expected, rtol=1e-11, atol=1e-11)


@given(st.data())
def test_linearity(data: Any) -> None:
    f, x, references = data.draw(tasks())
    g = data.draw(polynomials(x[0].numel()))
    a, c = data.draw(numbers), data.draw(numbers)
    method = ig.methods.expected(ig.baselines.Given(references), rule=EXACT)
    both = explain(lambda z: a * f(z) + c * g(z), x, method).values
    apart = a * explain(f, x, method).values + c * explain(g, x, method).values
    torch.testing.assert_close(both, apart, rtol=1e-10, atol=1e-10)


METHODS: dict[str, Callable[[Tensor], Any]] = {
    "integrated": lambda refs: ig.methods.integrated(ig.baselines.Given(refs[:1]), EXACT),
    "expected": lambda refs: ig.methods.expected(ig.baselines.Given(refs), draws=6),
    "weighted": lambda refs: ig.methods.weighted(ig.baselines.Given(refs), rule=EXACT, fill=0.0),
    "ig2": lambda refs: ig.methods.ig2(
        ig.baselines.Given(refs),
        lambda z: z.flatten(1).sin(),
        4,
        ig.paths.Relative(0.05),
        (-3.0, 3.0),
    ),
}


@pytest.mark.parametrize("name", list(METHODS))
@given(task=tasks())
def test_a_batch_is_its_examples(name: str, task: Any) -> None:
    f, x, references = task
    method = METHODS[name](references)
    whole = explain(f, x, method).values
    for b in range(len(x)):
        alone = explain(f, x[b : b + 1], method).values[0]
        torch.testing.assert_close(alone, whole[b], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", list(METHODS))
@given(task=tasks(), rows=st.integers(1, 9))
def test_rows_per_call_do_not_matter(name: str, task: Any, rows: int) -> None:
    f, x, references = task
    method = METHODS[name](references)
    torch.testing.assert_close(
        explain(f, x, method, batch_size=rows).values,
        explain(f, x, method).values,
        rtol=1e-10,
        atol=1e-10,
    )


@given(tasks(), st.integers(1, 9))
def test_segments_do_not_matter_to_an_exact_rule(task: Any, segments: int) -> None:
    f, x, references = task
    one = explain(f, x, ig.methods.integrated(ig.baselines.Given(references[:1]), EXACT)).values
    many = explain(
        f,
        x,
        ig.methods.integrated(
            ig.baselines.Given(references[:1]), EXACT, ig.paths.Straight(segments)
        ),
    ).values
    torch.testing.assert_close(one, many, rtol=1e-10, atol=1e-10)


@given(tasks())
def test_weights_are_a_convex_combination(task: Any) -> None:
    """Weighted gradients lie in the hull of the maps of single references."""
    f, x, references = task
    made = explain(f, x, ig.methods.weighted(ig.baselines.Given(references), rule=EXACT, fill=0.0))
    assert bool((made.weights >= 0).all())
    torch.testing.assert_close(made.weights.sum(0), torch.ones(len(x), dtype=torch.float64))
    assert bool((made.fitness >= 1).all())
    assert bool((made.fitness <= max(1, x[0].numel())).all())
    low, high = made.shares.min(0).values, made.shares.max(0).values
    slack = 1e-12 * (1 + made.shares.abs().max())
    assert bool((made.values >= low - slack).all())
    assert bool((made.values <= high + slack).all())


@given(tasks())
def test_a_walk_that_shrinks_never_leaves_the_box_nor_goes_astray(task: Any) -> None:
    f, x, references = task
    method = ig.methods.ig2(
        ig.baselines.Given(references),
        lambda z: z.flatten(1).sin(),
        5,
        ig.paths.Relative(0.2),
        (-2.0, 2.0),
    )
    made = explain(f, x, method)
    distance = made.notes["distance"]
    assert bool((distance[1:] >= distance[:-1]).all())
    assert bool((made.baselines.abs() <= 2).all())
    assert bool(torch.isfinite(made.values).all())


@given(tasks(), st.sampled_from([torch.float16, torch.bfloat16]))
def test_low_precision_models_give_float32_maps(task: Any, dtype: torch.dtype) -> None:
    """The model runs in its own type; the map is float32 and near the one of float64."""
    f, x, _ = task
    x = x.to(dtype)
    seen: set[torch.dtype] = set()

    def model(z: Tensor) -> Tensor:
        seen.add(z.dtype)
        return f(z)

    made = explain(model, x, ig.methods.integrated(0.0, EXACT))
    assert seen == {dtype}
    assert {made.values.dtype, made.weights.dtype, made.residual.dtype} == {torch.float32}
    exact = f.straight_from_zero(x.double())
    size = sum(abs(c) * 2.0 ** sum(powers) for c, powers in f.terms)
    coarse = 2.0**-5 if dtype == torch.bfloat16 else 2.0**-8
    assert float((made.values - exact).abs().max()) <= coarse * 16 * (1 + size)


@given(tasks(), st.integers(1, 6), st.integers(0, 2**40))
def test_monte_carlo_is_the_same_twice_and_complete_on_linear_functions(
    task: Any, n: int, seed: int
) -> None:
    _, x, references = task
    weight = torch.linspace(-1, 1, x[0].numel(), dtype=torch.float64)
    method = ig.Method(ig.baselines.Given(references), rule=ig.rules.MonteCarlo(n, seed))
    run = lambda: explain(lambda z: z.flatten(1) @ weight, x, method)  # noqa: E731
    made = run()
    assert torch.equal(made.values, run().values)
    assert float(made.residual.abs().max()) < 1e-12


@given(st.data())
def test_layouts_there_and_back(data: Any) -> None:
    from integrand.model.layout import Layout

    batch = data.draw(st.integers(1, 3))
    parts = data.draw(st.lists(shapes, min_size=1, max_size=3))
    inputs = {f"part {i}": data.draw(tensors((batch, *shape))) for i, shape in enumerate(parts)}
    layout = Layout.of(inputs)
    packed = layout.pack(inputs)
    back = layout.unpack(packed)
    assert list(back) == list(inputs)
    assert all(torch.equal(back[k], inputs[k]) for k in inputs)
    stacked = layout.unpack(packed.expand(2, *packed.shape), 2)
    assert all(torch.equal(stacked[k][1], inputs[k]) for k in inputs)


@given(tasks())
def test_residual_and_gap_are_what_they_say(task: Any) -> None:
    f, x, references = task
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = explain(
            f, x, ig.methods.expected(ig.baselines.Given(references), rule=ig.rules.Left())
        )
    total = made.values.flatten(1).sum(1)
    change = (made.weights * made.change).sum(0)
    scale = 1 + float(made.change.abs().max())
    assert float((total + made.residual - change).abs().max()) < 1e-12 * scale
    assert bool((made.gap >= 0).all())
    assert made.converged.tolist() == (made.gap <= 0.1).tolist()
