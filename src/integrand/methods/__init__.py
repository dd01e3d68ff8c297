"""Published methods by their names: each is a composition of parts, and nothing else.

``registry.published`` keeps beside every name what a user must know to choose it: the source, the formula, what it costs and which
axioms it satisfies. The command line's ``integrand methods`` and the documentation print that table; tests check what it claims.

    straight.py         integrated, expected, weighted
    counterfactual.py   ig2
    attacks.py          adversarial, mfaba, boundary
    guided.py           guided, salient
    coarse_to_fine.py   blur, spectral
    latent.py           latent_guided, latent, manifold
    geometric_paths.py  geodesic, relaxed, nonuniform
    credit.py           important, decision, path_weighted, path_sampled, left
    backward.py         pattern_guided, geometric
    wrapped.py          greedy, smooth, regions, distanced
    words.py            discretized, sequential
    layers.py           layer, conductance
"""

# isort: off
# The order of the catalogue.
from .straight import integrated as integrated, expected as expected, weighted as weighted
from .counterfactual import ig2 as ig2
from .attacks import adversarial as adversarial, mfaba as mfaba, boundary as boundary
from .guided import guided as guided, salient as salient
from .coarse_to_fine import blur as blur, spectral as spectral
from .latent import latent_guided as latent_guided, latent as latent, manifold as manifold
from .geometric_paths import geodesic as geodesic, relaxed as relaxed, nonuniform as nonuniform
from .credit import (
    important as important,
    decision as decision,
    path_weighted as path_weighted,
    path_sampled as path_sampled,
    left as left,
)
from .backward import pattern_guided as pattern_guided, geometric as geometric
from .wrapped import greedy as greedy, smooth as smooth, regions as regions, distanced as distanced
from .words import discretized as discretized, sequential as sequential
from .layers import layer as layer, conductance as conductance

# isort: on
from .baseline_names import BASELINES as BASELINES
from .registry import Measured as Measured
from .registry import Published as Published
from .registry import about as about
from .registry import axioms as axioms
from .registry import counted_on as counted_on
from .registry import known as known
from .registry import published as published
