"""Fields: the scalar that is explained, and everything that touches a model."""

from ..backprop.modified import BackwardRule as BackwardRule
from ..backprop.modified import GuidedReLU as GuidedReLU
from ..backprop.modified import Pattern as Pattern
from ..backprop.modified import Patterns as Patterns
from ..model.batching import Packer as Packer
from ..model.network import Site as Site
from .analytic import Function as Function
from .analytic import Linear as Linear
from .analytic import Monomial as Monomial
from .base import Field as Field
from .layer import SiteField as SiteField
from .multi_target import Several as Several
from .torch import TorchField as TorchField
from .views import Gathered as Gathered
from .views import Metered as Metered
from .views import Narrowed as Narrowed
from .views import View as View
from .views import innermost as innermost
