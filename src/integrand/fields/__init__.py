"""Fields: the scalar that is explained, and everything that touches a model."""

from ..backprop.modified import BackwardRule as BackwardRule
from ..backprop.modified import GuidedReLU as GuidedReLU
from ..backprop.modified import Pattern as Pattern
from ..backprop.modified import Patterns as Patterns
from ..core.renamed import renamed as _renamed
from ..model.batching import BatchSizer as BatchSizer
from ..model.network import Site as Site
from . import kernels as kernels
from . import links as links
from .analytic import Function as Function
from .analytic import Linear as Linear
from .analytic import Monomial as Monomial
from .base import Field as Field
from .gaussian_process import GPField as GPField
from .gaussian_process import GPLinkField as GPLinkField
from .graph import Graph as Graph
from .graph import GraphField as GraphField
from .layer import LayerField as LayerField
from .multi_target import MultiTarget as MultiTarget
from .torch import TorchField as TorchField
from .views import Cast as Cast
from .views import CountedField as CountedField
from .views import Subset as Subset
from .views import View as View
from .views import innermost as innermost

__getattr__ = _renamed(
    __name__,
    {
        "Gathered": "Subset",
        "Narrowed": "Cast",
        "Metered": "CountedField",
        "Several": "MultiTarget",
        "SiteField": "LayerField",
        "Packer": "BatchSizer",
    },
)
