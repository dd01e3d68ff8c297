"""XAI-Bench's metrics. Those that need the distribution hold the problem, and so go by value, not
by name.

They judge explanations of the problem's own function, ``judge(problem.field, x, attribution, by)``,
with exact expectations, or of a model trained on its data, ``judge(model, x, attribution, by,
target=)``, with drawn ones. (ROAR retrains, and is elsewhere.)
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..core.correlation import pearson
from ..core.random import generator
from ..core.segment import Evaluation
from ..core.shapes import describe, flattened
from ..core.values import part
from ..errors import InputError, ShapeError
from ..fields import Field
from ..synthetic.expectation import Expected, expected
from ..synthetic.problem import SyntheticProblem
from .base import Metric, metric
from .maps import Maps
from .task import Score, Subject

_VERSIONS = ("dec", "inc")
_CONDITIONALS = ("observational", "interventional")


def _rounded(change: Tensor, scale: Tensor) -> Tensor:
    """Changes without those that are rounding of numbers of that scale."""
    floor = 64 * torch.finfo(change.dtype).eps * scale.abs().amax()
    return torch.where(change.abs() <= floor, 0.0, change)


@part
class _OfProblem(Metric):
    """A metric that asks for expectations over the problem's distribution."""

    problem: SyntheticProblem
    draws: int = 1000
    seed: int = 0
    score: Score = "output"

    def __post_init__(self) -> None:
        if not isinstance(self.problem, SyntheticProblem):
            raise InputError(
                "XAI-Bench's metrics need the problem whose rows are explained: give a Problem."
            )

    def expected(
        self, field: Field, x: Tensor, known: Tensor, index: Tensor | None = None
    ) -> Expected:
        return expected(
            field,
            self.problem.distribution,
            x,
            known,
            draws=self.draws,
            seed=self.seed,
            index=index,
        )

    def _rows(self, subject: Subject) -> Tensor:
        x, features = subject.x, self.problem.distribution.features
        if x.ndim != 2 or x.shape[1] != features:
            raise ShapeError(
                f"The problem has rows of {features} features; got inputs {describe(x.shape)}."
            )
        return x


@part
class _ConditionalExpectation(_OfProblem):
    version: str = ""
    conditional: str = "observational"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value, known in (
            ("version", self.version, _VERSIONS),
            ("conditional", self.conditional, _CONDITIONALS),
        ):
            if value not in known:
                raise InputError(f"{name}= is {' or '.join(map(repr, known))}, not {value!r}.")

    def value_given(
        self, field: Field, x: Tensor, known: Tensor, index: Tensor | None = None
    ) -> Tensor:
        """F of rows x (B, D) of which only ``known`` (S, B, D) is known: (S, B)."""
        if self.conditional == "observational":
            return self.expected(field, x, known, index).value
        mean = self.problem.distribution.mean.to(x)
        rows = torch.where(known, x, mean)
        example = torch.arange(len(x), device=x.device) if index is None else index
        return field.rows(
            rows.reshape(-1, x.shape[1]), example.repeat(len(rows)), gradient=False
        ).value.reshape(len(rows), -1)

    def _mean(self, field: Field, x: Tensor) -> Tensor:
        """E F(X) (B,)."""
        return self.expected(
            field, x, torch.zeros(1, x.shape[1], dtype=torch.bool, device=x.device)
        ).value[0]


@part
class Faithfulness(_ConditionalExpectation):
    """XAI-Bench faithfulness: do magnitudes go with what each feature alone does to the
    expectation?

    −1 to 1; higher is better.

        Pearson_j(|φ_j|, δ_j)       "dec": δ_j = |F(x) − E[F | x_−j]|       "inc": δ_j = |E F − E[F | x_j]|

    NaN where a map or its δ is the same for all features (the stock code says 0).

    Args:
        problem: whose distribution the expectations are over.
        draws: of expectations that have no closed form.
        seed: of the draws.
        version: "dec" takes one feature away, "inc" gives one.
        conditional: "observational": expectations given what is known; "interventional": features
            become their mean, F(x with x_j = μ_j).
        score: what F is: "output" is the scalar explained.

    Pitfalls:
        Signs do not count; with correlated features δ of a feature without influence is not 0.

    Peers:
        The stock code uses 100 draws, the means of the validation set for E F and μ, and with
        "interventional" writes every replaced feature into that mean vector, so that each δ_j
        depends on the rows and features before it: on the rows of our test, an exact explanation
        scores 0.44, and −0.54 with the columns reversed.

    References:
        XAI-Bench, after Alvarez-Melis and Jaakkola, 2018.

    Example:

    >>> import torch, integrand as ig
    >>> bench = ig.metrics.xai_bench
    >>> problem = bench.gaussian("linear")
    >>> x, _ = problem.data(3)
    >>> weight = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0]).double()
    >>> ig.metrics.judge(problem.field, x, weight * x, bench.Faithfulness(problem)).round(decimals=6).tolist()
    [1.0, 1.0, 1.0]
    """

    version: str = "dec"

    name: ClassVar[str] = "xai_bench_faithfulness"
    higher: ClassVar[bool] = True

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        x, field = self._rows(subject), subject.score(self.score)
        alone = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)[:, None]
        if self.version == "dec":
            unchanged, changed = subject.whole(self.score), self.value_given(field, x, ~alone)
        else:
            unchanged, changed = self._mean(field, x), self.value_given(field, x, alone)
        delta = _rounded((unchanged - changed).abs().T, changed)
        return pearson(maps.values.abs(), delta).to(maps.values)


@part
class ConditionalMonotonicity(_ConditionalExpectation):
    """XAI-Bench monotonicity: do features, given in order of magnitude, move the expectation ever
    more?

    0 to 1; higher is better.

        y_k = E[F | the k smallest of |φ|],   d_k = |y_k − y_{k−1}|,   k = 1 … D        #{ d_{k+1} ≥ d_k } / (D − 1)

    Steps that differ by rounding count as equal. Features of the same magnitude go by their place.

    Args:
        version: "inc" gives features from the least to the most important; "dec" from the most, and
            counts d_{k+1} ≤ d_k.
        average: the fraction of steps that grow; False: 1 if all of them do, else 0.
        xai_bench_compat: compute what the stock code does; see Peers.
        problem: as in ``Faithfulness``.
        draws: as in ``Faithfulness``.
        seed: as in ``Faithfulness``.
        score: as in ``Faithfulness``.
        conditional: as in ``Faithfulness``.

    Pitfalls:
        Of two features that matter alike, one comes first by chance, and the step after it may
        shrink; chance is about ½.

    Peers:
        The stock code stores y at the *feature's index* plus one, not at its rank, so its
        differences are between neighbouring columns: on the rows of our test, an exact explanation
        of independent features scores 0.37, 0.53 or 0.78 depending on the order of the columns.
        Every published XAI-Bench monotonicity is of this kind; ``xai_bench_compat=True`` restores
        it for comparison. Its "interventional" also writes into the mean (as in ``Faithfulness``),
        which nothing here restores.

    References:
        XAI-Bench, after Arya et al., "One explanation does not fit all", 2019.
    """

    version: str = "inc"
    average: bool = True
    xai_bench_compat: bool = False

    name: ClassVar[str] = "xai_bench_monotonicity"
    higher: ClassVar[bool] = True

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        """The expectations (M, B, D+1), by rank (by the feature's index for
        ``xai_bench_compat``)."""
        x, field = self._rows(subject), subject.score(self.score)
        features = x.shape[1]
        if features < 2:
            raise InputError("Monotonicity compares steps: two features at least.")
        order = maps.values.abs().argsort(dim=-1, stable=True)
        if self.version == "dec":
            order = order.flip(-1)
        rank = order.argsort(dim=-1)  # (M, B, D)
        # y_0 is the same for all maps, and known by itself.
        known = (
            rank < torch.arange(1, features + 1, device=x.device)[:, None, None, None]
        )  # (D, M, B, D)
        known = known.flatten(1, 2)
        index = torch.arange(len(x), device=x.device).repeat(len(maps))
        expectations = self.value_given(field, x.repeat(len(maps), 1), known, index)  # (D, M·B)
        expectations = expectations.T.reshape(len(maps), len(x), features)
        if self.xai_bench_compat:
            expectations = expectations.gather(-1, rank)
        return torch.cat([self._mean(field, x).expand(len(maps), -1)[..., None], expectations], -1)

    def values(self, measured: Tensor) -> Tensor:
        steps = measured.diff(dim=-1).abs()
        if self.version == "dec":
            steps = steps.flip(-1)
        grown = steps.diff(dim=-1)
        floor = 64 * torch.finfo(measured.dtype).eps * measured.abs().amax(-1, keepdim=True)
        holds = (grown >= -floor).to(measured.dtype)
        return holds.mean(-1) if self.average else holds.amin(-1)


@part
class _AgainstTruth(_OfProblem):
    """A metric of maps and conditional Shapley values."""

    def truth(self, subject: Subject) -> Tensor:
        """(B, D)"""
        x, field = self._rows(subject), subject.score(self.score)
        return self.problem.shapley(x, field, draws=self.draws, seed=self.seed).values


@part
class ShapleyError(_AgainstTruth):
    """How far maps are from the conditional Shapley values φ*. Lower is better.

        "mse": mean (φ − φ*)²        "rmse": √ mean (φ − φ*)²        "mae": mean |φ − φ*|

    Args:
        mode: what is averaged over features, and over examples in the summary (the root of "rmse"
            is taken last).
        xai_bench_compat: with "rmse": the stock code's √(Σ (φ − φ*)²) / (N D), which is the root
            mean square divided by √(N D) and so shrinks with the number of examples. Summary only;
            values are those of each example by the same formula.
        draws: of models that are not additive; the truth then has a standard error
            (``Problem.shapley``).
        seed: of the draws.
        problem: as in ``Faithfulness``.
        score: as in ``Faithfulness``.

    Pitfalls:
        Conditional Shapley values give influence to features the function does not read, if they
        are correlated with features it reads; marginal explanations such as Integrated Gradients
        are no estimates of them unless features are independent and F additive.

    References:
        XAI-Bench.
    """

    mode: str = "mse"
    xai_bench_compat: bool = False

    name: ClassVar[str] = "xai_bench_shapley"
    higher: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in ("mse", "rmse", "mae"):
            raise InputError(f'mode= is "mse", "rmse" or "mae", not {self.mode!r}.')

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        """The differences (M, B, D)."""
        return maps.values - self.truth(subject)

    def values(self, measured: Tensor) -> Tensor:
        if self.mode == "mae":
            return measured.abs().mean(-1)
        if self.mode == "mse":
            return measured.square().mean(-1)
        count = measured.shape[-1]
        root: Tensor = measured.norm(dim=-1) / (count if self.xai_bench_compat else count**0.5)
        return root

    def summary(self, measured: Tensor) -> Tensor:
        return (
            self.values(measured.flatten(1))
            if self.mode == "rmse"
            else self.values(measured).mean(1)
        )


@part
class ShapleyCorrelation(_AgainstTruth):
    """The correlation of maps with the conditional Shapley values, over features.

    −1 to 1; higher is better.

        Pearson_i(φ_i, φ*_i)

    Parameters and pitfalls as ``ShapleyError``; blind to scale and offset. NaN where either is the
    same for all features (the stock code says 0).

    References:
        XAI-Bench.
    """

    name: ClassVar[str] = "xai_bench_shapley_correlation"
    higher: ClassVar[bool] = True

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        return pearson(maps.values, _rounded(self.truth(subject), subject.whole(self.score))).to(
            maps.values
        )


@metric("xai_bench_infidelity")
@part
class ConditionalInfidelity(Metric):
    """XAI-Bench infidelity: how badly a map, as a slope, predicts what perturbing all features
    does.

    Lower is better.

        r = clip(x + 0.2 ε, x − 1, x),  ε normal        a = Σ_i r_i φ_i,  Δ = F(x) − F(x − r)
        β = E[Δ a] / E[a²],                             E[(Δ − β a)²]

    0 for maps proportional to the gradient of a linear model. NaN for maps that are zero
    everywhere, which have no best scale.

    Args:
        draws: 1000, the same for all examples and maps.
        seed: of ε.
        score: what F is: "output" is the scalar explained.

    Pitfalls:
        R is about x itself, so features become something between 0 and 1 whatever their scale is.
        And r · φ takes the map for a *gradient*: exact Shapley or Integrated Gradients values of a
        linear model score badly. Give φ / (x − baseline) for such maps.

    Peers:
        That is what the stock code computes (after Yeh et al.'s "Gaussian" for MNIST).

    References:
        XAI-Bench; Yeh et al., "On the (in)fidelity and sensitivity of explanations", 2019.

    Example:

    >>> import torch, integrand as ig
    >>> bench = ig.metrics.xai_bench
    >>> problem = bench.gaussian("linear")
    >>> x, _ = problem.data(3)
    >>> weight = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0]).double()
    >>> bool((ig.metrics.judge(problem.field, x, weight.expand(3, 5), bench.Infidelity()) < 1e-20).all())
    True
    """

    draws: int = 1000
    seed: int = 0
    score: Score = "output"

    higher: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise InputError(f"An expectation needs one draw at least, not {self.draws}.")

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        x, field = subject.x, subject.score(self.score)
        noise = torch.randn(
            self.draws, *x.shape[1:], generator=generator(self.seed), dtype=torch.float64
        ).to(x)
        number = torch.arange(len(x) * self.draws, device=x.device)
        example = number // self.draws
        changed = x.new_empty(len(number))
        predicted = x.new_empty(len(maps), len(number))

        def moved(part: slice) -> Tensor:
            rows = x[example[part]]
            return torch.minimum(
                rows, torch.maximum(rows - 1, rows + 0.2 * noise[number[part] % self.draws])
            )

        def use(part: slice, evaluation: Evaluation) -> None:
            changed[part] = evaluation.value
            predicted[:, part] = flattened(moved(part) * maps.values[:, example[part]], 2).sum(-1)

        field.stream(
            example, lambda part: x[example[part]] - moved(part), use, x[0], gradient=False
        )
        delta = subject.whole(self.score)[:, None] - changed.reshape(len(x), -1)
        a = predicted.reshape(len(maps), len(x), -1)
        beta = (delta * a).mean(-1) / a.square().mean(-1)
        return (delta - beta[..., None] * a).square().mean(-1)
