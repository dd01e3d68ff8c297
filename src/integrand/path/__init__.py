"""Paths: which way from the baseline to the input. ``(field, start, end) -> iterator of Segment``."""

from .base import Path as Path
from .base import corners as corners
from .descent import Descent as Descent
from .descent import Relative as Relative
from .latent import Autoencoder as Autoencoder
from .latent import Latent as Latent
from .latent import LatentGeodesic as LatentGeodesic
from .latent import LatentGuided as LatentGuided
from .straight import Straight as Straight
