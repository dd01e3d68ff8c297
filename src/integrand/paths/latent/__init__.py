"""Paths through the latent space of an autoencoder.

    paths        LatentGuided, Latent, LatentGeodesic
    autoencoder  encoders and decoders of users
    greedy_step  interpolation of codes; the step of Guided IG
    geodesic     chains of codes, relaxed
    legs         decoded points as segments

A path of your own asks ``autoencoder.Borrowed`` for codes and decoded rows; decoded corners become
a path by ``legs.through``.
"""

from .autoencoder import Autoencoder as Autoencoder
from .paths import Latent as Latent
from .paths import LatentGeodesic as LatentGeodesic
from .paths import LatentGuided as LatentGuided
