"""Several places at once: layers that return several tensors, several layers, several runs of one layer, and starts of their own.

Every truth is written out by hand: what is behind the places as a function of what is there, and midpoints along the straight
line through all of them together, with plain autograd.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from tests.problems import filled, relu_mlp, wave

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from captum.attr import LayerIntegratedGradients

FINE = ig.rules.GaussLegendre(24)
X = wave(4, 6, phase=0.3)
B = torch.full_like(X, 0.25)
Site = ig.fields.Site


def run(model: Any, x: Any, method: Any, **options: Any) -> ig.Attribution:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
        return ig.explain(model, x, **({"target": 1, "method": method} | options))


def by_hand(
    behind: Callable[..., Tensor], starts: Sequence[Tensor], ends: Sequence[Tensor], n: int = 600
) -> list[Tensor]:
    """(h(x) − h(b)) ⊙ the mean of ∂F/∂h over n midpoints, all the places on their way together."""
    starts, ends = [s.detach() for s in starts], [e.detach() for e in ends]
    sums = [torch.zeros_like(end) for end in ends]
    for q in range(n):
        points = [
            (s + (q + 0.5) / n * (e - s)).requires_grad_()
            for s, e in zip(starts, ends, strict=True)
        ]
        slopes = torch.autograd.grad(behind(*points).sum(), points, allow_unused=True)
        sums = [
            total if slope is None else total + slope / n
            for total, slope in zip(sums, slopes, strict=True)
        ]
    return [(e - s) * total for s, e, total in zip(starts, ends, sums, strict=True)]


def assert_maps(made: ig.Attribution, expected: Sequence[Tensor], atol: float = 2e-6) -> None:
    values = made.values if isinstance(made.values, tuple) else (made.values,)
    assert len(values) == len(expected)
    for value, one in zip(values, expected, strict=True):
        torch.testing.assert_close(value, one, rtol=0, atol=atol)


def summed(made: ig.Attribution) -> Tensor:
    values = made.values if isinstance(made.values, tuple) else (made.values,)
    return sum((value.flatten(1).sum(1) for value in values), torch.zeros(len(made)).double())


# --- layers that return several tensors -------------------------------------------------------------------------------


class Recurrent(nn.Module):
    """Which of an LSTM's tensors the head reads: y (B, T, H), h or c (1, B, H), with rows on another axis."""

    def __init__(self, reads: str, *, time_first: bool = False) -> None:
        super().__init__()
        self.reads, self.time_first = reads, time_first
        self.lstm, self.last = nn.LSTM(3, 5, batch_first=not time_first), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        y, (h, c) = self.lstm(x.transpose(0, 1) if self.time_first else x)
        return self.head(y, h, c)

    def head(self, y: Tensor, h: Tensor, c: Tensor) -> Tensor:
        means = {"y": y.mean(0 if self.time_first else 1), "h": h[0], "c": c[0]}
        return self.last(torch.tanh(sum(means[name] for name in self.reads)))


SERIES = wave(4, 6, 3)


@pytest.mark.parametrize("time_first", [False, True])
@pytest.mark.parametrize("reads", ["y", "h", "c", "yc", "yhc"])
def test_every_tensor_of_a_layer_is_explained(reads: str, time_first: bool) -> None:
    model = filled(Recurrent(reads, time_first=time_first))
    turned = (lambda z: z.transpose(0, 1)) if time_first else (lambda z: z)
    tensors = lambda z: (lambda y, hc: (y, *hc))(*model.lstm(turned(z)))  # noqa: E731
    hand = by_hand(
        lambda *p: model.head(*p)[:, 1], tensors(torch.zeros_like(SERIES)), tensors(SERIES)
    )
    made = run(model, SERIES, "layer", site="lstm", rule=FINE)
    rows_first = [
        hand[0].transpose(0, 1) if time_first else hand[0],
        hand[1].transpose(0, 1),
        hand[2].transpose(0, 1),
    ]
    assert_maps(made, rows_first)
    assert [tuple(value.shape) for value in made.values] == [(4, 6, 5), (4, 1, 5), (4, 1, 5)]
    assert [tuple(part.shape) for part in made.inputs] == [(4, 6, 5), (4, 1, 5), (4, 1, 5)]
    torch.testing.assert_close(made.residual, torch.zeros(4).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(summed(made), made.output - made.base, rtol=0, atol=1e-9)
    # Each is nothing where nobody reads it.
    for name, value in zip("yhc", made.values, strict=True):
        assert bool((value != 0).any()) is (name in reads)


def test_one_tensor_that_is_named_leaves_the_others_as_they_are_for_the_input() -> None:
    model = filled(Recurrent("yhc"))
    y, (h, c) = model.lstm(SERIES)
    y0 = model.lstm(torch.zeros_like(SERIES))[0]
    (hand,) = by_hand(lambda p: model.head(p, h.detach(), c.detach())[:, 1], [y0], [y])
    made = run(model, SERIES, "layer", site=Site("lstm", tensor=0), rule=FINE)
    assert_maps(made, [hand])
    assert repr(made.method) == "Layered(Site('lstm', tensor=0), Method(rule=GaussLegendre(24)))"


def test_conductance_through_several_tensors() -> None:
    """∫ ∂F/∂h_i · dh_i/dt, by midpoints of the inputs' line and finite differences."""
    model = filled(Recurrent("yc"))
    tensors = lambda z: (lambda y, hc: (y, *hc))(*model.lstm(z))  # noqa: E731
    sums, n, eps = [0.0, 0.0, 0.0], 400, 1e-5
    for q in range(n):
        z = (q + 0.5) / n * SERIES
        points = [p.detach().requires_grad_() for p in tensors(z)]
        slopes = torch.autograd.grad(model.head(*points)[:, 1].sum(), points, allow_unused=True)
        ahead, behind = tensors(z + eps * SERIES), tensors(z - eps * SERIES)
        for i, slope in enumerate(slopes):
            if slope is not None:
                sums[i] = sums[i] + slope * (ahead[i] - behind[i]).detach() / (2 * eps) / n
    made = run(model, SERIES, "conductance", site="lstm", steps=200)
    torch.testing.assert_close(made.values[0], sums[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(made.values[2], sums[2].transpose(0, 1), rtol=0, atol=1e-5)
    torch.testing.assert_close(made.residual, torch.zeros(4).double(), rtol=0, atol=1e-5)


class Nested(nn.Module):
    """A layer that returns a dict of tensors in tuples, an integer, and a number that is the same for all rows."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces, self.last = Pieces(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pieces(x))

    def head(self, out: Any) -> Tensor:
        left, right = out["pair"]
        return self.last(torch.tanh(left * out["scale"] + right.square() + out["late"][0]))


class Pieces(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Any:
        h = self.map(x)
        fixed = torch.tensor(0.7).double()
        return {
            "pair": (h.sin(), h.cos()),
            "count": len(h.shape),
            "scale": fixed,
            "late": [0.3 * h],
            "ids": h.argmax(1),
        }


def test_nested_outputs_with_what_is_no_row() -> None:
    model = filled(Nested())
    out, start = model.pieces(X), model.pieces(B)
    tensors = lambda o: [*o["pair"], o["late"][0]]  # noqa: E731
    behind = lambda a, b, c: model.head(out | {"pair": (a, b), "late": [c]})[:, 1]  # noqa: E731
    hand = by_hand(behind, tensors(start), tensors(out))
    assert_maps(run(model, X, "layer", site="pieces", baseline=0.25, rule=FINE), hand)


class Bilinear(nn.Module):
    """A layer of two tensors and a mask of minus infinities; by position or by keyword."""

    def __init__(self, keyword: bool) -> None:
        super().__init__()
        self.left, self.right, self.inner = nn.Linear(6, 6), nn.Linear(6, 6), Product()
        self.keyword = keyword

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.zeros_like(x).masked_fill(torch.arange(6) > 3, -torch.inf)
        given = {"a": self.left(x), "b": self.right(x), "mask": mask}
        return self.inner(**given) if self.keyword else self.inner(*given.values())


class Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(6, 3)

    def forward(self, a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
        return self.last(a.sin() * b * (b + mask).softmax(1))


@pytest.mark.parametrize("keyword", [False, True])
def test_every_tensor_that_goes_into_a_layer(keyword: bool) -> None:
    model = filled(Bilinear(keyword))
    mask = torch.zeros_like(X).masked_fill(torch.arange(6) > 3, -torch.inf)
    both = lambda z: (model.left(z), model.right(z))  # noqa: E731
    hand = by_hand(lambda a, b: model.inner(a, b, mask)[:, 1], both(B), both(X))
    made = run(model, X, "layer", site="inner", side="input", baseline=0.25, rule=FINE)
    assert_maps(made, hand)
    torch.testing.assert_close(made.residual, torch.zeros(4).double(), rtol=0, atol=1e-8)
    (second,) = by_hand(
        lambda b: model.inner(model.left(X).detach(), b, mask)[:, 1], both(B)[1:], both(X)[1:]
    )
    assert_maps(
        run(model, X, "layer", site=Site("inner", "input", tensor=1), baseline=0.25, rule=FINE),
        [second],
    )


def test_a_representation_is_one_tensor_of_a_layer() -> None:
    """IG2 walks by the distance of what it names; the distance at the start says which it was."""
    model, reference = filled(Nested()), wave(1, 6, phase=1)
    for tensor, at in ((None, "sin"), (0, "sin"), (1, "cos")):
        made = run(
            model,
            X,
            "ig2",
            baseline=reference,
            representation=Site("pieces", tensor=tensor),
            steps=3,
            clip=(-9, 9),
        )
        distance = (
            getattr(model.pieces.map(X), at)() - getattr(model.pieces.map(reference), at)()
        ).detach()
        torch.testing.assert_close(
            made.notes["distance"][-1, 0], distance.square().sum(1), rtol=1e-8, atol=0
        )


# --- several layers ---------------------------------------------------------------------------------------------------


class Columns(nn.Module):
    """Two kinds of categories with embeddings of their own widths, and numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.town, self.job, self.numbers = nn.Embedding(7, 3), nn.Embedding(5, 4), nn.Linear(2, 2)
        self.mix, self.last = nn.Linear(9, 6), nn.Linear(6, 3)

    def forward(self, town: Tensor, job: Tensor, numbers: Tensor) -> Tensor:
        return self.head(self.town(town), self.job(job), self.numbers(numbers))

    def head(self, town: Tensor, job: Tensor, numbers: Tensor) -> Tensor:
        return self.last(torch.tanh(self.mix(torch.cat([town, job, numbers], 1))) ** 2)


TABLE = (torch.tensor([1, 4, 6]), torch.tensor([0, 3, 2]), wave(3, 2))
AWAY = (torch.tensor([0, 0, 0]), torch.tensor([4, 4, 4]), torch.zeros(3, 2).double())


@pytest.mark.parametrize("method", ["layer", "adaptive"])
def test_several_embeddings_at_once(method: str) -> None:
    model = filled(Columns())
    places = lambda t: (model.town(t[0]), model.job(t[1]), model.numbers(t[2]))  # noqa: E731
    hand = by_hand(lambda *p: model.head(*p)[:, 1], places(AWAY), places(TABLE))
    sites = ["town", model.job, Site("numbers")]
    options = {"rule": FINE} if method == "layer" else {"tol": 0.001}
    made = run(model, TABLE, "layer", site=sites, baseline=AWAY, **options)
    assert_maps(
        made,
        hand,
        2e-6 if method == "layer" else 0.001 * float(torch.cat(hand, 1).norm(dim=1).max()),
    )
    torch.testing.assert_close(
        summed(made) + made.residual, made.output - made.base, rtol=0, atol=1e-9
    )
    assert "('town', 'job', Site('numbers'))" in repr(
        made.method
    ) or "('town', 'job', 'numbers')" in repr(made.method)
    # In the order in which they were asked for, whatever the order in which they run.
    backwards = run(
        model, TABLE, "layer", site=("numbers", "job", "town"), baseline=AWAY, **options
    )
    assert_maps(backwards, made.values[::-1], 1e-9)


@pytest.mark.filterwarnings("ignore")  # of theirs: they look for ids where a float column is
def test_several_embeddings_agree_with_captum() -> None:
    """Whose gradients for one layer of a list are those of the line through all of them, too."""
    model = filled(Columns())
    theirs = LayerIntegratedGradients(model, [model.town, model.job]).attribute(
        TABLE[:2], AWAY[:2], additional_forward_args=(TABLE[2],), target=1, n_steps=24
    )
    ours = run(
        model,
        TABLE,
        "layer",
        site=["town", "job"],
        baseline=(AWAY[0], AWAY[1], TABLE[2]),
        rule=FINE,
    )
    assert_maps(ours, theirs, 1e-7)


class Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x))
        return self.last(torch.tanh(0.7 * h + self.inner(torch.sin(h))))


@pytest.mark.parametrize("sites", [["first", "inner"], ["inner", "first"]])
def test_layers_behind_one_another(sites: list[str]) -> None:
    """What comes out of the later one is its own point, so the earlier one acts through the skip connection alone."""
    model = filled(Skip())
    early = model.first
    late = lambda z: model.inner(torch.sin(torch.tanh(early(z))))  # noqa: E731
    behind = lambda h, i: model.last(torch.tanh(0.7 * torch.tanh(h) + i))[:, 1]  # noqa: E731
    hand = by_hand(behind, [early(B), late(B)], [early(X), late(X)])
    made = run(model, X, "layer", site=sites, baseline=0.25, rule=FINE)
    assert_maps(made, hand if sites[0] == "first" else hand[::-1])
    torch.testing.assert_close(made.residual, torch.zeros(4).double(), rtol=0, atol=1e-8)


class Stack(nn.Module):
    """A layer inside another that is explained too, with a way around."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.last = nn.Sequential(nn.Linear(6, 6), nn.Tanh()), nn.Linear(6, 3)
        self.seen: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        h = self.block[0](x)
        return self.last(torch.sin(h) + self.block(x))


def test_a_layer_inside_another_and_a_run_outside() -> None:
    """block.0 runs alone, then inside the block, whose output is explained: two runs of one and one of the other."""
    model = filled(Stack())
    inner, outer = model.block[0], model.block
    behind = lambda first, second, block: model.last(torch.sin(first) + block)[:, 1]  # noqa: E731
    hand = by_hand(behind, [inner(B), inner(B), outer(B)], [inner(X), inner(X), outer(X)])
    made = run(model, X, "layer", site=["block", "block.0"], baseline=0.25, rule=FINE)
    assert_maps(made, [hand[2], hand[0] + hand[1]])
    alone = run(model, X, "layer", site=Site("block.0", run=1), baseline=0.25, rule=FINE)
    kept = inner(X).detach()
    assert_maps(
        alone,
        by_hand(
            lambda i: model.last(torch.sin(kept) + torch.tanh(i))[:, 1], [inner(B)], [inner(X)]
        ),
    )


def test_both_sides_of_a_layer() -> None:
    model = relu_mlp()
    made = run(model, X, "layer", site=[Site("2", "input"), Site("2")], baseline=0.25, rule=FINE)
    assert bool((made.values[0] == 0).all())  # nothing of what goes in gets past what comes out
    alone = run(model, X, "layer", site="2", baseline=0.25, rule=FINE)
    torch.testing.assert_close(made.values[1], alone.values, rtol=0, atol=1e-12)


# --- several runs -----------------------------------------------------------------------------------------------------


class Twins(nn.Module):
    """One encoder for two texts; as many tokens in each or not."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.encoder = nn.Embedding(9, 4), nn.Linear(4, 5)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return self.head(self.embedding(one), self.embedding(other))

    def head(self, one: Tensor, other: Tensor) -> Tensor:
        u, v = (torch.tanh(self.encoder(h)).mean(1) for h in (one, other))
        return torch.cosine_similarity(u, v, dim=1)[:, None]


@pytest.mark.parametrize("lengths", [(3, 3), (3, 5)])
def test_one_encoder_that_runs_twice(lengths: tuple[int, int]) -> None:
    model = filled(Twins())
    texts = [torch.arange(2 * n).reshape(2, n) % 8 + 1 for n in lengths]
    pads = [torch.zeros_like(text) + torch.tensor([[0], [8]]) for text in texts]
    places = lambda t: [model.embedding(part) for part in t]  # noqa: E731
    hand = by_hand(lambda *p: model.head(*p)[:, 0], places(pads), places(texts), 1000)
    made = run(
        model, tuple(texts), "layer", site="embedding", baseline=tuple(pads), rule=FINE, target=0
    )
    if lengths[0] == lengths[1]:
        assert_maps(made, [hand[0] + hand[1]], 1e-5)
        torch.testing.assert_close(made.inputs, sum(places(texts)).detach(), rtol=0, atol=1e-14)
    else:
        assert_maps(made, hand, 1e-5)
    torch.testing.assert_close(made.residual, torch.zeros(2).double(), rtol=0, atol=1e-7)
    for which in (0, 1):
        other = places(texts)[1 - which].detach()
        behind = lambda p, w=which, o=other: model.head(*((p, o) if w == 0 else (o, p)))[:, 0]  # noqa: E731
        (alone,) = by_hand(behind, [places(pads)[which]], [places(texts)[which]], 1000)
        site = Site("embedding", run=which)
        assert_maps(
            run(model, tuple(texts), "layer", site=site, baseline=tuple(pads), rule=FINE, target=0),
            [alone],
            1e-5,
        )


class Loop(nn.Module):
    """A cell that runs three times, with the first state going around."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.last = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = self.cell(x)
        second = self.cell(torch.tanh(first))
        third = self.cell(torch.tanh(second))
        return self.last(torch.tanh(third) + 0.5 * torch.sin(first))


def states(model: Loop, z: Tensor) -> list[Tensor]:
    first = model.cell(z)
    second = model.cell(torch.tanh(first))
    return [first, second, model.cell(torch.tanh(second))]


def test_a_loop_moves_in_all_of_its_runs_together() -> None:
    model = filled(Loop())
    behind = lambda a, b, c: model.last(torch.tanh(c) + 0.5 * torch.sin(a))[:, 1]  # noqa: E731
    hand = by_hand(behind, states(model, B), states(model, X))
    made = run(model, X, "layer", site="cell", baseline=0.25, rule=FINE)
    assert_maps(made, [sum(hand)])
    torch.testing.assert_close(made.residual, torch.zeros(4).double(), rtol=0, atol=1e-8)
    # The second run alone: what is behind it, the first as it is.
    first = states(model, X)[0].detach()

    def late(b):
        return model.last(torch.tanh(model.cell(torch.tanh(b))) + 0.5 * torch.sin(first))[:, 1]

    (second,) = by_hand(late, [states(model, B)[1]], [states(model, X)[1]])
    assert_maps(
        run(model, X, "layer", site=Site(model.cell, run=1), baseline=0.25, rule=FINE), [second]
    )


def test_conductance_of_a_loop() -> None:
    """∂F/∂h_k of each run with the later ones as they are, times what the run changes by: added up over runs."""
    model, n, eps = filled(Loop()), 500, 1e-5
    total = torch.zeros_like(X)
    for q in range(n):
        z = B + (q + 0.5) / n * (X - B)
        points = [p.detach().requires_grad_() for p in states(model, z)]
        value = model.last(torch.tanh(points[2]) + 0.5 * torch.sin(points[0]))[:, 1]
        slopes = torch.autograd.grad(value.sum(), points, allow_unused=True)
        for slope, a, b in zip(
            slopes, states(model, z + eps * (X - B)), states(model, z - eps * (X - B)), strict=True
        ):
            if slope is not None:
                total += slope * (a - b).detach() / (2 * eps) / n
    made = run(model, X, "conductance", site="cell", baseline=0.25, steps=200)
    torch.testing.assert_close(made.values, total, rtol=0, atol=1e-5)


def test_runs_that_cancel_do_not_look_more_accurate_than_they_are() -> None:
    """Two runs whose maps all but cancel: the error of the sum is that of large numbers."""

    class Difference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = (
                nn.Linear(6, 40),
                nn.Sequential(nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 1)),
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.head(3 * self.encoder(x)) - self.head(3 * self.encoder(1.001 * x))

    model = filled(Difference())
    exact = run(model, X, "layer", site="encoder", rule=ig.rules.GaussLegendre(800), target=0)
    with pytest.warns(
        ig.errors.IncompleteWarning, match=r"the runs of layer 'encoder' cancel in their sum"
    ):
        made = ig.explain(model, X, target=0, method="layer", site="encoder", tol=0.05)
    true = (made.values - exact.values).norm(dim=1) / exact.values.norm(dim=1)
    assert not bool((made.converged & (true > 0.05)).any())
    assert not bool(made.converged.all())
    one = run(model, X, "layer", site=Site("encoder", run=0), tol=0.05, target=0)
    assert bool(one.converged.all())


# --- a start of the layer's own ---------------------------------------------------------------------------------------


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embeddings, self.positions = nn.Embedding(11, 4), nn.Embedding(5, 4)
        self.mix, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embeddings(ids), ids != 0)

    def head(self, h: Tensor, mask: Tensor) -> Tensor:
        h = h + self.positions(torch.arange(h.shape[1]))
        return self.last((torch.tanh(self.mix(h)) * mask[..., None]).sum(1))


IDS = torch.tensor([[3, 7, 1, 0, 0], [2, 2, 9, 4, 1], [5, 1, 0, 0, 0]])


@pytest.mark.parametrize("start", ["zero", "mean", "each"])
def test_token_ids_from_a_vector(start: str) -> None:
    """No ids for a baseline are needed, and nothing passes the layer by: the mask is that of x at both ends."""
    model = filled(Reader())
    h = model.embeddings(IDS).detach()
    vector = {"zero": 0.0, "mean": model.embeddings.weight.detach().mean(0), "each": h.flip(0)}[
        start
    ]
    begin = torch.zeros_like(h) + vector
    hand = by_hand(lambda p: model.head(p, IDS != 0)[:, 1], [begin], [h])
    made = run(model, IDS, "layer", site="embeddings", layer_baseline=vector, rule=FINE)
    assert_maps(made, hand)
    torch.testing.assert_close(made.baselines[0], begin, rtol=0, atol=0)
    torch.testing.assert_close(made.output, model(IDS)[:, 1].detach(), rtol=0, atol=1e-14)
    torch.testing.assert_close(
        made.change[0],
        (model(IDS) - model.head(begin, IDS != 0))[:, 1].detach(),
        rtol=0,
        atol=1e-12,
    )
    torch.testing.assert_close(made.residual, torch.zeros(3).double(), rtol=0, atol=1e-8)


def test_starts_of_several_layers() -> None:
    model = filled(Columns())
    ends = [model.town(TABLE[0]), model.job(TABLE[1])]
    numbers = model.numbers(TABLE[2]).detach()
    means = tuple(layer.weight.detach().mean(0) for layer in (model.town, model.job))
    behind = lambda t, j: model.head(t, j, numbers)[:, 1]  # noqa: E731
    hand = by_hand(
        behind, [torch.zeros_like(e) + m for e, m in zip(ends, means, strict=True)], ends
    )
    made = run(model, TABLE, "layer", site=["town", "job"], layer_baseline=means, rule=FINE)
    assert_maps(made, hand)
    zero = run(model, TABLE, "layer", site=["town", "job"], layer_baseline=0.0, rule=FINE)
    assert_maps(zero, by_hand(behind, [torch.zeros_like(e) for e in ends], ends))
    # Two starts each, moved together: their mean.
    both = run(
        model,
        TABLE,
        "layer",
        site=["town", "job"],
        layer_baseline=([0.0, means[0]], [0.0, means[1]]),
        rule=FINE,
    )
    assert_maps(both, [(a + b) / 2 for a, b in zip(made.values, zero.values, strict=True)], 1e-10)


def test_a_start_for_a_layer_that_runs_twice() -> None:
    model = filled(Loop())
    start = [torch.full_like(X, 0.1)] * 3
    behind = lambda a, b, c: model.last(torch.tanh(c) + 0.5 * torch.sin(a))[:, 1]  # noqa: E731
    hand = by_hand(behind, start, states(model, X))
    assert_maps(run(model, X, "layer", site="cell", layer_baseline=0.1, rule=FINE), [sum(hand)])


def test_any_method_from_values_of_a_layer() -> None:
    layers = nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3)
    model, starts = filled(nn.Sequential(*layers)), wave(3, 12, phase=1)
    method = ig.Layered(
        "1", ig.methods.expected(ig.baselines.Given(starts), rule=FINE), start="layer"
    )
    h = model[:2](X).detach()
    hand = [by_hand(lambda p: model[2:](p)[:, 1], [one.expand_as(h)], [h])[0] for one in starts]
    assert_maps(run(model, X, method), [sum(hand) / 3])
    targets = ig.explain_targets(model, X, targets=[0, 1], method=method)
    torch.testing.assert_close(targets[1].values, run(model, X, method).values, rtol=0, atol=1e-10)


# --- together with everything else ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "x", "site"),
    [
        (lambda: Recurrent("yhc"), SERIES, "lstm"),
        (lambda: Recurrent("yhc", time_first=True), SERIES, ["lstm", "last"]),
        (Loop, X, "cell"),
        (Loop, X, ["last", "cell"]),
    ],
)
@pytest.mark.parametrize("method", ["layer", "conductance"])
@pytest.mark.parametrize("batch_size", [None, 1, 3])
def test_four_at_once_are_four_alone(
    model: Any, x: Tensor, site: Any, method: str, batch_size: int | None
) -> None:
    model = filled(model())
    options = {"rule": FINE} if method == "layer" else {"steps": 4}
    whole = run(model, x, method, site=site, batch_size=batch_size, **options)
    assert whole.layout is None
    for b in range(4):
        alone = run(model, x[b : b + 1], method, site=site, **options)
        parts = (
            (whole.values, alone.values)
            if isinstance(whole.values, tuple)
            else ((whole.values,), (alone.values,))
        )
        for both, one in zip(*parts, strict=True):
            torch.testing.assert_close(one[0], both[b], rtol=0, atol=1e-10)


def test_wrappers_inside_and_around_several_places() -> None:
    model = filled(Recurrent("yhc"))
    plain = run(model, SERIES, "layer", site="lstm", rule=FINE)
    for wrapped in (
        ig.Layered("lstm", ig.SmoothGrad(ig.methods.integrated(0.0, FINE), 3, 0.0)),
        ig.SmoothGrad(ig.Layered("lstm", ig.methods.integrated(0.0, FINE)), 3, 0.0),
    ):
        made = run(model, SERIES, wrapped)
        assert_maps(made, plain.values, 1e-12)


def test_saved_and_read_back(tmp_path: Any) -> None:
    made = run(filled(Recurrent("yhc")), SERIES, "layer", site="lstm", rule=FINE)
    made.save(tmp_path / "map.safetensors")
    back = ig.load(tmp_path / "map.safetensors")
    assert_maps(back, made.values, 0)
    assert [tuple(value.shape) for value in made[1].values] == [(1, 6, 5), (1, 1, 5), (1, 1, 5)]


def test_several_targets_of_several_places() -> None:
    model = filled(Recurrent("yhc"))
    several = ig.explain_targets(
        model, SERIES, targets=[0, 1], method="layer", site="lstm", rule=FINE
    )
    assert_maps(several[1], run(model, SERIES, "layer", site="lstm", rule=FINE).values, 1e-10)
    starts = ig.explain_targets(
        filled(Columns()),
        TABLE,
        targets=[0, 1],
        method="layer",
        site=["town", "job"],
        layer_baseline=(0.0, 0.1),
    )
    alone = run(filled(Columns()), TABLE, "layer", site=["town", "job"], layer_baseline=(0.0, 0.1))
    assert_maps(starts[1], alone.values, 0.02)


# --- errors -----------------------------------------------------------------------------------------------------------


class Unsteady(nn.Module):
    """Runs its cell once more for inputs that are large."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.last = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.cell(x))
        return self.last(torch.tanh(self.cell(h)) if float(x.detach().abs().max()) > 2 else h)


class Concatenated(nn.Module):
    """Both texts in one run: rows of an example do not lie together."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.site, self.last = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.encoder(torch.cat([x[:, :3], x[:, 3:]])).chunk(2)
        return self.last(self.site(torch.tanh(left)) * torch.sin(right))


def test_places_that_are_none() -> None:
    with pytest.raises(
        ig.errors.ModelError,
        match=r"How often layer 'cell' runs, or what it is given, differs between inputs",
    ):
        run(filled(Unsteady()), torch.cat([X[:2], 9 * X[2:]]), "layer", site="cell", batch_size=2)
    with pytest.raises(ig.errors.ModelError, match=r"gives other numbers when it is continued"):
        run(filled(Concatenated()), X, "layer", site="site", baseline=0.25)
    with pytest.raises(
        ig.errors.ModelError,
        match=r"There is no tensor 3 of the output of layer 'lstm': it is 3 tensors",
    ):
        run(filled(Recurrent("y")), SERIES, "layer", site=Site("lstm", tensor=3))
    with pytest.raises(ig.errors.InputError, match=r"site= is an empty list"):
        run(relu_mlp(), X, "layer", site=[])
    with pytest.raises(
        ig.errors.InputError,
        match=r"baseline= is put into the model, and layer_baseline= is a value of the layer",
    ):
        run(relu_mlp(), X, "layer", site="1", baseline=1.0, layer_baseline=0.0)
    with pytest.raises(ig.errors.BaselineError, match=r"3 baselines of layers for 2 maps"):
        run(filled(Columns()), TABLE, "layer", site=["town", "job"], layer_baseline=(0.0, 0.0, 0.0))
    with pytest.raises(
        ig.errors.InputError, match=r"From values of the layer a path goes straight"
    ):
        ig.Layered("1", ig.Method(path=ig.paths.Straight(3)), start="layer")
    with pytest.raises(ig.errors.InputError, match=r"run= of a Site is counted from 0, not -1"):
        Site("1", run=-1)
    with pytest.raises(ig.errors.InputError, match=r"start is 'inputs' or 'layer'"):
        ig.Layered("1", ig.Method(), start="site")
