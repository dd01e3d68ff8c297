"""Weightings: the weights of references, given their shares. ``(shares, x, field) -> weights (R,
B)``.

    values = Σ_r w_r · share_r,      Σ_r w_r = 1

``Uniform`` is Expected Gradients; ``Fitness`` is Weighted Gradients: a baseline counts for more the
fewer of the features it ranks highest must be taken away to halve the class probability; ``Areas``
counts the whole curves of removal and insertion, under several fills. No labels are used. A
weighting that is known beforehand (``beforehand``) lets shares be added up as they come instead of
being kept.
"""

from ..core.features import feature_map as feature_map
from ..core.features import feature_scores as feature_scores
from .areas import Areas as Areas
from .base import Uniform as Uniform
from .base import Weighed as Weighed
from .base import Weighting as Weighting
from .base import WeightingLike as WeightingLike
from .base import as_weighting as as_weighting
from .fills import ByKind as ByKind
from .fills import Fill as Fill
from .fills import ReferenceMean as ReferenceMean
from .fitness import FEW as FEW
from .fitness import Fitness as Fitness
