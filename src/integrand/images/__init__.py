"""Image files and image classifiers, for the command line and for Python."""

from .files import pictures as pictures
from .files import prepare as prepare
from .files import read as read
from .files import samples as samples
from .files import title as title
from .files import titles as titles
from .models import REGISTRY as REGISTRY
from .models import Guess as Guess
from .models import ImageModel as ImageModel
from .models import load_model as load_model

__all__ = [
    "REGISTRY",
    "Guess",
    "ImageModel",
    "load_model",
    "pictures",
    "prepare",
    "read",
    "samples",
    "title",
    "titles",
]
