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
from .maps import Maps as Maps
from .metric import Metric as Metric
from .metric import as_metric as as_metric
from .metric import judge as judge
from .metric import known as known
from .metric import metric as metric
from .running import Result as Result
from .running import Running as Running
from .subject import Subject as Subject
