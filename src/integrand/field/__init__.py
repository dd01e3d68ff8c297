"""Fields: the scalar that is explained, and everything that touches a model."""

from .analytic import Function as Function
from .analytic import Linear as Linear
from .analytic import Monomial as Monomial
from .backward import BackwardRule as BackwardRule
from .backward import GuidedReLU as GuidedReLU
from .backward import Pattern as Pattern
from .backward import Patterns as Patterns
from .base import Field as Field
from .network import Site as Site
from .packing import Packer as Packer
from .several import Several as Several
from .site import SiteField as SiteField
from .torch import TorchField as TorchField
from .wrap import Gathered as Gathered
from .wrap import Metered as Metered
from .wrap import Narrowed as Narrowed
from .wrap import View as View
from .wrap import innermost as innermost
