"""Maps of a layer instead of the inputs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..baselines import StartLike
from ..baselines.names import baseline_of
from ..errors import InputError
from ..integration.region_neurons import RegionNeurons
from ..integration.wrappers.layer import Layered, PerPlace
from ..model.network import SiteLike
from ..paths import Straight
from ..rules import Adaptive, GaussLegendre, Midpoint, Rule
from .registry import axioms, published
from .straight import integrated


@published(
    title="Layer Integrated Gradients",
    key="sundararajan2017axiomatic",
    formula="(h(x) − h(b)) ⊙ ∫ ∂F/∂h (h(b) + t(h(x) − h(b))) dt,  h: what is at the layer",
    cost="as integrated, of the layers behind the site only + 1 value",
    axioms=axioms(complete=False, implementation_invariant=False),
    explains="layer",
)
def layer(
    site: SiteLike | Sequence[SiteLike] | dict[str, SiteLike],
    baseline: StartLike = 0.0,
    rule: Rule = Adaptive(),
    *,
    side: str = "output",
    layer_baseline: StartLike | None = None,
    record: tuple[str, ...] = (),
) -> Layered:
    """Integrated Gradients at a layer: A_j = (h_j(x) − h_j(b)) ∫₀¹ ∂F/∂h_j dt, straight from h(b)
    to h(x).

    Values have the layer's shape (B, \\*L). What passes the layer by stays as it is for x. Token
    ids are explained at their embedding: ``site="embeddings"`` with ids as inputs and as baseline,
    or with ``layer_baseline``.

    Several layers, or a layer that returns several tensors, make a tuple of maps, one for each,
    which add up together. A layer that runs several times has the sum over its runs (a map for each
    where shapes differ). ``ig.fields.Site(layer, tensor=0, run=1)`` names one tensor or one run.

    Adds up to F(x) − F(b) where nothing passes the layer by; else the residual holds what did.

    Args:
        site: a layer's name, the module, or an ``ig.fields.Site``; a list or a dict of them for
            several layers at once, whose maps come in their order.
        baseline: of the inputs, as for ``integrated``, taken to the layer by the model; zero unless
            given.
        rule: how each piece of the path is integrated, any of ``ig.rules``; by default as many
            gradients as bring the map's relative error below 5 %.
        side: its "output", or its "input".
        layer_baseline: where the layer starts instead of at h(b): 0.0, a vector such as the mean
            embedding, a tensor (\\*L) or (B, \\*L), whatever a baseline can be; a tuple, one for
            each map, where there are several.
        record: what the result keeps beside the map: "shares", the map of each reference, and
            "path", points along it; nothing unless given.

    Returns:
        A method of a layer: its ``Attribution`` has values (B, \\*L), one for each unit of the
        layer, in units of F. Several layers, or tensors, have a tuple of them.

    Raises:
        UnknownName: for the layer.
        ModelError: for layers that do not run, or give no tensor with one entry per row.

    Cost:
        the gradients of ``integrated``, but of the layers behind the site only, and one forward
        pass of the whole model for x and for each baseline.

    References:
        Sundararajan, Taly, Yan, ICML 2017 (arXiv 1703.01365), their integral taken in a layer's
        space, as they do for embeddings.

    Example:
        >>> import integrand as ig
        >>> ig.methods.layer("features.3", rule=ig.rules.GaussLegendre(8))
        Layered('features.3', Method(rule=GaussLegendre(8)))
    """
    if layer_baseline is None:
        return Layered(site, integrated(baseline, rule, record=record), side)
    if not (isinstance(baseline, int | float) and baseline == 0):
        raise InputError(
            "baseline= is put into the model, and layer_baseline= is a value of the layer: give one of them."
        )
    start = (
        PerPlace(tuple(baseline_of(entry) for entry in layer_baseline))
        if isinstance(layer_baseline, tuple)
        else layer_baseline
    )
    return Layered(site, integrated(start, rule, record=record), side, "layer")


@published(
    title="Conductance",
    key="dhamdhere2019important",
    formula="∫ ∂F/∂h ⊙ dh along the straight line of the inputs, h: what is at the layer",
    cost="steps·n gradients behind the layer + steps values",
    axioms=axioms(complete=False, symmetric=False, implementation_invariant=False),
    explains="layer",
)
def conductance(
    site: SiteLike | Sequence[SiteLike] | dict[str, SiteLike],
    baseline: StartLike = 0.0,
    steps: int = 50,
    rule: Rule = Midpoint(),
    *,
    side: str = "output",
    record: tuple[str, ...] = (),
) -> Layered:
    """Conductance of a layer's units: A_j = ∫₀¹ ∂F/∂h_j (γ(t)) dh_j(γ(t)), γ straight from the
    baseline to the input.

    The line is cut into ``steps``; its corners are taken to the layer by the model and joined there
    by straight pieces, each integrated by ``rule``. With one step this is ``layer``. Values have
    the layer's shape (B, \\*L).

    Adds up to F(x) − F(b) where nothing does.

    Args:
        site: a layer's name, the module, or an ``ig.fields.Site``; a list or a dict of them for
            several layers at once.
        baseline: of the inputs, as for ``integrated``; zero unless given.
        steps: how many pieces the line of the inputs is cut into.
        rule: how each piece is integrated in the layer's space; at its midpoint unless given.
        side: the layer's "output", or its "input".
        record: what the result keeps beside the map: "shares", the map of each reference, and
            "path", points along it; nothing unless given.

    Returns:
        A method of a layer: its ``Attribution`` has values (B, \\*L), one for each unit of the
        layer, in units of F.

    Raises:
        UnknownName: for the layer.
        ModelError: for layers that do not run, or give no tensor with one entry per row.

    Cost:
        steps × n gradients, of the layers behind the site only, and a forward pass of the whole
        model at every corner. The error of the pieces falls like 1/steps²; like 1/steps where
        something passes the layer by (a piece takes it from its upper corner).

    References:
        Dhamdhere, Sundararajan, Yan, "How Important is a Neuron?", ICLR 2019 (arXiv 1805.12233), as
        an integral over the layer (Shrikumar, Su, Kundaje, arXiv 1807.09946).

    Example:
        >>> import integrand as ig
        >>> ig.methods.conductance("features.3", steps=20)
        Layered('features.3', Method(path=Straight(20), rule=Midpoint()))
    """
    return Layered(site, integrated(baseline, rule, Straight(steps), record=record), side)


@published(
    title="Region-specific neuron attribution",
    key="lundstrom2022rigorous",
    formula="N_j(S) = ∫ ∂F/∂h_j · [J_h (x − b)_S]_j dt,  h: what is at the layer, S: a region of the input",
    cost="n forward passes with tangents and n backward passes, for all units",
    axioms=axioms(complete=False, symmetric=False, implementation_invariant=False),
    explains="layer",
)
def region_neurons(
    site: SiteLike | Sequence[SiteLike] | dict[str, SiteLike],
    region: Tensor | None = None,
    baseline: StartLike = 0.0,
    rule: Rule = GaussLegendre(32),
) -> RegionNeurons:
    """What each unit of a layer passes on of a region of the input, along the straight line of the
    inputs.

        N_j(S) = Σ_{i ∈ S} (x − b)_i ∫₀¹ ∂F/∂h_j ∂h_j/∂x_i dt

    Adds up over the units to the region's Integrated Gradients where everything passes the layer,
    and over regions to the conductance of each unit (``region=None``: neuron conductance).

    Args:
        site: as in ``layer``; a list or a dict of layers makes a map for each, in their order.
        region: a mask that broadcasts to the inputs, such as that of an object; all features unless
            given.
        baseline: of the inputs, as for ``integrated``; zero unless given.
        rule: one with fixed nodes.

    Returns:
        A method of a layer: its ``Attribution`` has values (B, \\*L), one for each unit of the
        layer, in units of F.

    Raises:
        UnknownName: for the layer.
        ModelError: for layers that do not run, or run several times and no run is named.

    Cost:
        one forward pass with tangents and one backward pass for each node and baseline, whatever
        the number of units and layers.

    References:
        Lundstrom, Huang, Razaviyayn, ICML 2022 (arXiv 2202.11912), "Attributing to internal
        neurons".

    Example:
        >>> import torch, integrand as ig
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
        ... )
        >>> left = torch.tensor([True, True, False, False])
        >>> x = torch.randn(5, 4)
        >>> result = ig.explain(
        ...     model, x, target=0, method="region_neurons", site="1", region=left
        ... )
        >>> result.values.shape
        torch.Size([5, 8])
    """
    return RegionNeurons(site, region, baseline_of(baseline), rule)
