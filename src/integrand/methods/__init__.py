"""Published methods by their names: each is a composition of parts, and nothing else.

``registry.published`` keeps beside every name what a user must know to choose it: the source, the formula, what it costs and which
axioms it satisfies. The command line's ``integrand methods`` and the documentation print that table; tests check what it claims.

    straight.py         integrated, expected, weighted
    counterfactual.py   ig2
    guided.py           guided, salient
    layers.py           layer, conductance
"""

# isort: off
from . import straight, counterfactual, guided as _guided, layers

# isort: on
from .counterfactual import ig2 as ig2
from .guided import guided as guided
from .guided import salient as salient
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
