"""Rows that depend on one another, and models that roll dice: said once, whatever is asked, and never said of models that are right."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import integrand as ig
from integrand.errors import (
    DependentRowsWarning,
    IncompleteWarning,
    ModelError,
    StochasticModelWarning,
)
from integrand.model.row_independence import ROWS
from tests.problems import Counting, filled, relu_mlp, tanh_mlp, wave

B = 5
X = wave(B, 6)
FIXED = ig.rules.Midpoint(3)
RULES: dict[str, Any] = {
    "default": None,
    "nodes": ig.rules.GaussLegendre(6),
    "even": ig.rules.Midpoint(4),
}


def linear(outputs: int = 3, inputs: int = 6) -> nn.Linear:
    layer = filled(nn.Linear(inputs, outputs))
    assert isinstance(layer, nn.Linear)
    return layer


def explained(model: Any, x: Any = X, **options: Any) -> tuple[ig.Attribution, list[Warning]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = ig.explain(model, x, **{"target": 1, **options})
    return made, [one.message for one in caught if isinstance(one.message, Warning)]


def about_rows(said: list[Warning]) -> list[Warning]:
    return [one for one in said if isinstance(one, DependentRowsWarning | StochasticModelWarning)]


def graph(nodes: int) -> Callable[[Tensor], Tensor]:
    """Two rounds of messages along edges that name nodes by their rows."""
    edges = torch.stack([torch.arange(nodes), (torch.arange(nodes) * 7 + 3) % nodes])
    first, second = linear(8, 4), linear(3, 8)

    def passed(h: Tensor) -> Tensor:
        return torch.zeros_like(h).index_add(0, edges[1], h[edges[0]]) / 3 + h

    return lambda x: passed(second(torch.tanh(passed(first(x)))))


def batch_norm() -> nn.Module:
    norm = nn.BatchNorm1d(8, track_running_stats=False)
    return filled(nn.Sequential(linear(8), norm, nn.Tanh(), linear(3, 8)))


class Pairwise(nn.Module):
    """A contrastive head: cosines of every row with every other, summed."""

    def __init__(self) -> None:
        super().__init__()
        self.head = linear(3)

    def forward(self, z: Tensor) -> Tensor:
        h = functional.normalize(z, dim=1)
        return self.head(z) + (h @ h.T).sum(1, keepdim=True)


def among_rows() -> Callable[[Tensor], Tensor]:
    """Attention over the batch."""
    head = linear(3)
    return lambda z: head(functional.scaled_dot_product_attention(z[None], z[None], z[None])[0])


MIXING: dict[str, Callable[[], Any]] = {
    "batch statistics": batch_norm,
    "softmax over the batch": lambda: nn.Sequential(linear(), nn.Softmax(0)),
    "mean over the batch": lambda: lambda z, head=linear(): head(z) - head(z).mean(0),
    "divided by the count": lambda: lambda z, head=linear(): head(z) / len(z),
    "cosines in the batch": Pairwise,
    "attention over the batch": among_rows,
    "running sum": lambda: lambda z, head=linear(): head(z).cumsum(0),
    "target over the batch": linear,
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("batch", [1, 2, B])
@pytest.mark.parametrize("name", MIXING)
def test_rows_that_depend_on_each_other_are_told_of_once(name: str, batch: int, rule: str) -> None:
    options = {} if RULES[rule] is None else {"rule": RULES[rule]}
    if name.startswith("target"):
        options["target"] = lambda out: out[:, 0] - out[:, 0].logsumexp(0)
    if (
        name == "batch statistics" and rule != "default" and batch > 1
    ):  # F(0), which all share, is asked of a row alone
        with (
            pytest.warns(DependentRowsWarning),
            pytest.raises(ModelError, match="let it keep running ones"),
        ):
            ig.explain(MIXING[name](), X[:batch], target=1, **options)
        return
    _, said = explained(MIXING[name](), X[:batch], **options)
    (told,) = about_rows(said)
    assert isinstance(told, DependentRowsWarning)
    # Points on the line from zero to one input all have the same cosines.
    counts = name == "divided by the count" or (name == "cosines in the batch" and batch == 1)
    assert ("how many rows are in the call" if counts else "the other rows of the call") in str(
        told
    )
    for one in said:
        if isinstance(one, IncompleteWarning):
            assert "depend on one another" in str(one)
            assert "degenerate" not in str(one)


def test_batch_statistics_are_named_with_their_layer() -> None:
    (told,) = about_rows(explained(batch_norm())[1])
    assert "layer '1' (BatchNorm1d)" in str(told)
    assert "track_running_stats=True" in str(told)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("nodes", [10, 40])
def test_the_nodes_of_a_graph_are_no_examples(nodes: int, rule: str) -> None:
    """Edges name rows that other calls do not have: never torch's own error about places."""
    options = {} if RULES[rule] is None else {"rule": RULES[rule]}
    with pytest.raises(
        ModelError, match=r"nodes of one graph.*torch\.stack\(\[model\(g\) for g in z\]\)"
    ) as caught:
        explained(graph(nodes), wave(nodes, 4), **options)
    assert isinstance(caught.value.__cause__, IndexError | RuntimeError)
    assert f"your {nodes} examples" in str(caught.value)


@pytest.mark.parametrize("nodes", [10, 40])
def test_a_graph_as_one_example_is_right(nodes: int) -> None:
    """As the message says; against a dense quadrature by autograd alone."""
    model, x = graph(nodes), wave(1, nodes, 4)
    target = ig.targets.Custom(lambda out: out[:, 2, 1])
    made, said = explained(
        lambda z: torch.stack([model(one) for one in z]), x, target=target, tol=1e-3
    )
    assert not said
    total = torch.zeros(nodes, 4).double()
    for t in (torch.arange(400).double() + 0.5) / 400:
        point = (t * x[0]).requires_grad_()
        total += torch.autograd.grad(model(point)[2, 1], point)[0] / 400
    torch.testing.assert_close(
        made.values[0], total * x[0], rtol=0, atol=2e-3 * float((total * x[0]).norm())
    )


def test_dense_graphs_that_need_their_rows_say_so() -> None:
    adjacency, head = wave(10, 10), linear(3, 4)
    with pytest.raises(ModelError, match="It seems to need the 10 rows it was given"):
        explained(lambda z: adjacency @ head(z), wave(10, 4))


@pytest.mark.parametrize("length", [7, 5])
def test_time_first(length: int) -> None:
    """(T, B, F): with T = B too, where the model returns as many rows as it was given."""
    torch.manual_seed(0)
    lstm, head = nn.LSTM(3, 8).double(), linear(2, 8)
    model = lambda z: head(lstm(z)[0][-1])  # noqa: E731
    x = wave(length, 5, 3)
    for target in ("predicted", 0):
        with pytest.raises(
            ig.errors.TargetError, match=r"returned 5 rows? for \d+: .*z\.transpose\(0, 1\)"
        ):
            explained(model, x, target=target)
    made, said = explained(lambda z: model(z.transpose(0, 1)), x.transpose(0, 1), target=0)
    assert not said
    assert float(made.gap.max()) < 0.05


def test_a_tagger_with_time_first_is_named() -> None:
    torch.manual_seed(0)

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(3, 8), nn.Linear(8, 2)

        def forward(self, z: Tensor) -> Tensor:
            out: Tensor = self.head(self.lstm(z)[0])
            return out

    (told,) = about_rows(explained(Tagger().double(), wave(7, 4, 3), target=(2, 1))[1])
    assert "layer 'lstm' (LSTM)" in str(told)
    assert "z.transpose(0, 1)" in str(told)


# --- chance -----------------------------------------------------------------------------------------------------------

DICE: dict[str, Callable[[Tensor], Tensor]] = {
    "dropout": lambda z, head=linear(): head(functional.dropout(torch.tanh(z), 0.4, training=True)),
    "noise": lambda z, head=linear(): head(z + 0.1 * torch.randn_like(z)),
}


@pytest.mark.parametrize("size", [None, 1, 3])
@pytest.mark.parametrize("batch", [1, B])
@pytest.mark.parametrize("name", DICE)
def test_dice_are_told_of_once(name: str, batch: int, size: int | None) -> None:
    torch.manual_seed(1)
    options = {} if size is None else {"rule": ig.rules.Chords(5)}
    _, said = explained(DICE[name], X[:batch], batch_size=size, **options)
    (told,) = about_rows(said)
    assert isinstance(told, StochasticModelWarning)
    for one in said:
        if isinstance(one, IncompleteWarning):
            assert "rolls dice" in str(one)


# --- models that are right --------------------------------------------------------------------------------------------


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cells = kind(4, 8, batch_first=True, bidirectional=True)
        self.head = nn.Linear(16, 3)

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.head(self.cells(z)[0][:, -1])
        return out


class Attentive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.enter, self.head = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.head(self.block(self.enter(z)).mean(1))
        return out


def _picture() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


ZOO: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "table": (
        lambda: nn.Sequential(
            nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)
        ),
        (20,),
    ),
    "normalised": (
        lambda: nn.Sequential(nn.Linear(6, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 3)),
        (6,),
    ),
    "batch norm": (
        lambda: nn.Sequential(nn.Linear(6, 32), nn.BatchNorm1d(32), nn.SiLU(), nn.Linear(32, 3)),
        (6,),
    ),
    "probabilities": (
        lambda: nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 3), nn.Softmax(1)),
        (6,),
    ),
    "dropout in eval": (
        lambda: nn.Sequential(nn.Linear(6, 32), nn.Dropout(0.5), nn.ReLU(), nn.Linear(32, 3)),
        (6,),
    ),
    "picture": (_picture, (3, 12, 12)),
    "instance norm": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(800, 3)
        ),
        (3, 12, 12),
    ),
    "LSTM": (lambda: Recurrent(nn.LSTM), (7, 4)),
    "GRU": (lambda: Recurrent(nn.GRU), (7, 4)),
    "attention": (Attentive, (7, 4)),
    "deep": (
        lambda: nn.Sequential(
            *[m for _ in range(12) for m in (nn.Linear(16, 16), nn.Tanh())], nn.Linear(16, 3)
        ),
        (16,),
    ),
}


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str
)
@pytest.mark.parametrize("name", ZOO)
def test_models_that_are_right_are_not_told_of(name: str, dtype: torch.dtype) -> None:
    build, shape = ZOO[name]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = build().to(dtype).eval()
        x = torch.randn(6, *shape).to(dtype)
    ways: list[dict[str, Any]] = [
        {"rule": ig.rules.GaussLegendre(5)},
        {"method": "expected", "baseline": x[:3], "rule": FIXED},
    ]
    if dtype != torch.float16 or name not in ("picture", "instance norm"):  # whose chords overflow
        ways += [{"rule": ig.rules.Chords(4)}, {"rule": ig.rules.Chords(4), "batch_size": 2}]
    for batch in (1, 2, 6):
        for options in ways:
            assert not about_rows(explained(model, x[:batch], **options)[1])


def test_embeddings_are_not_told_of() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(50, 8), nn.Flatten(), nn.Linear(40, 3)).eval()
        ids = torch.randint(1, 50, (4, 5))
    for batch in (1, 2, 4):
        _, said = explained(
            model, ids[:batch], method="layer", site="0", baseline=torch.zeros_like(ids[:batch])
        )
        assert not about_rows(said)


def test_low_precision_inside_is_rounding_and_no_company() -> None:
    """float32 in and out, bfloat16 between."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        inner = nn.Sequential(
            nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 5)
        ).bfloat16()
        x = torch.randn(6, 64)
    for batch in (1, 6):
        _, said = explained(lambda z: inner(z.bfloat16()).float(), x[:batch])
        assert not about_rows(said)


# --- what it costs, and when ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"rule": ig.rules.GaussLegendre(4)}, {"method": "smoothgrad"}, {"method": "guided"}],
    ids=str,
)
def test_two_rows_for_a_call_and_no_gradient(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, quiet: None
) -> None:
    model = Counting(relu_mlp())
    checked = ig.explain(model, X, target=1, batch_size=7, **options)
    rows, gradients = model.values, model.gradients
    model.reset()
    monkeypatch.setattr("integrand.model.row_independence.RowCheck.check", lambda *_, **__: None)
    plain = ig.explain(model, X, target=1, batch_size=7, **options)
    assert (rows, gradients) == (model.values + ROWS, model.gradients)
    assert torch.equal(checked.values, plain.values)
    assert (checked.cost.values, checked.cost.gradients) == (
        plain.cost.values + ROWS,
        plain.cost.gradients,
    )


def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows were asked about again, call by call."""
    seen: list[int] = []
    again = ig.TorchField.again_several

    def noted(self: Any, z: Tensor, *rest: Any) -> Any:
        seen.append(len(z))
        return again(self, z, *rest)

    monkeypatch.setattr(ig.TorchField, "again_several", noted)
    return seen


def test_once_for_everything_that_one_call_does(
    monkeypatch: pytest.MonkeyPatch, quiet: None
) -> None:
    seen, model = looks(monkeypatch), tanh_mlp()
    field = ig.TorchField(model, 1)
    references = wave(4, 6, phase=1)
    calls: list[Callable[[], Any]] = [
        lambda: ig.explain(model, X, target="predicted", method="expected", baseline=references),
        lambda: ig.explain_targets(model, X, targets=[0, 1, "predicted"]),
        lambda: ig.compare(
            model,
            X,
            target=1,
            methods=["integrated", "guided"],
            metrics=["deletion"],
            controls=True,
        ),
        lambda: ig.methods.integrated()(field, X),
        lambda: ig.methods.smoothgrad()(field, X),
        lambda: ig.methods.greedy_pig()(field, X),
        lambda: ig.methods.layer("1")(field, X),
    ]
    for call in calls:
        seen.clear()
        call()
        assert seen == [ROWS]


def test_several_targets_are_told_of_once() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ig.explain_targets(MIXING["softmax over the batch"](), X, targets=[0, 1, 2])
    assert len(about_rows([one.message for one in caught if isinstance(one.message, Warning)])) == 1


def test_a_comparison_is_told_of_once() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ig.compare(
            MIXING["softmax over the batch"](),
            X,
            target=1,
            methods=["integrated", "smoothgrad"],
            metrics=["deletion"],
        )
    assert len(about_rows([one.message for one in caught if isinstance(one.message, Warning)])) == 1


def test_a_layer_behind_what_mixes_is_told_of() -> None:
    model = nn.Sequential(linear(8), nn.Softmax(0), nn.Tanh(), linear(3, 8))
    _, said = explained(model, X, method="layer", site="2")
    assert [type(one) for one in about_rows(said)] == [DependentRowsWarning]


def test_fields_of_no_model_are_not_asked() -> None:
    made = ig.Method()(ig.fields.Function(lambda z: z.square().sum(1)), X)
    assert made.cost.values == 0
