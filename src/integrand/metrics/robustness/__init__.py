"""Whether an explanation depends on what the model learnt: parameters and classes swapped for
random ones.

weights.py     a model's layers made random, and put back          similarity.py  how alike two maps are
parameters.py  MPRT, smooth MPRT, efficient MPRT                   logit.py       the random logit test
"""

from .mprt import MPRT as MPRT
from .mprt import EfficientMPRT as EfficientMPRT
from .mprt import SmoothMPRT as SmoothMPRT
from .mprt import efficient_mprt as efficient_mprt
from .mprt import mprt as mprt
from .mprt import smooth_mprt as smooth_mprt
from .random_logit import RandomLogit as RandomLogit
from .random_logit import random_logit as random_logit
