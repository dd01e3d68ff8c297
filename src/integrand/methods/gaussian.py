"""Random functions: attributions with their covariance."""

from __future__ import annotations

from ..baselines.base import ReferencesLike
from ..baselines.names import baseline_of
from ..integration import Method
from ..integration.wrappers.with_covariance import WithCovariance
from ..paths import Straight
from ..rules import Exact, Rule
from .registry import axioms, published


@published(
    title="Integrated Gradients of Gaussian processes",
    key="butler2024explainable",
    formula="E φ = A α,  Cov φ = B − A (K + σ²I)⁻¹ Aᵀ,  A_in = (x − b)_i ∫ ∂_i k(γ(t), X_n) dt",
    cost="no gradients; one value for x and for each baseline",
    axioms=axioms(),
    takes="processes",
)
def gaussian_process(
    baseline: ReferencesLike = 0.0, rule: Rule = Exact(), *, record: tuple[str, ...] = ()
) -> WithCovariance:
    """Integrated Gradients of a Gaussian process, exactly, with their covariance.

        φ_i = (x_i − b_i) ∫₀¹ ∂_i f(b + t(x − b)) dt,  f | data ~ GP:  φ ~ N(values, covariance)

    Of an ``ig.fields.GPField``: closed forms for RBF kernels, one-dimensional quadrature to
    rounding for others. The values add up to the change of the mean, and the covariance to the
    variance of f(x) − f(b). ``interval(0.95)`` of the result are credible intervals. Behind a link
    (``field.through("probit")``) attributions are not Gaussian; their means are
    ``ig.methods.integrated`` of that field.

    Args:
        baseline: as in ``integrated``; several are averaged, with the covariance of the average.
        rule: exact unless given.
        record: what the result keeps beside the map: "shares", the map of each reference, and
            "path", points along it; nothing unless given.

    Returns:
        A method with values (B, \\*s), in units of F, and ``covariance`` (B, n, n).

    Raises:
        NoShare: for fields that are no Gaussian processes.

    Cost:
        A solve with the Cholesky factor for n columns of each example.

    References:
        Butler, Feng, Djurić, arXiv 2403.07072 (means and variances); Seitz, arXiv 2205.12797 (links,
        sparse processes).

    Example:
        >>> import integrand as ig
        >>> ig.methods.gaussian_process(0.5)
        WithCovariance(Method(Constant(0.5), rule=Exact()))
    """
    return WithCovariance(Method(baseline_of(baseline), Straight(), rule, record=record))
