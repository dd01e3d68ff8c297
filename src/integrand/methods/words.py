"""Words of a sentence, as vectors: paths over other words, and one word at a time."""

from __future__ import annotations

from torch import Tensor

from ..baselines import StartLike
from ..core.features import Features
from ..integration import Method, Sequential
from ..integration.attribution import ExplainerLike
from ..paths import Discretized, NeighbourGraph
from ..rules import Midpoint, Rule
from .registry import axioms, published
from .wrapped import inner


@published(
    title="Discretized Integrated Gradients",
    key="sanyal2021discretized",
    formula="∫ ∇F ⊙ dγ along monotone ways over other words, from the baseline's vector to each word's",
    cost="at most R·(steps + 1)·n gradients + steps searches among k neighbours for each word",
    axioms=axioms(symmetric=False),
)
def discretized(
    table: Tensor,
    baseline: StartLike = 0.0,
    neighbours: int | Tensor | NeighbourGraph = 500,
    steps: int = 30,
    strategy: str = "greedy",
    *,
    rule: Rule = Midpoint(),
    record: tuple[str, ...] = (),
) -> Method:
    """Discretized Integrated Gradients: A = ∫ ∇F ⊙ dγ, every word on a way near the vectors of
    other words.

        w_{j+1} = argmin_{i ∈ N(w_j)} ‖e_i − m(b, e_{w_j}, e_i)‖,   p_{j+1} = m(b, p_j, e_{w_{j+1}}),   γ: from b by p_steps, …, p_1 to the word

    The inputs are vectors (B, n, d), rows of the ``table`` (V, d), and so are the maps; a word's
    own number is the sum over d, which the paper divides by the norm of all of a sentence's.

    Complete up to the rule, linear in F, monotone, inside the box; not symmetric, for it depends on
    the words there are.

    Args:
        table: (V, d), the vectors of all words, which inputs are rows of.
        baseline: as for ``integrated``; the paper's is the padding token's vector, ``table[pad]``,
            at every place but special tokens: ``ig.baselines.Masked(table[pad], (0, -1))``.
        neighbours: among how many nearest words the next one is looked for (500), or a graph (V, k)
            of row numbers, as ``ig.paths.neighbour_graph`` makes it.
        steps: how many words each way goes by (30).
        strategy: "greedy", the neighbour that has to be moved least, as written above; "maxcount",
            the one with the most coordinates between the baseline's and the word's.
        rule: for each piece. ``Left()`` is the published method, ``Left(2**f)`` its factor f. On
            the three words of the reference values (10 steps) ``Left()`` leaves a gap of 16 %,
            ``Midpoint()`` one of 0.2 % for as many gradients.
        record: what the result keeps beside the map: "shares", the map of each reference, and
            "path", points along it; nothing unless given.

    Returns:
        A ``Method``. Called with a field and x (B, \\*s) it gives an ``Attribution`` with values
        (B, \\*s), in units of F.

    Cost:
        at most steps + 1 gradients per reference (times the nodes of the rule; less where all words
        of a sentence arrive early), and the search for anchors, where the inputs are.

    References:
        Sanyal and Ren, EMNLP 2021 (arXiv 2108.13654).

    Example:
        >>> import torch, integrand as ig
        >>> start = torch.ones(4) / 4
        >>> ig.methods.discretized(torch.eye(4), start, neighbours=2, steps=3)
        Method(Plain(tensor<4>), Discretized(tensor<4x4>, 2, 3), Midpoint())
    """
    path = Discretized(table, neighbours, steps, strategy)
    return Method(baseline, path, rule, record=record)


@published(
    title="Sequential Integrated Gradients",
    key="enguehard2023sequential",
    formula="(x_i − b_i) ⊙ ∫ ∇_i F(x̄_i + t(x − x̄_i)) dt,  x̄_i = b on feature i, x elsewhere",
    cost="features × the method's gradients, + features·R + 1 values",
    axioms=axioms(complete=False),
)
def sequential(
    of: str | ExplainerLike = "integrated",
    features: Features = "auto",
    *,
    baseline: StartLike | None = None,
    rule: Rule | None = None,
) -> Sequential:
    """Sequential Integrated Gradients: each word from its own baseline, the other words as they
    are.

        A_i = (x_i − b_i) ⊙ ∫₀¹ ∇_i F(x̄_i + t(x − x̄_i)) dt,    Σ_j A_ij = F(x) − F(x̄_i)

    See ``ig.Sequential``.

    Every word adds up to its own effect, what F loses without it; the whole map does not add up to
    F(x) − F(b).

    Args:
        of: what explains each word: a published name, started from ``baseline`` and integrated by
            ``rule``, or a method of your own; ``integrated`` unless given. The paper's is
            ``integrated`` from the mask token's vector by ``GaussLegendre(50)``.
        features: what moves at a time: words of sequences (n, d), pixels of images, columns of
            tables, unless told otherwise.
        baseline: where a method that is named starts, as for ``integrated``; its own start unless
            given. ``table[mask]``, or ``ig.baselines.Masked(table[mask], (0, -1))`` with special
            tokens as they are.
        rule: how a method that is named integrates; its own rule unless given.

    Returns:
        An ``ig.Sequential`` with values (B, \\*s), in units of F.

    Cost:
        n × the method's, in batches.

    References:
        Enguehard, Findings of ACL 2023 (arXiv 2305.15853).

    Example:
        >>> import torch, integrand as ig
        >>> masked = ig.baselines.Masked(0.0, (0, -1))
        >>> rule = ig.rules.GaussLegendre(20)
        >>> ig.methods.sequential(baseline=masked, rule=rule)
        Sequential(Method(Masked(0.0, (0, -1)), rule=GaussLegendre(20)))
    """
    return Sequential(inner(of, baseline, rule), features)
