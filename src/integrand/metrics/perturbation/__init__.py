"""Metrics that replace features: curves of the score while features are removed or inserted in the
order of a map, correlations, and effects.

removal.py         the engine of every curve
curve.py           areas, what all curves share
deletion.py        deletion, insertion
order.py           MoRF, LeRF, AOPC, ABPC
diffid.py          DiffID
road.py            ROAD
irof.py            IROF
information.py     SIC, AIC: the score over bytes shown
tokens.py          comprehensiveness, sufficiency, log-odds
soft_tokens.py     the same of tokens that are noised by their importance
prediction_gap.py  PGI, PGU
subsets.py         the engine of sampled faithfulness: subsets of features replaced
faithfulness.py    sensitivity-n, faithfulness correlation and estimate
effects.py         effects of single features
infidelity.py      infidelity
graphs.py          fidelity of subgraphs
"""

from .curve import area as area
from .deletion import Deletion as Deletion
from .deletion import Insertion as Insertion
from .deletion import deletion as deletion
from .deletion import insertion as insertion
from .diffid import DiffID as DiffID
from .diffid import diffid as diffid
from .information import AIC as AIC
from .information import SIC as SIC
from .information import aic as aic
from .information import sic as sic
from .irof import IROF as IROF
from .irof import irof as irof
from .order import ABPC as ABPC
from .order import AOPC as AOPC
from .order import LeRF as LeRF
from .order import MoRF as MoRF
from .order import abpc as abpc
from .order import aopc as aopc
from .order import lerf as lerf
from .order import morf as morf
from .prediction_gap import PGI as PGI
from .prediction_gap import PGU as PGU
from .prediction_gap import pgi as pgi
from .prediction_gap import pgu as pgu
from .road import ROAD as ROAD
from .road import ROADLeRF as ROADLeRF
from .road import road as road
from .road import road_lerf as road_lerf
from .soft_tokens import SoftComprehensiveness as SoftComprehensiveness
from .soft_tokens import SoftSufficiency as SoftSufficiency
from .soft_tokens import soft_comprehensiveness as soft_comprehensiveness
from .soft_tokens import soft_sufficiency as soft_sufficiency
from .tokens import Comprehensiveness as Comprehensiveness
from .tokens import LogOdds as LogOdds
from .tokens import Sufficiency as Sufficiency
from .tokens import comprehensiveness as comprehensiveness
from .tokens import log_odds as log_odds
from .tokens import sufficiency as sufficiency
