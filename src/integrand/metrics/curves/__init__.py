"""Curves: what a model says while features go, or come, in the order of a map.

curve.py         areas, what all share                 rise.py         deletion, insertion
order.py         MoRF, LeRF, AOPC, ABPC                difference.py   DiffID
imputation.py    ROAD                                  superpixels.py  IROF
information.py   SIC, AIC: the score over bytes shown  gap.py          PGI, PGU
tokens.py        comprehensiveness, sufficiency, log-odds
"""

from .curve import area as area
from .difference import DiffID as DiffID
from .difference import diffid as diffid
from .gap import PGI as PGI
from .gap import PGU as PGU
from .gap import pgi as pgi
from .gap import pgu as pgu
from .imputation import ROAD as ROAD
from .imputation import ROADLeRF as ROADLeRF
from .imputation import road as road
from .imputation import road_lerf as road_lerf
from .information import AIC as AIC
from .information import SIC as SIC
from .information import aic as aic
from .information import sic as sic
from .order import ABPC as ABPC
from .order import AOPC as AOPC
from .order import LeRF as LeRF
from .order import MoRF as MoRF
from .order import abpc as abpc
from .order import aopc as aopc
from .order import lerf as lerf
from .order import morf as morf
from .rise import Deletion as Deletion
from .rise import Insertion as Insertion
from .rise import deletion as deletion
from .rise import insertion as insertion
from .superpixels import IROF as IROF
from .superpixels import irof as irof
from .tokens import Comprehensiveness as Comprehensiveness
from .tokens import LogOdds as LogOdds
from .tokens import Sufficiency as Sufficiency
from .tokens import comprehensiveness as comprehensiveness
from .tokens import log_odds as log_odds
from .tokens import sufficiency as sufficiency
