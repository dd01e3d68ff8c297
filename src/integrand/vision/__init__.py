"""Pictures and the models that look at them: what the command line needs, usable from Python too."""

from .images import pictures as pictures
from .images import prepare as prepare
from .images import read as read
from .images import samples as samples
from .images import title as title
from .images import titles as titles
from .models import REGISTRY as REGISTRY
from .models import Guess as Guess
from .models import ImageModel as ImageModel
from .models import load_model as load_model

__all__ = ["REGISTRY", "Guess", "ImageModel", "load_model", "pictures", "prepare", "read", "samples", "title", "titles"]
