"""Paths through the latent space of an autoencoder.

    codec.py     encoders and decoders, borrowed           moves.py     mixing codes; the step of Guided IG
    legs.py      decoded points as segments                geodesic.py  chains of codes, relaxed
    paths.py     LatentGuided, Latent, LatentGeodesic

What a path of its own needs of a codec is ``codec.Borrowed``; decoded corners become a path by
``legs.through``.
"""

from .autoencoder import Autoencoder as Autoencoder
from .paths import Latent as Latent
from .paths import LatentGeodesic as LatentGeodesic
from .paths import LatentGuided as LatentGuided
