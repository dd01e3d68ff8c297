"""Backward rules: gradients that are not F's own.

Forward the model is what it is; backward some of its operations hand on something else than their
derivative. What comes out belongs to F and to how F is written down, adds up to nothing in
particular, and is integrated all the same.

    base.py         what a rule is, and the mode that sees every operation
    calls.py        linear maps and convolutions: whose weights they use, and what they hand back
    guided_relu.py  GuidedReLU: only positive gradients pass a ReLU
    patterns.py     Patterns: weights are replaced by the pattern of the data, or multiplied by it
    fitting.py      where patterns come from: one pass over data

Weights, modules and hooks of the model are left alone: all happens in a ``TorchFunctionMode``, for
the time of one evaluation.
"""

from .base import BackwardRule as BackwardRule
from .guided_relu import GuidedReLU as GuidedReLU
from .patterns import Pattern as Pattern
from .patterns import Patterns as Patterns
