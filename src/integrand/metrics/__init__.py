"""Metrics: how good an explanation is, measured.

subject.py    what is judged on: a field, inputs, masks           maps.py     what is judged: maps of one or several methods
metric.py     what a metric is, its name, and its doors           running.py  a metric over a data set
removal.py    the engine of curves                                curves/     what is measured with it
axiomatic/    the axioms as a tool
"""

from .axiomatic import Axioms as Axioms
from .axiomatic import Verdict as Verdict
from .axiomatic import axioms as axioms
from .curves import ABPC as ABPC
from .curves import AIC as AIC
from .curves import AOPC as AOPC
from .curves import IROF as IROF
from .curves import PGI as PGI
from .curves import PGU as PGU
from .curves import ROAD as ROAD
from .curves import SIC as SIC
from .curves import Comprehensiveness as Comprehensiveness
from .curves import Deletion as Deletion
from .curves import DiffID as DiffID
from .curves import Insertion as Insertion
from .curves import LeRF as LeRF
from .curves import LogOdds as LogOdds
from .curves import MoRF as MoRF
from .curves import ROADLeRF as ROADLeRF
from .curves import Sufficiency as Sufficiency
from .curves import abpc as abpc
from .curves import aic as aic
from .curves import aopc as aopc
from .curves import area as area
from .curves import comprehensiveness as comprehensiveness
from .curves import deletion as deletion
from .curves import diffid as diffid
from .curves import insertion as insertion
from .curves import irof as irof
from .curves import lerf as lerf
from .curves import log_odds as log_odds
from .curves import morf as morf
from .curves import pgi as pgi
from .curves import pgu as pgu
from .curves import road as road
from .curves import road_lerf as road_lerf
from .curves import sic as sic
from .curves import sufficiency as sufficiency
from .maps import Maps as Maps
from .metric import Metric as Metric
from .metric import as_metric as as_metric
from .metric import judge as judge
from .metric import known as known
from .metric import metric as metric
from .running import Result as Result
from .running import Running as Running
from .subject import Subject as Subject
