"""Paths: which way from the baseline to the input. ``(field, start, end) -> iterator of
Segment``."""

from ..core.renamed import renamed as _renamed
from .base import Path as Path
from .base import PathLike as PathLike
from .base import as_path as as_path
from .base import corners as corners
from .bases import DCT as DCT
from .bases import SVD as SVD
from .bases import Basis as Basis
from .bases import Haar as Haar
from .bases import Pyramid as Pyramid
from .bases import Split as Split
from .blur import Blur as Blur
from .composed import Composed as Composed
from .composed import Reversed as Reversed
from .descent.attack import Adversarial as Adversarial
from .descent.descent import Descent as Descent
from .descent.step_rules import Fixed as Fixed
from .descent.step_rules import Implicit as Implicit
from .descent.step_rules import Relative as Relative
from .descent.step_rules import Shrinking as Shrinking
from .descent.step_rules import StepRule as StepRule
from .discretized import Discretized as Discretized
from .discretized import NeighbourGraph as NeighbourGraph
from .discretized import neighbour_graph as neighbour_graph
from .elastic import ElasticBand as ElasticBand
from .geodesic import Geodesic as Geodesic
from .greedy import SAMP as SAMP
from .greedy import Guided as Guided
from .latent import Autoencoder as Autoencoder
from .latent import Latent as Latent
from .latent import LatentGeodesic as LatentGeodesic
from .latent import LatentGuided as LatentGuided
from .respaced import NonUniform as NonUniform
from .respaced import Scheduled as Scheduled
from .spectral import Spectral as Spectral
from .straight import Straight as Straight

__getattr__ = _renamed(
    __name__,
    {
        "Step": "StepRule",
        "Salient": "SAMP",
        "Relaxed": "ElasticBand",
        "Respaced": "NonUniform",
        "Between": "Composed",
        "Backwards": "Reversed",
    },
)
