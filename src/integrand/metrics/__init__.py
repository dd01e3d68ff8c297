"""Metrics: how good an explanation is, measured.

subject.py    what is judged on: a field, inputs, masks           maps.py     what is judged: maps of one or several methods
metric.py     what a metric is, its name, and its doors           running.py  a metric over a data set
removal.py    the engine of curves                                curves.py   deletion, insertion
axiomatic/    the axioms as a tool
"""

from .axiomatic import Axioms as Axioms
from .axiomatic import Verdict as Verdict
from .axiomatic import axioms as axioms
from .curves import Deletion as Deletion
from .curves import Insertion as Insertion
from .curves import area as area
from .curves import deletion as deletion
from .curves import insertion as insertion
from .effects import Monotonicity as Monotonicity
from .effects import MonotonicityCorrelation as MonotonicityCorrelation
from .effects import NonSensitivity as NonSensitivity
from .effects import Within as Within
from .effects import monotonicity as monotonicity
from .effects import monotonicity_correlation as monotonicity_correlation
from .effects import non_sensitivity as non_sensitivity
from .faithfulness import FaithfulnessCorrelation as FaithfulnessCorrelation
from .faithfulness import FaithfulnessEstimate as FaithfulnessEstimate
from .faithfulness import SensitivityN as SensitivityN
from .faithfulness import faithfulness_correlation as faithfulness_correlation
from .faithfulness import faithfulness_estimate as faithfulness_estimate
from .faithfulness import sensitivity_n as sensitivity_n
from .infidelity import Infidelity as Infidelity
from .infidelity import Jitter as Jitter
from .infidelity import NoisyFill as NoisyFill
from .infidelity import RandomFeatures as RandomFeatures
from .infidelity import Square as Square
from .infidelity import infidelity as infidelity
from .maps import Maps as Maps
from .metric import Metric as Metric
from .metric import as_metric as as_metric
from .metric import judge as judge
from .metric import known as known
from .metric import metric as metric
from .randomisation import MPRT as MPRT
from .randomisation import EfficientMPRT as EfficientMPRT
from .randomisation import RandomLogit as RandomLogit
from .randomisation import SmoothMPRT as SmoothMPRT
from .randomisation import efficient_mprt as efficient_mprt
from .randomisation import mprt as mprt
from .randomisation import random_logit as random_logit
from .randomisation import smooth_mprt as smooth_mprt
from .retraining import Retraining as Retraining
from .retraining import diff_roar as diff_roar
from .retraining import kar as kar
from .retraining import roar as roar
from .running import Result as Result
from .running import Running as Running
from .stability import MaxSensitivity as MaxSensitivity
from .stability import max_sensitivity as max_sensitivity
from .subject import Subject as Subject
