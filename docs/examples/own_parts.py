"""One part of each kind, written, checked and used: the snippets of docs/usage/extending.md."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

import integrand as ig


@dataclass(frozen=True)
class Boole:
    """Five equally spaced nodes, weighted (7, 32, 12, 32, 7)/90; error O(1/n⁶)."""

    gradients: ClassVar[int] = 5

    def __call__(self, field: ig.fields.Field, segment: ig.Segment) -> Tensor:
        nodes = torch.linspace(0, 1, 5).to(segment.start)
        weights = torch.tensor([7, 32, 12, 32, 7]).to(segment.start) / 90
        return segment.step * ig.rules.mean_gradient(field, segment, nodes, weights)


@dataclass(frozen=True)
class Doubled:
    """The midpoint, held against two midpoints: a share that knows its error."""

    gradients: ClassVar[int] = 3

    def __call__(self, field: ig.fields.Field, segment: ig.Segment) -> ig.rules.Integrated:
        coarse = ig.rules.Midpoint(1)(field, segment)
        fine = ig.rules.Midpoint(2)(field, segment)
        error = (fine - coarse).flatten(3).norm(dim=-1)
        return ig.rules.Integrated(fine, error)


@dataclass(frozen=True)
class Quantiles:
    """References at quantiles of every column of some data."""

    data: Tensor
    at: tuple[float, ...] = (0.25, 0.75)

    label: ClassVar[str] = "quantile"

    @property
    def count(self) -> int:
        return len(self.at)

    def __call__(self, x: Tensor, field: ig.fields.Field) -> Tensor:
        levels = self.data.to(x).quantile(torch.tensor(self.at).to(x), 0)
        return levels[:, None].expand(-1, *x.shape)


@dataclass(frozen=True)
class Sparse:
    """References count for more, the sparser their maps are: w ∝ Gini index."""

    def __call__(self, shares: Tensor, x: Tensor, field: ig.fields.Field) -> ig.weightings.Weighed:
        size = shares.flatten(2).abs().sort(-1).values
        n = size.shape[-1]
        place = 2 * torch.arange(1, n + 1).to(size) - n - 1
        gini = (place * size).sum(-1) / (n * size.sum(-1))
        return ig.weightings.Weighed(
            gini / gini.sum(0), fitness=gini, criterion="the Gini index of its map"
        )


@dataclass(frozen=True)
class Entropy(ig.targets.Target):
    """How undecided the model is: the entropy of its class probabilities."""

    def __call__(self, outputs: Tensor, index: Tensor) -> Tensor:
        log = outputs.log_softmax(1)
        return -(log.exp() * log).sum(1)


@dataclass(frozen=True)
class Above(ig.targets.Target):
    """How far one class is above a level of each example's own."""

    column: int
    level: Tensor  # (B,)

    def __call__(self, outputs: Tensor, index: Tensor) -> Tensor:
        return outputs[:, self.column] - self.level[index]

    def at(self, index: Tensor) -> ig.targets.Target:
        return dataclasses.replace(self, level=self.level[index])


class Quadratic(ig.fields.Field):
    """F(z) = zᵀMz for a symmetric M; its integral along a straight piece is known."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def evaluate(
        self, z: Tensor, index: Tensor, *, gradient: bool = True
    ) -> ig.segments.Evaluation:
        slope = 2 * z @ self.matrix
        value = (z * slope).sum(1) / 2
        return ig.segments.Evaluation(value, slope if gradient else z.new_empty(0))

    def share(self, segment: ig.Segment) -> Tensor:
        return segment.step * ((segment.start + segment.end) @ self.matrix)


@ig.metrics.metric("total_variation")
@dataclass(frozen=True)
class TotalVariation(ig.metrics.Metric):
    """How rough a map is: differences of neighbours, relative to its magnitude. Lower is smoother."""

    higher: ClassVar[bool] = False

    def measure(self, subject: ig.metrics.Subject, maps: ig.metrics.Maps) -> Tensor:
        flat = maps.values.flatten(2)
        return flat.diff(dim=-1).abs().sum(-1) / flat.abs().sum(-1)


@ig.methods.published(
    title="Quantile Gradients",
    key="me2026quantile",
    formula="Σ_q w_q IG_q,  q the quantiles of the data",
    cost="5 gradients for each quantile",
    axioms=ig.methods.axioms(linear=False),
    citation="@misc{me2026quantile,\n  title = {Quantile Gradients},\n  author = {Me, Myself},\n  year = {2026}\n}",
)
def quantile_gradients(baseline: Tensor, at: tuple[float, ...] = (0.25, 0.75)) -> ig.Method:
    """Integrated Gradients from quantiles of data (N, *s), sparse maps first."""
    return ig.Method(Quantiles(baseline, at), rule=Boole(), weighting=Sparse())


@dataclass(frozen=True)
class Positive:
    """What speaks for the class, and nothing of what speaks against it."""

    method: ig.Method

    complete: ClassVar[bool] = False

    def __call__(self, field: ig.fields.Field, x: Tensor, *, watch=None) -> ig.Attribution:
        made = self.method(field, x, watch=watch)
        values = made.values.clamp_min(0)
        residual = (made.weights * made.change).sum(0) - values.flatten(1).sum(1)
        return dataclasses.replace(made, values=values, residual=residual, method=self)


def check() -> None:
    ig.testing.check_rule(Boole(), order=6)
    ig.testing.check_rule(Doubled(), order=2)
    ig.testing.check_baseline(Quantiles(torch.randn(50, 4)))
    ig.testing.check_weighting(Sparse())
    ig.testing.check_target(Entropy())
    ig.testing.check_target(Above(1, torch.tensor([0.1, 0.2, 0.3])))
    ig.testing.check_field(Quadratic(torch.eye(5).double() + 0.5), torch.randn(3, 5).double())
    ig.testing.check_metric("total_variation", scale_invariant=True)
    ig.testing.check_method(quantile_gradients(torch.randn(50, 6)))
    ig.testing.check_method(Positive(ig.Method(rule=Boole())))


def use() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    data, x = torch.randn(50, 6), torch.randn(8, 6)

    result = ig.explain(model, x, target=Entropy(), method="quantile_gradients", baseline=data)
    print("weights of the quantiles", result.weights.mean(1).tolist())

    methods = {"mine": quantile_gradients(data), "positive": Positive(ig.methods.integrated())}
    table = ig.compare(
        model, x, target="predicted", methods=methods, metrics=["total_variation"], controls=False
    )
    print(table)
    print(ig.methods.about("quantile_gradients").citation)


if __name__ == "__main__":
    check()
    use()
