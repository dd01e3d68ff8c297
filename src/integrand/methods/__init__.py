"""Published methods by their names: each is a composition of parts, and nothing else.

``registry.published`` keeps beside every name what a user must know to choose it: the source, the formula, what it costs and which
axioms it satisfies. The command line's ``integrand methods`` and the documentation print that table; tests check what it claims.

    straight.py         integrated, expected, weighted
    counterfactual.py   ig2
    layers.py           layer, conductance
    wrapped.py          greedy, smooth, regions, distanced: around any other
"""

# isort: off
from . import straight, counterfactual, layers, wrapped

# isort: on
from .counterfactual import ig2 as ig2
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
