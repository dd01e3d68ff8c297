"""Backpropagation by chords: the mean gradient of a network between two points, one operation at a
time.

The mean gradient between a and b is what integration needs. One gradient says little about it where
a network has kinks: each ReLU is on or off at a point, but on for a *part* of the way. Its chord,
(f(u_b) − f(u_a)) / (u_b − u_a), knows that part. Here the backward pass of row b uses, for every
nonlinear operation, a chord from the row before it on the path instead of the derivative. Between
two points the result c satisfies

    c · (b − a) = F(b) − F(a)         exactly, if every operation on the way is linear or has a
                                      chord,

and c → ∇F as b → a, so chords along a path converge to its integral, at second order, and are
complete at any number of pieces. Operations not known here keep their ordinary gradient at b;
whether that matters shows in the defect c·(b−a) − ΔF, which costs nothing to know. (For a single
piece of a network of elementwise functions this is the rescale rule of DeepLIFT, Shrikumar et al.
2017.)

    mode.py         sees every operation and hands it to its chord, if there is one
    rows.py         which row is before which, and where rows are in a tensor
    table.py        torch function → chord; how to add one
    elementwise.py  quotients        products.py   products and quotients      softmax.py    softmax, log-softmax, logsumexp
    normalise.py    layer norm, …     attention.py  from products and softmax   selection.py  maximum, max pooling, where
    complex.py      moduli, phases
"""

from . import attention as attention  # each fills the table
from . import complex as complex
from . import elementwise as elementwise
from . import normalise as normalise
from . import products as products
from . import selection as selection
from . import softmax as softmax
from .mode import ChordMode as ChordMode
from .mode import InnerGradient as InnerGradient
from .mode import eager as eager
