"""Numbers as they were given: integers exact, a baseline for each input, extras by row, nothing shared with the caller.

Truths are closed forms, or a dense midpoint sum with plain autograd.
"""

from __future__ import annotations

from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.compare.subset import narrowed
from integrand.explain import resolve_method
from integrand.metrics import known as known_metrics
from integrand.model.extra import Extra
from integrand.model.layout import Layout
from tests.catalogue import BUILD, fits
from tests.catalogue.paths import PATHS
from tests.problems import PROBLEMS, filled, wave

FINE = ig.rules.GaussLegendre(40)
LEFT, RIGHT = wave(3, 4), 2 * wave(3, 5, phase=1)


def dense(
    function: Callable[[Tensor], Tensor], x: Tensor, base: Tensor, nodes: int = 4000
) -> Tensor:
    """∫ ∇F (x − b) dt by midpoints, F summed over its rows."""
    gathered = torch.zeros_like(x)
    for k in range(nodes):
        z = (base + (k + 0.5) / nodes * (x - base)).requires_grad_()
        gathered += torch.autograd.grad(function(z).sum(), z)[0] / nodes
    return gathered * (x - base)


# --- integers ----------------------------------------------------------------------------------------------------------


class Hashed(nn.Module):
    """Ids of any size, looked up modulo 1,000, and numbers beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(1000, 4)
        self.out = nn.Linear(4, 1)
        self.seen: list[Any] = []

    def forward(self, ids: Tensor, numbers: Tensor | None = None) -> Tensor:
        self.seen.append((ids, numbers))
        mean: Tensor = self.out(self.emb(ids % 1000).tanh().mean(1))
        return mean if numbers is None else mean + numbers.sum(1, keepdim=True)


IDS = torch.tensor([[16_777_217, 123_456_789, 2_000_000_011], [2**53, 2**53 - 1, -(2**53) + 1]])


def of_ids(model: Hashed, inputs: Any, baseline: Any) -> ig.Attribution:
    return ig.explain(
        model,
        inputs,
        target=ig.targets.Output(),
        method="layer",
        site="emb",
        baseline=baseline,
        rule=FINE,
    )


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_ids_reach_the_embedding_exactly(dtype: torch.dtype) -> None:
    """Beyond 2^24, where float32 would look up other items; up to 2^53. The map is that of the vectors themselves."""
    model, ids = filled(Hashed()), (IDS if dtype == torch.int64 else IDS[:1].int())
    made = of_ids(model, ids, torch.zeros_like(ids))
    assert torch.equal(made.output, model(ids)[:, 0].detach())
    vectors, zero = (model.emb(rows % 1000).detach() for rows in (ids, torch.zeros_like(ids)))
    truth = dense(lambda h: model.out(h.tanh().mean(1)), vectors, zero)
    torch.testing.assert_close(made.values, truth, rtol=1e-5, atol=1e-7)
    given = {row for seen, _ in model.seen for row in map(tuple, seen.tolist())}
    assert given <= {*map(tuple, ids.tolist()), (0, 0, 0)}


def test_ids_beside_float32_numbers(quiet: None) -> None:
    """Both reach the model bit by bit as they were, in the types they came in."""
    model, numbers = (
        filled(Hashed()).float(),
        torch.tensor([[0.1, 1e-30, 3e38], [1 / 3, -7.0, 1e-45]]),
    )
    made = of_ids(model, (IDS, numbers), (torch.zeros_like(IDS), 0.0))
    assert torch.equal(made.output, model(IDS, numbers)[:, 0].detach())
    rows = [(ids, n) for ids, n in model.seen if torch.equal(ids, IDS)]
    assert rows
    assert all(n.dtype == torch.float32 and torch.equal(n, numbers) for _, n in rows)


@pytest.mark.parametrize("wrong", [2**53 + 1, 2**53 + 2, -(2**60)])
def test_ids_that_float64_does_not_hold(wrong: int) -> None:
    model, ids = filled(Hashed()), IDS.clone()
    ids[1, 1] = wrong
    with pytest.raises(ig.errors.IntegerInput, match=r"beyond 9,007,199,254,740,992, .* rounded"):
        of_ids(model, ids, 0)
    with pytest.raises(ig.errors.IntegerInput, match=r"Input 'ids' holds whole numbers beyond"):
        ig.explain(model, {"ids": ids}, target=0, method="layer", site="emb", baseline=0)
    assert model.seen == []
    with pytest.raises(ig.errors.IntegerInput, match=r"The baseline holds whole numbers beyond"):
        of_ids(model, IDS, ids)


@pytest.mark.parametrize("baseline", [0.5, torch.full((3,), 1.5), lambda x, field: x[None] / 7])
def test_ids_are_never_averaged(baseline: Any) -> None:
    with pytest.raises(
        ig.errors.IntegerInput, match=r"int64 .* not whole, .*baseline of whole numbers"
    ):
        of_ids(filled(Hashed()), IDS, baseline)


def test_integers_are_not_interpolated() -> None:
    with pytest.raises(ig.errors.IntegerInput):
        ig.explain(filled(Hashed()), IDS, target=0)
    with pytest.raises(ig.errors.InputError, match="between integers there is nothing"):
        ig.explain(filled(Hashed()), IDS, target=0, method="conductance", site="emb", baseline=0)


# --- what comes in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array", [wave(3, 4).numpy()[:, ::-1], wave(3, 4).numpy().astype(">f8"), wave(3, 4).numpy()]
)
def test_arrays_are_inputs_and_baselines(array: Any) -> None:
    array.flags.writeable = False
    made = ig.explain(
        lambda z: z.square().sum(1),
        array,
        target=ig.targets.Output(),
        baseline=np.float32(0.5) + 0 * array,
        rule=FINE,
    )
    torch.testing.assert_close(
        made.values, torch.tensor(array.astype("=f8") ** 2 - 0.25), rtol=1e-12, atol=1e-14
    )
    both = ig.explain(
        lambda a, b: (a + b).sum(1),
        (array, LEFT),
        target=ig.targets.Output(),
        baseline=(np.full(4, 0.5), None),
    )
    torch.testing.assert_close(
        both.values[0], torch.tensor(array.astype("=f8")) - 0.5, rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (LEFT.to_sparse(), r"Input is a sparse tensor: .*\.to_dense\(\)"),
        ((LEFT, LEFT.to_sparse()), r"Input 1 is a sparse tensor"),
        (torch.nested.nested_tensor([LEFT[0], LEFT[1, :2]], layout=torch.jagged), r"nested tensor: pad it"),
        (LEFT.to("meta"), r"meta device and holds no numbers"),
        (torch.zeros(3, 0), r"shape 3x0: examples without numbers"),
        ({"a": LEFT, "b": torch.zeros(3, 0)}, r"Input 'b' has shape 3x0"),
        (np.array([["a", "b"]]), r"Input is an array of <U1, not of numbers"),
        (LEFT * 1j, r"complex128: complex numbers .*view_as_real"),
    ],
)  # fmt: skip
def test_inputs_that_cannot_be_explained(inputs: Any, message: str) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        ig.explain(lambda *z: z[0], inputs, target=0)


AXIS = torch.tensor([1.0, 2.0, -3.0]).double()


@pytest.mark.parametrize(
    "baseline", [None, 0.5, torch.tensor(0.5), torch.tensor([0.1, 0.2, 0.3]).double()]
)
def test_inputs_of_one_axis(baseline: Any) -> None:
    """(B,): a map of one number each, the whole change of F."""
    made = ig.explain(lambda a: a.square(), AXIS, target=ig.targets.Output(), baseline=baseline)
    start = torch.as_tensor(0.0 if baseline is None else baseline)
    torch.testing.assert_close(
        made.values, AXIS.square() - start.double().square(), rtol=1e-12, atol=0
    )
    assert made.values.shape == (3,)
    assert made[1].values.shape == (1,)
    assert "3 examples" in repr(made)
    assert "<" in made._repr_html_()


REFERENCED = {"expected", "weighted", "ig2"}


@pytest.mark.parametrize(
    "name", ["integrated", "expected", "weighted", "ig2", "guided", "greedy_pig", "smoothgrad", "sequential", "idgi", "decision", "left"]
)  # fmt: skip
def test_methods_of_one_axis(name: str, quiet: None) -> None:
    options: dict[str, Any] = {
        "weighted": {"fill": 0.0},
        "ig2": {"steps": 3, "representation": lambda z: z[:, None]},
    }.get(name, {})
    baseline = torch.tensor([0.0, 0.5]).double() if name in REFERENCED else None
    made = ig.explain(
        lambda a: a.tanh() * a,
        AXIS,
        target=ig.targets.Output(),
        method=name,
        baseline=baseline,
        **options,
    )
    assert made.values.shape == (3,)


def test_metrics_of_one_axis(quiet: None) -> None:
    """Metrics measure one number per example, or say what they need; none ends in an error of torch."""
    made = ig.explain(lambda a: a.tanh(), AXIS, target=ig.targets.Output())
    measured = 0
    for metric in known_metrics().values():
        try:
            found = ig.metrics.judge(
                lambda a: a.tanh(), AXIS, [made], metric(), target=ig.targets.Output()
            )
        except ig.errors.IntegrandError:
            continue
        assert found.shape[-1] == 3
        measured += 1
    assert measured > 15
    compared = ig.compare(
        lambda a: a.tanh(), AXIS, target=ig.targets.Output(), methods=["integrated", "idgi"]
    )
    assert compared.scores.methods[:2] == ("integrated", "idgi")


# --- where maps start --------------------------------------------------------------------------------------------------


IMAGE, ROW = 0.5 + 0.5 * wave(2, 3, 6, 6), torch.tensor([[1000.0, 5.0], [2000.0, 7.0]]).double()


def both(image: Tensor, row: Tensor) -> Tensor:
    return (image.square().mean((1, 2, 3)) + (row / 1000).square().sum(1))[:, None]


def truths(image: Any, row: Any) -> tuple[Tensor, Tensor]:
    """The closed form of ∫ for both()."""
    return (IMAGE.square() - image**2) / IMAGE[0].numel(), (ROW.square() - row**2) / 1e6


MEAN = IMAGE.mean((2, 3), keepdim=True)
STARTS: dict[str, tuple[Any, Any, Any]] = {
    "names and numbers": (("mean", 0.25), MEAN, 0.25),
    "none is zero": ((None, 1.0), 0.0, 1.0),
    "baselines": ((ig.baselines.Mean(), ig.baselines.Constant(2.0)), MEAN, 2.0),
    "a tensor per example": (("mean", ROW / 2), MEAN, ROW / 2),
    "a tensor for all": (
        ("zero", torch.tensor([3.0, 4.0])),
        0.0,
        torch.tensor([3.0, 4.0]).double(),
    ),
    "a value": (ig.baselines.PerInput((ig.baselines.Mean(), 0.25)), MEAN, 0.25),
}


@pytest.mark.parametrize("kind", list(STARTS))
@pytest.mark.parametrize("named", [False, True])
def test_a_baseline_for_each_input(kind: str, named: bool) -> None:
    given, image, row = STARTS[kind]
    inputs: Any = {"image": IMAGE, "row": ROW} if named else (IMAGE, ROW)
    if named and isinstance(given, tuple):
        given = dict(zip(("row", "image"), reversed(given), strict=True))  # in any order
    elif named:
        given = ig.baselines.PerInput({"image": ig.baselines.Mean(), "row": 0.25})
    made = ig.explain(both, inputs, target=0, baseline=given, rule=FINE)
    found = tuple(made.values.values()) if named else made.values
    for one, truth in zip(found, truths(image, row), strict=True):
        torch.testing.assert_close(one, truth, rtol=1e-10, atol=1e-12)


def test_several_baselines_for_several_inputs() -> None:
    """A list is several, a tuple one for each: their maps are averaged."""
    made = ig.explain(
        both, (IMAGE, ROW), target=0, baseline=[(0.0, 0.0), ("mean", 1.0), 0.5], rule=FINE
    )
    each = [truths(0.0, 0.0), truths(MEAN, 1.0), truths(0.5, 0.5)]
    for place in range(2):
        mean = torch.stack([one[place] for one in each]).mean(0)
        torch.testing.assert_close(made.values[place], mean, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", ["expected", "weighted"])
@pytest.mark.parametrize("keyword", ["baseline", "references"])
def test_references_for_each_input(method: str, keyword: str, quiet: None) -> None:
    """A tensor of rows each, side by side; or one of them a name. By either keyword."""
    rows, pictures = (
        torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]).double(),
        0.5 * wave(3, 3, 6, 6, phase=3),
    )
    option = "baselines" if method == "weighted" and keyword == "references" else keyword
    options: dict[str, Any] = {"rule": FINE, **({"fill": 0.0} if method == "weighted" else {})}
    for first, image in ((pictures, pictures[:, None]), ("mean", MEAN[None])):
        made = ig.explain(
            both,
            (IMAGE, ROW),
            target=ig.targets.Output(),
            method=method,
            **{option: (first, rows)},
            **options,
        )
        assert len(made.weights) == 3
        weights = made.weights[:, :, None]
        truth = (weights * (ROW.square() - rows[:, None] ** 2) / 1e6).sum(0)
        torch.testing.assert_close(made.values[1], truth, rtol=1e-10, atol=1e-12)
        credit = weights[..., None, None] * (IMAGE.square() - image**2) / IMAGE[0].numel()
        torch.testing.assert_close(made.values[0], credit.sum(0), rtol=1e-10, atol=1e-12)


def test_names_are_part_by_part() -> None:
    """Pixels begin at their own colour, whatever stands beside them; columns have none."""
    pair = (IMAGE, 255 * IMAGE[:, :1])
    made = ig.explain(
        lambda a, b: (a.mean((1, 2, 3)) + b.mean((1, 2, 3)))[:, None],
        pair,
        target=0,
        baseline="mean",
    )
    for start, one in zip(made.baselines, pair, strict=True):
        torch.testing.assert_close(
            start[0], one.mean((2, 3), keepdim=True).expand_as(one), rtol=1e-12, atol=1e-12
        )
    blurred = ig.explain(
        both, (IMAGE, ROW), target=0, baseline=("blurred", "zero"), rule=FINE
    ).baselines[0][0]
    assert torch.equal(
        blurred, ig.baselines.Blurred().of(IMAGE, ig.fields.Function(lambda z: z.sum((1, 2, 3))))[0]
    )
    for name in ("mean", "median", "mean left", "blurred", "corners"):
        with pytest.raises(
            ig.errors.BaselineError, match=r"^Input 1: .*(different kinds|an example has shape 2)"
        ):
            ig.explain(both, (IMAGE, ROW), target=0, baseline=name)


def test_a_map_of_columns_does_not_depend_on_its_company() -> None:
    """Nor is there a mean over age and income."""
    with pytest.raises(ig.errors.BaselineError, match=r"age and income; .*data\.mean\(0\)"):
        ig.explain(nn.Linear(2, 1).double(), ROW, target=0, baseline="mean")


@pytest.mark.parametrize(
    ("inputs", "baseline", "message"),
    [
        ([LEFT, RIGHT], [0.0, 1.0], r"inputs are a list.*a tuple for one per input.*a list of tuples"),
        ([LEFT, RIGHT], ["zero", "zero"], r"inputs are a list"),
        ((LEFT, RIGHT), ("zero", "balck"), r"no baseline named 'balck'"),
        ((LEFT, RIGHT), (0.0,), r"baselines are for \['0'\], the inputs are \['0', '1'\]"),
        ((LEFT, RIGHT), ("corners", 0.0), r"Input 0: .* images"),
        ((LEFT, RIGHT), torch.zeros(3, 7), r"shape 3x7 does not fit the inputs 0 \(4\), 1 \(5\): give a tuple"),
        ((LEFT, RIGHT), (ig.baselines.Relevant(wave(9, 4), 2), 0.0), r"Input 0: its baseline asks the model, .* all inputs"),
        ((LEFT, RIGHT), ([0.0, 1.0], [0.0, 1.0, 2.0]), r"The inputs have 2, 3 references: give each input as many"),
        (LEFT, ig.baselines.PerInput((0.0, 1.0)), r"PerInput is for models with several inputs"),
    ],
)  # fmt: skip
def test_baselines_that_do_not_fit_the_inputs(inputs: Any, baseline: Any, message: str) -> None:
    with pytest.raises(ig.errors.IntegrandError, match=message):
        ig.explain(lambda *z: z[0], inputs, target=0, baseline=baseline)


def test_a_list_of_tuples_beside_a_list() -> None:
    made = ig.explain(
        lambda a, b: (a.sum(1) * b.sum(1))[:, None],
        [LEFT, RIGHT],
        target=0,
        baseline=[(0.0, 1.0), (1.0, 0.0)],
    )
    assert len(made.weights) == 2


def test_equal_samplers_draw_rows_that_go_together() -> None:
    a, b = (
        torch.arange(20.0).double()[:, None].expand(20, 4),
        torch.arange(20.0).double()[:, None].expand(20, 5),
    )
    made = ig.explain(
        lambda p, q: (p.sum(1) * q.sum(1))[:, None],
        (LEFT, RIGHT), target=0, baseline=(ig.baselines.Sample(a, 6, seed=3), ig.baselines.Sample(b, 6, seed=3)),
    )  # fmt: skip
    assert torch.equal(made.baselines[0][..., 0], made.baselines[1][..., 0])


def test_baselines_of_other_methods_and_metrics(quiet: None) -> None:
    """The same brackets in compare, in a metric's fill, and for noise."""

    def f(a: Tensor, b: Tensor) -> Tensor:
        return (a.sum(1) * b.sum(1)).tanh()[:, None]

    fills = [(0.0, 1.0), (1.0, 0.0)]
    made = ig.compare(f, (LEFT, RIGHT), target=0, methods=["integrated"], metrics=[ig.metrics.Deletion(fill=fills[0], score="output")],
                      baseline=fills[1], vary_baseline={"a": fills[0], "b": ("zero", torch.ones(3, 5))})  # fmt: skip
    assert np.isfinite(made.scores.values).all()
    with ig.metrics.Subject.of(f, (LEFT, RIGHT), 0) as subject:
        start = subject.fill(fills[0])
    assert torch.equal(start, torch.cat([torch.zeros(3, 4), torch.ones(3, 5)], 1).double())


@pytest.mark.parametrize("start", [("mean", ROW / 2), {"image": "mean", "row": ROW / 2}])
def test_some_examples_keep_their_own_baselines(start: Any) -> None:
    """compare takes examples in blocks; each block has the baselines of its examples."""
    inputs: Any = {"image": IMAGE, "row": ROW} if isinstance(start, dict) else (IMAGE, ROW)
    method = resolve_method(inputs, "integrated", start, None, {"rule": FINE})
    x = Layout.of(inputs).pack(inputs)
    some = narrowed(method, [1], x)
    one: Any = (
        {"image": IMAGE[1:], "row": ROW[1:]} if isinstance(start, dict) else (IMAGE[1:], ROW[1:])
    )
    made = ig.explain(both, one, target=0, method=some).values
    for part, truth in zip(
        made.values() if isinstance(made, dict) else made, truths(MEAN, ROW / 2), strict=True
    ):
        torch.testing.assert_close(part, truth[1:], rtol=1e-10, atol=1e-12)


def test_noise_for_each_input() -> None:
    """Relative to the range of each input, or as wide as is said for it."""

    def linear(a: Tensor, b: Tensor) -> Tensor:
        return (a.sum(1) + b.sum(1))[:, None]

    for sigma, widths in (
        (0.2, [0.2 * (one.amax(1) - one.amin(1))[:, None] for one in (LEFT, RIGHT)]),
        ((0.1, 0.3), [s * (one.amax(1) - one.amin(1))[:, None] for s, one in zip((0.1, 0.3), (LEFT, RIGHT), strict=True)]),
        ((torch.tensor(0.5), torch.arange(5.0)), [torch.tensor(0.5), torch.arange(5.0).double()]),
    ):  # fmt: skip
        made = ig.explain(
            linear, (LEFT, RIGHT), target=0, method="smoothgrad", sigma=sigma, draws=3
        )
        noise = torch.stack(
            [
                torch.randn(9, generator=ig.core.random.generator(0, d), dtype=torch.float64)
                for d in range(3)
            ]
        ).mean(0)
        for one, width, part, place in zip(
            made.values, widths, (LEFT, RIGHT), (slice(4), slice(4, 9)), strict=True
        ):
            torch.testing.assert_close(one, part + width * noise[place], rtol=1e-10, atol=1e-12)
    for wrong in ((0.1,), {"a": 0.1, "b": 0.2}):
        with pytest.raises(
            ig.errors.InputError, match=r"sigma= is for .*, the inputs are \['0', '1'\]"
        ):
            ig.explain(linear, (LEFT, RIGHT), target=0, method="smoothgrad", sigma=wrong)
    with pytest.raises(
        ig.errors.InputError, match=r"sigma= is a number, or a tensor for one input"
    ):
        ig.explain(lambda a: a, LEFT, target=0, method="smoothgrad", sigma=(0.1, 0.2))


# --- extras ------------------------------------------------------------------------------------------------------------


Pair = namedtuple("Pair", ["one", "other"])
SCALE, X = torch.tensor([1.0, 2.0, 3.0, 4.0]).double(), wave(4, 2)


def tensor(value: Any) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


EXTRAS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "tensor": (SCALE, lambda e: e),
    "array": (SCALE.numpy(), tensor),
    "list": (SCALE.tolist(), tensor),
    "dict": ({"scale": SCALE}, lambda e: e["scale"]),
    "other mapping": (UserDict(scale=SCALE), lambda e: e["scale"]),
    "ordered": (OrderedDict(scale=SCALE), lambda e: e["scale"]),
    "tuple": ((3, SCALE), lambda e: e[1]),
    "named tuple": (Pair(3, SCALE), lambda e: e.other),
    "deep": ({"a": [{"b": (SCALE.numpy(), "word")}]}, lambda e: tensor(e["a"][0]["b"][0])),
    "words": (["1", "2", "3", "4"], lambda e: tensor([float(word) for word in e])),
    "shared beside": (
        {"scale": SCALE, "kernel": ig.Shared(torch.ones(7))},
        lambda e: e["scale"] * e["kernel"].mean(),
    ),
}
CALLS: list[dict[str, Any]] = [
    {},
    {"batch_size": 4, "rule": FINE},
    {"method": "guided", "steps": 4, "batch_size": 4},
    {"method": "expected", "baseline": torch.zeros(8, 2).double(), "rule": FINE},
]


@pytest.mark.parametrize("kind", list(EXTRAS))
@pytest.mark.parametrize("call", range(len(CALLS)))
def test_extras_belong_to_their_examples(kind: str, call: int, quiet: None) -> None:
    """F = s_b Σ x², whose map is s_b x²: rows of another example would be off by a factor."""
    extra, scale_of = EXTRAS[kind]

    def f(z: Tensor, opts: Any) -> Tensor:
        scale = scale_of(opts)
        assert scale.shape == z.shape[:1]
        return (z.square().sum(1) * scale)[:, None]

    options = {"baseline": 0.0, **CALLS[call]}
    for given in ((extra,), {"opts": extra}):
        made = ig.explain(f, X, target=0, extra=given, **options)
        torch.testing.assert_close(made.values, X.square() * SCALE[:, None], rtol=1e-6, atol=1e-9)


def test_a_shared_extra_is_handed_over_as_it_is() -> None:
    """Whatever its shape, also where that is the batch size, and the references may be a pool."""
    matrix = wave(4, 4)

    def model(z: Tensor, m: Tensor, opts: dict[str, Any]) -> Tensor:
        return (z @ m[:2]).tanh() + opts["by"]

    made = ig.explain(model, X, target=1, extra=(ig.Shared(matrix), {"by": 2.0}), rule=FINE)
    truth = dense(lambda z: (z @ matrix[:2]).tanh()[:, 1], X, torch.zeros_like(X))
    torch.testing.assert_close(made.values, truth, rtol=1e-6, atol=1e-9)
    pool = ig.baselines.Relevant(wave(30, 2, phase=2), 2, first=1, last=4)
    assert (
        len(
            ig.explain(
                model, X, target=1, extra=(ig.Shared(matrix), {"by": 1.0}), baseline=pool
            ).weights
        )
        == 2
    )
    assert repr(ig.Shared(matrix)) == "Shared(tensor<4x4>)"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ((torch.zeros(3),), r"Extra argument 0 has shape 3, but there are 4 examples"),
        (
            {"opts": {"mask": [torch.zeros(4), torch.zeros(5, 2)]}},
            r"'opts'\['mask'\]\[1\] has shape 5x2",
        ),
        ((np.zeros((2, 4)),), r"argument 0 has shape 2x4"),
        (
            ([1, 2, 3],),
            r"argument 0 is a list of 3, but there are 4 examples.*ig\.Shared\(…\).*lambda x: model\(x, shared\)",
        ),
    ],
)
def test_extras_of_another_number(extra: Any, message: str) -> None:
    with pytest.raises(ig.errors.ShapeError, match=message):
        ig.explain(lambda z, *_, **__: z, X, target=0, extra=extra)


def test_extras_without_anything_per_example_stay_themselves() -> None:
    opts = {"a": (1, 2), "b": ig.Shared(SCALE), "c": "word", "d": torch.tensor(3.0), "e": []}
    (given,), _ = Extra.of((opts,)).rows(torch.tensor([0, 1]))
    assert given["b"] is SCALE
    assert all(given[key] is opts[key] for key in "acde")
    assert not Extra.of((opts,)).per_example
    plain = {"a": (1, 2), "c": "word"}
    assert Extra.of((plain,)).rows(None)[0][0] is plain


# --- targets -----------------------------------------------------------------------------------------------------------


def grid(z: Tensor) -> Tensor:
    return torch.stack([z.square().cumsum(1), z.cumsum(1).tanh()], 2)  # (N, 4, 2)


def test_positions_per_example_everywhere() -> None:
    """What the call for each example alone gives, from explain, explain_targets and compare."""
    places = [(2, 1), (0, 0), (3, 1)]
    made = ig.explain(grid, LEFT, target=places, rule=FINE)
    for b, place in enumerate(places):
        alone = ig.explain(grid, LEFT[b : b + 1], target=place, rule=FINE)
        torch.testing.assert_close(made.values[b], alone.values[0], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(made.output[b], grid(LEFT)[b][place])
        assert made[b].target == ig.targets.Logit(place)
    first, second = ig.explain_targets(grid, LEFT, targets=[places, (1, 0)], rule=FINE)
    torch.testing.assert_close(first.values, made.values, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(
        second.values, ig.explain(grid, LEFT, target=(1, 0), rule=FINE).values
    )
    compared = ig.compare(
        grid,
        LEFT,
        target=places,
        methods=["integrated"],
        metrics=[ig.metrics.Deletion(score="output")],
    )
    assert np.isfinite(compared.scores.values).all()
    with pytest.raises(ig.errors.TargetError, match="names 2 positions for 3 examples"):
        ig.explain(grid, LEFT, target=places[:2])


def test_one_class_in_a_tensor_is_for_all() -> None:
    made = ig.explain(lambda z: z.square(), LEFT, target=torch.tensor([1]))
    assert torch.equal(made.values, ig.explain(lambda z: z.square(), LEFT, target=1).values)
    column = ig.explain(lambda z: z.square(), LEFT, target=torch.tensor([[1], [0], [3]]))
    assert torch.equal(
        column.values, ig.explain(lambda z: z.square(), LEFT, target=[1, 0, 3]).values
    )


@pytest.mark.parametrize("shape", [(-1,), (-1, 1), (-1, 1, 1)])
def test_one_logit_is_explained_for_either_class(shape: tuple[int, ...]) -> None:
    """The only output, positive towards class 1, also where the logit says class 0: and the target says so."""
    made = ig.explain(lambda z: z.sum(1).reshape(shape), LEFT, target=ig.targets.Output())
    assert bool((made.output < 0).any())
    torch.testing.assert_close(made.values, LEFT)
    assert repr(made.target) == "Output()"
    assert "only" in type(made.target).__doc__
    assert "class 1" in type(made.target).__doc__


# --- what comes out ----------------------------------------------------------------------------------------------------


ALIASES: dict[str, Callable[[Tensor], Any]] = {
    "constant": lambda t: t[0],
    "per example": lambda t: t,
    "given": ig.baselines.Given,
    "kept": lambda t: ig.baselines.Masked(t[0], (0,)),
    "a function": lambda t: lambda x, field: t[None],
    "several": lambda t: [t, 0.0],
}


@pytest.mark.parametrize("kind", list(ALIASES))
@pytest.mark.parametrize("method", ["integrated", "guided", "smoothgrad"])
def test_results_share_nothing_with_the_caller(kind: str, method: str, quiet: None) -> None:
    x, start = LEFT.clone(), 0.5 * wave(3, 4, phase=2)
    made = ig.explain(
        lambda z: z.square(), x, target=0, method=method, baseline=ALIASES[kind](start)
    )
    before = [None if t is None else t.clone() for t in (made.values, made.inputs, made.baselines)]
    x.zero_()
    start.fill_(9)
    for now, then in zip((made.values, made.inputs, made.baselines), before, strict=True):
        assert (now is None) == (then is None)
        assert now is None or torch.equal(now, then)
    assert torch.equal(made.inputs, LEFT)


def test_compared_results_share_nothing_with_the_caller() -> None:
    x = LEFT.clone()
    made = ig.compare(lambda z: z.square(), x, target=0, methods=["integrated"])
    x.zero_()
    assert all(torch.equal(one.inputs, LEFT[: len(one)]) for one in made.shown.values())


def test_references_for_all_examples_stay_one(quiet: None) -> None:
    """A copy of what is shared is as small as it was."""
    made = ig.explain(
        lambda z: z.square(), LEFT, target=0, method="weighted", baseline=wave(6, 4), fill=0.0
    )
    assert made.baselines.stride(1) == 0


@pytest.mark.parametrize("std", [(0.0,), (0.1, float("nan"), 0.2), (-1.0,), (float("inf"),), ()])
def test_a_normalisation_divides_by_something(std: tuple[float, ...]) -> None:
    with pytest.raises(ig.errors.InputError, match=r"above 0 for each channel"):
        ig.Normalisation((0.5,) * max(1, len(std)), std)
    with pytest.raises(ig.errors.InputError, match="2 means and 3 deviations"):
        ig.Normalisation((0.5, 0.5), (1.0, 1.0, 1.0))
    with pytest.raises(ig.errors.InputError, match="finite mean"):
        ig.Normalisation((float("nan"),))


# --- float64 throughout ------------------------------------------------------------------------------------------------


@pytest.fixture
def default_dtype() -> Any:
    before = torch.get_default_dtype()
    yield torch.set_default_dtype
    torch.set_default_dtype(before)


def alike(one: Any, other: Any) -> None:
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13, equal_nan=True, check_dtype=True)


KINDS: dict[str, Callable[[Any], Any]] = {
    **{f"method {name}": build for name, build in BUILD.items()},
    **{f"gathering {how}": lambda p, how=how: ig.methods.geometric(p.references[:1], 7, gather=how) for how in ("max", "trapezoid", "mean")},
    **{f"path {name}": lambda p, way=way: ig.Method(ig.baselines.Given(p.references[:2]), way.build(p), ig.rules.Simpson(2)) for name, way in PATHS.items()},
    **{f"rule {rule!r}": lambda p, rule=rule: ig.Method(ig.baselines.Given(p.references[:2]), rule=rule)
       for rule in (ig.rules.Trapezoid(7), ig.rules.Left(7), ig.rules.Simpson(3), ig.rules.MonteCarlo(7), ig.rules.Adaptive(1e-3))},
}  # fmt: skip


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_default_type_has_no_say_in_a_float64_run(
    kind: str, default_dtype: Any, quiet: None
) -> None:
    """Weights that torch makes of Python numbers are of the default type, and off by 3e-8 where that is float32."""
    ran = 0
    for name, problem in PROBLEMS.items():
        if kind.startswith("method ") and not fits(kind.removeprefix("method "), problem):
            continue
        made = []
        for dtype in (torch.float32, torch.float64):
            default_dtype(dtype)
            try:
                method = KINDS[kind](problem)
                one = ig.explain(
                    problem.model,
                    problem.inputs,
                    target=problem.target,
                    extra=problem.extra,
                    method=method,
                    batch_size=16,
                )
            except ig.errors.IntegrandError:  # not for such inputs
                break
            made.append(one)
        if len(made) == 2:
            for field in ("values", "weights", "change", "residual", "baselines"):
                alike(getattr(made[0], field), getattr(made[1], field))
            assert made[0].output.dtype == torch.float64, name
            ran += 1
        if ran == 2:
            return
    assert ran or kind.removeprefix("method ") in {"artificial_distancing"}


def test_the_trapezoid_gathering_is_exact_to_rounding() -> None:
    """Of a gradient that is the same everywhere the gathered one is that: the weights add up to one."""
    weight = wave(4)
    made = ig.methods.geometric(0.0, 7, gather="trapezoid")(ig.fields.Linear(weight), LEFT)
    one = ig.methods.geometric(0.0, 1, gather="trapezoid")(ig.fields.Linear(weight), LEFT)
    torch.testing.assert_close(made.values, one.values, rtol=1e-14, atol=1e-15)


def test_metrics_of_float64_maps_are_float64(default_dtype: Any, quiet: None) -> None:
    x, maps, masks = wave(3, 2, 6, 6), [wave(3, 2, 6, 6, phase=2)], wave(3, 6, 6) > 0.3
    model = filled(nn.Sequential(nn.Flatten(), nn.Linear(72, 3)).double())
    compared = 0
    for metric in known_metrics().values():
        found = []
        for dtype in (torch.float32, torch.float64):
            default_dtype(dtype)
            try:
                found.append(
                    ig.metrics.judge(
                        model,
                        x,
                        maps,
                        metric(),
                        target=1,
                        masks=masks,
                        normalisation=ig.Normalisation.unit(),
                    )
                )
            except ig.errors.IntegrandError:
                break
        if len(found) == 2:
            alike(*found)
            compared += 1
    assert compared > 20
