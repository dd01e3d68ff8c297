"""Backward rules: gradients that are not F's own.

Forward the model is what it is; backward some of its operations hand on something else than their
derivative. What comes out belongs to F and to how F is written down, adds up to nothing in
particular, and is integrated all the same.

    base.py         what a rule is, and the mode that sees every operation
    calls.py        linear maps and convolutions: whose weights they use, and what they hand back
    guided_relu.py  GuidedReLU: only positive gradients pass a ReLU
    patterns.py     Patterns: weights are replaced by the pattern of the data, or multiplied by it
    frozen_norm.py  FrozenNorm: norms whose scale is a constant
    attention.py    FrozenAttention, SoftmaxTemperature: attention weights that are given, or softer
    instead.py      BackwardRules: several at once; the value of one computation, the derivative of another
    fitting.py      where patterns come from: one pass over data

Weights, modules and hooks of the model are left alone: all happens in a ``TorchFunctionMode``, for
the time of one evaluation.
"""

from .attention import FrozenAttention as FrozenAttention
from .attention import SoftmaxTemperature as SoftmaxTemperature
from .base import BackwardRule as BackwardRule
from .frozen_norm import FrozenNorm as FrozenNorm
from .guided_relu import GuidedReLU as GuidedReLU
from .instead import BackwardRules as BackwardRules
from .patterns import Pattern as Pattern
from .patterns import Patterns as Patterns
