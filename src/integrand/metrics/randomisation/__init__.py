"""Whether an explanation depends on what the model learnt: parameters and classes swapped for random ones.

weights.py     a model's layers made random, and put back          similarity.py  how alike two maps are
parameters.py  MPRT, smooth MPRT, efficient MPRT                   logit.py       the random logit test
"""

from .logit import RandomLogit as RandomLogit
from .logit import random_logit as random_logit
from .parameters import MPRT as MPRT
from .parameters import EfficientMPRT as EfficientMPRT
from .parameters import SmoothMPRT as SmoothMPRT
from .parameters import efficient_mprt as efficient_mprt
from .parameters import mprt as mprt
from .parameters import smooth_mprt as smooth_mprt
