"""Robustness and sanity checks: how maps change when inputs, parameters or classes do.

max_sensitivity.py  small changes of the input
mprt.py             MPRT, smooth MPRT, efficient MPRT
random_logit.py     the random logit test
reset_weights.py    layers made random, and restored
similarity.py       how alike two maps are
"""

from .mprt import MPRT as MPRT
from .mprt import EfficientMPRT as EfficientMPRT
from .mprt import SmoothMPRT as SmoothMPRT
from .mprt import efficient_mprt as efficient_mprt
from .mprt import mprt as mprt
from .mprt import smooth_mprt as smooth_mprt
from .random_logit import RandomLogit as RandomLogit
from .random_logit import random_logit as random_logit
