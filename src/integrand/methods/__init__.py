"""Published methods by their names: each is a composition of parts, and nothing else.

``registry.published`` keeps beside every name what a user must know to choose it: the source, the
formula, what it costs and which axioms it satisfies. The command line's ``integrand methods`` and
the documentation print that table; tests check what it claims.

    straight.py         integrated, expected, generalized, baseline_shapley, weighted
    counterfactual.py   ig2
    attacks.py          adversarial, mfaba, boundary
    guided.py           guided, samp
    coarse_to_fine.py   blur, spectral
    latent.py           latent_guided, latent, manifold
    geometric_paths.py  geodesic, relaxed, nonuniform
    credit.py           idgi, decision, path_weighted, path_sampled, left
    backward.py         pattern_guided, geometric
    wrapped.py          greedy_pig, smoothgrad, xrai, artificial_distancing
    words.py            discretized, sequential
    layers.py           layer, conductance, region_neurons
    graphs.py           graph
    gaussian.py         gaussian_process
"""

# isort: off
# The order of the catalogue.
from .straight import (
    integrated as integrated,
    expected as expected,
    generalized as generalized,
    baseline_shapley as baseline_shapley,
    weighted as weighted,
)
from .counterfactual import ig2 as ig2
from .attacks import adversarial as adversarial, mfaba as mfaba, boundary as boundary
from .guided import guided as guided, samp as samp
from .coarse_to_fine import blur as blur, spectral as spectral
from .latent import latent_guided as latent_guided, latent as latent, manifold as manifold
from .geometric_paths import geodesic as geodesic, relaxed as relaxed, nonuniform as nonuniform
from .credit import (
    idgi as idgi,
    decision as decision,
    path_weighted as path_weighted,
    path_sampled as path_sampled,
    left as left,
)
from .backward import pattern_guided as pattern_guided, geometric as geometric
from .wrapped import (
    greedy_pig as greedy_pig,
    smoothgrad as smoothgrad,
    xrai as xrai,
    artificial_distancing as artificial_distancing,
)
from .words import discretized as discretized, sequential as sequential
from .layers import layer as layer, conductance as conductance, region_neurons as region_neurons
from .graphs import graph as graph
from .gaussian import gaussian_process as gaussian_process

# isort: on
from ..core.renamed import renamed as _renamed
from .baseline_names import BASELINES as BASELINES
from .hints import RENAMED as _RENAMED
from .registry import Measured as Measured
from .registry import Published as Published
from .registry import about as about
from .registry import axioms as axioms
from .registry import counted_on as counted_on
from .registry import known as known
from .registry import published as published

__getattr__ = _renamed(__name__, _RENAMED)
