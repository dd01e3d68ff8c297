"""Rules: how a segment is integrated. ``(field, segment) -> share (K, R, B, *s)``."""

from ..core.renamed import renamed as _renamed
from . import path_weights as path_weights
from .adaptive.adaptive import Adaptive as Adaptive
from .adaptive.chords import Chords as Chords
from .ascent import Ascent as Ascent
from .base import Integrated as Integrated
from .base import Rule as Rule
from .base import RuleLike as RuleLike
from .base import as_rule as as_rule
from .base import mean_gradient as mean_gradient
from .decision import IntegratedDecisionGradients as IntegratedDecisionGradients
from .decision import Rescaled as Rescaled
from .exact import Exact as Exact
from .first_order import FirstOrder as FirstOrder
from .idgi import IDGI as IDGI
from .monte_carlo import MonteCarlo as MonteCarlo
from .path_weighted import PathWeighted as PathWeighted
from .path_weighted import Saturation as Saturation
from .path_weighted import SaturationCutoff as SaturationCutoff
from .quadrature import ClenshawCurtis as ClenshawCurtis
from .quadrature import GaussLegendre as GaussLegendre
from .quadrature import Left as Left
from .quadrature import Midpoint as Midpoint
from .quadrature import Right as Right
from .quadrature import Simpson as Simpson
from .quadrature import Trapezoid as Trapezoid
from .shapley import BaselineShapley as BaselineShapley

__getattr__ = _renamed(
    __name__,
    {
        "Important": "IDGI",
        "Decision": "IntegratedDecisionGradients",
        "Weighted": "PathWeighted",
        "Until": "SaturationCutoff",
    },
)
