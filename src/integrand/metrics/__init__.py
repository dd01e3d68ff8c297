"""Metrics: how good an explanation is, measured.

subject.py    what is judged on: a field, inputs, masks           maps.py     what is judged: maps of one or several methods
metric.py     what a metric is, its name, and its doors           running.py  a metric over a data set
ranks.py      ranks and correlations with ties                    localisation.py  maps against masks
scalars.py    what a map is like                                  agreement.py     maps against maps
graphs.py     fidelity, unfaithfulness                            xai_bench/       problems whose answers are known
removal.py    the engine of curves                                curves/     what is measured with it
axiomatic/    the axioms as a tool
"""

from . import xai_bench as xai_bench
from .agreement import Agreement as Agreement
from .agreement import agreement as agreement
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
from .graphs import Characterization as Characterization
from .graphs import FidelityMinus as FidelityMinus
from .graphs import FidelityPlus as FidelityPlus
from .graphs import Jaccard as Jaccard
from .graphs import Sparsity as Sparsity
from .graphs import Unfaithfulness as Unfaithfulness
from .graphs import characterization as characterization
from .graphs import characterize as characterize
from .graphs import fidelities as fidelities
from .graphs import fidelity_minus as fidelity_minus
from .graphs import fidelity_plus as fidelity_plus
from .graphs import jaccard as jaccard
from .graphs import sparsity as sparsity
from .graphs import unfaithful as unfaithful
from .graphs import unfaithfulness as unfaithfulness
from .localisation import LocalisationAUC as LocalisationAUC
from .localisation import MaskOverlap as MaskOverlap
from .localisation import PointingGame as PointingGame
from .localisation import RelevanceMass as RelevanceMass
from .localisation import RelevanceRank as RelevanceRank
from .localisation import TopIntersection as TopIntersection
from .localisation import localisation_auc as localisation_auc
from .localisation import mask_overlap as mask_overlap
from .localisation import pointing_game as pointing_game
from .localisation import relevance_mass as relevance_mass
from .localisation import relevance_rank as relevance_rank
from .localisation import top_intersection as top_intersection
from .maps import Maps as Maps
from .metric import Metric as Metric
from .metric import as_metric as as_metric
from .metric import judge as judge
from .metric import known as known
from .metric import metric as metric
from .running import Result as Result
from .running import Running as Running
from .scalars import CompletenessGap as CompletenessGap
from .scalars import Complexity as Complexity
from .scalars import EffectiveComplexity as EffectiveComplexity
from .scalars import Sparseness as Sparseness
from .scalars import completeness_gap as completeness_gap
from .scalars import complexity as complexity
from .scalars import effective_complexity as effective_complexity
from .scalars import sparseness as sparseness
from .subject import Subject as Subject
