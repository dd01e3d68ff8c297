"""Paths: which way from the baseline to the input. ``(field, start, end) -> iterator of Segment``."""

from .base import Path as Path
from .base import corners as corners
from .bases import DCT as DCT
from .bases import SVD as SVD
from .bases import Basis as Basis
from .bases import Haar as Haar
from .bases import Pyramid as Pyramid
from .bases import Split as Split
from .blur import Blur as Blur
from .descent import Descent as Descent
from .descent import Relative as Relative
from .geodesic import Geodesic as Geodesic
from .latent import Autoencoder as Autoencoder
from .latent import Latent as Latent
from .latent import LatentGeodesic as LatentGeodesic
from .latent import LatentGuided as LatentGuided
from .relaxed import Relaxed as Relaxed
from .respaced import Respaced as Respaced
from .respaced import Scheduled as Scheduled
from .spectral import Spectral as Spectral
from .straight import Straight as Straight
