"""Published methods by their names: each is a composition of parts, and nothing else.

``registry.published`` keeps beside every name what a user must know to choose it: the source, the formula, what it costs and which
axioms it satisfies. The command line's ``integrand methods`` and the documentation print that table; tests check what it claims.

    straight.py         integrated, expected, weighted
    counterfactual.py   ig2
    coarse_to_fine.py   blur, spectral
    latent.py           latent_guided, latent, manifold
    geometric_paths.py  geodesic, relaxed, nonuniform
    credit.py           important, decision, path_weighted, path_sampled, left
    layers.py           layer, conductance
    wrapped.py          greedy, smooth, regions, distanced: around any other
"""

# isort: off
from . import straight, counterfactual, coarse_to_fine, layers
from . import latent as _latent
from . import geometric_paths
from . import credit
from . import wrapped

# isort: on
from .coarse_to_fine import blur as blur
from .coarse_to_fine import spectral as spectral
from .counterfactual import ig2 as ig2
from .credit import decision as decision
from .credit import important as important
from .credit import left as left
from .credit import path_sampled as path_sampled
from .credit import path_weighted as path_weighted
from .geometric_paths import geodesic as geodesic
from .geometric_paths import nonuniform as nonuniform
from .geometric_paths import relaxed as relaxed
from .latent import latent as latent
from .latent import latent_guided as latent_guided
from .latent import manifold as manifold
from .layers import conductance as conductance
from .layers import layer as layer
from .named import BASELINES as BASELINES
from .registry import Published as Published
from .registry import about as about
from .registry import known as known
from .registry import published as published
from .straight import expected as expected
from .straight import integrated as integrated
from .straight import weighted as weighted
from .wrapped import distanced as distanced
from .wrapped import greedy as greedy
from .wrapped import regions as regions
from .wrapped import smooth as smooth
