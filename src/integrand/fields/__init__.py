"""Fields: the scalar that is explained, and everything that touches a model."""

from ..backprop.modified import BackwardRule as BackwardRule
from ..backprop.modified import BackwardRules as BackwardRules
from ..backprop.modified import FrozenAttention as FrozenAttention
from ..backprop.modified import FrozenNorm as FrozenNorm
from ..backprop.modified import GuidedReLU as GuidedReLU
from ..backprop.modified import Pattern as Pattern
from ..backprop.modified import Patterns as Patterns
from ..backprop.modified import SoftmaxTemperature as SoftmaxTemperature
from ..core.renamed import renamed as _renamed
from ..model.batching import BatchSizer as BatchSizer
from ..model.network import Site as Site
from . import kernels as kernels
from . import links as links
from .adopt import adopt as adopt
from .analytic import Function as Function
from .analytic import Linear as Linear
from .analytic import Monomial as Monomial
from .base import Field as Field
from .embedded_trees import EmbeddedTrees as EmbeddedTrees
from .gaussian_process import GPField as GPField
from .gaussian_process import GPLinkField as GPLinkField
from .graph import Graph as Graph
from .graph import GraphField as GraphField
from .layer import LayerField as LayerField
from .mixtures import Compose as Compose
from .mixtures import Sum as Sum
from .multi_target import MultiTarget as MultiTarget
from .scikit_learn import ScikitLearnField as ScikitLearnField
from .steps import StepField as StepField
from .torch import TorchField as TorchField
from .trees import TreeField as TreeField
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
