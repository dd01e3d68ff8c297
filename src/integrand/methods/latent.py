"""Paths through the latent space of an autoencoder: between, or along, what it can draw."""

from __future__ import annotations

from ..baselines import StartLike
from ..integration import Method
from ..paths import Latent, LatentGeodesic, LatentGuided
from ..paths.latent.autoencoder import CodecLike
from ..rules import Adaptive, Rule, Trapezoid
from .registry import axioms, published


@published(
    title="Manifold-Aligned Guided IG",
    key="kim2026manifold",
    formula="∫ ∇F ⊙ dD(z), z from E(b) to E(x), coordinates with the least |J_Dᵀ ∇F(D(z))| first",
    cost="steps + 2·ends − 1 gradients, each through the decoder too",
    axioms=axioms(linear=False, symmetric=False, inside=False, monotone=False),
)
def latent_guided(
    codec: CodecLike,
    baseline: StartLike = 0.0,
    steps: int = 200,
    fraction: float = 0.05,
    *,
    slerp: bool = True,
    ends: int = 20,
    rule: Rule = Trapezoid(),
    record: tuple[str, ...] = (),
) -> Method:
    """Manifold-Aligned Guided IG (MA-GIG): Guided IG in an autoencoder's latent space, integrated
    along what it decodes to.

        z_0 = E(b),  z_{k+1}: the coordinates with the least |J_Dᵀ ∇F(D(z_k))| move towards E(x);   A = ∫ ∇F ⊙ dD(z)

    Complete up to the rule. A feature that F does not look at gets nothing, also where the codec
    mixes features: credit is given along the decoded path. Not linear in F, whose gradient chooses
    the path.

    Args:
        codec: an encoder and a decoder in the units of the inputs: a pair (encode, decode), or an
            object with both, such as a diffusers VAE; see ``ig.paths.LatentGuided``.
        baseline: where paths start, as for ``integrated``; zero unless given.
        steps: of the walk among the codes (200, as published).
        fraction: of the coordinates of a code, how many move at a time (0.05, as published).
        slerp: whether a code moves along the arc to the input's, as published, or straight.
        ends: pieces of each leg between the raw ends and what is decoded.
        rule: the trapezoid uses the gradients that the path has paid for at every corner. ``ends=1,
            rule=ig.rules.Left()`` is the published sum, whose error grows with the codec's
            reconstruction error.
        record: what the result keeps beside the map: "shares", the map of each reference, and
            "path", points along it; nothing unless given.

    Returns:
        A ``Method``. Called with a field and x (B, \\*s) it gives an ``Attribution`` with values
        (B, \\*s), in units of F.

    Cost:
        steps + 2·ends − 1 gradients per example, one after another (2·ends + 1 of them at once),
        each followed by the decoder's backward pass.

    References:
        Kim, Lim, Lee, Choi, 2026 (arXiv 2605.02167).

    Example:
        >>> import torch, integrand as ig
        >>> decode = lambda z: torch.cat([z, z.sum(1, keepdim=True)], 1)
        >>> method = ig.methods.latent_guided((lambda x: x[:, :2], decode), ends=5)
        >>> x = torch.tensor([[1.0, 2.0, 2.0]])
        >>> method(ig.fields.Linear(torch.ones(3)), x).values
        tensor([[1., 2., 2.]])
    """
    path = LatentGuided(codec, steps, fraction, slerp, ends)
    return Method(baseline, path, rule, record=record)


@published(
    title="Enhanced Integrated Gradients, latent path",
    key="jha2020enhanced",
    formula="∫ ∇F ⊙ dD(z),  z = E(b) + t(E(x) − E(b))",
    cost="as many gradients as the tolerance takes; (steps + 2·ends)·n with a rule of n nodes",
    axioms=axioms(symmetric=False, inside=False, monotone=False),
)
def latent(
    codec: CodecLike,
    baseline: StartLike = 0.0,
    steps: int = 50,
    *,
    slerp: bool = False,
    ends: int = 10,
    rule: Rule = Adaptive(),
    record: tuple[str, ...] = (),
) -> Method:
    """Enhanced Integrated Gradients along a latent line: A = ∫ ∇F ⊙ dD(z(t)), z(t) = E(b) + t (E(x)
    − E(b)).

    The line is decoded at steps + 1 points, and joined to the baseline and the input themselves by
    legs of ``ends`` pieces each, so that the map explains x and not its reconstruction. Of the
    source's baselines, give the mean or median of another group's inputs, or examples of it, as
    ``baseline``.

    Complete up to the rule, linear in F.

    Args:
        codec: an encoder and a decoder in the units of the inputs: a pair (encode, decode), or an
            object with both.
        baseline: where paths start, as for ``integrated``; zero unless given.
        steps: at how many points, and one, the line is decoded.
        slerp: along the arc between the codes.
        ends: pieces of each leg that joins what is decoded to the baseline and the input.
        rule: how each piece of the path is integrated, any of ``ig.rules``; by default as many
            gradients as bring the map's relative error below 5 %.
        record: what the result keeps beside the map: "shares", the map of each reference, and
            "path", points along it; nothing unless given.

    Returns:
        A ``Method``. Called with a field and x (B, \\*s) it gives an ``Attribution`` with values
        (B, \\*s), in units of F.

    Cost:
        steps + 1 rows decoded; gradients as the rule takes, all at once, steps + 2·ends + 1 at
        least with the default.

    References:
        Jha, Aicher, Gazzara, Singh, Barash, Genome Biology 2020.

    Example:
        >>> import integrand as ig
        >>> ig.methods.latent((abs, abs), steps=20)
        Method(path=Latent((abs, abs), 20))
    """
    return Method(baseline, Latent(codec, steps, ends, slerp), rule, record=record)


@published(
    title="Manifold Integrated Gradients",
    key="zaher2024manifold",
    formula="∫ ∇F ⊙ dD(z),  z the discrete geodesic from E(b) to E(x): least Σ ‖D(z_{i+1}) − D(z_i)‖²",
    cost="iterations·points decoder gradients, then as latent with steps = points − 1",
    axioms=axioms(symmetric=False, inside=False, monotone=False),
)
def manifold(
    codec: CodecLike,
    baseline: StartLike = 0.0,
    points: int = 20,
    *,
    rate: float | None = None,
    iterations: int = 300,
    tolerance: float = 1e-4,
    energy: float | None = None,
    ends: int = 10,
    rule: Rule = Adaptive(),
    record: tuple[str, ...] = (),
) -> Method:
    """Manifold Integrated Gradients: A = ∫ ∇F ⊙ dD(z) along the shortest decoded way from E(b) to
    E(x).

        z minimises Σ_i ‖D(z_{i+1}) − D(z_i)‖²,   z_i ← z_i + rate · T · J_Dᵀ(D(z_{i+1}) − 2 D(z_i) + D(z_{i−1})),   T = points

    The published code multiplies the mean gradient along the path by x − b. That is no line
    integral and does not add up; the integral along the path is taken here.

    Complete up to the rule, linear in F.

    Args:
        codec: an encoder and a decoder in the units of the inputs: a pair (encode, decode), or an
            object with both.
        baseline: where paths start, as for ``integrated``; zero unless given.
        points: of the geodesic (20, as published).
        rate: the published steps and limit are ``rate=5e-5, energy=1000, tolerance=0``, in the
            units of their images and codes; left out, every path finds its own rate and stops when
            it hardly gets shorter.
        iterations: of shortening it, at most.
        tolerance: stop when an iteration shortens a path relatively less than this.
        energy: stop where Σ ‖D(z_{i+1}) − D(z_i)‖² is below this; never unless given.
        ends: pieces of each leg that joins the geodesic to the baseline and the input.
        rule: how each piece of the path is integrated, any of ``ig.rules``; by default as many
            gradients as bring the map's relative error below 5 %.
        record: what the result keeps beside the map: "shares", the map of each reference, and
            "path", points along it; nothing unless given.

    Returns:
        A ``Method``. Called with a field and x (B, \\*s) it gives an ``Attribution`` with values
        (B, \\*s), in units of F.

    Cost:
        at most iterations × points rows decoded with a backward pass for the path, a few dozen ×
        points mostly, then gradients as the rule takes.

    References:
        Zaher, Trzaskowski, Nguyen, Roosta, ICML 2024 (arXiv 2405.09800).

    Example:
        >>> import integrand as ig
        >>> ig.methods.manifold((abs, abs), points=12).path
        LatentGeodesic((abs, abs), 12)
    """
    path = LatentGeodesic(codec, points, rate, iterations, tolerance, energy, ends)
    return Method(baseline, path, rule, record=record)
