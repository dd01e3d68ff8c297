"""Interactions: how much of a change of F belongs to every pair of features (Integrated Hessians).

integral.py   the double integral along the line, as a single one, for rows of the matrix
result.py     ``Interactions``: values, completeness, pairs, groups, frames
io.py         files
api.py        ``interactions``: from a model and inputs to the result
"""

from .api import interactions as interactions
from .result import Interactions as Interactions
from .result import Pair as Pair
