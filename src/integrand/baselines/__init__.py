"""Baselines: where a path may start. ``(x (B, *s), field) -> references (R, B, *s)``."""

from ..core.renamed import renamed as _renamed
from .adopt import as_baseline as as_baseline
from .base import Baseline as Baseline
from .base import BaselineLike as BaselineLike
from .base import DataLike as DataLike
from .base import ReferencesLike as ReferencesLike
from .base import StartLike as StartLike
from .base import Union as Union
from .base import count_of as count_of
from .base import label_of as label_of
from .boundary import Boundary as Boundary
from .boundary import Itself as Itself
from .boundary import Rivals as Rivals
from .data import OtherClass as OtherClass
from .data import Relevant as Relevant
from .data import Sample as Sample
from .fixed import Constant as Constant
from .fixed import Given as Given
from .fixed import Plain as Plain
from .graph import AlongShortestPaths as AlongShortestPaths
from .image import Blurred as Blurred
from .image import Colour as Colour
from .image import Corners as Corners
from .image import Extreme as Extreme
from .image import Mean as Mean
from .image import Median as Median
from .image import black as black
from .image import grey as grey
from .image import white as white
from .imputation import Imputed as Imputed
from .imputation import MeanLeft as MeanLeft
from .masked import Masked as Masked
from .noise import Gaussian as Gaussian
from .noise import Uniform as Uniform
from .per_input import OfEach as OfEach
from .per_input import PerInput as PerInput

__getattr__ = _renamed(__name__, {"Several": "Union", "Kept": "Masked"})
